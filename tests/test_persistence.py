"""Model folders: refuse what is damaged, foreign or too new; never harm a good one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

import diabolo
from diabolo import AnomalyDetector, Autoencoder, CustomAutoencoder
from diabolo.persistence import ModelFileError, _digest
from rows import build

X = load_iris().data


@pytest.fixture
def model():
    return Autoencoder(2, hidden=(8,), max_epochs=2, random_state=0).fit(X)


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path / "m")
    return tmp_path / "m"


def weights_of(folder):
    return next(folder.glob("weights-*.safetensors"))


def edit(folder, **changes):
    """Change the configuration as a knowing hand would, checksum included."""
    config = json.loads((folder / "config.json").read_text()) | changes
    config["sha256"] = _digest(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_is_two_files_of_plain_data(folder):
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 1
    assert {"diabolo", "torch", "numpy", "python"} <= config["versions"].keys()
    assert [c["name"] for c in config["estimator"]["fitted"]["data"]["schema"]["columns"]] == ["0", "1", "2", "3"]


def test_parameters_fall_back_to_what_json_can_say(model, tmp_path):
    model.set_params(random_state=np.random.RandomState(0), callbacks=(print,), hidden=(8,))
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    assert again.random_state is None
    assert again.callbacks == ()
    assert again.hidden == (8,)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_weights_are_refused(folder, keep):
    file = weights_of(folder)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match=r"weights-.* is damaged"):
        diabolo.load(folder)


def test_a_flipped_bit_is_noticed(folder):
    file = weights_of(folder)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelFileError, match="do not match the checksum"):
        diabolo.load(folder)


def test_missing_and_foreign_parts_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        diabolo.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        diabolo.load(tmp_path)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text[: len(text) // 2])
    with pytest.raises(ModelFileError, match=r"config\.json is damaged"):
        diabolo.load(folder)
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(ModelFileError, match="was not written by Diabolo"):
        diabolo.load(folder)
    config.write_text(text.replace('"latent_dim": 2', '"latent_dim": 3'))
    with pytest.raises(ModelFileError, match="do not match its checksum"):
        diabolo.load(folder)
    config.write_text(text)
    weights_of(folder).unlink()
    with pytest.raises(ModelFileError, match=r"incomplete: weights-.* is missing"):
        diabolo.load(folder)


def test_a_newer_format_and_an_unknown_model_are_refused(folder):
    edit(folder, format_version=99)
    with pytest.raises(ModelFileError, match=r"format version 99; this Diabolo reads up to 1: upgrade it"):
        diabolo.load(folder)
    tree = json.loads((folder / "config.json").read_text())["estimator"]
    edit(folder, format_version=1, estimator=tree | {"class": "Autoencodr"})
    with pytest.raises(ModelFileError, match=r"no model 'Autoencodr'\. Did you mean 'Autoencoder'"):
        diabolo.load(folder)
    edit(folder, estimator=tree | {"parameters": tree["parameters"] | {"wings": 2}})
    with pytest.raises(ModelFileError, match="has no parameter 'wings'"):
        diabolo.load(folder)
    edit(folder, estimator=tree | {"parameters": tree["parameters"] | {"latent_dim": 3}})
    with pytest.raises(ModelFileError, match="the weights do not fit the network"):
        diabolo.load(folder)


def test_a_path_in_the_configuration_cannot_leave_the_folder(folder):
    weights = json.loads((folder / "config.json").read_text())["weights"]
    edit(folder, weights=weights | {"file": "../weights.safetensors"})
    with pytest.raises(ModelFileError, match="names no weights file"):
        diabolo.load(folder)


def test_a_crash_while_saving_leaves_the_old_model(folder, monkeypatch):
    before = diabolo.load(folder).score_samples(X)
    other = Autoencoder(3, hidden=(8,), max_epochs=2, random_state=1).fit(X)
    calls = []
    fsync = os.fsync

    def fail(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        fsync(handle)

    for crash in (1, 2):  # while the weights are written, while the configuration is
        calls[:] = [None] * (2 - crash)
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            other.save(folder)
        monkeypatch.setattr(os, "fsync", fsync)
        np.testing.assert_array_equal(diabolo.load(folder).score_samples(X), before)
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    other.save(folder)
    assert diabolo.load(folder).latent_dim == 3
    assert len(list(folder.iterdir())) == 2  # the old weights are gone


def test_other_files_in_the_folder_are_left_alone(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    model.save(tmp_path)
    model.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelFileError, match="was not written by Diabolo"):
        model.save(foreign)


def test_unwritable_folders_and_unfitted_models(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot create the folder"):
        model.save(tmp_path / "file" / "m")
    with pytest.raises(NotFittedError):
        Autoencoder().save(tmp_path / "m")


def test_a_custom_model_needs_its_function_again(tmp_path):
    model = CustomAutoencoder(build=build, max_epochs=2, random_state=0).fit(X)
    model.save(tmp_path)
    with pytest.raises(ModelFileError, match=r"diabolo\.load\(path, build=\.\.\.\)"):
        diabolo.load(tmp_path)
    np.testing.assert_array_equal(diabolo.load(tmp_path, build=build).score_samples(X), model.score_samples(X))


def test_a_detector_keeps_its_model_and_threshold(tmp_path):
    detector = AnomalyDetector(Autoencoder(2, hidden=(8,), max_epochs=2), contamination=0.2, random_state=0).fit(X)
    detector.save(tmp_path)
    again = diabolo.load(tmp_path)
    assert again.offset_ == detector.offset_
    np.testing.assert_array_equal(again.predict(X), detector.predict(X))
    np.testing.assert_array_equal(again.explain(X), detector.explain(X))
