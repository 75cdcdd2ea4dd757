"""Classes and numbers from few labels: ground truth, labels that are missing, what is learned from rows without one."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits, load_iris, make_moons
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

import diabolo
from diabolo import VAE, Autoencoder, AutoencoderClassifier, AutoencoderRegressor, ConditionalVAE
from diabolo.tasks.finetuning import Held
from diabolo.tasks.graph import Graph
from diabolo.tasks.heads import Beside, Head, Told
from diabolo.tasks.labels import read_classes, read_numbers
from diabolo.tasks.linear import choose, fit_linear, folds_of
from diabolo.tasks.supervised import _pooled
from diabolo.training.optimizer import Optimizer

QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
X, Y = load_iris(return_X_y=True)
DIGITS, KINDS = load_digits(return_X_y=True)


def classifier(**parameters):
    return AutoencoderClassifier(
        Autoencoder(2, **QUICK), **{"random_state": 0, "n_models": 1, "max_steps": 50} | parameters
    )


# labels -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes", "codes"),
    [
        ([2, -1, 0, 2], [0, 2], [1, -1, 0, 1]),
        ([2.0, np.nan, 0.0, -1.0], [0.0, 2.0], [1, -1, 0, -1]),
        ([-1, 1, -1, 1], [-1, 1], [0, 1, 0, 1]),
        (["b", None, "a", float("nan")], ["a", "b"], [1, -1, 0, -1]),
        (pd.Series(["b", pd.NA, "a", "a"], dtype="object"), ["a", "b"], [1, -1, 0, 0]),
        (pd.Series(["b", None, "a", "a"], dtype="string"), ["a", "b"], [1, -1, 0, 0]),
        (pl.Series(["b", None, "a", "a"]), ["a", "b"], [1, -1, 0, 0]),
        (pd.Series([1, pd.NA, 0, 0], dtype="Int64"), [0, 1], [1, -1, 0, 0]),
        ([True, False, None, True], [False, True], [1, 0, -1, 1]),
    ],
)
def test_labels_of_any_kind_and_rows_without_one(y, classes, codes):
    found, places = read_classes(y, 4, "it")
    assert found.tolist() == classes
    assert places.tolist() == codes


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([-1, -1, -1, 0], "one class, 0"),
        ([np.nan] * 4, "y has none"),
        (["a", None, 3, "b"], "mixes labels of type int and str"),
        ([0.5, 1.5, 2.25, 0.75], "Unknown label type: continuous"),
        ([0, 1], "X has 4 rows, y has 2"),
        ([0, 1, np.inf, 1], "Input y contains infinity: row 2"),
        (None, "requires y to be passed"),
    ],
)
def test_labels_that_cannot_be_learned_from(y, message):
    with pytest.raises(ValueError, match=message):
        read_classes(y, 4, "it")


def test_numbers_and_rows_without_one():
    assert read_numbers([1, None, 2.5, np.nan], 4, "it").tolist()[::2] == [1.0, 2.5]
    with pytest.raises(ValueError, match="at least two rows"):
        read_numbers([1, None], 2, "it")
    with pytest.raises(ValueError, match="predicts numbers"):
        read_numbers(np.array(["2020", "2021"], dtype="datetime64[Y]"), 2, "it")


def test_a_model_that_is_told_a_condition_is_refused():
    with pytest.raises(ValueError, match="is told a condition"):
        AutoencoderClassifier(ConditionalVAE(2, **QUICK)).fit(X, Y)


# the linear start ---------------------------------------------------------------------------------------------------------------


def test_linear_outputs_are_those_of_scikit_learn():
    for codes, n in ((Y[:100], 2), (Y, 3)):
        x = StandardScaler().fit_transform(X[: len(codes)])
        found = fit_linear(x, codes, n, 0.1)
        model = LogisticRegression(C=0.1, max_iter=1000).fit(x, codes)
        # lbfgs stops where gradients are below 1e-4
        np.testing.assert_allclose(softmax(found(x), axis=1), model.predict_proba(x), atol=2e-3)
    ridge = fit_linear(x[:, 1:], x[:, 0], 1, 10.0)
    np.testing.assert_allclose(ridge(x[:, 1:])[:, 0], Ridge(10.0).fit(x[:, 1:], x[:, 0]).predict(x[:, 1:]))
    never = fit_linear(x, np.where(Y == 1, 0, Y), 3, 0.1)  # no row of class 1
    assert softmax(never(x), axis=1)[:, 1].max() < 1e-6


def test_the_strength_is_that_of_the_best_held_out_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 20))
    noise = choose(x, rng.integers(0, 2, 200), 2, folds_of(rng.integers(0, 2, 200), rng, classes=True))
    assert noise.strength <= 1e-2  # nothing to learn
    assert noise.loss == pytest.approx(np.log(2), abs=0.03)
    plain = choose(x, x[:, 0], 1, folds_of(x[:, 0], rng, classes=False))
    assert plain.strength == 0.1
    assert np.isnan(choose(x[:2], np.array([0, 1]), 2, []).loss)


def test_pieces_of_numbers():
    x = np.column_stack([np.arange(101), np.repeat([0, 1], [50, 51]), np.zeros(101)]).astype(np.float32)
    beside = Beside.learn(x)
    out = beside(torch.from_numpy(x)).numpy()
    assert out.shape == (101, 3 + 8)  # two values and none are left as they are
    np.testing.assert_allclose(12.5 * out[:, 3:].sum(1), x[:, 0], rtol=1e-5)
    assert out[:, 3:].min() == 0
    assert out[:, 3:].max() == 1
    curve = np.interp(x[:, 0], np.linspace(0, 100, 9), [0, 3, -1, 2, 5, 5, 1, 0, 4])
    line = fit_linear(out.astype(float), curve, 1, 1e-6)
    np.testing.assert_allclose(line(out)[:, 0], curve, atol=1e-2)  # float32 pieces, and a penalty of 1e-6
    assert Beside.learn(np.zeros((3, 5000), dtype=np.float32)) is None


def test_frozen_is_the_linear_model():
    model = classifier(method="frozen").fit(X, Y)
    assert len(model.heads_) == 0
    assert model.linear_.weight.shape == (3, 4 + 2 + len(model.beside_.places))
    assert model.score(X, Y) > 0.9


def test_what_cannot_be_learned_is_not_claimed():
    noise = np.random.default_rng(0).integers(0, 2, 150)  # networks learn it by heart
    model = classifier(learning_rate=0.02, max_steps=200, n_models=3).fit(X, noise)
    assert model.share_ < 1 or model.temperature_ > 1
    held_out = np.random.default_rng(1).integers(0, 2, 150)
    assert log_loss(held_out, model.predict_proba(X)) < np.log(2) + 0.1


# what is learned from rows without a label --------------------------------------------------------------------------------------


def test_labels_spread_along_two_moons():
    x, y = make_moons(400, noise=0.05, random_state=0)
    few = np.full(400, -1)
    for c in (0, 1):
        few[np.flatnonzero(y == c)[:3]] = c
    lifted = np.column_stack([x, np.full(400, 0.5)])  # neighbours are by angle
    chances = Graph(lifted).spread(few, np.array([0.5, 0.5]))
    assert (chances.argmax(1) == y).mean() > 0.95  # a straight line between six points has .88 at best
    np.testing.assert_allclose(chances.sum(1), 1)


def test_spreading_is_the_fixed_point_of_its_equation():
    rng = np.random.default_rng(0)
    graph = Graph(rng.normal(size=(60, 3)))
    s = graph.matrix.toarray().astype(np.float64)
    np.testing.assert_allclose(s, s.T, atol=1e-6)
    assert np.abs(np.linalg.eigvalsh(s)).max() <= 1 + 1e-6
    few = np.full(60, -1)
    few[:6] = [0, 1, 0, 1, 0, 1]
    told = np.zeros((60, 2))
    told[np.arange(6), few[:6]] = 1
    fixed = 0.01 * np.linalg.solve(np.eye(60) - 0.99 * s, told)
    fixed *= 0.5 / fixed.sum(0)
    fixed /= fixed.sum(1, keepdims=True)
    # sixty rounds leave 0.99^60, half, of the slowest direction, which is alike for both classes
    np.testing.assert_allclose(graph.spread(few, np.array([0.5, 0.5])), fixed, atol=0.1)


def test_two_opinions_are_pooled_by_their_geometric_mean():
    shares = np.array([0.25, 0.75])
    first, second = np.array([[0.9, 0.1], [0.0, 1.0]]), np.array([[0.4, 0.6], [0.5, 0.5]])
    pooled = np.sqrt(first * second)
    sure = (_pooled(first, second, 0.5, 1.0, shares) - 0.05 * shares) / 0.95  # a twentieth is doubt
    np.testing.assert_allclose(sure[0], pooled[0] / pooled[0].sum())
    assert 0 < sure[1, 0] < 0.05  # no opinion rules a class out
    alone = (_pooled(first, second, 0.0, 2.0, shares) - 0.05 * shares) / 0.95
    np.testing.assert_allclose(alone[0], first[0] ** 2 / (first[0] ** 2).sum())


def test_few_labels_among_many_digits():
    few = np.full(len(KINDS), -1)
    for c in range(10):
        few[np.flatnonzero(c == KINDS)[:4]] = c
    rest = few < 0
    ours = AutoencoderClassifier(
        Autoencoder(16, max_epochs=10, random_state=0), max_steps=300, random_state=0, n_models=1
    )
    ours.fit(DIGITS, few)
    assert ours.spreading_
    plain = LogisticRegression(max_iter=1000).fit(DIGITS[~rest], few[~rest]).score(DIGITS[rest], KINDS[rest])
    assert ours.score(DIGITS[rest], KINDS[rest]) > plain + 0.05
    alone = ours.set_params(label_spreading=False, max_steps=50).fit(DIGITS, few)
    assert not alone.spreading_


def test_batches_hold_a_quarter_of_labels_and_weights_of_one_on_the_mean():
    ae = Autoencoder(2, **QUICK).fit(X)
    table = ae.codec_.encode(ae._read(X, reset=False))
    targets, trust = torch.eye(3)[torch.from_numpy(Y)], torch.full((150,), 0.5)
    rows = Told(table, targets, torch.arange(10), torch.arange(10, 150), trust, 64)
    batch = next(rows.shuffled(64))
    weight, known = batch.context[:, -2:].T
    assert known.tolist() == [1.0] * 16 + [0.0] * 48
    assert len(weight) == 64
    assert weight[:16].sum() == 64  # sums over labelled rows become means
    assert float(weight[16:].sum()) == pytest.approx(32)  # guesses count half where they are trusted half
    assert len(rows) == 50 * 64
    assert len(Told(table, targets, torch.arange(0))) == 0


# networks -----------------------------------------------------------------------------------------------------------------------


def test_lower_layers_move_less():
    ae = Autoencoder(2, **QUICK | {"hidden": (8, 8), "network": "mlp"}).fit(X)
    head = Head(ae.module_, 3, 2, beside=None, decay=0.5)
    shares = {name: head.share_of(name) for name, _ in head.named_parameters()}
    assert shares["linear.weight"] == 1.0
    assert sorted({v for k, v in shares.items() if k.startswith("module.encoder")}) == [0.125, 0.25, 0.5]
    first = next(k for k in shares if k.startswith("module.encoder"))
    assert shares[first] == 0.125


def test_a_share_of_the_learning_rate_is_a_lower_rate():
    def moved(**options):
        weight, other = torch.ones(3, 4), torch.ones(2)
        optimiser = Optimizer([weight, other], **options)
        weight.grad, other.grad = torch.full((3, 4), 0.5), torch.full((2,), 0.5)
        optimiser.step()
        return weight, other

    for widest in (0, 8):
        slow = moved(lr=0.05, widest=widest)[0]
        mixed = moved(lr=0.1, widest=widest, shares=[0.5, 1.0])
        torch.testing.assert_close(mixed[0], slow)
        torch.testing.assert_close(mixed[1], moved(lr=0.1, widest=widest)[1])


def test_a_temperature_makes_probabilities_fit():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    told = np.array([rng.choice(3, p=p) for p in chances])
    model = classifier()
    model.heads_, flat = [None], np.zeros((5000, 3))
    model._mix(Held(flat, 3 * logits, told))  # three times too sure, beside a model that knows nothing
    assert model.temperature_ == pytest.approx(3, abs=0.15)  # three standard errors of 5000 rows
    assert model.share_ == 1.0
    model._mix(Held(logits, flat, told))
    assert model.share_ == 0.0
    model._mix(Held(flat[:2], 3 * logits[:2], told[:2]))
    assert 0.7 < model.temperature_ < 1.6  # two rows say little
    model._mix(None)
    assert (model.temperature_, model.share_) == (1.0, 1.0)


def test_joint_training_goes_on_rebuilding():
    model = classifier(method="joint", joint_weight=1.0).fit(X, Y)
    assert "autoencoder" in model.histories_[0].keys()  # noqa: SIM118
    with pytest.raises(KeyError):
        _ = classifier().fit(X, Y).histories_[0]["autoencoder"]


@pytest.mark.parametrize("method", ["frozen", "finetune", "joint"])
def test_save_and_load(method, tmp_path):
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    model = classifier(method=method, n_models=2).fit(X, names)
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.predict(X).tolist() == model.predict(X).tolist()
    assert again.classes_.tolist() == ["setosa", "versicolor", "virginica"]


def test_images_series_and_mixed_tables():
    images = classifier().fit(DIGITS[:200].reshape(-1, 8, 8), KINDS[:200])
    assert images.predict(DIGITS[:5].reshape(-1, 8, 8)).shape == (5,)
    rng = np.random.default_rng(0)
    waves = [np.sin(np.arange(rng.integers(20, 30)) / (2 + 3 * c)) + rng.normal(0, 0.1) for c in Y[::3] > 0]
    series = classifier(max_steps=100).fit(waves, Y[::3] > 0)
    assert series.score(waves, Y[::3] > 0) > 0.9
    frame = pd.DataFrame(X).assign(kind=np.array(["a", "b", None])[rng.integers(0, 3, 150)])
    frame.columns = frame.columns.astype(str)
    table = classifier(n_models="auto").fit(frame, Y)
    assert len(table.heads_) == 5
    assert table.score(frame, Y) > 0.9


def test_a_regressor_of_a_product():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    y = x[:, 0] * x[:, 1]  # which no sum of functions of single columns is
    few = np.where(np.arange(600) < 300, y, np.nan)
    made = {"n_models": 2, "max_steps": 400, "learning_rate": 1e-2, "random_state": 0}
    model = AutoencoderRegressor(Autoencoder(3, **QUICK), **made).fit(x, few)
    line = AutoencoderRegressor(Autoencoder(3, **QUICK), method="frozen", random_state=0).fit(x, few)
    assert model.score(x[300:], y[300:]) > max(0.5, line.score(x[300:], y[300:]) + 0.3)
    shifted = AutoencoderRegressor(Autoencoder(3, **QUICK), **made).fit(x, 1e6 + 100 * few)
    np.testing.assert_allclose(shifted.predict(x), 1e6 + 100 * model.predict(x), rtol=1e-5)


def test_a_variational_model_inside():
    model = AutoencoderClassifier(VAE(2, **QUICK), method="joint", n_models=1, max_steps=50, random_state=0).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert model.score(X, Y) > 0.9


def test_an_interrupt_keeps_what_was_learned():
    def stop(run):
        raise KeyboardInterrupt

    early = AutoencoderClassifier(Autoencoder(2, callbacks=(stop,), **QUICK), random_state=0).fit(X, Y)
    assert len(early.heads_) == 0  # the linear outputs alone
    assert early.score(X, Y) > 0.9


def test_a_limit_of_time_holds_for_all_together():
    began = time.process_time()  # of the processor: others may keep it busy
    model = AutoencoderClassifier(Autoencoder(2, hidden=(64, 64)), max_time=1.0, max_steps=100_000, random_state=0).fit(
        X, Y
    )
    assert time.process_time() - began < 10  # steps alone would be minutes
    assert len(model.heads_) == 5
    assert model.score(X, Y) > 0.9
