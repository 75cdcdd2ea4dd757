"""Convolutional networks for series of any length and images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.records import Schema

__all__ = ["Conv", "stage_channels"]

INFERENCE_PIXELS = 2**16  # of the rows that go through the stages together when no gradient is needed
GRID = 8  # hidden="auto" halves a row until its grid is no longer than this
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Conv:
    """Stages of residual convolutions, each at half the length of the one before; the decoder mirrors the encoder.

    Series have one length, their steps; images have two, height and width, and so on for rows ``(channels, *lengths)``.

    A stage of the encoder is a convolution of stride 2 and a residual block; a stage of the decoder is a residual block,
    repetition of cells up to the size that the encoder came from, and a convolution. Sizes round up on the way down and are
    met exactly on the way up, so a row of any size keeps its size.

    Parameters
    ----------
    hidden : tuple of int
        Channels of the encoder's stages; ``()`` makes each half a single linear layer.
    activation : str
        A key of ``ACTIVATIONS``.
    dropout : float
        Fraction of channels dropped in training, in each residual block.
    norm : {"batch", "layer"} or None
        Normalisation before each activation: of each channel over the batch, or of all channels of a row together (group
        normalisation with one group, Wu and He, 2018, arXiv:1803.08494), by which rows stay independent of each other.
    shortcut : bool
        Whether each half has a linear map beside its stages, and adds the two; it needs a code without a grid.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (16, 32),
        activation: str = "silu",
        dropout: float = 0.0,
        norm: str | None = None,
        shortcut: bool = False,
    ):
        self.hidden = tuple(hidden)
        self.shortcut = shortcut
        self.options: dict[str, Any] = {"activation": activation, "dropout": dropout, "norm": norm}

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, channels, *lengths) -> (B, out)``, or ``(B, out, *grid)`` for a code on a grid."""
        body = ConvEncoder(schema, self.hidden, out, spatial=spatial, **self.options)
        return self._finish(body, schema.size + schema.context, out, spatial)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp)`` or ``(B, inp, *grid)`` ``-> (B, params, channels, *lengths)``."""
        body = ConvDecoder(schema, self.hidden, inp, params, spatial=spatial, **self.options)
        return self._finish(body, inp + schema.context, params * schema.size, spatial)

    def _finish(self, body: ConvEncoder | ConvDecoder, inp: int, out: int, spatial: bool) -> nn.Module:
        if not self.shortcut:
            return body
        if spatial:
            raise ValueError(
                "network='shortcut_conv' needs a code without a grid, because its linear map goes from all cells at once; "
                "use network='conv' for a code on a grid"
            )
        return ShortcutConv(body, nn.Linear(inp, out))


class ConvEncoder(nn.Module):
    """Stages that halve the row, and a linear head over the grid that is left."""

    def __init__(
        self,
        schema: Schema,
        hidden: tuple[int, ...],
        out: int,
        *,
        spatial: bool,
        activation: str,
        dropout: float,
        norm: str | None,
    ):
        super().__init__()
        channels, *grid = self.shape = _shape(schema)
        dims, pixels = len(grid), math.prod(grid)
        channels += schema.context
        stages: list[nn.Module] = []
        for wide in hidden:
            stages += [_conv(dims, channels, wide, stride=2), Block(dims, wide, activation, dropout, norm)]
            channels, grid = wide, _half(grid)
        if hidden:
            stages += [_norm(dims, norm, channels), ACTIVATIONS[activation]()]
        self.stages = Stages(*stages, pixels=pixels)
        gain = _gain(activation) if hidden else 1.0
        self.head = (
            _conv(dims, channels, out, kernel=1, gain=gain)
            if spatial
            else _linear(channels * math.prod(grid), out, gain)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, channels, *lengths)``, flat or not, and ``(B, C)`` to ``(B, out)`` or ``(B, out, *grid)``."""
        h = self.stages(_join(x.reshape(-1, *self.shape), context))  # (B, hidden[-1], *grid)
        out: Tensor = self.head(h) if isinstance(self.head, CONVOLUTIONS) else self.head(h.flatten(1))
        return out


class ConvDecoder(nn.Module):
    """A linear layer to a grid, and stages that double it up to the exact size of the row."""

    def __init__(
        self,
        schema: Schema,
        hidden: tuple[int, ...],
        inp: int,
        params: int,
        *,
        spatial: bool,
        activation: str,
        dropout: float,
        norm: str | None,
    ):
        super().__init__()
        channels, *grid = _shape(schema)
        dims = len(grid)
        self.shape = (params, channels, *grid)
        sizes = [grid]
        for _ in hidden:
            sizes.append(_half(sizes[-1]))
        wides = (params * channels, *hidden)  # channels at each of the sizes
        self.grid = (wides[-1], *sizes[-1])
        inp += schema.context
        self.first = _conv(dims, inp, wides[-1], kernel=1) if spatial else _linear(inp, math.prod(self.grid), 1.0)
        stages: list[nn.Module] = []
        for i in range(len(hidden), 0, -1):
            stages.append(Block(dims, wides[i], activation, dropout, norm))
            if i == 1:
                stages += [_norm(dims, norm, wides[1]), ACTIVATIONS[activation]()]
            stages.append(nn.Upsample(size=tuple(sizes[i - 1]), mode="nearest"))  # cells repeated: no checkerboard
            stages.append(_conv(dims, wides[i], wides[i - 1], gain=_gain(activation) if i == 1 else 1.0))
        self.stages = Stages(*stages, pixels=math.prod(grid))

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.stages[-1] if len(self.stages) else self.first

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, inp)`` or ``(B, inp, *grid)``, and ``(B, C)``, to ``(B, params, channels, *lengths)``."""
        h = self.first(_join(z, context)).reshape(-1, *self.grid)
        out: Tensor = self.stages(h)
        return out.reshape(-1, *self.shape)


class Stages(nn.Sequential):
    """Layers in a row; without gradients a few rows at a time, which saves memory and time, as rows do not see each other."""

    def __init__(self, *layers: nn.Module, pixels: int):
        super().__init__(*layers)
        self.rows = max(1, INFERENCE_PIXELS // pixels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, *lengths)``."""
        run: Callable[[Tensor], Tensor] = super().forward
        if self.training or torch.is_grad_enabled() or len(x) <= self.rows:
            return run(x)
        return torch.cat([run(x[i : i + self.rows]) for i in range(0, len(x), self.rows)])


class Block(nn.Module):
    """``x + body(x)`` with two convolutions, normalisation and activation before each (He et al., 2016, arXiv:1603.05027).

    The second convolution starts at zero, so that a block starts as the identity and needs no normalisation to train.
    """

    def __init__(self, dims: int, channels: int, activation: str, dropout: float, norm: str | None):
        super().__init__()
        first, second = (_conv(dims, channels, channels, gain=_gain(activation)) for _ in range(2))
        nn.init.zeros_(second.weight)  # type: ignore[arg-type]
        self.body = nn.Sequential(
            _norm(dims, norm, channels),
            ACTIVATIONS[activation](),
            first,
            _norm(dims, norm, channels),
            ACTIVATIONS[activation](),
            DROPOUTS[dims - 1](dropout) if dropout > 0 else nn.Identity(),
            second,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, *lengths)`` to the same shape."""
        if x.dim() == 4:  # a third faster on a CPU, and all layers after keep to it
            x = x.contiguous(memory_format=torch.channels_last)
        out: Tensor = x + self.body(x)
        return out


class ShortcutConv(nn.Module):
    """``shortcut(x) + body(x)``: a linear map, and convolutions whose last layer starts at zero."""

    def __init__(self, body: ConvEncoder | ConvDecoder, shortcut: nn.Linear):
        super().__init__()
        self.body, self.shortcut = body, shortcut
        nn.init.zeros_(body.head.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map what ``body`` maps."""
        body: Tensor = self.body(x, context)
        linear: Tensor = self.shortcut(_join(x.flatten(1), context))
        return body + linear.reshape(body.shape)


def _shape(schema: Schema) -> tuple[int, ...]:
    """Return channels and lengths.

    Raises
    ------
    ValueError
        When the rows have no place for a convolution to go along.
    """
    if not 2 <= len(schema.shape) <= 4:
        raise ValueError(f"convolutions need rows (channels, *lengths) of one to three lengths; got {schema.shape}")
    return schema.shape


def stage_channels(schema: Schema) -> tuple[int, ...]:
    """Return channels for as many stages as bring the grid to at most 8 each way: 16, 32, and 64 from there on, at least one."""
    _, *grid = _shape(schema)
    stages = max(1, math.ceil(math.log2(max(grid) / GRID)))
    return tuple(min(64, 16 * 2**i) for i in range(stages))


def _half(lengths: list[int]) -> list[int]:
    return [(n + 1) // 2 for n in lengths]  # of a convolution of 3 with stride 2 and a border of 1


def _join(x: Tensor, context: Tensor | None) -> Tensor:
    """Append the context to dimension 1, the same at every place of a grid."""
    if context is None:
        return x
    places = x.shape[2:]
    return torch.cat([x, context.view(*context.shape, *[1] * len(places)).expand(-1, -1, *places)], dim=1)


def _norm(dims: int, name: str | None, channels: int) -> nn.Module:
    if name is None:
        return nn.Identity()
    return BATCH_NORMS[dims - 1](channels) if name == "batch" else nn.GroupNorm(1, channels)


def _gain(activation: str) -> float:
    """Return by how much to widen weights for the activation before them to keep variance (He et al., 2015)."""
    return math.sqrt(2.0) if activation in ("relu", "leaky_relu", "gelu", "silu", "elu") else 1.0


def _conv(dims: int, inp: int, out: int, *, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> nn.Module:
    layer = CONVOLUTIONS[dims - 1](inp, out, kernel, stride, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inp * kernel**dims))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _linear(inp: int, out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inp, out)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inp))
    nn.init.zeros_(layer.bias)
    return layer
