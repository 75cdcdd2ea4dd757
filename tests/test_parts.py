"""Each part against an independent formula: scipy, torch.distributions, numpy, or plain counting."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from torch import nn

from diabolo.parts import bottlenecks
from diabolo.parts.corruptions import CORRUPTIONS, Masking, SaltAndPepper, SwapNoise
from diabolo.parts.likelihoods import LearnedGaussian, SigmoidGaussian
from diabolo.parts.likelihoods.elements import LIKELIHOODS
from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.parts.networks.mlp import MLP
from diabolo.parts.penalties import KLSparsity, L1Sparsity, WeightL1
from diabolo.records import Batch, Code, Schema, Trace
from diabolo.seeding import seeded

SHAPES = [(5,), (1,), (2, 3), (1, 4, 4)]
F64 = 1e-10  # relative error of a handful of float64 operations, with room


# likelihoods --------------------------------------------------------------------------------------------------------------------

SCALE = 0.37  # of the learned Gaussian in these tests

# A likelihood without an entry here fails: add scipy's distribution for it, given the decoder's output.
REFERENCE = {
    "gaussian": lambda raw: stats.norm(raw[:, 0], 1.0),
    "learned_gaussian": lambda raw: stats.norm(raw[:, 0], SCALE),
    "sigmoid_gaussian": lambda raw: stats.norm(expit(raw[:, 0]), 1.0),
    "student_t": lambda raw: stats.t(5.0, raw[:, 0], SCALE),
    "laplace": lambda raw: stats.laplace(raw[:, 0], 1.0),
    "bernoulli": lambda raw: stats.bernoulli(expit(raw[:, 0])),
}


def make_likelihood(name: str, shape: tuple[int, ...]):
    cls = LIKELIHOODS[name]
    likelihood = cls(shape) if "shape" in inspect.signature(cls).parameters else cls()
    likelihood = likelihood.double()
    if isinstance(likelihood, LearnedGaussian):
        likelihood.log_scale.fill_(math.log(SCALE))
    return likelihood


def test_every_likelihood_has_a_reference():
    assert set(REFERENCE) == set(LIKELIHOODS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_equals_scipy(name, shape):
    likelihood = make_likelihood(name, shape)
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(7, likelihood.params, *shape)) * 2
    reference = REFERENCE[name](raw)
    x = rng.normal(size=(7, *shape)) * 3 if likelihood.density else rng.integers(0, 2, (7, *shape)).astype(float)
    got = likelihood.log_prob(torch.from_numpy(raw), torch.from_numpy(x))
    want = reference.logpdf(x) if likelihood.density else reference.logpmf(x.astype(int))
    assert got.shape == (7, *shape)
    np.testing.assert_allclose(got.numpy(), want, rtol=F64)
    mean = likelihood.mean(torch.from_numpy(raw))
    assert mean.shape == (7, *shape)
    np.testing.assert_allclose(mean.numpy(), reference.mean(), rtol=F64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", ["own", "shared"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_total_is_the_sum_of_elements_with_its_gradient(name, shape, scale, masked):
    likelihood = make_likelihood(name, shape if scale == "own" else (1,) * len(shape))
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.normal(size=(7, likelihood.params, *shape)) * 2).requires_grad_()
    x = torch.from_numpy(rng.uniform(size=(7, *shape)))
    mask = torch.from_numpy(rng.uniform(size=(7, *shape))) if masked else None
    elements = likelihood.log_prob(raw, x)
    want = elements.sum() if mask is None else (elements * mask).sum()
    (gradient,) = torch.autograd.grad(3 * want, raw)
    got = likelihood.total(raw, x, mask)
    torch.testing.assert_close(got, want, rtol=F64, atol=0)
    torch.testing.assert_close(torch.autograd.grad(3 * got, raw)[0], gradient, rtol=F64, atol=F64)
    rows = (elements if mask is None else elements * mask).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.rows(raw, x, mask), rows, rtol=F64, atol=F64)


def test_the_total_of_certain_logits_is_finite():
    raw, x = torch.tensor([[[500.0, -500.0]]]), torch.tensor([[0.0, 1.0]])
    assert LIKELIHOODS["bernoulli"]().total(raw, x).item() == -1000.0


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_density_integrates_to_one(name):
    likelihood = make_likelihood(name, (1,))
    raw = torch.tensor([[0.4]], dtype=torch.float64).expand(1, likelihood.params).unsqueeze(2)
    if likelihood.density:
        grid, step = torch.linspace(-40, 40, 400_001, dtype=torch.float64), 80 / 400_000
    else:
        grid, step = torch.tensor([0.0, 1.0], dtype=torch.float64), 1.0
    total = likelihood.log_prob(raw.expand(len(grid), -1, -1), grid[:, None]).exp().sum() * step
    # the kink of a Laplace density costs the sum step^2 / 12, about 3e-9; the tails beyond 40 hold e^-40
    assert float(total) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_mean_and_variance_of_the_reference(name, shape):
    likelihood = make_likelihood(name, shape)
    n = 40_000
    raw = torch.linspace(-1.5, 1.5, math.prod(shape), dtype=torch.float64).reshape(1, 1, *shape)
    raw = raw.expand(1, likelihood.params, *shape)
    with seeded(0):
        draws = likelihood.sample(raw.expand(n, *raw.shape[1:])).numpy()
    reference = REFERENCE[name](raw.numpy())
    mean, variance = reference.mean()[0], reference.var()[0]
    fourth = reference.stats(moments="k")[0] * variance**2 + 3 * variance**2  # fourth central moment
    assert draws.shape == (n, *shape)
    # six standard errors of a mean and of a variance over n draws: one false alarm in 10^8
    assert (np.abs(draws.mean(0) - mean) < 6 * np.sqrt(variance / n)).all()
    assert (np.abs(draws.var(0) - variance) < 6 * np.sqrt((fourth - variance**2) / n) + 36 * variance / n).all()
    assert torch.isfinite(torch.as_tensor(draws)).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_support(name):
    likelihood = make_likelihood(name, (4,))
    x = torch.tensor([[0.0, 1.0, 0.5, 0.2], [-0.1, 1.1, 0.0, 1.0]], dtype=torch.float64)
    inside = likelihood.supports(x)
    if "[0, 1]" in likelihood.support:
        assert inside.tolist() == [[True] * 4, [False, False, True, True]]
    else:
        assert inside is None or bool(inside.all())


def test_bounded_likelihoods_say_so():
    assert {n for n, c in LIKELIHOODS.items() if "[0, 1]" in c.support} == {"bernoulli", "sigmoid_gaussian"}
    assert {n for n, c in LIKELIHOODS.items() if not c.density} == {"bernoulli"}


def test_sigmoid_gaussian_mean_stays_in_the_unit_interval():
    mean = SigmoidGaussian().mean(torch.tensor([[[-200.0, 0.0, 200.0]]]))
    assert mean.tolist() == [[0.0, 0.5, 1.0]]


def test_bernoulli_is_finite_at_certain_logits():
    log_prob = LIKELIHOODS["bernoulli"]().log_prob(torch.tensor([[[500.0, -500.0]]]), torch.tensor([[0.0, 1.0]]))
    assert log_prob.tolist() == [[-500.0, -500.0]]


def test_bernoulli_of_a_grey_value_is_cross_entropy():
    logit, x = torch.tensor([[[0.7]]], dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64)
    p = expit(0.7)
    want = 0.3 * math.log(p) + 0.7 * math.log(1 - p)
    assert LIKELIHOODS["bernoulli"]().log_prob(logit, x).item() == pytest.approx(want, rel=F64)


# the scale that follows the data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize(
    ("scale_shape", "row", "over"),
    [((3,), (3,), 0), ((1,), (3,), (0, 1)), ((1, 1, 1), (2, 4, 5), (0, 1, 2, 3)), ((2, 1, 1), (2, 4, 5), (0, 2, 3))],
)
def test_learned_scale_follows_the_running_mean_of_squared_residuals(scale_shape, row, over, with_loss):
    likelihood = LearnedGaussian(scale_shape).double()
    rng = np.random.default_rng(1)
    square = np.ones(scale_shape)
    for _ in range(4):
        raw, x = rng.normal(size=(6, 1, *row)), rng.normal(size=(6, *row)) * 3
        likelihood.observe(torch.from_numpy(raw), torch.from_numpy(x), None)
        if with_loss:  # which may find the squares on its way
            likelihood.total(torch.from_numpy(raw), torch.from_numpy(x))
        likelihood.after_step()
        square = 0.98 * square + 0.02 * ((x - raw[:, 0]) ** 2).mean(axis=over).reshape(scale_shape)
        np.testing.assert_allclose(likelihood.log_scale.exp().numpy(), np.sqrt(square), rtol=F64)
    assert likelihood.log_prob(torch.from_numpy(raw), torch.from_numpy(x)).shape == (6, *row)


def test_learned_scale_converges_to_the_scale_of_the_residuals():
    true = torch.tensor([0.05, 0.5, 2.0])
    likelihood = LearnedGaussian((3,))
    with seeded(0):
        for _ in range(900):
            likelihood.observe(torch.zeros(256, 1, 3), torch.randn(256, 3) * true, None)
            likelihood.after_step()
    # The start is forgotten (0.98^900 = 1e-8, against 0.0025 for the smallest square). A running mean over batches of 256 has a
    # relative error of sqrt(2 / 256 * 0.02 / 1.98) = 0.9% in the square, half of it in the scale: five of these.
    torch.testing.assert_close(likelihood.log_scale.exp(), true, rtol=0.0225, atol=0)


def test_learned_scale_ignores_masked_cells():
    with_mask, plain = LearnedGaussian((1,)), LearnedGaussian((1,))
    raw, x = torch.zeros(4, 1, 2), torch.tensor([[1.0, 1e6], [2.0, -1e6], [3.0, 1e6], [4.0, 1e6]])
    with_mask.observe(raw, x, torch.tensor([[1.0, 0.0]]).expand(4, 2))
    plain.observe(raw[..., :1], x[:, :1], None)
    with_mask.after_step(), plain.after_step()
    torch.testing.assert_close(with_mask.log_scale, plain.log_scale)


def test_learned_scale_of_a_feature_without_observed_cells_stays():
    likelihood = LearnedGaussian((2,))
    likelihood.observe(torch.zeros(3, 1, 2), torch.full((3, 2), 9.0), torch.tensor([[1.0, 0.0]]).expand(3, 2))
    likelihood.after_step()
    assert likelihood.log_scale[1] == 0
    assert likelihood.square[0] == pytest.approx(0.98 + 0.02 * 81)


def test_learned_scale_has_a_floor():
    likelihood = LearnedGaussian((2,), floor=0.1)
    for _ in range(1000):
        likelihood.observe(torch.zeros(4, 1, 2), torch.zeros(4, 2), None)
        likelihood.after_step()
    torch.testing.assert_close(likelihood.log_scale.exp(), torch.full((2,), 0.1))


def test_learned_scale_moves_only_after_a_step_and_once_for_each():
    likelihood = LearnedGaussian((2,))
    likelihood.after_step()
    assert likelihood.log_scale.tolist() == [0, 0]
    likelihood.observe(torch.zeros(4, 1, 2), torch.full((4, 2), 3.0), None)
    assert likelihood.log_scale.tolist() == [0, 0]
    likelihood.after_step()
    after = likelihood.log_scale.clone()
    likelihood.after_step()
    assert torch.equal(likelihood.log_scale, after)
    assert (after > 0).all()


def test_learned_scale_is_saved_and_has_no_gradient():
    likelihood = LearnedGaussian((2,))
    assert set(likelihood.state_dict()) == {"square", "log_scale"}
    assert not list(likelihood.parameters())
    raw = torch.zeros(4, 1, 2, requires_grad=True)
    likelihood.observe(raw, torch.ones(4, 2), None)
    likelihood.after_step()
    assert not likelihood.square.requires_grad


# bottlenecks --------------------------------------------------------------------------------------------------------------------

GRIDS = [(), (4,), (3, 5)]


@settings(max_examples=50, deadline=None)
@given(mu=st.floats(-50, 50), logvar=st.floats(-18, 9))
def test_gaussian_kl_equals_torch_distributions(mu, logvar):
    mu, logvar = torch.tensor(mu, dtype=torch.float64), torch.tensor(logvar, dtype=torch.float64)
    posterior, prior = torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(mu * 0, 1.0)
    want = torch.distributions.kl_divergence(posterior, prior)
    # near the prior the terms cancel: there the error is absolute, in rounding of numbers of size 1
    torch.testing.assert_close(bottlenecks.gaussian_kl(mu, logvar), want, rtol=F64, atol=1e-14)
    assert bottlenecks.gaussian_kl(mu, logvar) >= -1e-15


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_gaussian_bottleneck(grid, beta):
    bottleneck = bottlenecks.Gaussian(2, beta=beta).double()
    assert (bottleneck.in_features, bottleneck.out_features, bottleneck.generative) == (4, 2, True)
    with seeded(0):
        h = torch.randn(6, 4, *grid, dtype=torch.float64)
        code = bottleneck(h, sample=False)
        again = bottleneck(h, sample=False)
        drawn = bottleneck(h, sample=True)
    mu, logvar = h[:, :2], h[:, 2:]
    assert torch.equal(code.z, mu)
    assert torch.equal(code.z, again.z)
    assert drawn.z.shape == code.z.shape == (6, 2, *grid)
    assert not torch.equal(drawn.z, code.z)
    posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(torch.zeros_like(mu), 1.0))
    torch.testing.assert_close(code.costs["kl"], beta * kl.flatten(1).sum(1), rtol=F64, atol=1e-12)
    assert code.costs["kl"].shape == (6,)
    assert torch.equal(code.aux["mu"], mu)
    assert torch.equal(code.aux["logvar"], logvar)


def test_posterior_draws_have_its_mean_and_scale():
    bottleneck, n = bottlenecks.Gaussian(2), 40_000
    h = torch.tensor([[1.0, -2.0, math.log(0.25), math.log(4.0)]], dtype=torch.float64)
    with seeded(0):
        z = bottleneck(h.expand(n, 4), sample=True).z
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    # six standard errors: scale / sqrt(n) of the mean, scale / sqrt(2 n) of the scale
    assert ((z.mean(0) - h[0, :2]).abs() < 6 * scale / n**0.5).all()
    assert ((z.std(0) - scale).abs() < 6 * scale / (2 * n) ** 0.5).all()


def test_posterior_draws_carry_the_gradient():
    h = torch.zeros(3, 4, requires_grad=True)
    with seeded(0):
        z = bottlenecks.Gaussian(2)(h, sample=True).z
    z.sum().backward()
    assert torch.equal(h.grad[:, :2], torch.ones(3, 2))  # dz/dmu
    torch.testing.assert_close(h.grad[:, 2:], 0.5 * z.detach())  # dz/dlogvar = sigma eps / 2, and mu = 0


def test_extreme_posteriors_are_finite():
    h = torch.tensor([[0.0, 1e4], [0.0, -1e4]], requires_grad=True)
    with seeded(0):
        code = bottlenecks.Gaussian(1)(h, sample=True)
    assert torch.isfinite(code.z).all()
    assert torch.isfinite(code.costs["kl"]).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_free_bits(grid):
    bottleneck = bottlenecks.Gaussian(2, beta=3.0, free_bits=0.5)
    h = torch.zeros(5, 4, *grid, dtype=torch.float64)
    h[:, 1] = 2.0  # unit 0 sits on the prior, unit 1 costs 2 nats
    h.requires_grad_()
    places = math.prod(grid)
    cost = bottleneck.train()(h, sample=True).costs["kl"]
    torch.testing.assert_close(cost, torch.full((5,), 3.0 * places * (0.5 + 2.0), dtype=torch.float64))
    cost.sum().backward()
    assert (h.grad[:, 0] == 0).all()
    torch.testing.assert_close(h.grad[:, 1], torch.full_like(h.grad[:, 1], 3.0 * 2.0))  # beta mu
    true = bottleneck.eval()(h, sample=False).costs["kl"]
    torch.testing.assert_close(true, torch.full((5,), 3.0 * places * 2.0, dtype=torch.float64))


def test_free_bits_leave_no_gradient_below_the_threshold():
    bottleneck = bottlenecks.Gaussian(3, free_bits=10.0).train()
    with seeded(0):
        h = torch.randn(8, 6, requires_grad=True)
        bottleneck(h, sample=True).costs["kl"].sum().backward()
    assert h.grad.abs().max() == 0


def test_prior_is_standard_normal():
    n = 40_000
    with seeded(0):
        z = bottlenecks.Gaussian(3).prior(n)
    assert z.shape == (n, 3)
    # six standard errors of mean 1/sqrt(n), variance sqrt(2/n) and correlation 1/sqrt(n)
    assert (z.mean(0).abs() < 6 / n**0.5).all()
    assert ((torch.cov(z.T) - torch.eye(3)).abs() < 6 * (2 / n) ** 0.5).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_identity_bottleneck(grid):
    with seeded(0):
        h = torch.randn(4, 3, *grid)
    plain, rectified = bottlenecks.Identity(3), bottlenecks.Identity(3, nn.ReLU())
    for sample in (False, True):
        assert torch.equal(plain(h, sample=sample).z, h)
        assert torch.equal(rectified(h, sample=sample).z, h.clamp_min(0))
    assert plain(h, sample=True).costs == {}
    assert not plain.generative
    with pytest.raises(TypeError, match="Identity has no prior"):
        plain.prior(2)


# corruptions --------------------------------------------------------------------------------------------------------------------


def corrupt(name: str, level: float, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    corruption = CORRUPTIONS[name](level)
    if hasattr(corruption, "on_start"):
        corruption.on_start(Batch(x))
    with seeded(seed):
        return corruption(x)


def rows(*shape: int) -> torch.Tensor:
    """Continuous values, so that a damaged cell shows."""
    with seeded(7):
        return torch.randn(*shape)


@pytest.mark.parametrize("shape", [(200, 6), (50, 1), (40, 2, 5), (30, 1, 4, 4), (1, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_keeps_shape_and_input_and_is_reproducible(name, shape):
    x = rows(*shape)
    before = x.clone()
    out = corrupt(name, 0.5, x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.isfinite(out).all()
    assert torch.equal(x, before)
    assert torch.equal(out, corrupt(name, 0.5, x))
    if math.prod(shape) > 100:
        assert not torch.equal(out, corrupt(name, 0.5, x, seed=1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_of_level_zero_is_the_identity(name):
    x = rows(50, 2, 3)
    assert torch.equal(corrupt(name, 0.0, x), x)


@pytest.mark.parametrize("level", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if n not in ("gaussian", "occlusion")])  # not cell by cell
def test_fraction_of_damaged_cells(name, level):
    x = rows(400, 100)
    damaged = (corrupt(name, level, x) != x).double()
    expected = level * (1 - 1 / len(x)) if name == "swap" else level  # a swap may hand a cell its own value
    # Five standard errors of a binomial share. A cell that is its column's extreme already (2 in 400) may not show salt.
    slack = 5 * math.sqrt(level * (1 - level) / x.numel()) + (level / len(x) if name == "salt_and_pepper" else 0)
    assert damaged.mean().item() == pytest.approx(expected, abs=slack)
    # no column and no row is spared: five standard errors over its own cells, and one cell for rounding
    for share, n in ((damaged.mean(0), 400), (damaged.mean(1), 100)):
        assert ((share - level).abs() < 5 * math.sqrt(level * (1 - level) / n) + 1.5 / n + 0.01).all()


def test_gaussian_noise_has_the_level_as_its_scale():
    x = rows(400, 100)
    noise = corrupt("gaussian", 0.3, x) - x
    n = noise.numel()
    assert abs(noise.mean().item()) < 5 * 0.3 / n**0.5  # five standard errors
    assert noise.std().item() == pytest.approx(0.3, abs=5 * 0.3 / (2 * n) ** 0.5)


def test_masking_sets_cells_to_zero():
    x = rows(100, 2, 8) + 10
    out = corrupt("masking", 0.4, x)
    changed = out != x
    assert changed.any()
    assert (out[changed] == 0).all()
    assert isinstance(CORRUPTIONS["masking"](0.4), Masking)


@pytest.mark.parametrize("shape", [(60, 5), (60, 2, 3, 3)])
def test_salt_and_pepper_takes_the_extremes_of_each_feature(shape):
    x = rows(*shape)
    out = corrupt("salt_and_pepper", 0.5, x)
    low, high = x.amin(0).expand_as(x), x.amax(0).expand_as(x)
    changed = out != x
    assert ((out == low) | (out == high))[changed].all()
    salt = (out == high)[changed].double()
    # each with probability one half: five standard errors
    assert salt.mean().item() == pytest.approx(0.5, abs=5 * 0.5 / len(salt) ** 0.5)
    assert isinstance(CORRUPTIONS["salt_and_pepper"](0.5), SaltAndPepper)


@pytest.mark.parametrize("shape", [(40, 5), (40, 6, 4), (40, 2, 3, 3)])
def test_swap_noise_takes_values_of_the_same_feature(shape):
    x = rows(*shape)
    out = corrupt("swap", 0.8, x)
    for got, there in zip(out.flatten(1).T, x.flatten(1).T, strict=True):
        assert torch.isin(got, there).all()
    # all values differ, so the row each came from can be told: cells of one row come from many rows
    source = (out.flatten(1)[0] == x.flatten(1)).double().argmax(0)
    assert len(source.unique()) > 1
    assert isinstance(CORRUPTIONS["swap"](0.5), SwapNoise)


# penalties ----------------------------------------------------------------------------------------------------------------------


def trace_of(z: torch.Tensor) -> Trace:
    x = torch.zeros(len(z), 2)
    return Trace(Batch(x), x, Code(z, {}, {}), x.unsqueeze(1))


@pytest.mark.parametrize("grid", GRIDS)
def test_l1_sparsity(grid):
    with seeded(0):
        z = torch.randn(5, 3, *grid, dtype=torch.float64, requires_grad=True)
    got = L1Sparsity(0.7)(None, trace_of(z))
    want = 0.7 * np.abs(z.detach().numpy()).reshape(5, -1).sum(1)
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=F64)
    got.sum().backward()
    torch.testing.assert_close(z.grad, 0.7 * z.detach().sign())


def test_kl_sparsity():
    with seeded(0):
        z = torch.rand(9, 4, dtype=torch.float64, requires_grad=True)
    got = KLSparsity(2.0, 0.05)(None, trace_of(z))
    q = z.detach().numpy().mean(0)
    want = 2.0 * np.sum(0.05 * np.log(0.05 / q) + 0.95 * np.log(0.95 / (1 - q)))
    assert got.item() == pytest.approx(want, rel=1e-7)  # the rate may be held in float32
    got.backward()
    slope = 2.0 * (-0.05 / q + 0.95 / (1 - q)) / 9
    np.testing.assert_allclose(z.grad.numpy(), np.broadcast_to(slope, (9, 4)), rtol=1e-6)


def test_kl_sparsity_is_zero_at_the_rate_and_finite_at_the_ends():
    assert KLSparsity(1.0, 0.25)(None, trace_of(torch.full((4, 3), 0.25))).item() == pytest.approx(0, abs=1e-7)
    for end in (0.0, 1.0):
        assert math.isfinite(KLSparsity(1.0, 0.05)(None, trace_of(torch.full((4, 3), end))).item())


def test_weight_l1_counts_matrices_only():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))
    got = WeightL1(0.5)(module, trace_of(torch.zeros(1, 1)))
    want = 0.5 * sum(np.abs(w.detach().numpy()).sum() for w in (module[0].weight, module[2].weight))
    assert got.item() == pytest.approx(want, rel=1e-6)  # float32 sums
    got.backward()
    torch.testing.assert_close(module[0].weight.grad, 0.5 * module[0].weight.sign())
    assert module[0].bias.grad is None
    assert module[1].weight.grad is None


# networks -----------------------------------------------------------------------------------------------------------------------

NETWORKS = [
    {"hidden": ()},
    {"hidden": (7,)},
    {"hidden": (8, 6, 4)},
    {"hidden": (8, 6), "norm": "batch"},
    {"hidden": (8, 6), "norm": "layer"},
    {"hidden": (8, 6), "dropout": 0.2},
    {"hidden": (8, 8, 6), "residual": True},
    {"hidden": (8, 6), "norm": "layer", "dropout": 0.1, "residual": True},
]


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("shape", [(5,), (1, 4, 4)])
@pytest.mark.parametrize("options", NETWORKS, ids=str)
def test_mlp_shapes_and_gradients(options, shape, context):
    schema = Schema("vector" if len(shape) == 1 else "image", shape, 10, context=context)
    network = MLP(**options)
    with seeded(0):
        encoder = network.encoder(schema, 6, spatial=False)
        decoder = network.decoder(schema, 3, 2, spatial=False)
        given_context = (torch.randn(16, context),) if context else ()
        h = encoder(torch.randn(16, *shape), *given_context)
        raw = decoder(h[:, :3], *given_context)
        (raw.square().sum() + h.square().sum()).backward()
    assert h.shape == (16, 6)
    assert raw.shape == (16, 2 * schema.size)
    for half, module in {"encoder": encoder, "decoder": decoder}.items():
        names = dict(module.named_parameters())
        if options.get("norm") == "batch":  # which subtracts the bias of the layer before it, by definition
            linear = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)]
            names = {n: p for n, p in names.items() if n not in {f"{m}.bias" for m in linear[:-1]}}
        dead = [n for n, p in names.items() if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()]
        assert dead == [], f"no gradient reaches {half} {dead}"
        assert sum("weight" in n and p.dim() == 2 for n, p in names.items()) >= len(options["hidden"]) + 1


@pytest.mark.parametrize("hidden", [(), (8, 6)])
def test_shortcut_starts_as_a_linear_map(hidden):
    with seeded(0):
        encoder = MLP(hidden, shortcut=True).encoder(Schema("vector", (4,), 10, context=2), 3, spatial=False)
        x, context = torch.randn(9, 4), torch.randn(9, 2)
    torch.testing.assert_close(encoder(x, context), encoder.shortcut(torch.cat([x, context], 1)))
    assert encoder(x, context).shape == (9, 3)
    if hidden:
        nn.init.ones_(encoder.body.body[-1].weight)
        assert not torch.allclose(encoder(x, context), encoder.shortcut(torch.cat([x, context], 1)))


def test_decoder_mirrors_the_encoder():
    schema, network = Schema("vector", (5,), 10), MLP((16, 8), "relu")
    halves = network.encoder(schema, 3, spatial=False), network.decoder(schema, 3, 1, spatial=False)
    widths = [{tuple(w.shape) for w in half.parameters() if w.dim() == 2} for half in halves]
    assert widths == [{(16, 5), (8, 16), (3, 8)}, {(8, 3), (16, 8), (5, 16)}]


@pytest.mark.parametrize("residual", [False, True])
def test_identity_activation_makes_a_linear_map(residual):
    network = MLP((9, 7), "identity", residual=residual)
    with seeded(0):
        encoder = network.encoder(Schema("vector", (4,), 10), 3, spatial=False).double()
        x, y = torch.randn(2, 6, 4, dtype=torch.float64)
    origin = encoder(torch.zeros(1, 4, dtype=torch.float64))
    left = encoder(2 * x - 3 * y) - origin
    torch.testing.assert_close(left, 2 * (encoder(x) - origin) - 3 * (encoder(y) - origin), rtol=F64, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_weights_keep_the_scale_of_the_signal(activation):
    with seeded(0):
        encoder = MLP((256, 256, 256), activation).encoder(Schema("vector", (256,), 10), 256, spatial=False)
        out = encoder(torch.randn(512, 256))
    # Neither vanishing nor exploding over three layers, which start at a quarter of full width. Saturating functions lose some
    # more at each layer, sigmoids and softplus add a constant; a wrong fan would give a factor of 256^(3/2).
    assert 0.02 < out.std().item() < 10


def test_deep_networks_start_no_smaller_than_shallow_ones():
    sizes = []
    for depth in (2, 16):
        with seeded(0):
            encoder = MLP((256,) * depth, "relu").encoder(Schema("vector", (256,), 10), 256, spatial=False)
            sizes.append(encoder(torch.randn(512, 256)).std().item())
    assert sizes[1] > 0.5 * sizes[0]  # chance in 16 random layers


def test_dropout_is_for_training_alone():
    with seeded(0):
        encoder = MLP((64,), dropout=0.5).encoder(Schema("vector", (4,), 10), 3, spatial=False)
        x = torch.randn(8, 4)
        assert not torch.equal(encoder(x), encoder(x))
        encoder.eval()
        assert torch.equal(encoder(x), encoder(x))
