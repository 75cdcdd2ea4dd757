"""Labels and scores as colours and shapes that the colour-blind can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from diabolo.report.draw import compact
from diabolo.report.png import viridis

__all__ = ["COLOURS", "Colouring", "by_label", "by_number", "label_text", "read_labels"]

# Okabe and Ito, Color universal design, 2008, without those too pale or too dark for one of the two backgrounds.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
GREY = "#8a8a8a"
SHAPES = (  # SVG paths of about one area, centred on 0
    "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
    "M-.9-.9H.9V.9H-.9Z",
    "M0-1.2L1.15.85H-1.15Z",
    "M0-1.3L1 0L0 1.3L-1 0Z",
)
MOST_GROUPS = 20  # the rest is drawn as one grey group
LEVELS = 32  # steps of the continuous scale


@dataclass(frozen=True)
class Group:
    """One entry of the legend."""

    name: str
    colour: str
    shape: str
    count: int

    @property
    def marker(self) -> Markup:
        """Its sign as inline SVG."""
        path = f'<path d="{self.shape}" fill="{self.colour}"/>'
        return Markup(f'<svg class="marker" viewBox="-1.5 -1.5 3 3" aria-hidden="true">{path}</svg>')


@dataclass(frozen=True)
class Colouring:
    """How points are drawn: each has a level, which is a position in ``palette`` and ``shapes``."""

    level: NDArray[np.int64]
    palette: tuple[str, ...]
    shapes: tuple[str, ...]
    groups: tuple[Group, ...] = ()  # of a categorical colouring
    ends: tuple[str, str] = ("", "")  # of a continuous one


def read_labels(labels: Any, n: int) -> NDArray[Any] | None:
    """Return labels as an array ``(n,)``, or ``None`` when there are none.

    Raises
    ------
    ValueError
        When there is not one label for each row.
    """
    if labels is None:
        return None
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (n,):
        raise ValueError(f"labels has shape {values.shape}; expected one label for each of the {n} rows of X")
    return values


def by_label(labels: NDArray[Any]) -> Colouring:
    """Colour by category, or along a scale where labels are many numbers."""
    if labels.dtype.kind in "iuf":
        finite = labels[np.isfinite(labels)]
        if len(np.unique(finite)) > MOST_GROUPS or (finite != np.round(finite)).any():
            return by_number(labels.astype(np.float64))
    names = np.array([label_text(label) for label in labels], dtype=object)
    found, counts = np.unique(names.astype(str), return_counts=True)
    kept = {str(found[i]) for i in np.argsort(-counts, kind="stable")[:MOST_GROUPS]} - {"missing"}
    order = sorted(kept, key=_natural)
    groups = [
        Group(
            name,
            COLOURS[i % len(COLOURS)],
            SHAPES[i // len(COLOURS)],
            int(counts[found == name][0]),
        )
        for i, name in enumerate(order)
    ]
    place = {name: i for i, name in enumerate(order)}
    level = np.array([place.get(name, len(order)) for name in names], dtype=np.int64)
    left = int((level == len(order)).sum())
    if left:
        only_missing = set(names[level == len(order)]) == {"missing"}
        groups.append(Group("missing" if only_missing else "other", GREY, SHAPES[0], left))
    return Colouring(level, tuple(g.colour for g in groups), tuple(g.shape for g in groups), tuple(groups))


def by_number(values: NDArray[np.float64]) -> Colouring:
    """Colour along a scale from the 2nd to the 98th percentile; what lies outside gets the colour of its end."""
    finite = values[np.isfinite(values)]
    low, high = (float(v) for v in np.quantile(finite, [0.02, 0.98])) if len(finite) else (0.0, 0.0)
    share = (values - low) / (high - low) if high > low else np.where(np.isfinite(values), 0.5, np.nan)
    level = np.rint(np.clip(np.nan_to_num(share, nan=0.0), 0, 1) * (LEVELS - 1)).astype(np.int64)
    level[~np.isfinite(values)] = LEVELS
    colours = viridis(np.linspace(0, 1, LEVELS))
    palette = (*(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours), GREY)
    return Colouring(level, palette, (SHAPES[0],) * len(palette), ends=(compact(low), compact(high)))


def label_text(label: Any) -> str:
    """Write one label; whatever a library calls missing is ``"missing"``."""
    if isinstance(label, float | np.floating):
        value = float(label)
        if abs(value) < 1e15 and value.is_integer():
            return str(int(value))
    text = str(label)
    return "missing" if text in ("None", "nan", "<NA>", "NaT") else text


def _natural(name: str) -> tuple[bool, float, str]:
    """Sort 2 before 10, and numbers before words."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name
