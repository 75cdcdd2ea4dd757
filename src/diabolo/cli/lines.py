"""Text files of one sequence a line: what the commands do for a model of sequences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diabolo.cli.catalog import UsageError

__all__ = ["LINES", "check_lines", "holds_sequences", "read_lines", "rows_or_lines", "write_lines"]

LINES = (".txt", ".smi", ".csv")  # endings of files that lines go into
EXPECTED = "expected a text file of one sequence a line, in UTF-8"


def holds_sequences(model: Any) -> bool:
    """Say whether a fitted model is one of sequences of tokens."""
    return hasattr(getattr(model, "codec_", None), "vocabulary")


def read_lines(path: Path) -> list[str]:
    """Read one sequence a line; an empty line is an empty sequence."""
    import sys

    from diabolo.cli.models import STDIN

    if path.is_dir():
        raise ValueError(f"{path} is a folder; {EXPECTED}")
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {EXPECTED} ({error.reason} at byte {error.start})") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    if not lines:
        raise ValueError(f"{path} is empty; {EXPECTED}")
    return [line.removesuffix("\r") for line in lines]


def rows_or_lines(
    fitted: Any, data: Path, *, key: str | None, exclude: str, labels: str | None
) -> tuple[Any, dict[str, Any]]:
    """Read what a fitted model knows: lines for one of sequences, else rows, and their ``condition=`` where there is one."""
    from diabolo.cli.data import read_data
    from diabolo.cli.models import rows_for

    if holds_sequences(fitted):
        return read_lines(data), {}
    return rows_for(fitted, read_data(data, key=key, exclude=exclude, labels=labels), labels)


def check_lines(output: Path | None) -> None:
    """Refuse, before any long work, an output that sequences cannot go into."""
    from diabolo.cli.output import check_place

    if output is None:
        return
    if output.suffix.lower() not in LINES:
        raise UsageError(
            f"--output {output}: sequences are lines of text; expected a name that ends in {', '.join(LINES)}"
        )
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(2, "there is no such folder", str(output.absolute().parent))
    check_place(output)


def write_lines(output: Path | None, blocks: Iterable[Any]) -> None:
    """Write blocks of sequences, one a line; the items of lists and the tiles of grids, row by row, stand apart by blanks."""
    import io
    import sys

    from diabolo.files import replacing

    def lines(block: Any) -> Iterable[str]:
        for row in block:
            yield row if isinstance(row, str) else " ".join(map(str, row.ravel() if hasattr(row, "ravel") else row))

    if output is None:
        for block in blocks:
            sys.stdout.writelines(line + "\n" for line in lines(block))
        return
    with replacing(output) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        for block in blocks:
            text.writelines(line + "\n" for line in lines(block))
        text.detach()  # flushes, and leaves the file open
