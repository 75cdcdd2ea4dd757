"""The latent space of a fitted model: distributions of its codes, ways through it, maps, and what its units mean."""

from diabolo.latent.diagnosis import LatentDiagnosis, diagnose
from diabolo.latent.disentanglement import (
    dci,
    factor_vae_score,
    mutual_information_gap,
    separated_attribute_predictability,
)
from diabolo.latent.maps import latent_map
from diabolo.latent.paths import (
    Traversal,
    concept_vector,
    concept_vectors,
    interpolate,
    nearest,
    slerp,
    traverse,
)
from diabolo.latent.priors import CodePrior

__all__ = [
    "CodePrior",
    "LatentDiagnosis",
    "Traversal",
    "concept_vector",
    "concept_vectors",
    "dci",
    "diagnose",
    "factor_vae_score",
    "interpolate",
    "latent_map",
    "mutual_information_gap",
    "nearest",
    "separated_attribute_predictability",
    "slerp",
    "traverse",
]
