"""Convolutional networks for images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.records import Schema

__all__ = ["Conv", "stage_channels"]

INFERENCE_PIXELS = 2**16  # of the images that go through the stages together when no gradient is needed
GRID = 8  # hidden="auto" halves an image until its grid is no longer than this


class Conv:
    """Stages of residual convolutions, each at half the height and width of the one before; the decoder mirrors the encoder.

    A stage of the encoder is a convolution of stride 2 and a residual block; a stage of the decoder is a residual block,
    repetition of pixels up to the size that the encoder came from, and a convolution. Sizes round up on the way down and are
    met exactly on the way up, so an image of any size keeps its size.

    Parameters
    ----------
    hidden : tuple of int
        Channels of the encoder's stages; ``()`` makes each half a single linear layer.
    activation : str
        A key of ``ACTIVATIONS``.
    dropout : float
        Fraction of channels dropped in training, in each residual block.
    norm : {"batch", "layer"} or None
        Normalisation before each activation: of each channel over the batch, or of all channels of an image together (group
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
        """Return ``(B, channels, height, width) -> (B, out)``, or ``(B, out, *grid)`` for a code on a grid."""
        body = ConvEncoder(schema, self.hidden, out, spatial=spatial, **self.options)
        return self._finish(body, schema.size + schema.context, out, spatial)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp)`` or ``(B, inp, *grid)`` ``-> (B, params, channels, height, width)``."""
        body = ConvDecoder(schema, self.hidden, inp, params, spatial=spatial, **self.options)
        return self._finish(body, inp + schema.context, params * schema.size, spatial)

    def _finish(self, body: ConvEncoder | ConvDecoder, inp: int, out: int, spatial: bool) -> nn.Module:
        if not self.shortcut:
            return body
        if spatial:
            raise ValueError(
                "network='shortcut_conv' needs a code without a grid, because its linear map goes from all pixels at once; "
                "use network='conv' for a code on a grid"
            )
        return ShortcutConv(body, nn.Linear(inp, out))


class ConvEncoder(nn.Module):
    """Stages that halve the image, and a linear head over the grid that is left."""

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
        channels, height, width = self.shape = image_shape(schema)
        channels += schema.context
        stages: list[nn.Module] = []
        for wide in hidden:
            stages += [_conv(channels, wide, stride=2), Block(wide, activation, dropout, norm)]
            channels, height, width = wide, _half(height), _half(width)
        if hidden:
            stages += [_norm(norm, channels), ACTIVATIONS[activation]()]
        self.stages = Stages(*stages, pixels=self.shape[1] * self.shape[2])
        gain = _gain(activation) if hidden else 1.0
        self.head = (
            _conv(channels, out, kernel=1, gain=gain) if spatial else _linear(channels * height * width, out, gain)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, channels, height, width)``, flat or not, and ``(B, C)`` to ``(B, out)`` or ``(B, out, *grid)``."""
        h = self.stages(_join(x.reshape(-1, *self.shape), context))  # (B, hidden[-1], *grid)
        out: Tensor = self.head(h) if isinstance(self.head, nn.Conv2d) else self.head(h.flatten(1))
        return out


class ConvDecoder(nn.Module):
    """A linear layer to a grid, and stages that double it up to the exact size of the image."""

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
        channels, height, width = image_shape(schema)
        self.shape = (params, channels, height, width)
        sizes = [(height, width)]
        for _ in hidden:
            sizes.append((_half(sizes[-1][0]), _half(sizes[-1][1])))
        wides = (params * channels, *hidden)  # channels at each of the sizes
        self.grid = (wides[-1], *sizes[-1])
        inp += schema.context
        self.first = _conv(inp, wides[-1], kernel=1) if spatial else _linear(inp, math.prod(self.grid), 1.0)
        stages: list[nn.Module] = []
        for i in range(len(hidden), 0, -1):
            stages.append(Block(wides[i], activation, dropout, norm))
            if i == 1:
                stages += [_norm(norm, wides[1]), ACTIVATIONS[activation]()]
            stages.append(nn.Upsample(size=sizes[i - 1], mode="nearest"))  # pixels repeated: no checkerboard
            stages.append(_conv(wides[i], wides[i - 1], gain=_gain(activation) if i == 1 else 1.0))
        self.stages = Stages(*stages, pixels=self.shape[2] * self.shape[3])

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.stages[-1] if len(self.stages) else self.first

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, inp)`` or ``(B, inp, *grid)``, and ``(B, C)``, to ``(B, params, channels, height, width)``."""
        h = self.first(_join(z, context)).reshape(-1, *self.grid)
        out: Tensor = self.stages(h)
        return out.reshape(-1, *self.shape)


class Stages(nn.Sequential):
    """Layers in a row; without gradients a few rows at a time, which saves memory and time, as rows do not see each other."""

    def __init__(self, *layers: nn.Module, pixels: int):
        super().__init__(*layers)
        self.rows = max(1, INFERENCE_PIXELS // pixels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, height, width)``."""
        run: Callable[[Tensor], Tensor] = super().forward
        if self.training or torch.is_grad_enabled() or len(x) <= self.rows:
            return run(x)
        return torch.cat([run(x[i : i + self.rows]) for i in range(0, len(x), self.rows)])


class Block(nn.Module):
    """``x + body(x)`` with two convolutions, normalisation and activation before each (He et al., 2016, arXiv:1603.05027).

    The second convolution starts at zero, so that a block starts as the identity and needs no normalisation to train.
    """

    def __init__(self, channels: int, activation: str, dropout: float, norm: str | None):
        super().__init__()
        first, second = (_conv(channels, channels, gain=_gain(activation)) for _ in range(2))
        nn.init.zeros_(second.weight)
        self.body = nn.Sequential(
            _norm(norm, channels),
            ACTIVATIONS[activation](),
            first,
            _norm(norm, channels),
            ACTIVATIONS[activation](),
            nn.Dropout2d(dropout) if dropout > 0 else nn.Identity(),
            second,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, height, width)`` to the same shape."""
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU, and all layers after keep to it
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


def image_shape(schema: Schema) -> tuple[int, int, int]:
    """Return channels, height and width.

    Raises
    ------
    ValueError
        When the rows are no images.
    """
    if len(schema.shape) != 3:
        raise ValueError(
            f"network='conv' is for images (n, height, width) or (n, channels, height, width); X has rows of shape "
            f"{schema.shape}. Use network='shortcut_mlp', 'mlp' or 'residual_mlp', or reshape X to images."
        )
    channels, height, width = schema.shape
    return channels, height, width


def stage_channels(schema: Schema) -> tuple[int, ...]:
    """Return channels for as many stages as bring the grid to at most 8 x 8: 16, 32, and 64 from there on, at least one."""
    _, height, width = image_shape(schema)
    stages = max(1, math.ceil(math.log2(max(height, width) / GRID)))
    return tuple(min(64, 16 * 2**i) for i in range(stages))


def _half(length: int) -> int:
    return (length + 1) // 2  # of a convolution of 3 with stride 2 and a border of 1


def _join(x: Tensor, context: Tensor | None) -> Tensor:
    """Append the context to dimension 1, the same at every place of a grid."""
    if context is None:
        return x
    if x.dim() == 4:
        context = context[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, context], dim=1)


def _norm(name: str | None, channels: int) -> nn.Module:
    if name is None:
        return nn.Identity()
    return nn.BatchNorm2d(channels) if name == "batch" else nn.GroupNorm(1, channels)


def _gain(activation: str) -> float:
    """Return by how much to widen weights for the activation before them to keep variance (He et al., 2015)."""
    return math.sqrt(2.0) if activation in ("relu", "leaky_relu", "gelu", "silu", "elu") else 1.0


def _conv(inp: int, out: int, *, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    layer = nn.Conv2d(inp, out, kernel, stride, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inp * kernel**2))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _linear(inp: int, out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inp, out)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inp))
    nn.init.zeros_(layer.bias)
    return layer
