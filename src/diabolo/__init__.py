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
    from diabolo.tasks.series import SeriesAnomalyDetector
    from diabolo.tasks.synthesis import TableSynthesizer
    from diabolo.training.loop import Callback
    from diabolo.zoo.activity import PosteriorCollapseWarning
    from diabolo.zoo.capacity import CapacityVAE
    from diabolo.zoo.conditional import ConditionalVAE
    from diabolo.zoo.flows import FlowPosteriorVAE, FlowPriorVAE
    from diabolo.zoo.hierarchical import LadderVAE
    from diabolo.zoo.hyperspherical import HypersphericalVAE
    from diabolo.zoo.masked import MaskedAutoencoder
    from diabolo.zoo.matching import DIPVAE, WAE, AdversarialAutoencoder, BetaTCVAE, FactorVAE, InfoVAE
    from diabolo.zoo.quantised import VQVAE, FSQAutoencoder, LFQAutoencoder, ResidualVQVAE
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
    "DIPVAE",
    "IWAE",
    "VAE",
    "VQVAE",
    "WAE",
    "AdversarialAutoencoder",
    "AnomalyDetector",
    "Autoencoder",
    "AutoencoderModule",
    "BatchScorer",
    "BatchTopKAutoencoder",
    "BetaTCVAE",
    "BetaVAE",
    "Callback",
    "CapacityVAE",
    "CodePrior",
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
    "HypersphericalVAE",
    "Imputer",
    "InfoVAE",
    "JumpReLUAutoencoder",
    "KSparseAutoencoder",
    "LFQAutoencoder",
    "LadderVAE",
    "MaskedAutoencoder",
    "MatryoshkaAutoencoder",
    "MixturePriorVAE",
    "OrderedAutoencoder",
    "PosteriorCollapseWarning",
    "RegularizedAutoencoder",
    "ResidualVQVAE",
    "RobustAutoencoder",
    "SeriesAnomalyDetector",
    "SparseAutoencoder",
    "Stream",
    "TableSynthesizer",
    "TiedAutoencoder",
    "TopKAutoencoder",
    "TwoStageVAE",
    "VampPriorVAE",
    "__version__",
    "compare_tables",
    "load",
    "score_files",
    "score_spark",
]

_HOME = {
    "AdversarialAutoencoder": "diabolo.zoo.matching",
    "AnomalyDetector": "diabolo.tasks.anomaly",
    "Autoencoder": "diabolo.zoo.vanilla",
    "AutoencoderModule": "diabolo.module",
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
    "Compressor": "diabolo.tasks.compression",
    "Denoiser": "diabolo.tasks.denoising",
    "DenoisingAutoencoder": "diabolo.zoo.vanilla",
    "FSQAutoencoder": "diabolo.zoo.quantised",
    "FactorVAE": "diabolo.zoo.matching",
    "FlowPosteriorVAE": "diabolo.zoo.flows",
    "FlowPriorVAE": "diabolo.zoo.flows",
    "GatedAutoencoder": "diabolo.zoo.sparse",
    "HypersphericalVAE": "diabolo.zoo.hyperspherical",
    "IWAE": "diabolo.zoo.variational",
    "Imputer": "diabolo.tasks.imputation",
    "InfoVAE": "diabolo.zoo.matching",
    "JumpReLUAutoencoder": "diabolo.zoo.sparse",
    "KSparseAutoencoder": "diabolo.zoo.sparse",
    "LFQAutoencoder": "diabolo.zoo.quantised",
    "LadderVAE": "diabolo.zoo.hierarchical",
    "MaskedAutoencoder": "diabolo.zoo.masked",
    "MatryoshkaAutoencoder": "diabolo.zoo.sparse",
    "MixturePriorVAE": "diabolo.zoo.variational",
    "OrderedAutoencoder": "diabolo.zoo.regularised",
    "PosteriorCollapseWarning": "diabolo.zoo.activity",
    "RegularizedAutoencoder": "diabolo.zoo.regularised",
    "ResidualVQVAE": "diabolo.zoo.quantised",
    "RobustAutoencoder": "diabolo.zoo.regularised",
    "SeriesAnomalyDetector": "diabolo.tasks.series",
    "SparseAutoencoder": "diabolo.zoo.sparse",
    "Stream": "diabolo.data.stream",
    "TableSynthesizer": "diabolo.tasks.synthesis",
    "TiedAutoencoder": "diabolo.zoo.tied",
    "TopKAutoencoder": "diabolo.zoo.sparse",
    "TwoStageVAE": "diabolo.zoo.two_stage",
    "VAE": "diabolo.zoo.variational",
    "VQVAE": "diabolo.zoo.quantised",
    "VampPriorVAE": "diabolo.zoo.variational",
    "WAE": "diabolo.zoo.matching",
    "compare_tables": "diabolo.tasks.fidelity",
    "load": "diabolo.persistence",
    "score_files": "diabolo.batches",
    "score_spark": "diabolo.batches",
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
