"""Likelihoods: the density of a row given the decoder's output, element by element, in nats."""

from diabolo.parts.likelihoods.choices import CHOICES, Multinomial, Ratings
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

LIKELIHOODS: dict[str, type[Likelihood]] = {**ELEMENTS, **COUNTS, **CHOICES}

__all__ = [
    "CHOICES",
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
__all__ += ["Multinomial", "Ratings"]
__all__ += ["ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"]
