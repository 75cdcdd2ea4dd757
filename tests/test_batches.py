"""Record batches in, record batches out: the same numbers as in memory, whatever the batches, and resumed where they stopped."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import diabolo.batches
from diabolo import AnomalyDetector, Autoencoder, BatchScorer, ConditionalVAE, score_files, score_spark
from diabolo.batches import MANIFEST
from test_columns import table as mixed_table

QUICK = {"hidden": (8,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(250, 4)), columns=list("abcd"))
FRAME.loc[::7, "b"] = np.nan
TABLE = pa.table({"key": pa.array([f"row {i}" for i in range(250)])} | {c: FRAME[c].to_numpy() for c in "abcd"})


@pytest.fixture(scope="module")
def detector():
    return AnomalyDetector(Autoencoder(2, **QUICK), contamination=0.1, random_state=0).fit(FRAME)


@pytest.fixture(scope="module")
def model(detector):
    return detector.autoencoder_


def gathered(scorer, size, table=TABLE):
    return pa.Table.from_batches(list(scorer(table.to_batches(max_chunksize=size))), scorer.schema(table.schema))


@pytest.mark.parametrize("size", [1, 33, 250])
@pytest.mark.parametrize("operation", ["score", "embed", "reconstruct", "anomalies"])
def test_results_are_those_of_the_model(operation, size, detector, model):
    scorer = BatchScorer(detector if operation == "anomalies" else model, operation, keep=["key"])
    found = gathered(scorer, size).to_pandas()
    assert list(found["key"]) == TABLE["key"].to_pylist()
    expected = {
        "score": lambda: model.score_samples(FRAME)[:, None],
        "embed": lambda: model.transform(FRAME),
        "reconstruct": lambda: model.reconstruct(FRAME).to_numpy(),
        "anomalies": lambda: np.column_stack([detector.score_samples(FRAME), detector.predict(FRAME) == -1]),
    }[operation]()
    found = found.drop(columns="key").to_numpy(dtype=float)
    if operation == "anomalies":  # a held-out row of fit is the threshold, and may fall on either side of it
        clear = np.abs(expected[:, 0] - detector.offset_) > 1e-9
        assert clear.sum() >= len(clear) - 1
        found, expected = found[clear], expected[clear]
    # float64 products of other sizes are summed in another order
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_model_without_names_takes_all_other_columns(model):
    plain = Autoencoder(2, **QUICK).fit(FRAME.to_numpy())
    found = gathered(BatchScorer(plain, keep=["key"]), 100)
    np.testing.assert_allclose(found["score"], plain.score_samples(FRAME.to_numpy()), rtol=1e-9)
    assert BatchScorer(plain, "reconstruct").names == ["x0", "x1", "x2", "x3"]


def test_a_pickle_holds_the_name_of_the_folder(model, tmp_path):
    model.save(tmp_path / "m")
    scorer = BatchScorer(tmp_path / "m", "embed")
    before = gathered(scorer, 100)
    data = pickle.dumps(scorer)
    assert len(data) < 500
    assert gathered(pickle.loads(data), 100).equals(before)  # noqa: S301 - our own


def test_an_empty_batch_has_the_schema(model):
    empty = BatchScorer(model, keep=["key"]).table(TABLE.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema.names == ["key", "score"]


def test_bad_rows_are_named(model, detector):
    with pytest.raises(ValueError, match=r"1 column\(s\) that the model knows are not there: 'c'"):
        BatchScorer(model).table(TABLE.drop(["c"]))
    wrong = TABLE.slice(200).set_column(2, "b", pa.array(["x"] * 50))
    with pytest.raises(ValueError, match=r"in the 50 rows from row 200 on: .*'b'"):
        BatchScorer(model).table(wrong, 200)
    with pytest.raises(ValueError, match=r"keep: there is no column 'kay'.* 'key'"):
        BatchScorer(model, keep=["kay"]).table(TABLE)
    with pytest.raises(ValueError, match="the result has a column 'score' of its own"):
        BatchScorer(model, keep=["score"]).table(TABLE.append_column("score", TABLE["a"]))
    with pytest.raises(ValueError, match=r"operation='scores' is unknown.*'score'"):
        BatchScorer(model, "scores")
    with pytest.raises(TypeError, match="needs an AnomalyDetector"):
        BatchScorer(model, "anomalies").table(TABLE)
    told = ConditionalVAE(2, **QUICK).fit(FRAME, np.arange(250) % 2)
    with pytest.raises(TypeError, match="is told a condition"):
        BatchScorer(told).table(TABLE)


# files --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for i in range(3):
        pq.write_table(TABLE.slice(80 * i, 80 if i < 2 else 90), folder / f"{i}.parquet", row_group_size=20)
    return folder


def test_files_are_scored_in_their_order(files, model, tmp_path):
    seen = []
    out = score_files(model, files, tmp_path / "out", keep=["key"], progress=lambda done, n: seen.append((done, n)))
    found = pq.read_table(out)
    assert found["key"].to_pylist() == TABLE["key"].to_pylist()
    np.testing.assert_allclose(found["score"], model.score_samples(FRAME), rtol=1e-9)
    assert seen == [(1, 3), (2, 3), (3, 3)]  # small row groups of a file go together


def test_what_was_interrupted_goes_on(files, model, tmp_path, monkeypatch):
    whole = pq.read_table(score_files(model, files, tmp_path / "whole", "embed"))

    def interrupt(done, _):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_files(model, files, tmp_path / "out", "embed", progress=interrupt)
    (tmp_path / "out" / ".part-00002.parquet.left").write_bytes(b"half")
    made = []
    table = BatchScorer.table
    monkeypatch.setattr(BatchScorer, "table", lambda self, t, first=0: made.append(first) or table(self, t, first))
    assert pq.read_table(score_files(model, files, tmp_path / "out", "embed")).equals(whole)
    assert made == [160]
    assert not list((tmp_path / "out").glob(".part*"))


def test_results_of_another_run_are_refused(files, model, detector, tmp_path):
    out = score_files(model, files, tmp_path / "out")
    with pytest.raises(ValueError, match=r"results of another run: operation differ\(s\)"):
        score_files(model, files, out, "embed")
    with pytest.raises(ValueError, match="another run: model"):
        score_files(Autoencoder(2, **QUICK | {"random_state": 1}).fit(FRAME), files, out)
    (files / "3.parquet").write_bytes((files / "0.parquet").read_bytes())
    with pytest.raises(ValueError, match="another run: files"):
        score_files(model, files, out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty, and not a folder of results"):
        score_files(model, files, other)
    assert (other / "mine.txt").read_text() == "precious"
    assert (out / MANIFEST).exists()


MEASURE = """
import sys, torch
torch.set_num_threads(1)
from diabolo import score_files
def peak():
    return next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmHWM")) / 1024
score_files(sys.argv[1], sys.argv[2] + "/0.parquet", sys.argv[3] + "/a", memory="64MB")
before = peak()
score_files(sys.argv[1], sys.argv[2], sys.argv[3] + "/b", memory="64MB")
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_files(tmp_path):
    X = RNG.normal(size=(40_000, 20))
    Autoencoder(4, **QUICK).fit(pd.DataFrame(X[:500], columns=[f"c{j}" for j in range(20)])).save(tmp_path / "m")
    rows = tmp_path / "rows"
    rows.mkdir()
    for i in range(12):  # 77 MB
        pq.write_table(pa.table({f"c{j}": X[:, j] for j in range(20)}), rows / f"{i}.parquet", row_group_size=10_000)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "m", rows, tmp_path], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 25  # one file took what it takes; what is left is the allocators' wandering


# engines ------------------------------------------------------------------------------------------------------------------------


def test_ray_calls_the_same_function(model, tmp_path):
    """Ray makes one object in each worker and calls it with a table at a time."""
    model.save(tmp_path / "m")
    scorer = BatchScorer(tmp_path / "m", keep=["key"])
    parts = [scorer.table(TABLE.slice(start, 60)) for start in range(0, 250, 60)]
    np.testing.assert_allclose(pa.concat_tables(parts)["score"], model.score_samples(FRAME), rtol=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed")
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
@pytest.mark.filterwarnings("ignore")
def test_spark(model, tmp_path, monkeypatch):
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    model.save(tmp_path / "m")
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = (
        builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
    )
    try:
        frame = spark.read.parquet(str(tmp_path / "rows.parquet"))
        found = score_spark(frame, tmp_path / "m", keep=["key"]).toPandas().set_index("key")["score"]
        with pytest.raises(ValueError, match="keep: there is no column 'kay'"):
            score_spark(frame, tmp_path / "m", keep=["kay"])
    finally:
        spark.stop()
    np.testing.assert_allclose(found.loc[TABLE["key"].to_pylist()], model.score_samples(FRAME), rtol=1e-9)


def test_without_pyarrow_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"diabolo\[arrow\]"):
        diabolo.batches.BatchScorer(model).table(TABLE)


def test_a_mixed_table_is_scored_and_rebuilt_in_its_own_types(tmp_path):
    frame = mixed_table(200, missing=False)
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    model = Autoencoder(3, hidden=(16,), max_epochs=3, random_state=0).fit(rows)
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=70)
    for operation in ("score", "embed", "reconstruct"):
        out = score_files(model, tmp_path / "rows.parquet", tmp_path / operation, operation, memory="2MB")
        found = pq.read_table(out)
        assert found.num_rows == 200
        if operation == "score":
            np.testing.assert_allclose(found["score"].to_numpy(), model.score_samples(rows), rtol=1e-12)
        if operation == "reconstruct":
            rebuilt = model.reconstruct(rows)
            assert found.schema.types == pq.read_table(tmp_path / "rows.parquet").schema.types
            assert found.to_pylist() == rebuilt.to_pylist()
