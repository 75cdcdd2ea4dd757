"""Bottlenecks that keep the largest units of a code, and know which units are dead."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor

from diabolo.parts.bottlenecks import Bottleneck
from diabolo.records import Code

__all__ = ["BatchTopK", "SparseCode", "TopK", "keep_largest"]

THRESHOLD_STEP = 0.02  # share of the way that a followed threshold moves with each batch


class SparseCode(Bottleneck, ABC):
    """A code of few active units, which counts for each unit the training rows since it was last active.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    """

    idle: Tensor
    seen: Tensor
    ranks: Any = None  # where several processes train: what adds up over the rows of all

    def __init__(self, latent_dim: int, dead_after: int):
        super().__init__()
        self.in_features = self.out_features = latent_dim
        self.dead_after = dead_after
        self.register_buffer("idle", torch.zeros(latent_dim, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._pending: tuple[Tensor, int] | None = None

    def watch(self, z: Tensor) -> None:
        """Note who was active in a training batch ``(B, D, *grid)``; takes effect in :meth:`after_step`."""
        if self.training:
            most = z.detach().abs().amax(dim=(0, *range(2, z.dim())))  # several times faster than any() of comparisons
            self._pending = (most > 0, len(z))

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the rows of the last batch."""
        if self._pending is None:
            return
        active, rows = self._pending
        self._pending = None
        if self.ranks is not None:
            counts = self.ranks.total(torch.cat([active.float(), active.new_full((1,), rows, dtype=torch.float32)]))
            active, rows = counts[:-1] > 0, int(counts[-1])
        self.idle += rows
        self.idle.masked_fill_(active, 0)
        self.seen += rows

    def dead(self) -> Tensor:
        """Return which units are dead ``(D,)``: idle over the last ``dead_after`` rows, or over all rows if there were fewer."""
        return (self.idle > 0) & (self.idle >= self.seen.clamp(max=self.dead_after))


def keep_largest(h: Tensor, k: int, *, rectify: bool) -> Tensor:
    """Set all but the ``k`` largest of each row's units to 0, at each place of the grid, and negative ones if so told."""
    top, index = h.topk(k, dim=1)  # (B, k, *grid)
    return torch.zeros_like(h).scatter(1, index, top.relu() if rectify else top)


class TopK(SparseCode):
    """The ``k`` largest inputs of each row stay, the others are 0.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    k : int
        Active units in training.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    rectify : bool
        Whether inputs below 0 are 0 as well, so that a row may have fewer active units.
    k_inference : int, optional
        Active units outside training, ``k`` by default.
    """

    def __init__(self, latent_dim: int, k: int, dead_after: int, *, rectify: bool, k_inference: int | None = None):
        super().__init__(latent_dim, dead_after)
        self.k, self.rectify = k, rectify
        self.k_inference = k if k_inference is None else k_inference

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return the largest inputs."""
        z = keep_largest(h, self.k if self.training else self.k_inference, rectify=self.rectify)
        self.watch(z)
        return Code(z, {}, {"h": h})


class BatchTopK(SparseCode):
    r"""In training the :math:`k B` largest rectified inputs of a batch of :math:`B` rows stay; afterwards those over a threshold.

    The threshold follows the smallest input that stayed, by an exponential average over batches. Before the first batch, ``k``
    units of each row stay.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    k : int
        Active units of a row, on average.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    """

    threshold: Tensor

    def __init__(self, latent_dim: int, k: int, dead_after: int):
        super().__init__(latent_dim, dead_after)
        self.k = k
        self.register_buffer("threshold", torch.tensor(-1.0))  # below 0: not known yet
        self._smallest: Tensor | None = None

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return the inputs that stay."""
        if self.training:
            places = h.numel() // h.shape[1]  # rows, times places of the grid
            top, index = h.flatten().topk(self.k * places)
            top = top.relu()
            z = torch.zeros_like(h).flatten().scatter(0, index, top).view_as(h)
            self._smallest = top.detach()
        elif self.threshold < 0:
            z = keep_largest(h, self.k, rectify=True)
        else:
            z = h.relu() * (h >= self.threshold)
        self.watch(z)
        return Code(z, {}, {"h": h})

    @torch.no_grad()
    def after_step(self) -> None:
        """Count activity, and move the threshold towards that of the last batch."""
        super().after_step()
        if self._smallest is None:
            return
        positive = self._smallest[self._smallest > 0]
        self._smallest = None
        if len(positive):
            now = positive.min().to(self.threshold.dtype)
            self.threshold.copy_(torch.where(self.threshold < 0, now, self.threshold.lerp(now, THRESHOLD_STEP)))
