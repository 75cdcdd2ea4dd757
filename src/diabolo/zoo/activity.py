"""How much of a code that is a distribution is in use, and what to say when most of it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.module import AutoencoderModule
from diabolo.records import Batch

__all__ = [
    "ENOUGH_ROWS",
    "MOST_NUMBERS",
    "MOST_ROWS",
    "CodeActivity",
    "PosteriorCollapseWarning",
    "collapse_message",
    "measure",
]
__all__ += ["posterior_moments"]

ACTIVE = 0.01  # share of a unit's variance that must come from the row (Burda et al., 2016, with variances of about 1)
ENOUGH_ROWS = 64  # held-out rows from which a variance is judged; with fewer all rows of fit are looked at
MOST_ROWS, MOST_NUMBERS = 4096, 2**23  # and no more than this many, and numbers in them
FEWEST_ROWS = 10  # a variance over fewer says little
ELEMENTS = 2**21  # numbers of input in one batch


class PosteriorCollapseWarning(UserWarning):
    """More than half of the units of a variational code say nothing about the row."""


@dataclass(frozen=True)
class CodeActivity:
    r"""How a code that is a distribution is used by some rows.

    Attributes
    ----------
    variance : ndarray of shape (latent_dim,)
        Variance over rows of the mean of each unit, :math:`A_u` of Burda et al. (2016, arXiv:1509.00519).
    noise : ndarray of shape (latent_dim,)
        Variance of each unit under the posterior of a row, averaged over rows.
    kl : ndarray of shape (latent_dim,) or None
        Divergence of each unit from its prior, in nats, averaged over rows; None where it does not split into units.
    """

    variance: NDArray[np.float64]
    noise: NDArray[np.float64]
    kl: NDArray[np.float64] | None

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which units are in use: more than 1% of their variance comes from the row, the rest being noise."""
        return np.asarray(self.variance > ACTIVE * (self.variance + self.noise))

    @property
    def n_active(self) -> int:
        """Number of units in use."""
        return int(self.active.sum())

    @classmethod
    def of(cls, moments: NDArray[np.float64]) -> CodeActivity:
        """Summarise what :func:`posterior_moments` returned for some rows, ``(n, 2 or 3, latent_dim)``."""
        kl = moments[:, 2].mean(axis=0) if moments.shape[1] > 2 else None
        return cls(moments[:, 0].var(axis=0), moments[:, 1].mean(axis=0), kl)


def posterior_moments(module: AutoencoderModule, batch: Batch) -> Tensor:
    """Return mean, variance, and where it is known the KL divergence, of each unit: ``(B, 2 or 3, latent_dim)``.

    It has no rows in dimension 1 for a code that is no distribution.
    """
    code = module.trace(batch, sample=False).code
    found = module.bottleneck.moments(code)
    if found is None:
        return code.z.new_empty(len(code.z), 0, code.z[0].numel())
    return torch.stack([t.flatten(1) for t in found], dim=1)


@torch.no_grad()
def measure(module: AutoencoderModule, batch: Batch) -> CodeActivity | None:
    """Measure a module on rows; None for a code that is no distribution, and for too few rows to tell."""
    if len(batch.x) < FEWEST_ROWS:
        return None
    parts = [posterior_moments(module, part) for part in batch.split(max(1, ELEMENTS // batch.x[0].numel()))]
    moments = torch.cat(parts).double().cpu().numpy()
    return CodeActivity.of(moments) if moments.shape[1] else None


def collapse_message(activity: CodeActivity, remedies: Sequence[str]) -> str | None:
    """Say what is seen and what to try when more than half of the units are unused, else return None."""
    n, used = len(activity.variance), activity.n_active
    if 2 * used >= n:
        return None
    if used:
        seen = f"only {used} of {n} units of the code {'is' if used == 1 else 'are'} in use, the others say nothing about the row"
        same = f"latent_dim={used} does the same"
    else:
        seen, same = "the code is the same for every row", "there is nothing to encode"
    message = f"posterior collapse: {seen}. If the data have no more structure than that, {same}."
    return message + (f" Otherwise try {', or '.join(remedies)}." if remedies else "")
