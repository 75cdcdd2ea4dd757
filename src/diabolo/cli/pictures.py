"""Image files -> arrays, and back in the mode that they had; many of them, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.cli.catalog import UsageError
from diabolo.cli.data import say

__all__ = [
    "PictureFile",
    "by_channels",
    "each",
    "list_pictures",
    "read_alike",
    "read_picture",
    "work_through",
    "write_picture",
]

LEARNED = 400  # files that are learned from at most
LARGEST = 500_000_000  # pixels that a file may claim to have

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
        For files that are no images, are animated, huge, or in a mode other than grey and colour.
    """
    image_module = _pillow()
    try:
        with _any_size(image_module), image_module.open(path) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{path} claims to have {image.width} x {image.height} pixels, more than {LARGEST:,}")
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"{path} has {image.n_frames} frames; expected a single image")
            if image.mode.startswith("I;16"):
                return PictureFile(path, np.asarray(image).astype(np.uint16), None)
            if any(";16" in str(part) for part in image.tile):
                raise ValueError(
                    f"{path} has colours of 16 bits, of which only 8 would be read; expected colour of 8 bits, or grey of 16. "
                    "In Python, arrays of uint16 are read as they are"
                )
            if image.mode not in MODES:
                raise ValueError(f"{path} is of mode {image.mode}; expected grey or colour of 8 bits, or grey of 16")
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
            return PictureFile(path, np.asarray(image.convert(MODES[image.mode])), alpha)
    except (OSError, SyntaxError, image_module.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


@contextmanager
def _any_size(module: Any) -> Iterator[None]:
    """Let Pillow open images of any size; ours is looked at before any pixel is read."""
    old, module.MAX_IMAGE_PIXELS = module.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        module.MAX_IMAGE_PIXELS = old


def read_alike(files: list[Path]) -> tuple[list[NDArray[Any]], list[Path]]:
    """Read images to learn from, of many files some, in one mode: in colour where any is, in 8 bits unless all have 16.

    Returns
    -------
    list of ndarray, list of Path
        The images that could be read, and their files.
    """
    chosen = [files[i * len(files) // LEARNED] for i in range(LEARNED)] if len(files) > LEARNED else files
    read, kept, problem = [], [], None
    for path in chosen:
        try:
            read.append(read_picture(path).pixels)
            kept.append(path)
        except ValueError as error:
            problem = error
    if not read:
        raise ValueError(f"none of {len(files)} images could be read: {problem}" if len(files) > 1 else str(problem))
    colour = any(p.ndim == 3 for p in read)
    deep = all(p.dtype == np.uint16 for p in read)
    eight = [p if deep or p.dtype == np.uint8 else (p >> 8).astype(np.uint8) for p in read]
    return [np.repeat(p[..., None], 3, axis=2) if colour and p.ndim == 2 else p for p in eight], kept


def by_channels(
    channels: int, pixels: NDArray[Any], run: Callable[[list[NDArray[Any]]], list[NDArray[Any]]]
) -> NDArray[Any]:
    """Run a model on an image: plane by plane where it knows one channel, as grey colour where it knows three."""
    if channels == 1 and pixels.ndim == 3:
        return np.stack(run([pixels[..., c] for c in range(pixels.shape[2])]), axis=2)
    if channels == 3 and pixels.ndim == 2:
        grey = run([np.repeat(pixels[..., None], 3, axis=2)])[0].mean(axis=2)
        return np.asarray((grey if pixels.dtype.kind == "f" else np.rint(grey)).astype(pixels.dtype))
    return np.asarray(run([pixels])[0])


def work_through(
    files: list[Path], output: Path, work: Callable[[PictureFile], NDArray[Any]], *, many: bool, quiet: bool
) -> tuple[int, int]:
    """Read, change and write images one by one; of many those that fail are named, and the others go on.

    Returns
    -------
    int, int
        How many were written, and how many were not.
    """
    if many:
        output.mkdir(parents=True, exist_ok=True)

    def one(path: Path, target: Path) -> None:
        file = read_picture(path)
        write_picture(target, work(file), file.alpha)

    targets = [output / path.name if many else output for path in files]
    failed = each(files, targets, one, quiet=quiet)
    if failed == len(files):
        raise ValueError(f"none of {failed} images could be read and written")
    return len(files) - failed, failed


def each(files: list[Path], targets: list[Path], work: Callable[[Path, Path], None], *, quiet: bool) -> int:
    """Work on files one by one; of several those that fail are named, and the others go on. Return how many failed."""
    from rich.console import Console
    from rich.progress import track

    failed = 0
    several = len(files) > 1
    pairs = list(zip(files, targets, strict=True))
    for path, target in track(
        pairs, "files", console=Console(stderr=True), disable=quiet or not several, transient=True
    ):
        try:
            work(path, target)
        except ValueError as error:
            if not several:
                raise
            say(f"error: {error}")
            failed += 1
    return failed


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
