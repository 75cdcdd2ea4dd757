"""A distribution of codes that is learned after the model: where codes are, rather than where they should be."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from diabolo.checks import Ge, Gt, Lt, check_parameters, did_you_mean
from diabolo.declare import register, spec
from diabolo.latent.densities import DENSITIES, ClassDensity, Codes, Density
from diabolo.saving import Saved
from diabolo.seeding import draw_seed
from diabolo.zoo.variational import VAE

__all__ = ["CodePrior"]

Array = NDArray[np.float64]
JUDGED = 2000  # held-out codes that a second stage is judged by, with this many draws for each:
JUDGING_DRAWS = 64


@register
@spec
class CodePrior(Saved, BaseEstimator):  # type: ignore[misc]
    r"""A distribution of codes, learned after the model that makes them, to draw new codes from.

    Rows of numbers in, rows of numbers out; :meth:`~diabolo.generation.Generation.fit_prior` gives it the codes of a model. Each
    method estimates a density :math:`p(z)`, and is judged by the mean of :math:`\log p(z)` over codes that it has not seen, in
    nats. For a code that is a distribution these are draws of the posterior, and a method that gains a nat there raises the
    evidence lower bound of the model that generates by a nat.

    ``"normal"`` is one Gaussian with a full covariance, ``"mixture"`` several, ``"kernel"`` a Gaussian around each of up to
    ``n_centres`` codes (of posteriors their mixture, widened where held-out codes ask for it), ``"flow"`` a normalising flow
    (extra ``flows``), ``"two_stage"`` a second VAE, judged by importance sampling.

    {parameters}

    Attributes
    ----------
    method_ : str
        What ``method="auto"`` became.
    scores_ : dict of str to float
        Mean nats of each method that was tried, over held-out codes; higher is better.
    classes_ : ndarray
        The classes, where ``fit`` was given labels.
    n_features_in_ : int
        Width of a code.

    References
    ----------
    Ghosh et al., From variational to deterministic autoencoders, 2020, arXiv:1903.12436 (mixtures fitted to codes).

    Dai and Wipf, Diagnosing and enhancing VAE models, 2019, arXiv:1903.05789 (two stages).

    Tomczak and Welling, VAE with a VampPrior, 2018, arXiv:1705.07120 (mixtures of posteriors).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> X = load_iris().data
    >>> model = Autoencoder(2, max_epochs=5, random_state=0).fit(X).fit_prior(X, "mixture", random_state=0)
    >>> model.sample(3, random_state=0).shape
    (3, 4)
    """

    method: Annotated[
        Literal["auto", "normal", "mixture", "kernel", "flow", "two_stage"],
        "the distribution; 'auto' tries all but the second stage, the flow where zuko is there, and keeps the one that held-out "
        "codes speak for",
    ] = field(default="auto", kw_only=False)
    n_components: Annotated[
        int | Literal["auto"],
        Ge(1),
        "Gaussians in the mixture; 'auto' goes up from 2 to 40 while held-out codes gain by it",
    ] = "auto"
    n_centres: Annotated[int, Ge(1), "codes that the kernel method keeps"] = 2000
    max_codes: Annotated[int, Ge(2), "codes that are looked at, drawn at random where there are more"] = 20_000
    max_epochs: Annotated[int, Ge(1), "epochs of the flow and of the second stage at most"] = 60
    validation_fraction: Annotated[float, Gt(0), Lt(1), "share of the codes held out to judge methods by"] = 0.2
    verbose: Annotated[Literal[0, 1, 2], "what is shown while the flow and the second stage train, as for models"] = 0
    random_state: Annotated[int | np.random.RandomState | None, "seed"] = None

    def fit(
        self,
        Z: Any,
        y: Any = None,
        *,
        noise: Any = None,
        labels: Any = None,
        own: Callable[[Array], Array] | None = None,
    ) -> Self:
        """Learn from codes.

        Parameters
        ----------
        Z : array-like of shape (n, D)
            Codes.
        y : None
            Ignored.
        noise : array-like of shape (n, D), optional
            Variance of each unit under the posterior of its row; without it codes are points.
        labels : array-like of shape (n,), optional
            A class of each code, to draw codes of a class from; then there is a mixture for each class, whatever ``method`` says.
        own : callable, optional
            The log-density of another distribution, to judge by the same codes: ``scores_["own"]``.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        Z = np.asarray(validate_data(self, Z, dtype=np.float64), dtype=np.float64)
        if noise is not None:
            noise = np.asarray(noise, dtype=np.float64)
            if noise.shape != Z.shape or not (noise >= 0).all():
                raise ValueError(
                    f"noise has shape {noise.shape}; expected a variance of 0 or more for each of {Z.shape}"
                )
        seed = draw_seed(self.random_state)
        codes, order = self._held_apart(Z, noise, seed)
        self.__dict__.pop("classes_", None)
        which = None if labels is None else self._classes(labels, len(Z))
        self.scores_: dict[str, float] = {}
        found: dict[str, tuple[Density | None, VAE | None]] = {}
        for method in self._tried() if which is None else ["classes"]:
            density: Density | None = None
            second: VAE | None = None
            if which is not None:
                mixtures = ClassDensity.learn_classes(codes, which[order], len(self.classes_), seed)
                density, value = mixtures, mixtures.log_prob(codes.held_out).mean()
            elif method == "two_stage":
                second = self._second_stage(codes, seed)
                judged = codes.held_out[:JUDGED]
                value = second.log_likelihood(judged, n_samples=JUDGING_DRAWS, random_state=seed).mean()
            else:
                options = {k: getattr(self, k) for k in ("n_components", "n_centres", "max_epochs", "verbose")}
                density = DENSITIES[method].learn(codes, seed, options)
                value = density.log_prob(codes.held_out).mean()
            self.scores_[method] = float(value)
            found[method] = density, second
        self.method_ = max(self.scores_, key=lambda name: self.scores_[name])
        if own is not None:
            self.scores_["own"] = float(own(codes.held_out).mean())
        self._density, self.second_stage_ = found[self.method_]
        return self

    def _held_apart(self, Z: Array, noise: Array | None, seed: int) -> tuple[Codes, NDArray[np.int64]]:
        """Shuffle codes, and hold some out."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(Z))[: self.max_codes]
        held = min(len(order) - 1, max(1, round(len(order) * self.validation_fraction)))
        return Codes(Z[order], None if noise is None else noise[order], held, rng), order

    def _classes(self, labels: Any, n: int) -> NDArray[np.int64]:
        """Return the position of each label among the classes."""
        labels = np.asarray(labels)
        if labels.shape != (n,):
            raise ValueError(f"labels has shape {labels.shape}; expected one label for each of {n} codes")
        if labels.dtype.kind == "f":
            raise ValueError("labels holds floating point numbers; expected classes: text, whole numbers or booleans")
        self.classes_, which = np.unique(labels.astype(str) if labels.dtype == object else labels, return_inverse=True)
        return np.asarray(which.ravel())

    def _tried(self) -> list[str]:
        if self.method != "auto":
            return [self.method]
        flows = ["flow"] if importlib.util.find_spec("zuko") is not None else []
        return ["normal", "mixture", "kernel", *flows]

    def _second_stage(self, codes: Codes, seed: int) -> VAE:
        share = len(codes.held_out) / (len(codes.train) + len(codes.held_out))
        vae = VAE(codes.train.shape[1], hidden=(64, 64), max_epochs=self.max_epochs, random_state=seed, device="cpu")
        vae.set_params(validation_fraction=min(0.2, share), kl_warmup=0.5, scale="standard", verbose=self.verbose)
        return vae.fit(codes.train)

    def sample(self, n: int = 1, *, labels: Any = None, temperature: float = 1.0, random_state: Any = None) -> Array:
        """Draw codes.

        Parameters
        ----------
        n : int
            How many.
        labels : value or array-like of shape (n,), optional
            The class of all codes, or of each, where ``fit`` was given labels; by default classes are as frequent as there.
        temperature : float
            Factor on the standard deviation of noise: of each Gaussian, of the flow's input, of the second stage's code. Below 1
            codes are more typical and less varied.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        ndarray of shape (n, D)
            Codes, in float64.
        """
        check_is_fitted(self, "method_")
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1")
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature}: expected 0 or more")
        seed = draw_seed(random_state)
        if labels is not None:
            return self._sample_classes(labels, n, temperature, seed)
        if self._density is not None:
            return self._density.sample(n, temperature, seed)
        if self.second_stage_ is None:
            raise ValueError("this prior has neither a density nor a second stage")
        mean, drawn = (
            self.second_stage_.sample(n, temperature=temperature, noise=noise, random_state=seed)
            for noise in (False, True)
        )
        return np.asarray(mean + temperature * (drawn - mean))

    def _sample_classes(self, labels: Any, n: int, temperature: float, seed: int) -> Array:
        if not isinstance(self._density, ClassDensity):
            raise ValueError("this prior knows no classes; fit it with labels=")
        wanted = np.broadcast_to(np.asarray(labels).astype(self.classes_.dtype), n)
        known = np.isin(wanted, self.classes_)
        if not known.all():
            shown = ", ".join(map(repr, self.classes_[:12].tolist()))
            near = did_you_mean(str(wanted[~known][0]), [str(c) for c in self.classes_])
            raise ValueError(f"there is no class {wanted[~known][0].item()!r}.{near} It is one of {shown}")
        return self._density.sample_classes(np.searchsorted(self.classes_, wanted), temperature, seed)

    def score_samples(self, Z: Any) -> Array:
        """Log-density of codes, in nats; of a second stage an estimate by importance sampling, the same at every call.

        Parameters
        ----------
        Z : array-like of shape (n, D)
            Codes.

        Returns
        -------
        ndarray of shape (n,)
            Nats.
        """
        check_is_fitted(self, "method_")
        Z = np.asarray(validate_data(self, Z, reset=False, dtype=np.float64), dtype=np.float64)
        if self._density is not None:
            return self._density.log_prob(Z)
        if self.second_stage_ is None:
            raise ValueError("this prior has neither a density nor a second stage")
        return np.asarray(self.second_stage_.log_likelihood(Z, n_samples=JUDGING_DRAWS, random_state=0))

    def score(self, Z: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`, in nats per code."""
        return float(self.score_samples(Z).mean())

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = list(getattr(self, "feature_names_in_", [])) or None
        meta = {"method": self.method_, "scores": self.scores_, "n_features_in": self.n_features_in_, "names": names}
        if hasattr(self, "classes_"):
            meta["classes"] = self.classes_.tolist()
        arrays = {} if self._density is None else self._density.arrays
        return meta, {f"density.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.method_, self.scores_, self.n_features_in_ = meta["method"], meta["scores"], meta["n_features_in"]
        if "classes" in meta:
            self.classes_ = np.array(meta["classes"])
        if meta["names"] is not None:
            self.feature_names_in_ = np.array(meta["names"], dtype=object)
        self.second_stage_ = getattr(self, "second_stage_", None)
        arrays = {k.removeprefix("density."): v.numpy() for k, v in tensors.items() if k.startswith("density.")}
        self._density = DENSITIES[self.method_].restore(arrays) if self.method_ in DENSITIES else None
