"""Models against closed forms: principal components, probabilistic PCA, exact likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from diabolo import VAE, Autoencoder, BetaVAE


def low_rank(n, d, rank, noise, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d)) + noise * rng.normal(size=(n, d)) + rng.normal(size=d)
    )


@pytest.mark.parametrize("network", ["mlp", "auto"])
def test_a_linear_autoencoder_spans_the_principal_subspace(network):
    X = low_rank(600, 8, 3, 0.3)
    pca = PCA(3).fit(X)
    ae = Autoencoder(3, hidden=(), network=network, scale=None, validation_fraction=0, weight_decay=0, random_state=0)
    ae.set_params(max_epochs=500, learning_rate=1e-2, batch_size=64).fit(X)
    here = np.mean((ae.reconstruct(X) - X) ** 2)
    best = np.mean((pca.inverse_transform(pca.transform(X)) - X) ** 2)
    assert best <= here * (1 + 1e-6)  # PCA is the optimum; the slack is rounding
    assert here <= 1.01 * best
    directions = ae.inverse_transform(np.eye(3)) - ae.inverse_transform(np.zeros((1, 3)))
    assert np.degrees(subspace_angles(directions.T, pca.components_.T)).max() < 3


@pytest.mark.parametrize("network", ["mlp", "auto"])
def test_the_bound_of_a_linear_vae_meets_probabilistic_pca(network):
    X = low_rank(1000, 6, 2, 0.5)
    exact = PCA(2).fit(X).score(X)  # scikit-learn's exact log-likelihood of probabilistic PCA
    vae = VAE(2, hidden=(), network=network, validation_fraction=0, weight_decay=0, random_state=0, kl_warmup=0.0)
    vae.set_params(max_epochs=200, learning_rate=1e-2, batch_size=100)
    images = X[:, None, :]  # as one-row images all features share one scale, as in probabilistic PCA
    vae.fit(images)
    bounds = vae.score_samples(images, n_samples=64, random_state=0)
    assert (
        bounds.mean() <= exact + 0.02
    )  # the bound is below the best likelihood; 0.02 nats is twice the Monte-Carlo error
    assert bounds.mean() >= exact - 0.1  # and meets it, up to what stochastic training leaves


def test_the_bound_never_exceeds_the_exact_likelihood_of_the_same_model():
    X = low_rank(400, 5, 2, 1.0)
    vae = VAE(2, hidden=(), likelihood="gaussian", scale=None, max_epochs=30, random_state=0).fit(X)
    base = vae.inverse_transform(np.zeros((1, 2)))[0]
    W = (vae.inverse_transform(np.eye(2)) - base).T
    exact = multivariate_normal(base, W @ W.T + np.eye(5)).logpdf(X)
    bounds = vae.score_samples(X, n_samples=256, random_state=0)
    assert (bounds <= exact + 0.5).all()  # a row's Monte-Carlo error over 256 draws is about 0.1 nats
    assert bounds.mean() <= exact.mean() + 0.01
    assert bounds.mean() >= exact.mean() - 0.2  # the posterior of a linear model is Gaussian, so the gap can close


def test_a_default_vae_explains_a_rank_four_table():
    X = low_rank(1000, 50, 4, 0.0)
    vae = VAE(8, random_state=0, max_epochs=30).fit(X[:800])
    error = np.mean((vae.reconstruct(X[800:]) - X[800:]) ** 2)
    assert 1 - error / X[800:].var(axis=0).mean() >= 0.95


@pytest.mark.filterwarnings("ignore:posterior collapse")  # which is what beta=1000 is for
def test_beta_changes_the_model():
    X = low_rank(400, 20, 4, 0.1)
    scores = [BetaVAE(4, beta=beta, max_epochs=20, random_state=0).fit(X).reconstruct(X) for beta in (1, 1000)]
    errors = [np.mean((r - X) ** 2) for r in scores]
    assert errors[1] > 5 * errors[0]  # beta=1000 leaves little but the mean


def test_scores_are_densities_in_the_units_of_the_data():
    X = low_rank(300, 4, 2, 1.0)
    a = Autoencoder(2, hidden=(), max_epochs=5, random_state=0).fit(X)
    b = Autoencoder(2, hidden=(), max_epochs=5, random_state=0).fit(X * 1000)
    # a thousand times the unit is a thousandth of the density, for each of four features
    np.testing.assert_allclose(a.score_samples(X) - 4 * np.log(1000), b.score_samples(X * 1000), rtol=1e-5)


def test_a_default_autoencoder_beats_pca_on_digits_by_a_third():
    X = load_digits().data
    train, test = train_test_split(X, test_size=0.25, random_state=0)
    pca = PCA(16).fit(train)
    best_linear = np.mean((pca.inverse_transform(pca.transform(test)) - test) ** 2)
    ae = Autoencoder(16, random_state=0).fit(train)
    assert np.mean((ae.reconstruct(test) - test) ** 2) <= 0.65 * best_linear


def test_missing_cells_are_filled_from_the_others():
    X = low_rank(800, 12, 2, 0.05)
    rng = np.random.default_rng(1)
    hidden = rng.random(X.shape) < 0.1
    holes = np.where(hidden, np.nan, X)
    ae = Autoencoder(2, max_epochs=60, random_state=0).fit(holes)
    filled = ae.reconstruct(holes)
    assert np.isfinite(filled).all()
    error = np.mean((filled - X)[hidden] ** 2) / np.mean((X - X.mean(0))[hidden] ** 2)
    assert error < 0.3  # column means score 1
