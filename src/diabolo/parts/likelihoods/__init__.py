"""Likelihoods: the density of a row given the decoder's output, element by element, in nats."""

from diabolo.parts.likelihoods.elements import (
    LIKELIHOODS,
    Bernoulli,
    Gaussian,
    Laplace,
    LearnedGaussian,
    Likelihood,
    SigmoidGaussian,
    StudentT,
)
from diabolo.parts.likelihoods.mixed import Mixed

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Gaussian",
    "Laplace",
    "LearnedGaussian",
    "Likelihood",
    "Mixed",
    "SigmoidGaussian",
]
__all__ += ["StudentT"]
