"""Whether this process is one of several that a launcher started to train one model."""

from __future__ import annotations

import os

__all__ = ["launched"]

VARIABLES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun, and launchers like it, set


def launched() -> tuple[int, int]:
    """Return which process this is, from 0, and how many there are; ``(0, 1)`` without a launcher."""
    if any(name not in os.environ for name in VARIABLES):
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
