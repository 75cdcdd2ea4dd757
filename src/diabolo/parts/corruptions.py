"""Corruptions: what is done to the input, in training only, that the network learns to undo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["CORRUPTIONS", "Corruption", "GaussianNoise", "Masking", "Occlusion", "SaltAndPepper"]
__all__ += ["SwapNoise"]


class Corruption(nn.Module, ABC):
    """Damages rows.

    Parameters
    ----------
    level : float
        How much; each class says in what unit.
    schedule : {"constant", "decreasing", "mixed"}
        ``"decreasing"`` goes linearly from ``level`` to ``end`` in the course of training (Geras and Sutton, 2015,
        arXiv:1406.3269); under ``"mixed"`` each row draws a level of its own, uniform between 0 and ``level``.
    end : float
        Where ``"decreasing"`` ends.
    """

    def __init__(self, level: float, schedule: str = "constant", end: float = 0.0):
        super().__init__()
        self.level, self.schedule, self.end = level, schedule, end
        self.owner: Tensor | None = None

    def by_column(self, owner: Sequence[int]) -> None:
        """Damage the features of a column together; ``owner`` says which column each feature belongs to."""
        self.owner = torch.tensor(owner)

    def draw(self, x: Tensor) -> Tensor:
        """Draw a uniform number for each cell ``(B, *shape)``; the features of a column share theirs."""
        if self.owner is None:
            return torch.rand_like(x)
        columns = torch.rand(len(x), int(self.owner[-1]) + 1, dtype=x.dtype, device=x.device)
        return columns[:, self.owner.to(x.device)]

    def forward(self, x: Tensor, progress: float = 1.0) -> Tensor:
        """Return a damaged copy of ``x`` ``(B, *shape)``; ``progress`` runs from 0 to 1 over training."""
        return self.damage(x, self.current(x, progress))

    def current(self, x: Tensor, progress: float) -> Tensor | float:
        """Return the level at this point of training: one for all rows, or ``(B, 1, ...)``."""
        if self.schedule == "decreasing":
            return self.level + (self.end - self.level) * progress
        if self.schedule == "mixed":
            return self.level * torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return self.level

    def scaled(self, scale: float) -> Corruption:
        """Return what this is to rows whose standard deviation is ``scale`` instead of 1."""
        return self

    @abstractmethod
    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return a copy of ``x`` damaged at a level: a number, or ``(B, 1, ...)``."""


class GaussianNoise(Corruption):
    """Add normal noise of standard deviation ``level``, in units of the scaled data."""

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with noise added."""
        return x + level * torch.randn_like(x)

    def scaled(self, scale: float) -> Corruption:
        """Return noise of the same size in units of the standard deviation."""
        return GaussianNoise(self.level * scale, self.schedule, self.end * scale)


class Masking(Corruption):
    """Set a fraction ``level`` of the cells to 0, the centre of standardised data (Vincent et al., 2010)."""

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with cells blanked."""
        return x * (self.draw(x) >= level)


class SaltAndPepper(Corruption):
    """Set a fraction ``level`` of the cells to the lowest or highest value of their feature in the batch, with equal chance."""

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with cells replaced."""
        u = self.draw(x)
        extreme = torch.where(u < level / 2, x.amin(dim=0), x.amax(dim=0))
        return torch.where(u < level, extreme, x)


class SwapNoise(Corruption):
    """Replace a fraction ``level`` of the cells by the same feature of another row of the batch."""

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with cells exchanged."""
        rows = (self.draw(x) * len(x)).long().clamp(max=len(x) - 1)
        return torch.where(self.draw(x) < level, x[rows, *_grids(x)], x)


class Occlusion(Corruption):
    """Set a rectangle of each image to 0, all its channels: ``level`` is the expected share of the pixels.

    Its place is random, and so are its sides: one to the other as 1 to 2 at most, measured in sides of the image, unless it must
    be longer to lie inside.
    """

    def scaled(self, scale: float) -> Corruption:
        """Return masking, because codes have no neighbours."""
        return Masking(self.level, self.schedule, self.end)

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with a rectangle blanked; rows without height have a run of their last axis blanked."""
        height, width = x.shape[2:] if x.dim() == 4 else (1, x.shape[-1])
        share = torch.as_tensor(level, dtype=x.dtype, device=x.device).reshape(-1, 1).expand(len(x), 1)  # (B, 1)
        u, v, top, left = (torch.rand(len(x), 1, dtype=x.dtype, device=x.device) for _ in range(4))
        high = (height * (share * 2 ** (2 * u - 1)).sqrt()).round()
        high = torch.maximum(high, (share * height).ceil()).clamp(1, height)
        # rounded by chance, so that the share holds
        wide = (share * height * width / high + v).floor().clamp(max=width)
        first_row = (top * (height - high + 1)).floor()
        first_column = (left * (width - wide + 1)).floor()
        row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        rows = (row >= first_row) & (row < first_row + high)  # (B, height)
        columns = (column >= first_column) & (column < first_column + wide)  # (B, width)
        inside = rows[:, None, :, None] & columns[:, None, None, :]  # (B, 1, height, width)
        return x.reshape(len(x), -1, height, width).masked_fill(inside, 0.0).reshape(x.shape)


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
    "occlusion": Occlusion,
}
