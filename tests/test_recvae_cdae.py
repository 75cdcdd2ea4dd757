"""RecVAE and CDAE: the composite prior against scipy, halves that learn in turn, and nodes of users."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import logsumexp
from scipy.stats import norm
from torch.nn import functional as F

from diabolo import CDAE, Recommender, RecVAE, load
from diabolo.records import Batch
from diabolo.seeding import seeded
from diabolo.zoo.cdae import UserNodes
from diabolo.zoo.recvae import CompositePrior, DenseEncoder
from test_recommender import KIND, S, X, taste

F64 = 1e-9  # of sums in float64
QUICK = {"random_state": 0, "device": "cpu"}
BATCH = Batch(torch.tensor(X[:50], dtype=torch.float32))


def parts(n=400, d=3):
    rng = np.random.default_rng(0)
    h, former = (torch.tensor(rng.normal(size=(n, 2 * d))) for _ in range(2))
    return CompositePrior(d).double(), h, former, d


def log_prior(z, former, d):
    """Return the log-density of the mixture, from scipy."""
    mean, spread = former[:, :d], np.exp(former[:, d:] / 2)
    each = [(0.15, 0.0, 1.0), (0.75, mean, spread), (0.1, 0.0, np.exp(5.0))]
    return logsumexp([np.log(a) + norm.logpdf(z, m, s).sum(1) for a, m, s in each], axis=0)


def test_the_divergence_of_a_draw_is_that_of_scipy():
    prior, h, former, d = parts()
    with seeded(0):
        code = prior(h, sample=True)
    z = code.z.numpy()
    posterior = norm.logpdf(z, h[:, :d].numpy(), np.exp(h[:, d:].numpy() / 2)).sum(1)
    found = prior.divergence(code, former, drawn=True).numpy()
    np.testing.assert_allclose(found, posterior - log_prior(z, former.numpy(), d), rtol=F64, atol=F64)


def test_the_bound_for_centres_is_no_less_than_the_mean_of_draws():
    prior, h, former, _ = parts(3)
    h, former = h.repeat_interleave(20_000, 0), former.repeat_interleave(20_000, 0)
    with seeded(0):
        draws = prior.divergence(prior(h, sample=True), former, drawn=True).view(3, -1)
    bound = prior.divergence(prior(h[::20_000], sample=False), former[::20_000], drawn=False)
    error = draws.std(1) / draws.shape[1] ** 0.5
    assert (bound > draws.mean(1) - 4 * error).all()
    same = prior.divergence(prior(h[::20_000], sample=False), h[::20_000], drawn=False)
    assert (same <= -np.log(0.75) + F64).all()  # a posterior that did not move costs its share at most


def fitted(**options):
    return RecVAE(4, hidden=(16, 16), max_epochs=8, **options, **QUICK).fit(X)


def gradients(module, model, progress):
    module.zero_grad()
    with seeded(0):
        model._objective()(module, BATCH, progress).total.backward()
    halves = (module.encoder, module.decoder)
    return [any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in half.parameters()) for half in halves]


def test_halves_learn_in_turn_and_the_encoder_is_remembered_between():
    model = fitted()
    module = model.module_.train()
    assert module.rounds == 2  # of four epochs
    module.turn.zero_()
    for parameter in module.encoder.parameters():
        parameter.data.add_(0.1)
    former = [getattr(module, name).clone() for name in module._former.values()]
    assert gradients(module, model, 0.1) == [True, False]  # 0.2 of the first round
    assert all(torch.equal(a, getattr(module, name)) for a, name in zip(former, module._former.values(), strict=True))
    assert gradients(module, model, 0.4) == [False, True]  # 0.8 of it
    now = [p.detach() for p in module.encoder.parameters()]
    assert all(torch.equal(a, getattr(module, name)) for a, name in zip(now, module._former.values(), strict=True))
    assert int(module.turn) == 1
    assert gradients(module, model, 0.6) == [True, False]
    assert gradients(module, model, 1.0) == [False, True]
    assert int(module.turn) == 2


def test_the_loss_is_the_papers_with_a_weight_for_each_choice():
    model = fitted(gamma=0.3, level=0.0)
    module = model.module_.train()
    with seeded(1):
        loss = model._objective()(module, BATCH, 0.1)
    with seeded(1), torch.no_grad():
        code = module.bottleneck(module.hidden(BATCH.x), sample=True)
        former = {name: getattr(module, at) for name, at in module._former.items()}
        old = torch.func.functional_call(module.encoder, former, (F.normalize(BATCH.x),))
        kl = module.bottleneck.divergence(code, old, drawn=True)
        likelihood = (BATCH.x * module.decode(code.z)[:, 0].log_softmax(1)).sum(1)
        wanted = (0.3 * BATCH.x.sum(1) * kl - likelihood).mean()
    assert float(loss.total.detach()) == pytest.approx(float(wanted), rel=1e-5)  # float32


def test_layers_see_the_sum_of_those_before():
    encoder = DenseEncoder(5, (3, 3, 4), 2, "silu", 0.0).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    first, second, third = encoder.layers
    a = encoder.norms[0](F.silu(first(x)))
    b = encoder.norms[1](F.silu(second(a) + a))
    c = encoder.norms[2](F.silu(third(b)))  # of another width: nothing to add
    torch.testing.assert_close(encoder(x), encoder.out(c), rtol=F64, atol=F64)


def test_a_saved_recvae_has_its_former_encoder(tmp_path):
    model = fitted()
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    for name in model.module_._former.values():
        assert torch.equal(getattr(again.module_, name), getattr(model.module_, name))


def test_rows_of_fit_find_their_node_and_others_none():
    nodes = UserNodes(30, len(X), 4)
    rows = torch.tensor(X, dtype=torch.float32)
    for part in rows.split(64):
        nodes.meet(part)
    torch.nn.init.normal_(nodes.nodes.weight)
    found = nodes(rows).detach()
    assert bool((found.abs().sum(1) > 0).all())
    _, same = np.unique(X, axis=0, return_inverse=True)
    _, own = np.unique(found.numpy(), axis=0, return_inverse=True)
    assert len(set(zip(same, own, strict=True))) == len(
        set(same)
    )  # a node for each content, and the same for equal ones
    torch.testing.assert_close(nodes(rows.double().flip(0)), found.flip(0))  # whatever the order and the type
    changed = rows.clone()
    changed[:, 0] = 1 - changed[:, 0]
    known = {tuple(row) for row in X.tolist()}
    new = [tuple(row) not in known for row in changed.int().tolist()]
    assert not nodes(changed)[torch.tensor(new)].any()


def test_a_user_of_fit_is_coded_with_the_node_and_a_new_one_without():
    model = CDAE(4, max_epochs=30, learning_rate=0.02, weight_decay=0.0, validation_fraction=0, **QUICK).fit(X)
    module = model.module_
    plain = torch.sigmoid(module.encoder(F.normalize(torch.tensor(X, dtype=torch.float64)).float())).detach().numpy()
    assert not np.allclose(model.transform(X), plain, atol=1e-3)
    other = X.copy()
    other[:, 0] = 1 - other[:, 0]
    new = np.array([row not in X.tolist() for row in other.tolist()])
    alone = torch.sigmoid(module.encoder(F.normalize(torch.tensor(other[new], dtype=torch.float32)))).detach().numpy()
    np.testing.assert_allclose(model.transform(other[new]), alone, rtol=1e-4, atol=1e-6)  # float32


def test_a_model_that_starts_from_another_has_nodes_of_its_own():
    first = CDAE(4, max_epochs=3, **QUICK).fit(X)
    again = CDAE(4, max_epochs=1, init_from=first, **QUICK | {"random_state": 1}).fit(X[::-1].copy())
    module = again.module_
    rows = torch.tensor(X, dtype=torch.float32)
    torch.nn.init.ones_(module.users.nodes.weight)
    assert bool((module.users(rows) == 1).all())
    assert any(name.startswith("users") for name in again.taken_.started)


def test_without_hiding_nodes_every_step_has_them():
    model = CDAE(4, node_dropout=0.0, max_epochs=2, **QUICK).fit(X)
    module = model.module_.train()
    with seeded(0):
        assert torch.equal(module.encode_shown(BATCH.x, BATCH, sample=False).z, module.encode(BATCH.x, sample=False).z)
    module.hidden_share = 0.9
    torch.nn.init.ones_(module.users.nodes.weight)
    with seeded(0):
        moved = module.encode(BATCH.x, sample=False).z != module.bottleneck(module.hidden(BATCH.x), sample=False).z
    assert 0 < float(moved.any(1).float().mean()) < 0.4


@pytest.mark.parametrize(
    "model", [RecVAE(8, hidden=(16, 16), learning_rate=1e-2, max_epochs=12), CDAE(8, learning_rate=1e-2, max_epochs=20)]
)
def test_they_find_the_taste_of_new_users(model):
    many, _ = taste(1000, seed=1)
    items, _ = Recommender(model.set_params(**QUICK)).fit(sparse.csr_array(many)).recommend(S, 1)
    assert (items[:, 0] % 3 == KIND).mean() > 0.6  # a third by chance
