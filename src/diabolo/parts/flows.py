"""Normalising flows: invertible maps of vectors whose volume change is known."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Flow"]


class Flow(nn.Module):
    """An invertible map of vectors whose volume change is known; it starts as the identity.

    Parameters
    ----------
    kind : {"spline", "affine"}
        Monotonic rational-quadratic splines on [-5, 5] with 8 bins (Durkan et al., 2019, arXiv:1906.04032), or a shift and a
        scale (Papamakarios et al., 2017, arXiv:1705.07057), of each unit, given those before it.
    features : int
        Length of a vector.
    n_transforms : int
        Maps in a row; every other one takes the units in reverse order.
    hidden : tuple of int
        Widths of the hidden layers of the masked network of each map.
    context : int
        Width of what the map depends on.
    """

    def __init__(self, kind: str, features: int, n_transforms: int, hidden: tuple[int, ...], context: int = 0):
        super().__init__()
        if importlib.util.find_spec("zuko") is None:
            raise ImportError("normalising flows need the package zuko: pip install 'diabolo[flows]'")
        import zuko

        make: Any = zuko.flows.NSF if kind == "spline" else zuko.flows.MAF
        options: dict[str, Any] = {}
        if features > 1 or context > 0:  # a single unit without context is mapped by bare numbers
            options = {"hidden_features": hidden, "activation": nn.SiLU}
        self.transform: nn.Module = make(features, context, transforms=n_transforms, **options).transform
        for part in self.transform.modules():
            hyper = getattr(part, "hyper", None)
            numbers = hyper[-1].parameters() if isinstance(hyper, nn.Sequential) else getattr(part, "phi", ())
            for p in numbers:
                nn.init.zeros_(p)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``(..., D)``; also return the logarithm of the volume change ``(...)``."""
        with torch.autocast(x.device.type, enabled=False):  # half precision is too coarse for densities
            y, log_volume = self.transform(context).call_and_ladj(x)
        return y, log_volume

    def inverse(self, y: Tensor) -> Tensor:
        """Undo the map, one unit after the other."""
        x: Tensor = self.transform(None).inv(y)
        return x
