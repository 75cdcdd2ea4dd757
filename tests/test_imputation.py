"""Filling missing cells: observed ones stay, filled ones are near what was there, draws are as unsure as they should be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

from diabolo import IWAE, VAE, Autoencoder, ConditionalVAE, Imputer, MaskedAutoencoder, load
from diabolo.checks import ParameterError
from diabolo.objectives import importance_mean
from diabolo.seeding import seeded
from test_columns import table

QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}


def rank_two(n=1500, d=8, missing=0.3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.3 * rng.normal(size=(n, d)) + np.arange(d)
    gone = rng.random(X.shape) < missing
    return X, np.where(gone, np.nan, X), gone


@pytest.fixture(scope="module")
def fitted():
    X, holes, gone = rank_two()
    model = MaskedAutoencoder(likelihood="learned_gaussian", max_epochs=60, hidden=(64,), device="cpu")
    return Imputer(model, n_models=2, random_state=0).fit(holes), X, holes, gone


# what is filled -----------------------------------------------------------------------------------------------------------------


def test_filled_cells_are_near_the_conditional_expectation(fitted):
    imputer, X, holes, gone = fitted
    error = np.sqrt(np.mean((imputer.transform(holes) - X)[gone] ** 2))
    mean = np.sqrt(np.mean((np.nanmean(holes, 0) - X)[gone] ** 2))
    assert error < 0.55  # the best guess, which knows the distribution, has about 0.42
    assert mean > 0.9
    assert imputer.error_ == pytest.approx(
        np.mean((imputer.transform(holes) - X)[gone] ** 2 / X.var(0)[np.where(gone)[1]]), rel=0.3
    )
    assert imputer.score(X, mask=gone) == pytest.approx(1 - imputer.error_, abs=0.1)
    assert imputer.score(X) > imputer.score(X, mask=np.random.default_rng(0).random(X.shape) < 0.8)


def test_draws_are_as_unsure_as_they_should_be(fitted):
    imputer, X, holes, gone = fitted
    draws = np.stack(imputer.draw(holes, 200, random_state=0))
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = ((low <= X) & (high >= X))[gone].mean()
    assert 0.87 < inside < 0.93
    unsure = imputer.uncertainty(holes)
    assert np.isnan(unsure[~gone]).all()
    assert np.median(unsure[gone] / draws.std(0)[gone]) == pytest.approx(
        1, abs=0.1
    )  # draws keep to the range of the column
    assert np.corrcoef(unsure[gone], draws.std(0)[gone])[0, 1] > 0.5
    assert (draws[:, ~gone] == X[~gone]).all()


def test_draws_are_those_of_the_seed(fitted):
    imputer, _, holes, _ = fitted
    a, b, c = (imputer.draw(holes, 2, random_state=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(a[0], a[1])
    several = Imputer(imputer.autoencoder, n_draws=3)
    several.__dict__.update({k: v for k, v in vars(imputer).items() if k.endswith("_")})
    assert len(several.transform(holes)) == 3


def test_new_rows_and_rows_without_any_cell(fitted):
    imputer = fitted[0]
    X, holes, _ = rank_two(200, seed=0)
    assert np.isfinite(imputer.transform(holes[:1])).all()
    np.testing.assert_array_equal(imputer.transform(X), X)
    empty = np.full((2, 8), np.nan)
    filled = imputer.transform(empty)
    np.testing.assert_array_equal(filled[0], filled[1])
    np.testing.assert_allclose(filled[0], np.arange(8), atol=1.0)
    sure, unsure = (
        imputer.uncertainty(np.where(np.arange(8) == 0, np.nan, X[:1]))[0, 0],
        imputer.uncertainty(empty)[0, 0],
    )
    assert unsure > sure


def test_importance_weights_reach_the_conditional_expectation():
    """A linear Gaussian model, where the conditional expectation has a closed form and the posterior given all cells is wrong."""
    _, holes, _ = rank_two(400)
    model = VAE(2, hidden=(), max_epochs=60, likelihood="learned_gaussian", random_state=0, device="cpu").fit(holes)
    module = model.module_.double().eval()
    batch = model.codec_.encode(model._read(holes[:40], reset=False), torch.float64).slice(0, 40)
    with seeded(0), torch.inference_mode():
        found = importance_mean(module, batch, 20_000)
        W = (
            module.decode(torch.eye(2, dtype=torch.float64))[:, 0]
            - module.decode(torch.zeros(1, 2, dtype=torch.float64))[:, 0]
        )
        b = module.decode(torch.zeros(1, 2, dtype=torch.float64))[0, 0]
        noise = (2 * module.likelihood.log_scale).exp()
    for row, mask, mean in zip(batch.x, batch.mask.bool(), found, strict=True):
        precision = torch.eye(2) + (W[:, mask] / noise[mask]) @ W[:, mask].T
        z = torch.linalg.solve(precision, (W[:, mask] / noise[mask]) @ (row - b)[mask])
        np.testing.assert_allclose(
            mean, b + z @ W, atol=0.1
        )  # 20,000 draws from a posterior that is too narrow for holes


def test_the_better_of_several_models_is_taken():
    _, holes, _ = rank_two(600)
    offered = (Autoencoder(1, max_epochs=1), MaskedAutoencoder(max_epochs=30), Autoencoder(1, max_epochs=2))
    imputer = Imputer(offered, combine="best", random_state=0).fit(holes)
    assert list(imputer.candidates_) == ["Autoencoder", "MaskedAutoencoder", "Autoencoder 2"]
    assert type(imputer.models_[0]) is MaskedAutoencoder
    assert imputer.error_ == min(imputer.candidates_.values())
    together = Imputer(offered, random_state=0).fit(holes)
    assert together.candidates_ == imputer.candidates_
    alone = [m.reconstruct(holes) for m in together.models_]
    gone = np.isnan(holes) & (np.mean(alone, 0) > np.nanmin(holes, 0)) & (np.mean(alone, 0) < np.nanmax(holes, 0))
    np.testing.assert_allclose(together.transform(holes)[gone], np.mean(alone, 0)[gone], rtol=1e-12)


# tables as they come ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda f: f, pl.from_pandas, lambda f: pa.Table.from_pandas(f, preserve_index=False)])
def test_mixed_tables(make, tmp_path):
    frame = table(300, missing=False)
    rng = np.random.default_rng(0)
    holes = frame.mask(rng.random(frame.shape) < 0.2)
    holes = holes.astype({c: t for c, t in frame.dtypes.items() if t.name not in ("int64", "int8", "bool")})
    given = make(holes)
    imputer = Imputer(MaskedAutoencoder(max_epochs=30, device="cpu"), n_models=1, random_state=0).fit(given)
    full = imputer.transform(given)
    assert type(full) is type(given)
    for name in frame.columns:
        column, before = (pl.DataFrame(f)[name] if not isinstance(f, pd.DataFrame) else f[name] for f in (full, given))
        there = holes[name].notna().to_numpy()
        if isinstance(given, pd.DataFrame):
            assert column.notna().all()
            pd.testing.assert_series_equal(column[there], before[there])
        else:
            assert column.null_count() == 0
            assert column.filter(there).equals(before.filter(there))
    if not isinstance(given, pd.DataFrame):
        assert full.schema == given.schema
    else:
        pd.testing.assert_series_equal(full.dtypes, given.dtypes)
        assert (full["age"] % 1 == 0).all()
        gone = holes["colour"].isna()
        assert (full["colour"][gone] == frame["colour"][gone]).mean() > 0.6
    imputer.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.transform(given).equals(full)
    assert again.error_ == imputer.error_
    shares = np.asarray(imputer.uncertainty(given)[["colour"]] if isinstance(given, pd.DataFrame) else 0.5)
    assert ((shares[~np.isnan(shares)] >= 0) & (shares[~np.isnan(shares)] <= 0.7)).all()
    drawn = imputer.draw(given, 2)
    assert not drawn[0].equals(drawn[1])


def test_numeric_frames_keep_types_index_and_cells():
    rng = np.random.default_rng(0)
    z = rng.normal(size=200)
    frame = pd.DataFrame(
        {
            "a": z,
            "n": pd.array((5 * z).round().astype(int), dtype="Int64"),
            "f": z.astype(np.float32),
            "whole": (3 * z).round(),
        },
        index=rng.permutation(200),
    )
    holes = frame.copy()
    for name in ("a", "n", "f", "whole"):
        holes.loc[rng.random(200) < 0.2, name] = pd.NA if name == "n" else np.nan
    full = Imputer(MaskedAutoencoder(**QUICK), n_models=1, random_state=0).fit(holes).transform(holes)
    pd.testing.assert_series_equal(full.dtypes, frame.dtypes)
    assert full.index.equals(frame.index)
    assert not full.isna().any().any()
    assert (full["whole"] % 1 == 0).all()
    pd.testing.assert_frame_equal(full.where(holes.notna()), holes)


# images, series and other kinds -------------------------------------------------------------------------------------------------


def test_images_with_missing_pixels():
    X = load_digits().images[:500]
    holes = X.copy()
    holes[1::2, 2:4, 3:5] = np.nan
    holes[::2] = np.where(np.random.default_rng(0).random(X[::2].shape) < 0.2, np.nan, X[::2])
    imputer = Imputer(MaskedAutoencoder(max_epochs=100, patch_size=1, device="cpu"), n_models=1, random_state=0).fit(
        holes
    )
    full = imputer.transform(holes)
    assert full.shape == X.shape
    gone = np.isnan(holes)
    np.testing.assert_array_equal(full[~gone], X[~gone])
    assert np.mean((full - X)[gone] ** 2) < 0.7 * np.mean((np.nanmean(holes, 0) - X)[gone] ** 2)
    tensor = imputer.transform(torch.from_numpy(holes))
    assert torch.equal(tensor, torch.from_numpy(full))


def test_series_with_gaps():
    rng = np.random.default_rng(0)
    series = [np.sin(np.arange(n) / 3 + rng.random()) for n in rng.integers(20, 30, 300)]
    holes = [np.where(rng.random(len(s)) < 0.2, np.nan, s) for s in series]
    imputer = Imputer(MaskedAutoencoder(max_epochs=40, device="cpu"), n_models=1, random_state=0).fit(holes)
    full = imputer.transform(holes)
    assert [len(f) for f in full] == [len(s) for s in series]
    assert all(np.isfinite(f).all() for f in full)
    assert all((f == s)[~np.isnan(h)].all() for f, s, h in zip(full, series, holes, strict=True))
    error = np.mean(np.concatenate([(f - s)[np.isnan(h)] for f, s, h in zip(full, series, holes, strict=True)]) ** 2)
    assert error < 0.25  # the variance of a sine is 0.5


@pytest.mark.parametrize("strategy", ["mean", "median", "draw"])
@pytest.mark.parametrize("model", [Autoencoder(2, **QUICK), IWAE(2, **QUICK), MaskedAutoencoder(2, **QUICK)])
def test_strategies(strategy, model):
    _, holes, gone = rank_two(200)
    imputer = Imputer(model, strategy=strategy, n_models=1, n_samples=5, random_state=0).fit(holes)
    full = imputer.transform(holes)
    np.testing.assert_array_equal(full, imputer.transform(holes))
    np.testing.assert_array_equal(full[~gone], holes[~gone])
    assert (full[gone] >= np.nanmin(holes, 0)[np.where(gone)[1]]).all()


def test_in_a_pipeline():
    _, holes, _ = rank_two(200)
    pipeline = make_pipeline(Imputer(MaskedAutoencoder(**QUICK), n_models=1, random_state=0), Autoencoder(2, **QUICK))
    assert np.isfinite(pipeline.fit_transform(holes)).all()
    assert list(pipeline[0].get_feature_names_out()) == [f"x{j}" for j in range(8)]


def test_what_is_refused():
    X, holes, _ = rank_two(100)
    with pytest.raises(ParameterError, match="strategy='mode'"):
        Imputer(strategy="mode").fit(holes)
    with pytest.raises(ValueError, match="offers no model"):
        Imputer(()).fit(holes)
    with pytest.raises(ValueError, match="conditioned on y"):
        Imputer(ConditionalVAE(2)).fit(holes)
    with pytest.raises(ValueError, match="takes none of them as a condition"):
        Imputer(ConditionalVAE(2, condition=(0,))).fit(holes)
    with pytest.raises(ValueError, match="no observed value: '2'"):
        Imputer().fit(np.where(np.arange(8) == 2, np.nan, X))
    imputer = Imputer(MaskedAutoencoder(**QUICK), n_models=1, random_state=0).fit(holes)
    with pytest.raises(ValueError, match=r"mask has shape \(3,\)"):
        imputer.score(X, mask=np.array([True, False, True]))
    with pytest.raises(ValueError, match="no observed cell to hide"):
        imputer.score(X, mask=np.zeros(X.shape, bool))
    with pytest.raises(ValueError, match="8 features"):
        imputer.transform(X[:, :5])


def test_sparse_rows_have_no_holes():
    X = sparse.csr_array(np.eye(20))
    with pytest.raises(TypeError, match="sparse rows have no missing cells"):
        Imputer().fit(X)
