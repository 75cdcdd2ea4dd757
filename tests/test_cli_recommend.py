"""`diabolo recommend` on files of events."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import diabolo
from diabolo import EASE, Autoencoder, Recommender
from diabolo.cli.app import main
from test_recommender import X, events


@pytest.fixture
def file(tmp_path):
    events().to_csv(tmp_path / "events.csv", index=False)
    return tmp_path / "events.csv"


@pytest.fixture
def folder(file, tmp_path):
    options = ["--rating", "stars", "--time", "when", "--model", "ease", "--seed", "0", "--quiet"]
    assert main(["recommend", "fit", str(file), "-o", str(tmp_path / "m"), *options]) == 0
    return tmp_path / "m"


def table(capsys):
    out = capsys.readouterr().out
    rows = [line.split(",") for line in out.strip().splitlines()]
    return pd.DataFrame(rows[1:], columns=rows[0])


def test_fit_says_how_good_it_is(file, tmp_path, capsys):
    options = ["--time", "when", "--model", "ease,item-popularity", "--evaluate", "time", "--seed", "0"]
    assert main(["recommend", "fit", str(file), "-o", str(tmp_path / "m"), *options]) == 0
    said = capsys.readouterr().err
    assert "ndcg@10: " in said
    assert "NDCG on users held out, blend: " in said
    assert f"200 users, 30 items, {X.sum()} choices: EASE, ItemPopularity" in said


def test_recommend(folder, file, capsys):
    model = diabolo.load(folder)
    assert main(["recommend", str(folder), "--user", "u17,u3", "-k", "4"]) == 0
    found = table(capsys)
    assert found["user"].tolist() == ["u17"] * 4 + ["u3"] * 4
    assert found["item"].astype(int).tolist() == model.recommend(["u17", "u3"], 4)["item"].to_list()
    assert main(["recommend", str(folder), "--history", "103, 106", "-k", "3"]) == 0
    assert table(capsys)["item"].astype(int).tolist() == model.recommend(history=[103, 106], k=3)["item"].to_list()
    assert main(["recommend", str(folder), "--similar", "103", "-k", "3"]) == 0
    assert table(capsys)["item"].astype(int).tolist() == model.similar_items(103, 3)["item"].to_list()
    assert main(["recommend", str(folder), "--user", "u17", "--why", "103"]) == 0
    assert set(table(capsys)["item"].astype(int)) <= set(np.flatnonzero(X[17]) + 100)
    assert main(["recommend", str(folder), str(file), "-k", "2", "-o", str(file.with_name("all.csv"))]) == 0
    assert len(pd.read_csv(file.with_name("all.csv"))) == 400
    assert main(["info", str(folder)]) == 0
    assert "Recommender" in capsys.readouterr().out


def test_the_page(folder, file, tmp_path, capsys):
    assert main(["report", str(folder), str(file), "-o", str(tmp_path / "page.html"), "--title", "A shop"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<title>A shop</title>" in page
    assert "Learned from" in page
    assert "page.html" in capsys.readouterr().err


def test_wrong_calls(folder, file, tmp_path, capsys):
    for line, message in (
        (["recommend", str(folder), "--user", "u17", "--similar", "103"], "give one of a file of events, --user"),
        (["recommend", str(folder), "--history", "tea"], "ids are whole numbers here, and 'tea' is none"),
        (["recommend", str(folder), "--why", "103"], "--why is about one user"),
        (["recommend", str(folder), "--user", "u1700"], "1 user(s) were not in fit: 'u1700'"),
        (["embed", str(folder), str(file)], "holds a recommender; use it with diabolo recommend"),
        (["recommend", "fit", str(file), "-o", str(tmp_path / "n"), "--user", "who"], "no column 'who'"),
        (["recommend", "fit", str(file), "-o", str(tmp_path / "n"), "--model", "eases"], "there is no model 'eases'"),
    ):
        assert main(line) in (1, 2)
        assert message in " ".join(capsys.readouterr().err.split())
    Autoencoder(1, max_epochs=1, random_state=0).fit(X.astype(float)).save(tmp_path / "ae")
    assert main(["recommend", str(tmp_path / "ae")]) == 2
    assert "holds no recommender" in capsys.readouterr().err
    Recommender(EASE(l2=1.0)).fit(X).save(tmp_path / "matrix")
    assert main(["recommend", str(tmp_path / "matrix")]) == 2
    assert "was fitted to a matrix" in capsys.readouterr().err
