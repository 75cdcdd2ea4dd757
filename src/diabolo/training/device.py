"""Where and in what precision the work is done."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

__all__ = ["autocast", "resolve_device"]


def resolve_device(name: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"`` into a device that is there.

    Raises
    ------
    ValueError
        When the device is unknown or absent on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name!r} is unknown; expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False):
        raise ValueError(f"device={name!r} is not available on this machine; use device='auto' or 'cpu'")
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which the forward pass runs: bfloat16 products where asked, else nothing."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
