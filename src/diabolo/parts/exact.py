"""Networks whose numbers are the same on every machine: sums of multiples of powers of two, which are exact in any order."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LIMIT", "STEP", "exactly", "on_grid"]

STEP = 2.0**-12  # what passes between layers, and every weight, is a multiple of this
COARSE, LIMIT = 2.0**-8, 8.0  # of this, and within this either way, is what a convolution of single channels sees
WIDEST = 2.0**16  # what passes between layers is held within it, either way
MANTISSA = 24  # bits of float32


def on_grid(x: Tensor, step: float = STEP) -> Tensor:
    """Round to multiples of ``step``."""
    return torch.round(x / step) * step


def exactly(module: nn.Module) -> nn.Module:
    r"""Return a copy of a network that computes the same numbers on every machine, with any number of threads.

    Weights, and what passes from one layer to the next, become multiples of :math:`2^{-12}`. A product of two such numbers, and
    the sum of as many of them as a layer adds up, has fewer than 53 bits: float64 holds it without rounding, so that the order
    of the sum, which differs from one machine to another, does not matter. Convolutions of single channels, for which
    processors have fast code in float32 alone, sum few terms; coarser ones, whose sums its 24 bits hold.

    The network is made of convolutions, linear layers, embeddings, rectifiers and rearrangements; it takes and returns float64.

    References
    ----------
    Balle, Johnston and Minnen, Integer networks for data compression with latent-variable models, 2019.
    """
    twin = copy.deepcopy(module).cpu().double().requires_grad_(False).eval()
    for part in twin.modules():
        if isinstance(part, nn.Embedding):
            part.weight.copy_(on_grid(part.weight))
        if not isinstance(part, nn.Conv2d | nn.Linear):
            continue
        single = isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1
        step = _single_step(part) if single else STEP
        part.weight.copy_(on_grid(part.weight, step))
        if part.bias is not None:
            part.bias.copy_(on_grid(part.bias, step * COARSE if single else STEP))
        if single:
            part.float()
            part.register_forward_pre_hook(_narrowed)
        part.register_forward_hook(_rounded)
    return twin


def _single_step(layer: nn.Conv2d | nn.Linear) -> float:
    """Return the finest grid of weights on which float32 holds every sum over values within ``LIMIT``."""
    sums = layer.weight.abs().flatten(1).sum(dim=1) * LIMIT
    most = float((sums if layer.bias is None else sums + layer.bias.abs()).max()) / COARSE
    return 2.0 ** -(MANTISSA - 1 - math.ceil(math.log2(max(most, 1.0))))


def _narrowed(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
    return (on_grid(inputs[0], COARSE).float(),)


def _rounded(layer: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
    return on_grid(out.double()).clamp(-WIDEST, WIDEST)
