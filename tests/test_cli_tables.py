"""The command line on tables as they come: text, dates and holes; filling them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diabolo import load
from diabolo.cli.app import main
from test_columns import table

FAST = ["--max-epochs", "3", "--hidden", "16", "--seed", "0", "--device", "cpu", "--quiet"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table(150, missing=False).drop(columns=["waited", "sure"])
    frame["seen"] = frame["seen"].dt.strftime("%Y-%m-%d")
    frame = frame.astype({"kind": str, "grade": str})
    frame.to_csv("whole.csv", index=False)
    holes = frame.astype(object).mask(np.random.default_rng(0).random(frame.shape) < 0.2)
    holes.to_csv("holes.csv", index=False, na_rep="?")
    return holes


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_a_table_is_learned_rebuilt_scored_and_generated(files, capsys):
    assert main(["fit", "holes.csv", "--model", "vae", "-o", "m", "--columns", "grade=ordinal", *FAST]) == 0
    assert main(["info", "m", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    kinds = {c["column"]: c["kind"] for c in facts["columns"]}
    assert kinds == {
        "age": "number", "income": "number", "colour": "category", "member": "boolean", "flag": "boolean",
        "seen": "date", "grade": "ordinal", "kind": "category", "count": "number",
    }  # fmt: skip
    assert facts["row"] == "9 columns, 12 features"
    for command in (["reconstruct", "m", "holes.csv"], ["sample", "m", "-n", "5", "--noise"]):
        assert main([*command, "-o", "out.csv"]) == 0
        out = pd.read_csv("out.csv")
        assert list(out.columns) == list(files.columns)
        assert not out.isna().any().any()
        assert set(out["colour"]) <= {"red", "green", "blue"}
        assert pd.to_datetime(out["seen"]).between("2019-01-01", "2021-12-31").all()
    assert main(["sample", "m", "-o", "out.parquet"]) == 0
    assert pd.read_parquet("out.parquet")["seen"].dtype.kind == "M"
    assert main(["score", "m", "holes.csv"]) == 0
    assert main(["embed", "m", "whole.csv", "-o", "codes.npy"]) == 0
    assert main(["report", "m", "holes.csv", "-o", "r.html"]) == 0
    assert "colour = red" in Path("r.html").read_text()
    capsys.readouterr()
    assert main(["sample", "m", "-o", "out.npy"]) == 2
    assert "go into .csv or .parquet" in capsys.readouterr().err


def test_anomalies_name_columns_of_text(files, capsys):
    assert main(["anomalies", "whole.csv", *FAST]) == 0
    assert set(rows_of(capsys)[0]) >= {"row", "score", "anomaly", "feature_1"}


def rows_of(capsys):
    return list(csv.reader(capsys.readouterr().out.splitlines()))


@pytest.mark.parametrize("fitted", [False, True])
def test_holes_are_filled_and_nothing_else(files, fitted, capsys):
    if fitted:
        assert main(["fit", "holes.csv", "--imputer", "-o", "m", *FAST]) == 0
        assert load("m").models_[0].likelihood == "learned_gaussian"
        assert main(["info", "m"]) == 0
        assert "imputer" in capsys.readouterr().out
    start = ["impute", *(["m", "holes.csv"] if fitted else ["holes.csv", *FAST])]
    assert main([*start, "-o", "full.csv"]) == 0
    assert "error on hidden cells" in capsys.readouterr().err or not fitted
    before, after = rows("holes.csv"), rows("full.csv")
    assert before[0] == after[0]
    for a, b in zip(before[1:], after[1:], strict=True):
        for cell, full in zip(a, b, strict=True):
            assert full not in ("", "?")
            assert cell == "?" or cell == full or float(cell) == float(full)
    assert main([*start, "-o", "full.csv", "--draws", "2"]) == 0
    assert rows("full_1.csv") != rows("full_2.csv")


def test_a_model_fills_too_and_what_it_cannot_do_is_said(files, capsys):
    assert main(["fit", "whole.csv", "--model", "vae", "-o", "m", *FAST]) == 0
    assert main(["impute", "m", "holes.csv", "-o", "full.csv"]) == 0
    assert not pd.read_csv("full.csv").isna().any().any()
    for command, message in (
        (["impute", "m", "holes.csv", "-o", "f.csv", "--draws", "2"], "does not know how sure it is"),
        (["impute", "holes.csv", "--draws", "2", *FAST], "name them with --output"),
        (["impute", "m"], "name the data file to fill"),
        (["impute", "m", "holes.csv", "--hidden", "8"], "leave out --hidden"),
        (["fit", "whole.csv", "--imputer", "--detector", "-o", "n"], "are 2 things"),
    ):
        assert main(command) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_dates_and_text_are_seen_in_a_file(files, capsys):
    assert main(["info", "holes.csv", "--json"]) == 0
    kinds = {c["column"]: c["kind"] for c in json.loads(capsys.readouterr().out)["columns"]}
    assert kinds["seen"] == "date"
    assert kinds["colour"] == "text"
