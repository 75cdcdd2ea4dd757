"""Each example runs, and its result makes sense."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs an example's ``main`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *arguments: load(name).main(list(arguments))


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


def test_faces(run, tmp_path):
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 4)
    images = rng.random((12, 16, 16))[people] + 0.1 * rng.normal(size=(48, 16, 16))
    np.savez("faces.npz", images=images.clip(0, 1), subject=people)
    result = run("faces", "--data", "faces.npz", "--epochs", "10")
    assert result["mse"] < result["mean_face_mse"]
    assert sorted(p.name for p in (tmp_path / "faces").iterdir()) == ["samples.png", "ways.png"]


FLAT = ["-" * 16] * 13 + ["X" * 16]


def standing(x, high):
    """Return a flat level with a wall."""
    return [row[:x] + ("X" if y >= 13 - high else row[x]) + row[x + 1 :] for y, row in enumerate(FLAT)]


def gap(wide):
    """Return a level whose ground has a hole."""
    return [*FLAT[:-1], "X" * 4 + "-" * wide + "X" * (12 - wide)]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (FLAT, True),
        (standing(8, 4), True),
        (standing(8, 5), False),  # a jump is four tiles high
        (standing(8, 13), False),
        (gap(8), True),
        (gap(9), False),  # and eight tiles wide
        ([*FLAT[:8], "-" * 8 + "X" * 8, *FLAT[9:13], gap(12)[13]], False),  # land is out of reach
        ([*gap(12)[:9], "-" * 7 + "S" * 9, *gap(12)[10:]], True),  # a bridge that a jump gets to
    ],
)
def test_what_a_playable_level_is(level, expected):
    playable = load("mario_levels").playable
    assert playable(level) is expected


def test_a_low_ceiling_stops_a_jump():
    low = standing(8, 3)
    playable = load("mario_levels").playable
    assert playable(low)
    assert not playable(["X" * 16] * 11 + low[11:])


@pytest.mark.filterwarnings("ignore::diabolo.PosteriorCollapseWarning")  # too few steps for a code that is in use
def test_mario_levels(run, tmp_path):
    result = run("mario_levels", "--epochs", "1", "--levels", "2")
    assert result["playable_real"] > 0.5
    assert 0 <= result["playable"] <= 1
    assert sorted(p.name for p in (tmp_path / "levels").iterdir()) == ["levels.png", "levels.txt", "way.png"]
    lines = (tmp_path / "levels" / "levels.txt").read_text().split("\n\n")[0].split("\n")
    assert (len(lines), {len(line) for line in lines}) == (14, {16})


def test_events_of_a_chorale_and_back():
    bach = load("bach_chorales")
    piece = np.random.default_rng(0).integers(40, 80, (12, 4)).repeat(2, axis=0)
    piece[:3, 2] = -1
    assert np.array_equal(bach.from_events(bach.to_events(piece)), piece)


def test_a_midi_file_has_the_notes_of_the_piece():
    data = load("bach_chorales").midi(np.array([[60, 55, -1, 40], [60, 57, -1, 40]]))
    assert data[:14] == b"MThd\x00\x00\x00\x06\x00\x01\x00\x05\x01\xe0"  # format 1, five tracks, 480 ticks a quarter
    tracks = data.split(b"MTrk")[1:]
    assert [int.from_bytes(track[:4]) for track in tracks] == [len(track) - 4 for track in tracks]
    assert tracks[0][4:] == b"\x00\xff\x51\x03\x0b\x71\xb0" + b"\x00\xff\x2f\x00"  # 750,000 microseconds a quarter
    organ, end = b"\x00\xc0\x13", b"\x00\xff\x2f\x00"
    assert tracks[1][4:] == organ + b"\x00\x90\x3c\x50" + b"\x83\x60\x80\x3c\x00" + end  # 480 ticks: 0x83 0x60
    assert tracks[3][4:] == b"\x00\xc2\x13" + end  # silence


@pytest.mark.filterwarnings("ignore::diabolo.PosteriorCollapseWarning")  # too few steps for a code that is in use
def test_bach_chorales(run, tmp_path):
    result = run("bach_chorales", "--epochs", "2")
    assert 0 < result["changes"] < 1
    assert sorted(p.suffix for p in (tmp_path / "chorales").iterdir()) == [".mid"] * 6 + [".png"] * 2


def test_molecules(run, tmp_path):
    closed = load("molecules").closed
    assert closed("CC(=O)c1ccccc1")
    assert not any(map(closed, ("CC(=O", "c1ccccc", "C)C(", "")))
    result = run("molecules", "--epochs", "2")
    assert 0 < result["valid"] <= 1
    assert (tmp_path / "molecules" / "molecules.smi").exists()


def test_sentences_between(run, capsys):
    result = run("sentences_between", "--epochs", "12")
    assert result["known_words"] == 1
    assert result["known_pairs"] > 0.5
    assert "between two sentences" in capsys.readouterr().out
