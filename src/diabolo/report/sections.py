"""The parts of a report, each as plain values for the template."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from diabolo.report.colours import by_label, by_number, label_text
from diabolo.report.curves import PANELS, draw_series
from diabolo.report.draw import Line, bar_chart, compact, histogram, line_chart, number, percent
from diabolo.report.facts import Facts
from diabolo.report.png import Painter, heat
from diabolo.tasks.reasons import short

__all__ = ["anomalies", "errors", "headline", "latent_map", "pairs", "samples", "summary", "training", "units"]

Section = dict[str, Any]
Labels = NDArray[Any] | None

PICTURES = 8  # typical rows, and as many worst ones
TABLE_COLUMNS = 8
BARS = 30
MAP_POINTS = 2000
UNIT_BARS = 64
ANOMALIES = 10
SAMPLES = 24
SERIES_AT_A_STEP = 10  # of fewer, an error relative to their variance says little


def summary(facts: Facts) -> Section:
    """What was trained, on what, and how."""
    model, history = facts.model, facts.model.history_
    seconds = history.rows[-1]["seconds"] if history.rows else 0.0
    choices = {k.replace("_", " "): v for k, v in model.choices_.items()}
    choices["hidden"] = " → ".join(str(h) for h in model.choices_["hidden"]) or "none: one layer each way"
    return {
        "kind": type(model).__name__,
        "detector": facts.detector is not None,
        "trained_on": _describe(facts, model.schema_.n_rows),
        "given": _describe(facts, facts.n),
        "given_rows": f"{facts.n:,} {_noun(facts, facts.n)}",
        "measured": f"{len(facts.index):,}" if facts.sampled else "",
        "choices": choices,
        "parameters": number(facts.n_parameters),
        "seconds": _duration(seconds),
        "epochs": number(len(history)),
        "best_epoch": number(history.best_epoch) if history.best_epoch else "",
        "stop_reason": history.stop_reason,
        "events": history.events,
        "missing": percent(facts.holes) if facts.holes else "",
    }


def headline(facts: Facts) -> Section:
    """The few numbers to remember."""
    yardstick, units = facts.yardstick, facts.units
    return {
        "mse": number(facts.mse),
        "explained": percent(facts.explained),
        "pca_mse": number(yardstick.mse),
        "unit": "on the scale of training, numbers and labels alike"
        if facts.model.schema_.mixed
        else "in units of the data, squared",
        "pca_explained": percent(yardstick.explained),
        "pca_note": yardstick.note,
        "score": number(float(facts.scores.mean())),
        "neighbours": facts.neighbours,
        "latent": number(len(units.variance)),
        "size": number(facts.model.schema_.size),
        "active": number(units.n_active),
        "nonzero": "" if units.nonzero is None else compact(units.nonzero),
        "shared_unit": facts.model.schema_.shared_unit,
    }


def training(facts: Facts) -> Section:
    """Curves of every term of the loss, and of the error."""
    history = facts.model.history_
    keys = history.keys()
    keys = [k for k in keys if k not in ("epoch", "seconds", "lr")]
    terms = list(dict.fromkeys(k.removeprefix("val_") for k in keys))
    if "loss" in terms and "reconstruction" in terms and len([t for t in terms if t != "mse"]) == 2:
        terms.remove("reconstruction")  # the loss has this one term: the same curve twice
    which = "best" if history.best_epoch else "last"
    charts = []
    for term in terms:
        lines = [Line("training", history[term], "train")] if term in keys else []
        if f"val_{term}" in keys:
            lines.append(Line("validation", history[f"val_{term}"], "valid"))
        at = history.best_epoch or len(history)  # the start, which may be the best, has no curve
        last = ", ".join(f"{line.name} {compact(line.values[at - 1])}" for line in lines)
        title = "mean squared error" if term == "mse" else term
        charts.append(
            {
                "title": title,
                "unit": "in units of the data, squared" if term == "mse" else "nats per row",
                "svg": line_chart(lines, f"{title} by epoch; in the {which} epoch {last}", best=history.best_epoch),
                "last": last,
            }
        )
    return {
        "charts": charts,
        "validated": any(k.startswith("val_") for k in keys),
        "best_epoch": number(history.best_epoch) if history.best_epoch else "",
        "which": which,
        "long": len(history) >= 30,
    }


def pairs(facts: Facts, labels: Labels) -> Section:
    """Rows beside their reconstructions: as pictures, or as a table of best, middle and worst."""
    order = np.argsort(facts.row_error, kind="stable")
    m = len(order)
    shape = facts.picture_shape
    if shape is not None or facts.series_shape is not None:
        worst = order[max(m - PICTURES, m // 2 + 1) :][::-1]
        middle = max(0, m // 2 - PICTURES // 2)
        typical = order[middle : min(middle + PICTURES, m - len(worst))]
        painter = None if shape is None else Painter(shape, facts.values)
        return {
            "series": painter is None,
            "groups": [
                {
                    "title": title,
                    "cards": [
                        {
                            "name": _row(facts, i, labels),
                            "error": compact(_row_mse(facts, i)),
                            **_drawn_pair(facts, painter, facts.values[i], facts.rebuilt[i], _row(facts, i, labels)),
                        }
                        for i in chosen
                    ],
                }
                for title, chosen in (("Typical rows", typical), ("Worst rows", worst))
                if len(chosen)
            ],
        }
    each = min(3, max(1, m // 3))
    middle = max(0, (m - each) // 2)
    chosen = [("best", i) for i in order[:each]]
    if m >= 3:
        chosen += [("middle", i) for i in order[middle : middle + each]]
    if m >= 2:
        chosen += [("worst", i) for i in order[m - each :][::-1]]
    rows = np.array([i for _, i in chosen])
    spread = np.where(facts.features.constant, 1.0, np.sqrt(facts.features.variance))
    off = np.abs(facts.rebuilt[rows] - facts.values[rows]) / np.where(spread > 0, spread, 1.0)
    columns = np.sort(np.argsort(-np.nan_to_num(off).max(axis=0), kind="stable")[:TABLE_COLUMNS])
    return {
        "columns": [facts.names[j] for j in columns],
        "all_columns": len(columns) == len(facts.names),
        "rows": [
            {
                "group": group,
                "name": _row(facts, i, labels),
                "cells": [
                    {
                        "value": facts.write(j, facts.values[i, j]),
                        "rebuilt": facts.write(j, facts.rebuilt[i, j]),
                        "off": bool(off[r, j] > 1),
                    }
                    for j in columns
                ],
            }
            for r, (group, i) in enumerate(chosen)
        ],
    }


def _score_label(facts: Facts) -> str:
    return "minus the log of the distance to neighbours" if facts.neighbours else "score in nats"


def latent_map(facts: Facts, labels: Labels) -> Section:
    """The code as points in the plane."""
    codes, m = facts.codes, len(facts.codes)
    chosen = np.random.default_rng(0).permutation(m)[:MAP_POINTS]  # in random order, so that no group covers the others
    if codes.shape[1] == 1:
        points = np.column_stack([codes[:, 0], facts.scores[facts.index]])
        axes, how = ("the unit of the code", _score_label(facts)), "one"
    elif codes.shape[1] == 2:
        points, axes, how = codes, ("unit 0 of the code", "unit 1 of the code"), "two"
    elif m >= 2 and codes.var(axis=0).sum() > 0:
        pca = PCA(2, random_state=0).fit(codes)
        points, share = pca.transform(codes), pca.explained_variance_ratio_
        axes = (f"component 1 ({percent(float(share[0]))})", f"component 2 ({percent(float(share[1]))})")
        how = "pca"
    else:
        points, axes, how = codes[:, :2], ("unit 0 of the code", "unit 1 of the code"), "still"
    points = points[chosen]
    own = None if labels is None else labels[facts.index][chosen]
    scores = facts.scores[facts.index][chosen]
    colouring = by_number(scores) if own is None else by_label(own)
    return {
        "how": how,
        "axes": axes,
        "shown": f"{len(chosen):,}",
        "all": len(chosen) == facts.n,
        "colouring": colouring,
        "by": "score" if own is None else "label",
        "data": {
            "x": [_short(v) for v in points[:, 0]],
            "y": [_short(v) for v in points[:, 1]],
            "level": colouring.level.tolist(),
            "palette": colouring.palette,
            "shapes": colouring.shapes,
            "axes": axes,
            "row": [facts.row_name(int(facts.index[i])) for i in chosen],
            "label": None if own is None else [label_text(v) for v in own],
            "score": [compact(float(v)) for v in scores],
        },
    }


def errors(facts: Facts) -> Section:
    """Where in a row the error lies."""
    features = facts.features
    shape = facts.picture_shape
    if facts.series_shape is not None:
        few = features.observed < min(SERIES_AT_A_STEP, facts.n)
        ratio = np.where(few, np.nan, features.ratio)
        channels = _panels(facts, np.nan_to_num(ratio))
        label = "mean squared error by step, divided by the variance"
        svg = draw_series(facts.series_shape, [(ratio, "train")], label, channels=channels, floor=True)
        return {"curves": svg, "left_out": facts.series_shape[0] - len(channels)}
    if shape is not None:
        image, top = heat(np.where(features.observed > 0, features.mse, np.nan).reshape(shape).mean(axis=0))
        return {"image": image, "top": compact(top), "wide": shape[2] >= shape[1]}
    ratio = features.ratio
    order = [int(j) for j in np.argsort(-np.nan_to_num(ratio, nan=-1.0), kind="stable") if not math.isnan(ratio[j])]
    shown = order[:BARS]
    top = max((float(ratio[j]) for j in shown), default=0.0)
    scale = max(
        1.0, min(top, 2.0)
    )  # the mean's error, 1, is always in the frame; one wild column does not hide the rest
    return {
        "bars": [
            {
                "name": facts.names[j],
                "width": round(100 * min(float(ratio[j]) / scale, 1.0), 2),
                "ratio": compact(float(ratio[j])),
                "mse": compact(float(features.mse[j])),
                "bad": bool(ratio[j] > 1),
            }
            for j in shown
        ],
        "mean_at": round(100 / scale, 2),
        "left_out": len(order) - len(shown),
        "constant": [facts.names[j] for j in np.flatnonzero(features.constant)][:BARS],
        "n_constant": int(features.constant.sum()),
    }


def units(facts: Facts) -> Section:
    """How much of the code is used."""
    u = facts.units
    k = len(u.variance)
    order = np.argsort(-u.variance, kind="stable")[:UNIT_BARS]
    shown = np.sort(order) if k > UNIT_BARS else np.arange(k)
    faint = None if u.active is None else ~u.active[shown]
    label = "unit" if k <= UNIT_BARS else "the units that vary most, in order"
    variational = u.variational
    charts = []
    if len(facts.codes) > 1:
        what = "variance of the mean" if variational else "variance of the code"
        charts.append(
            {
                "title": what,
                "unit": "over rows",
                "svg": bar_chart(
                    u.variance[shown],
                    f"{what} of each unit",
                    x_label=label,
                    faint=faint,
                ),
            }
        )
    if u.kl is not None:
        charts.append(
            {
                "title": "KL divergence from the prior",
                "unit": "mean nats per row",
                "svg": bar_chart(u.kl[shown], "KL divergence of each unit", x_label=label, faint=faint),
            }
        )
    inactive = None if u.n_active is None else k - u.n_active
    return {
        "charts": charts,
        "variational": variational,
        "total": number(k),
        "active": None if u.n_active is None else number(u.n_active),
        "inactive": None if inactive is None else number(inactive),
        "warn": inactive is not None and inactive > k / 2,
        "collapsed": inactive == k,
        "kl": "" if u.kl is None else compact(float(u.kl.sum())),
        "nonzero": "" if u.nonzero is None else compact(u.nonzero),
        "shown": len(shown) if len(shown) < k else 0,
    }


def anomalies(facts: Facts, labels: Labels) -> Section:
    """The rows that the model explains worst, and why."""
    rows = np.argsort(facts.scores, kind="stable")[:ANOMALIES]
    blame = facts.blame(rows)
    values, rebuilt = facts.rebuild(rows)
    offset = None if facts.detector is None else float(facts.detector.offset_)
    svg, left_out = histogram(
        facts.scores, f"distribution of the scores of {facts.n:,} rows", x_label=_score_label(facts), mark=offset
    )
    shape = facts.picture_shape
    painter = None if shape is None else Painter(shape, facts.values)
    listed = []
    for r, i in enumerate(rows):
        most = [int(j) for j in np.argsort(-blame[r], kind="stable")[:3] if blame[r, j] > 0]
        card = {
            "name": facts.row_name(int(i)),
            "label": "" if labels is None else label_text(labels[i]),
            "score": number(float(facts.scores[i])),
            "flagged": offset is not None and bool(facts.scores[i] < offset),
            "causes": [
                {
                    "name": facts.names[j],
                    "value": facts.write(j, values[r, j]),
                    "told": f"rebuilt as {facts.write(j, rebuilt[r, j])} (+{compact(blame[r, j])} nats)",
                }
                for j in most
            ],
        }
        if facts.neighbours and painter is None and facts.series_shape is None and facts.detector is not None:
            (reasons,) = facts.detector.reasons_among(facts.raw.take(rows[r : r + 1]), 3)
            card["causes"] = [
                {"name": x.feature, "value": short(x.value), "told": f"expected {short(x.expected)} ({x.kind})"}
                for x in reasons
            ]
        if painter is not None:
            card |= {
                "original": painter.paint(values[r]),
                "rebuilt": painter.paint(rebuilt[r]),
                "heat": heat(painter.flat(blame[r]))[0],
            }
        elif facts.series_shape is not None:
            card |= _drawn_pair(facts, None, values[r], rebuilt[r], f"row {card['name']}")
        listed.append(card)
    flagged = 0 if offset is None else int((facts.scores < offset).sum())
    return {
        "rows": listed,
        "pictures": painter is not None,
        "series": facts.series_shape is not None,
        "svg": svg,
        "left_out": number(left_out) if left_out else "",
        "lowest": number(float(facts.scores.min())),
        "offset": number(offset),
        "detector": facts.detector is not None,
        "neighbours": facts.neighbours,
        "flagged": number(flagged),
        "flagged_share": percent(flagged / facts.n),
        "labelled": labels is not None,
    }


def samples(facts: Facts) -> Section | None:
    """Generated rows, for models that have a prior."""
    model, shape = facts.model, facts.picture_shape
    if not (model.module_.bottleneck.generative or getattr(model, "prior_", None)):
        return None
    if shape is not None:
        drawn = _drawn(facts, SAMPLES, noise=False)
        painter = Painter(shape, facts.values)
        return {"pictures": [painter.paint(row) for row in drawn]}
    if facts.series_shape is not None:
        drawn = _drawn(facts, PICTURES, noise=False)
        channels = range(min(PANELS, facts.series_shape[0]))
        charts = [
            draw_series(facts.series_shape, [(row, "valid")], f"generated series {i + 1}", channels=channels)
            for i, row in enumerate(drawn)
        ]
        return {"pictures": [], "charts": charts}
    drawn = _drawn(facts, 1000, noise=True)
    spread = np.sqrt(facts.features.variance)
    order = np.argsort(facts.features.constant, kind="stable")[:BARS]
    order = np.sort(order)
    return {
        "pictures": [],
        "columns": [
            {
                "name": facts.names[j],
                "mean": facts.write(j, facts.features.center[j]),
                "drawn_mean": facts.write(j, float(drawn[:, j].mean())),
                "spread": compact(spread[j]),
                "drawn_spread": compact(float(drawn[:, j].std())),
                "examples": [facts.write(j, v) for v in drawn[:3, j]],
            }
            for j in order
        ],
        "left_out": len(facts.names) - len(order),
    }


def _drawn(facts: Facts, n: int, *, noise: bool) -> NDArray[np.float64]:
    model = facts.model
    drawn = model.codec_.flat(model._read(model.sample(n, noise=noise, random_state=0), reset=False).values)
    return drawn.reshape(n, -1).astype(np.float64)


def _noun(facts: Facts, n: int) -> str:
    kind = facts.model.schema_.kind
    return "series" if kind == "series" else ("image" if kind == "image" else "row") + "s" * (n != 1)


def _panels(facts: Facts, error: NDArray[np.float64]) -> list[int]:
    """Choose the channels to draw: all, or those with the largest of these errors, given for each cell."""
    by_channel = error.reshape(facts.series_shape or (1, -1)).sum(axis=1)
    return sorted(int(c) for c in np.argsort(-by_channel, kind="stable")[:PANELS])


def _drawn_pair(
    facts: Facts, painter: Painter | None, original: NDArray[Any], rebuilt: NDArray[Any], name: str
) -> Section:
    """Return pictures of a row and its reconstruction, or the chart of a series with both."""
    if painter is not None:
        return {"original": painter.paint(original), "rebuilt": painter.paint(rebuilt)}
    shape = facts.series_shape or (1, len(original))
    inside = np.flatnonzero(~np.isnan(original.reshape(shape)).all(axis=0))
    end = int(inside[-1]) + 1 if len(inside) else 0
    shown = np.where(np.arange(shape[1]) < end, rebuilt.reshape(shape), np.nan).ravel()
    channels = _panels(facts, np.nan_to_num(np.square(original - rebuilt) / np.maximum(facts.features.variance, 1e-30)))
    lines = [(original, "train"), (shown, "valid")]
    return {"svg": draw_series(shape, lines, f"{name} and its reconstruction", channels=channels)}


def _describe(facts: Facts, n: int) -> str:
    """Say how many rows of what shape."""
    schema = facts.model.schema_
    if schema.kind == "series":
        channels, steps = schema.shape
        several = "" if channels == 1 else f" in {channels} channels"
        return f"{n:,} series of up to {steps:,} step{'s' * (steps != 1)}{several}"
    if schema.kind == "image":
        channels, height, width = schema.shape
        colour = "" if channels == 1 else f" with {channels} channels"
        return f"{n:,} image{'s' * (n != 1)} of {height} \N{MULTIPLICATION SIGN} {width} pixels{colour}"
    return f"{n:,} row{'s' * (n != 1)} of {schema.size:,} column{'s' * (schema.size != 1)}"


def _row(facts: Facts, i: int, labels: Labels) -> str:
    position = int(facts.index[i])
    name = f"row {facts.row_name(position)}"
    return name if labels is None else f"{name}, {label_text(labels[position])}"


def _row_mse(facts: Facts, i: int) -> float:
    off = np.square(facts.rebuilt[i] - facts.values[i])
    off = off[~np.isnan(off)]
    return float(off.mean()) if len(off) else math.nan


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{compact(round(seconds, 1))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
