"""Tables and stacks of small images in files without loss: every cell and type comes back; the size is the likelihood's."""

import json
import os
import subprocess
import sys
import zlib
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits

import diabolo
from diabolo import Compressor
from diabolo.checks import ParameterError
from diabolo.parts.exact import exactly
from diabolo.tasks import row_codes
from diabolo.tasks.autoregressive import ColourNetwork, ColumnNetwork, PixelNetwork
from diabolo.tasks.container import CompressedFileError, ContainerReader, ContainerWriter, varint

pytest.importorskip("constriction")
QUICK = {"max_steps": 6, "device": "cpu", "precision": "float32", "random_state": 0}


def mixed(n, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(0, 100, n).astype(np.int8),
            "id": rng.integers(0, 10**12, n),
            "city": rng.choice(["Oslo", "Rome", "Älvsbyn", None], n),
            "code": rng.choice([f"x{i}" for i in range(200)], n),
            "pay": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "half": rng.integers(0, 9, n).astype(np.float32) / 2,
            "at": pd.date_range("2020-01-01", periods=n, freq="37min", tz="Europe/Oslo"),
            "long": pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
            "yes": rng.random(n) < 0.3,
            "level": pd.Categorical(rng.choice(list("lmh"), n), ["l", "m", "h"], ordered=True),
            "count": pd.array(rng.integers(0, 5, n), dtype="Int64"),
            "any": pd.Series([("a", 1, 2.5, True)[i] for i in rng.integers(0, 4, n)], dtype=object),
            "empty": pd.array([pd.NA] * n, dtype="Int64"),
        }
    )
    frame.loc[::7, "at"] = pd.NaT
    frame.loc[::5, "count"] = pd.NA
    frame.loc[::9, "level"] = None
    frame.loc[[1, 2, 3, 4], "pay"] = [np.inf, -np.inf, -0.0, 5e-324]
    return frame


@pytest.fixture(scope="module")
def table():
    frame = mixed(700)
    return frame, Compressor(**QUICK).fit(frame)


def test_a_frame_of_pandas_comes_back_as_it_was(table, tmp_path):
    frame, model = table
    size = model.compress(frame, tmp_path / "a.dbl")
    assert size == (tmp_path / "a.dbl").stat().st_size
    back = model.decompress(tmp_path / "a.dbl")
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert np.array_equal(np.signbit(back["pay"]), np.signbit(frame["pay"]))  # -0.0 too


def test_values_that_fit_did_not_see_are_kept(table, tmp_path):
    frame, model = table
    odd = frame.assign(
        age=np.int64(2**62),  # of a wider type too
        id=frame["id"] + 1,
        city="neu",
        code=frame["code"] + "'",
        pay=frame["pay"] * 3 + 1,
        at=frame["at"] + pd.Timedelta("1s"),
        any="b",
        yes=True,
    )
    odd.loc[3, "empty"] = -7
    model.compress(odd, tmp_path / "a.dbl")
    pd.testing.assert_frame_equal(model.decompress(tmp_path / "a.dbl"), odd, check_exact=True)


def test_new_values_that_come_again_cost_little(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.choice(["low", "high"], 6000, p=[0.8, 0.2])
    frame = pd.DataFrame({"label": label, "n": rng.integers(0, 2000, 6000), "t": rng.choice(["a", "b"], 6000)})
    model = Compressor(**QUICK | {"max_steps": 60}).fit(frame)
    size = model.compress(frame, tmp_path / "a.dbl")
    spelt = frame.assign(label=frame["label"] + ".")  # told as well as those they are like
    assert model.compress(spelt, tmp_path / "b.dbl") < size + 60
    pd.testing.assert_frame_equal(model.decompress(tmp_path / "b.dbl"), spelt)
    coded = frame.assign(
        n=np.where(frame["n"] < 1000, 10**15, frame["n"])
    )  # halves the numbers, and one bit each for which
    assert model.compress(coded, tmp_path / "c.dbl") < size
    pd.testing.assert_frame_equal(model.decompress(tmp_path / "c.dbl"), coded)
    mixed = frame.assign(t=rng.choice(["a", "b", "c", "d"], 6000))
    mixed.loc[:50, "t"] = [f"single {i}" for i in range(51)]
    assert model.compress(mixed, tmp_path / "d.dbl") < size + 6000 * 2 / 8 * 1.5 + 51 * 10
    pd.testing.assert_frame_equal(model.decompress(tmp_path / "d.dbl"), mixed)


def test_files_of_the_kind_before_are_read(table, tmp_path):
    frame, model = table
    model.compress(frame, tmp_path / "a.dbl")
    with ContainerReader(tmp_path / "a.dbl") as file:
        pieces = [file.read(i) for i in range(len(file.pieces))]
    with ContainerWriter(tmp_path / "b.dbl", min(row_codes.KINDS), model._coder().fingerprint) as old:
        for piece in pieces:  # which differ where values are new, and none is here
            old.write(piece)
    pd.testing.assert_frame_equal(model.decompress(tmp_path / "b.dbl"), frame, check_exact=True)


def test_a_network_is_as_wide_as_pays():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 30, (400, 6))
    small = Compressor(**QUICK).fit(X)
    more = Compressor(**QUICK).fit(np.concatenate([X] * 100))
    wide = Compressor(width=96, **QUICK).fit(X)
    widths = [m.module_.width for m in (small, more, wide)]
    assert widths[0] < widths[1] <= 128
    assert widths[2] == 96


def test_other_libraries(tmp_path):
    frame = pl.DataFrame(
        {
            "n": [1, None, 3] * 20,
            "x": [1.5, float("nan"), None] * 20,
            "s": ["a", None, ""] * 20,
            "d": [date(2020, 1, 1), None, date(1969, 5, 5)] * 20,
            "t": [datetime(2020, 1, 1, 3, 4, 5, 678), None, datetime(1900, 1, 1)] * 20,
            "u": [timedelta(seconds=3), None, timedelta(days=-1)] * 20,
            "b": [True, None, False] * 20,
            "c": pl.Series(["p", "q", None] * 20, dtype=pl.Categorical),
            "e": pl.Series(["p", "q", None] * 20, dtype=pl.Enum(["q", "p", "r"])),
        }
    )
    model = Compressor(**QUICK).fit(frame)
    model.compress(frame, tmp_path / "a.dbl")
    back = model.decompress(tmp_path / "a.dbl")
    assert back.schema == frame.schema
    assert back.equals(frame)
    arrow = frame.drop("e").to_arrow()
    model = Compressor(**QUICK).fit(arrow)
    model.compress(arrow, tmp_path / "a.dbl")
    back = model.decompress(tmp_path / "a.dbl")
    assert [str(t) for t in back.schema.types] == [str(t) for t in arrow.schema.types]
    assert back.to_pydict().keys() == arrow.to_pydict().keys()
    for name in set(arrow.column_names) - {"x"}:
        assert back[name].to_pylist() == arrow[name].to_pylist()
    assert isinstance(back, pa.Table)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_arrays(dtype, tmp_path):
    X = (np.random.default_rng(0).normal(size=(300, 4)) * 5).astype(dtype)
    model = Compressor(**QUICK).fit(X)
    model.compress(X, tmp_path / "a.dbl")
    back = model.decompress(tmp_path / "a.dbl")
    assert back.dtype == X.dtype
    np.testing.assert_array_equal(back, X)
    np.testing.assert_array_equal(model.decompress(tmp_path / "a.dbl", items=-1), X[-1])


def test_a_file_is_as_long_as_the_rows_are_unlikely(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, 40_000)
    X = np.stack([a, (a + rng.integers(0, 2, 40_000)) % 6, rng.integers(0, 4, 40_000) + a], axis=1)
    model = Compressor(max_steps=150, device="cpu", precision="float32", random_state=0).fit(X)
    size = model.compress(X, tmp_path / "a.dbl")
    layout = model._coder().layout
    with torch.no_grad():
        bits = float(model.module_.nats(torch.from_numpy(layout.symbols(X).symbols)).double().sum()) / np.log(2)
    assert size * 8 == pytest.approx(bits, rel=0.01)
    entropy = 40_000 * (np.log2(6) + 1 + 2)  # of the numbers as they were drawn
    assert entropy * 0.99 < size * 8 < entropy * 1.05


def test_numbers_within_the_largest_error(tmp_path):
    frame = mixed(400)
    model = Compressor(max_error={"pay": 0.01}, **QUICK).fit(frame)
    exact = Compressor(**QUICK).fit(frame)
    size = model.compress(frame, tmp_path / "a.dbl")
    assert size < exact.compress(frame, tmp_path / "b.dbl")
    back = model.decompress(tmp_path / "a.dbl")
    finite = np.isfinite(frame["pay"])
    assert np.abs(back["pay"] - frame["pay"])[finite].max() <= 0.01
    np.testing.assert_array_equal(back["pay"][~finite], frame["pay"][~finite])
    pd.testing.assert_frame_equal(back.drop(columns="pay"), frame.drop(columns="pay"))
    with pytest.raises(ValueError, match="coarser than max_error asks for"):
        model.compress(frame.assign(pay=1e12), tmp_path / "a.dbl")


def test_blocks_and_single_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(row_codes, "CHUNK", 150)
    frame = mixed(400)
    model = Compressor(**QUICK).fit(frame)
    model.compress((frame[i : i + 130] for i in range(0, 400, 130)), tmp_path / "a.dbl")
    seen = []
    whole = model._coder()
    decoded = whole._decoded
    monkeypatch.setattr(whole, "_decoded", lambda data: seen.append(1) or decoded(data))
    pd.testing.assert_frame_equal(
        model.decompress(tmp_path / "a.dbl", items=260).reset_index(drop=True), frame[260:261].reset_index(drop=True)
    )
    assert len(seen) == 1  # of four chunks
    part = model.decompress(tmp_path / "a.dbl", items=slice(100, 300, 3))
    pd.testing.assert_frame_equal(part, frame[100:300:3].reset_index(drop=True))
    assert len(model.decompress(tmp_path / "a.dbl", items=slice(0, 0))) == 0
    with pytest.raises(IndexError, match=r"holds 400 row\(s\)"):
        model.decompress(tmp_path / "a.dbl", items=400)


@pytest.fixture(scope="module")
def digits():
    images = load_digits().images.astype(np.uint8)
    return images, Compressor(lossless=True, **QUICK | {"max_steps": 150, "learning_rate": 3e-3}).fit(images[:1500])


def test_images_come_back_and_learning_shows(digits, tmp_path):
    images, model = digits
    size = model.compress(images[1500:], tmp_path / "a.dbl")
    back = model.decompress(tmp_path / "a.dbl")
    assert back.dtype == images.dtype
    np.testing.assert_array_equal(back, images[1500:])
    p = np.bincount(images.ravel()) / images.size
    assert size * 8 / images[1500:].size < -(p * np.log2(p)).sum() * 0.85  # pixels taken one by one
    odd = images[:5].copy().astype(np.int16)
    odd[0, 0, 0], odd[3, 2, 1] = 999, -1
    model.compress(odd, tmp_path / "a.dbl")
    np.testing.assert_array_equal(model.decompress(tmp_path / "a.dbl"), odd)
    np.testing.assert_array_equal(model.decompress(tmp_path / "a.dbl", items=3), odd[3])


def test_colour_images_come_back_and_channels_tell_of_each_other(tmp_path):
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("china.jpg")
    images = photo[:400, :640].reshape(25, 16, 40, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    model = Compressor(lossless=True, **QUICK | {"max_steps": 60, "batch_size": 64}).fit(images[:900])
    size = model.compress(images[900:], tmp_path / "a.dbl")
    back = model.decompress(tmp_path / "a.dbl")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, images[900:])
    assert size < len(zlib.compress(images[900:].tobytes(), 9)) * 0.85
    odd = images[:3].astype(np.int32) * 5
    model.compress(odd, tmp_path / "a.dbl")
    np.testing.assert_array_equal(model.decompress(tmp_path / "a.dbl", items=slice(1, 3)), odd[1:])
    model.save(tmp_path / "model")
    assert diabolo.load(tmp_path / "model").fingerprint_ == model.fingerprint_


def test_pixels_and_columns_are_told_by_those_before_them_alone():
    torch.manual_seed(0)
    pixels, columns = PixelNetwork((5, 4), 3, 8), ColumnNetwork([3] * 20, 8)
    colours = ColourNetwork((2, 5, 2), 3, 8)
    x = torch.randint(0, 3, (6, 20))
    for network, cost in (
        (pixels, pixels.nats(x.view(6, 5, 4), share=1.0)),
        (columns, columns.nats(x)),
        (colours, colours.nats(x.view(6, 2, 5, 2), share=1.0)),
    ):
        twin, total = exactly(network), torch.zeros(6, dtype=torch.float64)
        with torch.inference_mode():
            known = twin.begin(6)
            for j in range(20):
                log_p = torch.log_softmax(twin.told(known, j), dim=1)
                total -= log_p.gather(1, x[:, j : j + 1])[:, 0]
                twin.see(known, j, x[:, j])
        # walked through one by one it costs what training says; weights are rounded to a 4096th
        torch.testing.assert_close(total.float(), cost.detach(), atol=0.02, rtol=1e-3)


def test_another_process_with_another_number_of_threads(table, tmp_path):
    frame, model = table
    model.save(tmp_path / "model")
    model.compress(frame, tmp_path / "a.dbl")
    code = (
        "import sys, torch, diabolo; torch.set_num_threads(int(sys.argv[2]));"
        "m = diabolo.load(sys.argv[1] + '/model');"
        "m.decompress(sys.argv[1] + '/a.dbl').to_pickle(sys.argv[1] + '/back')"
    )
    for threads in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path), threads], check=True, env=os.environ, timeout=120)
        pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "back"), frame, check_exact=True)  # noqa: S301


def test_saved_and_loaded_it_is_the_same_model(table, digits, tmp_path):
    for X, model in (table, digits):
        model.save(tmp_path / "model")
        again = diabolo.load(tmp_path / "model")
        assert again.fingerprint_ == model.fingerprint_
        assert again.n_features_in_ == X[0].size if isinstance(X, np.ndarray) else X.shape[1]
        for m in (model, again):
            m.compress(X[:40], tmp_path / f"{m is model}.dbl")
        assert (tmp_path / "True.dbl").read_bytes() == (tmp_path / "False.dbl").read_bytes()


def test_damaged_files_are_refused(table, tmp_path):
    frame, model = table
    path, bad = tmp_path / "a.dbl", tmp_path / "bad.dbl"
    model.compress(frame[:60], path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for i in range(200):
        broken = bytearray(data)
        if i % 2:
            broken = broken[: rng.integers(len(data))]
        else:
            broken[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        bad.write_bytes(bytes(broken))
        with pytest.raises(CompressedFileError):
            model.decompress(bad)


def test_bytes_that_match_their_checksum_but_no_writer_made(table, tmp_path):
    """Whatever stands in the pieces, rows or a clear error come out."""
    frame, model = table
    model.compress(frame[:60], tmp_path / "a.dbl")
    with ContainerReader(tmp_path / "a.dbl") as file:
        head = file.read(0)
    rng = np.random.default_rng(1)
    new = [[[[], [[1, 2, [["1", 2]]]]]] * 13, [[[], [[1, "a", 3]]]] * 13, [[[], [[1, 9**9, [[5, 1], [6, -1]]]]]] * 13]
    sides = [b"0", b"[]", b"{}", b"[[1],[2]]", b"null", b"[" * 20, b"\xff", *(json.dumps(n).encode() for n in new)]
    for i in range(60):
        with ContainerWriter(tmp_path / "a.dbl", row_codes.ROWS, model._coder().fingerprint) as file:
            file.write(head if i % 3 else rng.bytes(30))
            side = zlib.compress(sides[i % len(sides)])
            file.write(varint(int(rng.integers(0, 40)), len(side)) + side + rng.bytes(4 * int(rng.integers(0, 90))))
        try:
            assert len(model.decompress(tmp_path / "a.dbl")) < 40
        except CompressedFileError:
            continue


def test_wrong_input_is_named(table, digits, tmp_path):
    frame, model = table
    path = tmp_path / "a.dbl"
    with pytest.raises(ValueError, match="expected the columns"):
        model.compress(frame.drop(columns="age"), path)
    with pytest.raises(ValueError, match="column 'age' is of type Float64; it was Int8 in fit"):
        model.compress(frame.assign(age=0.5), path)
    with pytest.raises(ValueError, match="row labels other than"):
        model.compress(frame[::2], path)
    with pytest.raises(ParameterError, match="this model loses nothing"):
        model.compress(frame, path, quality=3)
    with pytest.raises(ValueError, match="other types or another library"):
        model.compress(iter([frame[:5], frame[5:9].assign(age=frame["id"])]), path)
    with pytest.raises(ValueError, match="no block"):
        model.compress(iter([]), path)
    with pytest.raises(ValueError, match=r"expected columns of numbers, booleans, text or dates; got 'l' \(List\)"):
        Compressor(**QUICK).fit(pl.DataFrame({"l": [[1], [2]]}))
    with pytest.raises(TypeError, match="column 'o' holds"):
        Compressor(**QUICK).fit(pd.DataFrame({"o": [object(), object()]}))
    with pytest.raises(ValueError, match="expected rows, got none"):
        Compressor(**QUICK).fit(frame[:0])
    for error in (0, -1, "much", {"pay": 0}):
        with pytest.raises(ParameterError, match="max_error"):
            Compressor(max_error=error, **QUICK).fit(frame)
    with pytest.raises(ParameterError, match="got \\['age'\\]"):
        Compressor(max_error={"age": 1.0}, **QUICK).fit(frame)
    with pytest.raises(ParameterError, match="max_error is for tables"):
        Compressor(max_error=1.0, lossless=True, **QUICK).fit(digits[0])
    with pytest.raises(ValueError, match="expected a stack of images"):
        Compressor(lossless=True, **QUICK).fit(np.zeros((3, 4, 5, 7), np.uint8))
    with pytest.raises(ValueError, match="whole numbers of at most 32 bits"):
        Compressor(lossless=True, **QUICK).fit(np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match=r"of the shape \(n, 8, 8\)"):
        digits[1].compress(np.zeros((3, 4, 5), np.uint8), path)
    assert not path.exists()
