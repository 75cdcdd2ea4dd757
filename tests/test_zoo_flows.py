"""Normalising flows against Jacobians, integrals, closed forms and exact likelihoods."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, multivariate_normal

from diabolo import VAE, FlowPosteriorVAE, FlowPriorVAE
from diabolo.checks import ParameterError
from diabolo.objectives import log_likelihood
from diabolo.parts.bottlenecks import Gaussian as GaussianCode
from diabolo.parts.bottlenecks import gaussian_kl
from diabolo.parts.flows import Flow
from diabolo.records import Batch
from diabolo.seeding import seeded
from diabolo.zoo.flows import FlowPosterior, FlowPrior, sign_points
from linear_models import bound, linear

QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
F64 = 1e-9  # relative error of some dozen float64 operations, with room
KINDS = ("spline", "affine")


def bent(kind, d, n=2, context=0, seed=0, size=0.5):
    """Return a flow in float64 that is far from the identity it starts as."""
    with seeded(seed):
        flow = Flow(kind, d, n, (8,), context).double()
        for p in flow.parameters():
            p.data += size * torch.randn(p.shape)
    return flow


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_volume_change_is_that_of_the_jacobian(kind, d, context):
    flow = bent(kind, d, context=context)
    with seeded(1):
        rows = torch.randn(4, d, dtype=torch.float64)
        given = torch.randn(4, context, dtype=torch.float64) if context else None
    _, log_volume = flow(rows, given)
    for i, row in enumerate(rows):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, i=i: flow(x[None], None if given is None else given[i : i + 1])[0][0], row
        )
        assert log_volume[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), rel=F64, abs=F64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_undoes_the_map(kind):
    flow = bent(kind, 4)
    with seeded(1):
        x = torch.randn(50, 4, dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=1e-6, atol=1e-6)  # root of a quadratic in each spline


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 3])
def test_a_new_flow_is_the_identity_and_its_code_costs_what_a_gaussian_one_does(kind, d):
    with seeded(0):
        x = torch.randn(6, d)
        h = torch.randn(6, 2 * d + 4)
    y, log_volume = Flow(kind, d, 2, (8,))(x)
    torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)  # float32
    torch.testing.assert_close(log_volume, torch.zeros(6), rtol=0, atol=1e-5)
    expected = GaussianCode(d)(h[:, : 2 * d], sample=False).costs["kl"]
    prior = FlowPrior(d, Flow(kind, d, 2, (8,)))(h[:, : 2 * d], sample=False)
    posterior = FlowPosterior(d, Flow(kind, d, 2, (8,), 4), 4)(h, sample=False)
    torch.testing.assert_close(prior.costs["kl"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.costs["kl"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.z, h[:, :d], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", [1, 3, 4, 7])
def test_sign_points_have_the_moments_of_the_gaussian(d):
    with seeded(0):
        mean, logvar = torch.randn(2, d, dtype=torch.float64), torch.randn(2, d, dtype=torch.float64)
    points = sign_points(mean, logvar)
    torch.testing.assert_close(points.mean(0), mean)
    torch.testing.assert_close(points.var(0, correction=0), logvar.exp())
    if d <= 4:
        off = points[:, 0] - mean[0]
        torch.testing.assert_close(off.T @ off / len(off), torch.diag(logvar[0].exp()))


def test_the_cost_at_the_centre_is_exact_for_a_gaussian_prior():
    flow = bent("affine", 1)  # without context each unit is shifted and scaled: the prior is a Gaussian
    with seeded(1):
        h = torch.randn(5, 2, dtype=torch.float64)
    origin, log_volume = flow(torch.zeros(1, 1, dtype=torch.float64))
    scale = torch.exp(-log_volume)[0]  # of the prior: the flow maps codes to N(0, 1)
    prior_mu = -origin[0, 0] * scale
    expected = gaussian_kl(h[:, 0], h[:, 1], prior_mu, 2 * scale.log())
    torch.testing.assert_close(FlowPrior(1, flow)(h, sample=False).costs["kl"], expected, rtol=F64, atol=F64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_a_flow_prior_integrates_to_one(kind):
    prior = FlowPrior(2, bent(kind, 2, size=0.2))
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = prior.log_prior(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-3)  # kinks of the splines between points of the grid


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_the_prior_follow_its_density(kind):
    flow = bent(kind, 1, seed=3, size=1.0)
    prior = FlowPrior(1, flow)
    with seeded(0):
        z = prior.prior(4000)[:, 0].numpy()

    grid = np.linspace(-15, 15, 20_001)
    with torch.no_grad():
        below = np.cumsum(prior.log_prior(torch.tensor(grid)[:, None]).exp().numpy()) * (grid[1] - grid[0])
    for edge in np.quantile(z, [0.2, 0.5, 0.8]):
        # four standard errors of a share of 4000
        assert (z < edge).mean() == pytest.approx(np.interp(edge, grid, below), abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_cost_of_draws_is_the_divergence(kind):
    prior, n = FlowPrior(1, bent(kind, 1, seed=2)), 20_000
    h = torch.tensor([[0.7, -1.0]], dtype=torch.float64)
    with seeded(0), torch.no_grad():
        costs = prior(h.expand(n, 2), sample=True).costs["kl"]
    sd = math.exp(-0.5)

    z = torch.linspace(0.7 - 8 * sd, 0.7 + 8 * sd, 20_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        log_q = torch.distributions.Normal(0.7, sd).log_prob(z[:, 0])
        exact = (log_q.exp() * (log_q - prior.log_prior(z))).sum().item() * (z[1] - z[0]).item()
    assert abs(costs.mean().item() - exact) < 5 * costs.std().item() / math.sqrt(n)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_of_a_flow_posterior_is_below_the_exact_likelihood(kind):
    module, batch = linear(FlowPosterior(2, bent(kind, 2, context=4, size=0.2), 4))
    W, b = module.decoder.weight.detach().numpy(), module.decoder.bias.detach().numpy()
    exact = multivariate_normal(b, W @ W.T + np.eye(3)).logpdf(batch.x.numpy())
    estimate, error = bound(module, batch)
    assert (estimate < exact + 5 * error).all()
    with seeded(0), torch.no_grad():
        weighed = log_likelihood(module, batch, 20_000, elements=10**6)[:, 0]
    np.testing.assert_allclose(weighed.numpy(), exact, atol=0.1)  # importance sampling closes the gap


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_under_a_flow_prior_is_below_the_exact_likelihood(kind):
    prior = FlowPrior(1, bent(kind, 1, seed=3))
    module, batch = linear(prior)
    z = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        joint = prior.log_prior(z) + torch.stack(
            [module.log_prob(module.decode(z), Batch(x.expand(6001, 3))) for x in batch.x]
        )
    exact = joint.logsumexp(1).numpy() + math.log(30 / 6000)
    estimate, error = bound(module, batch)
    assert (estimate < exact + 5 * error).all()


def two_groups(n):
    rng = np.random.default_rng(0)
    z = rng.choice([-1.0, 1.0], n) + 0.15 * rng.normal(size=n)
    return z[:, None] * np.array([1.0, -0.5, 2.0]) + 0.1 * rng.normal(size=(n, 3))


def test_samples_of_a_flow_prior_come_from_both_groups_and_not_from_between():
    X = two_groups(600)
    settings = {"hidden": (), "max_epochs": 20, "random_state": 0, "learning_rate": 0.02, "batch_size": 64}
    model = FlowPriorVAE(1, **settings).fit(X)
    samples = model.sample(2000, noise=True, random_state=0)
    assert ks_2samp(samples[:, 2], X[:, 2]).statistic < 0.1  # 0.08 is what two equal distributions exceed once in 1000
    between = np.mean(np.abs(samples[:, 2]) < 0.8)
    plain = VAE(1, **settings).fit(X).sample(2000, noise=True, random_state=0)
    assert between < 0.05 < 0.2 < np.mean(np.abs(plain[:, 2]) < 0.8)
    assert 0.4 < np.mean(samples[:, 2] > 0) < 0.6


def test_scores_need_no_draw_and_are_near_their_mean_over_draws():
    X = two_groups(200)
    for model in (FlowPriorVAE(1, **QUICK), FlowPosteriorVAE(2, **QUICK)):
        model.fit(X)
        np.testing.assert_array_equal(model.score_samples(X), model.score_samples(X))
        drawn = model.score_samples(X, n_samples=200, random_state=0)
        # the centre is rebuilt better than draws are, by half a nat for each unit of the code at most for a linear decoder
        assert -0.5 < np.mean(model.score_samples(X) - drawn) < 1.5


def test_without_zuko_the_error_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "zuko" else find(name))
    with pytest.raises(ImportError, match=r"need the package zuko: pip install 'diabolo\[flows\]'"):
        FlowPriorVAE(2, **QUICK).fit(two_groups(20))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FlowPriorVAE(flow="planar"), "flow='planar': expected {'spline', 'affine'}"),
        (FlowPriorVAE(n_transforms=0), "n_transforms=0: expected int >= 1"),
        (FlowPosteriorVAE(flow_context=0), "flow_context=0: expected int >= 1"),
    ],
)
def test_bad_parameters(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(two_groups(20))
