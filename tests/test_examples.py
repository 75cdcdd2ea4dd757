"""Each example runs, and its result makes sense."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs an example's ``main`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main(list(arguments))

    return call


def test_every_example_is_tested():
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [p.stem for p in EXAMPLES.glob("*.py") if f'run("{p.stem}"' not in text]


def test_features(run):
    result = run("features", "--epochs", "10")
    assert result["autoencoder_mse"] < result["pca_mse"]
    assert result["autoencoder_accuracy"] > 0.9


def test_denoise(run):
    result = run("denoise", "--epochs", "5")
    assert result["denoised_mse"] < 0.5 * result["noisy_mse"]


def test_anomalies(run, capsys):
    result = run("anomalies", "--epochs", "20")
    assert result["flagged_benign"] < 0.2 < result["flagged_malignant"]
    assert result["roc_auc"] > 0.85
    assert "is the least normal" in capsys.readouterr().out


def test_impute_missing(run):
    result = run("impute_missing", "--epochs", "20")
    assert result["model_error"] < 0.75 * result["mean_error"]


def test_generate(run):
    result = run("generate", "--epochs", "5")
    assert result["kinds"] >= 8
    assert result["confidence"] > 0.3  # one in ten would be a guess


def test_latent_space(run, tmp_path):
    result = run("latent_space", "--epochs", "10", "--folder", "figures")
    assert result["turned"] > 0.5
    assert result["confidence"] > 0.3  # one in ten would be a guess
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        "map.svg",
        "samples.png",
        "units.svg",
        "ways.svg",
    ]


def test_synthetic_table(run):
    result = run("synthetic_table", "--epochs", "30")
    assert result["synthetic"] > result["real"] - 0.05
    assert result["membership"] < 0.65
    assert result["smallest"] >= 15


def test_chosen_class(run):
    result = run("chosen_class", "--epochs", "5")
    assert result["as_asked"] > 0.8  # one in ten would be a guess
    assert result["read"] > 0.5


def test_custom_network(run):
    result = run("custom_network", "--epochs", "3")
    assert result["mse"] < 18.8  # the variance of a pixel: better than the mean image


def test_save_and_load(run, tmp_path):
    result = run("save_and_load", "--epochs", "2", "--folder", "model")
    assert result == {"files": 2, "difference": 0}
    assert (tmp_path / "model" / "config.json").exists()


def test_grid_search(run):
    result = run("grid_search", "--epochs", "2")
    assert result["best"] == 16
    assert result["accuracy"] > 0.8


def test_mnist_tutorial(run, tmp_path):
    rng = np.random.default_rng(0)
    strokes = rng.random((8, 28, 28)) ** 4  # a few patterns that a code can hold
    images = (255 * strokes[rng.integers(8, size=320)]).astype(np.uint8)
    labels = np.zeros(320, dtype=np.uint8)
    np.savez("mnist.npz", x_train=images[:256], y_train=labels[:256], x_test=images[256:], y_test=labels[256:])
    options = ["--batch-size", "32", "--test-rows", "64", "--learning-rate", "0.01", "--output", "picture.png"]
    short = run("mnist_tutorial", "--data", "mnist.npz", "--epochs", "1", *options)
    longer = run("mnist_tutorial", "--data", "mnist.npz", "--epochs", "10", *options)
    assert 0 < longer["mse"] < 0.5 * short["mse"]
    picture = (tmp_path / "picture.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (12 * 28, 2 * 28)


def test_network_intrusion(run):
    result = run("network_intrusion", "--rows", "1500")
    assert result["roc_auc"] > 0.97
    assert result["false_alarms"] < 0.04
    assert result["found"] > 0.8


def test_card_fraud(run):
    result = run("card_fraud", "--rows", "2000")
    assert result["right"] > 0.2  # one payment in fifty is fraud
    assert result["flagged"] < 0.05


def test_machine_health(run):
    result = run("machine_health", "--days", "60")
    assert result["false_alarms"] < 0.04
    assert 10 <= result["day"] <= 16
    assert result["last_day"] > 0.5


def test_series_anomalies(run):
    result = run("series_anomalies")
    assert result == {"events": 2, "channels": ["flow", "pressure"]}


def test_recommend(run, capsys):
    result = run("recommend", "--people", "240")
    assert result["recommender"] > 1.2 * result["popularity"]
    assert "horror" in capsys.readouterr().out
