"""A model card: what a saved model is, what it was fitted on, and how to use it, as the README of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diabolo
from diabolo.files import write_atomic
from diabolo.persistence import load
from diabolo.records import Column
from diabolo.report.draw import compact

__all__ = ["build_card", "write_card"]

SHOWN = 40  # columns


def build_card(model: Any, *, title: str | None = None) -> str:
    """Describe a fitted model in Markdown, with the front matter that model hubs read.

    Parameters
    ----------
    model : BaseAutoencoder or task
        Fitted.
    title : str, optional
        Heading.

    Returns
    -------
    str
        The card. It holds the names, kinds and ranges of columns, and no row of the data.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> from diabolo.report import build_card
    >>> print(build_card(Autoencoder(2, max_epochs=2, random_state=0).fit(load_iris().data))[:25])
    ---
    library_name: diabolo
    """
    inside = model.models_[0] if hasattr(model, "models_") else getattr(model, "autoencoder_", model)
    schema, history = inside.schema_, inside.history_
    name = type(model).__name__
    tags = ["diabolo", "autoencoder", *dict.fromkeys((name, type(inside).__name__))]
    summary = " ".join((type(model).__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
    best = history.rows[history.best_epoch - 1] if history.best_epoch else {}
    losses = ", ".join(f"{k} {compact(v)}" for k, v in best.items() if k not in ("epoch", "seconds"))
    lines = [
        "---",
        "library_name: diabolo",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
        f"# {title if title is not None else name}",
        "",
        summary,
        "",
        "```python",
        "import diabolo",
        "",
        'model = diabolo.load("path/to/this/folder")',
        "```",
        "",
        f"Written by Diabolo {diabolo.__version__}: JSON and safetensors, and no code that is run when they are read.",
        "",
        "## Data",
        "",
        f"{schema.n_rows:,} rows of kind `{schema.kind}`, {schema.size:,} features each, shape {schema.shape}.",
        "",
    ]
    if schema.columns:
        lines += ["| column | kind | from | to |", "|---|---|---|---|", *(_row(c) for c in schema.columns[:SHOWN])]
        lines += [f"\n... and {len(schema.columns) - SHOWN} more."] * (len(schema.columns) > SHOWN) + [""]
    if hasattr(model, "classes_"):
        lines += [f"Classes: {', '.join(map(str, model.classes_))}.", ""]
    lines += [
        "## Training",
        "",
        f"{len(history)} epochs; kept is {f'epoch {history.best_epoch}' if history.best_epoch else 'the start'}"
        f"{f' ({losses})' if losses else ''}. Ended: {history.stop_reason}. Seed {inside.seed_}.",
        "",
        "| choice | value |",
        "|---|---|",
        *(f"| {k} | {_cell(json.dumps(v))} |" for k, v in inside.choices_.items()),
        "",
        "## Limits",
        "",
        "Rows must have the columns, the units and the meaning of those above. What lies outside of their ranges was not seen in "
        "training. Nothing is known here of how the data were collected, and whom or what they leave out: say it below.",
        "",
    ]
    return "\n".join(lines)


def write_card(folder: str | Path, *, title: str | None = None) -> Path:
    """Write the card of a saved model into its folder, as ``README.md``, where model hubs look for it.

    Parameters
    ----------
    folder : str or Path
        That ``save`` wrote.
    title : str, optional
        Heading.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        When there is a README.md that is no such card.
    """
    path = Path(folder) / "README.md"
    if path.exists() and "library_name: diabolo" not in path.read_text(encoding="utf-8"):
        raise FileExistsError(f"{path} is there and was not written by Diabolo; move it away first")
    write_atomic(path, build_card(load(folder), title=title).encode())
    return path


def _row(column: Column) -> str:
    if column.categories:
        shown = ", ".join(map(str, column.categories[:6])) + (", ..." if len(column.categories) > 6 else "")
        return f"| {_cell(column.name)} | {column.kind} | {_cell(shown)} | |"
    return f"| {_cell(column.name)} | {column.kind} | {compact(column.low)} | {compact(column.high)} |"


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
