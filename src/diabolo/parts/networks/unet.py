"""A residual convolutional network with skip connections, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResidualUNet"]


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` and what is added to it ``(B, width, H, W)``."""
        y: Tensor = x + self.second(F.relu(self.first(x)))
        return y


class Coarser(nn.Module):
    """Blocks at half the size, with twice the channels, beside the identity."""

    def __init__(self, width: int, blocks: int, depth: int):
        super().__init__()
        self.down, self.middle, self.up = _halved(width, blocks, depth)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` and what is added to it ``(B, width, H, W)``."""
        y: Tensor = x + self.up(self.middle(self.down(x)))
        return y


def _halved(width: int, blocks: int, depth: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return what halves, the blocks there, while depth lasts with a coarser part between them, and what doubles."""
    down = nn.Conv2d(width, 2 * width, 2, stride=2)
    middle = _blocks(2 * width, blocks)
    if depth > 1:
        middle.extend([Coarser(2 * width, blocks, depth - 1), *_blocks(2 * width, blocks)])
    return down, middle, nn.ConvTranspose2d(2 * width, width, 2, stride=2)


def _blocks(width: int, n: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(n)))


class ResidualUNet(nn.Module):
    r"""Says what to add to an image to restore it.

    ::

        x -> cells of 2 x 2 as channels -> blocks ------------------------> + -> blocks -> cells back -> + -> restored
        |                                    \-> halved -> blocks -> doubled /                           |
        \------------------------------------------------------------------------------------------------/

    It works on half and on a quarter of the size, deeper ones on an eighth and so on as well (Ronneberger et al., 2015,
    arXiv:1505.04597; the cells as channels as in Zhang et al., 2018, arXiv:1710.04026), and starts as the identity.

    Parameters
    ----------
    channels : int
        Of an image.
    width : int
        Channels at half the size; twice as many at a quarter, and so on.
    blocks : int
        At each place.
    depth : int
        How often the size is halved after the first time.
    hints : int
        Channels of what is known beside the image.

    Attributes
    ----------
    stride, reach : int
        Sides are multiples of the one; a pixel depends on none farther away than the other.
    """

    def __init__(self, channels: int, width: int = 48, blocks: int = 2, depth: int = 1, hints: int = 0):
        super().__init__()
        # a convolution at 1 / s of the size reaches s pixels; from a cell of the largest size another 2 s are seen
        scales = [2**k for k in range(1, depth + 2)]
        sides = [2 * blocks * (1 if s == scales[-1] else 2) for s in scales]
        self.stride = scales[-1]
        reach = 2 * scales[0] + sum(s * n for s, n in zip(scales, sides, strict=True)) + 2 * self.stride
        self.reach = -(-reach // self.stride) * self.stride
        self.head = nn.Conv2d(4 * (channels + hints), width, 3, padding=1)
        self.inward = _blocks(width, blocks)
        self.down, self.middle, self.up = _halved(width, blocks, depth)
        self.outward = _blocks(width, blocks)
        self.tail = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor, hints: Tensor | None = None) -> Tensor:
        """Restore images ``(B, channels, H, W)``, beside what is known of them ``(B, hints, H, W)``."""
        given = x if hints is None else torch.cat([x, hints], dim=1)
        h = self.head(
            F.pixel_unshuffle(given.contiguous(memory_format=torch.channels_last), 2)
        )  # (B, width, H / 2, W / 2)
        inward = self.inward(h)
        coarse = self.up(self.middle(self.down(inward)))
        change: Tensor = F.pixel_shuffle(self.tail(self.outward(coarse + inward) + h), 2)
        return x + change
