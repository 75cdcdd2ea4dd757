"""The commands that show: what a model folder or a data file holds, and which models there are."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import SEQUENCES, cards, find_card
from diabolo.cli.lines import holds_sequences
from diabolo.cli.models import Key

__all__ = ["info", "make_console", "models"]

Json = Annotated[bool, Parameter(name="--json", help="Write JSON, for scripts.", negative="", show_default=False)]
SHOWN = 60  # rows of a table


def make_console() -> Any:
    """Return a console on standard output; a pipe has no width, and must not cut tables short."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def _table(title: str, header: tuple[str, ...] | None, rows: list[tuple[Any, ...]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.show_header = header is not None
    for position, name in enumerate(header or ("", "")):
        table.add_column(name, overflow="fold", style=None if position else "cyan")
    for row in rows[:SHOWN]:
        table.add_row(*(escape(_show(cell)) for cell in row))
    console = make_console()
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more; --json lists all")
    console.print()


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def info(
    path: Annotated[Path, Parameter(help="Folder of a fitted model, or a data file.")],
    /,
    *,
    key: Key = None,
    json_: Json = False,
) -> int:
    """Show what a model folder or a data file holds."""
    facts = _model_facts(path) if path.is_dir() else _data_facts(path, key)
    if json_:
        print(json.dumps(facts, indent=1, default=str))
        return 0
    columns = facts.pop("columns", [])
    groups = {name: value for name, value in facts.items() if isinstance(value, dict)}
    _table(str(path), None, [(k, v) for k, v in facts.items() if k not in groups])
    for name, value in groups.items():
        _table(name, None, list(value.items()))
    if columns:
        _table("columns", tuple(columns[0]), [tuple(column.values()) for column in columns])
    return 0


def _model_facts(folder: Path) -> dict[str, Any]:
    from diabolo.checks import parameter_fields
    from diabolo.cli.models import autoencoder_of, load_model
    from diabolo.persistence import load
    from diabolo.tasks.recommendation import Recommender

    fitted = load(folder)
    if isinstance(fitted, Recommender):
        return {
            "model": "Recommender",
            "users": len(fitted.users_),
            "items": len(fitted.items_),
            "choices": fitted.histories_.nnz,
            "shares": {type(m).__name__: w for m, w in zip(fitted.models_, fitted.weights_, strict=True)},
            "NDCG on users held out": fitted.quality_,
        }
    if hasattr(fitted, "bins_"):
        return _synthesizer_facts(fitted)
    if holds_sequences(fitted):
        return _sequence_facts(fitted)
    if hasattr(fitted, "scores_") and not hasattr(fitted, "codec_"):
        return {"model": type(fitted).__name__, "method": fitted.method_, "nats of held-out codes": fitted.scores_}
    fitted = load_model(folder)
    model = autoencoder_of(fitted)
    history, schema = model.history_, model.schema_
    facts: dict[str, Any] = {"model": type(model).__name__, "detector": hasattr(fitted, "offset_")}
    if hasattr(fitted, "models_"):
        facts |= {"imputer": True, "models": len(fitted.models_), "error on hidden cells": fitted.error_}
    elif hasattr(fitted, "heads_"):
        facts |= {"predicts": [str(c) for c in fitted.classes_] if hasattr(fitted, "classes_") else "a number"}
    elif fitted is not model:
        facts |= {"contamination": fitted.contamination, "threshold": fitted.offset_}
    weights = sum(p.numel() for p in model.module_.parameters())
    best = history.rows[history.best_epoch - 1] if history.best_epoch else {}  # of the start there are no figures
    return {
        **facts,
        "generative": bool(model.module_.bottleneck.generative or getattr(model, "prior_", None)),
        **({"fitted prior": model.prior_.method_} if getattr(model, "prior_", None) else {}),
        "rows": schema.n_rows,
        "row": _row(schema),
        "weights": weights,
        "parameters": {f.name: getattr(model, f.name) for f in parameter_fields(type(model)) if f.name != "callbacks"},
        "choices": dict(model.choices_),
        "training": {
            "seed": model.seed_,
            "epochs": len(history),
            "best epoch": history.best_epoch,
            "stopped": history.stop_reason,
            **{k: v for k, v in best.items() if k != "epoch"},
            **{f"event {i + 1}": text for i, text in enumerate(history.events)},
        },
        "columns": [_known(c, mixed=schema.mixed) for c in schema.columns],
    }


def _sequence_facts(fitted: Any) -> dict[str, Any]:
    from diabolo.checks import parameter_fields

    codec = fitted.codec_
    return {
        "model": type(fitted).__name__,
        "sequences": {"text": f"text, cut into {codec.cut}", "items": "lists of items"}.get(
            codec.kind, f"{codec.shape}"
        ),
        "different tokens": len(codec.vocabulary),
        "tokens of the longest": codec.longest,
        "weights": sum(p.numel() for p in fitted.module_.parameters()),
        **({"fitted prior": fitted.prior_.method_} if getattr(fitted, "prior_", None) else {}),
        "parameters": {f.name: getattr(fitted, f.name) for f in parameter_fields(type(fitted))},
        "training": {"epochs": len(fitted.history_), "stopped": fitted.history_.stop_reason},
    }


def _synthesizer_facts(fitted: Any) -> dict[str, Any]:
    return {
        "model": type(fitted).__name__,
        "rows": fitted.n_rows_,
        "weights": sum(p.numel() for p in fitted.module_.parameters()),
        "epochs": len(fitted.history_),
        "columns": [
            {
                "column": b.name,
                "classes": b.size,
                "holds": "numbers in bins" if b.labels is None else "labels",
                "missing cells": "yes" if b.missing else "no",
            }
            for b in fitted.bins_
        ],
    }


def _known(column: Any, *, mixed: bool) -> dict[str, Any]:
    """Tell what a model knows of a column."""
    import numpy as np

    if not mixed:
        return {"column": column.name, "lowest": column.low, "highest": column.high}
    low, high = column.low, column.high
    if column.kind == "date":
        low, high = (str(np.datetime64(round(v), "s")) for v in (low, high))
    elif column.categories:
        shown = [str(c) for c in column.categories[:6]] + ["..."] * (len(column.categories) > 6)
        low, high = ", ".join(shown), f"{len(column.categories)} labels"
    return {"column": column.name, "kind": column.kind, "lowest, or labels": low, "highest": high}


def _row(schema: Any) -> str:
    if schema.kind == "vector":
        return f"{len(schema.columns)} columns" + (f", {schema.size} features" if schema.mixed else "")
    if schema.kind == "series":
        return f"series of up to {schema.shape[1]} steps, {schema.shape[0]} channel(s)"
    return f"image {'x'.join(map(str, schema.shape))}"


def _data_facts(path: Path, key: str | None) -> dict[str, Any]:
    import numpy as np

    from diabolo.cli.data import read_data

    data = read_data(path, key=key)
    if data.array is not None:
        array = data.array
        missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
        facts: dict[str, Any] = {"rows": len(array), "shape": list(array.shape[1:]), "dtype": str(array.dtype)}
        facts |= {"kind": "table" if array.ndim == 2 else "images", "missing": missing}
        if array.size > missing:
            facts |= {"lowest": float(np.nanmin(array)), "highest": float(np.nanmax(array))}
        return facts
    columns = [_column_facts(name, values) for name, values in data.columns.items()]
    return {
        "kind": "table",
        "rows": len(data),
        "header": data.named,
        "missing": sum(c["missing"] for c in columns),
        "text": [c["column"] for c in columns if c["kind"] == "text"],
        "constant": [c["column"] for c in columns if c["kind"] == "constant"],
        "columns": columns,
    }


def _column_facts(name: str, values: Any) -> dict[str, Any]:
    import numpy as np

    from diabolo.data.raw import fill_masked

    if values.dtype == object:
        empty = sum(not v for v in values)
        return {
            "column": name,
            "kind": "text",
            "missing": empty,
            "distinct": len(set(values)),
            "lowest": "",
            "highest": "",
        }
    if values.dtype.kind == "M":
        there = values[~np.isnat(values)]
        low, high = (str(there.min()), str(there.max())) if len(there) else ("", "")
        distinct = len(np.unique(there))
        missing_dates = len(values) - len(there)
        return {
            "column": name,
            "kind": "date",
            "missing": missing_dates,
            "distinct": distinct,
            "lowest": low,
            "highest": high,
        }
    values = fill_masked(values)
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    seen = np.unique(values[~missing])
    whole = values.dtype.kind != "f" or bool((seen == np.round(seen)).all())
    kind = "constant" if len(seen) < 2 else "integer" if whole else "real"
    if len(seen) == 2 and set(seen.tolist()) == {0, 1}:
        kind = "binary"
    low, high = (seen[0].item(), seen[-1].item()) if len(seen) else ("", "")
    return {
        "column": name,
        "kind": kind,
        "missing": int(missing.sum()),
        "distinct": len(seen),
        "lowest": low,
        "highest": high,
    }


def models(*, json_: Json = False) -> int:
    """List the models, and which of them can generate new rows."""
    from diabolo.declare import REGISTRY
    from diabolo.estimator import BaseAutoencoder

    importlib.import_module("diabolo.zoo")  # registers the models

    rows = []
    for card in cards().values():
        cls = REGISTRY[card.name]
        if issubclass(cls, BaseAutoencoder):
            command = "" if "build" in card.own else card.command
            rows.append(
                {
                    "name": command,
                    "class": card.name,
                    "generative": _generative(cls),
                    "summary": card.summary,
                    "own": [f.name for f in card.fields if f.name in card.own],
                }
            )
    if json_:
        print(json.dumps(rows, indent=1))
        return 0
    shown = [(r["name"] or "(Python only)", r["class"], "yes" if r["generative"] else "", r["summary"]) for r in rows]
    _table("Models: diabolo fit data.csv --model NAME -o folder", ("name", "class", "generates", ""), shown)
    print(f"{SEQUENCES} learns texts, a file of one a line: diabolo fit lines.txt --model {SEQUENCES} -o folder")
    print(f"{find_card('autoencoder').command} is the default. The flags of a model: diabolo fit --model NAME --help")
    return 0


def _generative(cls: Any) -> bool:
    """Ask the bottleneck that the model would build, on a made-up schema of four columns."""
    from diabolo.records import Schema

    if "build" in set(cls.__dataclass_fields__):
        return False  # the function that builds it decides
    return bool(cls()._bottleneck(Schema("vector", (4,), 100)).generative)
