"""Series as users have them, one row for each step of time -> channels on an even grid, and answers back on the rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from diabolo.data.raw import Raw, is_listed, refuse_infinity
from diabolo.data.tables import is_frame, read_frame, write_frame

__all__ = ["Segment", "Track", "Tracks", "by_track", "learn_scale", "learn_step", "read_tracks", "segments", "split"]

Array = NDArray[Any]

STILL = 1e-12  # spread, beside the mean, that is rounding


@dataclass(frozen=True)
class Track:
    """One series.

    Attributes
    ----------
    values : ndarray of shape (n, channels)
        In the user's units; NaN is a missing cell.
    times : ndarray of shape (n,) or None
        When the rows were, ascending: nanoseconds of dates, or the user's numbers.
    labels : ndarray of shape (n,) or None
        The same as the user wrote them.
    rows : ndarray of int of shape (n,)
        Where the rows stand in what the user gave.
    name : object
        Which series it is; None where there is one.
    """

    values: Array
    times: Array | None
    labels: Array | None
    rows: NDArray[np.int64]
    name: Any = None

    @property
    def marks(self) -> Array:
        """What rows are called ``(n,)``: their times as the user wrote them, or their positions."""
        return np.arange(len(self.values)) if self.labels is None else self.labels

    def part(self, first: int, end: int) -> Track:
        """Return some rows, by position."""
        cut = slice(first, end)
        times, labels = (None if x is None else x[cut] for x in (self.times, self.labels))
        return Track(self.values[cut], times, labels, self.rows[cut], self.name)

    def without(self, gone: NDArray[np.bool_]) -> Track:
        """Return the series with some rows missing."""
        return replace(self, values=np.where(gone[:, None], np.nan, self.values))


@dataclass(frozen=True)
class Segment:
    """A part of a series without long gaps, on an even grid.

    Attributes
    ----------
    values : ndarray of shape (steps, channels)
        NaN where nothing is known.
    rows : slice
        The rows of the track that lie in it.
    steps : ndarray of int of shape (n,)
        Where on the grid each of those rows lies.
    """

    values: Array
    rows: slice
    steps: NDArray[np.int64]


@dataclass(frozen=True)
class Tracks:
    """What the user gave, as series.

    Attributes
    ----------
    tracks : list of Track
        The series.
    names : tuple of str
        The channels.
    listed : bool
        Whether answers are listed, one array for each series.
    frames : list of Raw
        What the frames were, one for each item of a list; empty for arrays.
    """

    tracks: list[Track]
    names: tuple[str, ...]
    listed: bool
    frames: list[Raw]

    def give(self, answers: list[Array]) -> Any:
        """Return one number for each row ``(n,)``, in the order of the user's rows, or a list of such arrays."""
        if self.listed:
            return answers
        out = np.empty((sum(len(a) for a in answers), *answers[0].shape[1:]), dtype=answers[0].dtype)
        for track, answer in zip(self.tracks, answers, strict=True):
            out[track.rows] = answer
        return out

    def give_rows(self, answers: list[Array]) -> Any:
        """Return rows of channels ``(n, channels)`` as the user gave them: an array, a frame, or a list of either."""
        given = self.give(answers)
        if not self.frames:
            return given
        parts = given if self.listed else [given]
        framed = [
            write_frame(part, self.names, raw.container, raw.index)
            for part, raw in zip(parts, self.frames, strict=True)
        ]
        return framed if self.listed else framed[0]


def read_tracks(owner: BaseEstimator, X: Any, time: str | None, series: str | None, *, reset: bool) -> Tracks:
    """Read one series or many.

    Parameters
    ----------
    owner : estimator
        Learns names and number of channels when ``reset``, and is asked for them else.
    X : array, frame, or list of either
        One row for each step of time, one column for each channel.
    time, series : str or None
        Columns of a frame that say when a row was, and which series it belongs to.

    Raises
    ------
    ValueError
        For times that are out of order or occur twice, for columns that are no numbers, and for series without rows.
    """
    many = is_listed(X) and len(X) > 0 and all(is_frame(item) or getattr(item, "ndim", 0) in (1, 2) for item in X)
    if isinstance(getattr(X, "ndim", None), int) and X.ndim == 3:
        X, many = list(X), True
    names: tuple[str, ...]
    if not many:
        tracks, names, raw = _read_one(owner, X, time, series, reset)
        return Tracks(tracks, names, False, [] if raw is None else [raw])
    if series is not None:
        raise ValueError(f"series={series!r} names a column of one frame with all series; got a list of {len(X)}")
    found: list[Track] = []
    frames = []
    names = ()
    for i, item in enumerate(X):
        try:
            tracks, names, raw = _read_one(owner, item, time, None, reset and i == 0)
        except ValueError as error:
            raise ValueError(f"series {i}: {error}") from error
        track = tracks[0]
        found.append(Track(track.values, track.times, track.labels, track.rows, i))
        frames += [] if raw is None else [raw]
    return Tracks(found, names, True, frames)


def _read_one(
    owner: BaseEstimator, X: Any, time: str | None, series: str | None, reset: bool
) -> tuple[list[Track], tuple[str, ...], Raw | None]:
    if not is_frame(X):
        for name, value in (("time", time), ("series", series)):
            if value is not None:
                raise ValueError(f"{name}={value!r} names a column of a frame; got a {type(X).__name__}")
        values = np.asarray(X.detach().cpu() if hasattr(X, "detach") else X)
        if values.ndim == 1 and values.dtype != object:
            if not reset and (expected := getattr(owner, "n_features_in_", 1)) != 1:
                raise ValueError(f"expected rows of {expected} channels, got a 1D array. Reshape your data.")
            values = values[:, None]
        plain = values if values.ndim == 2 and values.dtype.kind in "buif" else X
        values = validate_data(owner, plain, reset=reset, ensure_all_finite=False, dtype="numeric")
        refuse_infinity(Raw(values, "vector", "numpy"))
        names = tuple(str(j) for j in range(values.shape[1]))
        return [Track(values.astype(np.float64, copy=False), None, None, np.arange(len(values)))], names, None
    frame = nw.from_native(X, eager_only=True)
    for name, value in (("time", time), ("series", series)):
        if value is not None and value not in frame.columns:
            raise ValueError(
                f"{name}={value!r} is not a column; the frame has {', '.join(map(str, frame.columns[:8]))}"
            )
    labels = None if time is None else frame.get_column(time).to_numpy()
    if time is None and frame.implementation.is_pandas() and X.index.dtype.kind == "M":
        labels = np.asarray(X.index)
    which = None if series is None else frame.get_column(series).to_numpy()
    rest = frame.drop([c for c in (time, series) if c is not None])
    if not len(rest.columns):
        raise ValueError("the frame has no channel: no column but those of time and series")
    raw = read_frame(rest.to_native())
    refuse_infinity(raw)
    validate_data(owner, rest.to_native(), reset=reset, skip_check_array=True)
    if len(raw.values) == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={raw.values.shape}) while a minimum of 1 is required.")
    values = raw.values.astype(np.float64)
    called = time or "the index"
    if which is None:
        whole = np.arange(len(values))
        return [Track(values, _moments(labels, called, whole), labels, whole)], raw.columns, raw
    tracks = []
    for name in dict.fromkeys(which.tolist()):
        rows = np.flatnonzero(which == name)
        own = None if labels is None else labels[rows]
        tracks.append(Track(values[rows], _moments(own, called, rows), own, rows, name))
    return tracks, raw.columns, raw


def _moments(labels: Array | None, called: str, rows: Array) -> Array | None:
    """Return times as numbers, or say what is wrong with them."""
    if labels is None:
        return None
    if labels.dtype.kind == "O" or labels.dtype.kind in "US":
        try:
            labels = labels.astype("datetime64[ns]")
        except (TypeError, ValueError):
            raise ValueError(
                f"{called} cannot be read as times: expected dates, numbers, or text such as 2024-05-31 12:00; row {rows[0]} "
                f"has {labels[0]!r}"
            ) from None
    if labels.dtype.kind == "M":
        missing, times = np.isnat(labels), labels.astype("datetime64[ns]").astype(np.int64)
    else:
        missing, times = ~np.isfinite(labels.astype(np.float64)), labels
    if missing.any():
        raise ValueError(f"{called} has no time in row {rows[int(missing.argmax())]}; drop such rows")
    ahead = np.diff(times)
    if len(ahead) and ahead.min() <= 0:
        i = int((ahead <= 0).argmax()) + 1
        if ahead[i - 1] < 0:
            raise ValueError(
                f"{called} is out of order: row {rows[i]} is earlier than the row before it; sort the rows by time"
            )
        raise ValueError(
            f"{called} has the time of row {rows[i]} twice; drop one of the rows, or name the column that tells series apart: "
            "series="
        )
    return np.asarray(times)


def learn_step(tracks: Tracks) -> float | None:
    """Return the median time between rows, ``None`` where there are no times."""
    ahead = [np.diff(track.times) for track in tracks.tracks if track.times is not None and len(track.times) > 1]
    return float(np.median(np.concatenate(ahead))) if ahead else None


def learn_scale(tracks: list[Track], names: tuple[str, ...]) -> tuple[Array, Array]:
    """Return mean and standard deviation of each channel, 1 for those that stand still."""
    known = np.concatenate([t.values for t in tracks])
    seen = ~np.isnan(known)
    never = np.flatnonzero(~seen.any(axis=0))
    if len(never):
        raise ValueError(
            f"{len(never)} channel(s) have no observed value to learn from: {', '.join(names[j] for j in never[:8])}. "
            "Drop them before fit."
        )
    count = seen.sum(axis=0)
    center = np.where(seen, known, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(seen, known - center, 0) ** 2).sum(axis=0) / count)
    return center, np.where(spread <= STILL * np.abs(center), 1.0, spread)


def segments(track: Track, step: float | None, longest: int) -> Iterator[Segment]:
    """Put a series on an even grid, and cut it where nothing is known for ``longest`` steps.

    Each row lies at the nearest step of the grid; rows at the same one are averaged there. Rows of such a gap lie in no segment.
    """
    n = len(track.values)
    if track.times is None or step is None:
        place = np.arange(n)
    else:
        place = np.rint((track.times - track.times[0]) / step).astype(np.int64)
    known = np.flatnonzero(~np.isnan(track.values).all(axis=1))
    if not len(known):
        return
    cuts = np.flatnonzero(np.diff(place[known]) > longest)
    for first, last in zip(known[[0, *(cuts + 1)]], known[[*cuts, -1]], strict=True):
        steps, values = place[first : last + 1] - place[first], track.values[first : last + 1]
        rows = slice(int(first), int(last) + 1)
        if (steps == np.arange(len(steps))).all():
            yield Segment(values, rows, steps)
            continue
        seen = ~np.isnan(values)
        total, count = np.zeros((2, steps[-1] + 1, values.shape[1]))
        np.add.at(total, steps, np.where(seen, values, 0))
        np.add.at(count, steps, seen)
        yield Segment(np.where(count > 0, total / np.maximum(count, 1), np.nan), rows, steps)


Fold = tuple[list[Track], list[tuple[Track, slice]]]


def split(tracks: list[Track], ends: Sequence[float]) -> list[Fold]:
    """Split series in time.

    Parameters
    ----------
    tracks : list of Track
        The series.
    ends : sequence of float
        Shares of each series: what lies between two of them is judged by what is learned of all else.

    Returns
    -------
    list of (list of Track, list of (Track, slice))
        Series to learn from, and which rows of which series are judged.
    """
    folds = []
    for low, high in itertools.pairwise(ends):
        learn, judge = [], []
        for track in tracks:
            n = len(track.values)
            first, end = (max(1, round(n * low)) if low else 0), round(n * high)
            learn += [part for part in (track.part(0, first), track.part(end, n)) if len(part.values)]
            judge += [(track, slice(first, end))] if end > first else []
        folds.append((learn, judge))
    return folds


def by_track(tracks: list[Track], folds: list[Fold], scores: Array) -> Iterator[tuple[Track, Array]]:
    """Yield series with their part of scores that are in the order of folds; infinite where no fold judges."""
    own = {id(track): np.full(len(track.values), np.inf) for track in tracks}
    at = 0
    for _, judge in folds:
        for track, rows in judge:
            n = rows.stop - rows.start
            own[id(track)][rows], at = scores[at : at + n], at + n
    for track in tracks:
        yield track, own[id(track)]
