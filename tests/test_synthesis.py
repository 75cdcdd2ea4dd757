"""Synthetic tables: exact probabilities, constraints that hold, cells that come back in their types, and what rows give away."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import diabolo
from diabolo import TableSynthesizer, compare_tables
from diabolo.records import Column
from diabolo.tasks.bins import Bins
from diabolo.tasks.cellwise import CellModel, CellNetwork

RNG = np.random.default_rng(0)
SMALL = {"width": 64, "max_epochs": 60, "device": "cpu", "random_state": 0}


def people(n=800, seed=0):
    """Make a table in which all columns hang together: age, pay that rises with it, a kind, a date, and holes."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["baker", "smith", "thief"], n, p=[0.6, 0.35, 0.05])
    age = np.rint(np.where(kind == "baker", 50, 30) + 5 * rng.normal(size=n)).astype(int)
    pay = np.round(20.0 * age + 100 * rng.normal(size=n), 2)
    pay[rng.random(n) < 0.2] = np.nan
    pay[rng.random(n) < 0.2] = 0.0
    return pd.DataFrame(
        {
            "age": age,
            "pay": pay,
            "kind": kind,
            "member": rng.random(n) < np.where(kind == "smith", 0.9, 0.2),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, n), "D"),
        }
    )


@pytest.fixture(scope="module")
def table():
    return people()


@pytest.fixture(scope="module")
def synthesizer(table):
    return TableSynthesizer(**SMALL).fit(table)


@pytest.fixture(scope="module")
def made(synthesizer):
    return synthesizer.sample(800, random_state=0)


# bins ---------------------------------------------------------------------------------------------------------------------------


def test_bins_give_back_what_they_hold():
    rng = np.random.default_rng(0)
    cells = np.concatenate([np.zeros(400), np.round(rng.exponential(1000, 600), 1), [np.nan] * 10])
    found = Bins.learn(Column("pay", 0, 1), cells, 20)
    assert found.places == 1
    assert found.missing
    assert 12 <= len(found.knots) <= 23
    codes = found.encode(cells)
    assert (codes[:400] == 0).all()  # a frequent value has a bin of its own
    assert (codes[-10:] == -1).all()
    again = found.decode(np.where(codes < 0, len(found.knots), codes), rng, None)
    assert np.isnan(again[-10:]).all()
    np.testing.assert_array_equal(found.encode(again), codes)  # a cell stays in its bin
    assert (again[:400] == 0).all()
    assert np.array_equal(np.round(again[:-10], 1), again[:-10])
    assert abs(np.nanmean(again) / np.nanmean(cells) - 1) < 0.02  # bins are narrow beside the spread
    whole = Bins.learn(Column("age", 0, 1), np.arange(10.0).repeat(5), 20)
    np.testing.assert_array_equal(whole.decode(whole.encode(np.array([3.0, 7.0])), rng, None), [3, 7])
    np.testing.assert_array_equal(whole.encode(np.array([-5.0, 3.2, 3.8, 99.0])), [0, 3, 4, 9])  # the nearest


def test_bounds_cut_bins():
    found = Bins.learn(Column("x", 0, 1), np.linspace(0, 100, 1001), 10)
    rng = np.random.default_rng(0)
    drawn = found.decode(np.full(2000, 2), rng, (24.0, 26.0))
    assert drawn.min() >= 24
    assert drawn.max() <= 26
    assert abs(drawn.mean() - 25) < 0.1
    start, end = found.shares(2, (25.0, np.inf))
    assert end - start == pytest.approx(0.5, abs=0.02)
    assert found.shares(0, (50.0, 60.0)) == (0.0, 0.0)


# rows ---------------------------------------------------------------------------------------------------------------------------


def test_probabilities_of_all_rows_sum_to_one_and_are_those_of_the_rows():
    rng = np.random.default_rng(0)
    a = rng.integers(3, size=2000)
    b = np.where(rng.random(2000) < 0.8, a, rng.integers(3, size=2000))
    rows = pd.DataFrame({"a": a.astype(str), "b": b.astype(str), "c": rng.random(2000) < 0.3})
    found = TableSynthesizer(**SMALL).fit(rows)
    every = pd.DataFrame(list(itertools.product("012", "012", [False, True])), columns=["a", "b", "c"])
    probability = np.exp(found.score_samples(every))
    assert probability.sum() == pytest.approx(1, abs=1e-5)  # float32 logits
    truth = np.where(every["a"] == every["b"], 0.8 + 0.2 / 3, 0.2 / 3) / 3 * np.where(every["c"], 0.3, 0.7)
    assert 0.5 * np.abs(probability - truth).sum() < 0.08  # 2000 rows know their shares to 0.04
    drawn = found.sample(6000, random_state=0)
    counts = drawn.groupby(["a", "b", "c"]).size().reindex(list(every.itertuples(index=False, name=None)), fill_value=0)
    assert 0.5 * np.abs(counts.to_numpy() / 6000 - truth).sum() < 0.08


def test_training_and_scores_agree_on_every_order(monkeypatch):
    torch.manual_seed(0)
    network = CellNetwork([4, 3, 6], [3, 0, 6], 16).eval()
    codes = np.stack(np.meshgrid(range(4), range(3), range(6), indexing="ij"), -1).reshape(-1, 3)
    for order in itertools.permutations(range(3)):
        monkeypatch.setattr(torch, "randperm", lambda n, order=order: torch.tensor(order))
        cost = network.nats(torch.from_numpy(codes)).detach().double().numpy()
        assert np.exp(-cost).sum() == pytest.approx(1, abs=1e-5)  # float32 logits
        if order == (0, 1, 2):
            np.testing.assert_allclose(CellModel(network).log_prob(codes), -cost, atol=1e-5)


def test_neighbouring_bins_are_alike_from_the_start():
    torch.manual_seed(0)
    for table in CellNetwork([60, 5], [60, 0], 64).tables():
        rows = table.detach()[:60] / table.detach()[:60].norm(dim=1, keepdim=True)
        near, far = (rows[:-1] * rows[1:]).sum(1).mean(), (rows[:-30] * rows[30:]).sum(1).abs().mean()
        assert near > 0.5  # of independent rows of 64 numbers it is 0 within 0.13
        assert near > far + 0.3


def test_rows_are_like_those_of_fit_and_in_their_types(table, made):
    assert list(made.columns) == list(table.columns)
    assert (made.dtypes == table.dtypes).all()
    assert abs(made["age"].mean() - table["age"].mean()) < 1.5
    assert abs(made["pay"].isna().mean() - table["pay"].isna().mean()) < 0.05
    assert abs((made["pay"] == 0).mean() - (table["pay"] == 0).mean()) < 0.06
    assert made["age"].between(table["age"].min(), table["age"].max()).all()
    assert made["since"].dt.normalize().eq(made["since"]).all()  # whole days
    rate = made.groupby("kind")["member"].mean()
    assert rate["smith"] > rate["baker"] + 0.4
    with_pay = made[(made["pay"] > 0)]
    assert np.corrcoef(with_pay["age"], with_pay["pay"])[0, 1] > 0.5  # 0.7 in the table; bins of 800 rows blur it


def test_a_comparison_tells_good_rows_from_bad_ones(table, made):
    fresh = people(seed=1)
    good = compare_tables(table, made, fresh)
    shuffled = pd.DataFrame({c: table[c].sample(frac=1, random_state=i).to_numpy() for i, c in enumerate(table)})
    bad = compare_tables(table, shuffled, fresh)
    copies = compare_tables(table, table, fresh)
    assert good.detection < 0.75 < bad.detection
    assert good.pairs < bad.pairs
    assert max(bad.marginals.values()) == 0
    assert max(good.marginals.values()) < 0.1
    assert copies.copies == 1.0
    assert copies.closest == 0
    assert copies.membership > 0.95
    assert good.copies < 0.05
    assert abs(good.membership - 0.5) < 0.06  # of 800 rows each the standard error is 0.014
    assert good.closest > 0.6 * good.closest_held_out
    assert "told from real rows" in str(good)
    assert compare_tables(table, made).membership is None


def test_conditions_and_constraints_hold(synthesizer):
    rows = synthesizer.sample(
        200,
        condition={"kind": "thief", "member": True},
        bounds={"age": (25, 33), "since": ("2021-01-01", None)},
        random_state=0,
    )
    assert (rows["kind"] == "thief").all()
    assert rows["member"].all()
    assert rows["age"].between(25, 33).all()
    assert (rows["since"] >= "2021-01-01").all()
    some = synthesizer.sample(300, allowed={"kind": ["baker", "thief"]}, bounds={"pay": (1, None)}, random_state=0)
    assert set(some["kind"]) == {"baker", "thief"}
    assert some["pay"].min() >= 1  # which also leaves no cell missing
    assert synthesizer.sample(50, condition={"pay": None}, random_state=0)["pay"].isna().all()
    assert (synthesizer.sample(20, condition={"age": 41}, random_state=0)["age"] == 41).all()
    young = synthesizer.sample(300, condition={"age": 28}, random_state=0)["kind"]
    old = synthesizer.sample(300, condition={"age": 52}, random_state=0)["kind"]
    assert (old == "baker").mean() > 0.85 > 0.35 > (young == "baker").mean()  # what is given goes before the rest


def test_unique_values_and_rows(synthesizer):
    days = synthesizer.sample(300, unique=("since",), random_state=0)["since"]
    assert days.is_unique  # of 1000 days
    assert not synthesizer.sample(500, unique=True, random_state=0).duplicated().any()
    with pytest.raises(ValueError, match="still repeat others in 'kind' after 30 draws"):
        synthesizer.sample(10, unique=("kind",), random_state=0)


def test_rows_that_are_known_in_part_are_completed(table, synthesizer):
    part = table.iloc[:40].assign(kind=None, age=np.where(np.arange(40) % 2, np.nan, table["age"][:40]))
    filled = synthesizer.complete(part, 5, random_state=0)
    assert len(filled) == 5
    for rows in filled:
        there = part.notna()
        assert (rows[there] == part[there]).sum().sum() == there.sum().sum()
        assert rows.notna().all().all()
    assert any(not filled[0].equals(other) for other in filled[1:])
    right = np.mean([(rows["kind"] == table["kind"][:40]).mean() for rows in filled])
    assert right > 0.6


def test_rare_classes_are_filled_up(table, synthesizer):
    more = synthesizer.balance(table, "kind", random_state=0)
    counts = more["kind"].value_counts()
    assert counts.nunique() == 1
    pd.testing.assert_frame_equal(more.iloc[: len(table)].reset_index(drop=True), table)
    thieves = more.iloc[len(table) :].query("kind == 'thief'")
    assert abs(thieves["age"].mean() - 30) < 8  # 40 thieves among 800 rows, whose mean is 42
    assert synthesizer.balance(more, "kind", random_state=0) is more


def test_saving_seeds_temperature_and_blocks(synthesizer, tmp_path):
    synthesizer.save(tmp_path)
    again = diabolo.load(tmp_path)
    one = synthesizer.sample(30, random_state=1)
    pd.testing.assert_frame_equal(again.sample(30, random_state=1), one)
    assert not one.equals(synthesizer.sample(30, random_state=2))
    blocks = list(synthesizer.sample_blocks(25, rows=10, random_state=0))
    assert [len(b) for b in blocks] == [10, 10, 5]
    assert len(next(synthesizer.sample_blocks(10**7, rows=20, random_state=0))) == 20  # the rest is not made yet
    cold, hot = (synthesizer.sample(400, temperature=t, random_state=0)["kind"].value_counts() for t in (0.3, 3.0))
    assert cold.get("thief", 0) < hot["thief"]


def test_other_frames_and_arrays():
    frame = pl.DataFrame({"x": [1.5, 2.5, None, 4.5] * 20, "y": ["a", None, "b", "b"] * 20})
    found = TableSynthesizer(max_epochs=5, random_state=0).fit(frame)
    rows = found.sample(40, random_state=0)
    assert isinstance(rows, pl.DataFrame)
    assert rows.schema == frame.schema
    assert set(rows["x"].drop_nulls()) <= {1.5, 2.5, 4.5}
    numbers = RNG.integers(0, 9, size=(60, 3))
    drawn = TableSynthesizer(**SMALL).fit(numbers).sample(10, random_state=0)
    assert drawn.dtype == np.int64
    holes = np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, 2.0]])
    filled = TableSynthesizer(**SMALL).fit(numbers).complete(holes, 2, random_state=0)[1]
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[~np.isnan(holes)], holes[~np.isnan(holes)])
    one = TableSynthesizer(**SMALL).fit(pd.DataFrame({"a": [1, 1, 1], "b": ["x", "x", "x"]}))
    assert one.sample(2, random_state=0).to_dict("list") == {"a": [1, 1], "b": ["x", "x"]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"condition": {"kin": "baker"}}, "there is no column 'kin'. Did you mean 'kind'?"),
        ({"condition": {"kind": "backer"}}, "column 'kind' has no label 'backer'. Did you mean 'baker'?"),
        ({"condition": {"age": "old"}}, "column 'age' holds numbers; got 'old'"),
        ({"condition": {"age": None}}, "had no missing cells in fit"),
        ({"bounds": {"age": (500, 600)}}, "no value seen in fit lies there"),
        ({"bounds": {"age": (40, 30)}}, "no value seen in fit lies there"),
        ({"bounds": {"age": 40}}, "expected a pair"),
        ({"bounds": {"kind": (1, 2)}}, "use allowed="),
        ({"allowed": {"age": [1]}}, "use bounds="),
        ({"allowed": {"kind": []}}, "at least one"),
        ({"condition": {"age": 30}, "bounds": {"age": (20, 40)}}, "has another constraint"),
        ({"temperature": 0.0}, "expected a number above 0"),
        ({"n": 0}, "n=0: expected at least 1"),
    ],
)
def test_what_cannot_be_asked_for(synthesizer, options, said):
    with pytest.raises(ValueError, match=said.replace("?", r"\?").replace("(", r"\(")):
        synthesizer.sample(**{"n": 2, **options})


def test_bad_input(table, synthesizer):
    with pytest.raises(TypeError, match="write \\('age',\\)"):
        synthesizer.sample(2, unique="age")
    with pytest.raises(ValueError, match="n=0"):
        synthesizer.complete(table, 0)
    with pytest.raises(ValueError, match="holds numbers; rows are balanced by a column of labels"):
        synthesizer.balance(table, "age")
    with pytest.raises(ValueError, match="fitted on a frame"):
        synthesizer.complete(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="had none in fit"):
        synthesizer.score_samples(table.assign(kind=None))
    with pytest.raises(ValueError, match="0 sample"):
        TableSynthesizer().fit(table.iloc[:0])
    with pytest.raises(ValueError, match="same columns"):
        compare_tables(np.zeros((3, 2)), np.zeros((3, 3)))
