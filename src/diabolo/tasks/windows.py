"""Windows over series: how long they are, where they lie, and what they say of each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = [
    "choose_window",
    "cover",
    "errors_of",
    "filled",
    "find_period",
    "lack_of",
    "learning_windows",
    "mean_over_windows",
    "scores_of",
    "scoring_windows",
]

Array = NDArray[Any]

LONGEST, NUMBERS = 256, 1024  # steps of a window, and numbers in it, that "auto" chooses at most
LEAST = 8  # steps, however many channels there are
CORRELATED = 0.3  # the least correlation with itself, a period later, of what is periodic
MOST = 1e6  # squared error, in variances of a channel, beyond which more says no more
MOST_WINDOWS, MOST_NUMBERS = 20_000, 2**25  # to learn from


def find_period(parts: Sequence[Array]) -> int | None:
    """Find after how many steps series repeat themselves.

    Parameters
    ----------
    parts : sequence of ndarray of shape (steps, channels)
        Scaled; NaN is missing. The longest is looked at.

    Returns
    -------
    int or None
        The lag with the highest autocorrelation, averaged over channels, among the peaks from 4 steps to a third of the
        series, if it is at least 0.3.
    """
    x = max(parts, key=len)
    n = len(x)
    if n < 12:
        return None
    x = np.where(np.isnan(x), 0.0, x - np.nanmean(np.where(np.isnan(x).all(axis=0), 0.0, x), axis=0))
    spectrum = np.fft.rfft(x, 2 ** int(np.ceil(np.log2(2 * n))), axis=0)
    power = np.fft.irfft(spectrum * np.conj(spectrum), axis=0)[: n // 3 + 2]
    varies = power[0] > 0
    if not varies.any():
        return None
    c = (power[:, varies] / power[0, varies]).mean(axis=1)
    peaks = np.flatnonzero((c[1:-1] > c[:-2]) & (c[1:-1] >= c[2:])) + 1
    peaks = peaks[(peaks >= 4) & (c[peaks] >= CORRELATED)]
    return int(peaks[np.argmax(c[peaks])]) if len(peaks) else None


def choose_window(longest: int, channels: int, period: int | None) -> int:
    """Return how many steps a window has: at most 256, 1024 numbers and a quarter of the longest series, in whole periods."""
    most = max(1, min(LONGEST, max(LEAST, NUMBERS // channels), longest // 4))
    if period is None or period > 1.5 * most:
        return most
    return max(1, round(most / period)) * period


def filled(x: Array, window: int) -> Array:
    """Return the last ``window`` steps of ``x`` ``(steps, channels)``, mirrored at its first step where it is shorter."""
    if len(x) >= window:
        return x[len(x) - window :]
    return np.pad(x, ((window - len(x), 0), (0, 0)), mode="reflect" if len(x) > 1 else "edge")


def learning_windows(parts: Sequence[Array], window: int) -> Array:
    """Return windows to learn from ``(m, window, channels)``, evenly spaced over the parts ``(steps, channels)``."""
    long = [part for part in parts if len(part) >= window]
    if not long:
        return filled(max(parts, key=len), window)[None]
    total = sum(len(part) - window + 1 for part in long)
    most = max(1, min(MOST_WINDOWS, MOST_NUMBERS // (window * parts[0].shape[1])))
    stride = max(1, -(-total // most))
    return np.concatenate([sliding_window_view(part, window, axis=0)[::stride].swapaxes(1, 2) for part in long])


def scoring_windows(x: Array, window: int) -> Array:
    """Return all windows over ``x`` ``(steps, channels)``: ``(m, window, channels)``, one where it is shorter."""
    return sliding_window_view(filled(x, max(window, len(x))), window, axis=0).swapaxes(1, 2)


def cover(sums: Array, window: int, steps: int, causal: bool) -> Array:
    """Add up, for each step, what windows say.

    Parameters
    ----------
    sums : ndarray of shape (m, ...)
        One entry for each of the windows of :func:`scoring_windows`.
    window, steps : int
        Steps of a window, and of the series.
    causal : bool
        Whether only the window that ends at a step speaks of it, not all that cover it.

    Returns
    -------
    ndarray of shape (steps, ...)
        The totals; 0 where no window speaks of a step.
    """
    if causal:
        told = np.zeros((steps, *sums.shape[1:]))
        told[window - 1 :] = sums[: max(0, steps - window + 1)]
        return told
    total = np.concatenate([np.zeros_like(sums[:1]), np.cumsum(sums, axis=0)])
    at = np.arange(steps) + (len(sums) + window - 1 - steps)  # a short series stands at the end of its only window
    return np.asarray(total[np.minimum(at + 1, len(sums))] - total[np.maximum(at - window + 1, 0)])


def mean_over_windows(pieces: Iterable[Array], window: int, steps: int) -> Array:
    """Return for each step the mean of what windows have there ``(steps, channels)``.

    Parameters
    ----------
    pieces : iterable of ndarray of shape (m, window, channels)
        The windows of :func:`scoring_windows`, some at a time.
    window, steps : int
        Steps of a window, and of the series.
    """
    total, count, at = np.zeros((0, 0)), np.zeros((0, 1)), 0
    for piece in pieces:
        if not at:  # a short series stands at the end of its only window
            total, count = np.zeros((max(steps, window), piece.shape[2])), np.zeros((max(steps, window), 1))
        for j in range(window):
            total[at + j : at + j + len(piece)] += piece[:, j]
            count[at + j : at + j + len(piece)] += 1
        at += len(piece)
    return np.asarray((total / count)[-steps:])


def errors_of(windows: Array, rebuilt: Array) -> Array:
    """Return the sums of squared errors of each channel, and how many cells were seen: ``(m, 2 * channels)``."""
    seen = ~np.isnan(windows)
    squares = np.where(seen, np.square(windows - rebuilt, dtype=np.float64), 0).sum(axis=1)
    count = seen.sum(axis=1)
    return np.concatenate([np.minimum(squares, MOST * count), count], axis=1)


def lack_of(totals: Array, channels: int) -> Array:
    """Return the logarithm of 1 plus the mean squared error, of totals as :func:`errors_of` has them."""
    squares, count = totals[:, :channels], totals[:, channels:]
    return np.where(count > 0, np.log1p(np.maximum(squares, 0) / np.maximum(count, 1)), np.nan)


def scores_of(lacks: Array) -> Array:
    """Return scores ``(n,)``: minus the mean over channels of which something is known."""
    seen = ~np.isnan(lacks)
    return np.where(seen.any(axis=1), -np.where(seen, lacks, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1), np.nan)
