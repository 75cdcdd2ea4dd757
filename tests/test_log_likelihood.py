"""The importance-sampled log-likelihood against exact ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris

import diabolo.inference
from diabolo import IWAE, VAE, WAE, Autoencoder, ConditionalVAE, LadderVAE, MixturePriorVAE, VampPriorVAE
from diabolo.objectives import elbo, log_likelihood
from diabolo.records import Batch
from diabolo.seeding import seeded

X, Y = load_iris(return_X_y=True)
LINEAR = {"hidden": (), "likelihood": "gaussian", "max_epochs": 5, "random_state": 0, "device": "cpu"}


def exact(vae, rows, condition=None):
    """Log-likelihood of rows under a linear decoder and unit noise on the scaled data, in units of the rows."""
    zero = np.zeros((1, 2))
    base = vae.inverse_transform(zero, condition=condition)[0]
    W = (vae.inverse_transform(np.eye(2), condition=condition) - base).T
    noise = np.diag(np.broadcast_to(vae.codec_.scaling.width, len(base)) ** 2)
    out = []
    for row in rows:
        seen = ~np.isnan(row)
        covariance = (W @ W.T + noise)[np.ix_(seen, seen)]
        out.append(multivariate_normal(base[seen], covariance).logpdf(row[seen]))
    return np.array(out)


@pytest.fixture(scope="module")
def loose():
    """A linear VAE whose posterior is much too wide, so that its bound is far from tight."""
    vae = VAE(2, **LINEAR).fit(X)
    with torch.no_grad():
        vae.module_.encoder.shortcut.bias[2:] += 1.5
    return vae


def test_it_grows_with_the_draws_and_converges_to_the_exact_likelihood(loose):
    truth = exact(loose, X)
    means = [loose.log_likelihood(X, n_samples=k, random_state=0).mean() for k in (1, 10, 100, 2000)]
    assert means == sorted(means)  # the steps are many times their Monte-Carlo error of about 0.05 nats and less
    assert means[0] < truth.mean() - 0.5
    np.testing.assert_allclose(loose.log_likelihood(X, n_samples=2000, random_state=0), truth, atol=0.3)
    assert means[-1] == pytest.approx(truth.mean(), abs=0.02)  # errors of rows are independent
    repeats = [loose.log_likelihood(X[:5], n_samples=4, random_state=seed).mean() for seed in range(60)]
    assert np.mean(repeats) < truth[:5].mean() + 0.05  # never above in expectation


def test_one_draw_is_the_bound(loose):
    draws = [loose.log_likelihood(X, n_samples=1, random_state=seed) for seed in range(40)]
    bound = loose.score_samples(X, n_samples=400, random_state=0)
    assert np.mean(draws) == pytest.approx(bound.mean(), abs=0.1)  # three standard errors over 6000 draws


def test_units_missing_cells_and_types(loose):
    holes = X.copy()
    holes[::3, 1] = np.nan
    got = loose.log_likelihood(holes, n_samples=3000, random_state=0)
    np.testing.assert_allclose(got, exact(loose, holes), atol=0.3)
    assert got.dtype == np.float64
    single = loose.log_likelihood(X.astype(np.float32), n_samples=500, random_state=0)
    np.testing.assert_allclose(single.mean(), exact(loose, X).mean(), atol=0.05)  # 500 draws
    np.testing.assert_array_equal(single, loose.log_likelihood(X.astype(np.float32), n_samples=500, random_state=0))


def test_the_likelihood_given_a_class():
    wide = 10 * X  # of more variance within a class than the unit noise
    vae = ConditionalVAE(2, scale=None, **LINEAR).fit(wide, Y)
    for c in range(3):
        rows = wide[c == Y]
        got = vae.log_likelihood(rows, condition=c, n_samples=1000, random_state=0)
        np.testing.assert_allclose(got, exact(vae, rows, condition=c), atol=0.2)


@pytest.mark.parametrize("elements", [1, 40, 4096])
def test_parts_of_any_size_give_the_same_estimate(loose, elements, monkeypatch):
    monkeypatch.setattr(diabolo.inference, "DRAWN_ELEMENTS", elements)  # less than a row, a few draws, several rows
    got = loose.log_likelihood(X[:7], n_samples=301, random_state=0)
    np.testing.assert_allclose(got, exact(loose, X[:7]), atol=0.5)  # 301 draws


def test_it_is_the_formula(loose):
    batch = Batch(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    with seeded(1):
        got = log_likelihood(loose.module_, batch, 6, elements=10**6)[:, 0]
    with seeded(1), torch.no_grad():
        copies = batch.x.repeat_interleave(6, 0)
        code = loose.module_.encode(copies, sample=True)
        weight = loose.module_.log_prob(
            loose.module_.decode(code.z), Batch(copies)
        ) - loose.module_.bottleneck.log_ratio(code)
    np.testing.assert_allclose(got, weight.view(3, 6).double().logsumexp(1) - math.log(6), rtol=1e-6)  # float32


@pytest.mark.parametrize("model", [IWAE, MixturePriorVAE, VampPriorVAE, LadderVAE], ids=lambda m: m.__name__)
def test_it_is_above_the_bound_for_every_model_with_a_density(model):
    fitted = model(2, hidden=(8,), max_epochs=3, random_state=0, device="cpu").fit(X)
    bound = fitted.score_samples(X, n_samples=50, random_state=0).mean()
    assert fitted.log_likelihood(X, n_samples=50, random_state=0).mean() > bound
    with seeded(0), torch.no_grad():  # and is that of the loss
        table = fitted.codec_.encode(fitted._read(X, reset=False))
        loss = np.mean([elbo(fitted.module_, table.slice(0, 150), 1.0).total.item() for _ in range(50)])
    assert -loss - fitted._log_volume(fitted._read(X, reset=False)).mean() == pytest.approx(bound, abs=0.3)  # 50 draws


def test_images_and_bad_input(loose):
    images = X.reshape(150, 2, 2)
    fitted = VAE(2, network="conv", hidden=(4,), max_epochs=1, random_state=0).fit(images)
    assert fitted.log_likelihood(images[:20], n_samples=5, random_state=0).shape == (20,)
    with pytest.raises(ValueError, match="n_samples=0: expected at least 1"):
        loose.log_likelihood(X, n_samples=0)
    for model in (Autoencoder, WAE):
        with pytest.raises(TypeError, match=f"{model.__name__} has no density of codes to sample from; use VAE"):
            model(2, hidden=(), max_epochs=1, random_state=0).fit(X).log_likelihood(X)


def test_the_standard_error_is_the_spread_of_repeats(loose):
    rows = X[:20]
    repeats = np.array([loose.log_likelihood(rows, n_samples=200, random_state=seed) for seed in range(60)])
    said = [loose.log_likelihood(rows, n_samples=200, return_std=True, random_state=seed)[1] for seed in range(10)]
    ratio = np.mean(said, axis=0) / repeats.std(axis=0)
    assert 0.7 < np.median(ratio) < 1.3  # a spread of 60 repeats is known to a tenth
    nats, error = loose.log_likelihood(rows, n_samples=1, return_std=True, random_state=0)
    assert np.isfinite(nats).all()
    assert np.isnan(error).all()


def test_under_a_fitted_prior_it_is_that_of_the_model_that_generates(loose):
    vae = VAE(2, **LINEAR).fit(X).fit_prior(X, "normal", random_state=0)
    mean, factor = vae.prior_._density.arrays["means"][0], vae.prior_._density.arrays["factors"][0]
    base = vae.inverse_transform(np.zeros((1, 2)))[0]
    W = (vae.inverse_transform(np.eye(2)) - base).T
    noise = np.diag(np.broadcast_to(vae.codec_.scaling.width, len(base)) ** 2)
    truth = multivariate_normal(base + W @ mean, W @ factor @ factor.T @ W.T + noise).logpdf(X)
    nats, error = vae.log_likelihood(X, n_samples=2000, prior="fitted", return_std=True, random_state=0)
    assert np.abs(nats - truth).max() < 6 * error.max()  # of 150 rows none is six standard errors off
    own = vae.log_likelihood(X, n_samples=2000, random_state=0)
    gain = vae.prior_scores_["normal"] - vae.prior_scores_["own"]
    assert nats.mean() - own.mean() == pytest.approx(gain, abs=0.25)  # of a bound on 30 rows, and of likelihoods of 150
    with pytest.raises(TypeError, match="has no fitted prior"):
        loose.log_likelihood(X, prior="fitted")
    with pytest.raises(ValueError, match="prior='flow': expected"):
        loose.log_likelihood(X, prior="flow")
    with pytest.raises(TypeError, match="has no density of codes, which"):
        LadderVAE(2, **LINEAR | {"hidden": (8,)}).fit(X).fit_prior(X, "normal", random_state=0).log_likelihood(
            X, prior="fitted"
        )
