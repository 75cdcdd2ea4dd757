"""The page about a detector of anomalies in series: what it found when, beside what it expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from diabolo.report.draw import compact, histogram, number, percent
from diabolo.tasks.events import Event
from diabolo.tasks.series import SeriesAnomalyDetector
from diabolo.tasks.tracks import read_tracks

__all__ = ["events_page"]

Array = NDArray[Any]
WIDTH, PANEL, LEFT, BOTTOM, GAP, TOP = 900, 84, 52, 20, 18, 16
BINS = 450  # of a chart, across: of each the range of values is drawn
TRACKS, PANELS, EVENTS = 6, 4, 9  # series, channels of each, and events that are drawn at most


@dataclass(frozen=True)
class Panel:
    """One panel of a chart: lines over the same rows."""

    name: str
    lines: list[tuple[Array, str]]  # numbers (n,), and the class in the style sheet
    mark: float | None = None


def events_page(detector: SeriesAnomalyDetector, X: Any) -> dict[str, Any]:
    """Return what the page shows of the rows of ``X``."""
    tracks = read_tracks(detector, X, detector.time, detector.series, reset=False)
    split = _splitter(tracks)
    scores = split(detector.score_samples(X))
    rebuilt = split(_plain(detector.reconstruct(X)))
    blames = split(_plain(detector.explain(X)))
    events = detector.events(X)
    names = {track.name: i for i, track in enumerate(tracks.tracks)}
    every = np.concatenate(scores)
    svg, left_out = histogram(
        every, f"distribution of the scores of {len(every):,} rows", x_label="score", mark=detector.offset_
    )
    flagged = int((every < detector.offset_).sum())
    held = detector.calibration_scores_
    charts = []
    order = sorted(range(len(tracks.tracks)), key=lambda i: float(scores[i].min()))[:TRACKS]
    for i in sorted(order):
        track, own = tracks.tracks[i], [e for e in events if names[e.series] == i]
        shown = np.argsort(-np.maximum(blames[i], 0).sum(axis=0), kind="stable")[:PANELS]
        panels = [
            Panel(detector.channel_names_[j], [(rebuilt[i][:, j], "valid"), (track.values[:, j], "train")])
            for j in sorted(shown)
        ]
        panels.append(Panel("score", [(scores[i], "train")], detector.offset_))
        label = "the series" if track.name is None else f"series {track.name}"
        charts.append({"title": label, "svg": _draw(panels, _labels(track), own, label)})
    cards = []
    for event in sorted(events, key=lambda e: e.score)[:EVENTS]:
        i = names[event.series]
        track = tracks.tracks[i]
        around = max(8, event.last - event.first + 1, detector.window_ // 4)
        part = slice(max(0, event.first - around), min(len(track.values), event.last + around + 1))
        named = list(event.channels)[:2] or [detector.channel_names_[0]]
        places = [detector.channel_names_.index(name) for name in named]
        panels = [
            Panel(name, [(rebuilt[i][part, j], "valid"), (track.values[part, j], "train")])
            for name, j in zip(named, places, strict=True)
        ]
        labels = _labels(track)[part]
        moved = [(event.first - part.start, event.last - part.start)]
        cards.append({"svg": _chart(panels, labels, moved, f"event {event}", 320, 72), **_told(event)})
    return {
        "rows": f"{len(every):,}",
        "series": len(tracks.tracks),
        "channels": len(detector.channel_names_),
        "window": detector.window_,
        "period": detector.period_,
        "causal": detector.causal,
        "offset": number(detector.offset_),
        "rate": percent(float((held < detector.offset_).mean())),
        "held": f"{len(held):,}",
        "flagged": f"{flagged:,}",
        "share": percent(flagged / len(every)),
        "events": len(events),
        "inside": f"{sum(event.last - event.first + 1 for event in events):,}",
        "svg": svg,
        "left_out": number(left_out) if left_out else "",
        "charts": charts,
        "hidden": len(tracks.tracks) - len(charts),
        "cards": cards,
    }


def _plain(rows: Any) -> Any:
    """Return frames as arrays."""
    if isinstance(rows, list):
        return [_plain(part) for part in rows]
    return rows if isinstance(rows, np.ndarray) else np.asarray(rows)


def _splitter(tracks: Any) -> Any:
    def split(given: Any) -> list[Array]:
        return given if tracks.listed else [given[track.rows] for track in tracks.tracks]

    return split


def _labels(track: Any) -> Array:
    return np.arange(len(track.values)) if track.labels is None else np.asarray(track.labels)


def _told(event: Event) -> dict[str, Any]:
    blame = ", ".join(f"{name} {percent(share)}" for name, share in event.channels.items())
    where = "" if event.series is None else f"{event.series}: "
    return {
        "name": f"{where}{_when(event.start)} to {_when(event.end)}",
        "score": number(event.score),
        "blame": blame,
        "rows": event.last - event.first + 1,
    }


def _when(label: Any) -> str:
    if isinstance(label, np.datetime64):
        text = str(label.astype("datetime64[s]")).replace("T", " ")
        return text.removesuffix(":00").removesuffix(" 00:00")
    return str(label)


def _draw(panels: Sequence[Panel], labels: Array, events: Sequence[Event], what: str) -> Markup:
    return _chart(panels, labels, [(e.first, e.last) for e in events], f"{what}, {len(events)} events", WIDTH, PANEL)


def _chart(
    panels: Sequence[Panel], labels: Array, spans: Sequence[tuple[int, int]], what: str, width: int, panel: int
) -> Markup:
    """Draw panels over rows, one below the other, with marked spans."""
    n = len(labels)
    height = len(panels) * (panel + GAP) + BOTTOM + TOP - GAP
    parts = []

    def across(at: Any) -> Any:
        return LEFT + np.asarray(at) / max(n - 1, 1) * (width - 4 - LEFT)

    for first, last in spans:
        left, right = float(across(first)), float(across(last))
        parts.append(
            f'<rect class="event" x="{left - 1:.1f}" y="{TOP}" width="{max(right - left, 0) + 2:.1f}" '
            f'height="{height - BOTTOM - TOP}"/>'
        )
    for k, shown in enumerate(panels):
        top = TOP + k * (panel + GAP)
        values = np.concatenate([line for line, _ in shown.lines])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        if shown.mark is not None:
            low, high = min(low, shown.mark), max(high, shown.mark)
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{width}" y1="{top + panel}" y2="{top + panel}"/>',
            f'<text x="{LEFT - 5}" y="{top + 8}" text-anchor="end">{compact(high)}</text>',
            f'<text x="{LEFT - 5}" y="{top + panel}" text-anchor="end">{compact(low)}</text>',
            f'<text class="name" x="{width - 4}" y="{top - 4}" text-anchor="end">{escape(shown.name)}</text>',
        ]
        for line, style in shown.lines:
            at, drawn = _thinned(line)
            up = top + panel - (drawn - low) / (high - low) * panel
            for piece in np.split(np.arange(len(at)), np.flatnonzero(~np.isfinite(up))):
                there = piece[np.isfinite(up[piece])]
                if len(there):
                    points = " ".join(f"{across(at[i]):.1f},{up[i]:.1f}" for i in there)
                    parts.append(f'<polyline class="{style}" points="{points}"/>')
        if shown.mark is not None:
            y = top + panel - (shown.mark - low) / (high - low) * panel
            parts.append(f'<line class="mark" x1="{LEFT}" x2="{width - 4}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<text x="{LEFT}" y="{height - 5}">{escape(_when(labels[0]))}</text>')
    parts.append(f'<text x="{width - 4}" y="{height - 5}" text-anchor="end">{escape(_when(labels[-1]))}</text>')
    wide = " wide" if width == WIDTH else ""
    return Markup(
        f'<svg class="chart{wide}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(what)}">{"".join(parts)}</svg>'
    )


def _thinned(line: Array) -> tuple[Array, Array]:
    """Return places and numbers to draw: of each bin of many rows the lowest and the highest, in their order."""
    n = len(line)
    if n <= 2 * BINS:
        return np.arange(n), line
    at: list[int] = []
    for rows in np.array_split(np.arange(n), BINS):
        part = line[rows]
        if np.isfinite(part).any():
            at += sorted({int(rows[np.nanargmin(part)]), int(rows[np.nanargmax(part)])})
        else:
            at.append(int(rows[0]))
    return np.array(at), line[at]
