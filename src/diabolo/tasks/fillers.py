"""The models that fill missing cells when none is named."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from diabolo.estimator import BaseAutoencoder
from diabolo.zoo.masked import MaskedAutoencoder
from diabolo.zoo.variational import IWAE

__all__ = ["usual_models"]


def usual_models(kind: str, n: int, width: int, *, mixed: bool = False, **parameters: Any) -> list[BaseAutoencoder]:
    """Return the models that fill rows of a kind when none is named; ``n`` and ``width`` are those of a table.

    Beside a masked autoencoder an IWAE pays for tables of numbers: with labels it takes ten times as long and fills no better.
    """
    masked = MaskedAutoencoder(**{"likelihood": "learned_gaussian", **parameters})
    if kind != "vector" or mixed:
        return [masked]
    known = {f.name for f in fields(IWAE)}
    code = min(32, max(8, round(2 * math.sqrt(width))))
    found: dict[str, Any] = {"latent_dim": code, "n_importance": 10, "learning_rate": 4e-3}
    found |= {"batch_size": 64} if n < 6400 else {}
    return [masked, IWAE(**found | {k: v for k, v in parameters.items() if k in known})]
