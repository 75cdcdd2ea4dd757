"""Augmentation: small random changes of training images after which they are still images of the same kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from diabolo.records import Batch

__all__ = ["AUGMENTATIONS", "Augmentation", "flip", "rotate", "shift", "zoom"]

SHIFT = 1 / 8  # of height and width at most
ANGLE = 15.0  # degrees at most, either way
CROP = 0.8  # smallest side of a crop, as a share of the image
NOISE = 0.05  # standard deviation of the noise, as a share of the range of a batch's pixels


class Augmentation:
    """Changes each image of a batch by a draw of its own, the missing cells along with it.

    Parameters
    ----------
    names : tuple of str
        Keys of ``AUGMENTATIONS``, applied in this order.
    """

    def __init__(self, names: tuple[str, ...]):
        self.changes = [AUGMENTATIONS[name] for name in names]

    def __call__(self, batch: Batch) -> Batch:
        """Return changed copies of images ``(B, channels, height, width)`` and of their mask."""
        x, mask = batch.x, batch.mask
        for change in self.changes:
            x, mask = change(x, mask)
        return batch._replace(x=x, mask=mask)


Images = tuple[Tensor, Tensor | None]


# what is done to images, given how much -----------------------------------------------------------------------------------------


def flip(x: Tensor, mask: Tensor | None, chosen: Tensor) -> Images:
    """Mirror the images left to right where ``chosen`` ``(B,)`` is true."""
    chosen = chosen.view(-1, 1, 1, 1)
    return (
        torch.where(chosen, x.flip(-1), x),
        None if mask is None else torch.where(chosen, mask.flip(-1), mask),
    )


def shift(x: Tensor, mask: Tensor | None, down: Tensor, right: Tensor) -> Images:
    """Move the images by whole pixels ``(B,)``; the border is repeated where nothing comes in."""
    height, width = x.shape[2:]
    # where each row and each column come from: (B, height), (B, width)
    row = (torch.arange(height, device=x.device) - down[:, None]).clamp(0, height - 1)
    column = (torch.arange(width, device=x.device) - right[:, None]).clamp(0, width - 1)
    image = torch.arange(len(x), device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    source = (image, channel, row[:, None, :, None], column[:, None, None, :])
    return x[source], None if mask is None else mask[source]


def rotate(x: Tensor, mask: Tensor | None, degrees: Tensor) -> Images:
    """Turn the images anticlockwise by ``degrees`` ``(B,)``; the border is repeated where nothing comes in."""
    height, width = x.shape[2:]
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    nothing = torch.zeros_like(cos)
    # Coordinates run from -1 to 1 along either side, whatever its length.
    to_x = torch.stack([cos, -sin * height / width, nothing], dim=1)
    to_y = torch.stack([sin * width / height, cos, nothing], dim=1)
    return _resample(x, mask, torch.stack([to_x, to_y], dim=1))


def zoom(x: Tensor, mask: Tensor | None, side: Tensor, top: Tensor, left: Tensor) -> Images:
    """Blow up a crop to the size of the image.

    Its sides are the share ``side`` ``(B,)`` of the image's; ``top`` and ``left`` are the shares of the room that is left
    which lie above and to its left, 0 to 1.
    """
    room, nothing = 1 - side, torch.zeros_like(side)
    to_x = torch.stack([side, nothing, room * (2 * left - 1)], dim=1)
    to_y = torch.stack([nothing, side, room * (2 * top - 1)], dim=1)
    return _resample(x, mask, torch.stack([to_x, to_y], dim=1))


def _resample(x: Tensor, mask: Tensor | None, theta: Tensor) -> Images:
    """Read each image at the places that an affine map ``(B, 2, 3)`` of its own pixels' places gives, between four pixels."""
    height, width = x.shape[2:]
    places = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)  # (B, height, width, 2), of (x, y)
    # Held to the centres of the outermost pixels, which repeats the border on every device.
    limit = torch.tensor([1 - 1 / width, 1 - 1 / height], dtype=x.dtype, device=x.device)
    places = torch.minimum(torch.maximum(places, -limit), limit)
    low, high = torch.aminmax(x)  # rounding must not lead out of the range that a likelihood knows
    if mask is None:
        return F.grid_sample(x, places, align_corners=False).clamp(low, high), None
    # A pixel is the average of those observed near it, and is observed where they have at least half of the weight.
    weight = F.grid_sample(mask.to(x.dtype), places, align_corners=False)
    seen = weight >= 0.5
    value = F.grid_sample(x * mask, places, align_corners=False) / weight.clamp_min(0.5)
    return value.clamp(low, high) * seen, seen.to(mask.dtype)


# how much, drawn for each image -------------------------------------------------------------------------------------------------


def _uniform(x: Tensor) -> Tensor:
    return torch.rand(len(x), device=x.device)


def _steps(x: Tensor, length: int) -> Tensor:
    """Draw whole pixels, up to an eighth of a side and at least one, either way; none where there is a single pixel."""
    most = min(length - 1, max(1, round(SHIFT * length)))
    return torch.randint(-most, most + 1, (len(x),), device=x.device)


def _flip(x: Tensor, mask: Tensor | None) -> Images:
    return flip(x, mask, _uniform(x) < 0.5)


def _shift(x: Tensor, mask: Tensor | None) -> Images:
    return shift(x, mask, _steps(x, x.shape[2]), _steps(x, x.shape[3]))


def _rotate(x: Tensor, mask: Tensor | None) -> Images:
    return rotate(x, mask, ANGLE * (2 * _uniform(x) - 1))


def _crop(x: Tensor, mask: Tensor | None) -> Images:
    return zoom(x, mask, CROP + (1 - CROP) * _uniform(x), _uniform(x), _uniform(x))


def _noise(x: Tensor, mask: Tensor | None) -> Images:
    """Add normal noise, and stay within the range of the batch: a likelihood on [0, 1] must not meet other values."""
    low, high = torch.aminmax(x)
    noisy = (x + NOISE * (high - low) * torch.randn_like(x)).clamp(low, high)
    return noisy if mask is None else noisy * mask, mask


def _binarize(x: Tensor, mask: Tensor | None) -> Images:
    """Draw zeros and ones whose chances of a one are the values, anew at each visit (Salakhutdinov and Murray, ICML 2008)."""
    return torch.bernoulli(x), mask


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor | None], Images]] = {
    "flip": _flip,
    "shift": _shift,
    "rotate": _rotate,
    "crop": _crop,
    "noise": _noise,
    "binarize": _binarize,
}
