"""Alarms from a stream of scores: one for each event, judged beside what the stream did so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["departures", "once"]

LITTLE = 1e-6  # added to squared errors before their logarithm
LEAST = 0.01  # variance of the logarithm of squared errors that is added, so that the smallest change is none


def departures(scores: Iterable[float], known: NDArray[np.float64]) -> Iterator[float]:
    """Yield how far the logarithm of each squared error lies above the mean of those before it, in standard deviations.

    Parameters
    ----------
    scores : iterable of float
        Of :class:`~diabolo.SeriesAnomalyDetector`: minus the logarithm of 1 plus the squared error.
    known : ndarray of shape (n,)
        Scores with which mean and variance begin; later ones have the same weight.
    """
    logs = np.log(np.expm1(-known) + LITTLE)
    count, mean, variance = len(logs), float(logs.mean()), float(logs.var())
    for score in scores:
        value = math.log(math.expm1(-score) + LITTLE)
        yield (value - mean) / math.sqrt(variance + LEAST)
        count += 1
        off = value - mean
        mean += off / count
        variance += ((1 - 1 / count) * off * off - variance) / count


def once(above: Iterable[bool], hold: int) -> Iterator[bool]:
    """Yield True where ``above`` is, unless it was within the last ``hold`` steps."""
    since = hold
    for up in above:
        yield up and since >= hold
        since = 0 if up else since + 1
