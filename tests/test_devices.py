"""Devices and precisions; and training on "meta", whose tensors have a shape and a place, but no values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

import diabolo.estimator
from diabolo import Autoencoder, AutoencoderModule
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.parts.penalties import WeightL1
from diabolo.records import Schema
from diabolo.tasks import synthesis
from diabolo.training import device as device_module
from diabolo.training.device import autocast, gradient_scaler
from rows import CLOSED, ROWS

META = torch.device("meta")
X = np.random.default_rng(0).random((60, 8))
LOOK = {  # models whose step looks at a value, which is not there
    **dict.fromkeys(
        (
            "KSparseAutoencoder",
            "TopKAutoencoder",
            "BatchTopKAutoencoder",
            "JumpReLUAutoencoder",
            "GatedAutoencoder",
            "MatryoshkaAutoencoder",
        ),
        "whether there are dead units",
    ),
    "HypersphericalVAE": "how many draws were accepted",
    "FlowPriorVAE": "bounds of the flow",
    "FlowPosteriorVAE": "bounds of the flow",
}


class Taken(Exception):
    """A step was taken."""


def step(module, rows, held_out, objective, settings, callbacks=(), metric=None, augment=None, pretrain=None):
    """Take one step on the device, in the place of the loop."""
    module.to(META).train()
    batch = rows.table.to(META).take(torch.zeros(8, dtype=torch.int64, device=META))
    if augment is not None:
        batch = augment(batch)
    with autocast(torch.device("cpu"), settings.precision):
        loss = objective(module, batch, 0.3)
    gradient_scaler(META, settings.precision).scale(loss.total).backward()
    for part in module.modules():
        if hasattr(part, "after_step"):
            part.after_step()
    tensors = [loss.total, *loss.terms.values(), *module.state_dict().values()]
    tensors += [p.grad for p in module.parameters() if p.grad is not None]
    assert {t.device for t in tensors} == {META}
    raise Taken


def test_tensors_of_two_places_do_not_mix():
    with pytest.raises(RuntimeError, match="expected device"):
        torch.ones(3, device=META) + torch.ones(3)


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(v, id=f"{r.name}-{i}")
        for r in ROWS
        if r.name not in (*CLOSED, "CodePrior")
        for i, v in enumerate(r.variants)
    ],
)
def test_a_step_keeps_to_the_device_of_the_rows(estimator, monkeypatch):
    """What a step makes, such as noise, must lie where the rows lie; on a machine without a GPU nothing else would tell."""
    for place in (diabolo.estimator, synthesis):
        monkeypatch.setattr(place, "train", step)
    name = type(estimator).__name__
    try:
        clone(estimator).fit(X, np.arange(60) % 3)
    except RuntimeError as error:
        if name in LOOK and "expected device" not in str(error):
            pytest.skip(f"the step looks at values: {LOOK[name]}")
        raise
    except Taken:
        return
    raise AssertionError("no step was taken")


# bfloat16 by itself -------------------------------------------------------------------------------------------------------------


def wide(penalties=(), bottleneck=None):
    return AutoencoderModule(
        Schema("vector", (64,), 10),
        encoder=nn.Sequential(nn.Linear(64, 8192), nn.Linear(8192, 64)),
        decoder=nn.Linear(64, 64),
        bottleneck=bottleneck or Identity(64),
        likelihood=Gaussian(),
        penalties=penalties,
    )


def test_bfloat16_is_taken_where_it_pays_and_was_measured(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(device_module, "bfloat16_is_fast", lambda: True)
    assert device_module.pays_in_bfloat16(wide(), 256, cpu)
    assert not device_module.pays_in_bfloat16(wide(), 64, cpu)
    assert not device_module.pays_in_bfloat16(wide(), 256, torch.device("cuda"))
    assert not device_module.pays_in_bfloat16(wide(penalties=(WeightL1(1.0),)), 256, cpu)
    assert not device_module.pays_in_bfloat16(wide(bottleneck=Identity(64, nn.Tanh())), 256, cpu)
    monkeypatch.setattr(device_module, "bfloat16_is_fast", lambda: False)
    assert not device_module.pays_in_bfloat16(wide(), 256, cpu)


def test_bfloat16_is_as_good_within_the_noise_of_seeds():
    X = load_digits().data / 16
    how = {"hidden": (64,), "max_epochs": 15, "patience": None, "scale": None}

    def losses(precision):
        fits = (Autoencoder(8, precision=precision, random_state=seed, **how).fit(X) for seed in range(4))
        return np.array([m.history_["val_mse"][-1] for m in fits])

    full, half = losses("float32"), losses("bfloat16")
    # same seeds have the same rows held out and the same start: what is left is rounding and the order of its effects
    assert np.abs((half - full) / full).max() < 0.05
    assert abs(half.mean() - full.mean()) < full.std()


def test_the_choice_is_told():
    assert Autoencoder(2, max_epochs=1, random_state=0).fit(load_digits().data[:50]).choices_["precision"] == "float32"


def test_a_run_that_is_taken_up_keeps_its_precision(monkeypatch, tmp_path):
    X = load_digits().data[:200]
    how = {"hidden": (16,), "max_epochs": 4, "patience": None, "random_state": 0}

    def crash(run):
        if run.epoch == 2:
            raise KeyError("crash")

    monkeypatch.setattr(diabolo.estimator, "pays_in_bfloat16", lambda *_: True)
    whole = Autoencoder(4, **how).fit(X)
    with pytest.raises(KeyError):
        Autoencoder(4, checkpoint=tmp_path, callbacks=(crash,), **how).fit(X)
    monkeypatch.setattr(diabolo.estimator, "pays_in_bfloat16", lambda *_: False)  # a busier moment
    resumed = Autoencoder(4, checkpoint=tmp_path, **how).fit(X)
    assert resumed.choices_["precision"] == whole.choices_["precision"] == "bfloat16"
    assert resumed.history_["loss"] == whole.history_["loss"]
