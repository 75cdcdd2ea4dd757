"""The commands that predict, search and advise."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris

import diabolo
from diabolo.cli import main
from diabolo.tuning.advice import advise

QUICK = ["--max-epochs", "3", "--hidden", "8", "--latent-dim", "2", "--seed", "0", "--quiet"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    iris = load_iris(as_frame=True)
    frame = iris.frame.drop(columns="target").assign(species=iris.target_names[iris.target])
    frame.loc[np.random.default_rng(0).random(150) < 0.6, "species"] = None
    frame.to_csv(folder / "iris.csv", index=False)
    return folder


@pytest.fixture
def run(home, capsys, monkeypatch):
    monkeypatch.chdir(home)

    def call(*tokens):
        code = main([str(t) for t in tokens])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def test_a_classifier_of_a_file_and_its_predictions(run, home):
    assert run("fit", "iris.csv", "-o", "c", "--classifier", "--labels", "species", *QUICK)[0] == 0
    code, out, _ = run("predict", "c", "iris.csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == 150
    right = np.mean([r["prediction"] == t for r, t in zip(rows, np.repeat(load_iris().target_names, 50), strict=True)])
    assert right > 0.9
    chances = np.array([[float(r[f"p({name})"]) for name in load_iris().target_names] for r in rows])
    np.testing.assert_allclose(chances.sum(1), 1)
    assert "setosa, versicolor, virginica" in run("info", "c")[1]
    for command in ("embed", "score", "reconstruct", "anomalies", "impute"):  # the model inside does its jobs, too
        assert run(command, "c", "iris.csv")[0] == 0
    assert run("report", "c", "iris.csv", "-o", "c.html")[0] == 0
    assert diabolo.load(home / "c").verbose == 0


def test_a_regressor_of_a_file(run):
    name = "petal width (cm)"
    assert run("fit", "iris.csv", "-o", "r", "--regressor", "--labels", name, "--exclude", "species", *QUICK)[0] == 0
    code, out, _ = run("predict", "r", "iris.csv", "-o", "p.parquet")
    assert (code, out) == (0, "")
    found = pd.read_parquet("p.parquet")["prediction"]
    assert np.corrcoef(found, load_iris().data[:, 3])[0, 1] > 0.9


def test_what_cannot_be_predicted(run):
    code, _, err = run("fit", "iris.csv", "-o", "x", "--classifier", *QUICK)
    assert code == 2
    assert "name it with --labels COLUMN" in err
    code, _, err = run("fit", "iris.csv", "-o", "x", "--classifier", "--detector", *QUICK)
    assert code == 2
    assert "are 2 things" in err
    run("fit", "iris.csv", "-o", "plain", "--exclude", "species", *QUICK)
    code, _, err = run("predict", "plain", "iris.csv")
    assert code == 2
    assert "holds no classifier" in err


def test_a_search_of_a_file(run, home):
    tokens = ["tune", "iris.csv", "--exclude", "species", "--model", "vae", "--trials", "3", "--storage", "study.log"]
    code, _, err = run(*tokens, "-o", "best", "--table", "trials.csv", "--report", "s.html", *QUICK[:-1])
    assert code == 0
    assert "best of 3 trials: bound" in err
    assert "<svg" in (home / "s.html").read_text()
    model = diabolo.load(home / "best")
    assert (model.latent_dim, model.hidden, model.max_epochs) == (2, (8,), 3)  # flags hold for all trials
    table = pd.read_csv("trials.csv")
    assert len(table) == 3
    assert {"value", "state", "learning_rate"} <= set(table.columns)
    code, _, err = run(*tokens, "-o", "best", *QUICK)
    assert code == 1
    assert "already holds a model" in err
    assert run("tune", "iris.csv", "-o", "y", "--objective", "downstream", *QUICK)[0] == 2


def test_advice_of_a_file_is_a_command_that_runs(run):
    code, out, _ = run("advise", "iris.csv", "--exclude", "species")
    assert code == 0
    assert "start with Autoencoder" in out
    command = next(line for line in out.splitlines() if line.startswith("diabolo fit")).split()[1:]
    assert run(*command, "--max-epochs", "1", "--quiet")[0] == 0


def test_advice_follows_the_data():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 10))
    assert advise(normal).facts["components of 90 % of the variance"] <= 3
    assert advise(normal).parameters["latent_dim"] <= 3
    assert advise(np.where(rng.random(normal.shape) < 0.2, np.nan, normal)).model == "MaskedAutoencoder"
    assert advise(np.where(rng.random(normal.shape) < 0.01, 1e3, normal)).model == "RobustAutoencoder"
    counts = advise(rng.poisson(rng.gamma(0.3, 3, (1, 120)), (300, 120)))
    assert counts.parameters["likelihood"] == "negative_binomial"
    assert advise((rng.random((300, 8)) < 0.3).astype(float)).model == "Autoencoder"
    assert advise(pd.DataFrame(normal).assign(kind=["a", "b", "c"] * 100).rename(columns=str)).model == "VAE"
    assert "network" not in advise(load_digits().images).parameters
    assert advise(np.zeros((5000, 4, 4)) + rng.random((5000, 1, 1))).parameters["network"] == "shortcut_conv"
    assert advise([rng.normal(size=n) for n in (20, 30, 25)]).parameters["kind"] == "series"
    with pytest.raises(ValueError, match="no observed value"):
        advise(np.full((5, 2), np.nan))
