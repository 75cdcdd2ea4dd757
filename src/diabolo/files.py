"""Files that are whole or not there: a crash while writing never harms what was good before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["drop_unfinished", "make_folder", "replacing", "write_atomic"]


def make_folder(path: Path) -> Path:
    """Create a folder, or say plainly why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot create the folder ({error.strerror}); choose another", str(path)) from error
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` to write to; without an error it is flushed to the disk and renamed into place."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(error.errno, f"cannot write here ({error.strerror}); choose another folder", str(path)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:  # after an error it is still there
        with contextlib.suppress(OSError):
            Path(name).unlink()


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, flush it to the disk, then rename it into place."""
    with replacing(path) as file:
        file.write(data)


def drop_unfinished(path: Path) -> None:
    """Remove what writes of ``path`` left that a kill ended; only where nobody else writes it now."""
    for left in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):
            left.unlink()
