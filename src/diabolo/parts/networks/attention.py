"""Transformers for series and images: tokens are patches of the row, and each looks at all others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.parts.networks.base import ACTIVATIONS, Patches, by_rows, fourier_features, join_context
from diabolo.records import Schema

__all__ = ["Attention"]

HEADS = 4
OCTAVES = 6  # of the features that tell a token its place
INFERENCE_NUMBERS = 2**22  # of the tokens and of their pairs that are held at a time when no gradient is needed


class Attention:
    """Blocks of self-attention over patches of a row (Vaswani et al., 2017, arXiv:1706.03762), with normalisation before each.

    A patch is a stretch of steps, at most 32 of them, or a square of pixels, at most 8 by 8 of them; inside the network a row
    is filled up with zeros to whole patches, and the result is cut back. The code is a linear map of the mean of the tokens in
    which something is observed; the others take no part anywhere in the encoder. It also sees which cells are missing. The
    decoder gives the code to every place, and tokens then share out the row among themselves.

    Parameters
    ----------
    hidden : tuple of int
        Width of each block, all the same and divisible by the four heads.
    activation : str
        A key of ``ACTIVATIONS``, in the layers between.
    dropout : float
        Fraction dropped in training of what attention and layers add.
    norm : {"layer"} or None
        Tokens are normalised one by one in either case.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (64, 64),
        activation: str = "silu",
        dropout: float = 0.0,
        norm: str | None = None,
    ):
        if not hidden or len(set(hidden)) > 1 or hidden[0] % HEADS:
            raise ValueError(
                f"network='attention' needs one width for all blocks, a multiple of {HEADS}, such as hidden=(64, 64) for two "
                f"blocks; got hidden={tuple(hidden)}"
            )
        if norm == "batch":
            raise ValueError("network='attention' normalises each token by itself: norm='layer' or None, not 'batch'")
        self.width, self.blocks = hidden[0], len(hidden)
        self.activation, self.dropout = activation, dropout

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, channels, *lengths) -> (B, out)``, or ``(B, out, *grid)`` with a code for each token."""
        return AttentionEncoder(schema, self._blocks(), self.width, out, spatial=spatial)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp)`` or ``(B, inp, *grid)`` ``-> (B, params, channels, *lengths)``."""
        return AttentionDecoder(schema, self._blocks(), self.width, inp, params)

    def _blocks(self) -> nn.ModuleList:
        return nn.ModuleList(Block(self.width, self.activation, self.dropout) for _ in range(self.blocks))


class Block(nn.Module):
    """Self-attention and two layers for each token, each added to its input; both start at zero."""

    def __init__(self, width: int, activation: str, dropout: float):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pairs, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), ACTIVATIONS[activation](), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)
        for last in (self.mix, self.layers[-1]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        """Map ``(B, tokens, width)``; tokens that are not ``there`` ``(B, tokens)`` are looked at by none."""
        b, n, width = x.shape
        queries, keys, values = (
            t.view(b, n, HEADS, width // HEADS).transpose(1, 2) for t in self.pairs(self.first(x)).chunk(3, dim=2)
        )
        seen = None if there is None else there[:, None, None, :]
        looked = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen
        )  # (B, heads, tokens, width / heads)
        x = x + self.dropout(self.mix(looked.transpose(1, 2).reshape(b, n, width)))
        out: Tensor = x + self.dropout(self.layers(self.second(x)))
        return out


class AttentionEncoder(nn.Module):
    """Cuts a row into tokens, lets them look at each other, and takes their mean."""

    takes_mask = True
    places: Tensor

    def __init__(self, schema: Schema, blocks: nn.ModuleList, width: int, out: int, *, spatial: bool):
        super().__init__()
        self.shape, self.patches, self.spatial = schema.shape, Patches(schema.shape), spatial
        features = fourier_features(self.patches.grid, OCTAVES)
        self.register_buffer("places", features, persistent=False)
        self.first = nn.Linear(2 * schema.shape[0] * self.patches.size + schema.context, width)
        self.place = nn.Linear(features.shape[1], width, bias=False)
        self.blocks, self.norm, self.head = blocks, nn.LayerNorm(width), nn.Linear(width, out)

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """Map ``(B, channels, *lengths)``, flat or not, and ``(B, C)`` to ``(B, out)`` or ``(B, out, *grid)``."""
        return by_rows(self._encode, _rows(self.places, self.norm), x.reshape(-1, *self.shape), context, mask)

    def _encode(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        cells = self.patches.cut(torch.ones_like(x) if mask is None else mask)
        there = None
        if mask is not None:
            there = cells.amax(dim=2) > 0  # (B, tokens), where something is observed
            there = there | ~there.any(dim=1, keepdim=True)  # a row of which nothing is known is a row of zeros
        tokens = torch.cat([self.patches.cut(x), 1 - cells], dim=2)
        h = self.first(join_context(tokens, context)) + self.place(self.places.to(x.dtype))
        for block in self.blocks:
            h = block(h, there)  # (B, tokens, width)
        h = self.norm(h)
        if self.spatial:
            out: Tensor = self.head(h)
            out = out if there is None else out * there[:, :, None]
            return out.transpose(1, 2).reshape(len(x), -1, *self.patches.grid)
        if there is None:
            out = self.head(h.mean(dim=1))
        else:
            share = there.to(h.dtype) / there.sum(dim=1, keepdim=True)
            out = self.head((h * share[:, :, None]).sum(dim=1))
        return out


class AttentionDecoder(nn.Module):
    """Gives the code to every token, lets them look at each other, and joins what they write."""

    places: Tensor

    def __init__(self, schema: Schema, blocks: nn.ModuleList, width: int, inp: int, params: int):
        super().__init__()
        self.shape, self.patches = (params, *schema.shape), Patches(schema.shape)
        features = fourier_features(self.patches.grid, OCTAVES)
        self.register_buffer("places", features, persistent=False)
        self.first = nn.Linear(inp + schema.context, width)
        self.place = nn.Linear(features.shape[1], width, bias=False)
        self.blocks, self.norm = blocks, nn.LayerNorm(width)
        self.head = nn.Linear(width, params * schema.shape[0] * self.patches.size)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, inp)`` or ``(B, inp, *grid)``, and ``(B, C)``, to ``(B, params, channels, *lengths)``."""
        return by_rows(self._decode, _rows(self.places, self.norm), z, context)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        tokens = z.flatten(2).transpose(1, 2) if z.dim() > 2 else z[:, None].expand(-1, len(self.places), -1)
        h = self.first(join_context(tokens, context)) + self.place(self.places.to(z.dtype))  # (B, tokens, width)
        for block in self.blocks:
            h = block(h, None)
        return self.patches.join(self.head(self.norm(h))).reshape(-1, *self.shape)


def _rows(places: Tensor, norm: nn.LayerNorm) -> int:
    """Return how many rows to take at a time without gradients."""
    tokens, width = len(places), norm.normalized_shape[0]
    return max(1, INFERENCE_NUMBERS // (tokens * (4 * width + HEADS * tokens)))
