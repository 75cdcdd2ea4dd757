"""How large a code the data need: the smallest whose held-out distortion is hardly worse than that of a large one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["HELD_OUT", "SHORT", "Sizes", "find_size"]

LARGEST = 32  # size of a code that is tried at most
HELD_OUT = 0.2  # share of the rows that sizes are compared on
SHORT = 0.2  # share of the planned epochs that a size gets
SLACK = 0.02  # share of what the largest code explains beyond a code of one number that may be lost
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
