"""When training should end before an epoch is over: Ctrl-C and the time limit, asked for between two steps."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

__all__ = ["INTERRUPTED", "TIME", "Stop"]

TIME, INTERRUPTED = "time", "interrupted"


class Stop:
    """Notes an interrupt instead of raising it in the middle of a step, and watches the clock.

    Python's own handler of Ctrl-C is replaced within the block, in the main thread; a handler that the program has set stays.

    Parameters
    ----------
    max_time : float or None
        Seconds of training at most.
    patient : bool
        Whether a second interrupt is noted only, too. Otherwise it is raised as ``KeyboardInterrupt`` at once. Launchers of
        several processes pass the interrupt on that the terminal has sent already.
    """

    def __init__(self, max_time: float | None, *, patient: bool):
        self.max_time, self.patient = max_time, patient
        self.interrupted = False
        self.agreed = ""  # what all processes of the run stop for
        self._deadline = float("inf")
        self._replaced = False

    def __enter__(self) -> Stop:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._replaced = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def begin(self, spent: float) -> None:
        """Start the clock, ``spent`` seconds having been used."""
        if self.max_time is not None:
            self._deadline = time.monotonic() + self.max_time - spent

    def wanted(self) -> str:
        """Return ``INTERRUPTED``, ``TIME``, or nothing."""
        if self.interrupted:
            return INTERRUPTED
        return TIME if time.monotonic() >= self._deadline else ""

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.interrupted and not self.patient:
            raise KeyboardInterrupt
        self.interrupted = True
