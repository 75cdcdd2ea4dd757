"""Model cards."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris

import diabolo
from diabolo import VAE, AnomalyDetector, Autoencoder, AutoencoderClassifier
from diabolo.report import build_card, write_card

QUICK = {"hidden": (8,), "max_epochs": 2, "random_state": 0}
X, Y = load_iris(return_X_y=True)


def test_a_card_has_the_front_matter_of_hubs_and_the_columns(tmp_path):
    yaml = pytest.importorskip("yaml")
    frame = pd.DataFrame({"length|cm": X[:, 0], "kind": np.array(["a", "b", "c"])[Y]})
    VAE(2, **QUICK).fit(frame).save(tmp_path / "m")
    path = write_card(tmp_path / "m", title="Flowers")
    text = path.read_text()
    assert path == tmp_path / "m" / "README.md"
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "diabolo", "tags": ["diabolo", "autoencoder", "VAE"]}
    assert "# Flowers" in body
    assert "| length\\|cm | number | 4.3 | 7.9 |" in body
    assert "| kind | category | a, b, c | |" in body
    assert "150 rows" in body


def test_a_folder_with_a_card_is_copied_and_loads(tmp_path):
    model = AutoencoderClassifier(Autoencoder(2, **QUICK), method="frozen", random_state=0).fit(X, Y)
    model.save(tmp_path / "m")
    write_card(tmp_path / "m")
    write_card(tmp_path / "m")  # its own card is replaced
    model.save(tmp_path / "m")  # and a new model leaves it
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    np.testing.assert_array_equal(diabolo.load(tmp_path / "copy").predict(X), model.predict(X))
    assert "Classes: 0, 1, 2." in (tmp_path / "copy" / "README.md").read_text()


def test_images_detectors_and_foreign_files(tmp_path):
    assert "kind `image`" in build_card(Autoencoder(2, **QUICK).fit(load_digits().images[:50]))
    detector = AnomalyDetector(Autoencoder(1, **QUICK), random_state=0).fit(X)
    assert "- AnomalyDetector" in build_card(detector)
    detector.save(tmp_path / "d")
    (tmp_path / "d" / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="not written by Diabolo"):
        write_card(tmp_path / "d")
