"""How large a code the data need: the smallest whose held-out distortion is hardly worse than that of a large one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from diabolo.data.raw import Raw
from diabolo.module import AutoencoderModule
from diabolo.records import Batch
from diabolo.seeding import draw_seed

__all__ = ["Sizes", "find_size", "search_size"]

LARGEST = 32  # size of a code that is tried at most
FEWEST = 20  # rows
HELD_OUT = 0.2  # share of the rows that sizes are compared on
SHORT = 0.15  # share of the planned epochs that a size gets
SLACK = 0.01  # share of the variance that may be lost
MOST_NOISE = 0.05  # share of the variance that a quarter of the largest code explains, if that is noise
NEAR = 0.75  # of the largest size: from there on more numbers explain noise
TWICE = 2.0  # as much as noise may be what is lost
ERRORS = 2.0  # standard errors of the difference that may be lost


class Sizes(NamedTuple):
    """What was found.

    Attributes
    ----------
    chosen : int
        The size.
    curve : dict of int to float
        For each size that was tried the share of the held-out rows' variance that it leaves unexplained and the largest does not.
    tolerance : float
        What share may be, at the chosen size.
    """

    chosen: int
    curve: dict[int, float]
    tolerance: float


def find_size(size: int, measure: Callable[[int], NDArray[np.float64]]) -> Sizes:
    """Search by halving, since distortion falls with the size of the code.

    Beyond three quarters of the largest size more numbers explain noise, each about as much as the next; a size is large enough
    where what it loses is at most twice what that many numbers of noise explain, and one percent of the variance.

    Parameters
    ----------
    size : int
        Features of a row.
    measure : callable
        From a size to the squared error of each held-out row ``(n,)``, as a share of the variance of all.
    """
    largest = max(1, min(LARGEST, size - 1))
    best = measure(largest)
    lost = {largest: np.zeros_like(best)}
    near = math.ceil(NEAR * largest)
    if near < largest:
        lost[near] = measure(near) - best
    rest = max(0.0, float(lost[near].mean()))
    noise = rest / (largest - near) if 0 < rest <= MOST_NOISE else 0.0  # what one more number of a large code explains

    def tolerance(k: int) -> float:
        error = float(lost[k].std()) / math.sqrt(len(best))
        return max(SLACK + TWICE * noise * (largest - k), ERRORS * error)

    low, high = 0, near if float(lost[near].mean()) <= tolerance(near) else largest  # too small, and large enough
    while high - low > 1:
        middle = round(math.sqrt(max(1, low) * high)) if high > 4 * low else (low + high) // 2
        middle = min(max(low + 1, middle), high - 1)
        if middle not in lost:
            lost[middle] = measure(middle) - best
        if float(lost[middle].mean()) <= tolerance(middle):
            high = middle
        else:
            low = middle
    return Sizes(high, {k: float(lost[k].mean()) for k in sorted(lost)}, tolerance(high))


def search_size(model: Any, raw: Raw, size: int) -> Sizes:
    """Find the size of a model's code in short runs on part of the rows.

    Raises
    ------
    ValueError
        When there are too few rows to hold some out.
    """
    n = len(raw.values)
    if n < FEWEST:
        raise ValueError(
            f"latent_dim='search' compares sizes on held-out rows, and X has {n}; expected {FEWEST} or more"
        )
    seed = draw_seed(model.random_state)
    order = np.random.default_rng(seed).permutation(n)
    held = round(HELD_OUT * n)
    learn, judge = raw.take(np.sort(order[held:])), raw.take(np.sort(order[:held]))
    epochs = max(2, math.ceil(SHORT * model._settings(n, torch.device("cpu"), size).max_epochs))

    def measure(width: int) -> NDArray[np.float64]:
        short = clone(model).set_params(
            latent_dim=width, max_epochs=epochs, random_state=seed, checkpoint=None, init_from=None, verbose=0
        )
        short._fit(learn)
        off, x = (short._apply(judge, part).astype(np.float64) for part in (_squares, _rows))
        return np.asarray(off / max(1e-300, float(np.square(x - x.mean(axis=0)).sum(axis=1).mean())))

    return find_size(size, measure)


def _squares(module: AutoencoderModule, batch: Batch) -> Tensor:
    """Return the squared error of each row ``(B,)``, of its observed cells."""
    off = (module.likelihood.mean(module.trace(batch, sample=False).raw) - batch.x).square()
    return (off if batch.mask is None else off * batch.mask).flatten(1).sum(1)


def _rows(module: AutoencoderModule, batch: Batch) -> Tensor:
    return batch.x.flatten(1)
