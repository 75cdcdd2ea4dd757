"""`diabolo compress` and `diabolo decompress` of tables: cells and types come back, the model stays beside the file."""

import numpy as np
import polars as pl
import pytest

import diabolo
from diabolo.cli.app import main

pytest.importorskip("constriction")
QUICK = ["--steps", "5", "--seed", "0"]


@pytest.fixture
def text(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "n": [None if i % 7 == 0 else int(v) for i, v in enumerate(rng.integers(0, 50, 300))],
            "x": rng.normal(size=300).round(2),
            "zip": [f"{v:05d}" for v in rng.integers(0, 10**5, 300)],
            "label": ["yes, sir" if v < 0.3 else "?" for v in rng.random(300)],
            "day": pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 10, 26), "1d", eager=True),
            "at": pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 1, 4, 59), "1m", eager=True),
        }
    )
    path = tmp_path / "table.csv"
    frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    return path


def test_text_comes_back_byte_for_byte(text, tmp_path, capsys):
    file = tmp_path / "table.dbl"
    assert main(["compress", str(text), "-o", str(file), *QUICK]) == 0
    said = capsys.readouterr().err
    folder = tmp_path / "table.model"
    of_model = sum(p.stat().st_size for p in folder.iterdir())
    assert f"{file.stat().st_size + of_model:,} together" in said
    assert "bz2 makes" in said
    assert main(["decompress", str(file), "-o", str(tmp_path / "back.csv")]) == 0
    assert (tmp_path / "back.csv").read_bytes() == text.read_bytes()
    assert main(["decompress", str(file), "-o", str(tmp_path / "back.parquet")]) == 0
    back = pl.read_parquet(tmp_path / "back.parquet")
    assert back.schema == {
        "n": pl.Int64, "x": pl.Float64, "zip": pl.String, "label": pl.String, "day": pl.Date, "at": pl.Datetime("us"),
    }  # fmt: skip
    assert back.equals(pl.read_csv(text, schema_overrides=back.schema))


@pytest.mark.parametrize(("rows", "lines"), [("7", [7]), ("10:20", range(10, 20)), ("-2:", [298, 299]), ("-1", [299])])
def test_some_rows(text, tmp_path, rows, lines):
    file, model = tmp_path / "a.dbl", tmp_path / "model"
    assert main(["compress", str(text), "-o", str(file), "--save", str(model), *QUICK, "--quiet"]) == 0
    words = ["decompress", str(file), "-o", str(tmp_path / "b.csv"), "--model", str(model), f"--rows={rows}"]
    assert main(words) == 0
    whole = text.read_text().splitlines()
    assert (tmp_path / "b.csv").read_text().splitlines() == [whole[0], *(whole[1 + i] for i in lines)]


def test_parts_of_a_table_in_a_folder(tmp_path, monkeypatch, capsys):
    from diabolo.cli import rows

    monkeypatch.setattr(rows, "BLOCK", 64)
    frame = pl.DataFrame(
        {
            "a": np.arange(200, dtype=np.int16) % 7,
            "b": [1.5, None] * 100,
            "c": pl.Series(["p", "q"] * 100).cast(pl.Categorical),
        }
    )
    parts = tmp_path / "parts"
    parts.mkdir()
    frame[:120].write_parquet(parts / "0.parquet")
    frame[120:].write_parquet(parts / "1.parquet")
    assert main(["compress", str(parts), "-o", str(tmp_path / "a.dbl"), *QUICK]) == 0
    assert main(["decompress", str(tmp_path / "a.dbl"), "-o", str(tmp_path / "b.parquet")]) == 0
    assert "200 row(s)" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "b.parquet").equals(frame)
    new = ["compress", str(parts / "1.parquet"), "-o", str(tmp_path / "c.dbl"), "--model", str(tmp_path / "a.model")]
    assert main(new) == 0
    assert (
        main(
            [
                "decompress",
                str(tmp_path / "c.dbl"),
                "-o",
                str(tmp_path / "c.parquet"),
                "--model",
                str(tmp_path / "a.model"),
            ]
        )
        == 0
    )
    assert pl.read_parquet(tmp_path / "c.parquet").equals(frame[120:])


def test_numbers_written_otherwise_are_said(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("price,left\n1.50,3\n2.25,NA\n1e3,4.5\n" * 1 + "7.,\n")
    assert main(["compress", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.dbl"), *QUICK]) == 0
    assert "price, left: kept as numbers" in capsys.readouterr().err
    assert main(["decompress", str(tmp_path / "a.dbl"), "-o", str(tmp_path / "b.csv")]) == 0
    assert (tmp_path / "b.csv").read_text() == "price,left\n1.5,3.0\n2.25,\n1000.0,4.5\n7.0,\n"


def test_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 4, (20, 5, 6)).astype(np.uint8)
    for name, X in (("rows", images.reshape(20, 30).astype(np.float32)), ("images", images)):
        np.save(tmp_path / f"{name}.npy", X)
        assert main(["compress", str(tmp_path / f"{name}.npy"), "-o", str(tmp_path / f"{name}.dbl"), *QUICK]) == 0
        assert main(["decompress", str(tmp_path / f"{name}.dbl"), "-o", str(tmp_path / "back.npy")]) == 0
        back = np.load(tmp_path / "back.npy")
        assert back.dtype == X.dtype
        np.testing.assert_array_equal(back, X)


def test_what_goes_wrong(text, tmp_path, capsys):
    file, out = str(tmp_path / "a.dbl"), ["-o", str(tmp_path / "b.csv")]
    diabolo.Autoencoder(2, max_epochs=1).fit(np.eye(9)).save(tmp_path / "other")
    assert main(["compress", str(text), "-o", file, "--save", str(tmp_path / "model"), *QUICK, "--quiet"]) == 0
    for words, said in (
        (["compress", str(text), "-o", file, "--quality", "3"], "are for images"),
        (["compress", str(text), "-o", file, "--model", str(tmp_path / "other")], "expected a Compressor"),
        (["decompress", file, *out], "say with --model"),
        (["decompress", file, *out, "--model", str(tmp_path / "model"), "--rows", "a:b"], "expected a number, or two"),
        (["decompress", file, "-o", str(tmp_path / "b.png"), "--model", str(tmp_path / "model")], "ends in .csv"),
        (["decompress", file, "-o", str(tmp_path / "b.npy"), "--model", str(tmp_path / "model")], "tables go into"),
    ):
        assert main(words) != 0, words
        assert said in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()
