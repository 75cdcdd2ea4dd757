"""Sparse codes and dictionary learning: independent formulas, and features that are known."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from torch.nn import functional as F

import diabolo
from diabolo import (
    BatchTopKAutoencoder,
    Callback,
    GatedAutoencoder,
    JumpReLUAutoencoder,
    KSparseAutoencoder,
    MatryoshkaAutoencoder,
    SparseAutoencoder,
    TopKAutoencoder,
)
from diabolo.checks import ParameterError
from diabolo.objectives import elbo
from diabolo.records import Batch, Schema
from diabolo.seeding import seeded
from diabolo.zoo.sparse import Gated, JumpReLU
from diabolo.zoo.sparse_codes import THRESHOLD_STEP, BatchTopK, TopK

X = load_iris().data
QUICK = {"max_epochs": 3, "random_state": 0, "device": "cpu"}
WITH_K = [KSparseAutoencoder, TopKAutoencoder, BatchTopKAutoencoder, MatryoshkaAutoencoder]
LEARNERS = [*WITH_K, JumpReLUAutoencoder, GatedAutoencoder]
GRIDS = [(), (3,), (2, 3)]
F64 = 1e-12  # a few operations in float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


def parts(model, d=5, n=40):
    """Return the module of ``model`` in float64 for rows of ``d`` numbers, and such rows."""
    with seeded(0):
        module = model._build(Schema("vector", (d,), n)).double()
    x = normal(n, d)
    for part in module.modules():
        if hasattr(part, "on_start"):
            part.on_start(Batch(x))
    return module, Batch(x)


# a number of active units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rectify", [False, True])
def test_topk_keeps_the_k_largest(grid, rectify):
    h = normal(9, 7, *grid)
    z = TopK(7, 3, 100, rectify=rectify)(h, sample=True).z
    flat, kept = (t.movedim(1, -1).reshape(-1, 7).numpy() for t in (h, z))
    for row, got in zip(flat, kept, strict=True):
        want = np.zeros(7)
        largest = np.argsort(row)[-3:]
        want[largest] = np.maximum(row[largest], 0) if rectify else row[largest]
        np.testing.assert_array_equal(got, want)


def test_topk_keeps_exactly_k_where_inputs_are_positive():
    z = TopK(20, 4, 100, rectify=True)(normal(50, 20).abs(), sample=False).z
    assert ((z != 0).sum(dim=1) == 4).all()


def test_a_fitted_topk_has_at_most_k_and_k_sparse_exactly_k():
    assert TopKAutoencoder(12, k=3, **QUICK).fit(X).activity(X).n_active.max() <= 3
    assert (KSparseAutoencoder(12, k=3, **QUICK).fit(X).activity(X).n_active == 3).all()


def test_alpha_keeps_more_units_after_training():
    model = KSparseAutoencoder(12, k=3, alpha=1.7, **QUICK).fit(X)
    assert (model.activity(X).n_active == 5).all()  # round(5.1)
    everything = KSparseAutoencoder(4, k=3, alpha=9.0, **QUICK).fit(X)
    assert (everything.activity(X).n_active == 4).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_batch_topk_keeps_k_on_average(grid):
    code = BatchTopK(7, 2, 100).train()
    h = normal(30, 7, *grid)
    z = code(h, sample=True).z
    places = 30 * int(np.prod(grid))
    order = np.sort(h.clamp_min(0).numpy().ravel())
    assert int((z != 0).sum()) == 2 * places
    np.testing.assert_array_equal(np.sort(z.numpy().ravel())[-2 * places :], order[-2 * places :])
    assert len(set((z != 0).flatten(1).sum(1).tolist())) > 1  # not the same number for each row


def test_batch_topk_follows_the_smallest_unit_that_stays():
    code, want = BatchTopK(7, 2, 100).double().train(), None
    for step in range(4):
        h = normal(30, 7, seed=step)
        code(h, sample=True)
        code.after_step()
        smallest = np.sort(h.numpy().ravel())[-60]
        want = smallest if want is None else want + THRESHOLD_STEP * (smallest - want)
    assert float(code.threshold) == pytest.approx(want, rel=F64)
    h = normal(30, 7, seed=9)
    assert torch.equal(code.eval()(h, sample=False).z, torch.where(h >= want, h, 0.0))


def test_batch_topk_without_a_threshold_takes_k_of_each_row():
    z = BatchTopK(7, 2, 100).eval()(normal(30, 7).abs(), sample=False).z
    assert ((z != 0).sum(dim=1) == 2).all()


# dictionaries with known features -----------------------------------------------------------------------------------------------


def superposition(n=2500, n_features=32, d=16, active=2):
    """Rows that are sums of 2 of 32 directions in 16 dimensions."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(n_features, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chosen = np.argsort(rng.random((n, n_features)), axis=1)[:, :active]
    amounts = np.zeros((n, n_features))
    np.put_along_axis(amounts, chosen, rng.uniform(0.5, 1.5, size=(n, active)), axis=1)
    return amounts @ directions, directions


def similarity(model, directions):
    """Mean cosine of each known direction with the column of the dictionary that is paired with it, no column twice."""
    columns = model.dictionary_ / np.linalg.norm(model.dictionary_, axis=1, keepdims=True)
    cosine = np.abs(columns @ directions.T)
    i, j = linear_sum_assignment(-cosine)
    return cosine[i, j].mean()


TRAINED = {"max_epochs": 15, "batch_size": 64, "learning_rate": 5e-3, "random_state": 0, "device": "cpu"}
LEARNED = {
    TopKAutoencoder: {"k": 2},
    BatchTopKAutoencoder: {"k": 2},
    KSparseAutoencoder: {"k": 2},
    MatryoshkaAutoencoder: {"k": 2, "prefixes": (12,)},
    JumpReLUAutoencoder: {"learning_rate": 1e-2},
    GatedAutoencoder: {"learning_rate": 1e-2},
}


@functools.cache
def learned(cls):
    rows, directions = superposition()
    return cls(48, **TRAINED | LEARNED[cls]).fit(rows), rows, directions


@pytest.mark.parametrize(
    ("cls", "bar"),
    [
        # Untrained directions reach 0.6 by this pairing; a dictionary that has missed one feature in ten is at about 0.95.
        (TopKAutoencoder, 0.9),
        (BatchTopKAutoencoder, 0.88),
        (KSparseAutoencoder, 0.9),
        (JumpReLUAutoencoder, 0.85),  # its thresholds are still on their way after so few steps
        (GatedAutoencoder, 0.75),  # as is its gate
        (MatryoshkaAutoencoder, 0.8),  # its first units are asked for averages of features
    ],
)
def test_known_features_are_found(cls, bar):
    model, rows, directions = learned(cls)
    assert similarity(model, directions) > bar
    untrained = cls(48, **TRAINED | LEARNED[cls] | {"max_epochs": 1, "learning_rate": 1e-9}).fit(rows)
    assert similarity(untrained, directions) < 0.65
    l0 = model.activity(rows).l0  # the truth is 2
    assert 1.2 < l0 < 5
    if "k" in LEARNED[cls]:  # the threshold is an average over the last batches, hence near their rate and not at it
        assert l0 == pytest.approx(2, rel=0.1)
    assert len(model.dead_units_) < 16  # 48 units for 32 features


@pytest.mark.parametrize("cls", [cls for cls in LEARNERS if cls is not KSparseAutoencoder])
def test_columns_keep_length_one(cls):
    norms = learned(cls)[0].module_.decoder.weight.norm(dim=0)
    torch.testing.assert_close(norms, torch.ones(48))  # float32


def test_first_units_of_a_nested_dictionary_rebuild_more():
    def error(cls):
        model, rows, _ = learned(cls)
        Z = model.transform(rows)
        Z[:, 12:] = 0
        return np.square(rows - model.inverse_transform(Z)).mean()

    assert error(MatryoshkaAutoencoder) < 0.9 * error(BatchTopKAutoencoder)


# the dictionary -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (12,)])
@pytest.mark.parametrize("cls", LEARNERS)
def test_the_encoder_starts_as_the_transpose_of_the_dictionary(cls, hidden):
    module, batch = parts(cls(8, hidden=hidden))
    h = module.encode(batch.x).aux["h"]
    torch.testing.assert_close(h, (batch.x - batch.x.mean(dim=0)) @ module.decoder.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module.decoder.bias, batch.x.mean(dim=0))
    torch.testing.assert_close(module.decoder.weight.norm(dim=0), torch.ones(8, dtype=torch.float64))
    assert sum(name.startswith("decoder") for name, _ in module.named_parameters()) == 2
    assert not any("tied" in name for name in module.state_dict())


def test_the_encoder_may_be_convolutional():
    digits = load_digits().images[:60]
    model = TopKAutoencoder(16, k=3, network="shortcut_conv", **QUICK | {"hidden": (4,)}).fit(digits)
    assert model.reconstruct(digits).shape == (60, 8, 8)
    with seeded(0):
        module = model._build(model.schema_)
    torch.testing.assert_close(module.encoder.body.shortcut.weight, module.decoder.weight.T)
    assert TopKAutoencoder(16, k=3, network="mlp", **QUICK).fit(digits).dictionary_.shape == (16, 64)


def test_the_encoder_does_not_subtract_logits():
    module, batch = parts(TopKAutoencoder(8, k=2, likelihood="bernoulli"))
    h = module.encode(batch.x).aux["h"]
    torch.testing.assert_close(h, batch.x @ module.decoder.weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cls", LEARNERS)
def test_the_dictionary_is_in_units_of_the_data(cls):
    rows = pd.DataFrame(X * [1, 1000, 0.01, 1], columns=list("abcd"))
    model = cls(6, **QUICK).fit(rows)
    codes = np.vstack([np.zeros(6), np.eye(6)])
    added = model.inverse_transform(codes).to_numpy()
    assert model.dictionary_.shape == (6, 4)
    scale = np.abs(model.dictionary_).max(axis=0)
    np.testing.assert_allclose(model.dictionary_ / scale, (added[1:] - added[0]) / scale, atol=1e-6)  # float32 weights


def test_the_dictionary_of_images_has_a_row_for_each_unit():
    digits = load_digits().images[:80]
    model = TopKAutoencoder(16, k=3, **QUICK).fit(digits)
    codes = np.vstack([np.zeros(16), np.eye(16)])
    added = model.inverse_transform(codes).reshape(17, -1)
    np.testing.assert_allclose(model.dictionary_, added[1:] - added[0], atol=1e-4)  # float32 weights, pixels up to 16


def test_the_dictionary_of_other_outputs_is_in_their_units():
    for parameters in ({"likelihood": "bernoulli"}, {"scale": "quantile"}):
        model = TopKAutoencoder(6, k=2, **parameters, **QUICK).fit(X)
        norms = np.linalg.norm(model.dictionary_, axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-6)  # float32 weights


def test_the_decoder_stays_one_matrix_under_a_deep_encoder():
    model = TopKAutoencoder(9, k=2, **QUICK | {"hidden": (16, 8)}).fit(X)
    Z, Z2 = model.transform(X)[:2], model.transform(X)[2:4]
    zero = model.inverse_transform(np.zeros((1, 9)))
    left = model.inverse_transform(Z + 2 * Z2) - zero
    right = model.inverse_transform(Z) - zero + 2 * (model.inverse_transform(Z2) - zero)
    np.testing.assert_allclose(left, right, atol=F64 * 100)


def test_what_is_fitted_is_refused_before_fit():
    for name in ("dictionary_", "dead_units_"):
        with pytest.raises(NotFittedError):
            getattr(TopKAutoencoder(), name)


def test_activity_counts():
    model = BatchTopKAutoencoder(12, k=2, **QUICK).fit(X)
    Z, activity = model.transform(X), model.activity(X)
    np.testing.assert_array_equal(activity.rate, (Z != 0).mean(axis=0))
    np.testing.assert_array_equal(activity.n_active, (Z != 0).sum(axis=1))
    assert activity.l0 == pytest.approx(activity.rate.sum())
    for unit in range(12):
        on = Z[:, unit][Z[:, unit] != 0]
        assert activity.strength[unit] == pytest.approx(on.mean() if len(on) else 0)


@pytest.mark.parametrize("cls", LEARNERS)
def test_the_code_of_a_row_does_not_depend_on_other_rows(cls):
    model = cls(12, **QUICK).fit(X)
    np.testing.assert_allclose(model.transform(X)[7:9], model.transform(X[7:9]), rtol=1e-9)  # float64


def test_automatic_sizes():
    model = TopKAutoencoder(**QUICK).fit(load_digits().data[:100])
    assert (model.choices_["latent_dim"], model.choices_["k"], model.choices_["hidden"]) == (256, 16, [])
    assert TopKAutoencoder(**QUICK).fit(X[:, :1]).choices_["k"] == 1


# refinements --------------------------------------------------------------------------------------------------------------------


def refined(x, module, k, rounds, rectify, mask=1.0):
    """Return the input of the code by hand: what the code so far leaves of the row is encoded again and added."""
    linear, dictionary = module.encoder.body.shortcut, module.decoder
    W, c, D, b = (t.detach().numpy() for t in (linear.weight, linear.bias, dictionary.weight, dictionary.bias))
    h = (x - b) @ W.T + c
    for _ in range(rounds):
        z = np.where(h >= np.sort(h, axis=1)[:, [-k]], h, 0)
        z = np.maximum(z, 0) if rectify else z
        h = z + ((x - z @ D.T - b) * mask) @ W.T + c
    return h


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("cls", WITH_K)
def test_refinements_encode_the_residual(cls, rounds):
    module, batch = parts(cls(8, k=2, refinements=rounds))
    with torch.no_grad():
        module.encoder.body.shortcut.weight.copy_(0.5 * normal(8, 5, seed=1))
        module.encoder.body.shortcut.bias.copy_(normal(8, seed=2))
    h = module.trace(batch, sample=True).code.aux["h"].detach().numpy()
    want = refined(batch.x.numpy(), module, 2, rounds, rectify=cls is not KSparseAutoencoder)
    np.testing.assert_allclose(h, want, rtol=1e-9, atol=1e-9)


def test_refinements_leave_missing_cells_out():
    module, batch = parts(TopKAutoencoder(8, k=2, refinements=2))
    mask = torch.as_tensor(np.random.default_rng(3).random((40, 5)) > 0.3).double()
    shifted = [Batch(batch.x + shift * (1 - mask), mask) for shift in (0, 9)]
    h = [module.trace(b, sample=True).code.aux["h"].detach().numpy() for b in shifted]
    want = refined((batch.x * mask).numpy(), module, 2, 2, rectify=True, mask=mask.numpy())
    np.testing.assert_allclose(h[0], want, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(h[0], h[1])


def test_refinements_change_nothing_where_columns_are_at_right_angles():
    module, batch = parts(KSparseAutoencoder(5, k=2, refinements=3))
    with torch.no_grad():
        module.decoder.weight.copy_(torch.linalg.qr(normal(5, 5))[0])
        module.encoder.body.shortcut.weight.copy_(module.decoder.weight.T)
    h = module.trace(batch, sample=True).code.aux["h"]
    torch.testing.assert_close(h, (batch.x - module.decoder.bias) @ module.decoder.weight)


def test_refinements_of_probabilities_follow_the_gradient():
    module, _ = parts(TopKAutoencoder(8, k=3, refinements=1, likelihood="bernoulli"))
    x = (normal(40, 5) > 0).double()
    first = x @ module.decoder.weight
    z = TopK(8, 3, 100, rectify=True)(first, sample=True).z.detach().requires_grad_()
    module.log_prob(module.decode(z), Batch(x)).sum().backward()
    torch.testing.assert_close(module.encode(x).aux["h"], z + z.grad)  # the encoder is the transpose of the dictionary


def test_refinements_find_codes_that_one_look_does_not():
    rows, directions = superposition()
    models = [TopKAutoencoder(48, k=2, refinements=n, **TRAINED).fit(rows) for n in (0, 2)]
    plain, better = (np.square(rows - model.reconstruct(rows)).mean() for model in models)
    assert better < 0.6 * plain
    assert similarity(models[1], directions) > 0.9


# dead units ---------------------------------------------------------------------------------------------------------------------


def test_idle_units_are_counted_in_rows():
    code = TopK(3, 1, dead_after=10, rectify=True).train()
    assert not code.dead().any()
    for rows, unit in ((4, 0), (5, 1), (6, 1)):
        h = torch.zeros(rows, 3)
        h[:, unit] = 1.0
        code(h, sample=True)
        code.after_step()
    assert code.idle.tolist() == [11, 0, 15]
    assert code.dead().tolist() == [True, False, True]
    code.dead_after = 12
    assert code.dead().tolist() == [False, False, True]
    code.dead_after = 1000  # more than all rows of training: never active at all
    assert code.dead().tolist() == [False, False, True]
    code.eval()(torch.ones(5, 3), sample=False)
    code.after_step()
    assert code.idle.tolist() == [11, 0, 15]  # rows that are only looked at do not count


def dying(weight=0.5, n_dead=2):
    """Return a model in training whose units 5, 6 and 7 are dead, and rows."""
    module, batch = parts(TopKAutoencoder(8, k=2, dead_weight=weight, n_dead=n_dead, dead_after=30))
    with torch.no_grad():
        module.encoder.body.shortcut.bias[:5] = 20.0  # two of these always win
    module.bottleneck.idle[5:], module.bottleneck.seen[...] = 100, 100
    return module.train(), batch


def test_dead_units_learn_from_the_residual():
    module, batch = dying()
    trace = module.trace(batch, sample=True)
    assert (trace.code.z[:, 5:] == 0).all()
    loss = elbo(module, batch, 0.5)
    residual = (batch.x - trace.raw[:, 0]).detach().numpy()
    h = np.maximum(trace.code.aux["h"].detach().numpy()[:, 5:], 0)
    h[np.arange(len(h)), h.argmin(axis=1)] = 0  # two of the three take part
    made = h @ module.decoder.weight.detach().numpy()[:, 5:].T
    want = 0.5 * 0.5 * (np.square(residual - made).sum(1) - np.square(residual).sum(1)).mean()
    assert loss.terms["dead_units"].item() == pytest.approx(want, rel=1e-9)
    loss.terms["dead_units"].backward()
    weight = module.encoder.body.shortcut.weight
    assert (weight.grad[5:].abs().sum(dim=1) > 0).all()
    assert (weight.grad[:5] == 0).all()
    assert (module.decoder.weight.grad[:, 5:].abs().sum(dim=0) > 0).all()
    assert (module.decoder.weight.grad[:, :5] == 0).all()


def test_without_the_auxiliary_loss_dead_units_learn_nothing():
    module, batch = dying(weight=0.0)
    elbo(module, batch, 0.5).total.backward()
    assert (module.encoder.body.shortcut.weight.grad[5:] == 0).all()


def test_nothing_is_added_while_all_units_live():
    module, batch = dying()
    module.bottleneck.idle.zero_()
    assert elbo(module, batch, 0.5).terms["dead_units"].item() == 0


def test_missing_cells_have_no_part_in_the_auxiliary_loss():
    module, batch = dying()
    mask = torch.ones_like(batch.x)
    mask[:, 0] = 0
    shifted = [Batch(batch.x + shift * (1 - mask), mask) for shift in (0, 100)]
    terms = [elbo(module, b, 0.5).terms["dead_units"].item() for b in shifted]
    assert terms[0] == pytest.approx(terms[1], rel=1e-9)
    assert terms[0] != 0


class Handicap(Callback):
    """Let half of the units start with inputs so low that the others win nearly always."""

    def on_fit_begin(self, run):
        with torch.no_grad():
            run.module.encoder.body.shortcut.bias[24:] = -2.0


def test_dead_units_come_back():
    rows, _ = superposition()
    counts = {}
    for weight in (0.0, 0.03125):
        model = TopKAutoencoder(48, k=2, dead_weight=weight, dead_after=1000, callbacks=(Handicap(),), **TRAINED)
        counts[weight] = len(model.fit(rows).dead_units_)
    assert counts[0.0] > 12
    assert counts[0.03125] < 0.5 * counts[0.0]


def test_dead_units_and_threshold_are_saved(tmp_path):
    model = BatchTopKAutoencoder(400, k=1, validation_fraction=0, **QUICK).fit(X)
    assert len(model.dead_units_) > 0
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    np.testing.assert_array_equal(again.dead_units_, model.dead_units_)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again.choices_["k"] == 1


# nested, thresholds, gates ------------------------------------------------------------------------------------------------------


def test_prefixes_must_rebuild_the_row():
    module, batch = parts(MatryoshkaAutoencoder(8, k=3, prefixes=(2, 5), prefix_weight=0.7))
    module.train()
    loss = elbo(module, batch, 0.5)
    z = module.trace(batch, sample=True).code.z
    want = 0.0
    for m in (2, 5):
        cut = z.clone()
        cut[:, m:] = 0
        want = want - 0.7 * module.log_prob(module.decode(cut), batch).mean()
    torch.testing.assert_close(loss.terms["prefixes"], want)
    torch.testing.assert_close(loss.total, loss.terms["reconstruction"] + want)  # no unit is dead yet
    assert set(elbo(module.eval(), batch, 0.5).terms) == {"reconstruction"}


def test_automatic_prefixes():
    for width, sizes in ((64, (4, 8, 16, 32)), (6, (1, 3)), (1, ())):
        model = MatryoshkaAutoencoder(width, k=1)
        found = [p.sizes for p in model._penalties(Schema("vector", (5,), 10)) if hasattr(p, "sizes")]
        assert found == ([sizes] if sizes else [])


@pytest.mark.parametrize("grid", GRIDS)
def test_jumprelu_and_its_straight_through_gradient(grid):
    weight, bandwidth = 0.3, 0.5
    code = JumpReLU(6, weight, bandwidth, 100).double()
    with torch.no_grad():
        code.log_threshold.copy_(normal(6, seed=1) * 0.3)
        code.length.fill_(1.5)
    h = normal(40, 6, *grid).requires_grad_()
    out = code(h, sample=True)
    slope = normal(40, 6, *grid, seed=2)
    ((out.z * slope).sum() + out.costs["sparsity"].sum()).backward()
    # the formulas of the paper, with the box kernel of width epsilon
    flat, s = (t.detach().movedim(1, -1).reshape(-1, 6).numpy() for t in (h, slope))
    theta, epsilon = np.exp(code.log_threshold.detach().numpy()), bandwidth * 1.5
    box = np.abs((flat - theta) / epsilon) < 0.5
    assert box.any(axis=0).all()
    z = out.z.detach().movedim(1, -1).reshape(-1, 6).numpy()
    np.testing.assert_allclose(z, flat * (flat > theta), rtol=F64)
    counted = (out.z.detach() != 0).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(out.costs["sparsity"].detach().numpy(), weight * counted, rtol=F64)
    of_theta = (-theta / epsilon * box * s - weight / epsilon * box).sum(axis=0)
    np.testing.assert_allclose(code.log_threshold.grad.numpy(), theta * of_theta, rtol=1e-10)
    of_h = h.grad.movedim(1, -1).reshape(-1, 6).numpy()
    np.testing.assert_allclose(of_h, s * (flat > theta), rtol=F64)


def test_thresholds_start_at_the_bandwidth_in_lengths_of_rows():
    module, batch = parts(JumpReLUAutoencoder(8, bandwidth=0.2))
    centred = (batch.x - batch.x.mean(dim=0)).numpy()
    want = 0.2 * np.sqrt(np.square(centred).sum(axis=1).mean())
    np.testing.assert_allclose(module.bottleneck.log_threshold.detach().exp().numpy(), want, rtol=1e-9)


def test_a_dearer_unit_makes_codes_sparser():
    for cls in (JumpReLUAutoencoder, GatedAutoencoder):
        model, rows, _ = learned(cls)
        cheap = cls(48, **TRAINED | LEARNED[cls] | {"sparsity_weight": 0.2}).fit(rows)
        assert model.activity(rows).l0 < 0.6 * cheap.activity(rows).l0


def test_gated_code_and_penalty():
    code = Gated(6, 0.3, 100).double()
    with torch.no_grad():
        code.log_gain.copy_(normal(6, seed=1))
        code.shift.copy_(normal(6, seed=2))
    h = normal(40, 6)
    out = code(h, sample=True)
    gain, shift = np.exp(code.log_gain.detach().numpy()), code.shift.detach().numpy()
    want = (h.numpy() > 0) * np.maximum(gain * h.numpy() + shift, 0)
    np.testing.assert_allclose(out.z.detach().numpy(), want, rtol=F64)
    np.testing.assert_allclose(out.costs["sparsity"].numpy(), 0.3 * np.maximum(h.numpy(), 0).sum(axis=1), rtol=F64)


def test_the_gate_learns_with_the_dictionary_held_fixed():
    module, batch = parts(GatedAutoencoder(8))
    module.train()
    loss = elbo(module, batch, 1.0)
    h = module.trace(batch, sample=True).code.aux["h"].relu()
    alone = -module.log_prob(F.linear(h, module.decoder.weight, module.decoder.bias).unsqueeze(1), batch).mean()
    torch.testing.assert_close(loss.terms["gate"], alone)
    loss.terms["gate"].backward()
    assert module.decoder.weight.grad is None
    assert module.encoder.body.shortcut.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("cls", [JumpReLUAutoencoder, GatedAutoencoder])
def test_the_price_of_a_code_counts_in_scores(cls):
    model = cls(6, sparsity_weight=0.7, scale=None, **QUICK).fit(X)
    free = -0.5 * np.square(X - model.reconstruct(X)).sum(axis=1) - 2 * np.log(2 * np.pi)
    price = free - model.score_samples(X)
    if cls is JumpReLUAutoencoder:
        np.testing.assert_allclose(price, 0.7 * model.activity(X).n_active, atol=1e-6)  # lambda is kept in float32
    else:
        assert (price >= -1e-9).all()


@pytest.mark.parametrize("parameters", [{}, {"sparsity": "kl"}])
def test_epochs_of_sparse_codes_are_judged_with_their_penalty(parameters):
    model = SparseAutoencoder(6, **parameters, random_state=0, max_epochs=30, batch_size=32, device="cpu").fit(X)
    best = model.history_.best_epoch
    assert model.history_.rows[best - 1]["val_sparsity"] > 0
    total = [row["val_reconstruction"] + row["val_sparsity"] for row in model.history_.rows]
    np.testing.assert_allclose(total, model.history_["val_loss"], rtol=1e-6)  # float32
    assert int(np.argmin(total)) == best - 1


# bad input ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", WITH_K)
def test_more_active_units_than_units_are_refused(cls):
    with pytest.raises(ParameterError, match=r"k=9: a code of 8 units .* expected k <= latent_dim"):
        cls(8, k=9, **QUICK).fit(X)
    assert cls(8, k=8, **QUICK).fit(X).n_iter_ == 3


@pytest.mark.parametrize("prefixes", [(4, 2), (2, 2), (2, 8)])
def test_prefixes_that_are_none_are_refused(prefixes):
    with pytest.raises(ParameterError, match="expected rising numbers below the 8 units"):
        MatryoshkaAutoencoder(8, k=2, prefixes=prefixes, **QUICK).fit(X)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TopKAutoencoder(k=0), "k"),
        (TopKAutoencoder(refinements=-1), "refinements"),
        (KSparseAutoencoder(alpha=0.5), "alpha"),
        (JumpReLUAutoencoder(bandwidth=0.0), "bandwidth"),
        (GatedAutoencoder(sparsity_weight=-1.0), "sparsity_weight"),
        (BatchTopKAutoencoder(dead_after=0), "dead_after"),
        (SparseAutoencoder(rate=1.0), "rate"),
    ],
)
def test_impossible_parameters_are_named(model, message):
    with pytest.raises(ParameterError, match=message):
        model.fit(X)


def test_the_learning_rate_falls_with_the_width_of_rows():
    rng = np.random.default_rng(0)
    for width, rate in ((4, 5e-3), (128, 5e-3), (512, 2.5e-3)):
        model = TopKAutoencoder(8, k=2, max_epochs=1, random_state=0).fit(rng.normal(size=(20, width)))
        assert model.choices_["learning_rate"] == pytest.approx(rate)
    assert (
        TopKAutoencoder(8, k=2, learning_rate=0.1, max_epochs=1)
        .fit(rng.normal(size=(9, 512)))
        .choices_["learning_rate"]
        == 0.1
    )
    with pytest.raises(ParameterError, match="learning_rate"):
        TopKAutoencoder(8, learning_rate="fast").fit(rng.normal(size=(9, 5)))
