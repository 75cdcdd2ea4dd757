"""Penalties: terms added to the training loss, in nats per row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from diabolo.records import Trace

__all__ = ["KLSparsity", "L1Sparsity", "Penalty", "WeightL1"]


class Penalty(nn.Module, ABC):
    """A weighted term of the training loss.

    Attributes
    ----------
    name : str
        Its name in the history.
    weight : float
        What it is multiplied by.
    """

    name: str

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return the weighted term, a scalar or ``(B,)``."""


class L1Sparsity(Penalty):
    r""":math:`\lambda \sum_d |z_d|` for each row."""

    name = "sparsity"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        return self.weight * trace.code.z.abs().flatten(1).sum(1)


class KLSparsity(Penalty):
    r""":math:`\lambda \sum_d \mathrm{KL}(\rho \,\|\, \hat\rho_d)` between the wanted rate and the batch's mean activation.

    Codes must lie in (0, 1), as after a sigmoid.

    Parameters
    ----------
    weight : float
        :math:`\lambda`, nats per row.
    rate : float
        The wanted mean activation :math:`\rho`.

    References
    ----------
    Ng, Sparse autoencoder, CS294A lecture notes, 2011.
    """

    name = "sparsity"

    def __init__(self, weight: float, rate: float):
        super().__init__(weight)
        self.rate = rate

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        q = trace.code.z.flatten(1).mean(dim=0).clamp(1e-6, 1 - 1e-6)
        p = torch.as_tensor(self.rate, dtype=q.dtype, device=q.device)
        return self.weight * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()


class WeightL1(Penalty):
    r""":math:`\lambda \sum |w|` over the weight matrices, biases left alone."""

    name = "weight_l1"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return a scalar."""
        return self.weight * torch.stack([w.abs().sum() for w in module.parameters() if w.dim() > 1]).sum()
