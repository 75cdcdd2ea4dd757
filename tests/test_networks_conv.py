"""Convolutional networks: sizes, symmetries, independence of rows, an independent formula, and all models on images."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn

import diabolo
from diabolo import Autoencoder, AutoencoderModule, CustomAutoencoder
from diabolo.checks import ParameterError, parameter_fields
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.parts.networks.conv import Conv, stage_channels
from diabolo.records import Schema
from diabolo.seeding import seeded
from rows import MODELS, Row, identify

DIGITS = load_digits().images[:60]
F64 = 1e-10  # relative error of a few hundred float64 operations, with room


def image(channels: int, height: int, width: int, context: int = 0) -> Schema:
    return Schema("image", (channels, height, width), 10, context=context)


def general(module: nn.Module) -> nn.Module:
    """Leave the start, where some layers are zero, for a general point; in float64."""
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape)
    return module.double()


# shapes -------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 33), st.integers(1, 33)),
    hidden=st.sampled_from([(), (4,), (8, 4), (3, 4, 5)]),
    params=st.integers(1, 2),
    context=st.sampled_from([0, 2]),
    form=st.sampled_from(["grid", "flat", "shortcut"]),
)
def test_an_image_of_any_size_keeps_its_size(size, hidden, params, context, form):
    schema, spatial = image(*size, context=context), form == "grid"
    network = Conv(hidden, shortcut=form == "shortcut")
    with seeded(0), torch.no_grad():
        encoder = network.encoder(schema, 6, spatial=spatial)
        decoder = network.decoder(schema, 3, params, spatial=spatial)
        given_context = (torch.randn(2, context),) if context else ()
        h = encoder(torch.randn(2, *size), *given_context)
        raw = decoder(h[:, :3], *given_context)
    stride = 2 ** len(hidden)
    grid = (math.ceil(size[1] / stride), math.ceil(size[2] / stride)) if spatial else ()
    assert h.shape == (2, 6, *grid)
    assert raw.shape == (2, params, *size)


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        ((1, 1), (16,)),
        ((8, 8), (16,)),
        ((9, 3), (16,)),
        ((28, 28), (16, 32)),
        ((32, 20), (16, 32)),
        ((64, 64), (16, 32, 64)),
        ((33, 256), (16, 32, 64, 64, 64)),
    ],
)
def test_auto_stages_bring_the_grid_to_eight(size, channels):
    assert stage_channels(image(1, *size)) == channels
    assert max(size) / 2 ** len(channels) <= 8


def test_the_count_of_parameters():
    network, schema = Conv((16, 32)), image(1, 28, 28)
    block = {c: 2 * (9 * c * c + c) for c in (16, 32)}
    encoder = (9 * 16 + 16) + block[16] + (9 * 16 * 32 + 32) + block[32] + (49 * 32 * 10 + 10)
    decoder = (10 + 1) * 49 * 32 + block[32] + (9 * 32 * 16 + 16) + block[16] + (9 * 16 + 1)
    halves = network.encoder(schema, 10, spatial=False), network.decoder(schema, 10, 1, spatial=False)
    assert [sum(p.numel() for p in half.parameters()) for half in halves] == [encoder, decoder]
    assert all(len(half.state_dict()) == len(list(half.parameters())) for half in halves)  # none is stored twice
    assert encoder + decoder < 100_000  # the default full connections of this size have 1.3 million


# what the layers compute --------------------------------------------------------------------------------------------------------


def convolve(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """One image ``(C, h, w)`` through a convolution of stride 1, by scipy."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return np.stack(
        [
            sum(correlate2d(c, k, mode="same") for c, k in zip(x, w, strict=True)) + b
            for w, b in zip(weight, bias, strict=True)
        ]
    )


def test_both_halves_equal_a_formula_in_numpy():
    schema, network = image(2, 5, 4), Conv((3,), "tanh")
    with seeded(0):
        encoder = general(network.encoder(schema, 4, spatial=True))
        decoder = general(network.decoder(schema, 4, 1, spatial=True))
        x = torch.randn(1, 2, 5, 4, dtype=torch.float64)

    def block(x: np.ndarray, half: nn.Module) -> np.ndarray:
        inner = next(m for m in half.modules() if type(m).__name__ == "Block")
        first, second = (m for m in inner.modules() if isinstance(m, nn.Conv2d))
        return x + convolve(np.tanh(convolve(np.tanh(x), first)), second)

    down = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    h = block(convolve(x[0].numpy(), down)[:, ::2, ::2], encoder)
    z = convolve(np.tanh(h), encoder.head)
    np.testing.assert_allclose(encoder(x)[0].detach().numpy(), z, rtol=F64, atol=1e-12)
    up = np.tanh(block(convolve(z, decoder.first), decoder)).repeat(2, 1).repeat(2, 2)[:, :5, :4]
    raw = decoder(torch.from_numpy(z)[None])[0, 0]
    np.testing.assert_allclose(raw.detach().numpy(), convolve(up, decoder.head), rtol=F64, atol=1e-12)


def test_a_shift_by_the_stride_shifts_the_code_by_one():
    schema, network = image(1, 48, 48), Conv((4, 6))
    with seeded(0):
        encoder = general(network.encoder(schema, 3, spatial=True))
        decoder = general(network.decoder(schema, 3, 1, spatial=True))
        x = torch.randn(1, 1, 48, 48, dtype=torch.float64)
        z = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    there = encoder(torch.roll(x, (4, 4), (2, 3)))
    # a place of the grid sees 15 pixels to each side, which is four places
    torch.testing.assert_close(there[..., 5:-5, 5:-5], torch.roll(encoder(x), (1, 1), (2, 3))[..., 5:-5, 5:-5])
    assert not torch.allclose(there[..., 5:-5, 5:-5], encoder(x)[..., 5:-5, 5:-5])
    there = decoder(torch.roll(z, (1, 1), (2, 3)))
    back = torch.roll(decoder(z), (4, 4), (3, 4))
    torch.testing.assert_close(there[..., 20:-20, 20:-20], back[..., 20:-20, 20:-20])


@pytest.mark.parametrize("norm", [None, "layer"])
def test_rows_of_a_batch_do_not_see_each_other(norm):
    network, schema = Conv((4, 8), norm=norm), image(3, 9, 7)
    with seeded(0):
        encoder = general(network.encoder(schema, 5, spatial=False)).train()
        decoder = general(network.decoder(schema, 5, 1, spatial=False)).train()
        x = torch.randn(4, 3, 9, 7, dtype=torch.float64)
    together = decoder(encoder(x))
    alone = torch.cat([decoder(encoder(row[None])) for row in x])
    torch.testing.assert_close(together, alone, rtol=F64, atol=1e-12)


def test_without_gradients_rows_go_through_in_parts():
    network, schema = Conv((4,)), image(1, 128, 150)
    with seeded(0):
        encoder = general(network.encoder(schema, 2, spatial=False)).eval()
        x = torch.randn(7, 1, 128, 150, dtype=torch.float64)
    assert encoder.stages.rows == 3
    with torch.no_grad():
        parts, none = encoder(x), encoder(x[:0])
    torch.testing.assert_close(parts, encoder(x).detach(), rtol=F64, atol=1e-12)
    assert none.shape == (0, 2)


def test_layer_norm_takes_an_image_together_and_batch_norm_a_channel():
    with seeded(0):
        x = 3 + 2 * torch.randn(6, 4, 5, 5)
        for norm, over in (("layer", (1, 2, 3)), ("batch", (0, 2, 3))):
            encoder = Conv((4,), norm=norm).encoder(image(1, 9, 9), 2, spatial=False)
            block = next(m for m in encoder.modules() if type(m).__name__ == "Block")
            normed = block.body[0](x)
            # the variance has the small constant 1e-5 added below the root
            torch.testing.assert_close(normed.mean(over), torch.zeros_like(normed.mean(over)), atol=1e-5, rtol=0)
            torch.testing.assert_close(
                normed.var(over, correction=0), torch.ones_like(normed.mean(over)), atol=1e-4, rtol=0
            )


def test_dropout_drops_whole_channels_in_training_alone():
    with seeded(0):
        encoder = Conv((16,), dropout=0.5).encoder(image(1, 8, 8), 3, spatial=False)
        encoder = general(encoder).float()
        x = torch.randn(4, 1, 8, 8)
        assert not torch.equal(encoder(x), encoder(x))
        encoder.eval()
        assert torch.equal(encoder(x), encoder(x))
        seen: list[Tensor] = []
        drop = next(m for m in encoder.modules() if isinstance(m, nn.Dropout2d)).train()
        drop.register_forward_hook(lambda module, given, out: seen.append(out))
        encoder(x)
    zeros = (seen[0] == 0).flatten(2)
    assert torch.equal(zeros.all(2), zeros.any(2))
    assert 0 < zeros.all(2).float().mean() < 1


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"hidden": ()},
        {"hidden": (4, 6)},
        {"hidden": (4,), "norm": "layer", "activation": "relu"},
        {"hidden": (4, 6), "norm": "batch", "dropout": 0.1},
        {"hidden": (4, 6), "shortcut": True},
    ],
    ids=str,
)
def test_the_gradient_reaches_every_parameter(options, spatial, context):
    spatial = spatial and not options.get("shortcut")  # which is for codes without a grid
    network, schema = Conv(**options), image(2, 9, 6, context=context)
    with seeded(0):
        encoder = general(network.encoder(schema, 3, spatial=spatial))
        decoder = general(network.decoder(schema, 3, 2, spatial=spatial))
        given_context = (torch.randn(8, context, dtype=torch.float64),) if context else ()
        x = torch.randn(8, 2, 9, 6, dtype=torch.float64)
        decoder(encoder(x, *given_context), *given_context).square().sum().backward()
    for half in (encoder, decoder):
        for name, p in half.named_parameters():
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all(), name
            # batch normalisation subtracts the bias of a layer before it: its gradient is rounding alone
            assert options.get("norm") == "batch" or p.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("spatial", [False, True])
def test_the_context_changes_both_halves(spatial):
    network, schema = Conv((4,)), image(1, 6, 5, context=2)
    with seeded(0):
        encoder = network.encoder(schema, 3, spatial=spatial)
        decoder = network.decoder(schema, 3, 1, spatial=spatial)
        x, one, other = torch.randn(2, 1, 6, 5), torch.zeros(2, 2), torch.ones(2, 2)
    h = encoder(x, one)
    assert not torch.allclose(h, encoder(x, other))
    assert not torch.allclose(decoder(h, one), decoder(h, other))


# in models ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (3, 9, 4), (1, 1), (1, 11)])
@pytest.mark.parametrize("network", ["conv", "shortcut_conv"])
def test_reconstructions_have_the_shape_of_the_images(network, shape):
    X = np.random.default_rng(0).random((12, *shape))
    ae = Autoencoder(1, network=network, hidden=(4, 4), max_epochs=1, random_state=0).fit(X)
    assert ae.reconstruct(X).shape == X.shape
    assert ae.inverse_transform(ae.transform(X)).shape == X.shape


def test_the_shortcut_starts_at_principal_components():
    ae = Autoencoder(
        5, network="shortcut_conv", max_epochs=1, learning_rate=1e-12, validation_fraction=0, random_state=0
    )
    flat = DIGITS.reshape(60, 64)
    pca = PCA(5).fit(flat)
    linear = pca.inverse_transform(pca.transform(flat)).reshape(60, 8, 8)
    # float32 weights on pixels of up to 16
    np.testing.assert_allclose(ae.fit(DIGITS).reconstruct(DIGITS), linear, atol=1e-3)


def test_convolutions_learn():
    rng = np.random.default_rng(0)
    X = np.zeros((250, 14, 14))
    for x, (i, j) in zip(X, rng.integers(0, 12, (250, 2)), strict=True):
        x[i : i + 3, j : j + 3] = 1.0  # a square at one of 144 places: far from any eight linear components
    ae = Autoencoder(
        8, network="conv", hidden=(8,), likelihood="gaussian", max_epochs=25, learning_rate=5e-3, random_state=0
    ).fit(X[:200])
    flat = X.reshape(250, -1)
    pca = PCA(8).fit(flat[:200])
    linear = pca.inverse_transform(pca.transform(flat[200:]))
    error = np.square(ae.reconstruct(X[200:]) - X[200:]).mean()
    # it reaches a half; a network whose convolutions do not learn stays above 0.95
    assert error < 0.75 * np.square(linear - flat[200:]).mean()


@pytest.mark.parametrize("row", MODELS, ids=identify)
def test_every_model_takes_convolutions(row: Row, tmp_path):
    model = clone(row.estimator).set_params(max_epochs=1)
    if "build" not in model.get_params():
        model.set_params(network="conv", hidden=(4,))
        choices = next(f.hint for f in parameter_fields(type(model)) if f.name == "network")
        if "conv" not in get_args(choices):  # a model of other networks says which
            with pytest.raises(ParameterError, match="network='conv': expected"):
                model.fit(DIGITS)
            return
    model.fit(DIGITS, np.arange(60) % 2)  # a condition, for models of one; the others ignore it
    assert model.reconstruct(DIGITS).shape == DIGITS.shape
    Z = model.transform(DIGITS)
    assert np.isfinite(Z).all()
    assert model.inverse_transform(Z).shape == DIGITS.shape
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m", build=model.get_params().get("build"))
    np.testing.assert_array_equal(again.score_samples(DIGITS), model.score_samples(DIGITS))


def test_same_seed_same_weights():
    ae = Autoencoder(2, network="conv", hidden=(4, 4), dropout=0.1, max_epochs=2, random_state=0)
    np.testing.assert_array_equal(clone(ae).fit(DIGITS).transform(DIGITS), clone(ae).fit(DIGITS).transform(DIGITS))


def test_missing_pixels_and_tensors():
    X = DIGITS.copy()
    X[:, 3, 3] = np.nan
    X[0, 3, 3] = 5.0
    tensor = torch.from_numpy(X)
    ae = Autoencoder(2, network="conv", hidden=(4,), max_epochs=1, random_state=0).fit(tensor)
    filled = ae.reconstruct(tensor)
    assert isinstance(filled, Tensor)
    assert filled.shape == tensor.shape
    assert torch.isfinite(filled).all()


def test_a_grid_code_in_a_module_of_your_own():
    def build(schema: Schema) -> AutoencoderModule:
        bottleneck = Identity(2)
        bottleneck.spatial = True
        return AutoencoderModule.from_network(Conv((4,)), schema, bottleneck=bottleneck, likelihood=Gaussian())

    X = np.random.default_rng(0).random((20, 7, 9))
    model = CustomAutoencoder(build=build, max_epochs=1, random_state=0).fit(X)
    assert model.module_.code_shape == (2, 4, 5)
    assert model.transform(X).shape == (20, 40)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), model.reconstruct(X), rtol=1e-9)


# what cannot be -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["conv", "shortcut_conv"])
@pytest.mark.parametrize("hidden", ["auto", (4,)])
def test_a_table_is_refused(network, hidden):
    with pytest.raises(
        ValueError, match=r"is for images .* rows of shape \(64,\), .* Use one of network='shortcut_mlp'"
    ):
        Autoencoder(2, network=network, hidden=hidden, max_epochs=1).fit(DIGITS.reshape(60, 64))


def test_a_shortcut_beside_a_grid_is_refused():
    with pytest.raises(ValueError, match="needs a code without a grid"):
        Conv((4,), shortcut=True).encoder(image(1, 8, 8), 2, spatial=True)


def test_images_of_different_sizes_are_refused_and_lists_of_one_size_are_stacked():
    mixed = [np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((5, 3))]
    ragged = np.empty(3, dtype=object)
    ragged[:] = mixed
    ae = Autoencoder(2, network="conv", hidden=(4,), max_epochs=1, random_state=0)
    for X in (mixed, ragged):
        with pytest.raises(ValueError, match=r"one size; image 0 has shape \(4, 4\), image 2 has \(5, 3\)"):
            ae.fit(X)
    np.testing.assert_array_equal(ae.fit(list(DIGITS)).transform(list(DIGITS)), clone(ae).fit(DIGITS).transform(DIGITS))
    with pytest.raises(ValueError, match=r"rows of shape \(1, 5, 5\), expected \(1, 8, 8\)"):
        ae.transform(np.zeros((2, 5, 5)))


def test_images_without_pixels_are_refused():
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        Autoencoder(2, network="conv", max_epochs=1).fit(np.zeros((5, 0, 4)))
