"""Conditional models: what is told is used, kept and checked; the start, the unknown, and exact distributions."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import diabolo
from diabolo import VAE, AnomalyDetector, Autoencoder, ConditionalVAE
from diabolo.checks import ParameterError
from diabolo.data.conditions import Conditions, Variable, condition_on_columns, condition_on_target
from diabolo.data.raw import Raw
from diabolo.objectives import elbo
from diabolo.parts.bottlenecks import Gaussian, Identity
from diabolo.parts.likelihoods import Gaussian as Normal
from diabolo.principal import start_at_principal_components
from diabolo.records import Batch, Table
from diabolo.zoo.conditional import with_hidden_conditions

iris = load_iris()
X, Y = iris.data, iris.target
SPECIES = iris.target_names[Y]
FRAME = pd.DataFrame(X, columns=list("abcd")).assign(species=Y.astype(float))
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
digits = load_digits()
PIXELS = digits.data / 16


# what is learned --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer():
    return ConditionalVAE(8, hidden=(128,), max_epochs=15, random_state=0, device="cpu").fit(PIXELS, digits.target)


def test_rows_of_a_class_are_of_that_class(writer):
    judge = LogisticRegression(max_iter=2000).fit(PIXELS, digits.target)
    asked = np.repeat(np.arange(10), 30)
    drawn = writer.sample(len(asked), condition=asked, random_state=0)
    assert (judge.predict(drawn) == asked).mean() > 0.85  # one in ten would be a guess


def test_the_likeliest_class_is_mostly_the_true_one(writer):
    scores = [writer.score_samples(PIXELS[:500], condition=c) for c in range(10)]
    assert (np.argmax(scores, axis=0) == digits.target[:500]).mean() > 0.7  # one in ten would be a guess


def test_without_a_condition_methods_are_finite_and_repeat(writer):
    Z = writer.transform(PIXELS[:50])
    assert np.isfinite(Z).all()
    np.testing.assert_array_equal(Z, writer.transform(PIXELS[:50]))
    known = writer.score(PIXELS, digits.target)
    unknown = writer.score(PIXELS)
    assert np.isfinite(unknown)
    assert unknown < known  # to know more never explains less, once learned
    assert not np.array_equal(Z, writer.transform(PIXELS[:50], condition=digits.target[:50]))


def test_samples_without_a_condition_have_those_of_fit():
    y = np.where(np.arange(150) < 120, "often", "rarely")
    shifted = X + 100 * (y == "rarely")[:, None]
    drawn = ConditionalVAE(2, **QUICK).fit(shifted, y).sample(400, random_state=0)
    assert (drawn[:, 0] > 50).mean() == pytest.approx(0.2, abs=0.06)  # three standard deviations of a share of 400


def test_numbers_as_a_condition_move_the_rows():
    rng = np.random.default_rng(0)
    t = rng.uniform(-3, 3, 400)
    rows = np.stack([t, -2 * t, 0 * t], axis=1) + rng.normal(scale=0.1, size=(400, 3))
    model = ConditionalVAE(1, **QUICK).fit(rows, t)
    drawn = model.sample(200, condition=2.0, random_state=0).mean(axis=0)
    np.testing.assert_allclose(
        drawn, [2, -4, 0], atol=0.15
    )  # the start is the regression; noise of a mean of 200 draws


def test_the_right_class_scores_higher_when_classes_differ_by_their_mean():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    factor = rng.normal(size=(400, 1)) @ rng.normal(size=(1, 6))
    rows = factor + np.where(y[:, None] == 1, 1.0, -1.0) * np.eye(6)[0] + 0.3 * rng.normal(size=(400, 6))
    model = ConditionalVAE(1, hidden=(), max_epochs=20, random_state=0).fit(rows, y)
    right, wrong = model.score_samples(rows, condition=y), model.score_samples(rows, condition=1 - y)
    assert (right > wrong).mean() > 0.9
    assert right.mean() > VAE(1, hidden=(), max_epochs=20, random_state=0).fit(rows).score(rows)


def test_the_order_of_condition_columns_does_not_matter():
    same = {"hidden": (), "max_epochs": 40, "learning_rate": 1e-2, "random_state": 0, "device": "cpu"}
    a = ConditionalVAE(1, condition=("species", "b"), **same).fit(FRAME)
    b = ConditionalVAE(1, condition=("b", "species"), **same).fit(FRAME)
    # the starts are equal; steps differ only by which weights rows of noise and rounding fall on
    assert a.score(FRAME) == pytest.approx(b.score(FRAME), abs=0.1)
    told = [{"species": 1.0, "b": 3.0}, {"b": 3.0, "species": 1.0}]
    first, second = (a.sample(5, condition=c, random_state=0) for c in told)
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("network", ["conv", "shortcut_conv"])
def test_convolutions_use_the_condition(network):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    images = rng.normal(scale=0.1, size=(120, 6, 5)) + np.where(y, 1.0, -1.0)[:, None, None]
    model = ConditionalVAE(1, network=network, hidden=(4,), max_epochs=15, random_state=0, learning_rate=1e-2)
    model.fit(images, y)
    assert model.reconstruct(images).shape == images.shape
    low, high = (model.sample(20, condition=c, random_state=0).mean() for c in (0, 1))
    assert high - low > 1
    assert model.sample(3, random_state=0).shape == (3, 6, 5)


# the start ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bottleneck", [Identity(2), Gaussian(2)], ids=["identity", "gaussian"])
def test_the_start_is_class_means_and_components_of_the_rest(bottleneck):
    x = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    context = torch.eye(3)[torch.tensor(Y)]
    encoder, decoder = nn.Linear(7, bottleneck.in_features), nn.Linear(5, 4)
    start_at_principal_components(encoder, decoder, bottleneck, Normal(), x, context)
    means = torch.stack([x[torch.tensor(c == Y)].mean(0) for c in range(3)])
    with torch.no_grad():
        of_zero = decoder(torch.cat([torch.zeros(3, 2), torch.eye(3)], 1))
        np.testing.assert_allclose(of_zero, means, atol=1e-5)  # float32; the ridge moves slopes by a millionth
        centred = x - means[torch.tensor(Y)]
        directions = np.linalg.svd(centred.numpy(), full_matrices=False)[2][:2]
        code = encoder(torch.cat([x, context], 1))[:, :2]
        rebuilt = decoder(torch.cat([code, context], 1)) - means[torch.tensor(Y)]
        if isinstance(bottleneck, Identity):
            np.testing.assert_allclose(rebuilt, centred.numpy() @ directions.T @ directions, atol=1e-4)
        np.testing.assert_allclose(code.mean(0), [0, 0], atol=1e-5)


def test_conditions_are_hidden_in_their_share_and_judged_both_ways():
    model = ConditionalVAE(2, **QUICK).fit(X, Y)
    table = model.codec_.encode(model._read(X, reset=False, condition=Y))
    seen = []

    def spy(module, batch, progress):
        seen.append(batch.context)
        return elbo(module, batch, progress)

    module = model.module_.train()
    for _ in range(20):
        with_hidden_conditions(module, table.slice(0, 150), 1.0, objective=spy, share=0.3)
    hidden = 1 - torch.stack(seen).sum(2)
    assert float(hidden.mean()) == pytest.approx(0.3, abs=0.03)  # three standard deviations of a share of 3000 rows
    module.eval()
    del seen[:]
    both = with_hidden_conditions(module, table.slice(0, 150), 1.0, objective=spy, share=0.3)
    assert torch.equal(seen[0], table.context)
    assert not seen[1].any()
    assert set(both.terms) == {"reconstruction", "kl"}
    del seen[:]
    with_hidden_conditions(module.train(), table.slice(0, 150), 1.0, objective=spy, share=0.0)
    assert torch.equal(seen[0], table.context)


# conditions and contexts ------------------------------------------------------------------------------------------------


def raw(n=6, d=3):
    return Raw(np.arange(n * d, dtype=float).reshape(n, d), "vector", "numpy")


@pytest.mark.parametrize(
    ("y", "kind", "classes"),
    [
        (["b", "a", None, "b", "a", "a"], "auto", ("a", "b")),
        (np.array([3, 1, 1, 3, 2, 2]), "auto", (1, 2, 3)),
        ([True, False, None, True, True, True], "auto", (False, True)),
        (pd.Series([3, 1, None, 3, 2, 2], dtype="Int64"), "auto", (1, 2, 3)),
        (pl.Series(["u", None, "v", "u", "u", "u"]), "auto", ("u", "v")),
        (pd.Series(["u", None, "v", "u", "u", "u"], dtype="category"), "auto", ("u", "v")),
        (torch.tensor([1.0, 2.0, float("nan"), 1.0, 1.0, 2.0]), "classes", (1.0, 2.0)),
        (np.array(["x", "y", "x", "x", "x", "y"])[:, None], "auto", ("x", "y")),
        ([1, "1", 1, 1, 1, "1"], "auto", (1, "1")),
    ],
)
def test_classes_are_one_hot_and_zero_where_unknown(y, kind, classes):
    told = condition_on_target(raw(), y, kind)
    (variable,) = told.conditions.variables
    assert variable.classes == classes
    context = told.conditions.expand(told.condition, torch.float64)
    assert context.shape == (6, len(classes))
    np.testing.assert_array_equal(context.sum(1), ~np.isnan(told.condition[:, 0]))
    again = Conditions.from_json(json.loads(json.dumps(told.conditions.to_json())), told.conditions.seen)
    assert again.variables == told.conditions.variables
    assert all(type(a) is type(b) for a, b in zip(again.variables[0].classes, classes, strict=True))


def test_numbers_are_standardised_with_a_mark_that_they_are_known():
    told = condition_on_target(raw(), [1.0, 2.0, None, 3.0, float("nan"), 2], "auto")
    context = told.conditions.expand(told.condition, torch.float64).numpy()
    known = np.array([1.0, 2, 3, 2])
    np.testing.assert_allclose(context[[0, 1, 3, 5], 0], (known - known.mean()) / known.std())
    np.testing.assert_array_equal(context[:, 1], [1, 1, 0, 1, 0, 1])
    assert (context[[2, 4]] == 0).all()


def test_several_variables_of_different_kinds():
    frame = pd.DataFrame({"age": [20.0, 30, np.nan, 50, 60, 70], "sex": list("fmfmfm")})
    told = condition_on_target(raw(), frame, "auto")
    assert told.conditions.kinds == "age: number, sex: 2 classes"
    assert told.conditions.width == 4
    for given in (
        {"sex": "m", "age": 30.0},
        [30.0, "m"],
        [[30.0, "m"]] * 6,
        pl.DataFrame({"age": [30.0], "sex": ["m"]}),
    ):
        np.testing.assert_array_equal(told.conditions.read(given, 6), [[30.0, 1.0]] * 6)
    assert np.isnan(told.conditions.read({"sex": None, "age": float("nan")}, 2)).all()
    model = ConditionalVAE(1, **QUICK).fit(raw().values, frame)
    assert model.sample(2, condition={"age": [20, 30], "sex": "f"}, random_state=0).shape == (2, 3)


def test_columns_leave_the_rows_and_come_back():
    told = condition_on_columns(raw(), (2, 0), "auto")
    np.testing.assert_array_equal(told.values, raw().values[:, [1]])
    assert told.columns == ("1",)
    columns = told.conditions.columns(told.condition)
    np.testing.assert_array_equal(told.conditions.insert(told.values, columns), raw().values)
    assert told.conditions.insert_names(["1"]) == ("0", "1", "2")


def test_many_rows_are_kept_thinned():
    told = condition_on_target(raw(2500, 1), np.arange(2500.0), "auto")
    assert 500 < len(told.conditions.seen) <= 1000


# columns of X -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", "classes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_condition_columns_come_back_exactly(kind, dtype):
    table = np.column_stack([X[:, 0], Y, X[:, 1:]])
    table = table > np.median(table, axis=0) if dtype is bool else table.astype(dtype)
    model = ConditionalVAE(2, condition=(1,), condition_kind=kind, **QUICK).fit(table)
    rebuilt = model.reconstruct(table)
    assert rebuilt.shape == table.shape
    assert rebuilt.dtype == (np.float32 if dtype in (np.float32, bool) else np.float64)
    np.testing.assert_array_equal(rebuilt[:, 1], table[:, 1])
    assert model.n_features_in_ == 5
    assert model.schema_.size == 4
    assert model.score_features(table).shape == (150, 4)
    drawn = model.sample(20, random_state=0)
    assert set(np.unique(drawn[:, 1])) <= set(np.unique(table[:, 1]))


def test_frames_keep_names_places_and_labels():
    frame = FRAME[["a", "species", "b", "c", "d"]].set_index(np.arange(150)[::-1])
    model = ConditionalVAE(2, condition=("species",), **QUICK).fit(frame)
    rebuilt = model.reconstruct(frame)
    assert list(rebuilt.columns) == list(frame.columns)
    assert rebuilt.index.equals(frame.index)
    np.testing.assert_array_equal(rebuilt["species"], frame["species"])
    np.testing.assert_allclose(model.inverse_transform(model.transform(frame), condition=frame["species"]), rebuilt)
    assert np.isnan(model.inverse_transform(model.transform(frame))["species"]).all()  # unknown
    drawn = model.sample(3, condition={"species": [0, 1, 2]}, random_state=0)
    assert list(drawn["species"]) == [0, 1, 2]
    assert list(drawn.columns) == list(frame.columns)


def test_another_condition_may_be_put_in_place_of_the_columns():
    model = ConditionalVAE(2, condition=("species",), **QUICK).fit(FRAME)
    other = FRAME.assign(species=2.0)
    np.testing.assert_array_equal(model.score_samples(FRAME, condition=2.0), model.score_samples(other))
    assert (model.reconstruct(FRAME, condition=2.0)["species"] == 2).all()
    np.testing.assert_array_equal(model.transform(FRAME), model.transform(FRAME, condition=FRAME[["species"]]))


def test_a_missing_cell_of_the_condition_is_unknown():
    holes = FRAME.copy()
    holes.loc[::7, "species"] = np.nan
    model = ConditionalVAE(2, condition=("species",), **QUICK).fit(holes)
    assert np.isfinite(model.score_samples(holes)).all()
    assert model.reconstruct(holes)["species"].isna().equals(holes["species"].isna())
    assert not model.reconstruct(holes).drop(columns="species").isna().any(axis=None)


def test_scores_are_those_of_the_other_columns_alone():
    wide = FRAME.assign(species=1000 * FRAME["species"])  # another unit of the condition
    a = ConditionalVAE(2, condition=("species",), **QUICK).fit(FRAME)
    b = ConditionalVAE(2, condition=("species",), **QUICK).fit(wide)
    np.testing.assert_allclose(
        a.score_samples(FRAME), b.score_samples(wide), rtol=1e-6
    )  # standardised: equal but for rounding


def test_a_detector_of_a_conditional_model():
    model = ConditionalVAE(2, condition=("species",), condition_kind="classes", **QUICK)
    detector = AnomalyDetector(model, contamination=0.1, random_state=0).fit(FRAME)
    assert set(detector.predict(FRAME)) == {-1, 1}
    why = detector.explain(FRAME)
    assert list(why.columns) == list(FRAME.columns)
    assert (why["species"] == 0).all()
    with pytest.raises(ValueError, match=r"ConditionalVAE is conditioned on y\. Put the condition into columns of X"):
        AnomalyDetector(ConditionalVAE(2, **QUICK)).fit(X, Y)


# the life of a model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["y", ("species", "b")])
def test_save_and_load(tmp_path, condition):
    rows, y = (X, SPECIES) if condition == "y" else (FRAME, None)
    model = ConditionalVAE(2, condition=condition, **QUICK).fit(rows, y)
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.score_samples(rows, condition=y), model.score_samples(rows, condition=y))
    np.testing.assert_array_equal(again.sample(5, random_state=1), model.sample(5, random_state=1))


def test_a_run_goes_on_only_with_the_same_condition(tmp_path):
    settings = QUICK | {"max_epochs": 4, "checkpoint": tmp_path / "run"}
    whole = ConditionalVAE(2, **QUICK | {"max_epochs": 4}).fit(X, Y)

    def kill(run):
        if run.epoch == 3:
            raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        ConditionalVAE(2, callbacks=(kill,), **settings).fit(X, Y)
    with pytest.raises(ValueError, match=r"holds another run: data was"):
        ConditionalVAE(2, **settings).fit(X, Y[::-1])
    resumed = ConditionalVAE(2, **settings).fit(X, Y)
    np.testing.assert_array_equal(resumed.score_samples(X, condition=Y), whole.score_samples(X, condition=Y))


def test_grid_search_and_pipeline_take_y_for_the_condition():
    folds = KFold(2, shuffle=True, random_state=0)  # each of which has rows of every class
    search = GridSearchCV(ConditionalVAE(2, **QUICK), {"condition_dropout": [0.0, 0.3]}, cv=folds).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert search.score(X, Y) == best.score_samples(X, condition=Y).mean()
    pipeline = make_pipeline(StandardScaler(), clone(best)).fit(X, SPECIES)
    assert pipeline.transform(X).shape == (150, 2)
    assert np.isfinite(pipeline.score(X, SPECIES))


def test_a_refit_forgets_the_condition_of_before():
    model = ConditionalVAE(2, condition=("species",), **QUICK).fit(FRAME)
    model.set_params(condition="y").fit(X, SPECIES)
    assert model.reconstruct(X).shape == X.shape
    assert model.schema_.context == 3


# bad input --------------------------------------------------------------------------------------------------------------


def vae(**parameters):
    return ConditionalVAE(2, **QUICK | parameters)


@pytest.mark.parametrize(
    ("model", "rows", "y", "message"),
    [
        (vae(), X, None, r"requires y to be passed, but the target y is None: call fit\(X, y\)"),
        (vae(), X, Y[:-1], r"y has 149 values, X has 150 rows"),
        (vae(), X, np.zeros((150, 2, 2)), r"y has shape \(150, 2, 2\); expected a condition for each row"),
        (vae(), X, 3, r"y has shape \(\)"),
        (vae(), X, [None] * 150, r"the condition 'y' has no known value"),
        (vae(), X, np.full(150, np.inf), r"the condition 'y' contains infinity"),
        (vae(condition_kind="numbers"), X, SPECIES, r"the condition 'y' has 'setosa'; expected numbers"),
        (vae(), X, [(1,)] * 149 + [(2, 3)], r"inhomogeneous|has shape|has \(1,\)"),
        (
            vae(),
            X,
            np.full(150, "2020-01-01", dtype="datetime64[s]"),
            r"holds datetime64\[s\]; expected classes, or numbers",
        ),
        (vae(), X, [b"a"] * 150, r"has b'a' \(bytes\); classes are text, whole numbers or booleans"),
        (
            vae(),
            np.repeat(X, 10, 0),
            np.arange(1500),
            r"1500 classes in 1500 rows; to condition on numbers, give floating",
        ),
        (vae(condition=("specis",)), FRAME, None, r"X has no column 'specis'\. Did you mean 'species'\?"),
        (vae(condition=(7,)), X, None, r"X has 4 columns, numbered from 0; there is no column 7"),
        (vae(condition=(-5,)), X, None, r"there is no column -5"),
        (vae(condition=(0, -4)), X, None, r"has column '0' twice"),
        (vae(condition=()), X, None, r"names no column"),
        (vae(condition=(0, 1, 2, 3)), X, None, r"takes all 4 column\(s\) of X; at least one must be left to model"),
        (
            vae(condition=(0,)),
            X.reshape(150, 2, 2),
            None,
            r"X holds rows of kind 'image': give the condition to fit as y",
        ),
        (vae(condition=(0,)), np.c_[np.full(150, np.nan), X], None, r"the condition '0' has no known value"),
    ],
)
def test_bad_conditions_in_fit(model, rows, y, message):
    with pytest.raises(ValueError, match=message):
        model.fit(rows, y)


@pytest.mark.parametrize(
    "parameters", [{"condition": "species"}, {"condition_kind": "class"}, {"condition_dropout": 1.0}]
)
def test_bad_parameters(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        vae(**parameters).fit(X, Y)


@pytest.fixture(scope="module")
def told():
    return vae().fit(X, SPECIES)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("setose", r"'setose', which was not seen in fit\. It is one of 'setosa'.*Did you mean 'setosa'\?"),
        (1, r"the condition 'y' has 1, which was not seen in fit"),
        (["setosa"] * 3, r"the condition 'y' has 3 values for 150 rows"),
        (np.zeros((150, 2)), r"the condition has shape \(150, 2\); expected a value, or one for each row"),
        ({"species": "setosa"}, r"there is no condition 'species'\. There are: y\."),
        ({}, r"the condition lacks 'y'; give None where it is unknown"),
    ],
)
def test_bad_conditions_afterwards(told, condition, message):
    for method in (told.transform, told.reconstruct, told.score_samples, told.score_features):
        with pytest.raises(ValueError, match=message):
            method(X, condition=condition)
    with pytest.raises(ValueError, match=message):
        told.sample(150, condition=condition)
    with pytest.raises(ValueError, match=message):
        told.inverse_transform(told.transform(X), condition=condition)


def test_a_row_of_the_wrong_number_of_variables():
    model = vae(condition=("species", "a")).fit(FRAME.astype(np.float32))
    with pytest.raises(ValueError, match=r"shape \(3,\); expected 2 values \(species, a\), or 2 for each row"):
        model.sample(3, condition=[0, 1, 2])
    with pytest.raises(ValueError, match="too far from the values seen in fit"):
        model.sample(3, condition=[0, 1e300])


def test_a_model_without_a_condition_refuses_one():
    model = Autoencoder(2, **QUICK).fit(X)
    Z = model.transform(X)
    calls = [model.transform, model.reconstruct, model.score_samples, model.score_features]
    for call, argument in [*((c, X) for c in calls), (model.inverse_transform, Z)]:
        with pytest.raises(TypeError, match="Autoencoder was fitted without a condition; leave condition= out"):
            call(argument, condition=1)
    with pytest.raises(TypeError, match="VAE was fitted without a condition"):
        VAE(2, **QUICK).fit(X).sample(1, condition=1)
    assert np.isfinite(model.score(X, Y))  # as scikit-learn calls it


def test_a_variable_knows_its_width():
    assert Variable("a", ("x", "y", "z")).size == 3
    assert Variable("a", None).size == 2
    assert Variable("a", (1, 2.5, "3")).parse("2.5") == 2.5
    assert Variable("a", None).parse("2.5") == 2.5
    assert Variable("a", None).parse("two") == "two"


def test_a_table_carries_its_context():
    table = Table(vae().fit(X, Y).schema_, torch.zeros(3, 4), None, torch.eye(3))
    assert isinstance(table.slice(0, 2), Batch)
    assert torch.equal(table.take(torch.tensor([2, 0])).context, torch.eye(3)[[2, 0]])
