"""Diabolo: every autoencoder job behind one scikit-learn-shaped API.

A *diabolo network* is an old name for the autoencoder: wide, narrow, wide. Importing this package loads neither torch nor
scikit-learn; both come with the first use of a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diabolo.batches import BatchScorer, score_files, score_spark
    from diabolo.data.stream import Stream
    from diabolo.latent.priors import CodePrior
    from diabolo.module import AutoencoderModule
    from diabolo.persistence import load
    from diabolo.tasks.anomaly import AnomalyDetector
    from diabolo.tasks.compression import Compressor
    from diabolo.tasks.denoising import Denoiser
    from diabolo.tasks.fidelity import compare_tables
    from diabolo.tasks.imputation import Imputer
    from diabolo.tasks.linear_items import EASE, GraphFilter, ItemPopularity
    from diabolo.tasks.recommendation import Recommender
    from diabolo.tasks.restoring import Restorer
    from diabolo.tasks.sequences import SequenceVAE
    from diabolo.tasks.series import SeriesAnomalyDetector
    from diabolo.tasks.supervised import AutoencoderClassifier, AutoencoderRegressor
    from diabolo.tasks.synthesis import TableSynthesizer
    from diabolo.training.loop import Callback
    from diabolo.tuning.search import Tuned, tune
    from diabolo.zoo.activity import PosteriorCollapseWarning
    from diabolo.zoo.capacity import CapacityVAE
    from diabolo.zoo.cdae import CDAE
    from diabolo.zoo.choices import AutoRec, MultDAE, MultVAE
    from diabolo.zoo.compressive import CompressiveAutoencoder
    from diabolo.zoo.conditional import ConditionalVAE
    from diabolo.zoo.flows import FlowPosteriorVAE, FlowPriorVAE
    from diabolo.zoo.hierarchical import LadderVAE
    from diabolo.zoo.hyperspherical import HypersphericalVAE
    from diabolo.zoo.masked import MaskedAutoencoder
    from diabolo.zoo.matching import DIPVAE, WAE, AdversarialAutoencoder, BetaTCVAE, FactorVAE, InfoVAE
    from diabolo.zoo.quantised import VQVAE, FSQAutoencoder, LFQAutoencoder, ResidualVQVAE
    from diabolo.zoo.recvae import RecVAE
    from diabolo.zoo.regularised import (
        ContractiveAutoencoder,
        OrderedAutoencoder,
        RegularizedAutoencoder,
        RobustAutoencoder,
    )
    from diabolo.zoo.sparse import (
        BatchTopKAutoencoder,
        GatedAutoencoder,
        JumpReLUAutoencoder,
        KSparseAutoencoder,
        MatryoshkaAutoencoder,
        SparseAutoencoder,
        TopKAutoencoder,
    )
    from diabolo.zoo.tied import TiedAutoencoder
    from diabolo.zoo.two_stage import TwoStageVAE
    from diabolo.zoo.vanilla import Autoencoder, CustomAutoencoder, DenoisingAutoencoder
    from diabolo.zoo.variational import IWAE, VAE, BetaVAE, MixturePriorVAE, VampPriorVAE

__all__ = [
    "CDAE",
    "DIPVAE",
    "EASE",
    "IWAE",
    "VAE",
    "VQVAE",
    "WAE",
    "AdversarialAutoencoder",
    "AnomalyDetector",
    "AutoRec",
    "Autoencoder",
    "AutoencoderClassifier",
    "AutoencoderModule",
    "AutoencoderRegressor",
    "BatchScorer",
    "BatchTopKAutoencoder",
    "BetaTCVAE",
    "BetaVAE",
    "Callback",
    "CapacityVAE",
    "CodePrior",
    "CompressiveAutoencoder",
    "Compressor",
    "ConditionalVAE",
    "ContractiveAutoencoder",
    "CustomAutoencoder",
    "Denoiser",
    "DenoisingAutoencoder",
    "FSQAutoencoder",
    "FactorVAE",
    "FlowPosteriorVAE",
    "FlowPriorVAE",
    "GatedAutoencoder",
    "GraphFilter",
    "HypersphericalVAE",
    "Imputer",
    "InfoVAE",
    "ItemPopularity",
    "JumpReLUAutoencoder",
    "KSparseAutoencoder",
    "LFQAutoencoder",
    "LadderVAE",
    "MaskedAutoencoder",
    "MatryoshkaAutoencoder",
    "MixturePriorVAE",
    "MultDAE",
    "MultVAE",
    "OrderedAutoencoder",
    "PosteriorCollapseWarning",
    "RecVAE",
    "Recommender",
    "RegularizedAutoencoder",
    "ResidualVQVAE",
    "Restorer",
    "RobustAutoencoder",
    "SequenceVAE",
    "SeriesAnomalyDetector",
    "SparseAutoencoder",
    "Stream",
    "TableSynthesizer",
    "TiedAutoencoder",
    "TopKAutoencoder",
    "Tuned",
    "TwoStageVAE",
    "VampPriorVAE",
    "__version__",
    "compare_tables",
    "load",
    "score_files",
    "score_spark",
    "tune",
]

_HOME = {
    "CDAE": "diabolo.zoo.cdae",
    "AdversarialAutoencoder": "diabolo.zoo.matching",
    "AnomalyDetector": "diabolo.tasks.anomaly",
    "AutoRec": "diabolo.zoo.choices",
    "Autoencoder": "diabolo.zoo.vanilla",
    "AutoencoderClassifier": "diabolo.tasks.supervised",
    "AutoencoderModule": "diabolo.module",
    "AutoencoderRegressor": "diabolo.tasks.supervised",
    "BatchScorer": "diabolo.batches",
    "BatchTopKAutoencoder": "diabolo.zoo.sparse",
    "BetaTCVAE": "diabolo.zoo.matching",
    "BetaVAE": "diabolo.zoo.variational",
    "Callback": "diabolo.training.loop",
    "CapacityVAE": "diabolo.zoo.capacity",
    "CodePrior": "diabolo.latent.priors",
    "ConditionalVAE": "diabolo.zoo.conditional",
    "ContractiveAutoencoder": "diabolo.zoo.regularised",
    "CustomAutoencoder": "diabolo.zoo.vanilla",
    "DIPVAE": "diabolo.zoo.matching",
    "CompressiveAutoencoder": "diabolo.zoo.compressive",
    "Compressor": "diabolo.tasks.compression",
    "EASE": "diabolo.tasks.linear_items",
    "Denoiser": "diabolo.tasks.denoising",
    "DenoisingAutoencoder": "diabolo.zoo.vanilla",
    "FSQAutoencoder": "diabolo.zoo.quantised",
    "FactorVAE": "diabolo.zoo.matching",
    "FlowPosteriorVAE": "diabolo.zoo.flows",
    "FlowPriorVAE": "diabolo.zoo.flows",
    "GatedAutoencoder": "diabolo.zoo.sparse",
    "GraphFilter": "diabolo.tasks.linear_items",
    "HypersphericalVAE": "diabolo.zoo.hyperspherical",
    "IWAE": "diabolo.zoo.variational",
    "Imputer": "diabolo.tasks.imputation",
    "InfoVAE": "diabolo.zoo.matching",
    "ItemPopularity": "diabolo.tasks.linear_items",
    "JumpReLUAutoencoder": "diabolo.zoo.sparse",
    "KSparseAutoencoder": "diabolo.zoo.sparse",
    "LFQAutoencoder": "diabolo.zoo.quantised",
    "LadderVAE": "diabolo.zoo.hierarchical",
    "MaskedAutoencoder": "diabolo.zoo.masked",
    "MatryoshkaAutoencoder": "diabolo.zoo.sparse",
    "MixturePriorVAE": "diabolo.zoo.variational",
    "MultDAE": "diabolo.zoo.choices",
    "MultVAE": "diabolo.zoo.choices",
    "OrderedAutoencoder": "diabolo.zoo.regularised",
    "PosteriorCollapseWarning": "diabolo.zoo.activity",
    "RecVAE": "diabolo.zoo.recvae",
    "Recommender": "diabolo.tasks.recommendation",
    "SequenceVAE": "diabolo.tasks.sequences",
    "RegularizedAutoencoder": "diabolo.zoo.regularised",
    "ResidualVQVAE": "diabolo.zoo.quantised",
    "Restorer": "diabolo.tasks.restoring",
    "RobustAutoencoder": "diabolo.zoo.regularised",
    "SeriesAnomalyDetector": "diabolo.tasks.series",
    "SparseAutoencoder": "diabolo.zoo.sparse",
    "Stream": "diabolo.data.stream",
    "TableSynthesizer": "diabolo.tasks.synthesis",
    "TiedAutoencoder": "diabolo.zoo.tied",
    "TopKAutoencoder": "diabolo.zoo.sparse",
    "Tuned": "diabolo.tuning.search",
    "TwoStageVAE": "diabolo.zoo.two_stage",
    "VAE": "diabolo.zoo.variational",
    "VQVAE": "diabolo.zoo.quantised",
    "VampPriorVAE": "diabolo.zoo.variational",
    "WAE": "diabolo.zoo.matching",
    "compare_tables": "diabolo.tasks.fidelity",
    "load": "diabolo.persistence",
    "score_files": "diabolo.batches",
    "score_spark": "diabolo.batches",
    "tune": "diabolo.tuning.search",
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
