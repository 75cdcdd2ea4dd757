"""Contractive, regularised, robust, ordered and tied autoencoders against closed forms and explicit Jacobians."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from torch import nn
from torch.autograd.functional import jacobian

import diabolo
from diabolo import (
    Autoencoder,
    ContractiveAutoencoder,
    OrderedAutoencoder,
    RegularizedAutoencoder,
    RobustAutoencoder,
    TiedAutoencoder,
)
from diabolo.checks import ParameterError
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import LIKELIHOODS, Gaussian, StudentT
from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.parts.networks.mlp import MLP
from diabolo.parts.penalties import (
    CodeJacobian,
    CodeL2,
    DecoderJacobian,
    DecoderL2,
    ReconstructionJacobian,
    squared_jacobian_norm,
)
from diabolo.principal import spherical_components
from diabolo.records import Batch, Schema, Trace
from diabolo.seeding import seeded
from diabolo.zoo.regularised import Nested, Spectral
from diabolo.zoo.tied import TiedMLP

X = load_iris().data
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
# Linear models that train long enough to reach their optimum on a few hundred rows.
LINEAR = {"hidden": (), "validation_fraction": 0, "weight_decay": 0, "scale": None, "random_state": 0, "device": "cpu"}
F64 = 1e-9  # relative error of sums of products in float64, with room


def low_rank(variances, d, n=400, seed=0):
    """Rows of given sample variances along orthonormal directions, with a mean; and the directions."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n, len(variances)))
    codes = np.linalg.qr(codes - codes.mean(0))[0] * np.sqrt(n * np.asarray(variances))
    directions = np.linalg.qr(rng.normal(size=(d, len(variances))))[0]
    return codes @ directions.T + rng.normal(size=d), directions


def make_module(encoder, decoder, d, k, activation=None, likelihood=None):
    schema = Schema("vector", (d,), 10)
    module = AutoencoderModule(
        schema,
        encoder=encoder,
        decoder=decoder,
        bottleneck=Identity(k, activation),
        likelihood=likelihood or Gaussian(),
    )
    return module.double().train()


def mlp_module(d=5, k=3, activation="tanh", norm=None, dropout=0.0, likelihood=None):
    schema = Schema("vector", (d,), 10)
    network = MLP((7,), activation, dropout, norm)
    with seeded(0):
        halves = network.encoder(schema, k, spatial=False), network.decoder(schema, k, 1, spatial=False)
    return make_module(*halves, d, k, likelihood=likelihood)


def rows(n, *shape, seed=1):
    with seeded(seed):
        return torch.randn(n, *shape, dtype=torch.float64)


def trace_of(module, x):
    return module.trace(Batch(x), sample=False)


def explicit(function, x):
    """Squared Frobenius norm of the Jacobian of each row, one row at a time."""
    found = [jacobian(lambda r: function(r[None]).flatten(), row, create_graph=True) for row in x]
    return torch.stack([j.square().sum() for j in found])


# Jacobians ----------------------------------------------------------------------------------------------------------------------

MAPS = {
    CodeJacobian: (lambda m: lambda x: m.encode(x).z, "x"),
    ReconstructionJacobian: (lambda m: lambda x: m.likelihood.mean(m.decode(m.encode(x).z)), "x"),
    DecoderJacobian: (lambda m: lambda z: m.likelihood.mean(m.decode(z)), "z"),
}


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("kind", MAPS)
def test_jacobian_penalties_equal_explicit_jacobians(kind, likelihood):
    module, x = mlp_module(likelihood=LIKELIHOODS[likelihood]()), rows(6, 5)
    trace = trace_of(module, x)
    got = kind(0.3, "exact")(module, trace)
    make, at = MAPS[kind]
    want = 0.3 * explicit(make(module), x if at == "x" else trace.code.z)
    torch.testing.assert_close(got, want, rtol=F64, atol=0)
    weights = [p for p in module.parameters() if p.dim() > 1]
    slopes = torch.autograd.grad(got.sum(), weights, allow_unused=True, retain_graph=True)
    wanted = torch.autograd.grad(want.sum(), weights, allow_unused=True)
    for a, b in zip(slopes, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-12)  # sums with cancellation


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_contraction_with_every_activation_and_norm(activation, norm):
    module, x = mlp_module(activation=activation, norm=norm, dropout=0.2), rows(4, 5)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    got = CodeJacobian(1.0, "exact")(module, Trace(Batch(x), x, None, None))
    want = explicit(lambda r: module.eval().encode(r).z, x)
    torch.testing.assert_close(got, want, rtol=F64, atol=0)
    got.sum().backward()
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())  # running statistics are left alone


def test_penalties_leave_the_mode_of_each_layer():
    module, x = mlp_module(norm="batch", dropout=0.5), rows(4, 5)
    trace = trace_of(module, x)
    module.encoder.body[1].eval()
    before = [m.training for m in module.modules()]
    CodeJacobian(1.0)(module, trace)
    assert [m.training for m in module.modules()] == before
    assert not all(before)


@pytest.mark.parametrize("kind", ["conv", "gru"])
def test_contraction_of_any_network(kind):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 3, batch_first=True)

        def forward(self, x):
            return self.rnn(x[:, 0])[0][:, -1]

    conv = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    with seeded(0):
        encoder = conv if kind == "conv" else Last()
        encoder = encoder.double()
    x = rows(5, 1, 4, 4)
    torch.testing.assert_close(squared_jacobian_norm(encoder, x, "exact"), explicit(encoder, x), rtol=F64, atol=0)


def test_contraction_of_a_sigmoid_layer_is_the_formula_of_the_paper():
    with seeded(0):
        encoder = nn.Linear(6, 4)
    module, x = make_module(encoder, nn.Linear(4, 6), 6, 4, nn.Sigmoid()), rows(8, 6)
    h = module.encode(x).z.detach().numpy()
    w = encoder.weight.detach().numpy()
    want = 0.1 * ((h * (1 - h)) ** 2 @ (w**2).sum(1))  # Rifai et al., 2011, equation 7
    got = CodeJacobian(0.1)(module, trace_of(module, x))
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=F64)


@pytest.mark.parametrize("probes", [1, 3])
def test_the_estimate_has_the_norm_as_its_mean(probes):
    module, row, n = mlp_module(), rows(1, 5), 20_000
    want = squared_jacobian_norm(lambda x: module.encode(x).z, row, "exact").item()
    with seeded(0):
        draws = squared_jacobian_norm(lambda x: module.encode(x).z, row.expand(n, 5), probes).detach()
    error = draws.std().item() / n**0.5
    assert error < 0.02 * want
    assert draws.mean().item() == pytest.approx(want, abs=5 * error)  # five standard errors
    assert draws.std() > 0


def test_auto_is_exact_for_few_outputs_and_random_for_many():
    x = rows(3, 5)
    for n, exact in ((8, True), (9, False)):
        with seeded(0):
            layer = nn.Linear(5, n).double()
            draws = [squared_jacobian_norm(layer, x) for _ in range(2)]
        assert torch.equal(*draws) == exact


# contractive --------------------------------------------------------------------------------------------------------------------


def test_a_linear_contractive_reconstruction_shrinks_principal_components():
    X, directions = low_rank([9.0, 4.0, 1.0], 6)
    cae = ContractiveAutoencoder(2, contraction=1.0, jacobian="reconstruction", **LINEAR)
    cae.set_params(max_epochs=150, learning_rate=1e-2, batch_size=100).fit(X)
    mean = X.mean(0)
    map_ = (cae.reconstruct(np.eye(6) + mean) - cae.reconstruct(mean[None])).T
    # 1/2 s (1 - a)^2 + lambda a^2 is least at a = s / (s + 2 lambda) for each direction kept
    want = directions[:, :2] @ np.diag([9 / 11, 4 / 6]) @ directions[:, :2].T
    np.testing.assert_allclose(map_, want, atol=0.02)  # what mini-batches leave of entries of size 1


def test_contraction_acts_as_small_noise_does():
    """Alain and Bengio (2014): for a linear map, noise of variance 2 lambda and the penalty are one loss."""
    with seeded(0):
        module, x = make_module(nn.Linear(4, 2), nn.Linear(2, 4), 4, 2), rows(40_000, 4)
        noisy = x + 0.6**0.5 * torch.randn_like(x)
    error = 0.5 * (module.decode(module.encode(noisy).z)[:, 0] - x).square().sum(1)
    clean = 0.5 * (module.decode(module.encode(x).z)[:, 0] - x).square().sum(1)
    penalty = ReconstructionJacobian(0.3)(module, trace_of(module, x[:1]))
    difference = error - clean
    assert difference.mean().item() == pytest.approx(penalty.item(), abs=5 * difference.std().item() / 200)


def test_contraction_makes_codes_move_less():
    norms = []
    for contraction in (0.0, 1.0):
        model = ContractiveAutoencoder(
            2, contraction=contraction, jacobian="reconstruction", hidden=(16,), max_epochs=40, random_state=0
        ).fit(X)
        module = model.module_.eval()
        x = model.codec_.encode(model._read(X, reset=False)).x
        norms.append(ReconstructionJacobian(1.0)(module, trace_of(module, x)).mean().item())
    assert norms[1] < 0.8 * norms[0]


def test_a_sigmoid_code_has_the_papers_closed_form():
    """Rifai et al. (2011), one layer: the sum over units of (h (1 - h))^2 times the squared norm of their weights."""
    quick = QUICK | {"hidden": ()}
    cae = ContractiveAutoencoder(3, network="mlp", code_activation="sigmoid", **quick).fit(X)
    module = cae.module_.double().eval()
    x = cae.codec_.encode(cae._read(X, reset=False), torch.float64).x
    h = torch.from_numpy(cae.transform(X))
    (layer,) = (m for m in module.encoder.modules() if isinstance(m, nn.Linear))
    want = (h * (1 - h)).square() @ layer.weight.square().sum(1)
    torch.testing.assert_close(CodeJacobian(1.0)(module, trace_of(module, x)), want, rtol=F64, atol=0)


def test_no_contraction_is_the_plain_autoencoder():
    plain = Autoencoder(2, **QUICK).fit(X).transform(X)
    np.testing.assert_array_equal(ContractiveAutoencoder(2, contraction=0.0, **QUICK).fit(X).transform(X), plain)


# regularised --------------------------------------------------------------------------------------------------------------------


def test_l2_penalties():
    module, x = mlp_module(), rows(6, 5)
    trace = trace_of(module, x)
    z = trace.code.z.detach().numpy()
    np.testing.assert_allclose(CodeL2(0.7)(module, trace).detach().numpy(), 0.35 * (z**2).sum(1), rtol=F64)
    want = 0.7 * sum((p.detach().numpy() ** 2).sum() for n, p in module.decoder.named_parameters() if "weight" in n)
    assert DecoderL2(0.7)(module, trace).item() == pytest.approx(want, rel=F64)


def test_the_gradient_penalty_reaches_the_encoder_through_the_codes():
    module, x = mlp_module(), rows(6, 5)
    DecoderJacobian(1.0)(module, trace_of(module, x)).sum().backward()
    assert module.encoder.body[0].weight.grad.abs().sum() > 0


def test_a_linear_regularised_autoencoder_thresholds_singular_values():
    X, _ = low_rank([9.0, 4.0, 1.0], 6)
    beta, lam, n = 0.84, 0.09, len(X)
    rae = RegularizedAutoencoder(3, code_weight=beta, decoder_weight=lam, **LINEAR)
    rae.set_params(max_epochs=300, learning_rate=1e-2, batch_size=200).fit(X)
    got = np.linalg.svd(rae.reconstruct(X) - X.mean(0), compute_uv=False)[:3]
    # the two squared norms are twice the root of their weights times the nuclear norm: each singular value s of the centred
    # rows loses n times 2 sqrt(beta / (2 n) * lambda)
    want = np.sqrt(n * np.array([9.0, 4.0, 1.0])) - np.sqrt(2 * n * beta * lam)
    np.testing.assert_allclose(got, want, rtol=0.02)  # what a finite number of steps leaves


def test_spectral_layers_have_norm_one():
    with seeded(0):
        layers = [nn.Linear(5, 7), nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3)]
        inputs = [torch.randn(4, 5), torch.randn(4, 2, 6, 6), torch.randn(4, 2, 6, 6)]
        for layer, x in zip(layers, inputs, strict=True):
            weight = layer.weight.detach().transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            norm = torch.linalg.matrix_norm(weight.detach().flatten(1), 2)
            wanted = copy.deepcopy(layer)
            wanted.weight.data /= norm
            spectral = Spectral(layer)
            for _ in range(200):
                spectral(x)
            torch.testing.assert_close(spectral.eval()(x), wanted(x), rtol=1e-4, atol=1e-5)  # float32


def test_a_spectral_layer_that_starts_at_zero_gets_a_direction():
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    with seeded(0):
        x = torch.randn(5, 4)
        spectral = Spectral(layer)
    assert torch.linalg.matrix_norm(spectral(x) - spectral(x * 0), 2) > 0.1
    spectral(x).sum().backward()
    assert layer.weight.grad.abs().max() < 100  # divided by a norm near 0 it would be 1e12


def test_a_spectral_decoder_stretches_no_distance():
    rae = RegularizedAutoencoder(3, decoder_penalty="sn", activation="relu", hidden=(16, 16), max_epochs=20)
    rae.set_params(random_state=0, code_weight=1e-3).fit(X)
    module = rae.module_
    layers = [m for m in module.decoder.modules() if isinstance(m, Spectral)]
    assert len(layers) == 3
    for layer in layers:
        value = torch.linalg.matrix_norm(layer.layer.weight.detach(), 2)
        estimate = (layer.layer.weight.detach() @ layer.right).norm()
        assert estimate.item() == pytest.approx(
            value.item(), rel=0.02
        )  # one step of the power method for each of training
    z = module.encode(rae.codec_.encode(rae._read(X, reset=False)).x).z
    a, b = module.decode(z)[:75, 0], module.decode(z)[75:, 0]
    assert ((a - b).norm(dim=1) <= (z[:75] - z[75:]).norm(dim=1) * 1.02**3).all()


@pytest.mark.parametrize(
    "model",
    [
        RegularizedAutoencoder(2, decoder_penalty="sn", **QUICK),
        TiedAutoencoder(2, norm="batch", **QUICK | {"hidden": (12, 6)}),
        RobustAutoencoder(2, dof=1.5, **QUICK),
        OrderedAutoencoder(3, **QUICK),
    ],
    ids=lambda m: type(m).__name__,
)
def test_saved_pickled_and_resumed_models_are_the_same(model, tmp_path):
    model = copy.deepcopy(model).fit(X)
    scores = model.score_samples(X)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(diabolo.load(tmp_path / "m").score_samples(X), scores)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).score_samples(X), scores)  # noqa: S301 - our own bytes

    folder = {"checkpoint": str(tmp_path / "run")}
    parameters = {k: v for k, v in model.get_params().items() if k not in ("checkpoint", "callbacks")}

    class Kill(Exception):
        pass

    def kill(run):
        if run.epoch == 2:
            raise Kill

    with pytest.raises(Kill):
        type(model)(**parameters, **folder, callbacks=(kill,)).fit(X)
    np.testing.assert_array_equal(type(model)(**parameters, **folder).fit(X).score_samples(X), scores)


# robust -------------------------------------------------------------------------------------------------------------------------


def contaminated(kind, d=10, n=400, seed=0):
    """A plane in ten dimensions with little noise; a tenth of the rows lie far off it."""
    rng = np.random.default_rng(seed)
    plane = np.linalg.qr(rng.normal(size=(d, 2)))[0]
    X = rng.normal(size=(n, 2)) * [3, 2] @ plane.T + 0.1 * rng.normal(size=(n, d)) + rng.normal(size=d)
    k = n // 10
    if kind == "one direction":
        off = rng.normal(size=d)
        X[:k] += 30 * rng.normal(size=(k, 1)) * off / np.linalg.norm(off)
    else:
        X[:k] += 10 * rng.normal(size=(k, d))
    return X, plane


@pytest.mark.parametrize("kind", ["one direction", "all directions"])
def test_gross_outliers_do_not_bend_the_robust_autoencoder(kind):
    X, plane = contaminated(kind)
    angles = {}
    for cls in (Autoencoder, RobustAutoencoder):
        model = cls(2, hidden=(), max_epochs=60, learning_rate=1e-2, weight_decay=0, random_state=0).fit(X)
        directions = model.inverse_transform(np.eye(2)) - model.inverse_transform(np.zeros((1, 2)))
        angles[cls] = np.degrees(subspace_angles(directions.T, plane)).max()
    assert (
        angles[RobustAutoencoder] < 5
    )  # noise of 0.1 on 360 rows of scale 2 moves a direction by less than one degree
    assert angles[Autoencoder] > 30


def test_the_robust_start_finds_the_directions_and_variances_of_the_clean_rows():
    X, plane = contaminated("one direction", n=4000)
    centre, variances, directions, _ = spherical_components(torch.from_numpy(X), 2)
    assert (
        np.degrees(subspace_angles(directions.numpy(), plane)).max() < 10
    )  # the outliers' tenth pulls by some degrees
    # a tenth of far values moves a median absolute value to the quantile .5 / .9, by a fifth, and its square by two fifths
    np.testing.assert_allclose(variances.numpy(), [9.0, 4.0], rtol=0.45)
    clean = X[400:]
    np.testing.assert_allclose(centre.numpy(), clean.mean(0), atol=0.5)


def test_outliers_show_in_the_scores_of_the_robust_autoencoder():
    X, _ = contaminated("one direction")
    robust = RobustAutoencoder(2, max_epochs=40, random_state=0).fit(X)
    scores = robust.score_samples(X)
    far = stats.rankdata(scores)[:40]
    assert np.median(far) < 60  # of 400; a few rows moved by less than the noise are no outliers


def test_the_scale_of_student_t_is_that_of_maximum_likelihood():
    x = np.random.default_rng(0).standard_t(3, size=2000) * 0.4
    likelihood = StudentT((1,), dof=3.0).double()
    for _ in range(1500):
        likelihood.observe(torch.zeros(2000, 1, 1, dtype=torch.float64), torch.from_numpy(x)[:, None], None)
        likelihood.after_step()
    _, _, scale = stats.t.fit(x, f0=3.0, floc=0.0)
    # both maximise the same likelihood; scipy's search stops at 1e-4
    assert likelihood.log_scale.exp().item() == pytest.approx(scale, rel=1e-3)


def test_student_t_of_many_degrees_is_a_gaussian():
    likelihood = StudentT((1,), dof=1e7).double()
    raw, x = rows(5, 1, 3), rows(5, 3, seed=2)
    want = Gaussian().log_prob(raw, x)
    torch.testing.assert_close(likelihood.log_prob(raw, x), want, rtol=1e-5, atol=0)  # the difference falls as 1 / dof


def test_student_t_ignores_masked_cells():
    masked, plain = StudentT((1,)), StudentT((1,))
    raw, x = torch.zeros(3, 1, 2), torch.tensor([[1.0, 1e6], [2.0, -1e6], [3.0, 1e6]])
    masked.observe(raw, x, torch.tensor([[1.0, 0.0]]).expand(3, 2))
    plain.observe(raw[..., :1], x[:, :1], None)
    masked.after_step(), plain.after_step()
    torch.testing.assert_close(masked.log_scale, plain.log_scale)


def test_dof_reaches_the_likelihood():
    assert RobustAutoencoder(2, dof=7.0, **QUICK).fit(X).module_.likelihood.dof == 7.0
    assert RobustAutoencoder(2, **QUICK).fit((X.mean(0) < X).astype(float)).choices_["likelihood"] == "bernoulli"


# ordered ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("grid", [(), (2, 3)])
def test_nested_dropout_keeps_the_first_units(rate, grid):
    nested, n, d = Nested(5, rate), 20_000, 5
    h = torch.ones(n, d, *grid)
    assert torch.equal(nested(h, sample=False).z, h)
    with seeded(0):
        kept = nested(h, sample=True).z.flatten(2).amax(2) if grid else nested(h, sample=True).z
    assert (kept[:, :-1] >= kept[:, 1:]).all()
    p = np.ones(d) if rate is None else (1 - rate) ** np.arange(d)
    p = p / p.sum()
    counts = np.bincount(kept.sum(1).int().numpy() - 1, minlength=d)
    # six standard errors of a binomial share
    assert (np.abs(counts / n - p) < 6 * np.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize(("truncation", "network"), [("geometric", "mlp"), ("uniform", "mlp"), ("geometric", "auto")])
def test_linear_units_are_principal_components_in_order(truncation, network):
    X, directions = low_rank([16.0, 9.0, 4.0, 1.0], 6)
    model = OrderedAutoencoder(3, truncation=truncation, network=network, rate=0.3, **LINEAR)
    model.set_params(max_epochs=200, learning_rate=1e-2, batch_size=50).fit(X)
    found = model.inverse_transform(np.eye(3)) - model.inverse_transform(np.zeros((1, 3)))
    cosines = np.abs(found @ directions[:, :3]) / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=0.01)  # 8 degrees: the noise of truncation
    Z = model.transform(X)
    pca = PCA(3).fit(X)
    for m in range(1, 4):
        cut = np.where(np.arange(3) < m, Z, 0)
        error = np.mean((model.inverse_transform(cut) - X) ** 2)
        best = X.var(axis=0).mean() - pca.explained_variance_[:m].sum() * (len(X) - 1) / len(X) / X.shape[1]
        assert best * (1 - 1e-6) <= error <= best + 0.01 * X.var(axis=0).mean()


def test_more_units_rebuild_better():
    X = load_digits().data
    ordered = OrderedAutoencoder(8, max_epochs=15, random_state=0).fit(X)
    Z = ordered.transform(X)
    cuts = [np.where(np.arange(8) < m, Z, 0) for m in range(9)]
    errors = [np.mean((ordered.inverse_transform(cut) - X) ** 2) for cut in cuts]
    assert (np.diff(errors) < 0).all()


# tied ---------------------------------------------------------------------------------------------------------------------------


def tied_module(hidden=(7, 4), activation="tanh", context=0):
    schema = Schema("vector", (5,), 10, context=context)
    network = TiedMLP(hidden, activation, 0.0, None)
    with seeded(0):
        encoder = network.encoder(schema, 3, spatial=False)
        decoder = network.decoder(schema, 3, 1, spatial=False)
    return encoder.double(), decoder.double()


def test_a_tied_network_is_its_formula():
    encoder, decoder = tied_module()
    with torch.no_grad():
        for i, p in enumerate([*encoder.parameters(), *decoder.parameters()]):
            p += 0.1 * rows(*p.shape, seed=i)
    w = [p.detach().numpy() for n, p in encoder.named_parameters() if "weight" in n]
    b = [p.detach().numpy() for n, p in encoder.named_parameters() if "bias" in n]
    c = [p.detach().numpy() for p in decoder.parameters()]
    x = rows(6, 5)
    h = np.tanh(np.tanh(x.numpy() @ w[0].T + b[0]) @ w[1].T + b[1])
    z = h @ w[2].T + b[2]
    back = np.tanh(np.tanh(z @ w[2] + c[0]) @ w[1] + c[1]) @ w[0] + c[2]
    np.testing.assert_allclose(encoder(x).detach().numpy(), z, rtol=F64)
    np.testing.assert_allclose(decoder(encoder(x)).detach().numpy(), back, rtol=F64)


def test_the_decoder_of_a_tied_network_owns_only_biases():
    encoder, decoder = tied_module()
    assert all(p.dim() == 1 for p in decoder.parameters())
    assert sum(p.dim() == 2 for p in encoder.parameters()) == 3


def test_the_gradient_of_a_tied_weight_is_that_of_both_uses():
    encoder, decoder = tied_module(hidden=())
    x = rows(6, 5)
    (decoder(encoder(x)) - x).square().sum().backward()
    w = encoder.body[0].weight.detach()
    into, out = w.clone().requires_grad_(), w.T.clone().requires_grad_()
    (x @ into.T @ out.T - x).square().sum().backward()  # biases start at 0
    torch.testing.assert_close(encoder.body[0].weight.grad, into.grad + out.grad.T, rtol=F64, atol=1e-12)


def test_a_context_enters_both_halves():
    encoder, decoder = tied_module(context=2)
    x, c = rows(6, 5), rows(6, 2, seed=3)
    assert decoder(encoder(x, c), c).shape == (6, 5)
    assert not torch.allclose(decoder(encoder(x, c), c), decoder(encoder(x, c), c + 1))


@pytest.mark.parametrize("again", ["copy", "pickle", "saved"])
def test_copies_of_a_tied_model_stay_tied(again, tmp_path):
    model = TiedAutoencoder(2, **QUICK).fit(X)
    model.save(tmp_path / "m")
    made = {
        "copy": lambda: copy.deepcopy(model),
        "pickle": lambda: pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
        "saved": lambda: diabolo.load(tmp_path / "m"),
    }[again]()
    z = np.ones((1, 2))
    np.testing.assert_array_equal(made.inverse_transform(z), model.inverse_transform(z))
    with torch.no_grad():
        for p in made.module_.encoder.parameters():
            p += 1.0
    assert not np.allclose(made.inverse_transform(z), model.inverse_transform(z))


def test_a_linear_tied_autoencoder_has_orthonormal_principal_directions():
    X, directions = low_rank([9.0, 4.0, 0.25], 6)
    model = TiedAutoencoder(2, **LINEAR)
    model.set_params(max_epochs=200, learning_rate=1e-2, batch_size=100).fit(X)
    w = model.module_.encoder.body[0].weight.detach().numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(2), atol=0.01)  # what mini-batches leave
    assert np.degrees(subspace_angles(w.T, directions[:, :2])).max() < 2


def test_a_deep_tied_autoencoder_beats_principal_components():
    X = load_digits().data
    model = TiedAutoencoder(8, hidden=(128,), max_epochs=30, random_state=0).fit(X[:1200])
    pca = PCA(8).fit(X[:1200])
    best = np.mean((pca.inverse_transform(pca.transform(X[1200:])) - X[1200:]) ** 2)
    assert np.mean((model.reconstruct(X[1200:]) - X[1200:]) ** 2) < best


# bad input ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ContractiveAutoencoder(contraction=-1.0), r"contraction=-1.0: expected float >= 0"),
        (ContractiveAutoencoder(jacobian="decoder"), r"jacobian='decoder': expected"),
        (ContractiveAutoencoder(probes=0), r"probes=0: expected"),
        (ContractiveAutoencoder(probes="exakt"), r"Did you mean 'exact'"),
        (RegularizedAutoencoder(decoder_penalty="spectral"), r"decoder_penalty='spectral': expected"),
        (RegularizedAutoencoder(decoder_penalty="sn", network="shortcut_mlp"), r"Use network='mlp', or"),
        (RobustAutoencoder(dof=0.0), r"dof=0.0: expected float > 0"),
        (OrderedAutoencoder(rate=1.0), r"rate=1.0: expected float > 0 and < 1"),
        (TiedAutoencoder(network="residual_mlp"), r"network='residual_mlp': expected"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_parameters(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(X)


def test_a_tied_decoder_says_what_it_cannot_do():
    schema = Schema("vector", (5,), 10)
    network = TiedMLP((), "silu", 0.0, None)
    with pytest.raises(ValueError, match=r"call encoder\(\) first"):
        network.decoder(schema, 3, 1, spatial=False)
    network.encoder(schema, 3, spatial=False)
    with pytest.raises(ParameterError, match="one number for each feature; this likelihood needs 2"):
        network.decoder(schema, 3, 2, spatial=False)
