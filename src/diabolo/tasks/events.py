"""Stretches of a series that are unusual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from diabolo.tasks.tracks import Track

__all__ = ["Event", "Judged", "find_events", "narrowed"]

LOOKS = 5  # at which rows are odd
BLAMED = 0.1  # share in the blame for an event from which a channel is named


@dataclass(frozen=True)
class Event:
    """A stretch of a series that is unusual.

    Attributes
    ----------
    series : object
        Which series: its position in the list, or its name in the column of series; None where there is one.
    start, end : object
        Times of the first and of the last row, where the series has times, else their positions.
    first, last : int
        Positions of these rows in the series.
    score : float
        The lowest score in it.
    channels : dict of str to float
        Channels to blame and their shares, the largest first; those below a tenth are left out.
    """

    series: Any
    start: Any
    end: Any
    first: int
    last: int
    score: float
    channels: dict[str, float]

    def __str__(self) -> str:
        where = "" if self.series is None else f"series {self.series}, "
        blame = ", ".join(f"{name} {share:.0%}" for name, share in self.channels.items())
        return f"{where}{self.start} to {self.end} (score {self.score:.3g}): {blame}"


class Judged(NamedTuple):
    """What a detector says of one series: scores ``(n,)``, what channels add to them ``(n, channels)``, and events."""

    scores: NDArray[np.float64]
    blame: NDArray[np.float64]
    events: list[Event]


def find_events(
    track: Track,
    scores: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    blames: NDArray[np.float64],
    names: tuple[str, ...],
    apart: int,
) -> list[Event]:
    """Join flagged rows that lie no more than some steps ``apart``.

    Parameters
    ----------
    track : Track
        The series.
    scores, flagged : ndarray of shape (n,)
        Of its rows.
    blames : ndarray of shape (n, channels)
        What each channel adds to a row being odd.
    names : tuple of str
        The channels.
    apart : int
        Steps.
    """
    found = []
    for first, last in _runs(flagged, apart):
        blame = np.maximum(blames[first : last + 1].sum(axis=0), 0)
        shares = blame / max(float(blame.sum()), 1e-300)
        order = [int(j) for j in np.argsort(-shares, kind="stable") if shares[j] >= BLAMED]
        found.append(
            Event(
                track.name,
                track.marks[first],
                track.marks[last],
                first,
                last,
                float(scores[first : last + 1].min()),
                {names[j]: float(shares[j]) for j in order},
            )
        )
    return found


def narrowed(
    flagged: NDArray[np.bool_], own: Callable[[NDArray[np.bool_]], NDArray[np.float64]], usual: float, window: int
) -> NDArray[np.bool_]:
    """Keep of runs of flagged rows those that are odd themselves: windows smear what is odd over all their rows.

    Look by look, the rows that are off most in each run are taken for missing, so that they no longer disturb how the others are
    rebuilt, until none is left that is off by more than usual, and by an eighth of the most.

    Parameters
    ----------
    flagged : ndarray of bool of shape (n,)
        What windows say.
    own : callable
        Maps rows that are to be taken for missing ``(n,)`` to what single rows lack ``(n,)``.
    usual : float
        What 99 of 100 rows lack at most.
    window : int
        Steps of a window.
    """
    runs = _runs(flagged, window // 2)
    odd, most = np.zeros_like(flagged), np.zeros(len(runs))
    for look in range(LOOKS):
        lack = own(odd)
        found = np.zeros_like(odd)
        for i, (first, last) in enumerate(runs):
            part = np.where(odd[first : last + 1], 0.0, lack[first : last + 1])
            top = float(part.max())
            most[i] = max(most[i], top)
            bar = max(3 * usual, top / 2, most[i] / 8)
            if look == 0 and top < bar:  # no row is odd by itself, all of them together are
                bar = top / 2
            found[first : last + 1] = part >= bar
        if not found.any():
            break
        odd |= found
    return odd


def _runs(flagged: NDArray[np.bool_], apart: int) -> list[tuple[int, int]]:
    """Return first and last of flagged rows that lie no more than some steps apart."""
    places = np.flatnonzero(flagged)
    parts = np.split(places, np.flatnonzero(np.diff(places) > max(1, apart)) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts if len(part)]
