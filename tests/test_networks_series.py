"""Recurrent networks, attention, and convolutions along time, against torch's own layers run on one unpadded series."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn

import diabolo
from diabolo import VQVAE, Autoencoder, ContractiveAutoencoder
from diabolo.checks import ParameterError, parameter_fields
from diabolo.parts.networks.attention import Attention, Block
from diabolo.parts.networks.base import Patches, by_rows, fourier_features
from diabolo.parts.networks.conv import Conv
from diabolo.parts.networks.recurrent import Recurrent
from diabolo.records import Schema
from diabolo.seeding import seeded
from rows import MODELS, Row, identify

DIGITS = load_digits().images[:60]
RNG = np.random.default_rng(0)
SERIES = [RNG.normal(size=(n, 2)) for n in (5, 1, 9, 3, 9, 7, 2, 4, 6, 9)]
QUICK = {"hidden": (8,), "max_epochs": 1, "random_state": 0, "device": "cpu"}


def series(channels: int, steps: int, context: int = 0) -> Schema:
    return Schema("series", (channels, steps), 10, context=context)


def shaken(module: nn.Module) -> nn.Module:
    """Move weights that start at zero, so that nothing hides behind them."""
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape)
    return module.eval()


# recurrent ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("hidden", [(5,), (5, 4)])
def test_the_encoder_is_torchs_bidirectional_layer_on_the_series_alone(cell, hidden):
    """Each padded series gives what nn.GRU(bidirectional=True) gives on that series without padding."""
    with seeded(0):
        encoder = shaken(Recurrent(cell, hidden).encoder(series(2, 9), 3, spatial=False)).double()
        x = torch.randn(3, 2, 9, dtype=torch.float64)
    mask = torch.ones_like(x)
    lengths = [9, 4, 1]
    for row, length in enumerate(lengths):
        mask[row, :, length:] = 0
    mask[1, 0, 2] = 0  # a hole inside
    x = x * mask
    out = encoder(x, mask=mask)
    for row, length in enumerate(lengths):
        h = torch.cat([x, 1 - mask], dim=1)[[row], :, :length].transpose(1, 2)
        inp = h.shape[2]
        for onward, backward, width in zip(encoder.onward, encoder.backward, hidden, strict=True):
            both = Recurrent.CELLS[cell](inp, width, batch_first=True, bidirectional=True).double()
            for name, value in onward.cell.named_parameters():
                getattr(both, name).data = value.data
            for name, value in backward.cell.named_parameters():
                getattr(both, f"{name}_reverse").data = value.data
            h, inp = both(h)[0], 2 * width
        last = hidden[-1]
        summary = torch.cat([h[0, -1, :last], h[0, 0, last:], h[0].mean(dim=0)])
        # float64: the same products, summed in another order
        torch.testing.assert_close(out[row], encoder.head(summary), rtol=1e-9, atol=1e-12)


def test_long_series_are_read_in_frames():
    """Of 70 steps a cell takes three at a time, 24 frames in all; a series of 40 ends within the fourteenth."""
    with seeded(0):
        encoder = shaken(Recurrent("lstm", (5,)).encoder(series(2, 70), 3, spatial=False)).double()
        x = torch.randn(1, 2, 70, dtype=torch.float64)
    mask = (torch.arange(70) < 40).double().expand(1, 2, 70)
    cells = torch.cat([nn.functional.pad(t[:, :, :40], (0, 2)) for t in (x, mask)], dim=1)  # (1, 4, 42)
    frames = cells.reshape(1, 4, 14, 3).permute(0, 2, 1, 3).reshape(1, 14, 12)
    frames[:, :, 6:] = 1 - frames[:, :, 6:]  # missing, not observed
    there, back = encoder.onward[0].cell(frames)[0], encoder.backward[0].cell(frames.flip(1))[0]
    summary = torch.cat([there[:, -1], back[:, -1], there.mean(1), back.mean(1)], dim=1)
    # float64: the same products, summed in another order
    torch.testing.assert_close(encoder(x * mask, mask=mask), encoder.head(summary), rtol=1e-9, atol=1e-12)
    decoder = Recurrent("lstm", (5,)).decoder(series(2, 70), 3, 2, spatial=False)
    assert decoder(torch.randn(4, 3)).shape == (4, 2, 2, 70)


def test_the_decoder_is_torchs_layer_over_code_and_time():
    with seeded(0):
        decoder = shaken(Recurrent("gru", (5,)).decoder(series(2, 6, context=1), 3, 2, spatial=False)).double()
        z, context = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    t = torch.arange(6, dtype=torch.float64) / 6
    waves = [f(math.pi * 2**k * t) for f in (torch.sin, torch.cos) for k in range(4)]
    inputs = torch.cat([z, context], dim=1)[:, None].expand(-1, 6, -1)
    inputs = torch.cat([inputs[..., :3], torch.stack(waves, 1).expand(4, -1, -1), inputs[..., 3:]], dim=2)
    h, _ = decoder.layers[0].cell(inputs)
    out = decoder.head(h).transpose(1, 2).reshape(4, 2, 2, 6)
    # the features of the time are made in float32
    torch.testing.assert_close(decoder(z, context), out, rtol=1e-5, atol=1e-6)


def test_rows_taken_a_few_at_a_time_are_the_same_rows():
    x, mask = torch.randn(10, 3), torch.rand(10, 3)
    with torch.no_grad():
        parts = by_rows(lambda a, b, c: a * c if b is None else b, 3, x, None, mask)
    torch.testing.assert_close(parts, x * mask, rtol=0, atol=0)


def test_a_recurrent_net_learns_delayed_copies():
    """One bump at a random time: no fixed component tells its place, a recurrent net does."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(250):
        t = np.arange(rng.integers(16, 25))
        rows.append(np.exp(-0.5 * np.square((t - rng.uniform(3, len(t) - 3)) / 1.5)))
    model = Autoencoder(
        2, network="lstm", hidden=(16,), max_epochs=20, batch_size=16, learning_rate=1e-2, random_state=0
    ).fit(rows[:200])
    error = sum(np.square(a - b).sum() for a, b in zip(model.reconstruct(rows[200:]), rows[200:], strict=True))
    mean = np.concatenate(rows[:200]).mean()
    spread = sum(np.square(b - mean).sum() for b in rows[200:])
    assert error < 0.5 * spread  # a net that learns nothing stays at the spread


# convolutions along time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("hidden", [(), (4,), (4, 6, 4)])
def test_convolutions_keep_any_length(steps, hidden):
    schema = series(2, steps, context=1)
    context = torch.randn(3, 1)
    encoder, decoder = Conv(hidden).encoder(schema, 3, spatial=False), Conv(hidden).decoder(schema, 3, 2, spatial=False)
    z = encoder(torch.randn(3, 2, steps), context)
    assert z.shape == (3, 3)
    assert decoder(z, context).shape == (3, 2, 2, steps)
    assert any(isinstance(m, nn.Conv1d) for m in encoder.modules()) == bool(hidden)
    grid = Conv(hidden).encoder(schema, 3, spatial=True)(torch.randn(3, 2, steps), context)
    assert grid.shape == (3, 3, math.ceil(steps / 2 ** len(hidden)))
    assert Conv(hidden).decoder(schema, 3, 1, spatial=True)(grid, context).shape == (3, 1, 2, steps)


def test_convolutions_go_along_three_lengths_too():
    schema = Schema("image", (2, 5, 4, 3), 10)
    z = Conv((4, 4), norm="batch", dropout=0.1).encoder(schema, 3, spatial=False)(torch.randn(2, 2, 5, 4, 3))
    assert Conv((4, 4), norm="layer").decoder(schema, 3, 1, spatial=False)(z).shape == (2, 1, 2, 5, 4, 3)


def test_a_convolution_starts_at_principal_components():
    rows = np.random.default_rng(0).normal(size=(60, 3)) @ np.random.default_rng(1).normal(size=(3, 12))
    start = Autoencoder(
        2,
        network="shortcut_conv",
        kind="series",
        max_epochs=1,
        learning_rate=1e-12,
        validation_fraction=0,
        random_state=0,
    ).fit(rows)
    pca = PCA(2).fit(rows)
    # the weights are float32
    np.testing.assert_allclose(start.reconstruct(rows), pca.inverse_transform(pca.transform(rows)), atol=1e-4)


# attention ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1), (2, 64), (1, 65), (3, 100), (1, 8, 8), (3, 20, 9), (1, 1, 30), (2, 5, 6, 7)])
def test_patches_are_cut_and_joined(shape):
    patches = Patches(shape)
    x = torch.randn(2, *shape)
    tokens = patches.cut(x)
    assert tokens.shape == (2, math.prod(patches.grid), shape[0] * patches.size)
    assert math.prod(patches.grid) <= 64
    torch.testing.assert_close(patches.join(tokens), x, rtol=0, atol=0)


def test_a_patch_is_a_square():
    x = torch.arange(16.0 * 16).reshape(1, 1, 16, 16)
    patches = Patches((1, 16, 16))
    assert (patches.side, patches.grid) == (2, (8, 8))
    assert patches.cut(x)[0, 9].tolist() == [34.0, 35.0, 50.0, 51.0]  # second row of patches, second of it


def test_a_block_is_torchs_encoder_layer():
    with seeded(0):
        block = shaken(Block(8, "relu", 0.0))
        x, there = torch.randn(3, 5, 8), torch.rand(3, 5) > 0.4
    there[:, 0] = True
    layer = nn.TransformerEncoderLayer(8, 4, 16, 0.0, "relu", batch_first=True, norm_first=True).eval()
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block.pairs.weight,
            "self_attn.in_proj_bias": block.pairs.bias,
            "self_attn.out_proj.weight": block.mix.weight,
            "self_attn.out_proj.bias": block.mix.bias,
            "linear1.weight": block.layers[0].weight,
            "linear1.bias": block.layers[0].bias,
            "linear2.weight": block.layers[2].weight,
            "linear2.bias": block.layers[2].bias,
            "norm1.weight": block.first.weight,
            "norm1.bias": block.first.bias,
            "norm2.weight": block.second.weight,
            "norm2.bias": block.second.bias,
        }
    )
    expected = layer(x, src_key_padding_mask=~there)
    # float32 sums in another order
    torch.testing.assert_close(block(x, there)[there], expected[there], rtol=1e-4, atol=1e-5)


def test_without_places_the_order_of_tokens_does_not_matter():
    with seeded(0):
        encoder = shaken(Attention((8, 8)).encoder(series(1, 20), 3, spatial=False)).double()
        x = torch.randn(4, 1, 20, dtype=torch.float64)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(encoder(x), encoder(x[:, :, order]))
    encoder.place.weight.data.zero_()
    # float64 sums in another order
    torch.testing.assert_close(encoder(x), encoder(x[:, :, order]), rtol=1e-9, atol=1e-12)
    grid = Attention((8,)).encoder(series(1, 20), 3, spatial=True).eval().double()
    shaken(grid).place.weight.data.zero_()
    torch.testing.assert_close(grid(x)[:, :, order], grid(x[:, :, order]), rtol=1e-9, atol=1e-12)


def test_tokens_without_an_observation_have_no_influence():
    """A masked token is as if it were not there: the rest, encoded alone, gives the same code."""
    with seeded(0):
        encoder = shaken(Attention((8, 8)).encoder(series(2, 20), 3, spatial=False)).double()
        x = torch.randn(4, 2, 20, dtype=torch.float64)
    mask = torch.ones_like(x)
    mask[:, :, 13:] = 0
    short = shaken(Attention((8, 8)).encoder(series(2, 13), 3, spatial=False)).double()
    short.load_state_dict(encoder.state_dict())
    short.places = encoder.places[:13]
    # float64 sums in another order
    torch.testing.assert_close(encoder(x * mask, mask=mask), short(x[:, :, :13]), rtol=1e-9, atol=1e-12)
    assert torch.isfinite(encoder(0 * x, mask=0 * mask)).all()  # nothing is observed at all


def test_images_of_any_size_and_codes_on_a_grid():
    X = RNG.random((20, 2, 19, 11))
    ae = Autoencoder(2, network="attention", **QUICK).fit(X)
    assert ae.reconstruct(X).shape == X.shape
    X[:, :, :4] = np.nan
    X[0, :, :4] = 0.5
    assert np.isfinite(ae.fit(X).reconstruct(X)).all()
    vq = VQVAE(4, code_dim=4, n_codes=8, network="attention", **QUICK).fit(X)
    assert vq.module_.code_shape == (4, 7, 4)
    assert vq.reconstruct(X).shape == X.shape


def test_second_derivatives_exist():
    for network in ("attention", "gru", "lstm"):
        model = ContractiveAutoencoder(2, network=network, **QUICK).fit(SERIES)
        assert np.isfinite(model.history_["contraction"]).all()


def test_features_of_places_are_distinct():
    for lengths in [(1,), (100,), (8, 8), (4, 4, 4)]:
        features = fourier_features(lengths, 6)
        assert features.shape == (math.prod(lengths), 12 * len(lengths))
        assert len(torch.unique((features * 1e4).round(), dim=0)) == len(features)


# every model --------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:posterior collapse")  # one epoch on ten series of noise
@pytest.mark.parametrize("network", ["auto", "gru", "attention"])
@pytest.mark.parametrize("row", MODELS, ids=identify)
def test_every_model_takes_series(row: Row, network, tmp_path):
    model = clone(row.estimator).set_params(max_epochs=1)
    if "build" not in model.get_params():
        model.set_params(network=network, hidden=(8,))
        choices = next(f.hint for f in parameter_fields(type(model)) if f.name == "network")
        if network not in get_args(choices) and network != "auto":  # a model of other networks says which
            with pytest.raises(ParameterError, match=f"network='{network}': expected"):
                model.fit(SERIES)
            return
        if network not in get_args(choices):
            model.set_params(network="mlp")
    model.fit(SERIES, ["a", "b"] * 5)  # a condition, for models of one; the others ignore it
    Z = model.transform(SERIES)
    assert np.isfinite(Z).all()
    assert [row.shape for row in model.reconstruct(SERIES)] == [row.shape for row in SERIES]
    assert model.inverse_transform(Z).shape == (10, 9, 2)
    assert np.isfinite(model.score_samples(SERIES)).all()
    if network == "gru":
        model.save(tmp_path / "m")
        again = diabolo.load(tmp_path / "m", build=model.get_params().get("build"))
        np.testing.assert_array_equal(again.score_samples(SERIES), model.score_samples(SERIES))


@pytest.mark.parametrize("network", ["gru", "lstm", "attention", "conv"])
def test_the_gradient_reaches_every_parameter(network):
    options = {"norm": "layer", "dropout": 0.1} | QUICK
    model = Autoencoder(2, network=network, **options | {"hidden": (8, 8)}).fit(SERIES)
    module = model.module_.train()
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    model._objective()(module, model.codec_.encode(model._read(SERIES, reset=False)).slice(0, 10), 0.5).total.backward()
    assert not [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("network", ["gru", "attention"])
def test_bfloat16(network):
    model = Autoencoder(2, network=network, precision="bfloat16", **QUICK).fit(SERIES)
    assert np.isfinite(model.transform(SERIES)).all()


# what cannot be -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "X", "message"),
    [
        (
            "gru",
            DIGITS,
            r"is for series \(kind='series'\); X has rows of shape \(1, 8, 8\), image data\. Use one of network=",
        ),
        (
            "lstm",
            DIGITS.reshape(60, 64),
            r"vector data\. Use one of network='shortcut_mlp', 'mlp', 'residual_mlp'; or say",
        ),
        ("attention", DIGITS.reshape(60, 64), r"is for images .* and for series"),
    ],
)
def test_rows_of_another_kind_are_refused(network, X, message):
    for hidden in ("auto", (8,)):
        with pytest.raises(ValueError, match=message):
            Autoencoder(2, network=network, hidden=hidden, max_epochs=1).fit(X)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("attention", {"hidden": (8, 16)}, r"one width for all blocks, a multiple of 4, .* got hidden=\(8, 16\)"),
        ("attention", {"hidden": (6,)}, "a multiple of 4"),
        ("attention", {"hidden": ()}, "one width for all blocks"),
        ("attention", {"norm": "batch"}, "norm='layer' or None, not 'batch'"),
        ("gru", {"hidden": ()}, "at least one layer"),
        ("lstm", {"norm": "batch"}, "norm='layer' or None, not 'batch'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        Autoencoder(2, network=network, **QUICK | options).fit(SERIES)
