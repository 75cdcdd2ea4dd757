"""What a model of rows is, in few bytes: weights as whole numbers of a step, all tensors packed."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diabolo.parts.exact import on_grid

__all__ = ["coarsened", "packed", "rounded", "unpacked"]

STEPS = tuple(2.0**-k for k in range(2, 12))  # of weights; each is a multiple of what exact networks hold
WIDE = "<i8"


def rounded(module: nn.Module, step: float) -> nn.Module:
    """Return a copy of a network whose weights are multiples of ``step``."""
    twin = copy.deepcopy(module).requires_grad_(False)
    for weight in twin.parameters():
        weight.copy_(on_grid(weight, step) + 0.0)  # -0.0 is 0.0
    return twin


def coarsened(module: nn.Module, bits: Callable[[nn.Module], float]) -> tuple[nn.Module, float]:
    """Round the weights of a network as coarsely as pays.

    Parameters
    ----------
    module : Module
        The network.
    bits : callable
        What the rows of fit cost with a network.

    Returns
    -------
    Module, float
        The network for which those bits and those of its weights are fewest together, and its step.
    """
    best: tuple[float, nn.Module, float] | None = None
    for step in STEPS:
        twin = rounded(module, step)
        weights = {k: torch.round(v / step).long() for k, v in twin.state_dict().items()}
        total = bits(twin) + 8 * len(packed(weights)[1])
        if best is not None and total > best[0]:
            break
        if math.isfinite(total):
            best = total, twin, step
    if best is None:
        raise ValueError("the network tells nothing of the rows; lower learning_rate")
    return best[1], best[2]


def packed(tensors: dict[str, Tensor]) -> tuple[list[list[Any]], Tensor]:
    """Pack tensors of whole numbers.

    Returns
    -------
    list, Tensor of uint8
        Name, type, shape and whether differences are held, of each; and all of them in bytes.
    """
    heads: list[list[Any]] = []
    pieces = []
    for name, tensor in tensors.items():
        values = np.ascontiguousarray(tensor.numpy()).ravel().astype(WIDE)
        ways = [_squeezed(values), _squeezed(np.diff(values, prepend=values.dtype.type(0)))]
        best = min(range(2), key=lambda way: len(ways[way]))
        heads.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), bool(best), len(ways[best])])
        pieces.append(ways[best])
    return heads, torch.from_numpy(np.frombuffer(b"".join(pieces), dtype=np.uint8).copy())


def unpacked(heads: list[list[Any]], data: Tensor) -> dict[str, Tensor]:
    """Return what :func:`packed` was given."""
    rest, found = data.numpy().tobytes(), {}
    for name, dtype, shape, differences, length in heads:
        values = _unsqueezed(rest[:length], math.prod(shape))
        rest = rest[length:]
        whole = np.cumsum(values) if differences else values
        found[name] = torch.from_numpy(whole.astype(np.int64)).to(getattr(torch, dtype)).view(shape)
    return found


def _squeezed(values: NDArray[np.int64]) -> bytes:
    """Pack whole numbers byte by byte, the lowest byte of all first; small ones of either sign have few."""
    folded = ((values << 1) ^ (values >> 63)).astype("<u8")  # 0, -1, 1, -2 ... become 0, 1, 2, 3 ...
    planes = folded.view(np.uint8).reshape(-1, 8).T
    used = max((i + 1 for i in range(8) if planes[i].any()), default=0)
    out = [bytes([used])]
    for plane in planes[:used]:
        ways = []
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
            packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
            ways.append(packer.compress(plane.tobytes()) + packer.flush())
        best = min(ways, key=len)
        out.append(len(best).to_bytes(4, "little") + best)
    return b"".join(out)


def _unsqueezed(data: bytes, n: int) -> NDArray[np.int64]:
    planes, place = np.zeros((8, n), dtype=np.uint8), 1
    for i in range(data[0]):
        length = int.from_bytes(data[place : place + 4], "little")
        plane = zlib.decompressobj(-15).decompress(data[place + 4 : place + 4 + length], n)
        planes[i] = np.frombuffer(plane, dtype=np.uint8)
        place += 4 + length
    folded = np.ascontiguousarray(planes.T).view("<u8").ravel()
    return (folded >> np.uint64(1)).astype(np.int64) ^ -(folded & np.uint64(1)).astype(np.int64)
