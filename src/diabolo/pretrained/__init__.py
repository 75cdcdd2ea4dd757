"""Models that come with Diabolo, learned from openly licensed photographs; ``benchmarks/pretrain.py`` made them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diabolo.persistence import load

if TYPE_CHECKING:
    from diabolo.tasks.compression import Compressor

__all__ = ["photo_compressor"]


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
