"""Diabolo: every autoencoder job behind one scikit-learn-shaped API.

A *diabolo network* is an old name for the autoencoder: wide, narrow, wide. Importing this package loads neither torch nor
scikit-learn; both come with the first use of a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diabolo.module import AutoencoderModule
    from diabolo.persistence import load
    from diabolo.tasks.anomaly import AnomalyDetector
    from diabolo.training.loop import Callback
    from diabolo.zoo.vanilla import Autoencoder, CustomAutoencoder, DenoisingAutoencoder, SparseAutoencoder
    from diabolo.zoo.variational import VAE, BetaVAE

__all__ = [
    "VAE",
    "AnomalyDetector",
    "Autoencoder",
    "AutoencoderModule",
    "BetaVAE",
    "Callback",
    "CustomAutoencoder",
    "DenoisingAutoencoder",
    "SparseAutoencoder",
    "__version__",
    "load",
]

_HOME = {
    "AnomalyDetector": "diabolo.tasks.anomaly",
    "Autoencoder": "diabolo.zoo.vanilla",
    "AutoencoderModule": "diabolo.module",
    "BetaVAE": "diabolo.zoo.variational",
    "Callback": "diabolo.training.loop",
    "CustomAutoencoder": "diabolo.zoo.vanilla",
    "DenoisingAutoencoder": "diabolo.zoo.vanilla",
    "SparseAutoencoder": "diabolo.zoo.vanilla",
    "VAE": "diabolo.zoo.variational",
    "load": "diabolo.persistence",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("diabolo")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'diabolo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
