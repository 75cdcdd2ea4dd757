"""THE table: a row for each registered estimator. Every property test runs over every row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from torch import nn

from diabolo import (
    CDAE,
    DIPVAE,
    EASE,
    IWAE,
    VAE,
    VQVAE,
    WAE,
    AdversarialAutoencoder,
    AnomalyDetector,
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderModule,
    AutoencoderRegressor,
    AutoRec,
    BatchTopKAutoencoder,
    BetaTCVAE,
    BetaVAE,
    CapacityVAE,
    CodePrior,
    CompressiveAutoencoder,
    ConditionalVAE,
    ContractiveAutoencoder,
    CustomAutoencoder,
    Denoiser,
    DenoisingAutoencoder,
    FactorVAE,
    FlowPosteriorVAE,
    FlowPriorVAE,
    FSQAutoencoder,
    GatedAutoencoder,
    GraphFilter,
    HypersphericalVAE,
    Imputer,
    InfoVAE,
    ItemPopularity,
    JumpReLUAutoencoder,
    KSparseAutoencoder,
    LadderVAE,
    LFQAutoencoder,
    MaskedAutoencoder,
    MatryoshkaAutoencoder,
    MixturePriorVAE,
    MultDAE,
    MultVAE,
    OrderedAutoencoder,
    Recommender,
    RecVAE,
    RegularizedAutoencoder,
    ResidualVQVAE,
    Restorer,
    RobustAutoencoder,
    SeriesAnomalyDetector,
    SparseAutoencoder,
    TableSynthesizer,
    TiedAutoencoder,
    TopKAutoencoder,
    TwoStageVAE,
    VampPriorVAE,
)
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian

QUICK: dict[str, Any] = {"hidden": (16,), "max_epochs": 3, "random_state": 0, "device": "cpu"}
LINEAR: dict[str, Any] = QUICK | {"hidden": ()}


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


IN_ORDER = "the score of a row depends on the rows beside it in time"
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
        (
            *(DenoisingAutoencoder(2, noise=n, **QUICK) for n in ("gaussian", "masking", "salt_and_pepper", "swap")),
            DenoisingAutoencoder(2, noise_schedule="decreasing", end_level=0.1, **QUICK),
            DenoisingAutoencoder(2, noise="masking", noise_schedule="mixed", **QUICK),
        ),
    ),
    Row(
        "MaskedAutoencoder",
        (
            MaskedAutoencoder(3, **QUICK),
            MaskedAutoencoder(3, mask_fraction=0.3, network="mlp", likelihood="learned_gaussian", **QUICK),
            MaskedAutoencoder(seen_weight=0.0, network="residual_mlp", norm="batch", likelihood="bernoulli", **QUICK),
        ),
    ),
    Row(
        "SparseAutoencoder",
        (SparseAutoencoder(6, **QUICK), SparseAutoencoder(6, sparsity="kl", rate=0.1, **QUICK)),
    ),
    Row(
        "KSparseAutoencoder",
        (KSparseAutoencoder(8, k=2, **LINEAR), KSparseAutoencoder(k=2, alpha=2.0, likelihood="laplace", **QUICK)),
    ),
    Row(
        "TopKAutoencoder",
        (
            TopKAutoencoder(8, k=2, **LINEAR),
            TopKAutoencoder(8, k=3, network="mlp", likelihood="bernoulli", dead_weight=0.0, refinements=2, **LINEAR),
            TopKAutoencoder(norm="batch", dead_after=20, n_dead=3, likelihood="learned_gaussian", **QUICK),
        ),
    ),
    Row(
        "BatchTopKAutoencoder",
        (BatchTopKAutoencoder(8, k=2, **LINEAR), BatchTopKAutoencoder(k=2, refinements=1, **QUICK)),
    ),
    Row(
        "MatryoshkaAutoencoder",
        (
            MatryoshkaAutoencoder(8, k=2, **LINEAR),
            MatryoshkaAutoencoder(8, k=2, prefixes=(3,), prefix_weight=0.5, likelihood="bernoulli", **QUICK),
        ),
    ),
    Row(
        "JumpReLUAutoencoder",
        (
            JumpReLUAutoencoder(8, **LINEAR),
            JumpReLUAutoencoder(8, bandwidth=0.2, sparsity_warmup=0.5, likelihood="laplace", **QUICK),
        ),
    ),
    Row(
        "GatedAutoencoder",
        (GatedAutoencoder(8, **LINEAR), GatedAutoencoder(8, sparsity_weight=0.1, scale="quantile", **QUICK)),
    ),
    Row(
        "ContractiveAutoencoder",
        (
            ContractiveAutoencoder(2, **QUICK),
            ContractiveAutoencoder(2, jacobian="reconstruction", network="mlp", dropout=0.1, norm="batch", **QUICK),
            ContractiveAutoencoder(3, probes=2, norm="layer", likelihood="bernoulli", **QUICK),
            ContractiveAutoencoder(3, network="mlp", code_activation="sigmoid", **QUICK),
        ),
    ),
    Row(
        "RegularizedAutoencoder",
        (
            RegularizedAutoencoder(2, **QUICK),
            RegularizedAutoencoder(2, decoder_penalty="gp", norm="batch", **QUICK),
            RegularizedAutoencoder(2, decoder_penalty="sn", **QUICK),
            RegularizedAutoencoder(2, decoder_penalty="sn", network="residual_mlp", norm="layer", **QUICK),
        ),
    ),
    Row("RobustAutoencoder", (RobustAutoencoder(2, **QUICK), RobustAutoencoder(2, likelihood="laplace", **QUICK))),
    Row("OrderedAutoencoder", (OrderedAutoencoder(3, **QUICK), OrderedAutoencoder(3, truncation="uniform", **QUICK))),
    Row(
        "TiedAutoencoder",
        (
            TiedAutoencoder(2, **QUICK),
            TiedAutoencoder(2, **QUICK | {"hidden": ()}),
            TiedAutoencoder(2, norm="batch", dropout=0.1, **QUICK | {"hidden": (12, 6)}),
            TiedAutoencoder(2, likelihood="bernoulli", norm="layer", **QUICK),
        ),
    ),
    Row("CustomAutoencoder", (CustomAutoencoder(build=build, max_epochs=3, random_state=0),)),
    Row("VAE", (VAE(2, **QUICK), VAE(2, free_bits=0.1, kl_warmup=0.5, likelihood="gaussian", **QUICK))),
    Row("BetaVAE", (BetaVAE(2, **QUICK),)),
    Row("IWAE", (IWAE(2, **QUICK), IWAE(2, n_importance=3, gradient="standard", kl_warmup=0.0, **QUICK))),
    Row("MixturePriorVAE", (MixturePriorVAE(2, n_components=3, **QUICK),)),
    Row("VampPriorVAE", (VampPriorVAE(2, n_pseudo_inputs=7, **QUICK), VampPriorVAE(2, norm="batch", **QUICK))),
    Row("HypersphericalVAE", (HypersphericalVAE(3, **QUICK), HypersphericalVAE(2, **QUICK))),
    Row(
        "ConditionalVAE",
        (
            ConditionalVAE(2, **QUICK),
            ConditionalVAE(2, condition_kind="numbers", condition_dropout=0.5, network="mlp", norm="batch", **QUICK),
        ),
    ),
    Row("CapacityVAE", (CapacityVAE(2, capacity=2.0, **QUICK), CapacityVAE(2, gamma=10.0, kl_warmup=0.0, **QUICK))),
    Row(
        "FlowPriorVAE",
        (
            FlowPriorVAE(2, flow_hidden=(8,), **QUICK),
            FlowPriorVAE(1, flow="affine", n_transforms=1, **QUICK),
            FlowPriorVAE(3, flow="affine", flow_hidden=(8,), precision="bfloat16", **QUICK),
        ),
    ),
    Row(
        "FlowPosteriorVAE",
        (
            FlowPosteriorVAE(2, flow_hidden=(8,), flow_context=4, **QUICK),
            FlowPosteriorVAE(2, flow="spline", n_transforms=1, flow_hidden=(8,), network="mlp", **QUICK),
        ),
    ),
    Row(
        "LadderVAE",
        (
            LadderVAE(2, ladder_hidden=8, **QUICK),
            LadderVAE(4, upper_dims=(2, 1), ladder_hidden=8, norm="batch", **QUICK),
        ),
    ),
    Row("TwoStageVAE", (TwoStageVAE(2, second_hidden=(8,), **QUICK), TwoStageVAE(2, second_hidden=(), **QUICK))),
    Row("WAE", (WAE(2, **QUICK), WAE(2, kernel="rbf", **QUICK))),
    Row("InfoVAE", (InfoVAE(2, **QUICK), InfoVAE(2, alpha=1.0, kernel="imq", **QUICK))),
    Row("BetaTCVAE", (BetaTCVAE(2, mi_weight=0.5, dimension_weight=2.0, **QUICK),)),
    Row("FactorVAE", (FactorVAE(2, critic_hidden=(8,), **QUICK),)),
    Row("DIPVAE", (DIPVAE(2, **QUICK), DIPVAE(2, variant="i", diagonal_weight=1.0, **QUICK))),
    Row("AdversarialAutoencoder", (AdversarialAutoencoder(2, critic_hidden=(8,), **QUICK),)),
    Row(
        "VQVAE",
        (
            VQVAE(4, n_codes=8, **QUICK),
            VQVAE(3, code_dim=1, n_codes=300, revive_below=0.0, network="mlp", likelihood="laplace", **QUICK),
            VQVAE(n_codes=8, commitment=1.0, decay=0.9, precision="bfloat16", likelihood="learned_gaussian", **QUICK),
        ),
    ),
    Row("ResidualVQVAE", (ResidualVQVAE(2, n_codes=8, n_codebooks=3, **QUICK), ResidualVQVAE(weight_l1=1e-3, **QUICK))),
    Row("FSQAutoencoder", (FSQAutoencoder(2, levels=(8, 5), **QUICK), FSQAutoencoder(precision="bfloat16", **QUICK))),
    Row("LFQAutoencoder", (LFQAutoencoder(8, bits=4, **QUICK), LFQAutoencoder(entropy_weight=0.0, **QUICK))),
    Row(
        "CompressiveAutoencoder",
        (CompressiveAutoencoder(2, **QUICK), CompressiveAutoencoder(beta=0.1, network="mlp", **QUICK)),
    ),
    Row(
        "AnomalyDetector",
        (AnomalyDetector(Autoencoder(1, **QUICK), contamination=0.1, random_state=0),),
        {"check_outliers_train": HELD_OUT, "check_outliers_fit_predict": HELD_OUT},
    ),
    Row(
        "SeriesAnomalyDetector",
        (
            SeriesAnomalyDetector(Autoencoder(1, **QUICK), window=4, random_state=0),
            SeriesAnomalyDetector(Autoencoder(1, **QUICK), window=4, causal=True, random_state=0),
        ),
        {
            "check_outliers_train": HELD_OUT,
            "check_outliers_fit_predict": HELD_OUT,
            "check_fit1d": "an array of one dimension is a series of one channel",
            "check_methods_sample_order_invariance": IN_ORDER,
            "check_methods_subset_invariance": IN_ORDER,
        },
    ),
    Row("Restorer", (Restorer(Imputer(Autoencoder(1, **QUICK)), random_state=0),)),
    Row(
        "AutoencoderClassifier",
        (
            AutoencoderClassifier(Autoencoder(2, **QUICK), max_steps=150, n_models=1, random_state=0),
            AutoencoderClassifier(Autoencoder(2, **QUICK), method="joint", max_steps=50, n_models=2, random_state=0),
            AutoencoderClassifier(VAE(2, **QUICK), method="frozen", random_state=0),
            AutoencoderClassifier(VAE(2, **QUICK), method="m2", max_steps=100, n_models=1, random_state=0),
        ),
    ),
    Row(
        "AutoencoderRegressor",
        (
            AutoencoderRegressor(Autoencoder(2, **QUICK), max_steps=150, n_models=1, random_state=0),
            AutoencoderRegressor(VAE(2, **QUICK), method="joint", max_steps=50, n_models=2, random_state=0),
        ),
    ),
    Row("CodePrior", (CodePrior("mixture", n_components=2, random_state=0),)),
    Row("Denoiser", (Denoiser(Autoencoder(1, **QUICK), random_state=0),)),
    Row("TableSynthesizer", (TableSynthesizer(5, width=16, max_epochs=3, random_state=0, device="cpu"),)),
    Row(
        "Imputer",
        (
            Imputer(MaskedAutoencoder(2, **QUICK), n_models=2, random_state=0),
            Imputer(IWAE(2, **QUICK), n_models=1, n_samples=5, strategy="median", random_state=0),
            Imputer((Autoencoder(1, **QUICK), MaskedAutoencoder(2, **QUICK)), random_state=0),
        ),
    ),
    Row("MultDAE", (MultDAE(2, **QUICK), MultDAE(3, level=0.0, code_activation="identity", **LINEAR))),
    Row(
        "MultVAE",
        (
            MultVAE(2, network="shortcut_mlp", likelihood="learned_gaussian", **QUICK),
            MultVAE(2, norm="layer", beta=0.05, learning_rate=0.05, **QUICK),
        ),
    ),
    Row("AutoRec", (AutoRec(2, **QUICK), AutoRec(3, network="mlp", **LINEAR))),
    Row(
        "RecVAE",
        (RecVAE(2, **QUICK), RecVAE(2, network="residual_mlp", likelihood="learned_gaussian", norm="layer", **QUICK)),
    ),
    Row("CDAE", (CDAE(2, **QUICK), CDAE(3, node_dropout=0.0, level=0.0, code_activation="identity", **LINEAR))),
    Row("EASE", (EASE(random_state=0), EASE(l2=1.0, user_power=0.5, item_power=0.25))),
    Row("GraphFilter", (GraphFilter(n_neighbors=2),)),
    Row("ItemPopularity", (ItemPopularity(),)),
    Row(
        "Recommender",
        (Recommender(EASE(), random_state=0), Recommender((EASE(), ItemPopularity()), random_state=0)),
        {"check_dataframe_column_names_consistency": "a frame is a list of events, not a matrix of users by items"},
    ),
]

CLOSED = ("EASE", "GraphFilter", "ItemPopularity", "Recommender")  # fitted without training a network
TASKS = {
    "AnomalyDetector",
    "AutoencoderClassifier",
    "AutoencoderRegressor",
    "CodePrior",
    "Denoiser",
    "Imputer",
    "Restorer",
    "SeriesAnomalyDetector",
    "TableSynthesizer",
    *CLOSED,
}
MODELS = [row for row in ROWS if row.name not in TASKS]
"""The rows of autoencoders, without the tasks."""

VARIANTS = [(row.name, variant) for row in MODELS for variant in row.variants]


def identify(value: Any) -> str:
    """Name a test by its row or its parameters."""
    if isinstance(value, Row):
        return value.name
    return repr(value).replace("\n", " ")[:120] if isinstance(value, BaseEstimator) else str(value)


def answer(estimator: Any, X: Any) -> Any:
    """What a fitted estimator has to say of rows: scores, predictions, or the rows with some cells filled."""
    for ask in ("score_samples", "score_items", "predict"):
        if hasattr(estimator, ask):
            return getattr(estimator, ask)(X)
    holes = np.array(X, dtype=float)
    holes.ravel()[::3] = np.nan
    return estimator.transform(holes)
