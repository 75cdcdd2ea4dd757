"""Where and in what precision the work is done."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import Any

import torch
from torch import nn

from diabolo.launch import launched

__all__ = ["autocast", "bfloat16_is_fast", "gradient_scaler", "pays_in_bfloat16", "resolve_device", "resolve_precision"]

LEAST_WEIGHTS, LEAST_BATCH = (
    2**20,
    128,
)  # of layers and rows for which "auto" takes bfloat16; with fewer it gains little
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"`` into a device that is there.

    Of several processes that train one model each gets a GPU of its own.

    Raises
    ------
    ValueError
        When the device is unknown or absent on this machine.
    """
    several = launched()[1] > 1
    if several and name in ("auto", "cuda") and torch.cuda.is_available():
        place, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= there:
            raise ValueError(
                f"process {place} of this machine has no GPU of its own: there are {there}. Start as many processes as there "
                "are GPUs (torchrun --nproc-per-node=gpu), or set device='cpu'"
            )
        return torch.device("cuda", place)
    if several and name in ("auto", "mps"):
        if name == "mps":
            raise ValueError("device='mps' serves one process; set device='cpu', or train without torchrun")
        return torch.device("cpu")
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


def resolve_precision(name: str, device: torch.device, half_on: tuple[str, ...] = ()) -> str:
    """Turn ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"`` into a precision that the device can train in.

    ``"auto"`` is bfloat16 on devices of the kinds ``half_on``, of processors where it multiplies much faster, else float32.

    Raises
    ------
    ValueError
        When it cannot.
    """
    if name == "float16" and device.type not in FLOAT16_DEVICES:
        raise ValueError(
            f"precision='float16' needs a CUDA device, and device is {str(device)!r}; use precision='bfloat16' or 'float32'"
        )
    if name != "auto":
        return name
    return "bfloat16" if device.type in half_on and (device.type != "cpu" or bfloat16_is_fast()) else "float32"


def pays_in_bfloat16(module: nn.Module, batch_size: int, device: torch.device) -> bool:
    """Tell whether ``precision="auto"`` takes bfloat16: wide full connections, on a processor that multiplies it far faster.

    Only fully connected networks around a code that is linear in the encoder's output, without penalties, are considered: there
    the result is as good (the loss is judged in float32), and elsewhere it was not measured.
    """
    if device.type != "cpu" or batch_size < LEAST_BATCH:
        return False
    bottleneck, penalties = getattr(module, "bottleneck", None), getattr(module, "penalties", ())
    if not getattr(bottleneck, "linear", False) or len(penalties):
        return False
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    others = sum(p.numel() for p in module.parameters() if p.dim() > 2)
    return weights >= LEAST_WEIGHTS and not others and bfloat16_is_fast()


@functools.cache
def bfloat16_is_fast() -> bool:
    """Tell whether this processor multiplies bfloat16 at least twice as fast as float32, by trying, once in a process."""
    fastest = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(12):
            began = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - began)
        fastest[dtype] = min(times)
    return fastest[torch.float32] > 2 * fastest[torch.bfloat16]


FLOAT16_DEVICES = ("cuda",)  # elsewhere its products are slower than those of float32, or missing


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which the forward pass runs: products in half precision where asked, else nothing."""
    if precision in HALF:
        return torch.autocast(device.type, dtype=HALF[precision])
    return contextlib.nullcontext()


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Return what keeps small gradients from vanishing in float16, and leaves out steps that overflow; else it does nothing.

    The loss is multiplied by a scale that is halved after each overflow and doubled after 2000 steps without one (Micikevicius
    et al., 2018, arXiv:1710.03740).
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
