"""Properties that hold for every registered estimator: one body, all rows."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import diabolo
from diabolo.declare import REGISTRY
from rows import MODELS, ROWS, VARIANTS, Row, answer, identify

X, Y = load_iris(return_X_y=True)  # Y is the condition of models that have one
DIGITS = load_digits().images[:60]


def test_every_registered_estimator_has_a_row():
    # one turns rows to files and has nothing else to say of them, the other takes sequences of tokens, not numbers
    own = {"Compressor", "SequenceVAE"}  # tests/test_compressor*.py, tests/test_sequences*.py
    assert {row.name for row in ROWS} == set(REGISTRY) - own


def expected_failures(estimator):
    return next(row.expected_failures for row in ROWS if row.name == type(estimator).__name__)


@pytest.mark.filterwarnings("ignore:the code .* is as wide as a row")  # some checks use a single column
@pytest.mark.filterwarnings(
    "ignore:posterior collapse"
)  # rightly said of checks whose rows are noise without structure
@parametrize_with_checks([row.estimator for row in ROWS], expected_failed_checks=expected_failures)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("name", "estimator"), VARIANTS, ids=identify)
def test_a_fitted_model_does_every_job(name, estimator):
    model = clone(estimator).fit(X, Y)
    Z = model.transform(X)
    assert Z.shape == (150, model._n_features_out)
    assert np.isfinite(Z).all()
    np.testing.assert_array_equal(Z, model.transform(X))  # no noise at inference
    np.testing.assert_allclose(model.inverse_transform(Z), model.reconstruct(X), rtol=1e-9)  # float64 throughout
    assert model.score_samples(X).shape == (150,)
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())
    assert model.score_features(X).shape == X.shape
    assert np.isfinite(model.history_["loss"]).all()


@pytest.mark.parametrize(("name", "estimator"), VARIANTS, ids=identify)
def test_images_keep_their_shape(name, estimator):
    if estimator.get_params().get("scale") == "quantile":
        with pytest.raises(ValueError, match="scale='quantile' is for tables"):
            clone(estimator).fit(DIGITS, Y[:60])
        return
    model = clone(estimator).fit(DIGITS, Y[:60])
    assert model.reconstruct(DIGITS).shape == (60, 8, 8)
    assert model.inverse_transform(model.transform(DIGITS)).shape == (60, 8, 8)
    assert model.schema_.shape == (1, 8, 8)


@pytest.mark.parametrize(("name", "estimator"), VARIANTS, ids=identify)
def test_the_gradient_reaches_every_parameter(name, estimator):
    model = clone(estimator).fit(X, Y)
    module = model.module_.train()
    with torch.no_grad():
        for p in module.parameters():  # some layers start at zero and hide those before them; look from a general point
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    table = model.codec_.encode(model._read(X, reset=False))
    for progress in (0.5, 0.9):  # some models train their halves in turn
        model._objective()(module, table.slice(0, 50), progress).total.backward()
    missing = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_same_seed_same_model_and_the_callers_streams_are_untouched(row: Row):
    np.random.seed(3)  # noqa: NPY002 - the caller's global stream is what is tested
    torch.manual_seed(3)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    a, b = clone(row.estimator).fit(X, Y), clone(row.estimator).fit(X, Y)
    np.testing.assert_array_equal(answer(a, X), answer(b, X))
    fresh = {"random_state": None} if "random_state" in row.estimator.get_params(deep=False) else {}
    c = clone(row.estimator).set_params(**fresh).fit(X, Y)
    assert np.isfinite(answer(c, X)).all()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_refit_of_the_same_object_is_bitwise_equal(row: Row):
    model = clone(row.estimator)
    first = answer(model.fit(X, Y), X)
    np.testing.assert_array_equal(answer(model.fit(X, Y), X), first)


def test_two_threads_give_what_each_gives_alone():
    rows = [MODELS[0].estimator, clone(MODELS[0].estimator).set_params(random_state=7)]
    alone = [clone(e).fit(X, Y).transform(X) for e in rows]
    together = [None, None]

    def work(i):
        together[i] = clone(rows[i]).fit(X, Y).transform(X)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(together[0], alone[0])
    np.testing.assert_array_equal(together[1], alone[1])


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_pickle_gives_the_same_scores(row: Row):
    if row.name == "CustomAutoencoder":
        pytest.importorskip("rows")
    model = clone(row.estimator).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(answer(again, X), answer(model, X))


@pytest.mark.parametrize("row", MODELS, ids=identify)
def test_pipeline_grid_search_and_set_output(row: Row):
    pipeline = make_pipeline(StandardScaler(), clone(row.estimator)).set_output(transform="pandas")
    Z = pipeline.fit_transform(pd.DataFrame(X, columns=list("abcd")), Y)
    assert isinstance(Z, pd.DataFrame)
    assert list(Z.columns) == [f"{row.name.lower()}{j}" for j in range(Z.shape[1])]
    assert pipeline.inverse_transform(Z.to_numpy()).shape == X.shape


def test_grid_search_in_two_processes():
    search = GridSearchCV(MODELS[0].estimator, {"latent_dim": [1, 2], "dropout": [0.0, 0.2]}, n_jobs=2, cv=2).fit(X)
    assert set(search.best_params_) == {"latent_dim", "dropout"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_save_and_load_give_the_same_estimator(row: Row, tmp_path):
    model = clone(row.estimator).fit(X, Y)
    model.save(tmp_path / "m")
    build = model.get_params().get("build")
    again = diabolo.load(tmp_path / "m", build=build)
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(answer(again, X), answer(model, X))
    inner = getattr(again, "imputer_", again)
    inner = inner.models_[0] if hasattr(inner, "models_") else getattr(inner, "autoencoder_", inner)
    if hasattr(inner, "history_"):  # what is fitted in closed form has none
        assert len(inner.history_) == 3


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_frames_come_back_as_frames(row: Row):
    frame = pl.DataFrame(X, schema=["a", "b", "c", "d"])
    if row.name == "Recommender":
        with pytest.raises(ValueError, match="the events have no column 'user'"):
            clone(row.estimator).fit(frame)
        return
    model = clone(row.estimator).fit(frame, Y)
    assert list(model.feature_names_in_) == ["a", "b", "c", "d"]
    if row.name in ("EASE", "GraphFilter", "ItemPopularity"):
        assert model.score_items(frame).shape == X.shape
    elif row in MODELS:
        assert model.reconstruct(frame).columns == ["a", "b", "c", "d"]
        assert isinstance(model.inverse_transform(model.transform(frame)), pl.DataFrame)
    elif row.name in ("Denoiser", "Restorer"):
        assert model.transform(frame).columns == ["a", "b", "c", "d"]
    elif hasattr(model, "heads_"):
        assert len(model.predict(frame)) == 150
    elif row.name == "Imputer":
        assert model.transform(frame).equals(frame)
        assert model.uncertainty(frame).columns == ["a", "b", "c", "d"]
    elif row.name == "CodePrior":
        assert model.sample(2).shape == (2, 4)  # codes are always arrays
    elif row.name == "TableSynthesizer":
        assert model.sample(2).columns == ["a", "b", "c", "d"]
    else:
        assert model.explain(frame).columns == ["a", "b", "c", "d"]


@pytest.mark.parametrize("row", ROWS, ids=identify)
def test_the_documentation_names_every_parameter(row: Row):
    doc = type(row.estimator).__doc__
    for name in row.estimator.get_params(deep=False):
        assert f"\n    {name} : " in doc
    assert "{parameters}" not in doc
    assert "Examples" in doc
