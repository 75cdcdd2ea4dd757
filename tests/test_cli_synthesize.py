"""The command that makes synthetic tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import diabolo
from diabolo.cli import main


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    kind = rng.choice(["x", "y"], 300, p=[0.8, 0.2])
    age = np.where(kind == "x", 30, 60) + rng.integers(-5, 6, 300)
    pd.DataFrame({"age": age, "kind": kind, "pay": np.where(rng.random(300) < 0.3, np.nan, 10.5 * age)}).to_csv(
        folder / "people.csv", index=False
    )
    code = main(
        [
            "synthesize",
            str(folder / "people.csv"),
            "-n",
            "5",
            "--save",
            str(folder / "kept"),
            "--seed",
            "0",
            "--quiet",
            "-o",
            str(folder / "five.csv"),
        ]
    )
    assert code == 0
    return folder


@pytest.fixture
def run(home, monkeypatch, capsys):
    monkeypatch.chdir(home)

    def call(*tokens):
        capsys.readouterr()
        return main([str(t) for t in tokens]), *capsys.readouterr()

    return call


def test_rows_of_a_kept_synthesizer(run):
    assert run("synthesize", "kept", "-n", 400, "--seed", 1, "-o", "new.csv")[0] == 0
    made, real = pd.read_csv("new.csv"), pd.read_csv("people.csv")
    assert list(made.columns) == list(real.columns)
    assert made["age"].dtype == real["age"].dtype
    assert made["pay"].isna().mean() == pytest.approx(0.3, abs=0.12)  # of 400 rows, from a model of 300
    code, out, _ = run("synthesize", "kept", "-n", 50, "--condition", "kind=y", "--bounds", "age=58:62,pay=0:")
    assert code == 0
    rows = [line.split(",") for line in out.strip().splitlines()[1:]]
    assert len(rows) == 50
    assert all(58 <= float(a) <= 62 and k == "y" and float(p) > 0 for a, k, p in rows)


def test_balance_and_report(run):
    assert run("synthesize", "people.csv", "--balance", "kind", "--seed", 0, "--quiet", "-o", "more.csv")[0] == 0
    assert pd.read_csv("more.csv")["kind"].value_counts().nunique() == 1
    code, _, said = run("synthesize", "people.csv", "-n", 20, "--report", "--seed", 0, "--quiet", "-o", "new.parquet")
    assert code == 0
    assert "rows of fit told from others" in said
    assert len(pd.read_parquet("new.parquet")) == 20


def test_other_commands_know_what_they_have(run):
    code, out, _ = run("info", "kept", "--json")
    assert code == 0
    assert '"TableSynthesizer"' in out
    assert '"holds": "labels"' in out
    for command in (("sample", "kept"), ("embed", "kept", "people.csv")):
        code, _, err = run(*command)
        assert code == 2
        assert "diabolo synthesize kept" in err
    diabolo.CodePrior("normal").fit(np.random.default_rng(0).normal(size=(50, 2))).save("prior")
    assert '"normal"' in run("info", "prior", "--json")[1]
    assert "holds a CodePrior alone" in run("sample", "prior")[2]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("kept", "--condition", "kind"), "expected COLUMN=VALUE"),
        (("kept", "--condition", "kin=y"), "Did you mean 'kind'?"),
        (("kept", "--condition", "kind=z"), "has no label 'z'"),
        (("kept", "--bounds", "age=5"), "expected LOW:HIGH"),
        (("kept", "--bounds", "age=500:"), "no value seen in fit lies there"),
        (("kept", "--report"), "need the data file"),
        (("people.csv", "-o", "new.npy"), "expected a name that ends in"),
        (("nothing.csv",), "nothing.csv"),
    ],
)
def test_errors(run, tokens, said):
    code, _, err = run("synthesize", *tokens)
    assert code in (1, 2)
    assert said in err
