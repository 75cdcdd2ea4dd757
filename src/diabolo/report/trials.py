"""The page about a search: its course, what each parameter gave, all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from diabolo.report.draw import Point, compact, number, percent, point_chart
from diabolo.tuning.search import Tuned

__all__ = ["search_page"]


def search_page(found: Tuned) -> dict[str, Any]:
    """Return what the template shows of a search."""
    complete = [t for t in found.trials if t["state"] == "complete"]
    best = max(complete, key=lambda t: t["value"], default=None)
    given = next((t for t in complete if not t["params"]), None)
    names = list(dict.fromkeys(name for t in found.trials for name in t["params"]))
    gain = "as the model was given"
    if best is not None and given is not None and best is not given:
        gain = (
            f"{compact(best['value'] - given['value'])} more than the model as it was given, {compact(given['value'])}"
        )
    return {
        "trials": len(found.trials),
        "objective": found.objective,
        "best": number(None if best is None else best["value"]),
        "gain": gain,
        "seconds": f"{compact(found.seconds)} s" if found.seconds < 120 else f"{compact(found.seconds / 60)} min",
        "overhead": percent(found.overhead),
        "pruned": sum(t["state"] == "pruned" for t in found.trials),
        "failed": sum(t["state"] == "failed" for t in found.trials),
        "chosen": [(name, _text(value)) for name, value in found.params.items()],
        "course": _course(complete, best),
        "parameters": [(name, _parameter(name, complete, best)) for name in names] if len(complete) > 2 else [],
        "header": ["trial", "state", "value", "seconds", *names],
        "rows": [
            [row["number"], row["state"], number(row["value"]), compact(row["seconds"])]
            + [_text(row[name]) if name in row else "" for name in names]
            for row in found.table()
        ],
    }


def _course(complete: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> Markup:
    points = [Point(t["number"], t["value"], t is best) for t in complete]
    so_far, top = [], -math.inf
    for point in points:
        top = max(top, point.y)
        so_far.append((point.x, top))
    return point_chart(points, "objective of each trial", x_label="trial", line=so_far)


def _parameter(name: str, complete: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> Markup:
    tried = [t for t in complete if name in t["params"]]
    values = [t["params"][name] for t in tried]
    label = f"objective by {name}"
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        wide = bool(values) and min(values) > 0 and max(values) > 20 * min(values)
        points = [
            Point(math.log10(v) if wide else v, t["value"], t is best) for v, t in zip(values, tried, strict=True)
        ]
        return point_chart(points, label, x_label=f"{name}, logarithmic" if wide else name, log=wide)
    choices = sorted({_text(v) for v in values})
    points = [Point(choices.index(_text(v)), t["value"], t is best) for v, t in zip(values, tried, strict=True)]
    return point_chart(points, label, x_label=name, names=choices)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return compact(float(value))
