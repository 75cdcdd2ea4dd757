"""The commands of the latent space: interpolate, latent map, traverse, prior, diagnose; and what sample gained by them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris

import diabolo
from diabolo import VAE, Autoencoder, ConditionalVAE
from diabolo.cli import main
from diabolo.latent import interpolate

QUICK = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
FRAME = load_iris(as_frame=True).data.round(3).set_axis(["a", "b", "c", "d"], axis=1)
KINDS = np.array(["x", "y", "z"])[load_iris().target]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("latent")
    FRAME.assign(kind=KINDS).to_csv(here / "iris.csv", index=False)
    Autoencoder(2, **QUICK).fit(FRAME).save(here / "plain")
    VAE(2, **QUICK).fit(FRAME).save(here / "vae")
    digits = load_digits().images[:60]
    np.save(here / "digits.npy", digits)
    VAE(3, **QUICK).fit(digits).save(here / "images")
    return here


def run(*tokens):
    return main([str(t) for t in tokens])


def test_interpolate_writes_rows_and_figures(folder, tmp_path):
    out = tmp_path / "ways.csv"
    assert run("interpolate", folder / "plain", folder / "iris.csv", "--rows", "3,120,7,80", "-n", 4, "-o", out) == 0
    model = diabolo.load(folder / "plain")
    expected = interpolate(model, FRAME.iloc[[3, 7]], FRAME.iloc[[120, 80]], 4)
    np.testing.assert_allclose(pd.read_csv(out), expected, rtol=1e-5)
    for source, data, suffix in (
        ("plain", "iris.csv", "svg"),
        ("images", "digits.npy", "svg"),
        ("images", "digits.npy", "png"),
    ):
        figure = tmp_path / f"ways.{suffix}"
        assert run("interpolate", folder / source, folder / data, "--rows", "0,5", "-o", figure) == 0
        assert figure.read_bytes()[:4] in (b"<svg", b"\x89PNG")
        if suffix == "svg":
            ET.fromstring(figure.read_text())  # well-formed


def test_map_traverse_and_diagnose(folder, tmp_path, capsys):
    figure = tmp_path / "map.svg"
    assert (
        run("latent", "map", folder / "vae", folder / "iris.csv", "--labels", "kind", "--method", "pca", "-o", figure)
        == 0
    )
    texts = [e.text for e in ET.fromstring(figure.read_text()).iter() if e.tag.endswith("text")]
    assert {"x", "y", "z"} <= set(texts)
    assert run("latent", "map", folder / "vae", folder / "iris.csv", "--method", "pca", "-o", tmp_path / "map.csv") == 0
    assert pd.read_csv(tmp_path / "map.csv").shape == (150, 2)
    assert run("latent", "traverse", folder / "vae", folder / "iris.csv", "--units", "1", "-o", tmp_path / "u.svg") == 0
    assert "unit 1" in (tmp_path / "u.svg").read_text()
    capsys.readouterr()
    assert run("latent", "diagnose", folder / "vae", folder / "iris.csv") == 0
    assert "units in use" in capsys.readouterr().out


def test_a_prior_is_learned_kept_and_drawn_from(folder, tmp_path, capsys):
    assert run("sample", folder / "plain", "-n", 3) == 1
    assert "fit_prior" in capsys.readouterr().err
    keep = tmp_path / "model"
    Autoencoder(2, **QUICK).fit(FRAME).save(keep)
    assert run("latent", "prior", keep, folder / "iris.csv", "--method", "mixture", "--seed", 0) == 0
    assert "kept mixture" in capsys.readouterr().err
    out = tmp_path / "new.csv"
    assert run("sample", keep, "-n", 7, "--seed", 1, "-o", out) == 0
    expected = diabolo.load(keep).sample(7, random_state=1)
    assert isinstance(expected, pd.DataFrame)  # the kind of rows that fit saw is not forgotten
    np.testing.assert_allclose(pd.read_csv(out), expected, rtol=1e-6)
    assert run("sample", keep, "-n", 7, "--prior", "own") == 1


def test_many_rows_go_out_block_by_block(folder, tmp_path):
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        out = tmp_path / f"many.{suffix}"
        assert run("sample", folder / "vae", "-n", 25_000, "--seed", 0, "-o", out) == 0
        rows = read(out)
        assert rows.shape == (25_000, 4)
        assert rows.drop_duplicates().shape[0] > 24_900
    cold = tmp_path / "cold.npy"
    assert run("sample", folder / "vae", "-n", 12_000, "--temperature", 0, "-o", cold) == 0
    assert np.ptp(np.load(cold), axis=0).max() < 1e-5


def test_a_condition_by_any_name_and_in_part(tmp_path):
    told = tmp_path / "told"
    ConditionalVAE(2, **QUICK).fit(FRAME, KINDS).save(told)
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert run("sample", told, "-n", 4, "--seed", 0, "--condition", "kind=y", "-o", one) == 0
    assert run("sample", told, "-n", 4, "--seed", 0, "--condition", "y", "-o", two) == 0
    assert one.read_text() == two.read_text()
    table = FRAME.assign(kind=KINDS, place=np.where(KINDS == "x", "hill", "sea"))
    ConditionalVAE(2, condition=("kind", "place"), **QUICK).fit(table).save(told)
    assert run("sample", told, "-n", 20, "--condition", "kind=x", "-o", one) == 0
    assert set(pd.read_csv(one)["place"]) == {"hill"}


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("interpolate", "plain", "iris.csv", "--rows", "3"), "expected pairs of rows"),
        (("interpolate", "plain", "iris.csv", "--rows", "a,b"), "expected numbers of rows"),
        (("interpolate", "plain", "iris.csv", "--rows", "1,150"), "rows 0 to 149, and no row 150"),
        (("interpolate", "plain", "iris.csv", "-o", "ways.png"), "expected a name that ends in .svg"),
        (("latent", "traverse", "vae", "iris.csv", "--units", "9", "-o", "u.svg"), "units 0 to 1"),
        (("latent", "map", "vae", "iris.csv", "-o", "map.jpg"), "expected a name that ends in .svg"),
    ],
)
def test_errors_say_what_to_do(folder, tmp_path, monkeypatch, capsys, tokens, said):
    monkeypatch.chdir(tmp_path)
    paths = [folder / t if t in ("plain", "vae", "iris.csv") else t for t in tokens]
    assert run(*paths) in (1, 2)
    assert said in capsys.readouterr().err
