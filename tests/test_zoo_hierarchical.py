"""Ladders, second stages and capacities against closed forms, exact likelihoods and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from torch import nn
from torch.distributions import Normal, kl_divergence

from diabolo import VAE, CapacityVAE, LadderVAE, TwoStageVAE
from diabolo.checks import ParameterError
from diabolo.objectives import elbo, log_likelihood
from diabolo.seeding import seeded
from diabolo.zoo.capacity import annealed_capacity
from diabolo.zoo.hierarchical import Ladder, merge
from diabolo.zoo.two_stage import TwoStage
from linear_models import bound, linear

X = load_iris().data
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
F64 = 1e-9  # relative error of some dozen float64 operations, with room


def exact(module, batch, mean, covariance):
    """Return the exact log-likelihood of rows when codes are drawn from a Gaussian."""
    W, b = module.decoder.weight.detach().numpy(), module.decoder.bias.detach().numpy()
    return multivariate_normal(W @ mean + b, W @ covariance @ W.T + np.eye(3)).logpdf(batch.x.numpy())


# ladders ------------------------------------------------------------------------------------------------------------------------


def linear_ladder():
    """Return a ladder whose way down is linear, and mean and covariance of its lowest code under the prior."""
    with seeded(3):
        ladder = Ladder((2, 2), 4)
        down = nn.Linear(2, 4)
        down.weight.data[2:] = 0.0  # the noise of the lower code does not depend on the upper one
        ladder.down = nn.ModuleList([down])
        ladder.double()
    A, b = down.weight.detach().numpy(), down.bias.detach().numpy()
    return ladder, b[:2], A[:2] @ A[:2].T + np.diag(np.exp(b[2:]))


def test_merging_multiplies_two_gaussians():
    with seeded(0):
        mu, logvar, prior_mu, prior_logvar = torch.randn(4, 3, 2, dtype=torch.float64)
    got_mu, got_logvar = merge(mu, logvar, prior_mu, prior_logvar)
    precision = (-logvar).exp() + (-prior_logvar).exp()
    torch.testing.assert_close(got_logvar, -precision.log())
    torch.testing.assert_close(got_mu, (mu * (-logvar).exp() + prior_mu * (-prior_logvar).exp()) / precision)


def test_merging_stays_finite_at_the_limits():
    for a, b in ((-20.0, 10.0), (10.0, -20.0)):
        mu, logvar = merge(*(torch.tensor([[v]], requires_grad=True) for v in (3.0, a, -1.0, b)))
        assert torch.isfinite(torch.cat([mu, logvar])).all()
        assert mu.item() == pytest.approx(3.0 if a < b else -1.0, abs=1e-6)


@pytest.mark.parametrize("sample", [True, False])
def test_each_layer_costs_the_divergence_of_two_gaussians(sample):
    with seeded(0):
        ladder = Ladder((3, 2, 1), 5).double()
        for p in ladder.parameters():
            p.data += 0.3 * torch.randn(p.shape)
        h = torch.randn(6, ladder.in_features, dtype=torch.float64)
        code = ladder(h, sample=sample)
    assert list(code.costs) == ["kl_1", "kl_2", "kl_3"]
    for layer in (1, 2, 3):
        posterior = Normal(code.aux[f"mean_{layer}"], (0.5 * code.aux[f"logvar_{layer}"]).exp())
        if layer == 3:
            prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
        else:
            mean, logvar = ladder.down[layer - 1](code.aux[f"z_{layer + 1}"]).chunk(2, dim=1)
            prior = Normal(mean, (0.5 * logvar).exp())
        torch.testing.assert_close(
            code.costs[f"kl_{layer}"], kl_divergence(posterior, prior).sum(1), rtol=F64, atol=F64
        )
        if not sample:
            torch.testing.assert_close(code.aux[f"z_{layer}"], code.aux[f"mean_{layer}"])
    torch.testing.assert_close(code.z, code.aux["z_1"])


def test_the_mean_log_ratio_of_draws_is_the_mean_cost():
    ladder, _, _ = linear_ladder()
    with seeded(0), torch.no_grad():
        h = torch.randn(1, ladder.in_features, dtype=torch.float64).expand(20_000, -1)
        code = ladder(h, sample=True)
        difference = ladder.log_ratio(code) - sum(code.costs.values())
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(len(h))


def test_the_bound_of_a_linear_ladder_is_below_the_exact_likelihood():
    ladder, mean, covariance = linear_ladder()
    module, batch = linear(ladder)
    estimate, error = bound(module, batch)
    assert (estimate < exact(module, batch, mean, covariance) + 5 * error).all()


def test_samples_go_from_the_top_down():
    ladder, mean, covariance = linear_ladder()
    n = 20_000
    with seeded(0):
        z = ladder.prior(n).numpy()
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(z.mean(0), mean, atol=5 * spread.max() / math.sqrt(n))
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=8 * covariance.max() / math.sqrt(n))


def test_layers_are_codes_from_the_lowest_up():
    model = LadderVAE(3, upper_dims=(2, 1), **QUICK).fit(X)
    layers = model.layers(X)
    assert [Z.shape for Z in layers] == [(150, 3), (150, 2), (150, 1)]
    np.testing.assert_array_equal(layers[0], model.transform(X))
    assert {"kl_1", "kl_2", "kl_3", "val_kl_3"} <= set(model.history_.keys())
    assert LadderVAE(5, **QUICK).fit(X).layers(X)[1].shape == (150, 2)  # half, rounded down
    assert len(LadderVAE(2, upper_dims=(), **QUICK).fit(X).layers(X)) == 1


# second stages ------------------------------------------------------------------------------------------------------------------


def test_the_second_stage_gives_no_gradient_to_the_first():
    with seeded(0):
        stage = TwoStage(2, (8,)).train()
        h = torch.randn(5, 4, requires_grad=True)
        code = stage(h, sample=True)
    code.costs["second_stage"].sum().backward()
    assert h.grad is None
    assert all(p.grad is not None for p in stage.second.parameters())


def linear_second_stage():
    """Return a bottleneck with a linear second stage, and mean and covariance of the codes that it draws."""
    with seeded(2):
        stage = TwoStage(2, ())
        stage.second.likelihood.start(0.3)
        stage.double()
    decoder = stage.second.decoder.shortcut
    W, b = decoder.weight.detach().numpy(), decoder.bias.detach().numpy()
    variance = stage.second.likelihood.log_scale.exp().item() ** 2
    return stage, b, W @ W.T + variance * np.eye(2)


def test_the_bound_with_a_second_stage_is_below_the_exact_likelihood_of_what_it_generates():
    stage, mean, covariance = linear_second_stage()
    module, batch = linear(stage)
    estimate, error = bound(module, batch)
    assert (estimate < exact(module, batch, mean, covariance) + 5 * error).all()


def test_the_cost_at_the_centre_stands_for_the_mean_over_draws_of_the_code():
    stage, _, _ = linear_second_stage()
    module, batch = linear(stage)
    got = module.trace(batch, sample=False).code
    n = 20_000
    with seeded(0), torch.no_grad():
        mu, sd = got.aux["mu"], (0.5 * got.aux["logvar"]).exp()
        z = mu + sd * torch.randn(n, *mu.shape, dtype=torch.float64)
        cost = stage.second_stage(z.flatten(0, 1), False).view(n, -1)
        log_q = Normal(mu, sd).log_prob(z).sum(2)
    # linear maps make the cost a quadratic function, over which the points are exact for up to four units
    error = 5 * (cost + log_q).std(0) / math.sqrt(n)
    assert ((got.costs["kl"] - (cost + log_q).mean(0)).abs() < error).all()


@pytest.mark.parametrize("make", [linear_ladder, linear_second_stage])
def test_importance_sampling_finds_the_exact_likelihood(make):
    bottleneck, mean, covariance = make()
    module, batch = linear(bottleneck)
    with torch.no_grad():  # wide posteriors, so that weights have a finite variance
        module.encoder.weight *= 0.3
        with seeded(0):
            got = log_likelihood(module, batch, 50_000, elements=10**6)[:, 0]
    np.testing.assert_allclose(got.numpy(), exact(module, batch, mean, covariance), atol=0.1)


def test_samples_go_through_both_stages():
    stage, mean, covariance = linear_second_stage()
    n = 20_000
    with seeded(0):
        z = stage.prior(n).numpy()
    np.testing.assert_allclose(z.mean(0), mean, atol=5 * math.sqrt(covariance.max() / n))
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=8 * covariance.max() / math.sqrt(n))


def ring(n, seed):
    """Return rows of six columns near a circle."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    plane = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0][:2]
    return np.c_[np.cos(angle), np.sin(angle)] @ plane + 0.03 * rng.normal(size=(n, 6))


def energy_distance(A, B):
    def mean_distance(P, Q):
        return np.sqrt(np.square(P[:, None] - Q[None]).sum(2)).mean()

    return 2 * mean_distance(A, B) - mean_distance(A, A) - mean_distance(B, B)


def test_samples_of_two_stages_are_nearer_to_data_whose_codes_are_far_from_normal():
    fit, held_out = ring(600, 0), ring(400, 1)
    settings = {"hidden": (), "max_epochs": 60, "batch_size": 64, "random_state": 0, "validation_fraction": 0}
    far, near = (
        energy_distance(model.fit(fit).sample(400, noise=True, random_state=0), held_out)
        for model in (VAE(2, **settings), TwoStageVAE(2, **settings))
    )
    assert near < 0.7 * far  # a third less, of which the noise of 400 draws is a part


# capacities ---------------------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_capacity_is_its_formula():
    model = CapacityVAE(2, **QUICK).fit(X)
    batch = model.codec_.encode(model._read(X, reset=False)).slice(0, 50)
    with seeded(0):
        plain = elbo(model.module_, batch, 1.0)
    for progress, now in ((0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (1.0, 4.0)):
        with seeded(0):
            loss = annealed_capacity(model.module_, batch, progress, capacity=4.0, gamma=7.0, rise=0.5)
        expected = plain.terms["reconstruction"] + 7.0 * abs(plain.terms["kl"] - now)
        assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)  # float32
    with seeded(0):
        loss = annealed_capacity(model.module_, batch, 1.0, capacity=None, gamma=7.0, rise=0.5)
    assert loss.terms["distance"].item() == pytest.approx(7 * abs(plain.terms["kl"].item() - 5.0), rel=1e-5)


@pytest.mark.parametrize("capacity", [0.5, 4.0])
def test_the_code_holds_what_it_is_told_to(capacity):
    settings = {"hidden": (16,), "max_epochs": 120, "learning_rate": 5e-3, "random_state": 0, "validation_fraction": 0}
    model = CapacityVAE(2, capacity=capacity, **settings).fit(X)
    assert model.activity(X).kl.sum() == pytest.approx(capacity, abs=0.1)  # steps of the last epochs go to and fro


def test_the_learned_scale_is_the_optimal_one():
    """The scale of ``learned_gaussian`` is that of the optimal sigma-VAE: the root mean square of residuals of draws."""
    settings = {"hidden": (16,), "max_epochs": 40, "random_state": 0, "validation_fraction": 0}
    model = VAE(2, **settings).fit(X)
    batch = model.codec_.encode(model._read(X, reset=False)).slice(0, 150)
    with seeded(0), torch.no_grad():
        raw = [model.module_.trace(batch, sample=True).raw[:, 0] for _ in range(200)]
    optimal = (torch.stack(raw) - batch.x).square().mean(dim=(0, 1)).sqrt()
    # the running mean covers the draws of the last fifty batches of 32 rows: a standard error of 2%
    torch.testing.assert_close(model.module_.likelihood.log_scale.exp(), optimal, rtol=0.08, atol=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LadderVAE(upper_dims=(0,)), r"upper_dims=\(0,\): expected tuple of int or {'auto'} >= 1"),
        (TwoStageVAE(second_hidden=(0,)), r"second_hidden=\(0,\): expected tuple of int >= 1"),
        (CapacityVAE(capacity=-1.0), "capacity=-1.0: expected float or {'auto'} >= 0"),
        (CapacityVAE(gamma=0.0), "gamma=0.0: expected float > 0"),
    ],
)
def test_bad_parameters(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(X)
