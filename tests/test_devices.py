"""Training on a device that no machine lacks: "meta", whose tensors have a shape and a place, but no values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

import diabolo.estimator
from diabolo.training.device import autocast, gradient_scaler
from rows import ROWS

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


def step(module, rows, held_out, objective, settings, callbacks, metric, augment, pretrain):
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
    "estimator", [pytest.param(v, id=f"{r.name}-{i}") for r in ROWS for i, v in enumerate(r.variants)]
)
def test_a_step_keeps_to_the_device_of_the_rows(estimator, monkeypatch):
    """What a step makes, such as noise, must lie where the rows lie; on a machine without a GPU nothing else would tell."""
    monkeypatch.setattr(diabolo.estimator, "train", step)
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
