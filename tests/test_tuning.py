"""The search: what it tries, what it judges by, its budget, its storage."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.datasets import load_iris

import diabolo
from diabolo import (
    VAE,
    AnomalyDetector,
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderRegressor,
    ConditionalVAE,
    DenoisingAutoencoder,
)
from diabolo.tuning.objectives import OBJECTIVES, find_objective, stability
from diabolo.tuning.search import Search, parse_budget
from diabolo.tuning.space import Choices, Range, space_of
from diabolo.tuning.splits import split, take_rows

pytest.importorskip("optuna")

X, Y = load_iris(return_X_y=True)
QUICK = {"hidden": (8,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
SILENT = {"random_state": 0, "verbose": 0}


# what is tried ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10 min", 600), ("90s", 90), ("1.5 hours", 5400), ("2 minutes", 120), (3, 3), ("7", 7), ("1 h", 3600)],
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["ten minutes", "", 0, -1, True, None, "5 days", float("inf")])
def test_budgets_that_are_no_time(text):
    with pytest.raises(ValueError, match="expected a time such as '10 min'"):
        parse_budget(text)


def test_the_usual_space_follows_the_declarations():
    space = space_of(VAE(), "auto", sized=True)
    assert {"hidden", "learning_rate", "latent_dim", "dropout", "kl_warmup", "beta"} - {"beta"} <= set(space)
    assert not {"likelihood", "scale", "device", "random_state", "max_epochs"} & set(space)
    assert "latent_dim" not in space_of(Autoencoder(), "auto", sized=False)
    noise = space_of(DenoisingAutoencoder(), "auto", sized=False)
    assert noise["noise"] == Choices(("gaussian", "masking", "salt_and_pepper", "swap", "occlusion"))
    assert noise["level"].low < 0.3 < noise["level"].high
    inside = space_of(AutoencoderClassifier(Autoencoder()), "auto", sized=True)
    assert {"learning_rate", "dropout", "autoencoder__hidden", "autoencoder__latent_dim"} <= set(inside)
    assert not {"training", "contamination", "method"} & set(
        space_of(AnomalyDetector(Autoencoder()), "auto", sized=True)
    )
    fixed = space_of(VAE(3, dropout=0.1), "auto", sized=True)
    assert not {"latent_dim", "dropout"} & set(fixed)  # the user has chosen them


def test_a_space_of_ones_own():
    space = space_of(
        VAE(),
        {"latent_dim": (2, 8), "learning_rate": (1e-4, 1e-2, "log"), "hidden": [[8], (16,)], "dropout": "auto"},
        sized=True,
    )
    assert space["latent_dim"] == Range(2, 8, whole=True)
    assert space["learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert space["hidden"] == Choices(((8,), (16,)))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"latent_dims": (2, 8)}, "no parameter 'latent_dims'. Did you mean 'latent_dim'"),
        ({"dropout": (0.0, 1.5)}, "dropout=1.5: expected float >= 0 and < 1"),
        ({"activation": ["relu", "rellu"]}, "Did you mean 'relu'"),
        ({"dropout": (0.3, 0.1)}, "expected a pair"),
        ({"learning_rate": (0, 1, "log")}, "low above 0"),
        ({"gradient_clip": "auto"}, "no usual range"),
        ({}, "space is empty"),
        ("all", "expected 'auto'"),
    ],
)
def test_spaces_that_cannot_be(space, message):
    with pytest.raises(ValueError, match=message):
        diabolo.tune(VAE(2, **QUICK), X, space=space, **SILENT)


# what models are judged by ------------------------------------------------------------------------------------------------------


def test_the_objective_that_fits():
    assert find_objective("auto", VAE(), None)[0] == "bound"
    assert find_objective("auto", Autoencoder(), None)[0] == "masked"
    assert find_objective("auto", Autoencoder(), Y)[0] == "downstream"
    assert find_objective("auto", ConditionalVAE(), Y)[0] == "bound"
    assert find_objective("auto", AutoencoderClassifier(), Y)[0] == "prediction"
    assert find_objective("auto", AnomalyDetector(), None)[0] == "anomaly"
    with pytest.raises(ValueError, match="Did you mean 'bound'"):
        find_objective("bouned", VAE(), None)
    with pytest.raises(ValueError, match="needs labels"):
        find_objective("downstream", VAE(), None)
    with pytest.raises(ValueError, match="does not fit AutoencoderClassifier"):
        find_objective("bound", AutoencoderClassifier(), Y)


def test_every_objective_is_a_number_and_says_what_it_should():
    parts = split(VAE(), X, Y, 0.25, 0, predicts=False)
    good = VAE(2, hidden=(16,), max_epochs=60, random_state=0).fit(parts.learn)
    poor = VAE(2, hidden=(16,), max_epochs=1, learning_rate=1e-9, network="mlp", random_state=0).fit(parts.learn)
    for name in ("bound", "masked"):
        assert OBJECTIVES[name](good, parts) > OBJECTIVES[name](poor, parts)
    assert OBJECTIVES["downstream"](good, parts) > 0.8
    assert 0.3 < OBJECTIVES["masked"](good, parts) < 1  # in units of the variance, whatever that of the columns is
    large = split(VAE(), X * 1000, Y, 0.25, 0, predicts=False)
    same = VAE(2, hidden=(16,), max_epochs=60, random_state=0).fit(large.learn)
    assert OBJECTIVES["masked"](same, large) == pytest.approx(OBJECTIVES["masked"](good, parts), abs=1e-3)
    assert 0 <= stability(poor, parts) < stability(good, parts) <= 1
    assert -1 <= OBJECTIVES["anomaly"](good, parts) <= 1


def test_rows_are_split_in_their_own_kind():
    few = np.where(np.arange(150) % 2, Y, -1)
    parts = split(AutoencoderClassifier(), X, few, 0.25, 0, predicts=True)
    assert (parts.judge_y >= 0).all()
    assert len(parts.judge) == round(0.25 * 75)
    assert len(parts.learn) + len(parts.judge) == 150
    index = np.array([3, 1])
    for rows in (pd.DataFrame(X), pl.DataFrame(X), torch.from_numpy(X)):
        taken = take_rows(rows, index)
        assert type(taken) is type(rows)
        np.testing.assert_array_equal(np.asarray(taken), X[index])
    assert take_rows([X[0], X[1]], np.array([1]))[0] is X[1] or np.array_equal(
        take_rows([X[0], X[1]], np.array([1]))[0], X[1]
    )
    with pytest.raises(ValueError, match="X has 5"):
        split(VAE(), X[:5], None, 0.25, 0, predicts=False)


# the search ---------------------------------------------------------------------------------------------------------------------


def search(estimator=None, *, rows=X, y=None, **options):
    given = (
        {"space": {"hidden": [(4,), (8,), (16,)], "learning_rate": (1e-4, 1e-2, "log")}, "n_trials": 5}
        | SILENT
        | options
    )
    return diabolo.tune(VAE(2, **QUICK) if estimator is None else estimator, rows, y, **given)


def test_the_same_seed_makes_the_same_trials_and_the_best_is_fitted_to_all_rows():
    one, two = search(), search()
    assert [(t["params"], t["value"]) for t in one.trials] == [(t["params"], t["value"]) for t in two.trials]
    assert one.trials[0]["params"] == {}  # the estimator as it was given
    assert one.value == max(t["value"] for t in one.trials if t["state"] == "complete")
    assert one.estimator.schema_.n_rows == 150
    again = VAE(2, **QUICK).set_params(**one.params).fit(X)
    np.testing.assert_array_equal(again.transform(X), one.estimator.transform(X))
    table = pd.DataFrame(one.table())
    assert table["value"].iloc[0] == one.value
    assert {"number", "state", "seconds", "hidden", "learning_rate"} <= set(table.columns)
    assert search(random_state=1).trials[1]["params"] != one.trials[1]["params"]


def test_what_is_given_is_kept_where_nothing_is_better():
    found = search(VAE(2, **QUICK | {"max_epochs": 20}), space={"learning_rate": [1e-9, 2e-9]})
    assert found.params == {}
    assert found.estimator.learning_rate == 2e-3


def test_a_budget_of_a_second_still_gives_a_model():
    began = time.process_time()  # of the processor: others may keep it busy
    found = search(VAE(2, hidden=(64, 64), random_state=0), n_trials=None, budget="1 s")  # 500 epochs by default
    assert time.process_time() - began < 10  # imports included; without a limit the first trial alone takes longer
    assert len(found.estimator.history_) > 0
    assert len(found.trials) >= 1


def test_trials_without_hope_are_cut_short():
    model = VAE(2, hidden=(16,), max_epochs=20, random_state=0, network="mlp")
    found = search(model, space={"learning_rate": [1e-9, 2e-3, 3e-3, 4e-3, 5e-3]}, n_trials=14)
    states = {t["state"] for t in found.trials}
    assert "pruned" in states
    for trial in found.trials:
        if trial["state"] == "pruned":
            assert trial["value"] is None
    assert found.params.get("learning_rate", 2e-3) != 1e-9


def test_a_search_goes_on_where_it_was_left(tmp_path):
    storage = tmp_path / "study.log"
    first = search(storage=storage, n_trials=3)
    second = search(storage=storage, n_trials=5)
    whole = search(n_trials=5)
    assert [t["params"] for t in second.trials][:3] == [t["params"] for t in first.trials]
    assert [t["params"] for t in second.trials] == [t["params"] for t in whole.trials]
    with pytest.raises(ValueError, match="holds another search: it differs in space"):
        search(storage=storage, space={"hidden": [(4,)]})
    with pytest.raises(ValueError, match="it differs in rows"):
        search(storage=storage, rows=X[:100])


def test_an_interrupt_keeps_the_best_so_far():
    def stop(run):
        if run.settings.learning_rate != 2e-3:  # in the second trial
            raise KeyboardInterrupt

    found = search(VAE(2, callbacks=(stop,), **QUICK), space={"learning_rate": [1e-3, 3e-3]})
    assert len([t for t in found.trials if t["state"] == "complete"]) == 1
    assert found.params == {}


def test_trials_that_fail_are_noted_and_a_model_that_cannot_be_fitted_is_an_error():
    found = search(space={"likelihood": ["poisson"]}, n_trials=2, objective=lambda model, rows: model.score(rows))
    assert [t["state"] for t in found.trials] == ["complete", "failed"]
    assert "counts are whole numbers" in found.trials[1]["note"]
    with pytest.raises(ValueError, match="no observed value"):
        search(rows=np.column_stack([X, np.full(150, np.nan)]))


def test_estimators_that_predict():
    model = AutoencoderClassifier(Autoencoder(2, **QUICK), n_models=1, max_steps=50)
    found = search(model, y=np.where(np.arange(150) % 3, Y, -1), space={"dropout": (0.0, 0.5)}, n_trials=2)
    assert found.objective == "prediction"
    assert found.estimator.score(X, Y) > 0.8
    model = AutoencoderRegressor(Autoencoder(2, **QUICK), method="frozen")
    assert search(model, rows=X[:, 1:], y=X[:, 0], space={"autoencoder__latent_dim": (1, 3)}, n_trials=2).value > 0.7


PROGRAM = """
import diabolo
from sklearn.datasets import load_iris
model = diabolo.VAE(2, hidden=(8,), max_epochs=3, random_state=0, device="cpu")
found = diabolo.tune(model, load_iris().data, space={"learning_rate": (1e-4, 1e-2, "log")}, n_trials=8, storage="study.log",
                     random_state=0, verbose=0)
print(found.value)
"""


def test_two_processes_share_one_search(tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert all(process.returncode == 0 for process in both), said
    found = search(
        VAE(2, **QUICK), space={"learning_rate": (1e-4, 1e-2, "log")}, n_trials=8, storage=tmp_path / "study.log"
    )
    rates = [t["params"]["learning_rate"] for t in found.trials if t["params"]]
    assert len(set(rates)) == len(rates)  # no trial was made twice
    assert 8 <= len(found.trials) <= 10  # each may have had one on its way when the eighth was done


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"diabolo\[tune\]"):
        Search(VAE(2), X, None, "auto", "auto", 1, None, None, 0, 0)


def test_the_page_of_a_search_shows_its_trials(tmp_path):
    from diabolo.report import write_search

    found = search(
        space={"hidden": [(4,), (8,)], "learning_rate": (1e-4, 1e-2, "log"), "dropout": (0.0, 0.5)}, n_trials=6
    )
    page = write_search(found, tmp_path / "pages" / "search.html", title="Which <VAE>?").read_text()
    assert "Which &lt;VAE&gt;?" in page
    assert page.count('<svg class="chart"') == 4  # the course, and each parameter
    assert page.count("<circle") == 6 + 3 * 5  # the first trial is no point of the space
    for name in ("learning_rate", "hidden", "dropout", "(8,)"):
        assert name in page
    alone = write_search(search(n_trials=1), tmp_path / "one.html").read_text()
    assert "the model as it was given" in alone
    assert "http:" not in page
    assert "https:" not in page
