"""The base of every model: a scikit-learn estimator whose dataclass fields are its hyperparameters."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from diabolo.checks import check_parameters, parameter_fields
from diabolo.data.arrays import ArrayCodec, read
from diabolo.data.raw import Raw, is_wide, refuse_infinity
from diabolo.declare import ADVICE, refuse_unknown, spec
from diabolo.module import AutoencoderModule
from diabolo.objectives import Objective, elbo
from diabolo.parameters import SharedParameters
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.corruptions import Corruption
from diabolo.parts.likelihoods import LIKELIHOODS, Likelihood
from diabolo.parts.penalties import Penalty, WeightL1
from diabolo.records import Batch, History, Schema, Table
from diabolo.seeding import draw_seed, seeded
from diabolo.training.checkpoint import read_fingerprint
from diabolo.training.device import resolve_device
from diabolo.training.loop import Settings, train

__all__ = ["BaseAutoencoder"]

INFERENCE_ELEMENTS = 2**21  # numbers of input in one batch without gradients


@spec
class BaseAutoencoder(SharedParameters, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Everything that models share; a model says which parts it uses and nothing else.

    Attributes
    ----------
    module_ : AutoencoderModule
        The fitted network.
    history_ : History
        Losses by epoch, and why training ended.
    schema_ : Schema
        What was learned of the data.
    choices_ : dict
        What every ``"auto"`` became.
    seed_ : int
        The seed of this fit.
    n_iter_ : int
        Epochs run.
    n_features_in_ : int
        Features of a row.
    feature_names_in_ : ndarray of str
        Column names, where ``fit`` saw a frame.
    """

    # what a model says ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _bottleneck(self, schema: Schema) -> Bottleneck:
        """Return the bottleneck."""

    def _corruption(self, schema: Schema) -> Corruption | None:
        """Return what is done to the input in training."""
        return None

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        """Return the terms added to the training loss."""
        return ()

    def _objective(self) -> Objective:
        """Return the loss."""
        return functools.partial(elbo, warmup=self._warmup())

    def _build(self, schema: Schema) -> AutoencoderModule:
        """Put the parts together, sized from the schema."""
        penalties = self._penalties(schema)
        if self.weight_l1 > 0:
            penalties = (*penalties, WeightL1(self.weight_l1))
        return AutoencoderModule.from_network(
            self._network(schema),
            schema,
            bottleneck=self._bottleneck(schema),
            likelihood=self._likelihood(schema),
            corruption=self._corruption(schema),
            penalties=penalties,
        )

    # fit --------------------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn to rebuild the rows of ``X``.

        Parameters
        ----------
        X : array, frame or tensor
            Rows of numbers ``(n, n_features)``, or images ``(n, height, width)`` or ``(n, channels, height, width)``.
            NaN marks a missing cell: it is fed in as the centre of its column and left out of the loss.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted. A keyboard interrupt ends training early and keeps what was learned.

        Raises
        ------
        ParameterError
            When a hyperparameter is impossible.
        ValueError
            When ``X`` cannot be learned from; the message names the column.
        DivergenceError
            When the loss is not finite even at a much lower learning rate.
        """
        check_parameters(self, ADVICE)
        return self._fit(self._read(X, reset=True))

    def _fit(self, raw: Raw) -> Self:
        device = resolve_device(self.device)
        codec = ArrayCodec.fit(raw, self._scale())
        table = codec.encode(raw)
        n_valid = self._validation_rows(len(table))
        settings = self._settings(len(table) - n_valid, device)
        seed, settings = self._seed(settings, table)
        with seeded(seed, device):
            order = torch.randperm(len(table))
            module = self._build(codec.schema)
            self._check_support(module.likelihood, table, codec)
            module.start(table, order[n_valid:])
            module, table, order = module.to(device), table.to(device), order.to(device)
            history = train(
                module,
                table,
                order[n_valid:],
                order[:n_valid],
                self._objective(),
                settings,
                self.callbacks,
                functools.partial(_mse, codec=codec),
            )
        self.codec_, self.schema_, self.module_, self.history_ = codec, codec.schema, module, history
        self.seed_, self.n_iter_ = seed, len(history)
        self.choices_ = self._choices(codec, module, settings)
        return self

    def _validation_rows(self, n: int) -> int:
        if self.validation_fraction == 0 or n < 2:
            return 0
        return min(n - 1, max(1, round(n * self.validation_fraction)))

    def _choices(self, codec: ArrayCodec, module: AutoencoderModule, settings: Settings) -> dict[str, Any]:
        likelihood = next((k for k, v in LIKELIHOODS.items() if v is type(module.likelihood)), "custom")
        return {
            "likelihood": likelihood,
            "scale": codec.scaling.name,
            "latent_dim": math.prod(module.code_shape),
            "hidden": list(self._hidden(codec.schema)),
            "max_epochs": settings.max_epochs,
            "batch_size": settings.batch_size,
            "patience": settings.patience,
            "device": str(settings.device),
            "precision": settings.precision,
        }

    def _seed(self, settings: Settings, table: Table) -> tuple[int, Settings]:
        """Draw the seed, or take up that of the run in the checkpoint folder; refuse a folder of another run."""
        seed = draw_seed(self.random_state)
        if settings.checkpoint is None:
            return seed, settings
        fingerprint = {f.name: _plain(getattr(self, f.name)) for f in parameter_fields(type(self))}
        for name in ("verbose", "callbacks", "checkpoint", "max_time", "random_state"):
            del fingerprint[name]
        digest = hashlib.sha256(table.x.numpy().tobytes())
        if table.mask is not None:
            digest.update(table.mask.numpy().tobytes())
        fingerprint |= {"model": type(self).__name__, "data": digest.hexdigest(), "seed": seed}
        found = read_fingerprint(settings.checkpoint)
        if found is not None:
            if not isinstance(self.random_state, int):
                fingerprint["seed"] = seed = found["seed"]
            differs = [k for k in fingerprint if fingerprint[k] != found.get(k)]
            if differs:
                listed = ", ".join(f"{k} was {found.get(k)!r} and is {fingerprint[k]!r}" for k in differs[:4])
                raise ValueError(
                    f"checkpoint={str(settings.checkpoint)!r} holds another run: {listed}. "
                    "Choose another folder, or delete this one to start anew."
                )
        return seed, dataclasses.replace(settings, fingerprint=fingerprint)

    @staticmethod
    def _check_support(likelihood: Likelihood, table: Table, codec: ArrayCodec, where: str = "") -> None:
        """Raise where a value lies outside what the likelihood can explain, naming the column."""
        inside = likelihood.supports(table.x)
        if inside is None or bool(inside.all()):
            return
        row, *position = (int(i) for i in (~inside).nonzero()[0])
        flat = int(np.ravel_multi_index(tuple(position), codec.schema.shape))
        value = float(codec.scaling.inverse(table.x[row : row + 1].numpy())[(0, *position)])
        raise ValueError(
            f"{type(likelihood).__name__} needs {likelihood.support}; {codec.schema.feature(flat)} has {value:g}{where}. "
            "Use likelihood='gaussian', or scale='minmax' to bring the data into [0, 1]."
        )

    # use --------------------------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> NDArray[Any]:
        """Encode rows: the centre of each row's code, the same at every call.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.

        Returns
        -------
        ndarray of shape (n, latent_dim)
            In the precision of ``X``.
        """
        check_is_fitted(self)
        raw = self._read(X, reset=False)
        return self._apply(raw, lambda module, batch: module.encode(batch.x, batch.context).z.flatten(1))

    def inverse_transform(self, Z: Any) -> Any:
        """Decode codes into rows, in the units and the kind of data of ``fit``.

        Parameters
        ----------
        Z : array-like of shape (n, latent_dim)
            Codes.

        Returns
        -------
        array, frame or tensor
            The expected row for each code.
        """
        check_is_fitted(self)
        Z = check_array(Z, dtype=(np.float64, np.float32))
        if Z.shape[1] != self._n_features_out:
            raise ValueError(f"Z has {Z.shape[1]} columns, expected the {self._n_features_out} of the code")
        return self.codec_.decode(self._decode(Z))

    def reconstruct(self, X: Any) -> Any:
        """Encode and decode rows.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``; missing cells are filled in the result.

        Returns
        -------
        array, frame or tensor
            In the units and the kind of ``X``; floating point, also for integers.
        """
        check_is_fitted(self)
        raw = self._read(X, reset=False)
        scaled = self._apply(
            raw,
            lambda module, batch: module.likelihood.mean(module.trace(batch, sample=False).raw),
        )
        return self.codec_.decode(scaled, like=raw)

    def score_samples(self, X: Any, *, n_samples: int = 0, random_state: Any = None) -> NDArray[Any]:
        r"""How well each row is explained: :math:`\log p(x \mid z) - \text{cost}(z)`, in nats, higher is better.

        Densities are in the units of ``X``, so that scores under different scalings compare (with ``scale="quantile"`` they
        are in units of the transformed value). Missing cells are left out.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.
        n_samples : int
            0 takes the centre of each code, the same at every call. A positive number averages over that many draws of the
            posterior: an unbiased estimate of the evidence lower bound.
        random_state : int, RandomState or None
            Seed of the draws.

        Returns
        -------
        ndarray of shape (n,)
            Nats.
        """
        check_is_fitted(self)
        if n_samples < 0:
            raise ValueError(
                f"n_samples={n_samples}: expected 0 (the centre of each code) or a positive number of draws"
            )
        return self._score(self._read(X, reset=False), n_samples, random_state)

    def _score(self, raw: Raw, n_samples: int = 0, random_state: Any = None) -> NDArray[Any]:
        def score(module: AutoencoderModule, batch: Batch) -> Tensor:
            total = None
            for _ in range(max(1, n_samples)):
                trace = module.trace(batch, sample=n_samples > 0)
                value = module.log_prob(trace.raw, batch)
                for cost in trace.code.costs.values():
                    value = value - cost
                total = value if total is None else total + value
            return total / max(1, n_samples) if total is not None else batch.x.new_zeros(0)

        if n_samples:
            with seeded(draw_seed(random_state), resolve_device(self.device)):
                scores = self._apply(raw, score, support=True)
        else:
            scores = self._apply(raw, score, support=True)
        scores -= self._log_volume(raw)
        return scores

    def score_features(self, X: Any) -> NDArray[Any]:
        """``log p(x_j | z)`` of each feature, in nats of the scaled data, 0 where a cell is missing.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.

        Returns
        -------
        ndarray of shape (n, *row_shape)
            Nats.
        """
        check_is_fitted(self)
        return self._score_features(self._read(X, reset=False))

    def _score_features(self, raw: Raw) -> NDArray[Any]:
        def score(module: AutoencoderModule, batch: Batch) -> Tensor:
            return module.log_prob_elements(module.trace(batch, sample=False).raw, batch)

        return self._apply(raw, score, support=True)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples` over rows, in nats per row."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n: int = 1, *, noise: bool = False, random_state: Any = None) -> Any:
        """Generate rows: draw codes from the prior and decode them.

        Parameters
        ----------
        n : int
            How many.
        noise : bool
            Whether to draw each row from the likelihood rather than return its mean.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        array, frame or tensor
            ``n`` rows in the units and the kind of data of ``fit``.

        Raises
        ------
        TypeError
            When the model has no prior.
        """
        check_is_fitted(self)
        if not self.module_.bottleneck.generative:
            raise TypeError(
                f"{type(self).__name__} has no prior to sample from; use VAE or another model listed as generative by "
                "`diabolo models`"
            )
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1")
        device = resolve_device(self.device)
        with seeded(draw_seed(random_state), device):
            Z = (
                self.module_.bottleneck.prior(n)
                .flatten(1)
                .numpy()
                .astype(np.float64 if self.codec_.wide else np.float32)
            )
            return self.codec_.decode(self._decode(Z, noise=noise))

    # plumbing ---------------------------------------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return math.prod(self.module_.code_shape)

    def _read(self, X: Any, *, reset: bool) -> Raw:
        """Read the user's rows, check them against what ``fit`` saw, and learn names and width when ``reset``."""
        raw = read(X)
        if raw is None:
            raw = Raw(validate_data(self, X, reset=reset, ensure_all_finite=False), "vector", "numpy")
            refuse_infinity(raw)
            return raw
        if raw.kind == "vector":
            framed = raw.container in ("pandas", "polars", "pyarrow")
            validate_data(self, X if framed else raw.values, reset=reset, skip_check_array=True)
        elif reset:
            self.n_features_in_ = int(np.prod(raw.values.shape[1:]))
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        return raw

    def _chunks(self, raw: Raw, dtype: torch.dtype) -> Iterator[tuple[slice, Table]]:
        rows = max(1, INFERENCE_ELEMENTS // max(1, self.schema_.size))
        for start in range(0, len(raw.values), rows):
            part = slice(start, start + rows)
            yield part, self.codec_.encode(raw.take(part), dtype)

    def _ready(self, dtype: torch.dtype) -> tuple[AutoencoderModule, torch.device]:
        """Return the module in evaluation mode, on the device and in the precision asked for."""
        device = resolve_device(self.device)
        module = self.module_.to(device).eval()
        if dtype == torch.float64:
            module = copy.deepcopy(module).double()
        return module, device

    @staticmethod
    def _dtype(values: NDArray[Any], device: torch.device) -> torch.dtype:
        """Infer in the precision of the data, where the device has it."""
        return torch.float64 if is_wide(values) and device.type != "mps" else torch.float32

    def _apply(
        self, raw: Raw, pick: Callable[[AutoencoderModule, Batch], Tensor], *, support: bool = False
    ) -> NDArray[Any]:
        """Run ``pick`` over batches of rows without gradients."""
        dtype = self._dtype(raw.values, resolve_device(self.device))
        module, device = self._ready(dtype)
        out: NDArray[Any] | None = None
        with torch.inference_mode():
            for part, table in self._chunks(raw, dtype):
                if support:
                    self._check_support(module.likelihood, table, self.codec_, " in X")
                result = pick(module, table.to(device).slice(0, len(table))).cpu().numpy()
                if out is None:
                    out = np.empty((len(raw.values), *result.shape[1:]), dtype=result.dtype)
                out[part] = result
        if out is None:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        return out

    def _decode(self, Z: NDArray[Any], noise: bool = False) -> NDArray[Any]:
        dtype = self._dtype(Z, resolve_device(self.device))
        module, device = self._ready(dtype)
        rows = max(1, INFERENCE_ELEMENTS // max(1, self.schema_.size))
        parts = []
        with torch.inference_mode():
            for start in range(0, len(Z), rows):
                z = torch.tensor(Z[start : start + rows], dtype=dtype, device=device).view(-1, *module.code_shape)
                raw = module.decode(z)
                parts.append((module.likelihood.sample(raw) if noise else module.likelihood.mean(raw)).cpu().numpy())
        return np.concatenate(parts)

    def _log_volume(self, raw: Raw) -> NDArray[np.float64]:
        if not self.module_.likelihood.density:
            return np.zeros(len(raw.values))
        values = raw.values
        mask = ~np.isnan(values) if values.dtype.kind == "f" and np.isnan(values).any() else None
        return self.codec_.log_volume(mask, len(values))

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters by name; an unknown name is an error that says which was meant."""
        refuse_unknown(type(self).__name__, {k.split("__")[0]: v for k, v in params.items()}, self._get_param_names())
        super().set_params(**params)
        return self

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a folder of JSON and safetensors files; see :func:`diabolo.load`.

        The folder is whole or as it was before: a crash never leaves a half-written model over a good one.
        """
        from diabolo.persistence import save

        save(self, path)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return all that was fitted, as plain JSON types and named tensors."""
        meta = {
            "data": self.codec_.to_json(),
            "history": self.history_.to_json(),
            "choices": self.choices_,
            "seed": self.seed_,
            "code_shape": list(self.module_.code_shape),
            "n_features_in": self.n_features_in_,
            "feature_names_in": list(getattr(self, "feature_names_in_", [])) or None,
        }
        tensors = {f"module.{k}": v.detach().cpu() for k, v in self.module_.state_dict().items()}
        tensors |= {f"scaling.{k}": torch.from_numpy(v) for k, v in self.codec_.scaling.arrays().items()}
        return meta, tensors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Become what ``_get_state`` described; raise ``ValueError`` when the tensors do not fit the description."""
        scaling = {k.removeprefix("scaling."): v.numpy() for k, v in tensors.items() if k.startswith("scaling.")}
        codec = ArrayCodec.from_json(meta["data"], scaling)
        with seeded(0):
            module = self._build(codec.schema)
        weights = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        found = {k: tuple(v.shape) for k, v in weights.items()}
        differs = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        if differs:
            k = differs[0]
            raise ValueError(
                f"the weights do not fit the network: {k!r} has shape {found.get(k)}, expected {expected.get(k)}"
                f" ({len(differs)} of {len(expected)} differ)"
            )
        module.load_state_dict(weights)
        module.code_shape = tuple(meta["code_shape"])
        self.codec_, self.schema_, self.module_ = codec, codec.schema, module.eval()
        self.history_ = History.from_json(meta["history"])
        self.seed_, self.n_iter_, self.choices_ = meta["seed"], len(self.history_), meta["choices"]
        self.n_features_in_ = meta["n_features_in"]
        if meta["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "module_" in state:  # a pickle must open on a machine without this device
            state["module_"] = copy.deepcopy(state["module_"]).cpu()
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _plain(value: Any) -> Any:
    """Return a parameter as JSON would give it back."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | None) else getattr(value, "__qualname__", repr(value))


@torch.no_grad()
def _mse(module: AutoencoderModule, batch: Batch, codec: ArrayCodec) -> dict[str, float]:
    """Mean squared error over observed cells, in the units of the data."""
    mean = module.likelihood.mean(module.trace(batch, sample=False).raw)
    there = codec.scaling.inverse(batch.x.cpu().double().numpy())
    error = np.square(codec.scaling.inverse(mean.cpu().double().numpy()) - there)
    return {"mse": float(error.mean() if batch.mask is None else error[batch.mask.cpu().numpy() > 0].mean())}
