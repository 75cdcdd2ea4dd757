"""Training that starts from a fitted model, and goes on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator

import diabolo
from diabolo import VAE, Autoencoder, AutoencoderClassifier, ConditionalVAE
from diabolo.checks import ParameterError
from rows import MODELS, Row, identify

X, Y = load_iris(return_X_y=True)
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
STILL = QUICK | {"learning_rate": 1e-12, "max_epochs": 1}  # what training starts from can be seen


@pytest.fixture(scope="module")
def source():
    return Autoencoder(2, **QUICK | {"max_epochs": 30}).fit(X)


def test_the_start_is_the_other_model(source, tmp_path):
    source.save(tmp_path / "m")
    other = X[::2] * 2 + 1  # the scale is that of the other model, too
    for given in (source, tmp_path / "m", str(tmp_path / "m"), FrozenEstimator(source)):
        model = Autoencoder(2, init_from=given, **STILL).fit(other)
        np.testing.assert_allclose(model.transform(X), source.transform(X), atol=1e-5)  # steps of 1e-12
        assert not model.taken_.started
        n = len(model.module_.state_dict())
        assert model.history_.events[0] == f"took {n} of {n} tensors"
    assert clone(Autoencoder(2, init_from=FrozenEstimator(source), **STILL)).fit(X).taken_.layers


def test_a_model_that_goes_on_is_better_than_one_that_starts(source):
    few = X[::10]
    quick = QUICK | {"max_epochs": 2, "validation_fraction": 0}
    warm = Autoencoder(1, network="mlp", **quick)
    long = Autoencoder(1, network="mlp", **QUICK | {"max_epochs": 80}).fit(X)
    cold = clone(warm).fit(few)
    warm = warm.set_params(init_from=long).fit(few)
    assert warm.score(X) > cold.score(X)


def test_frozen_halves_stay_as_they_are(source):
    for half in ("encoder", "decoder"):
        model = Autoencoder(
            2, init_from=source, freeze=half, **QUICK | {"patience": None, "validation_fraction": 0}
        ).fit(X)
        other = {"encoder": "decoder", "decoder": "encoder"}[half]
        same = [
            torch.equal(a, b)
            for a, b in zip(*(getattr(m.module_, half).parameters() for m in (model, source)), strict=True)
        ]
        moved = [
            torch.equal(a, b)
            for a, b in zip(*(getattr(m.module_, other).parameters() for m in (model, source)), strict=True)
        ]
        assert all(same)
        assert not all(moved)
        assert all(p.requires_grad for p in model.module_.parameters())


def test_columns_that_come_and_go():
    frame = pd.DataFrame(X, columns=list("abcd"))
    source = Autoencoder(2, **QUICK).fit(frame)
    more = frame[["d", "b", "a"]].assign(new=np.arange(150.0))
    model = Autoencoder(2, init_from=source, **STILL | {"validation_fraction": 0}).fit(more)
    assert (model.taken_.added, model.taken_.dropped) == (("new",), ("c",))
    assert "new columns: new" in model.history_.events[0]
    assert "columns gone: c" in model.history_.events[0]
    # the code knows nothing of the new column, and sees the shared ones as the other model does
    moved = more.assign(new=-5.0)
    np.testing.assert_allclose(model.transform(moved), model.transform(more), atol=1e-5)
    mean = frame.assign(c=frame["c"].mean())  # what a column that is gone is taken for
    np.testing.assert_allclose(model.transform(more), source.transform(mean), atol=1e-4)


def test_labels_that_come():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=90), "kind": ["a", "b", "c"] * 30})
    source = VAE(1, **QUICK).fit(frame)
    wider = pd.concat([frame, pd.DataFrame({"x": [0.1, 0.2, 0.3], "kind": ["d"] * 3})], ignore_index=True)
    model = VAE(1, init_from=source, **QUICK).fit(wider)
    assert model.taken_.added == ("kind=d",)
    assert len(model.sample(20, random_state=0)) == 20


@pytest.mark.parametrize(
    ("model", "rows", "message"),
    [
        (lambda m: VAE(2, init_from=m, **QUICK), X, "init_from is a Autoencoder; expected a fitted VAE"),
        (lambda m: Autoencoder(2, init_from=Autoencoder(2), **QUICK), X, "not fitted: clone"),
        (lambda m: Autoencoder(2, init_from=m, **QUICK), load_digits().images, "learned vector rows"),
        (lambda m: Autoencoder(3, init_from=m, **QUICK | {"hidden": (5,)}), X, "no layer of the encoder"),
        (lambda m: Autoencoder(2, init_from=m, **QUICK), pd.DataFrame(X, columns=list("efgh")), "share no column"),
    ],
)
def test_models_that_do_not_fit(source, model, rows, message):
    with pytest.raises((ValueError, ParameterError), match=message):
        model(source).fit(rows)


def test_a_folder_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="not a Diabolo model"):
        Autoencoder(2, init_from="nowhere", **QUICK).fit(X)


@pytest.mark.parametrize("row", MODELS, ids=identify)
def test_every_model_goes_on_learning(row: Row):
    model = clone(row.estimator).fit(X, Y)
    told = {"condition": Y} if isinstance(model, ConditionalVAE) else {}
    epochs = model.n_iter_
    before = {k: v.clone() for k, v in model.module_.state_dict().items()}
    again = model.partial_fit(X[:60], Y[:60])
    assert again is model
    assert model.n_iter_ == len(model.history_) == epochs + 1
    assert any(not torch.equal(v, before[k]) for k, v in model.module_.state_dict().items())
    assert np.isfinite(model.transform(X, **told)).all()


def test_going_on_follows_rows_that_drift(tmp_path):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 8))
    first = rng.normal(size=(400, 2)) @ mixing
    later = rng.normal(size=(400, 2)) @ (mixing + 0.5 * rng.normal(size=(2, 8)))
    model = Autoencoder(2, **QUICK).partial_fit(first)
    start = model.score(later)
    for _ in range(40):
        model.partial_fit(later)
    assert model.score(later) > start
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(diabolo.load(tmp_path / "m").transform(later), model.transform(later))


def test_a_stacked_autoencoder_is_fine_tuned():
    stacked = Autoencoder(8, **QUICK | {"hidden": (24, 16)}, network="mlp", pretrain="layerwise", pretrain_epochs=3)
    digits, kinds = load_digits(return_X_y=True)
    model = AutoencoderClassifier(stacked, n_models=1, random_state=0, max_steps=300).fit(digits, kinds)
    assert sum("pre-trained" in event for event in model.autoencoder_.history_.events) == 3
    assert model.score(digits, kinds) > 0.95
