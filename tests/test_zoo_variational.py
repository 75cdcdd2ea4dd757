"""Importance weighting and learned priors against exact likelihoods, closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ive
from scipy.stats import kstest, multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from torch import nn

from diabolo import IWAE, VAE, Autoencoder, AutoencoderModule, HypersphericalVAE, MixturePriorVAE, VampPriorVAE
from diabolo.checks import ParameterError
from diabolo.objectives import elbo, iwae
from diabolo.parts.bottlenecks import Gaussian as GaussianCode
from diabolo.parts.bottlenecks import Identity, NormalPrior, gaussian_kl, gaussian_log_prob
from diabolo.parts.likelihoods import Gaussian, LearnedGaussian
from diabolo.parts.penalties import CodeL2
from diabolo.records import Batch, Code, Schema
from diabolo.seeding import seeded
from diabolo.zoo.hyperspherical import VonMisesFisher
from diabolo.zoo.variational import LearnedMixture, VampMixture

X = load_iris().data
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
F64 = 1e-10  # relative error of a handful of float64 operations, with room


@pytest.fixture
def linear():
    """Make a linear model of 3 columns with 2 units in float64, whose posterior is not the exact one, and 5 rows."""
    with seeded(0):
        module = AutoencoderModule(
            Schema("vector", (3,), 5),
            encoder=nn.Linear(3, 4),
            decoder=nn.Linear(2, 3),
            bottleneck=GaussianCode(2),
            likelihood=Gaussian(),
        ).double()
        module.encoder.bias.data[2:] += 1.0  # wider than the exact posterior: importance weights have a finite variance
        return module, Batch(torch.randn(5, 3, dtype=torch.float64))


def exact(module, batch):
    W, b = module.decoder.weight.detach().numpy(), module.decoder.bias.detach().numpy()
    return multivariate_normal(b, W @ W.T + np.eye(3)).logpdf(batch.x.numpy())


def loss(objective, module, batch, seed=0, **settings):
    with seeded(seed):
        return objective(module, batch, 1.0, **settings)


# the bound ----------------------------------------------------------------------------------------------------------------------


def test_gaussian_log_prob_equals_torch_distributions():
    z, mu, logvar = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z)
    torch.testing.assert_close(gaussian_log_prob(z, mu, logvar), want, rtol=F64, atol=F64)


def test_one_draw_is_the_evidence_lower_bound_for_the_same_noise(linear):
    module, batch = linear
    got = loss(iwae, module, batch, n=1)
    with seeded(0):
        trace = module.trace(batch, sample=True)
    q = torch.distributions.Normal(trace.code.aux["mu"], (0.5 * trace.code.aux["logvar"]).exp())
    p = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    ratio = (q.log_prob(trace.code.z) - p.log_prob(trace.code.z)).sum(1)
    want = -(module.log_prob(trace.raw, batch) - ratio).mean()
    torch.testing.assert_close(got.total, want, rtol=F64, atol=0)
    torch.testing.assert_close(got.terms["reconstruction"], loss(elbo, module, batch).terms["reconstruction"])
    assert got.terms["importance"].item() == pytest.approx(0, abs=1e-12)


def test_the_mean_log_ratio_is_the_divergence(linear):
    module, batch = linear
    n = 20_000
    code = module.encode(batch.x[:1].expand(n, 3), sample=True)
    with seeded(0):
        ratio = module.bottleneck.log_ratio(module.encode(batch.x[:1].expand(n, 3), sample=True))
    kl = gaussian_kl(code.aux["mu"][0], code.aux["logvar"][0]).sum()
    assert abs(ratio.mean() - kl) < 6 * ratio.std() / n**0.5  # six standard errors


def test_the_bound_equals_a_plain_loop_over_draws(linear):
    module, batch = linear
    got = loss(iwae, module, batch, n=4)
    with seeded(0):
        noise = torch.randn(20, 2, dtype=torch.float64).numpy().reshape(5, 4, 2)
    h = module.encoder(batch.x).detach().numpy()
    W, b = module.decoder.weight.detach().numpy(), module.decoder.bias.detach().numpy()
    rows = []
    for x, (*mu, lv0, lv1), eps in zip(batch.x.numpy(), h, noise, strict=True):
        variance = np.exp([lv0, lv1])
        weights = []
        for e in eps:
            z = mu + np.sqrt(variance) * e
            weight = multivariate_normal(W @ z + b, np.eye(3)).pdf(x) * multivariate_normal([0, 0], np.eye(2)).pdf(z)
            weights.append(weight / multivariate_normal(mu, np.diag(variance)).pdf(z))
        rows.append(math.log(np.mean(weights)))
    assert got.total.item() == pytest.approx(-np.mean(rows), rel=F64)
    assert sum(got.terms.values()).item() == pytest.approx(got.total.item(), rel=F64)  # the terms add up


def test_the_bound_grows_with_draws_and_never_exceeds_the_exact_likelihood(linear):
    module, batch = linear
    wide = Batch(batch.x.repeat_interleave(400, dim=0))
    want = exact(module, batch).mean()
    with torch.no_grad():
        bounds = [-loss(iwae, module, wide, n=n).total.item() for n in (1, 4, 16, 256)]
    assert bounds == sorted(bounds)
    assert all(
        b < want + 0.01 for b in bounds
    )  # a mean over 2000 draws of the bound; its error for n=256 is below 0.003
    assert bounds[-1] == pytest.approx(want, abs=0.02)  # and converges to it
    assert bounds[0] < want - 0.1


def test_warm_up_weighs_the_ratio(linear):
    module, batch = linear
    with seeded(0):
        start = iwae(module, batch, 0.0, n=1, warmup=0.5)
    torch.testing.assert_close(start.total, start.terms["reconstruction"])
    with seeded(0):
        half = iwae(module, batch, 0.25, n=1, warmup=0.5)
    torch.testing.assert_close(half.total, half.terms["reconstruction"] + 0.5 * half.terms["kl"])


def gradients(module, batch, seed, n_repeats, **settings):
    """Return the gradients of encoder and decoder, a row for each repeat."""
    rows = []
    for i in range(n_repeats):
        module.zero_grad()
        loss(iwae, module, batch, seed=seed + i, **settings).total.backward()
        rows.append(
            [torch.cat([p.grad.flatten() for p in half.parameters()]) for half in (module.encoder, module.decoder)]
        )
    return [torch.stack(half) for half in zip(*rows, strict=True)]


def test_dreg_has_the_expectation_of_the_standard_gradient(linear):
    module, batch = linear
    wide = Batch(batch.x.repeat_interleave(50, dim=0))
    standard, standard_decoder = gradients(module, wide, 0, 300, n=8)
    dreg, dreg_decoder = gradients(module, wide, 0, 300, n=8, dreg=True)
    error = (standard.var(0) / 300 + dreg.var(0) / 300).sqrt()
    assert ((standard.mean(0) - dreg.mean(0)).abs() < 5 * error).all()  # five standard errors for each of 16 numbers
    assert (dreg.mean(0).abs() > 5 * error).any()  # which are not just noise about 0
    torch.testing.assert_close(dreg_decoder, standard_decoder, rtol=1e-9, atol=1e-12)  # for the same noise
    assert loss(iwae, module, batch, n=8, dreg=True).total == loss(iwae, module, batch, n=8).total


def test_dreg_is_less_noisy_where_the_posterior_is_exact(linear):
    module, batch = linear
    W, b = module.decoder.weight.detach(), module.decoder.bias.detach()
    with torch.no_grad():  # W with orthogonal columns: the exact posterior is diagonal
        W[:] = torch.linalg.qr(W)[0]
        module.encoder.weight[:2], module.encoder.bias[:2] = W.T / 2, -W.T @ b / 2
        module.encoder.weight[2:], module.encoder.bias[2:] = 0.0, math.log(0.5)
    got = loss(iwae, module, batch, n=3)
    assert -got.total.item() == pytest.approx(exact(module, batch).mean(), rel=F64)  # whatever the draws
    standard, _ = gradients(module, batch, 0, 20, n=3)
    dreg, _ = gradients(module, batch, 0, 20, n=3, dreg=True)
    assert (
        dreg.abs().max() < 1e-12
    )  # all weights are equal, and so is their derivative along the code: zero, without noise
    assert standard.std(0).max() > 0.01


def test_missing_cells_are_left_out_and_every_copy_has_its_mask(linear):
    module, batch = linear
    mask = torch.ones_like(batch.x)
    mask[:, 1] = 0
    a = loss(iwae, module, Batch(batch.x * mask, mask), n=4)
    other = batch.x.clone()
    other[:, 1] = 99.0
    b = loss(iwae, module, Batch(other, mask), n=4)
    torch.testing.assert_close(a.total, b.total)


def test_the_learned_scale_counts_each_draw_by_its_share(linear):
    module, batch = linear
    module.likelihood = LearnedGaussian((3,)).double()
    module.train()
    with seeded(0):
        iwae(module, batch, 1.0, n=6)
    module.likelihood.after_step()
    with seeded(0):
        trace = module.trace(Batch(batch.x.repeat_interleave(6, 0)), sample=True)
    weight = gaussian_log_prob(trace.batch.x, trace.raw[:, 0], torch.zeros(3)).sum(1) - module.bottleneck.log_ratio(
        trace.code
    )
    share = weight.view(5, 6).softmax(1).flatten()[:, None] / 5
    square = (share * (trace.batch.x - trace.raw[:, 0]).square()).sum(0)
    torch.testing.assert_close(module.likelihood.square, 0.98 + 0.02 * square.detach(), rtol=F64, atol=0)


def test_penalties_count_in_training_only(linear):
    module, batch = linear
    module.penalties.append(CodeL2(0.1))
    with_it, without = loss(iwae, module.train(), batch, n=2), loss(iwae, module.eval(), batch, n=2)
    assert "code_l2" not in without.terms
    torch.testing.assert_close(with_it.total - without.total, with_it.terms["code_l2"])


def test_a_code_without_density_says_so():
    for bottleneck in (Identity(2), NormalPrior(2)):
        with pytest.raises(TypeError, match="has no density of codes"):
            bottleneck.log_ratio(Code(torch.zeros(1, 2), {}, {}))


def test_a_linear_iwae_is_bounded_by_its_exact_likelihood():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=(400, 5))
    model = IWAE(2, hidden=(), likelihood="gaussian", scale=None, max_epochs=30, random_state=0, n_importance=8)
    model.set_params(validation_fraction=0.25).fit(rows)
    base = model.inverse_transform(np.zeros((1, 2)))[0]
    W = (model.inverse_transform(np.eye(2)) - base).T
    score = multivariate_normal(base, W @ W.T + np.eye(5)).logpdf(rows)
    assert model.score_samples(rows, n_samples=256, random_state=0).mean() <= score.mean() + 0.01
    best = -min(model.history_["val_loss"])
    # the rows of validation are a quarter of all: their mean differs by its standard error, of which four
    assert abs(best - score.mean()) < 4 * score.std() / 10


@pytest.mark.parametrize("gradient", ["dreg", "standard"])
def test_iwae_of_one_draw_learns_what_a_vae_learns(gradient):
    a = IWAE(2, n_importance=1, gradient=gradient, max_epochs=40, hidden=(32,), random_state=0).fit(X)
    b = VAE(2, max_epochs=40, hidden=(32,), random_state=0).fit(X)
    scores = [m.score_samples(X, n_samples=64, random_state=0).mean() for m in (a, b)]
    assert scores[0] == pytest.approx(scores[1], abs=0.3)  # nats; the gap between two seeds of one of them is 0.1


# learned priors -----------------------------------------------------------------------------------------------------------------


def mixture():
    """Make a mixture of 3 Gaussians in 2 dimensions, and 4 posteriors."""
    with seeded(1):
        bottleneck = LearnedMixture(2, 3).double()
        bottleneck.logits.data.normal_()
        bottleneck.logvars.data.normal_()
        return bottleneck, torch.randn(4, 4, dtype=torch.float64)


def density(bottleneck, z):
    means, logvars, log_weights = (t.detach().numpy() for t in bottleneck.components())
    parts = [
        np.exp(w) * multivariate_normal(m, np.diag(np.exp(v))).pdf(z)
        for m, v, w in zip(means, logvars, log_weights, strict=True)
    ]
    return np.sum(parts, axis=0)


def test_the_cost_of_a_draw_is_the_log_ratio_under_the_mixture():
    bottleneck, h = mixture()
    with seeded(0):
        code = bottleneck(h, sample=True)
    for i, row in enumerate(h.numpy()):
        z = code.z[i].detach().numpy()
        q = multivariate_normal(row[:2], np.diag(np.exp(row[2:]))).logpdf(z)
        assert code.costs["kl"][i].item() == pytest.approx(q - np.log(density(bottleneck, z)), rel=F64)


def test_the_mean_cost_is_the_divergence_by_integration_and_the_bound_lies_above():
    bottleneck, h = mixture()
    n = 20_000
    axis = np.linspace(
        -14, 14, 701
    )  # the rectangle rule is spectrally exact for smooth densities that vanish at the ends
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    for row in h:
        q = multivariate_normal(row[:2].numpy(), np.diag(row[2:].exp().numpy())).pdf(grid)
        ratio = np.where(
            q > 0, np.log(np.maximum(q, 1e-300)) - np.log(np.maximum(density(bottleneck, grid), 1e-300)), 0
        )
        want = (q * ratio).sum() * (axis[1] - axis[0]) ** 2
        with seeded(0), torch.no_grad():
            cost = bottleneck(row.expand(n, 4), sample=True).costs["kl"]
        assert abs(cost.mean().item() - want) < 6 * cost.std().item() / n**0.5  # six standard errors
        assert bottleneck(row[None], sample=False).costs["kl"].item() >= want - 1e-9


def test_one_component_is_the_closed_form():
    bottleneck = LearnedMixture(2, 1).double()
    bottleneck.means.data.zero_()
    bottleneck.logvars.data.zero_()
    h = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = gaussian_kl(h[:, :2], h[:, 2:]).sum(1)
    torch.testing.assert_close(bottleneck(h, sample=False).costs["kl"], want, rtol=F64, atol=F64)
    code = bottleneck(h, sample=True)
    plain = GaussianCode(2).log_ratio(Code(code.z, {}, {"mu": h[:, :2], "logvar": h[:, 2:]}))
    torch.testing.assert_close(code.costs["kl"], plain, rtol=F64, atol=F64)


def test_draws_of_the_prior_have_the_moments_of_the_mixture():
    bottleneck, _ = mixture()
    means, logvars, log_weights = (t.detach() for t in bottleneck.components())
    weights = log_weights.exp()[:, None]
    n = 40_000
    with seeded(0):
        z = bottleneck.prior(n)
    mean = (weights * means).sum(0)
    variance = (weights * (logvars.exp() + means.square())).sum(0) - mean.square()
    assert not z.requires_grad
    assert ((z.mean(0) - mean).abs() < 6 * (variance / n).sqrt()).all()  # six standard errors
    fourth = (z - mean).pow(4).mean(0)
    assert ((z.var(0) - variance).abs() < 6 * ((fourth - variance.square()) / n).sqrt()).all()


def test_components_of_a_vamp_prior_are_the_posteriors_of_its_inputs():
    model = VampPriorVAE(2, n_pseudo_inputs=5, **QUICK).fit(X)
    bottleneck, module = model.module_.bottleneck, model.module_
    means, logvars, log_weights = bottleneck.components()
    h = module.encoder(bottleneck.inputs)
    assert torch.equal(means, h[:, :2])
    assert torch.equal(logvars, h[:, 2:])
    torch.testing.assert_close(log_weights.exp(), torch.full((5,), 0.2))
    assert not [k for k in module.state_dict() if "_encoder" in k]  # weights are stored once


def test_pseudo_inputs_start_at_rows_and_are_learned():
    bottleneck = VampMixture(2, 5, (3,))
    rows = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    bottleneck.on_start(Batch(rows))
    assert torch.equal(bottleneck.inputs, rows[[0, 1, 2, 0, 1]])
    short, long = (VampPriorVAE(2, **QUICK | {"max_epochs": n}, validation_fraction=0).fit(X) for n in (1, 5))
    assert not torch.equal(short.module_.bottleneck.inputs, long.module_.bottleneck.inputs)


def test_the_shared_encoder_survives_a_copy_in_double_precision():
    model = VampPriorVAE(2, n_pseudo_inputs=5, **QUICK).fit(X)
    wide = model.score_samples(X)
    narrow = model.score_samples(X.astype(np.float32))
    np.testing.assert_allclose(
        narrow, wide, rtol=1e-3, atol=1e-3
    )  # float32 has 7 digits; nats of 4 features lose a few


def test_learned_priors_follow_groups():
    rng = np.random.default_rng(0)
    centres = np.array([[-4.0, 0, 0, 4], [4, 4, 0, 0], [0, -4, 4, 0]])
    rows = np.repeat(centres, 150, axis=0) + 0.3 * rng.normal(size=(450, 4))

    def stray(model):
        samples = model.fit(rows).sample(500, random_state=0)
        near = np.linalg.norm(samples[:, None] - centres, axis=2).min(axis=1)
        return (near > 1.5).mean()  # five standard deviations of a group: real rows are never so far off

    settings = {"max_epochs": 25, "random_state": 0, "hidden": (32,), "learning_rate": 1e-2}
    plain = stray(VAE(2, **settings))
    assert plain > 0.1  # one Gaussian also covers the gaps between groups
    assert stray(VampPriorVAE(2, n_pseudo_inputs=20, **settings)) < 0.5 * plain
    assert stray(MixturePriorVAE(2, n_components=6, **settings)) < 0.8 * plain  # its means start anywhere


# a sphere -----------------------------------------------------------------------------------------------------------------------


def directed(d, kappas, **kind):
    """Make the input for posteriors about the second axis with given concentrations."""
    h = torch.zeros(len(kappas), d + 1, **kind)
    h[:, 1] = 3.0
    h[:, -1] = torch.tensor([math.log(math.expm1(k)) if k < 30 else k for k in kappas])  # the inverse of softplus
    return h


def mean_cosine(d, kappa):
    return ive(d / 2, kappa) / ive(d / 2 - 1, kappa)


@pytest.mark.parametrize("d", [2, 3, 5, 32])
def test_the_divergence_on_the_sphere_by_adaptive_integration(d):
    kappas = [0.01, 1.0, 10.0, 100.0, 1000.0, 9000.0]
    got = VonMisesFisher(d).double()(directed(d, kappas, dtype=torch.float64), sample=False).costs["kl"]
    area = quad(lambda a: math.sin(a) ** (d - 2), 0, math.pi)[0]
    for kappa, cost in zip(kappas, got.tolist(), strict=True):
        end = min(math.pi, 20 * math.sqrt(d / kappa))  # beyond, nothing is left

        def part(a, power, kappa=kappa):
            gap = 2 * math.sin(a / 2) ** 2
            return math.sin(a) ** (d - 2) * math.exp(-kappa * gap) * gap**power

        mass, gap = (quad(part, 0, end, args=(power,), limit=200, epsabs=0, epsrel=1e-10)[0] for power in (0, 1))
        # the nodes are kept in float32: 1e-7 of the exponent, which is some tens where the mass lies
        assert cost == pytest.approx(-kappa * gap / mass - math.log(mass / area), abs=1e-5)


@pytest.mark.parametrize("kappa", [0.5, 20.0, 3000.0])
@pytest.mark.parametrize("d", [2, 3, 8])
def test_draws_on_the_sphere_and_their_gradient(d, kappa):
    n = 20_000
    bottleneck, h = VonMisesFisher(d).double(), directed(d, [kappa] * n, dtype=torch.float64).requires_grad_()
    with seeded(0):
        code = bottleneck(h, sample=True)
    z, cosine = code.z, code.z[:, 1]
    torch.testing.assert_close(z.detach().norm(dim=1), torch.ones(n, dtype=torch.float64))
    want = mean_cosine(d, kappa)
    assert abs(cosine.mean().item() - want) < 5 * cosine.std().item() / n**0.5  # five standard errors, here and below
    across = z[:, [0, *range(2, d)]].detach()
    assert (across.mean(0).abs() < 5 * across.std(0) / n**0.5).all()
    ratio = bottleneck.log_ratio(code).detach()
    assert abs(ratio.mean() - code.costs["kl"][0].item()) < 5 * ratio.std() / n**0.5 + 1e-6
    (gradient,) = torch.autograd.grad(cosine.sum(), h)
    slope = (gradient[:, -1] / (1 - math.exp(-kappa))).numpy()  # by the concentration, not by the input of softplus
    exact = 1 - want**2 - (d - 1) / kappa * want
    assert abs(slope.mean() - exact) < 5 * slope.std() / n**0.5


def test_cosines_in_three_dimensions_have_their_exact_distribution():
    kappa, n = 4.0, 5000
    with seeded(0):
        cosine = VonMisesFisher(3)(directed(3, [kappa] * n), sample=True).z[:, 1].numpy()

    def cdf(t):
        return (np.exp(kappa * t) - np.exp(-kappa)) / (np.exp(kappa) - np.exp(-kappa))

    assert kstest(cosine, cdf).pvalue > 1e-3


def test_the_prior_on_the_sphere_is_uniform():
    n = 20_000
    with seeded(0):
        z = VonMisesFisher(4).prior(n)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(n))
    assert (
        z.mean(0).abs() < 6 * (0.25 / n) ** 0.5
    ).all()  # six standard errors; each coordinate has the variance 1 / 4
    assert ((torch.cov(z.T) - torch.eye(4) / 4).abs() < 6 * (0.25 / n) ** 0.5).all()


def test_a_circle_is_learned_by_a_code_on_a_circle():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 500)
    rows = np.stack([np.cos(angle), np.sin(angle), np.cos(angle + 1)], axis=1) + 0.05 * rng.normal(size=(500, 3))
    model = HypersphericalVAE(2, hidden=(32,), max_epochs=35, learning_rate=5e-3, random_state=0).fit(rows)
    np.testing.assert_allclose(np.linalg.norm(model.transform(rows), axis=1), 1, rtol=1e-9)
    samples = model.sample(500, random_state=0)
    radius = np.hypot(samples[:, 0], samples[:, 1])
    assert np.abs(radius - 1).mean() < 0.15  # a Gaussian code of two units also fills the disc: 0.3 and more
    assert HypersphericalVAE(max_epochs=1, hidden=(4,), random_state=0).fit(X[:, :2]).choices_["latent_dim"] == 2


# all of them --------------------------------------------------------------------------------------------------------------------

MODELS = [IWAE(2, **QUICK), MixturePriorVAE(2, **QUICK), VampPriorVAE(2, **QUICK)]
SPHERE = HypersphericalVAE(3, **QUICK)


@pytest.mark.parametrize("model", [*MODELS, SPHERE], ids=lambda m: type(m).__name__)
def test_training_in_half_precision_stays_finite(model):
    model = clone(model).set_params(precision="bfloat16").fit(X)
    assert np.isfinite(model.history_["loss"]).all()
    assert np.isfinite(model.score_samples(X)).all()


@pytest.mark.parametrize("model", [*MODELS, SPHERE], ids=lambda m: type(m).__name__)
def test_samples_are_finite_rows(model):
    for rows in (X, load_digits().images[:40], X[:1], X[:, :1]):
        kwargs = {"latent_dim": 1} if rows.shape[1:] == (1,) and model is not SPHERE else {"latent_dim": 2}
        samples = model.set_params(**kwargs).fit(rows).sample(20, noise=True, random_state=0)
        assert samples.shape == (20, *rows.shape[1:])
        assert np.isfinite(samples).all()
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    assert np.isfinite(model.fit(holes).score_samples(holes)).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_the_start_is_at_principal_components(model):
    still = {"max_epochs": 1, "learning_rate": 1e-9, "validation_fraction": 0, "hidden": (), "random_state": 0}
    start, pca = type(model)(2, **still).fit(X), Autoencoder(2, **still).fit(X)
    span = np.mean((start.reconstruct(X) - X) ** 2)
    assert span < 1.1 * np.mean((pca.reconstruct(X) - X) ** 2)  # codes of a VAE are shrunk a little towards the prior


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (IWAE(n_importance=0), "n_importance=0: expected int >= 1"),
        (IWAE(gradient="drag"), "gradient='drag': expected .* Did you mean 'dreg'"),
        (MixturePriorVAE(n_components=0), "n_components=0: expected int >= 1"),
        (HypersphericalVAE(1), "latent_dim=1: expected int or {'auto'} >= 2"),
        (VampPriorVAE(n_pseudo_inputs=1), "n_pseudo_inputs=1: expected int >= 2"),
    ],
)
def test_impossible_parameters_are_named(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(X)
