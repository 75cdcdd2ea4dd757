"""How much noise an image has, from the image alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST", "noise_level"]

Array = NDArray[Any]
WAVELET = np.array([-0.12940952255126037, -0.2241438680420134, 0.8365163037378079, -0.48296291314453416])
BLOCK, QUIET = 16, 0.1  # pixels of a side, and the share of blocks that are less noisy than the one that counts
NORMAL = 0.6744897501960817  # the median of the absolute value of a standard normal number
LUCK = 0.886  # what the one block of noise alone that counts has, on average, of the standard deviation
LEAST = BLOCK + len(WAVELET) - 1  # pixels of a side of an image


def noise_level(planes: Array) -> float:
    """Estimate the standard deviation of noise that does not depend on the image, in units of the pixels.

    The finest diagonal details of a wavelet transform are noise, and edges, which hardly move the median of their sizes (Donoho
    and Johnstone, 1994, doi:10.1093/biomet/81.3.425). Textures fill whole parts of an image; so the medians are those of blocks,
    of which a quiet one counts.

    Parameters
    ----------
    planes : ndarray of shape (channels, height, width)
        An image with sides of at least 19 pixels.

    Returns
    -------
    float
        The root mean square over the channels.
    """
    return float(np.sqrt(np.mean([np.quantile(_medians(plane), QUIET) ** 2 for plane in planes])) / (NORMAL * LUCK))


def _medians(plane: Array) -> Array:
    """Return the median size of details of each block; rows of blocks one by one, which takes no memory for large images."""
    taps = len(WAVELET)
    n = (plane.shape[1] - taps + 1) // BLOCK * BLOCK
    found = []
    for top in range(0, plane.shape[0] - taps + 2 - BLOCK, BLOCK):
        rows = plane[top : top + BLOCK + taps - 1].astype(np.float64)
        across = sum(w * rows[:, k : k + n] for k, w in enumerate(WAVELET))
        both = np.abs(sum(w * across[k : k + BLOCK] for k, w in enumerate(WAVELET)))  # (BLOCK, n)
        found.append(np.median(both.reshape(BLOCK, -1, BLOCK).transpose(1, 0, 2).reshape(-1, BLOCK * BLOCK), axis=1))
    return np.concatenate(found)
