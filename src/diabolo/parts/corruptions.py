"""Corruptions: what is done to the input, in training only, that the network learns to undo."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["CORRUPTIONS", "Corruption", "GaussianNoise", "Masking", "SaltAndPepper", "SwapNoise"]


class Corruption(nn.Module, ABC):
    """Damages rows.

    Parameters
    ----------
    level : float
        How much; each class says in what unit.
    """

    def __init__(self, level: float):
        super().__init__()
        self.level = level

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return a damaged copy of ``x`` ``(B, *shape)``."""


class GaussianNoise(Corruption):
    """Add normal noise of standard deviation ``level``, in units of the scaled data."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with noise added."""
        return x + self.level * torch.randn_like(x)


class Masking(Corruption):
    """Set a fraction ``level`` of the cells to 0, the centre of standardised data (Vincent et al., 2010)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with cells blanked."""
        return x * (torch.rand_like(x) >= self.level)


class SaltAndPepper(Corruption):
    """Set a fraction ``level`` of the cells to the lowest or highest value of their feature in the batch, with equal chance."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with cells replaced."""
        u = torch.rand_like(x)
        extreme = torch.where(u < self.level / 2, x.amin(dim=0), x.amax(dim=0))
        return torch.where(u < self.level, extreme, x)


class SwapNoise(Corruption):
    """Replace a fraction ``level`` of the cells by the same feature of another row of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with cells exchanged."""
        other = x[torch.randint(len(x), x.shape, device=x.device), *_grids(x)]
        return torch.where(torch.rand_like(x) < self.level, other, x)


def _grids(x: Tensor) -> tuple[Tensor, ...]:
    """Return the index of each feature axis, broadcastable to ``x``."""
    axes = []
    for dim, length in enumerate(x.shape[1:]):
        view = [1] * x.dim()
        view[dim + 1] = length
        axes.append(torch.arange(length, device=x.device).view(view))
    return tuple(axes)


CORRUPTIONS: dict[str, type[Corruption]] = {
    "gaussian": GaussianNoise,
    "masking": Masking,
    "salt_and_pepper": SaltAndPepper,
    "swap": SwapNoise,
}
