"""Figures of the latent space as files of their own: rows along ways, and maps. SVG that opens anywhere, PNG of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import escape
from numpy.typing import NDArray

from diabolo.files import write_atomic
from diabolo.report.colours import COLOURS, Colouring, by_label, read_labels
from diabolo.report.draw import compact
from diabolo.report.png import Painter, encode_png, png_uri

__all__ = ["write_grid", "write_map"]

Array = NDArray[np.float64]
CELL, GAP, LEFT, TOP = 56, 4, 96, 26  # of a grid of pictures
LARGEST = 96  # pixels of a picture's longer side in a PNG, at least as many as it has
PLOT, MARGIN, LEGEND = 520, 18, 150  # of a map
MOST_LINES = 24  # columns of a table that are drawn
FONT = "font-family='system-ui, sans-serif' font-size='12' fill='#333'"
SMALL = FONT.replace("'12'", "'10'")


def write_grid(model: Any, rows: Any, path: str | Path, *, names: Sequence[str] = (), width: int) -> None:
    """Write rows that belong together, such as ways between rows or traversals, as a figure.

    Images are pictures in a grid, one way in each line. Of a table there is one small chart for each column, over the steps of a
    way, with a line for each way; a column of labels says the label at each step. Series are small curves in a grid.

    Parameters
    ----------
    model : estimator
        That made the rows.
    rows : array, frame or tensor
        ``lines * width`` rows as the model hands them out, line after line.
    path : str or Path
        File that ends in ``.svg``, or for images ``.png``.
    names : sequence of str
        Of the lines.
    width : int
        Rows in a line.

    Raises
    ------
    ValueError
        For a file of another kind, or rows that do not fill whole lines.
    """
    path = Path(path)
    values = model.codec_.flat(model._read(rows, reset=False).values).astype(np.float64)
    if width < 1 or len(values) % width:
        raise ValueError(f"{len(values)} rows do not make lines of {width}")
    names = list(names) or [""] * (len(values) // width)
    if len(names) != len(values) // width:
        raise ValueError(f"{len(names)} names for {len(values) // width} lines")
    schema = model.schema_
    kind = _suffix(path, schema.kind == "image")
    if schema.kind == "image":
        painter = Painter(schema.shape, np.quantile(values, [0.005, 0.995]))  # a few pixels may lie far off
        if kind == ".png":
            write_atomic(path, encode_png(_tiled(painter, values, width)))
        else:
            write_atomic(path, _pictures(painter, values, names, width).encode())
    elif schema.kind == "series":
        write_atomic(path, _curves(values.reshape(-1, *schema.shape), names, width).encode())
    else:
        write_atomic(path, _columns(model, values, names, width).encode())


def write_map(place: Any, path: str | Path, *, labels: Any = None, title: str = "") -> None:
    """Write a map of rows as an SVG file, coloured by their labels.

    Parameters
    ----------
    place : array-like of shape (n, 2)
        Such as :func:`diabolo.latent.latent_map` returns.
    path : str or Path
        File that ends in ``.svg``.
    labels : array-like of shape (n,), optional
        Kinds, or numbers for a continuous scale.
    title : str
        Written above the map.
    """
    path = Path(path)
    _suffix(path, False)
    place = np.asarray(place, dtype=np.float64)
    if place.ndim != 2 or place.shape[1] != 2 or not len(place) or not np.isfinite(place).all():
        raise ValueError(f"expected finite places (n, 2), got shape {place.shape}")
    given = read_labels(labels, len(place))
    colouring = by_label(np.full(len(place), "") if given is None else given)
    span = max(float(np.ptp(place, axis=0).max()), 1e-12)
    middle = (place.max(axis=0) + place.min(axis=0)) / 2
    across = (place - middle) / span * (PLOT - 2 * MARGIN) * [1, -1] + PLOT / 2
    radius = float(np.clip(90 / np.sqrt(len(place)), 1.5, 3.5))
    order = np.random.default_rng(0).permutation(len(place))  # so that no label lies on top of the others
    points = [
        f"<path d='{colouring.shapes[colouring.level[i]]}' fill='{colouring.palette[colouring.level[i]]}' "
        f"transform='translate({across[i, 0]:.1f} {across[i, 1]:.1f}) scale({radius:.2f})'/>"
        for i in order
    ]
    head = 28 if title else 0
    body = [f"<text x='{MARGIN}' y='20' {FONT} font-weight='600'>{escape(title)}</text>"] if title else []
    body.append(f"<g transform='translate(0 {head})'><rect x='4' y='4' width='{PLOT - 8}' height='{PLOT - 8}' rx='6' ")
    body.append(f"fill='none' stroke='#ddd'/><g fill-opacity='0.75'>{''.join(points)}</g>")
    for i, group in enumerate(colouring.groups if given is not None else ()):
        x, y = np.median(across[colouring.level == i], axis=0)
        body.append(
            f"<text x='{x:.1f}' y='{y + 4:.1f}' text-anchor='middle' {FONT} font-weight='700' stroke='#fff' "
            f"stroke-width='3' paint-order='stroke'>{escape(group.name[:12])}</text>"
        )
    if given is not None:
        body += _legend(colouring)
    body.append("</g>")
    wide = PLOT + (LEGEND if given is not None else 0)
    write_atomic(path, _page("".join(body), wide, PLOT + head, title or f"map of {len(place):,} rows").encode())


def _legend(colouring: Colouring) -> list[str]:
    if colouring.groups:
        return [
            f"<path d='{g.shape}' fill='{g.colour}' transform='translate({PLOT + 14} {22 + 19 * i}) scale(4.5)'/>"
            f"<text x='{PLOT + 26}' y='{26 + 19 * i}' {FONT}>{escape(g.name[:18])}</text>"
            for i, g in enumerate(colouring.groups)
        ]
    steps = colouring.palette[:-1]
    bars = [
        f"<rect x='{PLOT + 10}' y='{170 - 5 * i}' width='14' height='5.5' fill='{colour}'/>"
        for i, colour in enumerate(steps)
    ]
    ends = zip(colouring.ends, (174, 24), strict=True)
    return [*bars, *(f"<text x='{PLOT + 30}' y='{y}' {FONT}>{escape(text)}</text>" for text, y in ends)]


def _suffix(path: Path, pictures: bool) -> str:
    suffix = path.suffix.lower()
    known = [".svg", ".png"] if pictures else [".svg"]
    if suffix not in known:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(known)}")
    return suffix


def _page(body: str, width: float, height: float, label: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"height='{height:.0f}' role='img' aria-label='{escape(label)}'>"
        f"<rect width='100%' height='100%' fill='#fff'/>{body}</svg>\n"
    )


def _tiled(painter: Painter, values: Array, width: int) -> NDArray[np.uint8]:
    """Return pixels of a grid of pictures, each enlarged by a whole factor, on white."""
    _, high, wide = painter.shape
    factor = max(1, LARGEST // max(high, wide))
    lines = len(values) // width
    step_y, step_x = high * factor + GAP, wide * factor + GAP
    pixels = np.full((lines * step_y + GAP, width * step_x + GAP, 3), 255, dtype=np.uint8)
    for i, row in enumerate(values):
        y, x = GAP + (i // width) * step_y, GAP + (i % width) * step_x
        image = painter.pixels(row).repeat(factor, 0).repeat(factor, 1)
        pixels[y : y + high * factor, x : x + wide * factor] = image if image.ndim == 3 else image[:, :, None]
    return pixels


def _pictures(painter: Painter, values: Array, names: Sequence[str], width: int) -> str:
    _, high, wide = painter.shape
    cell_x, cell_y = (CELL, CELL * high / wide) if wide >= high else (CELL * wide / high, CELL)
    left = LEFT if any(names) else GAP
    body = []
    for i, row in enumerate(values):
        x, y = left + (i % width) * (cell_x + GAP), GAP + (i // width) * (cell_y + GAP)
        body.append(
            f"<image x='{x:.1f}' y='{y:.1f}' width='{cell_x:.1f}' height='{cell_y:.1f}' "
            f"style='image-rendering:pixelated' href='{png_uri(painter.pixels(row))}'/>"
        )
    for line, name in enumerate(names):
        y = GAP + (line + 0.5) * (cell_y + GAP)
        body.append(f"<text x='{left - 8}' y='{y + 2:.1f}' text-anchor='end' {FONT}>{escape(name[:14])}</text>")
    size = left + width * (cell_x + GAP), GAP + len(names) * (cell_y + GAP)
    return _page("".join(body), *size, f"{len(values)} pictures")


def _curves(values: Array, names: Sequence[str], width: int) -> str:
    """Draw series ``(n, channels, steps)`` as small curves in a grid, all on one scale."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    high = high if high > low else low + 1
    cell_x, cell_y, left = 1.6 * CELL, float(CELL), LEFT if any(names) else GAP
    body = []
    for i, row in enumerate(values):
        x, y = left + (i % width) * (cell_x + GAP), GAP + (i // width) * (cell_y + GAP)
        body.append(f"<rect x='{x:.1f}' y='{y:.1f}' width='{cell_x}' height='{cell_y}' fill='#f6f6f4'/>")
        for channel, curve in enumerate(row):
            up = y + cell_y - 3 - (curve - low) / (high - low) * (cell_y - 6)
            body.append(_line(x + 3 + np.linspace(0, cell_x - 6, len(curve)), up, channel))
    for line, name in enumerate(names):
        y = GAP + (line + 0.5) * (cell_y + GAP)
        body.append(f"<text x='{left - 8}' y='{y + 4:.1f}' text-anchor='end' {FONT}>{escape(name[:14])}</text>")
    return _page(
        "".join(body), left + width * (cell_x + GAP), GAP + len(names) * (cell_y + GAP), f"{len(values)} series"
    )


def _line(x: Array, y: Array, colour: int) -> str:
    there = np.isfinite(y)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[there], y[there], strict=True))
    return f"<polyline points='{points}' fill='none' stroke='{COLOURS[colour % len(COLOURS)]}' stroke-width='1.6'/>"


def _columns(model: Any, values: Array, names: Sequence[str], width: int) -> str:
    """Draw one chart for each column of a table, with a line for each way."""
    columns, table = model.schema_.columns[:MOST_LINES], model.codec_.table
    starts = range(len(columns)) if table is None else table.starts
    wide, high, per_line = 220.0, 110.0, 3
    body = []
    for j, column in enumerate(columns):
        x, y = (j % per_line) * wide, (j // per_line) * high
        body.append(
            f"<text x='{x + 10:.0f}' y='{y + 16:.0f}' {FONT} font-weight='600'>{escape(column.name[:28])}</text>"
        )
        if column.width > 1:  # the likeliest label of each step
            cells = values[:, starts[j] : starts[j] + column.width].argmax(axis=1)
            low, top = 0.0, float(column.width - 1)
            marks = (str(column.categories[0])[:9], str(column.categories[-1])[:9])
        else:
            cells = values[:, starts[j]]
            low, top = float(np.nanmin(cells)), float(np.nanmax(cells))
            marks = compact(low), compact(top)
        span = top - low if top > low else 1.0
        for mark, up in zip(marks, (high - 14, 34), strict=True):
            body.append(f"<text x='{x + 58:.0f}' y='{y + up:.0f}' text-anchor='end' {SMALL}>{escape(mark)}</text>")
        body.append(
            f"<line x1='{x + 64}' x2='{x + wide - 10}' y1='{y + high - 16}' y2='{y + high - 16}' stroke='#ddd'/>"
        )
        steps = x + 64 + np.linspace(0, wide - 76, width) if width > 1 else np.array([x + wide / 2])
        for line in range(len(names)):
            part = cells[line * width : (line + 1) * width].astype(np.float64)
            body.append(_line(steps, y + high - 16 - (part - low) / span * (high - 46), line))
    bottom = -(-len(columns) // per_line) * high
    for line, name in enumerate(names if any(names) else ()):
        x, y = 10 + (line % 6) * 110, bottom + 18 + (line // 6) * 18
        colour = COLOURS[line % len(COLOURS)]
        body.append(f"<line x1='{x}' x2='{x + 18}' y1='{y - 4}' y2='{y - 4}' stroke='{colour}' stroke-width='2'/>")
        body.append(f"<text x='{x + 23}' y='{y}' {FONT}>{escape(name[:12])}</text>")
    extra = 18 * -(-len(names) // 6) + 10 if any(names) else 0
    across = min(per_line, len(columns)) * wide if not any(names) else max(min(per_line, len(columns)) * wide, 670)
    return _page("".join(body), across, bottom + extra, f"{len(columns)} columns along {len(names)} ways")
