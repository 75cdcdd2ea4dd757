"""Model folders through the local folders of a model hub's library."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_iris

import diabolo
from diabolo import AnomalyDetector, Autoencoder, AutoencoderClassifier
from diabolo.report import write_card

hub = pytest.importorskip("huggingface_hub")
QUICK = {"hidden": (8,), "max_epochs": 2, "random_state": 0}
X, Y = load_iris(return_X_y=True)
MODELS = {
    "classifier": AutoencoderClassifier(Autoencoder(2, **QUICK), n_models=1, max_steps=20, random_state=0),
    "detector": AnomalyDetector(Autoencoder(1, **QUICK), random_state=0),
}


def put_in_cache(folder, cache, repo):
    """Lay a folder out as the library does after a download: files by their digest, and links to them by commit."""
    home = cache / f"models--{repo.replace('/', '--')}"
    commit = hashlib.sha1(repo.encode()).hexdigest()
    snapshot = home / "snapshots" / commit
    for part in (home / "blobs", home / "refs", snapshot):
        part.mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    for file in folder.iterdir():
        blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_comes_back_from_the_cache_of_a_hub(name, tmp_path):
    model = MODELS[name].fit(X, Y)
    model.save(tmp_path / "m")
    write_card(tmp_path / "m", title="Flowers")
    put_in_cache(tmp_path / "m", tmp_path / "cache", "me/flowers")
    found = hub.snapshot_download("me/flowers", cache_dir=tmp_path / "cache", local_files_only=True)
    np.testing.assert_array_equal(diabolo.load(found).predict(X), model.predict(X))
    again = hub.snapshot_download(
        "me/flowers", cache_dir=tmp_path / "cache", revision="main", local_files_only=True, allow_patterns=["*.json"]
    )
    assert again == found


def test_the_card_is_one_that_the_library_reads(tmp_path):
    MODELS["detector"].fit(X).save(tmp_path / "m")
    card = hub.ModelCard.load(write_card(tmp_path / "m", title="Flowers"))
    assert card.data.library_name == "diabolo"
    assert card.data.tags == ["diabolo", "autoencoder", "AnomalyDetector", "Autoencoder"]
    assert card.text.startswith("\n# Flowers")
