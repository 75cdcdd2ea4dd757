"""A checkpoint: one file with everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diabolo.files import make_folder, write_atomic

__all__ = ["FILE_NAME", "read_checkpoint", "read_fingerprint", "write_checkpoint"]

FILE_NAME = "checkpoint.safetensors"


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write a checkpoint; a crash leaves the one before."""
    make_folder(folder)
    owned = {k: v.detach().to("cpu").contiguous().clone() for k, v in tensors.items()}
    write_atomic(folder / FILE_NAME, save(owned, metadata={"diabolo": json.dumps(meta)}))


def read_checkpoint(folder: Path, *, without_tensors: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a checkpoint, or return ``None`` where there is none; ``without_tensors`` leaves the tensors on the disk.

    Raises
    ------
    ValueError
        When the file is damaged or not ours.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("diabolo")
            tensors = {} if without_tensors else {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to start anew") from None
    if meta is None:
        raise ValueError(f"{path} was not written by Diabolo; choose another folder for checkpoint=")
    return tensors, json.loads(meta)


def read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the run that the folder holds, or ``None`` where there is none."""
    found = read_checkpoint(folder, without_tensors=True)
    return None if found is None else dict(found[1]["fingerprint"])
