"""Likelihoods: the density of a row given the decoder's output, element by element, in nats."""

from diabolo.parts.likelihoods.counts import (
    COUNTS,
    Counts,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from diabolo.parts.likelihoods.elements import LIKELIHOODS as ELEMENTS
from diabolo.parts.likelihoods.elements import (
    Bernoulli,
    Gaussian,
    Laplace,
    LearnedGaussian,
    Likelihood,
    SigmoidGaussian,
    StudentT,
)
from diabolo.parts.likelihoods.mixed import Mixed

LIKELIHOODS: dict[str, type[Likelihood]] = {**ELEMENTS, **COUNTS}

__all__ = [
    "COUNTS",
    "LIKELIHOODS",
    "Bernoulli",
    "Counts",
    "Gaussian",
    "Laplace",
    "LearnedGaussian",
    "Likelihood",
    "Mixed",
]
__all__ += ["NegativeBinomial", "Poisson", "SigmoidGaussian", "StudentT"]
__all__ += ["ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"]
