"""How long work shows that it goes on: a bar on a terminal, plain lines elsewhere, nothing when silent."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Shows epochs on standard error.

    Parameters
    ----------
    total : int
        Epochs at most.
    verbose : int
        0 shows nothing; 1 a bar, or ten plain lines where standard error is no terminal; 2 a line for each epoch.
    """

    def __init__(self, total: int, verbose: int):
        self.total, self.verbose = total, verbose
        self._bar: Any = None
        self._task: Any = None
        self._began = time.monotonic()
        self._shown = 0

    def __enter__(self) -> Progress:
        if self.verbose == 1 and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("fit", total=self.total, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, epoch: int, row: dict[str, float]) -> None:
        """Show the state after an epoch."""
        if not self.verbose:
            return
        names = [k for k in ("loss", "val_loss", "mse", "val_mse") if k in row]
        text = "  ".join(f"{k} {row[k]:.4g}" for k in names)
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, text=text)
        elif self.verbose >= 2 or epoch * 10 // self.total > self._shown * 10 // self.total or epoch == 1:
            seconds = time.monotonic() - self._began
            sys.stderr.write(f"epoch {epoch}/{self.total}  {text}  {seconds:.1f} s\n")
            self._shown = epoch

    def say(self, text: str) -> None:
        """Show a remark."""
        if self.verbose and self._bar is None:
            sys.stderr.write(text + "\n")
        elif self._bar is not None:
            self._bar.console.print(text, highlight=False)
