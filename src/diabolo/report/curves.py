"""Series as small charts: a panel for each channel, with lines over its steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from diabolo.report.draw import compact

__all__ = ["PANELS", "draw_series"]

PANELS = 4  # channels drawn at most
WIDTH, PANEL, LEFT, BOTTOM, GAP = 320, 72, 44, 18, 16
POINTS = 400  # of a line at most; of longer series every so many steps are drawn

Lines = Sequence[tuple[NDArray[np.float64], str]]


def draw_series(
    shape: tuple[int, int], lines: Lines, label: str, *, channels: Sequence[int], floor: bool = False
) -> Markup:
    """Draw lines over steps, one panel below the other.

    Parameters
    ----------
    shape : (int, int)
        Channels and steps of a row.
    lines : sequence of (ndarray, str)
        Rows, flat, and the class of each in the style sheet; NaN leaves a gap.
    label : str
        What the chart shows, for those who cannot see it.
    channels : sequence of int
        Which to draw.
    floor : bool
        Whether panels start at zero.
    """
    rows = [(values.reshape(shape), style) for values, style in lines]
    seen = [np.flatnonzero(np.isfinite(values).any(axis=0)) for values, _ in rows]
    last = max((int(steps[-1]) for steps in seen if len(steps)), default=0)
    height = len(channels) * (PANEL + GAP) + BOTTOM + (GAP if shape[0] > 1 else 4) - GAP
    parts = []
    for panel, channel in enumerate(channels):
        top = panel * (PANEL + GAP) + (GAP if shape[0] > 1 else 4)
        values = np.concatenate([row[channel, : last + 1] for row, _ in rows])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        low = 0.0 if floor else low
        if high <= low:
            low, high = low - 0.5, high + 0.5
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{top + PANEL}" y2="{top + PANEL}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{top + 8}" text-anchor="end">{compact(high)}</text>')
        parts.append(f'<text x="{LEFT - 5}" y="{top + PANEL}" text-anchor="end">{compact(low)}</text>')
        if shape[0] > 1:
            parts.append(f'<text class="name" x="{WIDTH - 2}" y="{top - 4}" text-anchor="end">channel {channel}</text>')
        for row, style in rows:
            parts += _line(row[channel, : last + 1], style, low, high, top)
    parts.append(f'<text x="{LEFT}" y="{height - 4}">step 0</text>')
    parts.append(f'<text x="{WIDTH - 2}" y="{height - 4}" text-anchor="end">{last}</text>')
    body = "".join(parts)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _line(values: NDArray[np.float64], style: str, low: float, high: float, top: float) -> list[str]:
    """Draw one line, in as many pieces as its gaps leave."""
    steps = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int))
    across = LEFT + (steps / max(len(values) - 1, 1)) * (WIDTH - 4 - LEFT)
    up = top + PANEL - (values[steps] - low) / (high - low) * PANEL
    parts = []
    for piece in np.split(np.arange(len(steps)), np.flatnonzero(~np.isfinite(up))):
        there = [i for i in piece if np.isfinite(up[i])]
        if len(there) == 1:  # a step alone has no line
            parts.append(f'<circle class="{style}" cx="{across[there[0]]:.1f}" cy="{up[there[0]]:.1f}" r="2"/>')
        elif there:
            points = " ".join(f"{across[i]:.1f},{up[i]:.1f}" for i in there)
            parts.append(f'<polyline class="{style}" points="{points}"/>')
    return parts
