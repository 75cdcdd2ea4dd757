"""Parquet files into a folder of Parquet files, in constant memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError

__all__ = ["Keep", "Memory", "is_folder", "score_folder"]

Keep = Annotated[
    str,
    Parameter(
        help="Columns to hand on in front of the results, separated by commas; with a folder as --output.",
        metavar="COLUMN,...",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    Parameter(
        help="About how much memory rows may take, such as 500MB; with a folder as --output.",
        metavar="SIZE",
        show_default=False,
    ),
]


def is_folder(output: Path | None, keep: str = "", memory: str | None = None) -> bool:
    """Tell whether results go into a folder: a name that has no ending."""
    if output is not None and (output.is_dir() or not output.suffix):
        return True
    if keep or memory:
        flag = "--keep" if keep else "--memory"
        raise UsageError(
            f"{flag} is for Parquet files that are written into a folder: give --output a name without ending"
        )
    return False


def score_folder(
    fitted: Any,
    data: Path,
    output: Path,
    operation: Literal["score", "embed", "reconstruct", "anomalies"],
    keep: str,
    memory: str | None,
) -> int:
    """Run ``score_files`` and show how far it is."""
    from diabolo.batches import score_files

    if not data.is_dir() and data.suffix.lower() != ".parquet":
        raise UsageError(f"{data}: a folder as --output is for Parquet files, one or a folder of them")
    columns = [name.strip() for name in keep.split(",") if name.strip()]
    shown = sys.stderr.isatty()

    def show(done: int, parts: int) -> None:
        if shown:
            print(f"\rpart {done} of {parts}", end="\n" if done == parts else "", file=sys.stderr, flush=True)

    score_files(fitted, data, output, operation, keep=columns, memory=memory or "500MB", progress=show)
    print(f"wrote {output}", file=sys.stderr)
    return 0
