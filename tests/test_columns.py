"""Mixed tables: what columns are, cells to numbers and back, and models of them."""

from __future__ import annotations

import math
import re

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diabolo import VAE, AnomalyDetector, Autoencoder, ConditionalVAE, DenoisingAutoencoder, MaskedAutoencoder, load
from diabolo.data.columns import Columns, UnseenCategoryWarning
from diabolo.parts.likelihoods import Gaussian, LearnedGaussian, Mixed
from diabolo.records import Column, Schema
from diabolo.zoo.masked import Hiding

QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}


def table(n=120, seed=0, missing=True):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "age": (40 + 10 * z + rng.normal(size=n)).round().astype(int),
            "income": np.exp(8 + z),
            "colour": np.where(z > 0.5, "red", np.where(z < -0.5, "blue", "green")),
            "member": z > 0,
            "flag": (z + rng.normal(size=n) > 0).astype(np.int8),
            "seen": pd.Timestamp("2020-01-01", tz="Europe/Paris") + pd.to_timedelta((z * 100).round(), unit="D"),
            "waited": pd.to_timedelta((rng.random(n) * 1000).round(), unit="s"),
            "grade": pd.Categorical(
                np.select([z > 1, z < -1], ["high", "low"], "mid"), ["low", "mid", "high", "never"], ordered=True
            ),
            "kind": pd.Categorical(np.where(z > 0, "x", "y"), categories=["x", "y", "never"]),
        }
    )
    frame["count"] = pd.array(rng.integers(0, 9, n), dtype="Int64")
    frame["sure"] = pd.array(z > 0.3, dtype="boolean")
    if missing:
        frame.loc[3, "colour"] = None
        frame.loc[4, "income"] = np.nan
        frame.loc[5, "count"] = pd.NA
        frame.loc[6, "sure"] = pd.NA
        frame.loc[7, "seen"] = pd.NaT
        frame.loc[8, "grade"] = None
    return frame


def kinds_of(model):
    return {c.name: c.kind for c in model.schema_.columns}


# what columns are ---------------------------------------------------------------------------------------------------------------


def test_kinds_are_inferred_and_can_be_told():
    model = Autoencoder(2, **QUICK).fit(table())
    assert kinds_of(model) == {
        "age": "number", "income": "number", "colour": "category", "member": "boolean", "flag": "boolean", "seen": "date",
        "waited": "date", "grade": "ordinal", "kind": "category", "count": "number", "sure": "boolean",
    }  # fmt: skip
    told = Autoencoder(2, columns={"count": "ordinal", "flag": "category", "grade": "category"}, **QUICK).fit(table())
    assert {"count": "ordinal", "flag": "category", "grade": "category"}.items() <= kinds_of(told).items()
    assert (
        told.schema_.size == 4 + 1 + 3 + 2 + 3 + 2 + 2
    )  # numbers and dates, count, colour, flag, grade, kind, booleans
    with pytest.raises(ValueError, match=r"columns names 'cuont', which X does not have. Did you mean 'count'\?"):
        Autoencoder(2, columns={"cuont": "number"}, **QUICK).fit(table())
    with pytest.raises(ValueError, match="expected one of number, count, boolean, category, ordinal, date"):
        Autoencoder(2, columns={"count": "number!"}, **QUICK).fit(table())


def test_frames_of_numbers_stay_what_they_were():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("abc"))
    model = Autoencoder(2, **QUICK).fit(frame)
    assert not model.schema_.mixed
    assert model.codec_.table is None
    chosen = Autoencoder(2, columns={"a": "number"}, **QUICK).fit(frame)
    # Adam's first steps make much of gradients that are rounding errors at the start at principal components
    np.testing.assert_allclose(chosen.transform(frame), model.transform(frame), atol=0.05)


@pytest.mark.parametrize("make", [lambda f: f, pl.from_pandas, lambda f: pa.Table.from_pandas(f, preserve_index=False)])
@pytest.mark.parametrize("estimator", [Autoencoder(3, **QUICK), VAE(3, **QUICK), MaskedAutoencoder(3, **QUICK)])
def test_frames_come_back_as_they_were(make, estimator, tmp_path):
    frame = make(table())
    model = estimator.fit(frame)
    results = [model.reconstruct(frame), model.inverse_transform(model.transform(frame))]
    if isinstance(model, VAE):
        results += [model.sample(5, noise=noise, random_state=0) for noise in (False, True)]
    for result in results:
        assert type(result) is type(frame)
        if isinstance(frame, pd.DataFrame):
            pd.testing.assert_series_equal(result.dtypes, frame.dtypes)
        else:
            assert result.schema == (
                frame.schema if isinstance(frame, pl.DataFrame) else frame.schema.remove_metadata()
            )
    model.save(tmp_path / "m")
    loaded = load(tmp_path / "m")
    again = loaded.reconstruct(frame)
    assert again.equals(results[0])
    np.testing.assert_array_equal(loaded.score_samples(frame), model.score_samples(frame))


def test_the_same_table_is_the_same_in_every_library():
    frame = table()
    rows = [frame, pl.from_pandas(frame), pa.Table.from_pandas(frame, preserve_index=False)]
    kinds = {"grade": "category"}  # pandas, and so pyarrow, know an order; polars has none
    codes = [VAE(3, columns=kinds, **QUICK).fit(r).transform(r) for r in rows]
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes[0], codes[2])


def test_cells_go_to_numbers_and_back():
    frame = table()
    columns = Columns.learn(nw.from_native(frame))
    values, unseen = columns.read(nw.from_native(frame))
    assert unseen is None
    assert np.isnan(values).sum() == 6
    back = columns.write(values, "pandas")
    pd.testing.assert_frame_equal(back, frame)
    features = columns.expand(values)
    assert features.shape == (len(frame), columns.width)
    known = ~np.isnan(values)
    np.testing.assert_array_equal(columns.collapse(features)[known], values[known])
    assert (columns.by_column(np.ones_like(features)) == [c.width for c in columns.columns]).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["a", "b", "c", None, "?", "NA", ""]), min_size=2, max_size=40), st.booleans())
def test_text_says_in_many_ways_that_a_cell_is_missing(cells, other):
    if not {"a", "b", "c"} & set(cells):
        cells = [*cells, "a"]
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object), "y": np.arange(len(cells), dtype=float)})
    model = Autoencoder(1, hidden=(), max_epochs=1, random_state=0).fit(frame)
    labels = sorted({c for c in cells if c in ("a", "b", "c")})
    assert list(model.schema_.columns[0].categories) == labels
    assert model.reconstruct(frame)["x"].isin(labels).all()


def test_columns_are_found_by_name_and_missing_ones_are_named():
    frame = table()
    model = VAE(2, **QUICK).fit(frame)
    np.testing.assert_array_equal(model.transform(frame[frame.columns[::-1]]), model.transform(frame))
    with pytest.raises(ValueError, match="X lacks 'age'"):
        model.transform(frame.drop(columns="age"))
    with pytest.raises(ValueError, match=r"X lacks 'age' and has 'Age', not seen in fit. Did you mean 'Age'\?"):
        model.transform(frame.rename(columns={"age": "Age"}))
    with pytest.raises(ValueError, match=r"was fitted on a frame with columns age, income.*got ndarray"):
        model.transform(np.zeros((3, 11)))
    with pytest.raises(ValueError, match="column 'age' has 'old'; it held numbers in fit"):
        model.transform(frame.assign(age="old"))
    with pytest.raises(ValueError, match="column 'flag' has 7 in row 0; it held 0 and 1 only in fit"):
        model.transform(frame.assign(flag=7))


def test_an_index_is_kept():
    frame = table().set_index(pd.Index([f"row {i}" for i in range(120)], name="who"))
    assert Autoencoder(2, **QUICK).fit(frame).reconstruct(frame).index.equals(frame.index)


def test_an_unseen_category_is_a_missing_cell_and_said():
    frame = table()
    model = VAE(2, **QUICK).fit(frame)
    new = frame.assign(colour=["mauve", *frame["colour"][1:]])
    with pytest.warns(UnseenCategoryWarning, match="column 'colour' has 'mauve', not seen in fit") as caught:
        codes = model.transform(new)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(codes, model.transform(frame.assign(colour=[None, *frame["colour"][1:]])))


def test_rare_categories_share_one():
    rng = np.random.default_rng(0)
    names = np.array([f"town {i}" for i in range(300)])
    frame = pd.DataFrame({"town": names[(rng.random(3000) ** 3 * 300).astype(int)], "x": rng.normal(size=3000)})
    model = VAE(2, hidden=(), max_epochs=1, random_state=0).fit(frame)
    column = model.schema_.columns[0]
    assert column.width == 100
    assert column.rest
    assert model.reconstruct(frame)["town"].isin(names).all()
    model.transform(pd.DataFrame({"town": ["a new one"], "x": [0.0]}))  # one of the rare ones, without a warning


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            [f"person {i}" for i in range(50)],
            "column 'b' looks like free text or an identifier: 50 different values in 50 rows",
        ),
        (["a", 1] * 25, "column 'b' mixes cells of the types int and str"),
        ([[1], [2]] * 25, "column 'b' holds lists"),
        ([None] * 50, "have no observed value: 'b'"),
        (["?"] * 50, "have no observed value: 'b'"),
        ([1j] * 50, "column .b. holds complex128"),
    ],
)
def test_columns_that_are_refused(column, message):
    frame = pd.DataFrame({"a": np.arange(50.0), "c": ["u", "v"] * 25, "b": column})
    with pytest.raises(ValueError, match=f"(?i){message}"):
        Autoencoder(2, **QUICK).fit(frame)


def test_more_that_is_refused():
    frame = table()
    with pytest.raises(ValueError, match=r"infinity .*column income"):
        Autoencoder(2, **QUICK).fit(frame.assign(income=np.inf))
    with pytest.raises(ValueError, match="infinity"):
        Autoencoder(2, **QUICK).fit(frame).transform(frame.assign(income=np.inf))
    with pytest.raises(ValueError, match="0 sample"):
        Autoencoder(2, **QUICK).fit(frame[:0].assign(colour=pd.Series([], dtype=str)))
    with pytest.raises(ValueError, match="unique column names"):
        Autoencoder(2, **QUICK).fit(pd.DataFrame([["a", 1.0], ["b", 2.0]], columns=["x", "x"]))


@pytest.mark.parametrize("make", [lambda f: f, pl.from_pandas, lambda f: pa.Table.from_pandas(f, preserve_index=False)])
def test_percentages_that_are_text_are_numbers(make, tmp_path):
    rng = np.random.default_rng(0)
    frame = make(
        pd.DataFrame({"share": [f"{v:.1f}%" for v in 100 * rng.random(50)] + ["?", None], "z": rng.normal(size=52)})
    )
    model = VAE(1, **QUICK).fit(frame)
    column = model.schema_.columns[0]
    assert column.kind == "number"
    assert 0 <= column.low < 20
    assert 80 < column.high <= 100
    model.save(tmp_path / "m")
    cells = load(tmp_path / "m").reconstruct(frame)["share"]
    cells = cells.to_pylist() if isinstance(frame, pa.Table) else list(cells)
    assert all(re.fullmatch(r"-?\d+\.\d%", cell) for cell in cells)
    with pytest.raises(ValueError, match="column 'share' has 'much'; it held numbers"):
        model.transform(make(pd.DataFrame({"share": ["much"], "z": [0.0]})))


def test_constant_columns_and_one_row():
    frame = pd.DataFrame({"a": ["x"] * 20, "b": [True] * 20, "c": [3] * 20, "d": np.arange(20.0)})
    model = VAE(1, **QUICK).fit(frame)
    result = model.reconstruct(frame)
    pd.testing.assert_frame_equal(result[["a", "b", "c"]], frame[["a", "b", "c"]])
    Autoencoder(1, **QUICK).fit(frame[:1]).reconstruct(frame[:1])


# the likelihood -----------------------------------------------------------------------------------------------------------------

COLUMNS = (
    Column("n", -1, 1),
    Column("c", 0, 2, "category", ("u", "v", "w")),
    Column("b", 0, 1, "boolean"),
    Column("o", 0, 3, "ordinal", ("1", "2", "3", "4")),
    Column("d", 0, 9, "date"),
    Column("k", 0, 1, "category", ("p", "q")),
    Column("p", 0, 1, "ordinal", ("lo", "hi")),
)  # fmt: skip
SIZE = sum(c.width for c in COLUMNS)


def test_each_column_has_its_own_distribution():
    torch.manual_seed(0)
    likelihood = Mixed(COLUMNS, Gaussian()).double()
    raw = torch.randn(50, 1, SIZE, dtype=torch.float64)
    x = torch.zeros(50, SIZE, dtype=torch.float64)
    x[:, 0], x[:, 6] = torch.randn(50), torch.randn(50)
    c, k = torch.randint(3, (50,)), torch.randint(2, (50,))
    b, o, p = torch.randint(2, (50,)), torch.randint(4, (50,)), torch.randint(2, (50,))
    x[torch.arange(50), 1 + c] = 1.0
    x[torch.arange(50), 7 + k] = 1.0
    x[:, 4], x[:, 5], x[:, 9] = b.double(), o / 3.0, p.double()
    found = likelihood.log_prob(raw, x)
    r = raw[:, 0]
    np.testing.assert_allclose(found[:, 0].detach(), stats.norm.logpdf(x[:, 0], r[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(found[:, 6].detach(), stats.norm.logpdf(x[:, 6], r[:, 6]), rtol=1e-12)
    for start, width, label in ((1, 3, c), (7, 2, k)):
        expected = r[:, start : start + width].log_softmax(1)[torch.arange(50), label]
        np.testing.assert_allclose(found[:, start : start + width].sum(1).detach(), expected, rtol=1e-12)
    np.testing.assert_allclose(found[:, 4].detach(), stats.bernoulli.logpmf(b, r[:, 4].sigmoid()), rtol=1e-10)
    t = likelihood._thresholds().detach().double()
    cdf = torch.sigmoid(t[0][None, 1:-1] - r[:, 5:6])  # three thresholds of four levels
    chances = torch.diff(torch.cat([torch.zeros(50, 1), cdf, torch.ones(50, 1)], 1), dim=1)
    np.testing.assert_allclose(found[:, 5].detach(), chances[torch.arange(50), o].log(), rtol=1e-6)
    two = torch.sigmoid(t[1][1] - r[:, 9])
    np.testing.assert_allclose(found[:, 9].detach(), torch.where(p == 0, two, 1 - two).log(), rtol=1e-6)
    mean = likelihood.mean(raw).detach()
    np.testing.assert_allclose(mean[:, 1:4].sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(mean[:, 5], (chances * torch.arange(4)).sum(1) / 3, rtol=1e-6)


def test_draws_follow_the_distribution():
    torch.manual_seed(0)
    likelihood = Mixed(COLUMNS, Gaussian())
    raw = torch.randn(1, 1, SIZE).expand(20_000, -1, -1)
    draws, mean = likelihood.sample(raw), likelihood.mean(raw[:1])[0].detach()
    # of 20,000 draws with a standard deviation of at most 1: five standard errors
    np.testing.assert_allclose(draws.mean(0).detach(), mean, atol=5 / math.sqrt(20_000))
    assert (draws[:, 1:4].sum(1) == 1).all()
    assert set(draws[:, 4].tolist()) <= {0.0, 1.0}
    assert len(set(draws[:, 5].tolist())) == 4


def test_gradients_are_finite_at_far_outputs():
    likelihood = Mixed(COLUMNS, LearnedGaussian((2,)))
    raw = (50 * torch.randn(200, 1, SIZE)).requires_grad_()
    x = likelihood.sample(torch.randn(200, 1, SIZE)).detach()
    likelihood.log_prob(raw, x).sum().backward()
    assert torch.isfinite(raw.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in likelihood.parameters())


def test_a_start_whose_mean_is_near_the_rows():
    likelihood = Mixed(COLUMNS, Gaussian())
    x = likelihood.sample(torch.randn(100, 1, SIZE)).detach()
    near = likelihood.mean(likelihood.output_for(x)[:, None])
    assert ((near > 0.5) == (x > 0.5))[:, [1, 2, 3, 4, 7, 8]].all()
    assert torch.equal(near[:, 0], x[:, 0])


# models -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [Autoencoder(3), VAE(3), MaskedAutoencoder(3)])
def test_what_is_learned_of_columns_that_go_together(estimator):
    frame = table(600, missing=False)
    model = estimator.set_params(max_epochs=100, random_state=0, device="cpu", hidden=(64,)).fit(frame[:500])
    rebuilt, new = model.reconstruct(frame[500:]), frame[500:]
    for name in ("colour", "member", "grade", "kind", "sure"):
        assert (rebuilt[name].to_numpy() == new[name].to_numpy()).mean() > 0.85, name
    assert np.corrcoef(rebuilt["age"], new["age"])[0, 1] > 0.9
    scores = model.score_features(frame[500:])
    assert scores.shape == (100, 11)
    holes = new.assign(colour=None)
    guessed = model.reconstruct(holes)["colour"]
    assert (guessed.to_numpy() == new["colour"].to_numpy()).mean() > 0.7  # the most frequent has .4


def test_scores_are_in_nats_of_the_users_units_and_add_up():
    frame = table(missing=False)
    model = VAE(3, **QUICK).fit(frame)
    width = model.codec_.scaling.width
    features = model.score_features(frame).sum(1) - np.log(width).sum()
    cost = features - model.score_samples(frame)
    np.testing.assert_allclose(
        cost,
        model._apply(model._read(frame, reset=False), lambda m, b: m.trace(b, sample=False).code.costs["kl"]),
        rtol=1e-6,
    )
    cents = VAE(3, **QUICK).fit(frame.assign(income=100 * frame["income"]))
    difference = model.score_samples(frame) - cents.score_samples(frame.assign(income=100 * frame["income"]))
    np.testing.assert_allclose(
        difference, np.log(100), rtol=1e-3
    )  # float32 training on scaled values of another rounding


def test_the_code_is_sized_by_columns():
    model = Autoencoder(**QUICK).fit(table())
    assert model.choices_["latent_dim"] == 5  # half of the eleven columns, not of the fourteen features
    AnomalyDetector(Autoencoder(12, **QUICK), random_state=0).fit(
        table()
    )  # wider than the columns, not than the features


def test_anomalies_are_explained_by_column():
    frame = table(500, missing=False)
    detector = AnomalyDetector(Autoencoder(3, max_epochs=60, random_state=0, device="cpu"), random_state=0).fit(frame)
    odd = frame[:1].assign(colour=["blue" if frame["colour"][0] != "blue" else "red"])
    why = detector.explain(odd)
    assert list(why.columns) == list(frame.columns)
    assert why.iloc[0].idxmax() == "colour"
    holes = detector.explain(odd.assign(colour=None))
    assert holes["colour"][0] == 0


def test_columns_as_a_condition(tmp_path):
    frame = table()
    model = ConditionalVAE(2, condition=("colour", "age"), **QUICK).fit(frame)
    rebuilt = model.reconstruct(frame)
    pd.testing.assert_frame_equal(rebuilt[["colour", "age"]], frame[["colour", "age"]])
    drawn = model.sample(3, condition={"colour": "red", "age": 70}, random_state=0)
    assert drawn["colour"].tolist() == ["red"] * 3
    assert drawn["age"].tolist() == [70] * 3
    pd.testing.assert_series_equal(drawn.dtypes, frame.dtypes)
    model.save(tmp_path / "m")
    pd.testing.assert_frame_equal(load(tmp_path / "m").reconstruct(frame), rebuilt)
    with pytest.raises(ValueError, match="'mauve', which was not seen in fit"):
        model.sample(1, condition={"colour": "mauve", "age": 3})


@pytest.mark.parametrize("noise", ["masking", "swap", "salt_and_pepper", "gaussian"])
def test_columns_are_damaged_whole(noise):
    model = DenoisingAutoencoder(2, noise=noise, level=0.5, **QUICK).fit(table())
    if noise in ("masking", "swap"):
        batch = model.codec_.encode(model._read(table(missing=False), reset=False)).slice(0, 120)
        torch.manual_seed(0)
        damaged = model.module_.corruption(batch.x)
        colour = slice(2, 5)
        assert set(damaged[:, colour].sum(1).tolist()) <= {0.0, 1.0}
        assert (damaged[:, colour] != batch.x[:, colour]).any()


def test_hidden_columns_are_hidden_whole():
    schema = Schema("vector", (SIZE,), 10, columns=COLUMNS)
    module = MaskedAutoencoder(2, **QUICK)._build(schema)
    hiding = module.corruption
    assert isinstance(hiding, Hiding)
    assert hiding.n_patches == len(COLUMNS)
    seen = hiding.seen(torch.ones(500, SIZE))
    for start, width in ((1, 3), (7, 2)):
        assert (seen[:, start : start + width] == seen[:, start : start + 1]).all()
    assert sum((1 - fold) for fold in hiding.folds(torch.ones(1, SIZE))).tolist() == [[1.0] * SIZE]
