"""A convolutional transform for compression, and what it says of the numbers that it makes."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.parts.entropy import SCALES, FactorisedDensity, full_precision, normal_bits, rounded
from diabolo.parts.exact import LIMIT

__all__ = ["ANCHORS", "CELL", "PATCH", "REACH", "ImageCodec", "first_half"]

CELL, PATCH = 16, 64  # sides of what one place of the code, and of the code about the code, stands for
REACH = 128  # pixels; none that is farther away changes another
ANCHORS = 6  # levels of quality at which gains are learned
SEEN = 512.0  # what a code is held within where another is told by it, in units of 8
LOWEST, HIGHEST = 0.0008, 0.06  # weights of squared errors at the first and the last level


class Block(nn.Module):
    """Each channel over its neighbourhood, then the channels of each place, beside the identity.

    Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545.
    """

    def __init__(self, width: int):
        super().__init__()
        self.space = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.wide = nn.Conv2d(width, 2 * width, 1)
        self.narrow = nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        y: Tensor = x + self.narrow(F.relu(self.wide(self.space(x.clamp(-LIMIT, LIMIT)))))
        return y


class Down(nn.Module):
    """Cells of ``factor`` x ``factor`` as channels, and a linear map of them; its numbers keep the precision of its weights."""

    def __init__(self, inp: int, out: int, factor: int):
        super().__init__()
        self.factor = factor
        self.map = nn.Conv2d(factor**2 * inp, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inp, H, W)`` to ``(B, out, H / factor, W / factor)``."""
        with full_precision(x.device):
            y: Tensor = self.map(F.pixel_unshuffle(x.to(self.map.weight.dtype), self.factor))
        return y


class Up(nn.Module):
    """The way back: a linear map to cells of ``factor`` x ``factor``."""

    def __init__(self, inp: int, out: int, factor: int):
        super().__init__()
        self.factor = factor
        self.map = nn.Conv2d(inp, factor**2 * out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inp, H, W)`` to ``(B, out, H * factor, W * factor)``."""
        with full_precision(x.device):
            y: Tensor = F.pixel_shuffle(self.map(x.to(self.map.weight.dtype)), self.factor)
        return y


def _blocks(width: int, n: int) -> list[nn.Module]:
    return [Block(width) for _ in range(n)]


class Teller(nn.Module):
    """Tells the distributions of codes: of places like the white squares of a board from the summary, of others from both.

    He et al., Checkerboard context model for efficient learned image compression, 2021, arXiv:2103.15306.
    """

    def __init__(self, codes: int, summary: int):
        super().__init__()
        self.about = nn.Sequential(
            Up(summary, summary, 2), *_blocks(summary, 1), Up(summary, codes, 2), *_blocks(codes, 1)
        )
        self.first = Up(codes, 2 * codes, 1)
        self.more = nn.Sequential(Down(2 * codes, codes, 1), *_blocks(codes, 1), Up(codes, 2 * codes, 1))
        last = cast("Up", self.more[-1]).map
        for layer in (self.first.map, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
        with torch.no_grad():
            self.first.map.bias[codes:] = SCALES / 2  # type: ignore[index]  # there is one

    def from_summary(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``z`` tells, and by it mean and number of the scale of each code ``(B, 2 * codes, h, w)``."""
        about = self.about(z)
        return about, self.first(about)

    def from_half(self, about: Tensor, first: Tensor, known: Tensor) -> Tensor:
        """Return what the other half is told, by codes that are 0 in it ``(B, codes, h, w)``."""
        seen = (known / 8).clamp(-SEEN, SEEN).to(about.dtype)
        told: Tensor = first + self.more(torch.cat([about, seen], dim=1))
        return told


def first_half(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return which places of a grid are told by the summary alone ``(height, width)``."""
    return (torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)) % 2 == 0


class ImageCodec(nn.Module):
    r"""Analysis and synthesis of images, and the distribution of their codes.

    ::

        x -> analysis -> y * gain -> rounded about the mean --------------------------> / gain -> synthesis -> x'
                          |                    ^                                          ^
                          \-> summary -> z -> rounded -> teller -> mean and scale of y --/

    Codes ``y`` are at a sixteenth of the size, the summary ``z`` at a 64th. ``y`` is coded under normal distributions that ``z``
    tells, for half of the places with the help of the other half (Balle et al., 2018, arXiv:1802.01436; with means, Minnen et
    al., 2018, arXiv:1809.02736), ``z`` under a density of its own for each channel. One network serves all rates: gains of each
    channel, learned at a few levels of quality, set how finely it is rounded (Cui et al., 2021, arXiv:2003.02012).

    It starts as the linear transform of cells of 8 x 8 and of 2 x 2 of these to their principal components.

    Parameters
    ----------
    channels : int
        Of an image.
    width : int
        Channels at an eighth of the size.
    codes : int
        Channels of ``y``.
    summary : int
        Channels of ``z``.
    blocks : int
        At an eighth of the size.
    """

    def __init__(self, channels: int, width: int = 128, codes: int = 160, summary: int = 64, blocks: int = 6):
        super().__init__()
        self.channels = channels
        self.analysis = nn.Sequential(
            Down(channels, width, 8), *_blocks(width, blocks), Down(width, codes, 2), *_blocks(codes, 1)
        )
        self.synthesis = nn.Sequential(
            *_blocks(codes, 1), Up(codes, width, 2), *_blocks(width, blocks), Up(width, channels, 8)
        )
        self.summary = nn.Sequential(
            Down(codes, summary, 1), Down(summary, summary, 2), *_blocks(summary, 1), Down(summary, summary, 2)
        )
        self.teller = Teller(codes, summary)
        self.density = FactorisedDensity(summary)
        levels = torch.logspace(math.log10(LOWEST), math.log10(HIGHEST), ANCHORS)
        start = torch.log(50 * levels.sqrt())[:, None].repeat(1, codes)
        self.gain, self.inverse = nn.Parameter(start), nn.Parameter(-start)  # logarithms, (ANCHORS, codes)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Begin at principal components of patches ``(B, channels, H, W)``, centred at 0."""
        cells = F.pixel_unshuffle(x, 8)
        inward, down = (cast("Down", self.analysis[i]).map for i in (0, -2))
        outward, up = (cast("Up", self.synthesis[i]).map for i in (-1, 1))
        first = _principal(cells, inward.out_channels)[..., None, None]
        second = _principal(F.pixel_unshuffle(F.conv2d(cells, first), 2), down.out_channels)[..., None, None]
        for layer, axes in (
            (inward, first),
            (outward, first.transpose(0, 1)),
            (down, second),
            (up, second.transpose(0, 1)),
        ):
            layer.weight.copy_(axes)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one

    def gains(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gains and what undoes them ``(B, codes, 1, 1)``, for levels from 0 to ``ANCHORS - 1``."""
        lower = level.floor().clamp(0, ANCHORS - 2)
        share = (level - lower)[:, None]
        i = lower.long()
        return tuple(  # type: ignore[return-value]
            torch.exp(p[i] * (1 - share) + p[i + 1] * share)[..., None, None] for p in (self.gain, self.inverse)
        )

    def forward(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return images as decoded, and the bits that each costs ``(B,)``.

        Parameters
        ----------
        x : Tensor
            Images ``(B, channels, H, W)`` centred at 0, whose sides are multiples of 64.
        level : Tensor
            Of quality ``(B,)``.
        """
        gain, inverse = self.gains(level)
        y = self.analysis(x.contiguous(memory_format=torch.channels_last)) * gain
        z = self.summary(y / 8).float()
        noisy = z + torch.rand_like(z) - 0.5 if self.training else torch.round(z)
        about, told = self.teller.from_summary(rounded(z))
        y, told, half = y.float(), told.float(), first_half(y.shape[2], y.shape[3], y.device)
        mean, _ = told.chunk(2, dim=1)
        known = half * (rounded(y - mean) + mean)
        told = torch.where(half, told, self.teller.from_half(about, told, known).float())
        mean, index = told.chunk(2, dim=1)
        code = rounded(y - mean) + mean
        shown = y + torch.rand_like(y) - 0.5 if self.training else code
        bits = normal_bits(shown, mean, index).flatten(1).sum(dim=1) + self.density.bits(noisy).flatten(1).sum(dim=1)
        return self.synthesis(code * inverse).float(), bits


def weight(level: Tensor) -> Tensor:
    """Return the weight of squared errors, in units of a 255th, at levels of quality."""
    return LOWEST * (HIGHEST / LOWEST) ** (level / (ANCHORS - 1))


def _principal(x: Tensor, n: int) -> Tensor:
    """Return the principal axes of what stands at the places of a grid ``(n, channels)``, the largest first."""
    flat = x.transpose(0, 1).flatten(1).double()
    axes = torch.linalg.eigh(flat @ flat.T / flat.shape[1]).eigenvectors.flip(1).T
    found = x.new_zeros(n, axes.shape[1])
    found[: len(axes)] = axes[:n]
    return found
