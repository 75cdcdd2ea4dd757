"""Numbers as text, and small charts as inline SVG. Colours come from the page's style sheet, so that they follow dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

__all__ = [
    "Line",
    "Point",
    "bar_chart",
    "compact",
    "histogram",
    "line_chart",
    "number",
    "percent",
    "point_chart",
    "ticks",
]

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34  # margins around the frame


def number(value: float | None, digits: int = 4) -> str:
    """Write a number for reading: a few significant digits, commas, a true minus sign, a dash for none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if value == int(value) and size < 1e7:
        text = f"{int(value):,}"
    elif size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.{max(digits - 2, 1)}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        places = max(0, digits - 1 - math.floor(math.log10(size)))
        text = f"{value:,.{places}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", MINUS)


def compact(value: float | None) -> str:
    """Write a number in three significant digits."""
    return number(value, 3)


def percent(share: float | None) -> str:
    """Write a share as a percentage that never rounds an imperfect one to 100 or a positive one to 0."""
    if share is None or math.isnan(share):
        return DASH
    places = 1 if 0.001 <= abs(share) <= 0.999 or share in (0.0, 1.0) or abs(share) > 1 else 3
    text = f"{100 * share:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", MINUS) + "%"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about ``count`` round numbers within ``[low, high]``."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low] if math.isfinite(low) else []
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True)
class Line:
    """One curve: its name, its values at 1, 2, 3 ..., and its class in the style sheet."""

    name: str
    values: Sequence[float]
    style: str


@dataclass(frozen=True)
class Point:
    """One point of a chart, and whether it is to be marked."""

    x: float
    y: float
    marked: bool = False


def _svg(label: str, body: str, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _tick_text(values: Sequence[float]) -> list[str]:
    """Write tick marks with as many decimals as their step needs, and no more."""
    step = min((abs(b - a) for a, b in pairwise(values)), default=0.0)
    largest = max((abs(v) for v in values), default=0.0)
    if step == 0 or largest >= 1e5 or largest < 1e-3:
        return [compact(v) for v in values]
    places = next(p for p in range(12) if abs(round(step, p) - step) < 1e-6 * step)
    return [f"{v:,.{places}f}".replace("-", MINUS) if abs(v) > step / 2 else "0" for v in values]


def _frame(low: float, high: float, x_label: str) -> tuple[str, Any]:
    """Return the grid of a chart with values from ``low`` to ``high``, and the function from a value to its height."""
    floor = HEIGHT - BOTTOM

    def y(value: float) -> float:
        return floor - (value - low) / (high - low) * (floor - TOP)

    marks = ticks(low, high)
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(v) + 3.5:.1f}" text-anchor="end">{text}</text>'
        for v, text in zip(marks, _tick_text(marks), strict=True)
    ]
    parts.append(
        f'<text class="name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return "".join(parts), y


def _padded(low: float, high: float) -> tuple[float, float]:
    """Widen a range a little, and a range of one number to something that can be drawn."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    room = 0.06 * (high - low) if high > low else max(abs(high) * 0.05, 0.5)
    return low - room, high + room


def line_chart(lines: Sequence[Line], label: str, *, best: int = 0) -> Markup:
    """Draw curves over epochs.

    Parameters
    ----------
    lines : sequence of Line
        Curves of one length.
    label : str
        What the chart shows, for those who cannot see it.
    best : int
        Epoch to mark, from 1; 0 marks none.
    """
    n = max((len(line.values) for line in lines), default=0)
    finite = [v for line in lines for v in line.values if math.isfinite(v)]
    # a long run falls steeply at first: the frame follows the rest, so that the end can be read
    later = [v for line in lines for v in line.values[n // 30 :] if math.isfinite(v)] if n >= 30 else finite
    low, high = _padded(min(finite, default=0.0), max(later, default=1.0))
    grid, y = _frame(low, high, "epoch")
    floor = HEIGHT - BOTTOM

    def x(epoch: float) -> float:
        share = (epoch - 1) / (n - 1) if n > 1 else 0.5
        return LEFT + share * (WIDTH - RIGHT - LEFT)

    parts = [grid]
    marks = sorted({1, n} | {int(v) for v in ticks(1, n, 5) if v == int(v) and 0.08 * n < v < 0.93 * n}) if n else []
    parts += [
        f'<text x="{x(v):.1f}" y="{floor + 14}" text-anchor="{"end" if v == n > 1 else "middle"}">{v:,}</text>'
        for v in marks
    ]
    if best:
        parts.append(f'<line class="best" x1="{x(best):.1f}" x2="{x(best):.1f}" y1="{TOP}" y2="{floor}"/>')
    parts.append(f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - RIGHT - LEFT}" height="{floor - TOP}" ')
    parts.append(f'viewBox="{LEFT} {TOP} {WIDTH - RIGHT - LEFT} {floor - TOP}">')  # cuts off what lies above the frame
    for line in lines:
        points = [(x(i + 1), y(v)) for i, v in enumerate(line.values) if math.isfinite(v)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if n <= 3:  # too short to be seen as a line
            parts += [f'<circle class="{line.style}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
    parts.append("</svg>")
    return _svg(label, "".join(parts))


def histogram(values: NDArray[Any], label: str, *, x_label: str, mark: float | None = None) -> tuple[Markup, int]:
    """Draw the distribution of numbers; return the chart and how many numbers lie left of its frame.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Numbers.
    label : str
        What the chart shows, for those who cannot see it.
    x_label : str
        What the numbers are.
    mark : float, optional
        Where to draw a line.
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        values = np.zeros(1)
    first, middle, high = (float(v) for v in (*np.quantile(values, [0.01, 0.5]), values.max()))
    low = max(float(values.min()), middle - 4 * (middle - first)) if middle > first else float(values.min())
    if mark is not None and math.isfinite(mark):
        low, high = min(low, mark), max(high, mark)
    low, high = (low, high) if high > low else _padded(low, high)
    left_out = int((values < low).sum())
    counts, edges = np.histogram(np.clip(values, low, high), bins=min(40, max(8, math.ceil(len(values) ** 0.5))))
    grid, y = _frame(0.0, float(counts.max()) * 1.06, x_label)
    floor = HEIGHT - BOTTOM

    def x(value: float) -> float:
        return float(LEFT + (value - low) / (high - low) * (WIDTH - RIGHT - LEFT))

    parts = [grid]
    for count, a, b in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            style = "bad" if mark is not None and b <= mark else "bar"
            top = y(float(count))
            parts.append(
                f'<rect class="{style}" x="{x(a) + 0.5:.1f}" y="{top:.1f}" width="{max(x(b) - x(a) - 1, 1):.1f}" '
                f'height="{floor - top:.1f}"/>'
            )
    marks = ticks(low, high, 4)
    parts += [
        f'<text x="{x(v):.1f}" y="{floor + 14}" text-anchor="middle">{text}</text>'
        for v, text in zip(marks, _tick_text(marks), strict=True)
        if x(v) < WIDTH - RIGHT - 8
    ]
    if mark is not None and math.isfinite(mark):
        parts.append(f'<line class="mark" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{TOP}" y2="{floor}"/>')
    return _svg(label, "".join(parts)), left_out


def bar_chart(
    heights: NDArray[Any],
    label: str,
    *,
    x_label: str,
    faint: NDArray[np.bool_] | None = None,
) -> Markup:
    """Draw one bar for each number, from zero.

    Parameters
    ----------
    heights : ndarray of shape (n,)
        Numbers from 0 up.
    label : str
        What the chart shows, for those who cannot see it.
    x_label : str
        What a bar is.
    faint : ndarray of bool, optional
        Bars to draw in the colour of what is not used.
    """
    top_value = float(np.nanmax(heights)) if np.isfinite(heights).any() else 0.0
    grid, y = _frame(0.0, top_value * 1.06 if top_value > 0 else 1.0, x_label)
    floor, n = HEIGHT - BOTTOM, len(heights)
    step = (WIDTH - RIGHT - LEFT) / n
    parts = [grid]
    for i, value in enumerate(heights):
        top = min(y(float(value)) if math.isfinite(value) else floor, floor - 1)  # a bar of zero can still be seen
        style = "unused" if faint is not None and faint[i] else "bar"
        width = min(step * 0.82, 40)
        parts.append(
            f'<rect class="{style}" x="{LEFT + (i + 0.5) * step - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{floor - top:.1f}"><title>{i}: {number(float(value))}</title></rect>'
        )
    every = math.ceil(n / 16)
    parts += [
        f'<text x="{LEFT + (i + 0.5) * step:.1f}" y="{floor + 14}" text-anchor="middle">{i}</text>'
        for i in range(0, n, every)
    ]
    return _svg(label, "".join(parts))


def point_chart(
    points: Sequence[Point],
    label: str,
    *,
    x_label: str,
    line: Sequence[tuple[float, float]] = (),
    log: bool = False,
    names: Sequence[str] = (),
) -> Markup:
    """Draw points, the marked one on top.

    Parameters
    ----------
    points : sequence of Point
        Where they lie.
    label : str
        What the chart shows, for those who cannot see it.
    x_label : str
        What lies along the bottom.
    line : sequence of (float, float), optional
        A line behind the points.
    log : bool
        Whether ``x`` is a logarithm to the base of ten.
    names : sequence of str
        What ``x`` of 0, 1, 2 ... stands for, where it is no number.
    """
    heights = sorted(p.y for p in points)
    # what failed altogether must not flatten the rest
    floor_of = (
        heights[len(heights) // 10] - 2 * (heights[-1] - heights[len(heights) // 2]) if len(heights) > 4 else -math.inf
    )
    low, high = _padded(max(min(heights, default=0.0), floor_of), max(heights, default=1.0))
    grid, y = _frame(low, high, x_label)
    floor = HEIGHT - BOTTOM
    first, last = min((p.x for p in points), default=0.0), max((p.x for p in points), default=1.0)
    first, last = (-0.5, len(names) - 0.5) if names else _padded(first, last)

    def x(value: float) -> float:
        return LEFT + (value - first) / (last - first) * (WIDTH - RIGHT - LEFT)

    parts = [grid]
    if names:
        marks = list(enumerate(name if len(name) <= 14 else name[:13] + "…" for name in names))
    else:
        places = [v for v in ticks(first, last, 5) if not log or v == int(v)]
        places = places if len(places) > 1 else [first + 0.1 * (last - first), last - 0.1 * (last - first)]
        texts = [compact(10**v) for v in places] if log else _tick_text(places)
        marks = list(zip(places, texts, strict=True))  # type: ignore[arg-type]
    parts += [
        f'<text x="{x(v):.1f}" y="{floor + 14}" text-anchor="middle">{escape(text)}</text>'
        for v, text in marks[:: math.ceil(len(marks) / 6)]
    ]
    if line:
        path = " ".join(f"{x(a):.1f},{y(max(b, low)):.1f}" for a, b in line)
        parts.append(f'<polyline class="train" points="{path}"/>')
    for p in sorted(points, key=lambda p: p.marked):
        parts.append(
            f'<circle class="{"valid" if p.marked else "train"}" cx="{x(p.x):.1f}" cy="{y(max(p.y, low)):.1f}" '
            f'r="{5 if p.marked else 3}"><title>{number(p.y)}</title></circle>'
        )
    return _svg(label, "".join(parts))
