"""Measures of how well a job is done: anomalies in series found, images restored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["psnr", "vus_pr", "vus_roc"]

THRESHOLDS = 250


def psnr(image: ArrayLike, other: ArrayLike, data_range: float) -> float:
    """Peak signal-to-noise ratio of an image, beside what it should be.

    Parameters
    ----------
    image, other : array-like of one shape
        Pixels.
    data_range : float
        What pixels can differ by at most: 255 for 8 bits.

    Returns
    -------
    float
        Decibels: ten times the logarithm of the squared range over the mean squared difference; infinite for equal images.

    Examples
    --------
    >>> from diabolo.metrics import psnr
    >>> round(psnr([0.0, 0.0], [25.5, -25.5], 255), 6)
    20.0
    """
    a, b = np.asarray(image, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"expected images of one shape, got {a.shape} and {b.shape}")
    off = float(np.square(a - b).mean())
    return float(10 * np.log10(data_range**2 / off)) if off > 0 else float("inf")


def vus_pr(y_true: ArrayLike, y_score: ArrayLike, window: int) -> float:
    r"""Volume under the surface of precision and recall, over thresholds and over how far labels reach.

    The edges of labelled stretches are softened by up to ``window`` steps: half of them on either side, :math:`d` steps away
    from a stretch, count as :math:`\sqrt{1 - d / w}` of an anomaly. Recall is also multiplied by the share of stretches of which
    anything is found. The area under precision and recall is averaged over :math:`w = 0, \dots` ``window``.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 where a step is anomalous.
    y_score : array-like of shape (n,)
        The higher, the more anomalous.
    window : int
        The widest edge, in steps: the length of a period is usual.

    Returns
    -------
    float
        From about the share of anomalies, for scores without meaning, to 1.

    References
    ----------
    Paparrizos et al., Volume under the surface: a new accuracy evaluation measure for time-series anomaly detection, 2022,
    doi:10.14778/3551793.3551830.

    Examples
    --------
    >>> from diabolo.metrics import vus_pr
    >>> vus_pr([0, 0, 1, 1, 0, 0], [0, 1, 9, 8, 1, 0], window=0)
    1.0
    """
    return _volumes(y_true, y_score, window)[0]


def vus_roc(y_true: ArrayLike, y_score: ArrayLike, window: int) -> float:
    """Volume under the surface of true and false positive rates; see :func:`vus_pr`.

    Parameters
    ----------
    y_true, y_score, window
        As for :func:`vus_pr`.

    Returns
    -------
    float
        1 at best.

    Examples
    --------
    >>> from diabolo.metrics import vus_roc
    >>> vus_roc([0, 0, 1, 1, 0, 0], [0, 1, 9, 8, 1, 0], window=0)
    1.0
    """
    return _volumes(y_true, y_score, window)[1]


def _volumes(y_true: ArrayLike, y_score: ArrayLike, window: int) -> tuple[float, float]:
    y, score = _checked(y_true, y_score, window)
    n, positive = len(y), int(y.sum())
    edges = np.diff(np.concatenate([[0], y, [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    order = np.argsort(-score, kind="stable")
    cuts = score[order][np.linspace(0, n - 1, THRESHOLDS).astype(int)]
    found = np.searchsorted(-score[order], -cuts, side="right")  # steps at or above each threshold
    areas = []
    for w in range(window + 1):
        soft = _soften(y, starts, ends, w)
        reached = np.cumsum(soft[order])[found - 1]
        beyond = np.cumsum((soft * (y == 0))[order])[found - 1]
        total = positive + beyond / 2
        peaks = np.array([score[a : b + 1].max() for a, b in _stretches(starts, ends, w // 2, n)])
        recall = np.minimum(reached / total, 1) * (peaks >= cuts[:, None]).mean(axis=1)
        false = (found - reached) / (n - total)
        precision = reached / found
        steps, rates = np.concatenate([[0], recall, [1]]), np.concatenate([[0], false, [1]])
        areas.append(
            (
                float(np.sum(np.diff(steps[:-1]) * precision)),
                float(np.sum(np.diff(rates) * (steps[1:] + steps[:-1]) / 2)),
            )
        )
    pr, roc = np.mean(areas, axis=0)
    return float(pr), float(roc)


def _checked(y_true: ArrayLike, y_score: ArrayLike, window: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y, score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if y.ndim != 1 or y.shape != score.shape:
        raise ValueError(f"expected labels and scores of one length, got shapes {y.shape} and {score.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("expected labels of 0 and 1")
    if not np.isfinite(score).all():
        raise ValueError("expected finite scores")
    if window < 0:
        raise ValueError(f"window={window}: expected a number of steps, 0 or more")
    if not 0 < y.sum() < len(y):
        raise ValueError("expected steps of both labels, 0 and 1")
    return y.astype(np.int64), score


def _soften(y: NDArray[np.int64], starts: Any, ends: Any, w: int) -> NDArray[np.float64]:
    soft = y.astype(np.float64)
    half = w // 2
    for start, end in zip(starts, ends, strict=True):
        after = np.arange(end + 1, min(end + half + 1, len(y)))
        before = np.arange(max(start - half, 0), start)
        soft[after] += np.sqrt(1 - (after - end) / w) if half else 0
        soft[before] += np.sqrt(1 - (start - before) / w) if half else 0
    return np.minimum(soft, 1)


def _stretches(starts: Any, ends: Any, half: int, n: int) -> list[tuple[int, int]]:
    """Return labelled stretches with their edges, joined where these meet."""
    joined = []
    first = max(starts[0] - half, 0)
    for end, following in zip(ends[:-1], starts[1:], strict=True):
        if end + half < following - half:
            joined.append((first, end + half))
            first = following - half
    return [*joined, (first, min(ends[-1] + half, n - 1))]
