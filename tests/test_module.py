"""The module and its loss against closed forms: Gaussian integrals, principal components, plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.decomposition import PCA
from torch import nn

from diabolo import CustomAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.objectives import elbo
from diabolo.parts import likelihoods
from diabolo.parts.bottlenecks import Bottleneck, Gaussian, Identity
from diabolo.parts.corruptions import GaussianNoise, Masking
from diabolo.parts.networks.mlp import MLP
from diabolo.parts.penalties import KLSparsity, L1Sparsity, WeightL1
from diabolo.records import Batch, History, Schema, Table
from diabolo.seeding import seeded

F64 = 1e-9  # relative error of float64 sums, with room
LOG_2PI = math.log(2 * math.pi)


def vector(d: int, context: int = 0) -> Schema:
    return Schema("vector", (d,), 10, context=context)


def linear_vae(d: int, k: int, seed: int = 0, **options) -> AutoencoderModule:
    """A float64 VAE of one linear layer each way."""
    likelihood = options.pop("likelihood", likelihoods.Gaussian())
    with seeded(seed):
        encoder, decoder = nn.Linear(d, 2 * k), nn.Linear(k, likelihood.params * d)
        module = AutoencoderModule(
            vector(d),
            encoder=encoder,
            decoder=decoder,
            bottleneck=options.pop("bottleneck", Gaussian(k)),
            likelihood=likelihood,
            **options,
        )
    return module.double().eval()


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    with seeded(seed):
        return torch.randn(*shape, dtype=torch.float64)


def closed_form(module: AutoencoderModule, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Expected negative log-likelihood under the posterior, and KL term, of a linear VAE of unit noise: per row."""
    encoder, decoder = module.encoder, module.decoder
    W, b = decoder.weight.detach().numpy(), decoder.bias.detach().numpy()
    h = x.numpy() @ encoder.weight.detach().numpy().T + encoder.bias.detach().numpy()
    mu, var = h[:, : W.shape[1]], np.exp(h[:, W.shape[1] :])
    squared = ((x.numpy() - mu @ W.T - b) ** 2).sum(1) + var @ (W**2).sum(0)
    kl = 0.5 * (mu**2 + var - 1 - np.log(var)).sum(1)
    return 0.5 * squared + 0.5 * x.shape[1] * LOG_2PI, kl


# the bound ----------------------------------------------------------------------------------------------------------------------


def test_centre_of_a_linear_vae():
    module, x = linear_vae(3, 2), normal(5, 3)
    trace = module.trace(Batch(x), sample=False)
    W, b = module.decoder.weight, module.decoder.bias
    mu = module.encoder(x)[:, :2]
    torch.testing.assert_close(trace.code.z, mu)
    torch.testing.assert_close(trace.raw, (mu @ W.T + b)[:, None])
    want = stats.multivariate_normal(np.zeros(3), np.eye(3)).logpdf((x - mu @ W.T - b).detach().numpy())
    np.testing.assert_allclose(module.log_prob(trace.raw, Batch(x)).detach().numpy(), want, rtol=F64)
    np.testing.assert_allclose(trace.code.costs["kl"].detach().numpy(), closed_form(module, x)[1], rtol=F64)


def test_elbo_is_an_unbiased_estimate_of_the_closed_form():
    module, x = linear_vae(3, 2), normal(4, 3)
    want, kl = closed_form(module, x)
    n = 20_000
    with torch.no_grad(), seeded(0):
        trace = module.trace(Batch(x.repeat(n, 1)), sample=True)
        draws = -module.log_prob(trace.raw, trace.batch).reshape(n, 4).numpy()
        loss = elbo(module, Batch(x.repeat(n, 1)), 1.0)
    error = draws.std(0) / n**0.5
    assert (np.abs(draws.mean(0) - want) < 6 * error).all()  # six standard errors
    assert loss.terms["kl"].item() == pytest.approx(kl.mean(), rel=F64)
    assert loss.terms["reconstruction"].item() == pytest.approx(want.mean(), abs=6 * error.max())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 3))
def test_bound_never_exceeds_the_exact_likelihood(seed, k):
    module, x = linear_vae(4, k, seed), normal(6, 4, seed=seed + 1)
    W, b = module.decoder.weight.detach().numpy(), module.decoder.bias.detach().numpy()
    exact = stats.multivariate_normal(b, W @ W.T + np.eye(4)).logpdf(x.numpy())
    reconstruction, kl = closed_form(module, x)
    assert (-(reconstruction + kl) <= exact + 1e-9).all()
    trace = module.trace(Batch(x), sample=False)  # and the pieces are the module's own
    np.testing.assert_allclose(trace.code.costs["kl"].detach().numpy(), kl, rtol=F64, atol=1e-12)


def test_bound_is_tight_at_the_exact_posterior():
    module, x = linear_vae(4, 2), normal(50, 4)
    W = torch.linalg.qr(normal(4, 2))[0] * torch.tensor([3.0, 0.5], dtype=torch.float64)  # orthogonal columns
    M = W.T @ W + torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        module.decoder.weight.copy_(W)
        module.encoder.weight[:2] = torch.linalg.solve(M, W.T)
        module.encoder.weight[2:] = 0
        module.encoder.bias[:2] = -torch.linalg.solve(M, W.T) @ module.decoder.bias
        module.encoder.bias[2:] = -M.diagonal().log()
    reconstruction, kl = closed_form(module, x)
    mean = module.decoder.bias.detach().numpy()
    exact = stats.multivariate_normal(mean, (W @ W.T).numpy() + np.eye(4)).logpdf(x.numpy())
    np.testing.assert_allclose(-(reconstruction + kl), exact, rtol=F64)


# the loss -----------------------------------------------------------------------------------------------------------------------


def test_loss_is_the_sum_of_its_terms():
    penalties = (L1Sparsity(0.3), WeightL1(0.01), KLSparsity(0.1, 0.2))
    module = linear_vae(3, 2, penalties=penalties, corruption=GaussianNoise(0.1)).train()
    with seeded(0):
        loss = elbo(module, Batch(normal(7, 3)), 0.5)
    assert set(loss.terms) == {
        "reconstruction",
        "kl",
        "sparsity",
        "weight_l1",
    }  # two penalties share a name, and add up
    torch.testing.assert_close(loss.total, sum(loss.terms.values()))
    assert loss.total.shape == ()
    assert all(term.shape == () for term in loss.terms.values())


def test_penalties_are_for_training_alone_but_for_those_that_are_judged():
    module = linear_vae(3, 2, penalties=(L1Sparsity(0.3), WeightL1(0.01)))
    x = normal(7, 3)
    with seeded(0):
        judged = elbo(module.eval(), Batch(x), 1.0)
    with seeded(0):
        trained = elbo(module.train(), Batch(x), 1.0)
    assert set(judged.terms) == {"reconstruction", "kl", "weight_l1"}
    assert torch.equal(judged.terms["reconstruction"], trained.terms["reconstruction"])
    with seeded(0):
        code = module.trace(Batch(x), sample=True).code.z
    weights = sum(p.abs().sum() for p in (module.encoder.weight, module.decoder.weight))
    torch.testing.assert_close(trained.total - judged.total, 0.3 * code.abs().sum(1).mean())
    torch.testing.assert_close(judged.terms["weight_l1"], 0.01 * weights)


@pytest.mark.parametrize(
    ("progress", "warmup", "weight"),
    [(0.0, 0.2, 0.0), (0.05, 0.2, 0.25), (0.2, 0.2, 1.0), (0.9, 0.2, 1.0), (0.0, 0.0, 1.0)],
)
def test_warmup_weighs_the_cost_of_the_code(progress, warmup, weight):
    module, x = linear_vae(3, 2, bottleneck=Gaussian(2, beta=2.0)), normal(5, 3)
    with seeded(0):
        loss = elbo(module, Batch(x), progress, warmup=warmup)
    kl = 2.0 * closed_form(module, x)[1].mean()
    assert loss.terms["kl"].item() == pytest.approx(kl, rel=F64)  # the term is shown in full
    assert (loss.total - loss.terms["reconstruction"]).item() == pytest.approx(weight * kl, rel=1e-7, abs=1e-12)


def test_loss_is_a_mean_over_rows():
    module = linear_vae(3, 2, bottleneck=Identity(4)).train()
    module.decoder = nn.Linear(4, 3).double()
    x = normal(5, 3)
    once, twice = elbo(module, Batch(x), 1.0), elbo(module, Batch(x.repeat(2, 1)), 1.0)
    torch.testing.assert_close(twice.total, once.total)
    one = torch.stack([elbo(module, Batch(row[None]), 1.0).total for row in x])
    torch.testing.assert_close(one.mean(), once.total)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "sigmoid_gaussian", "bernoulli"])
def test_loss_is_a_sum_over_features(name):
    """A table beside a copy of itself, seen through copied weights, has twice the reconstruction and the same KL."""
    likelihood = likelihoods.LIKELIHOODS[name]()
    single, double = linear_vae(3, 2, likelihood=likelihood), linear_vae(6, 2, likelihood=likelihood)
    with torch.no_grad():
        double.encoder.weight.copy_(torch.cat([single.encoder.weight, single.encoder.weight], 1) / 2)
        double.encoder.bias.copy_(single.encoder.bias)
        double.decoder.weight.copy_(torch.cat([single.decoder.weight, single.decoder.weight]))
        double.decoder.bias.copy_(torch.cat([single.decoder.bias, single.decoder.bias]))
    x = normal(5, 3).sigmoid()
    with seeded(0):
        one = elbo(single, Batch(x), 1.0)
    with seeded(0):
        two = elbo(double, Batch(torch.cat([x, x], 1)), 1.0)
    torch.testing.assert_close(two.terms["reconstruction"], 2 * one.terms["reconstruction"])
    torch.testing.assert_close(two.terms["kl"], one.terms["kl"])


# missing cells ------------------------------------------------------------------------------------------------------------------


def gradients(module: AutoencoderModule, batch: Batch, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module.zero_grad()
    with seeded(seed):
        loss = elbo(module, batch, 1.0)
    loss.total.backward()
    return loss.total.detach(), {n: p.grad.clone() for n, p in module.named_parameters()}


@pytest.mark.parametrize("corruption", [None, GaussianNoise(0.5), Masking(0.5)], ids=str)
@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_a_masked_cell_cannot_change_the_loss_or_any_gradient(name, corruption):
    cls = likelihoods.LIKELIHOODS[name]
    sized = (likelihoods.LearnedGaussian, likelihoods.Counts, likelihoods.Multinomial, likelihoods.Ratings)
    likelihood = cls((4,)) if issubclass(cls, sized) else cls()
    module = linear_vae(4, 2, likelihood=likelihood, corruption=corruption).train()
    x = normal(6, 4).sigmoid()
    mask = torch.ones_like(x)
    mask[0, 1] = mask[2] = mask[3, 0] = 0  # a cell, a whole row, another cell
    want = gradients(module, Batch(x * mask, mask))
    state = {k: v.clone() for k, v in module.state_dict().items()}
    for value in (0.25, 1.0, 0.999):
        got = gradients(module, Batch(torch.where(mask > 0, x, value), mask))
        assert torch.equal(got[0], want[0])
        assert got[1].keys() == want[1].keys()
        assert all(torch.equal(got[1][k], want[1][k]) for k in want[1])
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def test_only_observed_cells_are_summed():
    module, x = linear_vae(4, 2), normal(6, 4)
    with seeded(3):
        mask = (torch.rand(6, 4) < 0.6).double()
    trace = module.trace(Batch(x * mask, mask), sample=False)
    elements = stats.norm(trace.raw[:, 0].detach().numpy()).logpdf(x.numpy())
    got = module.log_prob(trace.raw, Batch(x * mask, mask)).detach().numpy()
    np.testing.assert_allclose(got, np.where(mask.numpy() > 0, elements, 0).sum(1), rtol=F64)
    each = module.log_prob_elements(trace.raw, Batch(x * mask, mask))
    assert each.shape == (6, 4)
    assert (each[mask == 0] == 0).all()


def test_damage_never_reaches_a_missing_cell():
    module = linear_vae(4, 2, corruption=GaussianNoise(1.0)).train()
    mask = torch.ones(5, 4, dtype=torch.float64)
    mask[:, 2] = 0
    with seeded(0):
        trace = module.trace(Batch(normal(5, 4) * mask, mask), sample=False, corrupt=True)
    assert (trace.x_in[:, 2] == 0).all()
    assert (trace.x_in[:, :2] != trace.batch.x[:, :2]).all()


# the order of things ------------------------------------------------------------------------------------------------------------


def test_damage_goes_in_and_the_clean_row_is_the_target():
    module, x = linear_vae(3, 2, corruption=Masking(0.5)), normal(20, 3)
    with seeded(0):
        trace = module.trace(Batch(x), sample=False, corrupt=True)
    assert not torch.equal(trace.x_in, x)
    assert torch.equal(trace.batch.x, x)
    torch.testing.assert_close(trace.code.z, module.encoder(trace.x_in)[:, :2])
    with seeded(0):
        clean = module.trace(Batch(x), sample=False)
    assert torch.equal(clean.x_in, x)


def test_deterministic_inference():
    module, x = linear_vae(3, 2), normal(5, 3)
    assert torch.equal(module.encode(x).z, module.encode(x).z)
    assert not torch.equal(module.encode(x, sample=True).z, module.encode(x, sample=True).z)
    one, two = (module.trace(Batch(x), sample=False).raw for _ in range(2))
    assert torch.equal(one, two)


def test_likelihood_follows_the_data_in_training_alone():
    module = linear_vae(3, 2, likelihood=likelihoods.LearnedGaussian((3,)))
    x = 5 + normal(8, 3)
    module.eval().trace(Batch(x), sample=False)
    module.likelihood.after_step()
    assert module.likelihood.log_scale.tolist() == [0, 0, 0]
    module.train().trace(Batch(x), sample=False)
    module.likelihood.after_step()
    assert (module.likelihood.log_scale > 0).all()


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 4, 4)])
def test_rows_of_any_shape(shape):
    schema = Schema("vector" if len(shape) == 1 else "image", shape, 10)
    with seeded(0):
        module = AutoencoderModule.from_network(
            MLP((8,)), schema, bottleneck=Gaussian(3), likelihood=likelihoods.Bernoulli()
        )
        batch = Batch(torch.rand(5, *shape))
        trace = module.trace(batch, sample=True)
    assert trace.code.z.shape == (5, 3)
    assert trace.raw.shape == (5, 1, *shape)
    assert module.log_prob_elements(trace.raw, batch).shape == (5, *shape)
    assert module.log_prob(trace.raw, batch).shape == (5,)
    assert math.isfinite(elbo(module, batch, 0.0).total.item())


def test_context_passes_through_both_halves():
    with seeded(0):
        module = AutoencoderModule.from_network(
            MLP((8,)), vector(4, context=2), bottleneck=Gaussian(3), likelihood=likelihoods.Gaussian()
        ).double()
    x = normal(5, 4)
    a, b = normal(5, 2, seed=2), normal(5, 2, seed=3)
    assert not torch.allclose(module.encode(x, a).z, module.encode(x, b).z)
    z = normal(5, 3, seed=4)
    assert not torch.allclose(module.decode(z, a), module.decode(z, b))
    trace = module.trace(Batch(x, None, a), sample=False)
    torch.testing.assert_close(trace.raw, module.decode(module.encode(x, a).z, a))
    context = a.clone().requires_grad_()
    module.decode(z, context).sum().backward()
    assert (context.grad != 0).any()
    module.start(Batch(x, None, a))
    assert module.code_shape == (3,)


# a hand-made module that does not fit together ----------------------------------------------------------------------------------


def table_of(x: torch.Tensor, kind: str = "vector") -> Table:
    return Table(Schema(kind, tuple(x.shape[1:]), len(x)), x)


def by_hand(
    encoder: nn.Module, decoder: nn.Module, bottleneck: Bottleneck, likelihood: likelihoods.Likelihood
) -> AutoencoderModule:
    return AutoencoderModule(vector(4), encoder=encoder, decoder=decoder, bottleneck=bottleneck, likelihood=likelihood)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_start_explains_a_wrong_encoder(rows):
    batch = Batch(torch.zeros(rows, 4))
    module = by_hand(nn.Linear(4, 2), nn.Linear(2, 4), Gaussian(2), likelihoods.Gaussian())
    with pytest.raises(
        ValueError, match=r"encoder returns rows of shape \(2,\); Gaussian of this size expects 4 numbers"
    ):
        module.start(batch)
    flat = by_hand(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), nn.Linear(2, 4), Identity(2), likelihoods.Gaussian())
    with pytest.raises(ValueError, match=r"encoder returns rows of shape \(\); Identity"):
        flat.start(batch)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_start_explains_a_wrong_decoder(rows):
    module = by_hand(nn.Linear(4, 2), nn.Linear(2, 5), Identity(2), likelihoods.Laplace())
    with pytest.raises(
        ValueError, match=r"decoder returns 5 numbers a row; a row of shape \(4,\) under Laplace needs 4"
    ):
        module.start(Batch(torch.zeros(rows, 4)))


def test_start_learns_the_shape_of_the_code_and_keeps_the_mode():
    class OnGrid(Bottleneck):
        def __init__(self):
            super().__init__()
            self.in_features = self.out_features = 2
            self.spatial = True

        def forward(self, h, *, sample):
            return Identity(2)(h, sample=sample)

    x = torch.zeros(3, 1, 6, 6)
    module = AutoencoderModule(
        Schema("image", (1, 6, 6), 3),
        encoder=nn.Conv2d(1, 2, 3, stride=3),
        decoder=nn.ConvTranspose2d(2, 1, 3, stride=3),
        bottleneck=OnGrid(),
        likelihood=likelihoods.Gaussian(),
    )
    for training in (True, False):
        module.train(training).start(Batch(x))
        assert module.code_shape == (2, 2, 2)
        assert all(m.training == training for m in module.modules())


def test_start_shows_parts_the_training_rows_alone():
    seen = []

    class Watcher(nn.Linear):
        def on_start(self, batch):
            seen.extend(batch.x[:, 0].tolist())

    def build(schema):
        return by_hand(Watcher(4, 2), nn.Linear(2, 4), Identity(2), likelihoods.Gaussian())

    X = np.arange(10, dtype=np.float32)[:, None].repeat(4, 1)
    CustomAutoencoder(build=build, scale=None, validation_fraction=0.3, max_epochs=1, random_state=0).fit(X)
    assert len(set(seen)) == 7  # of ten rows, three are held out
    assert set(seen) <= set(range(10))


# the start at principal components ----------------------------------------------------------------------------------------------


def correlated(n: int = 400, d: int = 6) -> torch.Tensor:
    return normal(n, d) @ normal(d, d, seed=5) + 3


def started(bottleneck: Bottleneck, likelihood: likelihoods.Likelihood, x: torch.Tensor) -> AutoencoderModule:
    with seeded(0):
        module = AutoencoderModule.from_network(
            MLP((16,), shortcut=True), table_of(x).schema, bottleneck=bottleneck, likelihood=likelihood
        ).double()
    module.start(Batch(x))
    return module.eval()


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_deterministic_start_rebuilds_as_principal_components_do(k):
    x = correlated()
    module = started(Identity(k), likelihoods.Gaussian(), x)
    trace = module.trace(Batch(x), sample=False)
    pca = PCA(k).fit(x.numpy())
    want = pca.inverse_transform(pca.transform(x.numpy()))
    np.testing.assert_allclose(trace.raw[:, 0].detach().numpy(), want, rtol=1e-6, atol=1e-6)
    variance = trace.code.z.detach().numpy().var(0)
    np.testing.assert_allclose(variance, pca.explained_variance_ / pca.explained_variance_.mean(), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_gaussian_start_meets_probabilistic_pca(k):
    """The bound at the start, in closed form, is the exact likelihood of probabilistic PCA."""
    x = correlated()
    module = started(Gaussian(k), likelihoods.LearnedGaussian((1,)), x)
    W = module.decoder.shortcut.weight.detach().numpy()
    b = module.decoder.shortcut.bias.detach().numpy()
    noise = float(module.likelihood.log_scale.exp() ** 2)
    h = module.encoder(x).detach().numpy()
    mu, var = h[:, :k], np.exp(h[:, k:])
    squared = ((x.numpy() - mu @ W.T - b) ** 2).sum(1) + var @ (W**2).sum(0)
    bound = -0.5 * squared / noise - 3 * (LOG_2PI + math.log(noise)) - 0.5 * (mu**2 + var - 1 - np.log(var)).sum(1)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))
    assert noise == pytest.approx(eigenvalues[: 6 - k].mean(), rel=1e-6)
    exact = stats.multivariate_normal(b, W @ W.T + noise * np.eye(6)).logpdf(x.numpy())
    np.testing.assert_allclose(bound, exact, rtol=1e-6)
    sample_covariance = np.cov(x.numpy().T, bias=True)
    values, vectors = np.linalg.eigh(sample_covariance)
    fitted = (vectors * np.where(np.arange(6) >= 6 - k, values, noise)) @ vectors.T  # Tipping and Bishop
    np.testing.assert_allclose(W @ W.T + noise * np.eye(6), fitted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x", [torch.zeros(5, 3), torch.ones(1, 3), torch.eye(3), torch.zeros(2, 1)], ids=str)
def test_a_start_on_little_data_is_finite(x):
    x = x.double()
    for bottleneck, likelihood in (
        (Gaussian(4), likelihoods.LearnedGaussian((1,))),
        (Identity(4), likelihoods.Bernoulli()),
        (Identity(2), likelihoods.SigmoidGaussian()),
    ):
        module = started(bottleneck, likelihood, x)
        assert all(torch.isfinite(p).all() for p in module.parameters())
        assert math.isfinite(elbo(module, Batch(x), 1.0).total.item())


def test_layers_beside_the_linear_map_start_at_nothing_and_then_learn():
    module = started(Identity(2), likelihoods.Gaussian(), correlated()).train()
    x = correlated()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    for _ in range(2):  # the last layer moves first, and lets the gradient through
        optimizer.zero_grad()
        elbo(module, Batch(x), 1.0).total.backward()
        optimizer.step()
    dead = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


# records ------------------------------------------------------------------------------------------------------------------------


def test_history():
    history = History([{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0, "mse": 1.0}], ["an event"], "the end", 2)
    assert len(history) == 2
    assert history["loss"] == [3, 2]
    assert math.isnan(history["mse"][0])
    assert history.keys() == ["epoch", "loss", "mse"]
    assert [row["epoch"] for row in history] == [1, 2]
    assert History.from_json(history.to_json()) == history
    with pytest.raises(KeyError, match="the history has no 'val_loss'; it has epoch, loss, mse"):
        _ = history["val_loss"]
    with pytest.raises(KeyError, match="no epoch yet"):
        _ = History()["loss"]
