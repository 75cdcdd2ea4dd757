"""Image files -> arrays, and back in the mode that they had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.cli.catalog import UsageError

__all__ = ["PictureFile", "list_pictures", "read_picture", "write_picture"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB"}


@dataclass(frozen=True)
class PictureFile:
    """An image of a file.

    Attributes
    ----------
    path : Path
        The file.
    pixels : ndarray
        ``(height, width)`` or ``(height, width, 3)``, of 8 bits, or grey of 16.
    alpha : ndarray or None
        What is transparent ``(height, width)``, kept aside.
    """

    path: Path
    pixels: NDArray[Any]
    alpha: NDArray[Any] | None


def list_pictures(path: Path) -> list[Path]:
    """Return a file, or the image files of a folder, by name."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.is_file():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{path} has no image; expected files ending in {', '.join(SUFFIXES)}")
    return found


def read_picture(path: Path) -> PictureFile:
    """Read an image file.

    Raises
    ------
    ValueError
        For files that are no images, are animated, or in a mode other than grey and colour.
    """
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"{path} has {image.n_frames} frames; expected a single image")
            if image.mode.startswith("I;16"):
                return PictureFile(path, np.asarray(image).astype(np.uint16), None)
            if image.mode not in MODES:
                raise ValueError(f"{path} is of mode {image.mode}; expected grey or colour of 8 bits, or grey of 16")
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
            return PictureFile(path, np.asarray(image.convert(MODES[image.mode])), alpha)
    except (OSError, SyntaxError, image_module.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def write_picture(path: Path, pixels: NDArray[Any], alpha: NDArray[Any] | None) -> None:
    """Write an image file; the suffix says in which format."""
    module = _pillow()
    image = module.fromarray(pixels)
    if alpha is not None:
        image.putalpha(module.fromarray(alpha))
    try:
        image.save(path)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be written: {error}") from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("image files need Pillow: pip install 'diabolo[image]'") from None
    return Image
