"""Distributions of codes, each learned from codes alone: mixtures, kernels, flows."""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from diabolo.parts.bottlenecks import normal_log_prob
from diabolo.parts.flows import Flow
from diabolo.records import Batch, Loss, Schema, Table
from diabolo.seeding import seeded
from diabolo.training.loop import Settings, train
from diabolo.training.rows import Selection

__all__ = ["DENSITIES", "Codes", "Density", "FlowDensity", "KernelDensity", "MixtureDensity"]

Array = NDArray[np.float64]
D = TypeVar("D", bound="Density")

RIDGE = 1e-4  # share of the mean variance of a unit that covariances have at least: codes may lie on a plane
WIDTHS: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of kernels, in standard deviations
COMPONENTS = (2, 5, 10, 20, 40)
FEW, LEAN = (
    5,
    10,
)  # codes a unit below which a class is one Gaussian, and as how many codes the covariance of all counts there
PART = 2**14  # codes that go through a flow at a time
BLOCK = 2**22  # numbers in one block of distances


class Codes:
    """Codes to learn from and codes to judge by.

    Parameters
    ----------
    centre : ndarray of shape (n, D)
        Codes.
    noise : ndarray of shape (n, D) or None
        Variance of each under the posterior of its row.
    held_out : int
        How many, the last ones, are for judging.
    rng : numpy.random.Generator
        For the draws.
    """

    def __init__(self, centre: Array, noise: Array | None, held_out: int, rng: np.random.Generator):
        drawn = centre if noise is None else centre + rng.standard_normal(centre.shape) * np.sqrt(noise)
        cut = len(centre) - held_out
        self.centre, self.noise = centre[:cut], None if noise is None else noise[:cut]
        self.train, self.held_out = drawn[:cut], drawn[cut:] if held_out else drawn


class Density(ABC):
    """A distribution of codes."""

    arrays: dict[str, Array]  # all that it has learned

    @classmethod
    @abstractmethod
    def learn(cls, codes: Codes, seed: int, options: dict[str, Any]) -> Self:
        """Fit to codes."""

    @classmethod
    @abstractmethod
    def restore(cls, arrays: dict[str, Array]) -> Self:
        """Build from ``arrays``."""

    @abstractmethod
    def sample(self, n: int, temperature: float, seed: int) -> Array:
        """Draw codes ``(n, D)``; noise has its standard deviation times ``temperature``."""

    @abstractmethod
    def log_prob(self, Z: Array) -> Array:
        """Return the log-density of codes ``(n, D)``, ``(n,)``, in nats."""


class MixtureDensity(Density):
    """A mixture of Gaussians with full covariances.

    Parameters
    ----------
    arrays : dict of ndarray
        ``weights`` ``(K,)``, ``means`` ``(K, D)``, and ``factors`` ``(K, D, D)``, lower triangles whose squares are the
        covariances.
    """

    def __init__(self, arrays: dict[str, Array]):
        self.arrays = arrays

    @classmethod
    def learn(cls, codes: Codes, seed: int, options: dict[str, Any]) -> Self:
        """Fit by expectation and maximisation; of several numbers of components the one that held-out codes speak for."""
        n, d = codes.train.shape
        wanted = options["n_components"]
        tried = COMPONENTS if wanted == "auto" else (wanted,)
        fitting = [k for k in tried if k * (d + 1) <= n] or [1]  # covariances need more codes than units
        sizes = fitting if wanted == "auto" else tried
        return _last_better((cls.of(codes.train, min(k, n), seed) for k in sizes), codes.held_out)

    @classmethod
    def of(cls, Z: Array, k: int, seed: int) -> Self:
        """Fit ``k`` components."""
        ridge = RIDGE * float(Z.var(axis=0).mean()) + 1e-12
        if k == 1:
            centred = Z - Z.mean(axis=0)
            covariance = centred.T @ centred / len(Z) + ridge * np.eye(Z.shape[1])
            return cls(
                {"weights": np.ones(1), "means": Z.mean(axis=0)[None], "factors": np.linalg.cholesky(covariance)[None]}
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = GaussianMixture(k, reg_covar=ridge, random_state=seed, max_iter=200).fit(Z)
        factors = np.linalg.cholesky(fitted.covariances_)
        return cls({"weights": fitted.weights_, "means": fitted.means_, "factors": factors})

    @classmethod
    def restore(cls, arrays: dict[str, Array]) -> Self:
        """Build from ``arrays``."""
        return cls(arrays)

    def sample(self, n: int, temperature: float, seed: int) -> Array:
        """Draw a component for each code, and the code from it."""
        rng = np.random.default_rng(seed)
        weights, means, factors = (self.arrays[k] for k in ("weights", "means", "factors"))
        which = rng.choice(len(weights), n, p=weights / weights.sum())
        noise = temperature * rng.standard_normal((n, means.shape[1]))
        return np.asarray(means[which] + np.einsum("nij,nj->ni", factors[which], noise))

    def log_prob(self, Z: Array) -> Array:
        """Return the log-density."""
        each = []
        for weight, mean, factor in zip(*(self.arrays[k] for k in ("weights", "means", "factors")), strict=True):
            white = np.linalg.solve(factor, (Z - mean).T)  # (D, n)
            volume = np.log(np.diag(factor)).sum() + 0.5 * Z.shape[1] * math.log(2 * math.pi)
            each.append(np.log(max(weight, 1e-300)) - 0.5 * np.square(white).sum(axis=0) - volume)
        return np.asarray(np.logaddexp.reduce(each, axis=0))


class NormalDensity(MixtureDensity):
    """A single Gaussian with a full covariance."""

    @classmethod
    def learn(cls, codes: Codes, seed: int, options: dict[str, Any]) -> Self:
        """Take mean and covariance."""
        return cls.of(codes.train, 1, seed)


class KernelDensity(Density):
    r"""A Gaussian around each code, of variance :math:`\sigma_i^2 + h^2 s^2` along each axis.

    The axes are the units, :math:`\sigma_i^2` the posterior's variance and :math:`s^2` that of all codes, where codes are
    distributions: with :math:`h = 0` the mixture of all posteriors. Else axes are the principal components of the codes, and
    :math:`\sigma_i = 0`. Held-out codes choose :math:`h`.

    Parameters
    ----------
    arrays : dict of ndarray
        ``centres`` and ``variances`` ``(m, D)`` along the axes, ``axes`` ``(D, D)`` with an axis in each row.
    """

    def __init__(self, arrays: dict[str, Array]):
        self.arrays = arrays

    @classmethod
    def learn(cls, codes: Codes, seed: int, options: dict[str, Any]) -> Self:
        """Keep up to ``n_centres`` codes, and choose the width of kernels."""
        centre, noise = codes.centre[: options["n_centres"]], codes.noise
        d = centre.shape[1]
        if noise is None:
            covariance = np.cov(centre.T).reshape(d, d) if len(centre) > 1 else np.eye(d)
            spread, axes = np.linalg.eigh(covariance)
            axes, smallest, own = axes.T, WIDTHS, np.zeros_like(centre)
        else:
            spread, axes, smallest, own = centre.var(axis=0), np.eye(d), (0.0, *WIDTHS), noise[: len(centre)]
        spread = np.maximum(spread, RIDGE * spread.mean() + 1e-12)
        judged = codes.held_out[:2000]
        variances = (np.maximum(own, 1e-12) + width**2 * spread for width in smallest)
        made = (cls({"centres": centre @ axes.T, "variances": v, "axes": axes}) for v in variances)
        return _last_better(made, judged)

    @classmethod
    def restore(cls, arrays: dict[str, Array]) -> Self:
        """Build from ``arrays``."""
        return cls(arrays)

    def sample(self, n: int, temperature: float, seed: int) -> Array:
        """Draw a code that was seen, and a place around it."""
        rng = np.random.default_rng(seed)
        centres, variances = self.arrays["centres"], self.arrays["variances"]
        which = rng.integers(len(centres), size=n)
        noise = temperature * rng.standard_normal((n, centres.shape[1])) * np.sqrt(variances[which])
        return np.asarray((centres[which] + noise) @ self.arrays["axes"])

    def log_prob(self, Z: Array) -> Array:
        """Return the log-density."""
        centres, variances = self.arrays["centres"], self.arrays["variances"]
        X, precision = Z @ self.arrays["axes"].T, 1 / variances
        volume = 0.5 * np.log(2 * math.pi * variances).sum(axis=1) + math.log(len(centres))  # (m,)
        constant = volume + 0.5 * (np.square(centres) * precision).sum(axis=1)
        out = np.empty(len(X))
        step = max(1, BLOCK // len(centres))
        for start in range(0, len(X), step):
            x = X[start : start + step]
            each = x @ (centres * precision).T - 0.5 * np.square(x) @ precision.T - constant  # (rows, m)
            out[start : start + step] = np.logaddexp.reduce(each, axis=1)
        return out


class ClassDensity(MixtureDensity):
    """A mixture of Gaussians for each class; where a class has few codes, one Gaussian whose covariance leans on all of them.

    Parameters
    ----------
    arrays : dict of ndarray
        As of a mixture of all, and ``owner`` ``(K,)``, the class of each component.
    """

    @classmethod
    def learn_classes(cls, codes: Codes, which: NDArray[np.int64], n_classes: int, seed: int) -> Self:
        """Fit to codes of which it is known which class each belongs to, those held out last."""
        cut = len(codes.train)
        pooled = np.cov((codes.train - _means(codes.train, which[:cut], n_classes)[which[:cut]]).T).reshape(
            2 * codes.train.shape[1:]
        )
        parts = []
        for k in range(n_classes):
            own, judged = codes.train[which[:cut] == k], codes.held_out[which[cut:] == k]
            if len(own) >= FEW * own.shape[1] and len(judged):
                part = MixtureDensity.learn(replace_codes(codes, own, judged), seed, {"n_components": "auto"}).arrays
            else:
                centred = own - own.mean(axis=0)
                covariance = (centred.T @ centred + LEAN * pooled) / (len(own) + LEAN)
                covariance += (RIDGE * np.trace(pooled) / len(pooled) + 1e-12) * np.eye(len(pooled))
                part = {"weights": np.ones(1), "means": own.mean(axis=0)[None]}
                part["factors"] = np.linalg.cholesky(covariance)[None]
            share = float((which == k).mean())
            parts.append(part | {"weights": share * part["weights"], "owner": np.full(len(part["weights"]), float(k))})
        return cls({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def sample_classes(self, which: NDArray[np.int64], temperature: float, seed: int) -> Array:
        """Draw a code of each class."""
        out = np.empty((len(which), self.arrays["means"].shape[1]))
        for k in np.unique(which):
            rows, own = np.flatnonzero(which == k), self.arrays["owner"] == k
            part = MixtureDensity({name: self.arrays[name][own] for name in ("weights", "means", "factors")})
            out[rows] = part.sample(len(rows), temperature, seed + int(k))
        return out


def _last_better(made: Iterable[D], judged: Array) -> D:
    """Return the last density that held-out codes like better than the one before."""
    found, best = None, -math.inf
    for density in made:
        value = float(density.log_prob(judged).mean())
        if found is not None and value <= best:
            break
        found, best = density, value
    if found is None:
        raise ValueError("expected at least one code")
    return found


def replace_codes(codes: Codes, train: Array, held_out: Array) -> Codes:
    """Return codes to learn from and to judge by, of some of the rows."""
    some = copy.copy(codes)
    some.train, some.held_out = train, held_out
    return some


def _means(Z: Array, which: NDArray[np.int64], n_classes: int) -> Array:
    return np.stack(
        [Z[which == k].mean(axis=0) if (which == k).any() else np.zeros(Z.shape[1]) for k in range(n_classes)]
    )


class FlowModule(nn.Module):
    """A flow behind an affine map that whitens codes.

    Parameters
    ----------
    features : int
        Width of a code.
    hidden : tuple of int
        Widths of the hidden layers.
    n_transforms : int
        Maps in the flow.
    """

    mean: Tensor
    white: Tensor
    colour: Tensor

    def __init__(self, features: int, hidden: tuple[int, ...], n_transforms: int):
        super().__init__()
        self.flow = Flow("spline", features, n_transforms, hidden)
        self.register_buffer("mean", torch.zeros(features))
        for name in ("white", "colour"):
            self.register_buffer(name, torch.eye(features))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density ``(B,)``."""
        noise, log_volume = self.flow((z - self.mean) @ self.white)
        found: Tensor = normal_log_prob(noise) + log_volume + torch.linalg.slogdet(self.white)[1]
        return found


def _parts(t: Tensor) -> Iterator[Tensor]:
    """Cut rows into parts, so that memory does not grow with their number."""
    return (t[start : start + PART] for start in range(0, len(t), PART))


def _flow_loss(module: Any, batch: Batch, progress: float) -> Loss:
    return Loss(-module.log_prob(batch.x).mean(), {})


class FlowDensity(Density):
    """A normalising flow from codes to a standard normal; needs the extra ``flows``.

    Parameters
    ----------
    module : FlowModule
        Fitted.
    """

    HIDDEN, TRANSFORMS = (64, 64), 3

    def __init__(self, module: FlowModule):
        self.module = module.eval()
        self.arrays = {k: v.numpy() for k, v in module.state_dict().items()}

    @classmethod
    def make(cls, features: int) -> FlowModule:
        """Build a flow of the usual size."""
        return FlowModule(features, cls.HIDDEN, cls.TRANSFORMS)

    @classmethod
    def learn(cls, codes: Codes, seed: int, options: dict[str, Any]) -> Self:
        """Train by maximum likelihood; held-out codes say when to stop."""
        Z = torch.from_numpy(np.concatenate([codes.train, codes.held_out])).float()
        n, d = codes.train.shape
        covariance = np.cov(codes.train.T).reshape(d, d) if n > 1 else np.eye(d)
        spread, axes = np.linalg.eigh(covariance)
        root = np.sqrt(np.maximum(spread, RIDGE * spread.mean() + 1e-12))
        table = Table(Schema("vector", (d,), n), Z)
        settings = Settings(
            options["max_epochs"], 256, 2e-3, patience=max(3, options["max_epochs"] // 10), verbose=options["verbose"]
        )
        with seeded(seed):
            module = cls.make(d)
            module.mean.copy_(torch.from_numpy(codes.train.mean(axis=0)))
            module.white.copy_(torch.from_numpy(axes / root))
            module.colour.copy_(torch.from_numpy((axes * root).T))
            rows, judged = Selection(table, torch.arange(n)), Selection(table, torch.arange(n, len(Z)))
            train(module, rows, judged, _flow_loss, settings)  # type: ignore[arg-type]  # the loop takes any module
        return cls(module)

    @classmethod
    def restore(cls, arrays: dict[str, Array]) -> Self:
        """Build from ``arrays``."""
        with seeded(0):
            module = cls.make(len(arrays["mean"]))
        module.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
        return cls(module)

    @torch.no_grad()
    def sample(self, n: int, temperature: float, seed: int) -> Array:
        """Draw from a standard normal, and run the flow backwards."""
        with seeded(seed):
            noise = temperature * torch.randn(n, len(self.module.mean))
        out = [self.module.flow.inverse(part) @ self.module.colour + self.module.mean for part in _parts(noise)]
        return np.asarray(torch.cat(out).double().numpy())

    @torch.no_grad()
    def log_prob(self, Z: Array) -> Array:
        """Return the log-density."""
        found = [self.module.log_prob(part) for part in _parts(torch.from_numpy(Z).float())]
        return np.asarray(torch.cat(found).double().numpy())


DENSITIES: dict[str, type[Density]] = {
    "normal": NormalDensity,
    "mixture": MixtureDensity,
    "kernel": KernelDensity,
    "flow": FlowDensity,
    "classes": ClassDensity,
}
