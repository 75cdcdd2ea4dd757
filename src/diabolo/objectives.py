"""Objectives: from a module and a batch to a loss. The loss is summed over features and averaged over rows: nats per row."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diabolo.module import AutoencoderModule
from diabolo.records import Batch, Loss

__all__ = ["Objective", "elbo"]

Objective = Callable[[AutoencoderModule, Batch, float], Loss]
"""``(module, batch, progress)`` -> loss; ``progress`` runs from 0 to 1 over training, for annealing."""


def elbo(module: AutoencoderModule, batch: Batch, progress: float, *, warmup: float = 0.0) -> Loss:
    r"""Negative evidence lower bound, or for a deterministic code the plain reconstruction loss.

    .. math:: L = \frac1B \sum_b \Big[-\sum_j \log p(x_{bj} \mid z_b) + w \sum_k \text{cost}_k(b)\Big] + \text{penalties}

    in nats per row, with :math:`z_b` drawn once from the posterior. Penalties are training's alone: outside training mode the
    loss is the bound.

    Parameters
    ----------
    module : AutoencoderModule
        The model.
    batch : Batch
        Rows.
    progress : float
        How far training has come, 0 to 1.
    warmup : float
        Share of training over which the weight ``w`` of the code's costs rises from 0 to 1.
    """
    trace = module.trace(batch, sample=True, corrupt=True)
    terms: dict[str, Tensor] = {"reconstruction": -module.log_prob(trace.raw, batch).mean()}
    total = terms["reconstruction"]
    weight = min(1.0, progress / warmup) if warmup > 0 else 1.0
    for name, cost in trace.code.costs.items():
        terms[name] = cost.mean()
        total = total + weight * terms[name]
    if module.training:
        for penalty in module.penalties:
            name, term = str(penalty.name), penalty(module, trace).mean()
            terms[name] = terms[name] + term if name in terms else term
            total = total + term
    return Loss(total, terms)
