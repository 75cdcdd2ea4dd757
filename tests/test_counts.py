"""Counts and sparse rows: closed forms by scipy, totals that are known, rows that stay sparse."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats
from scipy.special import expit, logsumexp
from sklearn.base import clone

from diabolo import VAE, Autoencoder, Imputer, MaskedAutoencoder, Stream, TopKAutoencoder, VampPriorVAE, load
from diabolo.checks import ParameterError
from diabolo.data.raw import Raw, refuse_uncountable
from diabolo.data.sparse import SparseRows
from diabolo.parts.likelihoods import COUNTS, NegativeBinomial, Poisson
from diabolo.seeding import seeded

SHAPES = [(5,), (2, 3), (1, 4, 4)]
F64 = 1e-9  # of sums of gamma functions in float64
THETA, RARELY = 1.7, -3.0
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}


def binomial(log_mean):
    return stats.nbinom(THETA, THETA / (THETA + np.exp(log_mean)))


# scipy's distribution before zero inflation, given the log of the mean: a kind of counts without one fails
REFERENCE = {
    "poisson": lambda log_mean: stats.poisson(np.exp(log_mean)),
    "negative_binomial": binomial,
    "zero_inflated_poisson": lambda log_mean: stats.poisson(np.exp(log_mean)),
    "zero_inflated_negative_binomial": binomial,
}


def make(name, shape, shares=False):
    likelihood = COUNTS[name](shape, shares).double()
    if isinstance(likelihood, NegativeBinomial):
        likelihood.log_theta.data.fill_(math.log(THETA))
    return likelihood


def never(likelihood, raw):
    """Chance of nothing beside the counts."""
    return expit(raw[:, 1]) if likelihood.inflated else np.zeros_like(raw[:, 0])


def population(n=400, d=120, seed=0):
    """Rows of three kinds, sparse, whose totals say nothing of the kind."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    shares = rng.dirichlet(np.full(d, 0.3), 3)
    totals = np.exp(rng.normal(5, 0.7, n))
    return sparse.csr_array(rng.poisson(totals[:, None] * shares[kinds])), kinds


def test_every_kind_has_a_reference():
    assert set(REFERENCE) == set(COUNTS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", COUNTS)
def test_log_prob_equals_scipy(name, shape):
    likelihood, rng = make(name, shape), np.random.default_rng(0)
    raw = rng.normal(size=(7, likelihood.params, *shape)) * 2
    counts = rng.integers(0, 6, (7, *shape))
    reference, nothing = REFERENCE[name](raw[:, 0]), never(likelihood, raw)
    got = likelihood.log_prob(torch.from_numpy(raw), torch.from_numpy(np.log1p(counts)))
    want = np.log(nothing * (counts == 0) + (1 - nothing) * reference.pmf(counts))
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=F64)
    mean = likelihood.mean(torch.from_numpy(raw))
    np.testing.assert_allclose(np.expm1(mean.numpy()), (1 - nothing) * reference.mean(), rtol=F64)


@pytest.mark.parametrize("name", COUNTS)
def test_probabilities_sum_to_one(name):
    likelihood = make(name, (1,))
    k = torch.arange(2000, dtype=torch.float64).log1p()[:, None]
    raw = torch.full((len(k), likelihood.params, 1), 0.4, dtype=torch.float64)
    # beyond 2,000 there is less than 1e-300 of it
    assert float(likelihood.log_prob(raw, k).exp().sum().detach()) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", COUNTS)
def test_sums_have_the_gradient_of_their_elements(name, masked):
    likelihood, rng = make(name, (6,)), np.random.default_rng(1)
    raw = torch.from_numpy(rng.normal(size=(7, likelihood.params, 6))).requires_grad_()
    x = torch.from_numpy(np.log1p(rng.integers(0, 4, (7, 6))))
    mask = torch.from_numpy(rng.uniform(size=(7, 6))) if masked else None
    elements = likelihood.log_prob(raw, x)
    want = (elements if mask is None else elements * mask).sum()
    got = likelihood.total(raw, x, mask)
    torch.testing.assert_close(got, want)
    assert torch.autograd.gradcheck(lambda r: likelihood.log_prob(r, x).sum(1), raw)


@pytest.mark.parametrize("name", COUNTS)
def test_draws_have_the_moments_of_the_reference(name):
    likelihood, n = make(name, (3,)), 40_000
    raw = torch.tensor([[-0.7, 0.5, 2.0]], dtype=torch.float64).expand(1, likelihood.params, 3)
    with seeded(0):
        draws = torch.expm1(likelihood.sample(raw.expand(n, -1, -1))).detach().numpy()
    np.testing.assert_allclose(draws, np.rint(draws), atol=1e-9)  # expm1 of log1p
    nothing, reference = never(likelihood, raw.numpy())[0], REFERENCE[name](raw[0, 0].numpy())
    ever, mean = 1 - nothing, reference.mean()
    variance = ever * (reference.var() + mean**2) - (ever * mean) ** 2
    # six standard errors of a mean: one false alarm in 10^8
    assert (np.abs(draws.mean(0) - ever * mean) < 6 * np.sqrt(variance / n)).all()
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.15)  # a dozen standard errors of these heavy tails


@pytest.mark.parametrize("masked", [False, True])
def test_means_are_shares_of_the_observed_total(masked):
    likelihood, rng = make("poisson", (6,), shares=True), np.random.default_rng(0)
    counts = rng.poisson(3.0, (9, 6)).astype(float)
    mask = torch.from_numpy((rng.random((9, 6)) < 0.6).astype(float)) if masked else None
    if mask is not None:
        mask[0] = 0  # a row of which nothing is known
    x = torch.from_numpy(np.log1p(counts))
    likelihood.learn(x, mask)
    raw = likelihood.complete(torch.from_numpy(rng.normal(size=(9, 1, 6))), x, mask)
    mean = np.expm1(likelihood.mean(raw).numpy())
    seen = np.ones((9, 6)) if mask is None else mask.numpy()
    known = seen.any(1)
    np.testing.assert_allclose((mean * seen).sum(1)[known], (counts * seen).sum(1)[known], rtol=1e-6)
    assert np.isfinite(mean).all()


def test_a_code_alone_has_the_usual_total():
    X, _ = population()
    vae = VAE(latent_dim=2, likelihood="negative_binomial", **QUICK).fit(X)
    totals = vae.inverse_transform(np.zeros((3, 2))).sum(1)
    usual = np.median(X.sum(1))
    np.testing.assert_allclose(totals, usual, rtol=0.1)  # that of a sample of the rows


def test_deeper_rows_get_the_same_code_where_totals_are_known():
    X, _ = population()
    X = X.toarray()
    known = VAE(latent_dim=2, likelihood="poisson", **QUICK).fit(X)
    np.testing.assert_allclose(known.transform(3 * X), known.transform(X), atol=2e-4)  # of float32
    unknown = VAE(latent_dim=2, likelihood="poisson", library_size=None, **QUICK).fit(X)
    assert np.abs(unknown.transform(3 * X) - unknown.transform(X)).max() > 0.1


def test_the_start_is_near_the_means_of_features():
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(0, 2, 40))
    counts = rng.poisson(mean, (2000, 40))
    x = torch.from_numpy(np.log1p(counts))
    likelihood = Poisson((40,)).double()
    likelihood.learn(x)
    got = np.expm1(likelihood.mean(likelihood.complete(torch.zeros(1, 1, 40, dtype=torch.float64))).numpy())[0]
    np.testing.assert_allclose(got, counts.mean(0), atol=1e-3)  # half a count in 2,000 rows


def test_dispersion_starts_at_its_moments_and_grows_towards_poisson():
    rng = np.random.default_rng(0)
    spread, calm = rng.negative_binomial(2.0, 0.2, (5000, 1)), rng.poisson(8.0, (5000, 1))
    likelihood = NegativeBinomial((2,)).double()
    likelihood.learn(torch.from_numpy(np.log1p(np.hstack([spread, calm]))))
    theta = likelihood.log_theta.exp().detach().numpy()
    assert theta[0] == pytest.approx(4.0, rel=0.15)  # twice 2, as what the code explains is none; five standard errors
    assert theta[1] == pytest.approx(100.0)


@pytest.mark.parametrize("name", COUNTS)
def test_a_model_of_counts_comes_near_the_likelihood_of_the_rows(name):
    rng = np.random.default_rng(0)
    z, slope = rng.normal(size=(1000, 1)), rng.normal(size=(1, 10))
    X = rng.poisson(np.exp(1 + z * slope))
    model = VAE(latent_dim=1, likelihood=name, hidden=(32,), max_epochs=60, random_state=0, device="cpu").fit(X[:800])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    given = stats.poisson(np.exp(1 + nodes[:, None, None] * slope)).logpmf(X[800:]).sum(2)  # (60, 200)
    true = logsumexp(given, axis=0, b=(weights / weights.sum())[:, None]).mean()
    alone = sum(stats.poisson(X[:800, j].mean()).logpmf(X[800:, j]).mean() for j in range(10))
    score = model.score_samples(X[800:], n_samples=50, random_state=0).mean()
    assert true - 0.25 * (true - alone) < score < true  # a bound: below it, and far above features on their own
    back = model.reconstruct(X[800:])
    assert back.shape == (200, 10)
    assert back.min() >= 0
    assert np.corrcoef(np.log1p(back).ravel(), np.log1p(X[800:]).ravel())[0, 1] > 0.6
    drawn = model.sample(50, noise=True, random_state=0)
    np.testing.assert_allclose(drawn, np.rint(drawn), rtol=1e-5)  # expm1 of a logarithm in float32
    assert model.choices_["scale"] == "log1p"
    assert model.choices_["likelihood"] == name


@pytest.mark.parametrize(
    "model",
    [
        Autoencoder(3, likelihood="negative_binomial", **QUICK),
        MaskedAutoencoder(3, likelihood="negative_binomial", **QUICK),
        VampPriorVAE(3, likelihood="zero_inflated_negative_binomial", **QUICK),
        TopKAutoencoder(24, k=4, refinements=1, likelihood="poisson", **QUICK),
    ],
    ids=lambda m: type(m).__name__,
)
def test_sparse_rows_are_dense_ones(model, tmp_path):
    X, _ = population()
    lean, full = clone(model).fit(X), clone(model).fit(X.toarray().astype(np.float32))
    np.testing.assert_array_equal(lean.transform(X), full.transform(X.toarray().astype(np.float32)))
    np.testing.assert_array_equal(lean.score_samples(X), lean.score_samples(X.toarray().astype(np.float32)))
    lean.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(X), lean.transform(X))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.lil_array])
def test_every_sparse_format_will_do_and_stays_as_it_is(kind):
    X, _ = population(60)
    given = kind(X.astype(np.int64))
    before = given.toarray().copy()
    codes = Autoencoder(3, **QUICK).fit(given).transform(given)
    np.testing.assert_array_equal(codes, Autoencoder(3, **QUICK).fit(before.astype(np.float32)).transform(given))
    np.testing.assert_array_equal(given.toarray(), before)


def test_missing_cells_of_a_sparse_matrix_are_missing():
    X, _ = population(200)
    X = X.astype(float)
    X.data[::50] = np.nan
    model = VAE(2, likelihood="poisson", **QUICK).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    np.testing.assert_array_equal(model.transform(X), model.transform(X.toarray()))


def test_duplicate_entries_add_up():
    twice = sparse.coo_array(([1, 2, 5], ([0, 0, 1], [1, 1, 0])), shape=(2, 3))
    np.testing.assert_array_equal(SparseRows(twice)[:], [[0, 3, 0], [5, 0, 0]])


def test_sparse_rows_never_become_dense_as_a_whole():
    X = sparse.random_array((20_000, 2000), density=0.002, rng=np.random.default_rng(0), dtype=np.float32)
    X.data[:] = 1 + np.rint(3 * X.data)
    model = Autoencoder(
        2, likelihood="poisson", hidden=(8,), max_epochs=1, validation_fraction=0.02, random_state=0, device="cpu"
    )
    tracemalloc.start()
    model.fit(X)
    model.transform(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80e6  # all rows together are 160 MB; blocks of half a million numbers, and their logarithms, are few


@pytest.mark.parametrize(("cell", "said"), [(-1.0, "has -1 in row 3"), (2.5, "has 2.5 in row 3"), (np.inf, "infinity")])
@pytest.mark.parametrize("lean", [False, True])
def test_what_is_no_count_is_refused(cell, said, lean):
    X, _ = population(50)
    X = X.toarray().astype(float)
    model = VAE(2, likelihood="negative_binomial", **QUICK).fit(X)
    X[3, 7] = cell
    given = sparse.csr_array(X) if lean else X
    with pytest.raises(ValueError, match=said):
        VAE(2, likelihood="negative_binomial", **QUICK).fit(given)
    with pytest.raises(ValueError, match=said):
        model.transform(given)


def test_counts_are_not_scaled_otherwise():
    X, _ = population(50)
    with pytest.raises(ParameterError, match="scale='standard': counts"):
        VAE(2, likelihood="poisson", scale="standard", **QUICK).fit(X)


def test_complex_sparse_rows_are_refused():
    with pytest.raises(ValueError, match="Complex data not supported"):
        Autoencoder(2, **QUICK).fit(sparse.csr_array(np.eye(5, dtype=complex)))


def test_counts_in_blocks_are_counts_at_once(tmp_path):
    X, _ = population()
    X = X.toarray().astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    model = VAE(2, likelihood="negative_binomial", **QUICK).fit(Stream(tmp_path / "x.npy"))
    assert model.choices_["scale"] == "log1p"
    with pytest.raises(ValueError, match="counts are whole numbers"):
        VAE(2, likelihood="negative_binomial", **QUICK).fit(X + np.float32(0.5))


# counts in tables of several kinds ----------------------------------------------------------------------------------------------


def visits(n=600, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return pd.DataFrame(
        {
            "visits": rng.negative_binomial(2, 2 / (2 + np.exp(1 + z))),
            "age": 40 + 10 * z + rng.normal(size=n) * 3,
            "smokes": rng.random(n) < expit(2 * z),
        }
    )


def test_a_column_of_counts_in_a_mixed_table(tmp_path):
    frame = visits()
    model = VAE(columns={"visits": "count"}, hidden=(32,), max_epochs=60, random_state=0, device="cpu").fit(frame)
    assert [c.kind for c in model.schema_.columns] == ["count", "number", "boolean"]
    drawn = model.sample(4000, noise=True, random_state=0)
    assert drawn.dtypes.equals(frame.dtypes)
    assert drawn["visits"].min() == 0
    assert drawn["visits"].mean() == pytest.approx(frame["visits"].mean(), rel=0.15)
    assert drawn["visits"].var() > 3 * drawn["visits"].mean()  # more than a Poisson has, as in the rows
    assert np.corrcoef(drawn["visits"], drawn["age"])[0, 1] > 0.25
    back = model.reconstruct(frame)
    assert back.dtypes.equals(frame.dtypes)
    model.save(tmp_path / "m")
    pd.testing.assert_frame_equal(load(tmp_path / "m").reconstruct(frame), back)
    assert model.score_features(frame)[:, 0].max() <= 0  # log-probabilities, not densities
    with pytest.raises(ValueError, match=r"column 'visits' has 1.5 in row 2; expected counts"):
        model.transform(frame.assign(visits=[0, 1, 1.5, *[2] * (len(frame) - 3)]))


def test_counts_are_imputed_as_counts():
    frame = visits().astype({"visits": "Int64"})
    holes = frame.mask(np.random.default_rng(1).random(frame.shape) < 0.2)
    imputer = Imputer(VAE(columns={"visits": "count"}, hidden=(32,), max_epochs=30, device="cpu"), random_state=0)
    full = imputer.fit_transform(holes)
    assert full["visits"].dtype == "Int64"
    assert not full.isna().any(axis=None)
    assert full["visits"].min() >= 0
    assert set(map(type, full["smokes"])) == {bool}
    unsure = imputer.uncertainty(holes)["visits"]
    assert (unsure.dropna() > 0.2).all()  # counts of about 4, known from two other columns


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.5, 2.0, 3.0], "other values than whole numbers"),
        ([-1, 2, 3], "other values"),
        (["a", "b", "a"], "holds text"),
    ],
)
def test_columns_that_hold_no_counts(values, said):
    with pytest.raises(ValueError, match=said):
        VAE(columns={"n": "count"}, **QUICK).fit(pd.DataFrame({"n": values, "m": [1.0, 2.0, 3.0]}))


def test_a_mixed_table_says_which_columns_are_counts():
    with pytest.raises(ValueError, match=r"columns=\{'visits': 'count'\}"):
        VAE(likelihood="poisson", **QUICK).fit(visits())


def test_raw_rows_say_where_a_cell_is_no_count():
    grid = np.zeros((2, 1, 2, 2))
    grid[1, 0, 1, 0] = 0.5
    with pytest.raises(ValueError, match=r"pixel \(0, 1, 0\) has 0.5 in row 1"):
        refuse_uncountable(Raw(grid, "image", "numpy"))
