"""A residual convolutional network with skip connections, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResidualUNet"]

STRIDE, REACH = 4, 48  # sides are padded to multiples of the one; a pixel depends on none farther away than the other


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


class ResidualUNet(nn.Module):
    r"""Says what to add to an image to restore it.

    ::

        x -> cells of 2 x 2 as channels -> blocks ------------------------> + -> blocks -> cells back -> + -> restored
        |                                    \-> halved -> blocks -> doubled /                           |
        \------------------------------------------------------------------------------------------------/

    It works on half and on a quarter of the size (Ronneberger et al., 2015, arXiv:1505.04597; the cells as channels as in Zhang
    et al., 2018, arXiv:1710.04026), and starts as the identity.

    Parameters
    ----------
    channels : int
        Of an image.
    width : int
        Channels at half the size; twice as many at a quarter.
    blocks : int
        At each of the three places.
    """

    def __init__(self, channels: int, width: int = 48, blocks: int = 2):
        super().__init__()
        self.head = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.inward = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.middle = nn.Sequential(*(Block(2 * width) for _ in range(blocks)))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.outward = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor) -> Tensor:
        """Restore images ``(B, channels, H, W)`` whose sides are multiples of 4."""
        x = x.contiguous(memory_format=torch.channels_last)
        h = self.head(F.pixel_unshuffle(x, 2))  # (B, width, H / 2, W / 2)
        inward = self.inward(h)
        coarse = self.up(self.middle(self.down(inward)))
        change: Tensor = F.pixel_shuffle(self.tail(self.outward(coarse + inward) + h), 2)
        return x + change
