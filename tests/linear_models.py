"""Linear models with a likelihood in closed form, which bounds are held against."""

from __future__ import annotations

import math

import torch
from torch import nn

from diabolo import AutoencoderModule
from diabolo.parts.likelihoods import Gaussian
from diabolo.records import Batch, Schema
from diabolo.seeding import seeded


def linear(bottleneck):
    """Return a linear model of 3 columns around a bottleneck, and 5 rows, in float64."""
    with seeded(0):
        module = AutoencoderModule(
            Schema("vector", (3,), 5),
            encoder=nn.Linear(3, bottleneck.in_features),
            decoder=nn.Linear(bottleneck.out_features, 3),
            bottleneck=bottleneck,
            likelihood=Gaussian(),
        ).double()
        return module.eval(), Batch(torch.randn(5, 3, dtype=torch.float64))


def bound(module, batch, n=4000):
    """Return an estimate of the bound of each row, and its standard error."""
    with seeded(1), torch.no_grad():
        many = Batch(batch.x.repeat_interleave(n, 0))
        trace = module.trace(many, sample=True)
        draws = (module.log_prob(trace.raw, many) - sum(trace.code.costs.values())).view(-1, n)
    return draws.mean(1).numpy(), draws.std(1).numpy() / math.sqrt(n)
