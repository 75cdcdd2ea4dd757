"""Degradations: what sensors, files and age do to images from 0 to 1, and marks that cover parts of them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["DEGRADATIONS", "MARKS", "Kind", "cover", "degrade", "resolve_levels"]

LINES, SPECKS = 12, 24  # scratches, and grains of dust, that an image has at most


@dataclass(frozen=True)
class Kind:
    """One kind of degradation, or of mark.

    Attributes
    ----------
    apply : callable
        Of a degradation: maps images ``(B, channels, H, W)`` and levels ``(B,)`` to what becomes of them. Of a mark: maps
        images and shares ``(B,)`` to how far each pixel is covered ``(B, marks, H, W)``, from 0 to 1.
    auto : tuple of float
        The range of levels when none is given.
    low, high : float
        What a level may be.
    unit : str
        What a level is.
    in_pixels : bool
        Whether a level is in units of the pixels.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    auto: tuple[float, float]
    low: float
    high: float
    unit: str
    in_pixels: bool = False


def degrade(x: Tensor, levels: dict[str, tuple[float, float]]) -> Tensor:
    """Put degradations on images ``(B, channels, H, W)``, one after the other, each image at a level of its own."""
    with torch.autocast(x.device.type, enabled=False):  # noise is no product to be rounded
        for name, ends in levels.items():
            x = DEGRADATIONS[name].apply(x, _drawn(x, ends))
    return x


def cover(x: Tensor, shares: dict[str, tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """Cover parts of images ``(B, channels, H, W)`` with marks of one kind each, black, white or of one colour.

    Returns
    -------
    Tensor, Tensor
        The images with marks on them, and how far each pixel is covered ``(B, 1, H, W)``, from 0 to 1.
    """
    which = torch.randint(len(shares), (len(x),), device=x.device)
    covered, covering = torch.zeros_like(x[:, :1]), torch.zeros_like(x)
    with torch.autocast(x.device.type, enabled=False):
        for i, (name, ends) in enumerate(shares.items()):
            mine = which == i
            if bool(mine.any()):
                marks = MARKS[name].apply(x[mine], _drawn(x[mine], ends))
                covered[mine], covering[mine] = _flattened(marks, x.shape[1])
    return torch.lerp(x, covering, covered), covered


def _drawn(x: Tensor, ends: tuple[float, float]) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * torch.rand(len(x), dtype=x.dtype, device=x.device)


def _flattened(marks: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Lay marks ``(B, marks, H, W)`` over each other: how far a pixel is covered, and by which colour."""
    most, which = marks.max(dim=1, keepdim=True)  # (B, 1, H, W)
    shade = 0.2 * torch.rand(len(marks), marks.shape[1], channels, device=marks.device)
    light = torch.rand(len(marks), marks.shape[1], 1, device=marks.device) < 0.5
    colours = torch.where(light, 1 - shade, shade).transpose(1, 2)  # (B, channels, marks)
    found = colours.gather(2, which.flatten(1)[:, None].expand(-1, channels, -1))
    return most, found.reshape(len(marks), channels, *marks.shape[2:])


# noise --------------------------------------------------------------------------------------------------------------------------


def _gaussian(x: Tensor, level: Tensor) -> Tensor:
    return x + level.view(-1, 1, 1, 1) * torch.randn_like(x)


def _poisson(x: Tensor, level: Tensor) -> Tensor:
    """Count light: so much of it that white has the given standard deviation."""
    peak = 1 / level.clamp(min=1e-3).square().view(-1, 1, 1, 1)
    return torch.poisson(x.clamp(min=0) * peak) / peak


def _salt_and_pepper(x: Tensor, level: Tensor) -> Tensor:
    u, level = torch.rand_like(x[:, :1]), level.view(-1, 1, 1, 1)
    return torch.where(u < level, (u < level / 2).to(x.dtype), x)


def _blur(x: Tensor, level: Tensor) -> Tensor:
    """Blur by a Gaussian, along columns and then along rows."""
    n, channels, height, width = x.shape
    reach = min(math.ceil(3 * float(level.max())), height - 1, width - 1)
    at = torch.arange(-reach, reach + 1, device=x.device)
    kernels = torch.softmax(-at.square() / (2 * level.clamp(min=1e-3).square()[:, None]), dim=1)  # (B, 2 reach + 1)
    kernels = kernels.repeat_interleave(channels, dim=0)[:, None, None]  # (B * channels, 1, 1, 2 reach + 1)
    flat = F.pad(x.reshape(1, n * channels, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernels, groups=n * channels), kernels.transpose(2, 3), groups=n * channels)
    return flat.reshape(x.shape)


def _jpeg(x: Tensor, level: Tensor) -> Tensor:
    """Write JPEG files and read them; blocks begin anywhere, as in an image that was cropped."""
    image = _pillow()
    pixels = (x.clamp(0, 1) * 255).round().byte().cpu().numpy()
    corners = torch.randint(8, (len(x), 2)).tolist()
    out = np.empty_like(pixels)
    for i, (quality, (top, left)) in enumerate(zip(level.round().int().tolist(), corners, strict=True)):
        whole = np.pad(pixels[i], ((0, 0), (top, 0), (left, 0)), mode="edge").transpose(1, 2, 0)
        parts = [whole] if whole.shape[2] == 3 else [whole[..., c] for c in range(whole.shape[2])]
        read = []
        for part in parts:
            file = io.BytesIO()
            image.fromarray(part).save(file, "JPEG", quality=quality)
            read.append(np.atleast_3d(np.asarray(image.open(file))))
        out[i] = np.concatenate(read, axis=2)[top:, left:].transpose(2, 0, 1)
    return torch.from_numpy(out).to(x) / 255


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("the noise 'jpeg' needs Pillow: pip install 'diabolo[image]'") from None
    return Image


# marks --------------------------------------------------------------------------------------------------------------------------


def _pixels(x: Tensor, share: Tensor) -> Tensor:
    """Return single pixels, in two groups, so that they may be of two colours."""
    u, share = torch.rand_like(x[:, :1]), share.view(-1, 1, 1, 1)
    return torch.cat([u < share / 2, (u >= share / 2) & (u < share)], dim=1).to(x.dtype)


def _blocks(x: Tensor, share: Tensor) -> Tensor:
    """Return one rectangle in each image."""
    height, width = x.shape[2:]
    tall = torch.exp2(torch.rand_like(share) * 2 - 1) * share.sqrt() * height  # up to twice, or half, as tall as wide
    wide = share * height * width / tall.clamp(min=1)
    sides = []
    for length, size in ((tall, height), (wide, width)):
        start = torch.rand_like(share) * (size - length).clamp(min=0)
        at = torch.arange(size, device=x.device)
        sides.append((at >= start.round()[:, None]) & (at < (start + length).round()[:, None]))
    return (sides[0][:, None, :, None] & sides[1][:, None, None, :]).to(x.dtype)


def _scratches(x: Tensor, share: Tensor) -> Tensor:
    """Return thin lines, straight or bent, until they cover the share."""
    y, along, angle = _places(x, LINES)
    size = max(x.shape[2:])
    bend = _uniform(x, LINES, 0, 0.05) * size * torch.sin(along * _uniform(x, LINES, 1, 4) / size + angle)
    half, length = _uniform(x, LINES, 0.4, 1.6), _uniform(x, LINES, 0.2, 1.0) * size
    return _until(((half - (y + bend).abs() + 0.5) * (along.abs() < length)).clamp(0, 1), share)


def _dust(x: Tensor, share: Tensor) -> Tensor:
    """Return specks, round or long, until they cover the share."""
    across, along, _ = _places(x, SPECKS)
    radius, stretch = _uniform(x, SPECKS, 0.6, 3.0), _uniform(x, SPECKS, 1, 2)
    return _until((radius - torch.hypot(across * stretch, along / stretch) + 0.5).clamp(0, 1), share)


def _uniform(x: Tensor, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(x), n, 1, 1, dtype=x.dtype, device=x.device)


def _places(x: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return how far each pixel is across and along of random places ``(B, n, H, W)``, and their angles ``(B, n, 1, 1)``."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1) - _uniform(x, n, 0, height)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1) - _uniform(x, n, 0, width)
    angle = _uniform(x, n, 0, math.pi)
    return rows * angle.cos() - columns * angle.sin(), rows * angle.sin() + columns * angle.cos(), angle


def _until(marks: Tensor, share: Tensor) -> Tensor:
    """Keep as many marks of each image as come closest to the share of pixels that they shall touch."""
    touched = (marks > 0).cummax(dim=1).values.flatten(2).to(marks.dtype).mean(dim=2)  # (B, marks)
    after = torch.cat([torch.zeros_like(touched[:, :1]), touched], dim=1)
    n = (after - share[:, None]).abs().argmin(dim=1)
    kept = torch.arange(marks.shape[1], device=marks.device) < n[:, None]
    return marks * kept[:, :, None, None]


MARKS = {
    "pixels": Kind(_pixels, (0.0, 0.8), 0, 0.99, "share of pixels"),
    "blocks": Kind(_blocks, (0.0, 0.25), 0, 0.9, "share of pixels"),
    "scratches": Kind(_scratches, (0.0, 0.2), 0, 0.5, "share of pixels"),
    "dust": Kind(_dust, (0.0, 0.1), 0, 0.5, "share of pixels"),
}
"""What covers pixels, by name."""


def _marked(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    def put(x: Tensor, level: Tensor) -> Tensor:
        covered, colour = _flattened(MARKS[name].apply(x, level), x.shape[1])
        return torch.lerp(x, colour, covered)

    return put


DEGRADATIONS = {
    "gaussian": Kind(_gaussian, (0.0, 0.2), 0, math.inf, "standard deviation", in_pixels=True),
    "poisson": Kind(_poisson, (0.0, 0.2), 0, math.inf, "standard deviation of white", in_pixels=True),
    "salt_and_pepper": Kind(_salt_and_pepper, (0.0, 0.5), 0, 0.99, "share of pixels"),
    "jpeg": Kind(_jpeg, (10.0, 95.0), 1, 100, "quality"),
    "blur": Kind(_blur, (0.0, 2.0), 0, 10, "standard deviation in pixels"),
    "scratches": Kind(_marked("scratches"), (0.0, 0.1), 0, 0.5, "share of pixels"),
    "dust": Kind(_marked("dust"), (0.0, 0.05), 0, 0.5, "share of pixels"),
}
"""What images suffer, by name."""


def resolve_levels(
    kinds: Sequence[str], given: Any, table: dict[str, Kind], unit: float = 1.0
) -> dict[str, tuple[float, float]]:
    """Return the range of levels of each kind, those in units of pixels divided by ``unit``.

    Parameters
    ----------
    kinds : sequence of str
        Names in ``table``.
    given : "auto", float, pair of float, or dict of these by name
        Numbers that are not by name are for a single kind.
    table : dict
        ``DEGRADATIONS`` or ``MARKS``.
    unit : float
        The range of pixels.

    Raises
    ------
    ValueError
        For a level that its kind cannot have.
    """
    if not kinds:
        raise ValueError(f"{given!r} is for no kind; name at least one of {', '.join(table)}")
    if not isinstance(given, dict):
        if len(kinds) > 1 and given != "auto":
            example = ", ".join(f"{name!r}: {table[name].auto}" for name in kinds)
            raise ValueError(f"{given!r} is for one kind of {len(kinds)}; name them: {{{example}}}")
        given = dict.fromkeys(kinds, given)
    stray = [name for name in given if name not in kinds]
    if stray:
        raise ValueError(f"{stray[0]!r} is given a level and is not among {', '.join(kinds)}")
    found = {}
    for name in kinds:
        kind, level = table[name], given.get(name, "auto")
        if level == "auto":
            found[name] = kind.auto
            continue
        ends = tuple(level) if isinstance(level, tuple | list) else (level, level)
        numbers = len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
        if not numbers or not kind.low <= ends[0] <= ends[1] <= kind.high:
            span = f"from {kind.low:g} to {kind.high:g}" if math.isfinite(kind.high) else f"of at least {kind.low:g}"
            raise ValueError(f"{level!r} for {name}: expected a {kind.unit} {span}, or a range (low, high) of them")
        scale = unit if kind.in_pixels else 1.0
        found[name] = (ends[0] / scale, ends[1] / scale)
    return found
