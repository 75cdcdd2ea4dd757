"""How large a code the data need: the smallest whose held-out distortion is hardly worse than that of a large one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from diabolo.data.raw import Raw
from diabolo.seeding import draw_seed

__all__ = ["Sizes", "find_size", "search_size"]

LARGEST = 32  # size of a code that is tried at most
FEWEST = 20  # rows
HELD_OUT = 0.2  # share of the rows that sizes are compared on
SHORT = 0.2  # share of the planned epochs that a size gets
SLACK = 0.02  # share of what the largest code explains beyond a code of one number that may be lost
DRAWS = 16  # of each code, where it is a distribution
ERRORS = 2.0  # standard errors of the difference that may be lost


class Sizes(NamedTuple):
    """What was found.

    Attributes
    ----------
    chosen : int
        The size.
    curve : dict of int to float
        For each size that was tried the mean loss of held-out rows beyond that of the largest, in nats per row.
    tolerance : float
        What may be lost, in nats per row, at the chosen size.
    """

    chosen: int
    curve: dict[int, float]
    tolerance: float


def find_size(size: int, measure: Callable[[int], NDArray[np.float64]]) -> Sizes:
    """Search by halving, since distortion falls with the size of the code; large sizes are found to a twelfth.

    Parameters
    ----------
    size : int
        Features of a row.
    measure : callable
        From a size to the loss of each held-out row ``(n,)``, in nats.
    """
    largest = max(1, min(LARGEST, size - 1))
    best = measure(largest)
    differences = {largest: np.zeros_like(best)}
    if largest > 1:
        differences[1] = measure(1) - best
    explained = max(0.0, float(differences.get(1, best).mean()))

    def tolerance(k: int) -> float:
        off = differences[k]
        return max(SLACK * explained, ERRORS * float(off.std()) / math.sqrt(len(off)))

    low, high = 0, largest  # too small, and large enough
    middle = 1
    while high - low > max(1, high // 12):
        if middle not in differences:
            differences[middle] = measure(middle) - best
        if float(differences[middle].mean()) <= tolerance(middle):
            high = middle
        else:
            low = middle
        middle = round(math.sqrt(low * high)) if high > 4 * low else (low + high) // 2
        middle = min(max(low + 1, middle), high - 1)
    curve = {k: float(off.mean()) for k, off in sorted(differences.items())}
    return Sizes(high, curve, tolerance(high))


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
        return -np.asarray(
            short._score(judge, DRAWS if short.module_.bottleneck.stochastic else 0, seed), dtype=np.float64
        )

    return find_size(size, measure)
