"""Models that come with Diabolo, learned from openly licensed photographs; ``benchmarks/pretrain.py`` made them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diabolo.persistence import load

if TYPE_CHECKING:
    from diabolo.tasks.compression import Compressor
    from diabolo.tasks.denoising import Denoiser

__all__ = ["photo_compressor", "photo_denoiser"]


def photo_compressor() -> Compressor:
    """Return a compressor of photographs, in colour or grey.

    Returns
    -------
    Compressor
        Fitted.

    Examples
    --------
    >>> from diabolo.pretrained import photo_compressor
    >>> photo_compressor().channels_
    3
    """
    found: Compressor = load(Path(__file__).parent / "photo_compressor")
    return found


def photo_denoiser(channels: Literal[1, 3] = 3) -> Denoiser:
    """Return a denoiser of photographs of 8 bits, with normal noise of a standard deviation up to 50.

    Parameters
    ----------
    channels : int
        3 for colours, 1 for grey.

    Returns
    -------
    Denoiser
        Fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo.pretrained import photo_denoiser
    >>> noisy = np.random.default_rng(0).normal(100, 20, (1, 64, 64)).clip(0, 255).astype(np.uint8)
    >>> cleaned = photo_denoiser(channels=1).transform(noisy)
    >>> bool(cleaned.std() < 5)
    True
    """
    if channels not in (1, 3):
        raise ValueError(f"channels={channels!r}: expected 3, for colours, or 1, for grey")
    found: Denoiser = load(Path(__file__).parent / ("photo_denoiser" if channels == 3 else "photo_denoiser_grey"))
    return found
