"""Rows that stay on the disk: the same numbers as in memory, every row once a pass, and memory within bounds."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from diabolo import VAE, AnomalyDetector, Autoencoder, ConditionalVAE, Stream, load
from diabolo.checks import ParameterError
from diabolo.data.arrays import ArrayCodec, Sample
from diabolo.data.raw import Raw
from diabolo.data.stream import parse_bytes
from diabolo.seeding import seeded
from diabolo.training.streaming import set_aside

CPU = torch.device("cpu")
QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}


def rows(n=600, d=5, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.1 * rng.normal(size=(n, d)) + np.arange(d)
    X[:, 1] = 3.0  # constant
    X[rng.random(X.shape) < missing] = np.nan
    return X


def parquet(folder, X, group=100, files=2):
    folder.mkdir(exist_ok=True)
    frame = pa.table({f"c{j}": X[:, j] for j in range(X.shape[1])})
    edges = np.linspace(0, len(X), files + 1).astype(int)
    for i in range(files):
        pq.write_table(frame.slice(edges[i], edges[i + 1] - edges[i]), folder / f"{i}.parquet", row_group_size=group)
    return folder


# what is learned of the data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["auto", "standard", "minmax", "unit", None, "quantile"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["table", "images", "binary"])
def test_blocks_teach_what_the_whole_does(scale, missing, kind):
    X = rows(missing=missing)
    if kind == "binary":
        X = np.where(np.isnan(X), X, (X > 1).astype(float))
    raw = Raw(X, "vector", "numpy", tuple("abcde"))
    if kind == "images":
        if scale == "quantile":
            return
        raw = Raw(np.ascontiguousarray(X[:, :4]).reshape(-1, 1, 2, 2), "image", "numpy")
    whole = ArrayCodec.fit(raw, scale)
    parts = ArrayCodec.learn((raw.take(slice(a, b)) for a, b in ((0, 7), (7, 8), (8, 300), (300, 600))), scale)
    assert parts.schema == whole.schema
    assert parts.scaling.name == whole.scaling.name
    for name, array in whole.scaling.arrays().items():
        # float64 sums in another order
        np.testing.assert_allclose(parts.scaling.arrays()[name], array, rtol=1e-12, atol=1e-12)


def test_moments_of_far_numbers_keep_their_digits():
    X = 1e9 + np.random.default_rng(0).normal(size=(3000, 3))
    codec = ArrayCodec.learn((Raw(part, "vector", "numpy") for part in np.array_split(X, 7)), "standard")
    np.testing.assert_allclose(codec.scaling.center, X.mean(0), rtol=1e-14)  # some float64 roundings
    np.testing.assert_allclose(codec.scaling.width, X.std(0), rtol=1e-6)  # numbers of 1e9 are spaced by 1e-7


def test_each_row_has_the_same_chance_to_be_in_the_sample():
    counts = np.zeros(50)
    values = np.arange(50.0)[:, None]
    for seed in range(400):
        sample = Sample(values[:3], 10)
        sample._draw = np.random.default_rng(seed)
        for start, stop in ((3, 8), (8, 30), (30, 50)):
            sample.add(values[start:stop])
        counts[sample.rows()[:, 0].astype(int)] += 1
    assert counts.sum() == 4000
    # binomial with 400 draws of chance 1 / 5: five standard deviations, of fifty numbers
    assert np.abs(counts - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)


# every row once -----------------------------------------------------------------------------------------------------------------


def streamed(X, blocks, fraction, memory="2MB", seed=0):
    stream = Stream(np.array_split(X, blocks), memory=memory)
    codec = ArrayCodec.learn(stream.blocks(), None)
    with seeded(seed):
        return set_aside(stream, codec, fraction, 10, CPU)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 90), blocks=st.integers(1, 9), size=st.integers(1, 20), fraction=st.sampled_from([0.0, 0.1, 0.6])
)
def test_a_pass_shows_every_row_that_is_not_held_out(n, blocks, size, fraction):
    X = np.arange(n, dtype=np.float64)[:, None].repeat(2, 1)
    train, held = streamed(X, min(blocks, n), fraction)
    train.window = 13
    with seeded(1):
        batches = list(train.shuffled(size))
    seen = torch.cat([b.x[:, 0] for b in batches]).tolist()
    out = held.head(n).x[:, 0].tolist()
    assert set(seen) | set(out) == set(range(n))
    assert not set(seen) & set(out)
    assert len(train) == n - len(out) == len(set(seen))
    assert len(batches) == -(-len(train) // size)
    assert all(len(b.x) >= 2 for b in batches)
    assert (len(out) > 0) == (fraction > 0)
    assert torch.cat([b.x[:, 0] for b in train.in_order(size)]).tolist() == sorted(set(seen))
    assert set(train.head(10).x[:, 0].tolist()) <= set(seen)


def test_a_pass_mixes_blocks_and_is_that_of_the_seed(tmp_path):
    X = np.arange(2000, dtype=np.float32)[:, None].repeat(200, 1)
    np.save(tmp_path / "x.npy", X)
    stream = Stream(tmp_path / "x.npy", memory="2MB")
    codec = ArrayCodec.learn(stream.blocks(), None)
    with seeded(0):
        train, _ = set_aside(stream, codec, 0.1, 10, CPU)

    def order(seed):
        with seeded(seed):
            return torch.cat([b.x[:, 0] for b in train.shuffled(50)])

    assert len(train.sizes) > 10
    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    # half of the rows come within the first half of a pass, from all over the data
    assert (
        abs(float(order(1)[:900].mean()) - 1000) < 150
    )  # 2000 / sqrt(12) / sqrt(some 16 blocks): one standard deviation


def test_nothing_is_left_running():
    before = threading.active_count()
    train, _ = streamed(rows(), 20, 0.1)
    for _, _ in zip(range(2), train.shuffled(10), strict=False):
        pass
    assert threading.active_count() <= before + 1
    Autoencoder(2, callbacks=(lambda run: True,), **QUICK).fit(Stream(np.array_split(rows(), 5)))
    assert threading.active_count() <= before + 1


def test_an_error_while_reading_ahead_is_raised_where_the_rows_are_used():
    class Failing:
        passes = 0

        def __iter__(self):
            Failing.passes += 1
            yield rows(50)
            if Failing.passes > 2:
                raise OSError("the disk is gone")
            yield rows(50)

    with pytest.raises(OSError, match="the disk is gone"):
        Autoencoder(2, **QUICK).fit(Stream(Failing()))


# models -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("source", ["npy", "memmap", "folder", "pattern", "files", "list", "frames"])
def test_sources(source, missing, tmp_path):
    X = rows(missing=missing)
    folder = parquet(tmp_path / "set", X)
    np.save(tmp_path / "x.npy", X)
    frames = [pd.DataFrame(part, columns=[f"c{j}" for j in range(5)]) for part in np.array_split(X, 3)]
    made = {
        "npy": lambda: Stream(tmp_path / "x.npy"),
        "memmap": lambda: Stream(np.load(tmp_path / "x.npy", mmap_mode="r")),
        "folder": lambda: Stream(folder),
        "pattern": lambda: Stream(str(folder / "*.parquet")),
        "files": lambda: Stream([folder / "0.parquet", folder / "1.parquet"]),
        "list": lambda: Stream(np.array_split(X, 4)),
        "frames": lambda: Stream(frames),
    }
    stream = made[source]()
    model = Autoencoder(2, **QUICK).fit(stream)
    again = Autoencoder(2, **QUICK).fit(made[source]())
    assert model.history_["loss"] == again.history_["loss"]
    assert model.n_features_in_ == 5
    assert model.schema_.n_rows == 600
    named = source not in ("npy", "memmap", "list")
    assert list(getattr(model, "feature_names_in_", [])) == ([f"c{j}" for j in range(5)] if named else [])
    whole = pd.DataFrame(X, columns=[f"c{j}" for j in range(5)]) if named else X
    np.testing.assert_allclose(model.transform(stream), model.transform(whole), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.score_samples(stream), model.score_samples(whole), rtol=1e-12, atol=1e-12)
    assert model.score(stream) == pytest.approx(model.score(whole), rel=1e-12)


class Chunked:
    """What Zarr and HDF5 arrays have in common: a shape, a type, chunks, and rows on demand."""

    def __init__(self, X, chunk):
        self.X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (chunk, X.shape[1])
        self.asked = []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.X[rows]


def test_an_array_in_chunks_is_read_by_whole_chunks():
    X = rows(9000, 20)
    array = Chunked(X, 64)
    stream = Stream(array, memory="2MB")
    model = Autoencoder(2, **QUICK).fit(stream)
    assert all(s.start % 64 == 0 and (s.stop % 64 == 0 or s.stop == 9000) for s in array.asked)
    assert max(s.stop - s.start for s in array.asked) * 20 * 8 <= 2_000_000 / 16
    n = len(stream._source.sizes)
    starts = [s.start for s in array.asked]
    assert starts[:n] == sorted(starts[:n])  # scales are learned in the order of the rows
    epoch = starts[2 * n : 3 * n]
    assert sorted(epoch) == starts[:n] != epoch  # and an epoch goes in another
    np.testing.assert_array_equal(model.transform(stream), model.transform(X))


@pytest.mark.parametrize("ordered", [False, True])
def test_blocks_by_number_come_in_random_order_and_those_of_an_iterable_in_theirs(ordered):
    class Blocks:
        def __init__(self):
            self.asked = []

        def __getitem__(self, i):
            self.asked.append(i)
            return np.full((10, 3), i, dtype=float)

        def __len__(self):
            return 20

        def __iter__(self):
            return (self[i] for i in range(20))

    blocks = Blocks()

    class Iterated:
        def __iter__(self):
            return iter(blocks)

    stream = Stream(Iterated() if ordered else blocks)
    codec = ArrayCodec.learn(stream.blocks(), None)
    with seeded(0):
        train, _ = set_aside(stream, codec, 0.1, 10, CPU)
        blocks.asked.clear()
        assert sum(len(b.x) for b in train.shuffled(20)) == 180
    assert sorted(blocks.asked) == list(range(20))
    assert (blocks.asked == list(range(20))) is ordered


def test_columns_are_chosen_by_name(tmp_path):
    folder = parquet(tmp_path / "set", rows())
    model = Autoencoder(1, **QUICK).fit(Stream(folder, columns=["c3", "c0"]))
    assert list(model.feature_names_in_) == ["c3", "c0"]
    with pytest.raises(ValueError, match=r"has no column 'c9'; it has c0, c1"):
        Stream(folder, columns=["c9"])


def test_a_stream_teaches_as_much_as_rows_in_memory():
    X = load_digits().data
    how = {"hidden": (32,), "max_epochs": 15, "patience": None, "device": "cpu"}
    streams = [Autoencoder(8, random_state=s, **how).fit(Stream(np.array_split(X[:1500], 9))) for s in range(3)]
    memory = [Autoencoder(8, random_state=s, **how).fit(X[:1500]) for s in range(3)]
    error = [np.mean([np.mean((m.reconstruct(X[1500:]) - X[1500:]) ** 2) for m in ms]) for ms in (streams, memory)]
    assert error[0] == pytest.approx(error[1], rel=0.05)  # seeds differ by about 2 %


def test_images_and_a_variational_model():
    X = load_digits().images[:300]
    model = VAE(3, **QUICK).fit(Stream(np.array_split(X, 4)))
    assert model.transform(Stream([X[:5]])).shape == (5, 3)
    assert model.sample(2).shape == (2, 8, 8)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    stream = Stream(np.array_split(rows(), 7))

    def crash(run):
        if run.epoch == 2:
            raise KeyError

    whole = Autoencoder(2, **QUICK).fit(stream)
    with pytest.raises(KeyError):
        Autoencoder(2, checkpoint=tmp_path, callbacks=(crash,), **QUICK).fit(stream)
    resumed = Autoencoder(2, checkpoint=tmp_path, **QUICK).fit(stream)
    assert resumed.history_["loss"] == whole.history_["loss"]
    with pytest.raises(ValueError, match="holds another run: data was"):
        Autoencoder(2, checkpoint=tmp_path, **QUICK).fit(Stream([rows(seed=1)]))


def test_a_model_of_a_stream_is_a_model(tmp_path):
    X = rows()
    model = Autoencoder(2, **QUICK).fit(Stream(np.array_split(X, 3)))
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load(tmp_path / "m").transform(X), model.transform(X))
    model.fit(X)  # and may be fitted in memory afterwards


# what is refused ----------------------------------------------------------------------------------------------------------------


def test_bad_sources(tmp_path):
    with pytest.raises(TypeError, match="can be read only once"):
        Stream(part for part in [rows()])
    with pytest.raises(ValueError, match="no such file, or no Parquet files"):
        Stream(tmp_path / "none")
    with pytest.raises(TypeError, match="expected a path, an array or an iterable"):
        Stream(3)
    with pytest.raises(ValueError, match="memory='some'"):
        Stream([rows()], memory="some")
    with pytest.raises(ValueError, match=r"expected rows \(n, ...\)"):
        Stream(np.zeros(5))
    with pytest.raises(ValueError, match="columns= is for Parquet"):
        Stream([rows()], columns=["a"])
    with pytest.raises(ValueError, match="has no rows"):
        Autoencoder(**QUICK).fit(Stream([]))
    wide = parquet(tmp_path / "wide", rows(40_000, 5), group=40_000, files=1)
    with pytest.raises(ValueError, match=r"row group 0 has 40000 rows.*smaller row groups"):
        Stream(wide, memory="2MB")


def test_bad_rows(tmp_path):
    X = rows()
    with pytest.raises(ValueError, match=r"rows from 600 on have the shape \(4,\), those before the shape \(5,\)"):
        Autoencoder(**QUICK).fit(Stream([X, X[:, :4]]))
    bad = X.copy()
    bad[3, 2] = np.inf
    with pytest.raises(ValueError, match=r"infinity .* row 603, column '?2"):
        Autoencoder(**QUICK).fit(Stream([X, bad]))
    empty = X.copy()
    empty[:, 4] = np.nan
    with pytest.raises(ValueError, match=r"1 column\(s\) have no observed value: '4'"):
        Autoencoder(**QUICK).fit(Stream([empty, empty]))
    with pytest.raises(ValueError, match="Bernoulli needs values in"):
        Autoencoder(likelihood="bernoulli", scale=None, **QUICK).fit(Stream([X, X]))
    text = pa.table({"a": [1.0, 2.0], "b": ["x", "y"]})
    pq.write_table(text, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="'b'"):
        Autoencoder(**QUICK).fit(Stream(tmp_path / "t.parquet"))


def test_what_needs_rows_in_memory_says_so():
    stream = Stream([rows()])
    model = Autoencoder(2, **QUICK).fit(stream)
    with pytest.raises(TypeError, match="go block by block"):
        model.reconstruct(stream)
    with pytest.raises(TypeError, match="go block by block"):
        AnomalyDetector(Autoencoder(2, **QUICK)).fit(stream)
    with pytest.raises(TypeError, match="takes rows in memory"):
        ConditionalVAE(2, condition=("0",), **QUICK).fit(stream)
    with pytest.raises(ParameterError, match="pretrain='layerwise' needs rows in memory"):
        Autoencoder(2, pretrain="layerwise", **QUICK | {"hidden": (8, 4)}).fit(stream)


@pytest.mark.parametrize(
    ("text", "size"), [("1GB", 10**9), ("500 mb", 5 * 10**8), (2_000_000, 2_000_000), ("3e6", 3_000_000)]
)
def test_memory_is_told_in_words(text, size):
    assert parse_bytes(text) == size


# memory -------------------------------------------------------------------------------------------------------------------------

MEASURE = """
import sys, numpy as np, torch
torch.set_num_threads(1)
from diabolo import Autoencoder, Stream
def peak():
    return next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmHWM")) / 1024
Autoencoder(4, hidden=(), max_epochs=1, random_state=0).fit(Stream([np.random.default_rng(0).normal(size=(3000, 50))]))
before = peak()
Autoencoder(4, hidden=(), max_epochs=1, random_state=0, batch_size=4096).fit(Stream(sys.argv[1], memory="32MB"))
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_memory_stays_near_what_was_asked_for(kind, tmp_path):
    rng = np.random.default_rng(0)
    if kind == "npy":
        out = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(800_000, 50))
        for start in range(0, len(out), 100_000):
            out[start : start + 100_000] = rng.normal(size=(100_000, 50))
        out.flush()
        del out
    else:
        for i in range(8):
            part = rng.normal(size=(100_000, 50)).astype(np.float32)
            frame = pa.table({f"c{j}": part[:, j] for j in range(50)})
            pq.write_table(frame, tmp_path / f"{i}.parquet", row_group_size=5000, compression="none")
    source = tmp_path / "x.npy" if kind == "npy" else tmp_path
    run = subprocess.run([sys.executable, "-c", MEASURE, source], capture_output=True, text=True, check=True)
    # 160 MB of rows; 32 MB for them, pyarrow itself, and what torch and numpy take on the way
    assert float(run.stdout) < 110
