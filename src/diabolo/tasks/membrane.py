"""A first guess of what holes hide: a smooth surface through the pixels around them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["halved", "membrane"]


def membrane(x: Tensor, seen: Tensor, *, coarse: Tensor | None = None, levels: int = -1) -> Tensor:
    """Fill holes from ever coarser means of what is around them (pull-push, Gortler et al., 1996, doi:10.1145/237170.237200).

    Parameters
    ----------
    x : Tensor of shape (B, channels, H, W)
        Images; what holes have does not matter, but for NaN.
    seen : Tensor of shape (B, 1, H, W)
        1 where a pixel is known, 0 in holes.
    coarse : Tensor of shape (B, channels, h, w), optional
        The same without holes, after ``levels`` halvings; found from ``x`` if it is not given.
    levels : int
        Halvings to ``coarse``.

    Returns
    -------
    Tensor of shape (B, channels, H, W)
        Images without holes; where nothing at all is known they are 0.
    """
    if levels == 0 and coarse is not None:
        return coarse
    if max(x.shape[2:]) == 1:
        return x * seen
    half = membrane(*halved(x, seen), coarse=coarse, levels=levels - 1)
    height, width = x.shape[2:]
    wide = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return torch.where(seen > 0, x, wide)


def halved(x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the known pixels of each cell of 2 x 2, and whether it has any."""
    odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
    total = F.avg_pool2d(F.pad(x * seen, odd), 2)
    share = F.avg_pool2d(F.pad(seen, odd), 2)
    return total / share.clamp(min=0.25), (share > 0).to(x.dtype)
