"""Penalties on a batch of codes against double loops, known divergences and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from torch.nn import functional as F

from diabolo import DIPVAE, VAE, WAE, AdversarialAutoencoder, Autoencoder, BetaTCVAE, BetaVAE, FactorVAE, InfoVAE
from diabolo.checks import ParameterError
from diabolo.parts.bottlenecks import gaussian_log_prob
from diabolo.records import Batch, Code, Trace
from diabolo.seeding import seeded
from diabolo.zoo.matching import (
    PAIR_ROWS,
    CovarianceMatch,
    DecomposedKL,
    DensityRatio,
    Discrepancy,
    PriorAdversary,
    decompose_kl,
    mmd,
)

X = load_iris().data
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
F64 = 1e-10  # relative error of a handful of float64 operations, with room


def trace(z, mu=None, logvar=None):
    """Wrap codes as penalties see them."""
    aux = {} if mu is None else {"mu": mu, "logvar": logvar}
    return Trace(Batch(z), z, Code(z, {}, aux), z)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# discrepancy --------------------------------------------------------------------------------------------------------------------


def kernel(a, b, name):
    square = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    width = 2 * len(a)
    if name == "rbf":
        return math.exp(-square / width)
    return sum(width * s / (width * s + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))


@pytest.mark.parametrize("name", ["imq", "rbf"])
def test_mmd_equals_a_double_loop(name):
    z, p = normal(7, 3), normal(7, 3, seed=1) * 2
    n, total = 7, 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += (kernel(z[i].tolist(), z[j].tolist(), name) + kernel(p[i].tolist(), p[j].tolist(), name)) / 42
            total -= 2 * kernel(z[i].tolist(), p[j].tolist(), name) / 49
    assert mmd(z, p, name).item() == pytest.approx(total, rel=F64)


def test_mmd_of_gaussians_equals_its_closed_form():
    d, n, shift = 2, 400, 1.5
    draws = []
    for seed in range(20):
        with seeded(seed):
            draws.append(mmd(torch.randn(n, d).double() + shift, torch.randn(n, d).double(), "rbf").item())
    # E exp(-|a - b|^2 / 2h) for a - b ~ N(m, 2 I) is (h / (h + 2))^(d/2) exp(-|m|^2 / (2 (h + 2))), here h = d = 2
    want = 2 * 0.5 * (1 - math.exp(-(d * shift**2) / 8))
    assert abs(np.mean(draws) - want) < 5 * np.std(draws) / 20**0.5  # five standard errors


@pytest.mark.parametrize("name", ["imq", "rbf"])
def test_mmd_of_the_prior_with_itself_is_zero_on_average(name):
    with seeded(0):
        draws = [mmd(torch.randn(50, 3), torch.randn(50, 3), name).item() for _ in range(200)]
    assert abs(np.mean(draws)) < 5 * np.std(draws) / 200**0.5  # no bias, five standard errors


def test_the_penalty_compares_codes_with_draws_of_the_prior():
    z = normal(PAIR_ROWS + 50, 2)
    with seeded(3):
        got = Discrepancy(7.0, "imq")(None, trace(z))
    with seeded(3):
        want = 7.0 * mmd(z[:PAIR_ROWS], torch.randn_like(z[:PAIR_ROWS]), "imq")
    assert torch.equal(got, want)
    assert Discrepancy(7.0, "imq")(None, trace(z[:1])) == 0


def test_wae_brings_codes_to_the_prior():
    rows = np.random.default_rng(0).gamma(1.0, size=(300, 5)) @ np.random.default_rng(1).normal(size=(5, 8))

    def distance(weight):
        settings = {
            "max_epochs": 30,
            "validation_fraction": 0,
            "random_state": 0,
            "hidden": (32,),
            "learning_rate": 5e-3,
        }
        codes = torch.from_numpy(WAE(3, mmd_weight=weight, **settings).fit(rows).transform(rows))
        return mmd(codes[:300], normal(300, 3), "imq").item()

    assert distance(100.0) < 0.25 * distance(0.0)


def test_validation_counts_the_discrepancy():
    for model in (WAE(2, **QUICK), InfoVAE(2, **QUICK)):
        row = model.fit(X).history_.rows[0]
        terms = [row[k] for k in ("val_reconstruction", "val_kl", "val_mmd") if k in row]
        assert row["val_loss"] == pytest.approx(sum(terms), rel=1e-5)  # float32


def test_without_weight_a_wae_is_an_autoencoder_with_a_prior():
    plain = Autoencoder(2, **QUICK).fit(X)
    wae = WAE(2, mmd_weight=0.0, **QUICK).fit(X)
    np.testing.assert_allclose(
        wae.reconstruct(X), plain.reconstruct(X), atol=1.0
    )  # order and noise differ, size does not
    with pytest.raises(TypeError, match="Autoencoder has no prior"):
        plain.sample(2)
    assert wae.sample(2, random_state=0).shape == (2, 4)


def test_info_vae_without_its_own_terms_is_a_vae():
    settings = QUICK | {"max_epochs": 20, "validation_fraction": 0}
    vae, info = VAE(2, **settings).fit(X), InfoVAE(2, alpha=0.0, mmd_weight=1.0, **settings).fit(X)
    assert info.history_["mmd"] == [0.0] * 20
    # the prior's draws take other noise; two seeds of a VAE differ as much
    assert info.score(X) == pytest.approx(vae.score(X), abs=0.5)
    mmd_vae = InfoVAE(2, alpha=1.0, **settings).fit(X)
    assert mmd_vae.history_["kl"] == [0.0] * 20


# total correlation --------------------------------------------------------------------------------------------------------------


def correlated(n, rho, noise, seed=0):
    """Make means, log-variances and codes whose distribution over all rows is normal with the correlation ``rho``."""
    covariance = np.array([[1.0, rho], [rho, 1.0]]) - noise * np.eye(2)
    mu = torch.from_numpy(np.random.default_rng(seed).multivariate_normal([0, 0], covariance, size=n))
    logvar = torch.full_like(mu, math.log(noise))
    return mu + noise**0.5 * normal(n, 2, seed=seed), mu, logvar


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_parts_of_the_divergence_of_a_known_gaussian(rho):
    noise = 0.4
    draws = [decompose_kl(*correlated(512, rho, noise, seed), n_rows=512) for seed in range(20)]
    got = {k: np.array([d[k].item() for d in draws]) for k in draws[0]}
    covariance = np.array([[1.0, rho], [rho, 1.0]])
    tc = -0.5 * np.log(np.linalg.det(covariance))
    mi = 0.5 * np.log(np.linalg.det(covariance)) - 0.5 * np.log(noise**2)
    # The density is estimated from 512 posteriors, which biases it by a few hundredths of a nat, and the mean over 20 sets has
    # an error of the same size.
    assert got["tc"].mean() == pytest.approx(tc, abs=0.03)
    assert got["mi"].mean() == pytest.approx(mi, abs=0.05)
    assert got["dimension_kl"].mean() == pytest.approx(0.0, abs=0.03)  # each unit is N(0, 1)


def test_the_parts_sum_to_the_divergence():
    z, mu, logvar = correlated(40, 0.7, 0.2)
    own, prior = gaussian_log_prob(z, mu, logvar), gaussian_log_prob(z, torch.zeros(()), torch.zeros(()))
    total = sum(decompose_kl(z, mu, logvar, 1000).values())
    torch.testing.assert_close(total, (own - prior).sum(1).mean(), rtol=F64, atol=F64)


def test_the_parts_equal_plain_loops():
    n, n_rows = 6, 50
    z, mu, logvar = correlated(n, 0.3, 0.5)

    def log_q(i, j, d):
        return gaussian_log_prob(z[i, d], mu[j, d], logvar[j, d]).item()

    def weight(i, j):
        return 1 / n_rows if i == j else (n_rows - 1) / n_rows / (n - 1)

    assert sum(weight(0, j) for j in range(n)) == pytest.approx(1)
    joint = [
        math.log(sum(weight(i, j) * math.exp(log_q(i, j, 0) + log_q(i, j, 1)) for j in range(n))) for i in range(n)
    ]
    single = [
        [math.log(sum(weight(i, j) * math.exp(log_q(i, j, d)) for j in range(n))) for d in (0, 1)] for i in range(n)
    ]
    got = decompose_kl(z, mu, logvar, n_rows)
    assert got["tc"].item() == pytest.approx(np.mean(joint) - np.mean(np.sum(single, axis=1)), rel=1e-9)
    own = np.mean([log_q(i, i, 0) + log_q(i, i, 1) for i in range(n)])
    assert got["mi"].item() == pytest.approx(own - np.mean(joint), rel=1e-9)


def test_only_what_differs_from_the_bound_is_added():
    z, mu, logvar = correlated(40, 0.7, 0.2)
    parts = decompose_kl(z, mu, logvar, 100)
    penalty = DecomposedKL({"mi": -0.5, "tc": 3.0, "dimension_kl": 0.0}, 100)
    torch.testing.assert_close(penalty(None, trace(z, mu, logvar)), -0.5 * parts["mi"] + 3 * parts["tc"])
    assert penalty(None, trace(z[:1], mu[:1], logvar[:1])) == 0
    one = BetaTCVAE(2, tc_weight=1.0, **QUICK).fit(X)
    np.testing.assert_array_equal(one.score_samples(X), VAE(2, **QUICK).fit(X).score_samples(X))


def test_equal_weights_are_a_beta_vae_on_average():
    _, mu, logvar = (t.repeat(12, 1) for t in correlated(40, 0.7, 0.2))
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()
    penalty = DecomposedKL({"mi": 3.0, "tc": 3.0, "dimension_kl": 3.0}, 480)
    with seeded(0):
        drawn = [mu + (0.5 * logvar).exp() * torch.randn_like(mu) for _ in range(25)]
    got = np.array([penalty(None, trace(z, mu, logvar)).item() for z in drawn])
    assert abs(got.mean() - 3 * kl.item()) < 5 * got.std() / 25**0.5  # five standard errors
    assert BetaVAE(2, beta=4.0).beta - 1 == 3.0


def test_a_single_row_of_data_is_fitted():
    for model in (BetaTCVAE(1, **QUICK), DIPVAE(1, **QUICK), FactorVAE(1, **QUICK), InfoVAE(1, **QUICK)):
        assert np.isfinite(model.fit(X[:1]).history_["loss"]).all()


def test_the_density_ratio_finds_a_known_total_correlation():
    rho, n = 0.8, 4000
    codes = torch.from_numpy(np.random.default_rng(0).multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n)).float()
    with seeded(0):
        penalty = DensityRatio(1.0, 2, (64, 64))
        optimizer = torch.optim.Adam(penalty.parameters(), lr=3e-3)
        for _ in range(400):
            optimizer.zero_grad()
            penalty(None, trace(codes[torch.randint(n, (512,))])).backward()
            optimizer.step()
    estimate = penalty.eval()(None, trace(codes)).item()
    want = -0.5 * math.log(1 - rho**2)  # 0.51 nats
    assert estimate == pytest.approx(want, abs=0.1)  # a short training of a small network; its error falls with both


def test_exchange_keeps_each_unit_and_breaks_rows():
    seen = []
    z = torch.arange(12.0).reshape(6, 2)
    penalty = DensityRatio(1.0, 2, (4,))
    penalty.lesson = lambda codes, others: seen.append(others) or codes.sum() * 0
    with seeded(0):
        penalty(None, trace(z))
    (exchanged,) = seen
    for d in (0, 1):
        assert sorted(exchanged[:, d].tolist()) == z[:, d].tolist()
    assert not torch.equal(exchanged, z)
    assert (exchanged[:, 1] - exchanged[:, 0] != 1).any()


@pytest.mark.parametrize("cls", [DensityRatio, PriorAdversary])
def test_the_codes_do_not_learn_the_lesson_and_the_judge_does_not_yield(cls):
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with seeded(0):
        penalty = cls(2.0, 2, (4,))
        total = penalty(None, trace(z))
    total.backward()
    logits = penalty.network(z)[:, 0]
    plain = logits.mean() if cls is DensityRatio else F.softplus(logits).mean()
    torch.testing.assert_close(total, 2 * plain)  # the lesson has no value
    torch.testing.assert_close(z.grad, torch.autograd.grad(2 * plain, z, retain_graph=True)[0])
    with seeded(0):
        cls(2.0, 2, (4,))  # takes the same draws
        others = z.gather(0, torch.rand_like(z).argsort(0)) if cls is DensityRatio else torch.randn_like(z)
    labels = torch.cat([torch.ones(8), torch.zeros(8)])
    judged = penalty.network(torch.cat([z, others]).detach())[:, 0]
    lesson = F.binary_cross_entropy_with_logits(judged, labels)
    for p, want in zip(penalty.parameters(), torch.autograd.grad(lesson, list(penalty.parameters())), strict=True):
        torch.testing.assert_close(p.grad, want)


def test_an_adversarial_code_is_brought_to_the_prior():
    rows = np.random.default_rng(0).gamma(1.0, size=(300, 5)) @ np.random.default_rng(1).normal(size=(5, 8))

    def distance(weight):
        settings = {
            "max_epochs": 30,
            "validation_fraction": 0,
            "random_state": 0,
            "hidden": (32,),
            "learning_rate": 5e-3,
        }
        model = AdversarialAutoencoder(3, adversary_weight=weight, **settings).fit(rows)
        return mmd(torch.from_numpy(model.transform(rows))[:300], normal(300, 3), "imq").item()

    assert distance(5.0) < 0.5 * distance(0.0)


# covariance ---------------------------------------------------------------------------------------------------------------------


def test_covariance_terms_equal_numpy():
    mu, logvar = normal(30, 4), normal(30, 4, seed=1)
    for noise in (False, True):
        C = np.cov(mu.numpy().T, bias=True)
        if noise:
            C = C + np.diag(logvar.exp().mean(0).numpy())
        off = C - np.diag(np.diag(C))
        want = 3.0 * (off**2).sum() + 5.0 * ((np.diag(C) - 1) ** 2).sum()
        got = CovarianceMatch(3.0, 5.0, noise)(None, trace(mu, mu, logvar))
        assert got.item() == pytest.approx(want, rel=F64)


def test_the_weights_of_dip_follow_its_kind():
    for kind, factor in (("i", 10), ("ii", 1)):
        (penalty,) = DIPVAE(2, variant=kind, off_diagonal_weight=3.0, **QUICK).fit(X).module_.penalties
        assert (penalty.off_diagonal_weight, penalty.diagonal_weight, penalty.noise) == (
            3.0,
            3.0 * factor,
            kind == "ii",
        )
    (penalty,) = DIPVAE(2, variant="i", diagonal_weight=0.5, **QUICK).fit(X).module_.penalties
    assert penalty.diagonal_weight == 0.5


def test_dip_makes_codes_less_correlated():
    rng = np.random.default_rng(0)
    causes = rng.uniform(-1, 1, size=(500, 2))
    rows = np.stack([causes[:, 0], causes.sum(1), causes[:, 0] * causes[:, 1], np.sin(3 * causes[:, 1])], axis=1)

    def distance(weight):
        settings = {"max_epochs": 40, "validation_fraction": 0, "random_state": 0, "hidden": (32,), "batch_size": 125}
        codes = DIPVAE(2, variant="i", off_diagonal_weight=weight, **settings).fit(rows).transform(rows)
        return np.abs(np.cov(codes.T) - np.eye(2)).max()

    assert distance(20.0) < 0.05 + 0.5 * distance(0.0)


# all of them --------------------------------------------------------------------------------------------------------------------

MODELS = [cls(2, **QUICK) for cls in (WAE, InfoVAE, BetaTCVAE, FactorVAE, DIPVAE, AdversarialAutoencoder)]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_training_in_half_precision_stays_finite(model):
    model = clone(model).set_params(precision="bfloat16").fit(X)
    assert np.isfinite(model.history_["loss"]).all()
    assert np.isfinite(model.score_samples(X)).all()


@pytest.mark.filterwarnings("ignore:posterior collapse")  # a single column is standardised noise to three epochs
@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_samples_are_finite_rows(model):
    for rows in (X, load_digits().images[:40], X[:2], X[:, :1]):
        width = {"latent_dim": 1} if rows.shape[1:] == (1,) else {"latent_dim": 2}
        with seeded(0):
            samples = model.set_params(**width).fit(rows).sample(20, noise=True, random_state=0)
        assert samples.shape == (20, *rows.shape[1:])
        assert np.isfinite(samples).all()
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    assert np.isfinite(model.fit(holes).score_samples(holes)).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WAE(kernel="cauchy"), "kernel='cauchy': expected {'imq', 'rbf'}"),
        (InfoVAE(alpha=2.0), "alpha=2.0: expected float >= 0 and <= 1"),
        (InfoVAE(mmd_weight=0.5), "mmd_weight=0.5: expected float >= 1"),
        (DIPVAE(variant="iii"), "variant='iii': expected {'i', 'ii'}"),
        (DIPVAE(diagonal_weight="high"), "diagonal_weight='high': expected float or {'auto'} >= 0"),
        (FactorVAE(critic_hidden=(0,)), r"critic_hidden=\(0,\): expected tuple of int >= 1"),
        (BetaTCVAE(tc_weight=-1.0), "tc_weight=-1.0: expected float >= 0"),
        (AdversarialAutoencoder(adversary_weight=-1.0), "adversary_weight=-1.0: expected float >= 0"),
    ],
)
def test_impossible_parameters_are_named(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(X)
