"""THE table: a row for each registered estimator. Every property test runs over every row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from diabolo import (
    VAE,
    AnomalyDetector,
    Autoencoder,
    AutoencoderModule,
    BetaVAE,
    CustomAutoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
)
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian

QUICK: dict[str, Any] = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}


def build(schema: Any) -> AutoencoderModule:
    """Build the parts of the CustomAutoencoder row."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(schema.size, 8), nn.Tanh(), nn.Linear(8, 2))
    decoder = nn.Linear(2, schema.size)
    return AutoencoderModule(schema, encoder=encoder, decoder=decoder, bottleneck=Identity(2), likelihood=Gaussian())


@dataclass(frozen=True)
class Row:
    """One registered estimator in one or more set-ups."""

    name: str
    variants: tuple[BaseEstimator, ...]
    # scikit-learn checks that cannot hold, each with its reason
    expected_failures: dict[str, str] = field(default_factory=dict)

    @property
    def estimator(self) -> BaseEstimator:
        """The set-up that the long tests use."""
        return self.variants[0]


HELD_OUT = (
    "asks that exactly contamination x n of the rows of fit be flagged, that is, a threshold taken from the scores of the "
    "training rows; ours is taken from rows that the model did not see, because training scores flatter a flexible model"
)

ROWS = [
    Row(
        "Autoencoder",
        (
            Autoencoder(2, **QUICK),
            Autoencoder(2, **QUICK | {"hidden": ()}),
            Autoencoder(2, network="mlp", **QUICK),
            Autoencoder(3, dropout=0.2, norm="batch", network="residual_mlp", activation="relu", **QUICK),
            Autoencoder(2, norm="layer", likelihood="laplace", scale="minmax", weight_l1=1e-3, **QUICK),
            Autoencoder(2, likelihood="sigmoid_gaussian", gradient_clip=1.0, schedule="constant", **QUICK),
            Autoencoder(2, likelihood="learned_gaussian", validation_fraction=0, **QUICK),
            Autoencoder(2, likelihood="bernoulli", precision="bfloat16", **QUICK),
            Autoencoder(2, scale="quantile", weight_decay=0.0, patience=None, **QUICK),
        ),
    ),
    Row(
        "DenoisingAutoencoder",
        tuple(
            DenoisingAutoencoder(2, noise=noise, **QUICK)
            for noise in ("gaussian", "masking", "salt_and_pepper", "swap")
        ),
    ),
    Row(
        "SparseAutoencoder",
        (SparseAutoencoder(6, **QUICK), SparseAutoencoder(6, sparsity="kl", rate=0.1, **QUICK)),
    ),
    Row("CustomAutoencoder", (CustomAutoencoder(build=build, max_epochs=3, random_state=0),)),
    Row("VAE", (VAE(2, **QUICK), VAE(2, free_bits=0.1, kl_warmup=0.5, likelihood="gaussian", **QUICK))),
    Row("BetaVAE", (BetaVAE(2, **QUICK),)),
    Row(
        "AnomalyDetector",
        (AnomalyDetector(Autoencoder(1, **QUICK), contamination=0.1, random_state=0),),
        {"check_outliers_train": HELD_OUT, "check_outliers_fit_predict": HELD_OUT},
    ),
]

MODELS = [row for row in ROWS if row.name != "AnomalyDetector"]
"""The rows of autoencoders, without the tasks."""

VARIANTS = [(row.name, variant) for row in MODELS for variant in row.variants]


def identify(value: Any) -> str:
    """Name a test by its row or its parameters."""
    if isinstance(value, Row):
        return value.name
    return repr(value).replace("\n", " ")[:120] if isinstance(value, BaseEstimator) else str(value)
