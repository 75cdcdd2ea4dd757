"""Layer-wise pre-training: what it reaches alone, what it is worth, and that runs can be repeated, stopped and taken up."""

from __future__ import annotations

import copy
import os
import signal
import time

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris

import diabolo
from diabolo import VAE, Autoencoder, BetaTCVAE, DenoisingAutoencoder, SparseAutoencoder, TiedAutoencoder
from diabolo.checks import ParameterError
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.corruptions import GaussianNoise, Masking, Occlusion
from diabolo.parts.likelihoods import Gaussian
from diabolo.parts.networks.mlp import MLP
from diabolo.records import Schema, Table
from diabolo.seeding import seeded
from diabolo.training import layerwise
from diabolo.training.layerwise import layer_modules, pretrain_layers
from diabolo.training.loop import Run, Settings
from diabolo.training.rows import Selection
from rows import MODELS

X = load_iris().data
DIGITS = load_digits()
QUICK = {
    "hidden": (8, 6),
    "max_epochs": 3,
    "pretrain": "layerwise",
    "pretrain_epochs": 2,
    "patience": None,
    "random_state": 0,
    "device": "cpu",
}


def deep(hidden=(40, 30, 20), code=5, d=16, seed=0, **network):
    schema = Schema("vector", (d,), 200)
    with seeded(seed):
        return schema, AutoencoderModule.from_network(
            MLP(hidden, "sigmoid", **network), schema, bottleneck=Identity(code), likelihood=Gaussian()
        )


def rows(n=200, d=16):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)) @ rng.normal(size=(3, d))
    return torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)


def error(module, x):
    with torch.no_grad():
        return float((module.decode(module.encode(x).z)[:, 0] - x).square().mean())


def settings(**more):
    return Settings(max_epochs=5, batch_size=32, learning_rate=1e-2, **more)


def pretrain(module, schema, x, epochs=30, **more):
    run = Run(module, torch.optim.SGD(module.parameters(), lr=0.1), settings(**more))
    table, order = Table(schema, x), torch.arange(len(x))
    with seeded(0):
        pretrain_layers(
            run,
            rows=Selection(table, order[20:]),
            held_out=Selection(table, order[:20]),
            objective=layerwise.elbo,
            epochs=epochs,
        )
    return run


# the layers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [{}, {"norm": "batch", "dropout": 0.2}, {"norm": "layer"}, {"residual": True}])
def test_the_layers_in_a_row_are_the_whole(network):
    schema, module = deep(**network)
    module.eval()
    parts = layer_modules(module, schema)
    x = rows()
    h = x
    for part in parts:
        h = part.eval().encode(h).z
    torch.testing.assert_close(h, module.encode(x).z)
    for part in parts[::-1]:
        h = part.decode(h)[:, 0]
    torch.testing.assert_close(h, module.decode(module.encode(x).z)[:, 0])
    shared = {id(p) for part in parts for p in part.parameters()}
    assert shared == {id(p) for p in module.parameters()}
    assert sum(p.numel() for part in parts for p in part.parameters()) == sum(p.numel() for p in module.parameters())


def test_pretraining_alone_rebuilds_better_than_a_random_start_and_every_layer_learns():
    schema, module = deep()
    x = rows()
    before = error(module, x)
    run = pretrain(module, schema, x)
    assert error(module, x) < 0.6 * before  # 0.30 of it here
    assert len(run.history.events) == 4
    for i, event in enumerate(run.history.events):
        assert event.startswith(f"layer {i + 1} of 4 pre-trained for 30 epochs: loss ")
        first, best = (float(word) for word in event.split("loss ")[1].removesuffix(" nats per row").split(" -> "))
        assert best < first
    assert run.seconds > 0
    assert run.history.rows == []


def test_a_layer_learns_from_the_codes_of_those_below_and_leaves_them_alone(monkeypatch):
    schema, module = deep()
    x = rows()
    seen = []

    def spy(layer, rows, *args, **how):
        seen.append((rows.table.x.clone(), copy.deepcopy(module.state_dict())))
        return train(layer, rows, *args, **how)

    train = layerwise.train
    monkeypatch.setattr(layerwise, "train", spy)
    pretrain(module, schema, x, epochs=2)
    h = x
    parts = layer_modules(module, schema)
    for i, part in enumerate(parts):
        torch.testing.assert_close(seen[i][0], h)
        h = part.encode(h).z.detach()
    final = module.state_dict()
    for i in range(1, 4):  # what had been trained when layer i began stays as it was
        for j in range(i):
            for side, index in (("encoder", 2 * j), ("decoder", 2 * (3 - j))):
                name = f"{side}.body.{index}.weight"
                assert torch.equal(seen[i][1][name], final[name])
        assert not torch.equal(seen[i][1][f"encoder.body.{2 * i}.weight"], final[f"encoder.body.{2 * i}.weight"])


def test_a_deep_sigmoid_network_trains_better_with_it():
    """Five hidden layers of sigmoids hardly learn from a random start, however long (benchmarks/layerwise.py)."""
    images = DIGITS.data
    order = np.random.default_rng(0).permutation(len(images))
    train, test = images[order[:500]], images[order[-300:]]
    common = {"hidden": (60, 50, 40, 30, 20), "activation": "sigmoid", "network": "mlp", "learning_rate": 1e-2}
    common |= {"batch_size": 50, "patience": None, "random_state": 0}
    plain = Autoencoder(10, max_epochs=40, **common).fit(train)
    stacked = Autoencoder(10, max_epochs=15, pretrain="layerwise", pretrain_epochs=15, **common).fit(train)
    errors = [np.mean((model.reconstruct(test) - test) ** 2) for model in (plain, stacked)]
    assert errors[1] < 0.6 * errors[0]


# damage -------------------------------------------------------------------------------------------------------------------------


def test_the_input_of_each_layer_is_damaged(monkeypatch):
    found = []

    def spy(layer, rows, *args, **how):
        x = rows.table.x[rows.index]
        found.append((layer.corruption, float(x.std(dim=0, correction=0).square().mean().sqrt())))
        return train(layer, rows, *args, **how)

    train = layerwise.train
    monkeypatch.setattr(layerwise, "train", spy)
    DenoisingAutoencoder(2, level=0.4, noise_schedule="decreasing", end_level=0.1, **QUICK).fit(X)
    assert len(found) == 3
    for i, (corruption, spread) in enumerate(found):
        assert isinstance(corruption, GaussianNoise)
        scale = spread if i else 1.0  # rows are standardised, codes are not
        assert corruption.level == pytest.approx(0.4 * scale)
        assert corruption.end == pytest.approx(0.1 * scale)
        assert corruption.schedule == "decreasing"
    found.clear()
    DenoisingAutoencoder(2, noise="masking", level=0.4, **QUICK).fit(X)
    assert all(isinstance(c, Masking) and c.level == 0.4 for c, _ in found)
    found.clear()
    DenoisingAutoencoder(2, noise="occlusion", level=0.4, **QUICK).fit(DIGITS.images[:60])
    assert [type(c) for c, _ in found] == [Occlusion, Masking, Masking]
    found.clear()
    Autoencoder(2, **QUICK).fit(X)
    assert [c for c, _ in found] == [None] * 3


# fits ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Autoencoder, DenoisingAutoencoder, SparseAutoencoder, VAE, BetaTCVAE])
def test_fits_can_be_repeated_saved_and_taken_up(model, tmp_path):
    class Stop(Exception):
        pass

    def crash(run):
        if run.epoch == 1:
            raise Stop

    whole = model(3, **QUICK)
    first = whole.fit(X).transform(X)
    np.testing.assert_array_equal(whole.fit(X).transform(X), first)
    assert [e.split(" for ")[0] for e in whole.history_.events][:3] == [
        f"layer {i} of 3 pre-trained" for i in (1, 2, 3)
    ]
    assert len(whole.history_) == 3
    plain = model(3, **QUICK | {"pretrain": None, "network": "mlp"}).fit(X)
    assert not np.array_equal(plain.transform(X), first)
    with pytest.raises(Stop):
        model(3, checkpoint=tmp_path / "run", callbacks=(crash,), **QUICK).fit(X)
    resumed = model(3, checkpoint=tmp_path / "run", **QUICK).fit(X)
    np.testing.assert_array_equal(resumed.transform(X), first)
    assert resumed.history_.events == whole.history_.events
    with pytest.raises(ValueError, match="pretrain was 'layerwise' and is None"):
        model(3, checkpoint=tmp_path / "run", **QUICK | {"pretrain": None}).fit(X)
    whole.save(tmp_path / "model")
    np.testing.assert_array_equal(diabolo.load(tmp_path / "model").transform(X), first)


def test_every_model_is_pretrained_or_says_that_it_cannot_be():
    done, refused = set(), set()
    for row in MODELS:
        if row.name == "CustomAutoencoder":  # its network is its own
            continue
        model = clone(row.estimator).set_params(pretrain="layerwise", pretrain_epochs=1, max_epochs=1, hidden=(4,))
        try:
            model.fit(X[::8], np.arange(19) % 3)
        except ParameterError as error:
            assert "pretrain='layerwise' needs" in str(error)  # noqa: PT017 - some raise and some do not
            refused.add(row.name)
        else:
            assert "layer 2 of 2" in model.history_.events[1]
            done.add(row.name)
    assert {"Autoencoder", "VAE", "WAE", "VQVAE", "ContractiveAutoencoder", "OrderedAutoencoder"} <= done
    assert {"TopKAutoencoder", "TiedAutoencoder", "MaskedAutoencoder"} <= refused


@pytest.mark.parametrize(
    ("data", "more"),
    [
        (np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X), {}),
        (X, {"network": "residual_mlp", "norm": "batch", "dropout": 0.2}),
        (X, {"likelihood": "learned_gaussian", "validation_fraction": 0}),
        (X, {"likelihood": "bernoulli", "precision": "bfloat16", "weight_l1": 1e-3}),
        (X[:1], {}),
        (DIGITS.images[:40], {"augment": ("shift",)}),
    ],
    ids=["holes", "residual", "no validation", "bernoulli", "one row", "images"],
)
def test_every_kind_of_rows(data, more):
    model = Autoencoder(1, **QUICK | more).fit(data)
    assert np.isfinite(model.score(data))
    assert np.isfinite(model.history_["loss"]).all()


def test_one_row_is_damaged_too():
    model = DenoisingAutoencoder(1, **QUICK).fit(X[:1])
    assert np.isfinite(model.score(X[:1]))


def test_a_missing_cell_cannot_be_seen():
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    model = Autoencoder(2, **QUICK)
    first = model.fit(holes).transform(holes)
    np.testing.assert_array_equal(
        model.fit(np.ma.masked_array(np.nan_to_num(holes, nan=1e9), np.isnan(holes))).transform(holes), first
    )


def test_an_interrupt_ends_training_and_not_the_program(monkeypatch):
    calls = []

    def press(run):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    def train(layer, rows, held_out, objective, settings):
        watch = (press,) if len(calls) == 2 else ()
        return original(layer, rows, held_out, objective, settings, watch)

    def counted(*args):
        calls.append(0)
        return train(*args)

    original = layerwise.train
    monkeypatch.setattr(layerwise, "train", counted)
    model = Autoencoder(2, **QUICK).fit(X)
    assert len(calls) == 2  # the third layer was not begun
    assert model.history_.stop_reason == "interrupted"
    assert len(model.history_) == 0
    assert np.isfinite(model.score(X))


def test_max_time_counts_pretraining():
    common = QUICK | {"pretrain_epochs": 10**6, "max_epochs": 10**6}
    began = time.monotonic()
    model = Autoencoder(2, max_time=0.5, **common).fit(X)
    assert time.monotonic() - began < 10  # seconds on a busy machine
    assert model.history_.stop_reason == "reached max_time=0.5 s"
    assert "max_time was spent before layer 2 of 3 was pre-trained" in model.history_.events
    assert model.history_["seconds"][0] >= 0.5


def test_progress_is_shown(capfd):
    Autoencoder(2, verbose=1, **QUICK).fit(X)
    out, err = capfd.readouterr()
    assert out == ""
    assert "layer 3 of 3 pre-trained for 2 epochs" in err


def test_how_many_epochs_by_default():
    model = Autoencoder(2, **QUICK | {"pretrain_epochs": "auto", "max_epochs": 40, "hidden": (4,)}).fit(X)
    assert model.history_.events[0].startswith("layer 1 of 2 pre-trained for 8 epochs")


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (Autoencoder(2, **QUICK | {"network": "conv"}), DIGITS.images[:40], "they are ConvEncoder and ConvDecoder"),
        (Autoencoder(2, **QUICK | {"network": "shortcut_mlp"}), X, "they are Shortcut and Shortcut"),
        (TiedAutoencoder(2, **QUICK), X, "they are FullyConnected and TiedDecoder"),
        (diabolo.MaskedAutoencoder(2, **QUICK), X, "IndicatorEncoder"),
        (
            Autoencoder(2, **QUICK | {"hidden": ()}),
            X,
            "needs hidden layers that the decoder mirrors; the encoder has 0",
        ),
    ],
    ids=["conv", "shortcut", "tied", "masked", "linear"],
)
def test_networks_without_layers_are_refused(model, data, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(data)
