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
    tracks = detector._read(X).tracks
    judged = [detector._judge(track) for track in tracks]
    rebuilt = [detector._rebuilt(track) for track in tracks]
    events = [(i, event) for i, one in enumerate(judged) for event in one.events]
    every = np.concatenate([one.scores for one in judged])
    svg, left_out = histogram(
        every, f"distribution of the scores of {len(every):,} rows", x_label="score", mark=detector.offset_
    )
    flagged = int((every < detector.offset_).sum())
    held = detector.calibration_scores_
    charts = []
    order = sorted(range(len(tracks)), key=lambda i: float(judged[i].scores.min()))[:TRACKS]
    for i in sorted(order):
        track, one = tracks[i], judged[i]
        shown = np.argsort(-np.maximum(one.blame, 0).sum(axis=0), kind="stable")[:PANELS]
        panels = [
            Panel(detector.channel_names_[j], [(rebuilt[i][:, j], "valid"), (track.values[:, j], "train")])
            for j in sorted(shown)
        ]
        panels.append(Panel("score", [(one.scores, "train")], detector.offset_))
        label = "the series" if track.name is None else f"series {track.name}"
        spans = [(event.first, event.last) for event in one.events]
        drawn = _chart(panels, track.marks, spans, f"{label}, {len(spans)} events", WIDTH, PANEL)
        charts.append({"title": label, "svg": drawn})
    cards = []
    for i, event in sorted(events, key=lambda found: found[1].score)[:EVENTS]:
        track = tracks[i]
        around = max(8, event.last - event.first + 1, detector.window_ // 4)
        part = slice(max(0, event.first - around), min(len(track.values), event.last + around + 1))
        named = list(event.channels)[:2] or [detector.channel_names_[0]]
        places = [detector.channel_names_.index(name) for name in named]
        panels = [
            Panel(name, [(rebuilt[i][part, j], "valid"), (track.values[part, j], "train")])
            for name, j in zip(named, places, strict=True)
        ]
        moved = [(event.first - part.start, event.last - part.start)]
        cards.append({"svg": _chart(panels, track.marks[part], moved, f"event {event}", 320, 72), **_told(event)})
    return {
        "rows": f"{len(every):,}",
        "series": len(tracks),
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
        "inside": f"{sum(event.last - event.first + 1 for _, event in events):,}",
        "svg": svg,
        "left_out": number(left_out) if left_out else "",
        "charts": charts,
        "hidden": len(tracks) - len(charts),
        "cards": cards,
    }


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
