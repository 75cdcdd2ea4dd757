"""Conditional models on the command line."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from sklearn.datasets import load_iris

from diabolo.cli.app import main

iris = load_iris()
COLUMNS = ["sepal", "width", "petal", "wide", "kind"]
QUICK = ["--epochs", "3", "--hidden", "8", "--seed", "0", "--quiet"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Make tables whose last column is a number or text, and a model of each."""
    folder = tmp_path_factory.mktemp("conditions")
    for name, kinds in (("numbers", iris.target), ("text", iris.target_names[iris.target])):
        rows = [[*row, kind] for row, kind in zip(iris.data.tolist(), kinds.tolist(), strict=True)]
        rows[3][-1] = rows[3][-1] if name == "numbers" else ""  # unknown
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    fit = ["fit", "--model", "conditional_vae", *QUICK]
    assert main([*fit, str(folder / "numbers.csv"), "-o", str(folder / "columns"), "--condition", "kind,width"]) == 0
    assert main([*fit, str(folder / "text.csv"), "-o", str(folder / "labels"), "--labels", "kind"]) == 0
    return folder


@pytest.fixture
def run(home, capsys, monkeypatch):
    """Run a command in the folder; return exit code, standard output and standard error."""
    monkeypatch.chdir(home)
    capsys.readouterr()

    def call(*tokens):
        code = main(list(tokens))
        return code, *capsys.readouterr()

    return call


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_columns_are_read_handed_back_and_chosen(run):
    code, out, _ = run("sample", "columns", "-n", "2", "--condition", "width=3,kind=1")
    assert code == 0
    assert [(float(r["kind"]), float(r["width"])) for r in table(out)] == [(1, 3)] * 2
    assert [float(r["width"]) for r in table(run("sample", "columns", "-n", "2", "--condition", "1,3")[1])] == [3, 3]
    rebuilt = table(run("reconstruct", "columns", "numbers.csv")[1])
    np.testing.assert_array_equal([float(r["kind"]) for r in rebuilt], iris.target)
    assert list(rebuilt[0]) == COLUMNS
    assert len(table(run("sample", "columns", "-n", "3")[1])) == 3


def test_labels_are_the_condition(run):
    with_labels = table(run("score", "labels", "text.csv", "--labels", "kind")[1])
    without = table(run("score", "labels", "text.csv")[1])
    assert len(with_labels) == len(without) == 150
    assert with_labels[3] == without[3]  # unknown
    assert with_labels[4] != without[4]
    assert list(table(run("sample", "labels", "--condition", "setosa")[1])[0]) == COLUMNS[:4]
    assert "conditionalvae0" in table(run("embed", "labels", "text.csv", "--labels", "kind")[1])[0]
    assert len(table(run("reconstruct", "labels", "text.csv", "--labels", "kind")[1])) == 150
    assert "setosa" not in run("info", "labels", "--json")[1]
    assert "y: 3 classes" in run("info", "labels", "--json")[1]


def test_reports(run, home):
    assert run("report", "labels", "text.csv", "--labels", "kind", "-o", "told.html")[0] == 0
    assert run("report", "labels", "text.csv", "-o", "untold.html")[0] == 0
    assert run("report", "columns", "numbers.csv", "--labels", "kind", "-o", "columns.html")[0] == 0
    pages = [(home / f"{name}.html").read_text(encoding="utf-8") for name in ("told", "untold", "columns")]
    assert all("ConditionalVAE" in page for page in pages)
    assert pages[0] != pages[1]


def test_a_detector(run):
    fit = ["fit", "numbers.csv", "--model", "conditional-vae", "--condition", "kind", "--condition-kind", "classes"]
    assert run(*fit, "--detector", "-o", "detector", *QUICK)[0] == 0
    code, out, _ = run("anomalies", "detector", "numbers.csv")
    assert code == 0
    assert len(table(out)) == 150
    assert run("report", "detector", "numbers.csv", "-o", "detector.html")[0] == 0
    again = run(*fit, "--detector", "--labels", "kind", "-o", "other", *QUICK)
    assert again[0] == 2
    assert "--labels is the condition of conditional-vae, where --condition names no columns" in again[2]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["sample", "labels", "--condition", "setose"], "Did you mean 'setosa'?"),
        (["sample", "labels", "--condition", "species=setose"], "the condition 'y' has 'setose'"),
        (
            ["sample", "columns", "--condition", "kind=1,widht=2"],
            "there is no condition 'widht'. Did you mean 'width'?",
        ),
        (["sample", "columns", "--condition", "1"], "expected 2 values, for kind, width"),
        (["sample", "columns", "--condition", "1,wide"], "the condition 'width' has 'wide'; expected numbers"),
        (
            ["score", "columns", "numbers.csv", "--labels", "kind"],
            "--labels is for a conditional-vae fitted with --labels",
        ),
        (
            ["fit", "text.csv", "-o", "m", "--model", "vae", "--labels", "kind"],
            "--labels is the condition of conditional-vae",
        ),
        (["fit", "numbers.csv", "-o", "m", "--model", "conditional-vae"], "--labels COLUMN or --condition COLUMN,..."),
        (
            ["fit", "numbers.csv", "-o", "m", "--model", "conditional-vae", "--condition", "knid"],
            "Did you mean 'kind'?",
        ),
        (
            ["fit", "text.csv", "-o", "m", "--model", "conditional-vae", "--labels", "knd"],
            "no column 'knd' for --labels",
        ),
    ],
)
def test_bad_conditions(run, tokens, message):
    code, _, err = run(*tokens)
    assert code != 0
    assert message in err
    assert "Traceback" not in err


def test_a_model_without_a_condition(run):
    assert run("fit", "numbers.csv", "-o", "plain", "--model", "vae", *QUICK)[0] == 0
    code, _, err = run("sample", "plain", "--condition", "1")
    assert code == 2
    assert "VAE was fitted without a condition; leave --condition out" in err
