"""A linear layer for rows that hold mostly zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["SparseLinear", "filled"]

MOST_FILLED = 1 / 8  # of the cells of a batch, up to which the product over those that are not zero is faster


def filled(x: Tensor) -> Tensor:
    """Return the places of what is not zero in ``x`` once flat, in order."""
    if x.device.type != "cpu":
        return x.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(x.detach().numpy() != 0))  # numpy is twice as fast


def _product(matrix: Any, other: Tensor) -> Tensor:
    """Return ``matrix @ other`` ``(n, k)`` for sparse rows ``(n, m)`` and ``(m, k)``."""
    starts, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return F.embedding_bag(
        columns, other, starts, mode="sum", per_sample_weights=values.to(other.dtype), include_last_offset=True
    )


class Product(torch.autograd.Function):
    """``x @ weight.T`` over the cells of ``x`` that are not zero, and the gradient of the weight over the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, weight: Tensor) -> Tensor:
        """Map ``(B, inp)``, the places that are filled and ``(out, inp)`` to ``(B, out)``."""
        n, inp = x.shape
        starts = np.searchsorted(places.numpy(), np.arange(n + 1) * inp).astype(np.int32)
        columns = (places.numpy() % inp).astype(np.int32)
        ctx.matrix = sparse.csr_array((x.flatten()[places].numpy(), columns, starts), shape=(n, inp))
        return _product(ctx.matrix, weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        """Return the gradient of the weight, laid out as :class:`SparseLinear` keeps it."""
        return None, None, _product(sparse.csr_array(ctx.matrix.T), gradients[0].contiguous()).T


class SparseLinear(nn.Linear):
    """A linear layer that leaves zeros of its input out, on a CPU where most of a batch is zero; else an ordinary one.

    The weight has the shape ``(out, inp)`` as ever, but what one feature adds to all outputs lies together in memory.
    """

    @classmethod
    def like(cls, layer: nn.Linear) -> SparseLinear:
        """Return a layer with the same weights."""
        made = cls(layer.in_features, layer.out_features)
        made.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
        made.bias = layer.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inp)`` to ``(B, out)``."""
        if x.device.type == "cpu" and x.dim() == 2 and x.dtype == self.weight.dtype and not x.requires_grad:
            places = filled(x)
            if len(places) <= MOST_FILLED * x.numel():
                product: Tensor = Product.apply(x, places, self.weight)  # type: ignore[no-untyped-call]
                return product + self.bias
        return F.linear(x, self.weight, self.bias)
