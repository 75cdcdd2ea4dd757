"""What a fitted model does: it reads rows, runs them through the network, and hands back results in the user's kind of data."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from diabolo.data.arrays import ArrayCodec, read
from diabolo.data.raw import Raw, all_finite, is_wide, refuse_infinity
from diabolo.data.stream import Stream
from diabolo.module import AutoencoderModule
from diabolo.objectives import log_likelihood
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.likelihoods import Likelihood
from diabolo.records import Batch, Schema, Table
from diabolo.seeding import draw_seed, seeded
from diabolo.training.device import resolve_device

__all__ = ["Inference", "check_support", "mse"]

INFERENCE_ELEMENTS = 2**20  # numbers of input in one batch without gradients
DRAWN_ELEMENTS = 2**18  # numbers of output in one batch of draws: they stay in the cache of a processor


class Inference(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The methods of a fitted model, which every estimator has."""

    # set by the constructor
    device: str
    kind: Any
    columns: Any
    # set by fit
    codec_: ArrayCodec
    schema_: Schema
    module_: AutoencoderModule

    # use --------------------------------------------------------------------------------------------------------------------

    def transform(self, X: Any, *, condition: Any = None) -> NDArray[Any]:
        """Encode rows: the centre of each row's code, the same at every call.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.
        condition : value, sequence, array, mapping or frame, optional
            For a model with a condition: one for all rows, or one for each. Without it the condition is what stands in the
            columns of ``X``, or unknown where it came as ``y``.

        Returns
        -------
        ndarray of shape (n, latent_dim)
            In the precision of ``X``.
        """
        check_is_fitted(self)
        if isinstance(X, Stream):
            return np.concatenate([self.transform(block, condition=condition) for block in X])
        raw = self._read(X, reset=False, condition=condition)
        return self._apply(raw, lambda module, batch: module.encode(batch.x, batch.context, batch.mask).z.flatten(1))

    def inverse_transform(self, Z: Any, *, condition: Any = None) -> Any:
        """Decode codes into rows, in the units and the kind of data of ``fit``.

        Parameters
        ----------
        Z : array-like of shape (n, latent_dim)
            Codes.
        condition : value, sequence, array, mapping or frame, optional
            For a model with a condition: one for all rows, or one for each; unknown without it.

        Returns
        -------
        array, frame or tensor
            The expected row for each code; series at full length, that of the longest in ``fit``, in one array.
        """
        check_is_fitted(self)
        Z = check_array(Z, dtype=(np.float64, np.float32))
        if Z.shape[1] != self._n_features_out:
            raise ValueError(f"Z has {Z.shape[1]} columns, expected the {self._n_features_out} of the code")
        told = self._told(condition, len(Z))
        return self.codec_.decode(self._decode(Z, told), condition=told)

    def reconstruct(self, X: Any, *, condition: Any = None) -> Any:
        """Encode and decode rows.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``; missing cells are filled in the result.
        condition : value, sequence, array, mapping or frame, optional
            As in :meth:`transform`.

        Returns
        -------
        array, frame or tensor
            In the units and the kind of ``X``; floating point, also for integers. Columns that are the condition come back
            as they are.
        """
        check_is_fitted(self)
        raw = self._read(X, reset=False, condition=condition)
        scaled = self._apply(
            raw,
            lambda module, batch: module.likelihood.mean(module.trace(batch, sample=False).raw),
        )
        return self.codec_.decode(scaled, like=raw, condition=raw.condition)

    def score_samples(
        self, X: Any, *, condition: Any = None, n_samples: int = 0, random_state: Any = None
    ) -> NDArray[Any]:
        r"""How well each row is explained: :math:`\log p(x \mid z) - \text{cost}(z)`, in nats, higher is better.

        Densities are in the units of ``X``, so that scores under different scalings compare (with ``scale="quantile"`` they
        are in units of the transformed value). Missing cells are left out.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.
        condition : value, sequence, array, mapping or frame, optional
            As in :meth:`transform`; scores are of the rows given their condition.
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
        if isinstance(X, Stream):
            states = check_random_state(random_state)  # advanced from block to block
            scored = (self.score_samples(b, condition=condition, n_samples=n_samples, random_state=states) for b in X)
            return np.concatenate(list(scored))
        return self._score(self._read(X, reset=False, condition=condition), n_samples, random_state)

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

    def log_likelihood(
        self,
        X: Any,
        *,
        condition: Any = None,
        n_samples: int = 5000,
        prior: str = "own",
        return_std: bool = False,
        random_state: Any = None,
    ) -> Any:
        r"""Estimate the log-likelihood :math:`\log p(x)` of each row by importance sampling, in nats, higher is better.

        .. math:: \log \frac1k \sum_{i=1}^k \frac{p(x \mid z_i)\, p(z_i)}{q(z_i \mid x)}, \qquad z_i \sim q(z \mid x)

        In expectation it never exceeds the log-likelihood, grows with ``n_samples`` and converges to it (Burda et al., 2016,
        arXiv:1509.00519, who take 5000 draws). Units are those of :meth:`score_samples`. The cost is that of decoding
        ``n_samples`` codes for each row, in float32 where ``X`` is of float32.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``. Missing cells are left out.
        condition : value, sequence, array, mapping or frame, optional
            As in :meth:`transform`; the likelihood is of the rows given their condition.
        n_samples : int
            Draws of the code for each row.
        prior : {"own", "fitted"}
            The model's own prior, or the one that ``fit_prior`` learned: then the likelihood is that of the model which
            :meth:`sample` draws from.
        return_std : bool
            Whether to return standard errors too. They are honest where weights have a variance, and too small where few draws
            carry nearly all of the weight.
        random_state : int, RandomState or None
            Seed of the draws.

        Returns
        -------
        ndarray of shape (n,)
            Nats, in float64.
        ndarray of shape (n,)
            With ``return_std`` the standard error of each; NaN for a single draw.

        Raises
        ------
        TypeError
            When the posterior of the model has no density, as for deterministic codes.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples={n_samples}: expected at least 1")
        if type(self.module_.bottleneck).log_ratio is Bottleneck.log_ratio:
            raise TypeError(
                f"{type(self).__name__} has no density of codes to sample from; use VAE or another variational model, or "
                "score_samples"
            )
        raw = self._read(X, reset=False, condition=condition)
        device = resolve_device(self.device)
        elements = DRAWN_ELEMENTS if device.type == "cpu" else 16 * DRAWN_ELEMENTS
        pick = functools.partial(log_likelihood, n=n_samples, elements=elements, log_prior=self._other_prior(prior))
        with seeded(draw_seed(random_state), device):
            found = self._apply(raw, pick, support=True)
        nats = found[:, 0] - self._log_volume(raw)
        return (nats, found[:, 1]) if return_std else nats

    def _other_prior(self, prior: str) -> Callable[[Tensor], Tensor] | None:
        """Return the log-density of the prior that ``fit_prior`` learned, where that is asked for."""
        name, fitted = type(self).__name__, getattr(self, "prior_", None)
        if prior not in ("own", "fitted"):
            raise ValueError(f"prior={prior!r}: expected 'own' or 'fitted'")
        if prior == "own":
            return None
        if fitted is None:
            raise TypeError(f"{name} has no fitted prior; learn one from rows first: fit_prior(X)")
        if type(self.module_.bottleneck).log_prior is Bottleneck.log_prior:
            raise TypeError(f"the prior of {name} has no density of codes, which another one could take the place of")
        return lambda z: torch.from_numpy(fitted.score_samples(z.double().cpu().numpy())).to(z)

    def score_features(self, X: Any, *, condition: Any = None) -> NDArray[Any]:
        """``log p(x_j | z)`` of each feature, in nats of the scaled data, 0 where a cell is missing.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.
        condition : value, sequence, array, mapping or frame, optional
            As in :meth:`transform`.

        Returns
        -------
        ndarray of shape (n, *row_shape)
            Nats; columns that are the condition are no features. Of series ``(n, channels, steps)``.
        """
        check_is_fitted(self)
        return self.codec_.by_column(self._score_features(self._read(X, reset=False, condition=condition)))

    def _score_features(self, raw: Raw) -> NDArray[Any]:
        """Return ``log p`` of each feature as the network sees it; in a mixed table each category has one."""

        def score(module: AutoencoderModule, batch: Batch) -> Tensor:
            return module.log_prob_elements(module.trace(batch, sample=False).raw, batch)

        return self._apply(raw, score, support=True)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples` over rows, in nats per row; ``y`` is their condition where it was so in ``fit``."""
        check_is_fitted(self)
        conditions = self.codec_.conditions
        return float(np.mean(self.score_samples(X, condition=None if conditions is None or conditions.places else y)))

    # plumbing ---------------------------------------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return math.prod(self.module_.code_shape)

    def _learn_condition(self, raw: Raw, y: Any) -> Raw:
        """Give the rows of ``fit`` what the model is told beside each of them: nothing."""
        return raw

    def _told(self, condition: Any, n: int) -> NDArray[np.float64] | None:
        """Return the codes of a user's condition for ``n`` rows; ``None`` for a model without one."""
        conditions = self.codec_.conditions
        if conditions is None and condition is not None:
            raise TypeError(
                f"{type(self).__name__} was fitted without a condition; leave condition= out, or use ConditionalVAE"
            )
        return None if conditions is None else conditions.read(condition, n)

    def _read(self, X: Any, *, reset: bool, condition: Any = None) -> Raw:
        """Read the user's rows, check them against what ``fit`` saw, and learn names and width when ``reset``.

        ``condition`` is the ``y`` of ``fit`` when ``reset``.
        """
        raw = self._read_rows(X, reset=reset)
        if reset:
            return self._learn_condition(raw, condition)
        if self.codec_.conditions is not None:
            raw = self.codec_.conditions.attach(raw, condition)
        else:
            self._told(condition, len(raw.values))
        return self.codec_.align(raw)

    def _read_rows(self, X: Any, *, reset: bool) -> Raw:
        if isinstance(X, Stream):
            raise TypeError(
                "a Stream is for fit, transform, score_samples and score; for everything else go block by block: "
                "for block in stream: ..."
            )
        kind = self.kind if reset or self.schema_.kind != "series" else "series"
        if reset:
            raw = read(X, kind, None, self.columns, learn=True)
        else:
            table = self.codec_.given
            raw = read(X, kind, table)
            if table is not None and (raw is None or raw.table is None):
                raise ValueError(
                    f"{type(self).__name__} was fitted on a frame with columns {', '.join(table.names[:8])}; "
                    f"expected such a frame, got {type(X).__name__}"
                )
        if raw is None:
            raw = Raw(validate_data(self, X, reset=reset, ensure_all_finite=False), "vector", "numpy")
            if reset:  # else each block of rows is looked at when it is scaled
                refuse_infinity(raw)
            return raw
        if raw.kind == "vector":
            framed = raw.container in ("pandas", "polars", "pyarrow")
            if raw.table is not None and not reset:  # columns were found by name
                return raw
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
            yield part, self.codec_.encode(raw.take(part), dtype, start)

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
        out: Tensor | None = None
        with torch.inference_mode():
            for part, table in self._chunks(raw, dtype):
                if support:
                    check_support(module.likelihood, table, self.codec_, " in X")
                result = pick(module, table.to(device).slice(0, len(table)))
                if out is None:
                    out = torch.empty((len(raw.values), *result.shape[1:]), dtype=result.dtype)
                out[part] = result
        if out is None:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        return out.numpy()

    def _one_by_one(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return a function that rebuilds few rows ``(n, *shape)`` with little ado: of numbers, NaN for a missing cell."""
        module, device = self._ready(torch.float32)
        scaling = self.codec_.scaling

        def rebuild(values: NDArray[Any]) -> NDArray[Any]:
            x = torch.from_numpy(scaling.forward(values, np.float32)).to(device)
            seen = ~torch.isnan(x)
            mask = None if bool(seen.all()) else seen.to(x.dtype)
            batch = Batch(x if mask is None else torch.where(seen, x, 0.0), mask)
            with torch.inference_mode():
                mean = module.likelihood.mean(module.trace(batch, sample=False).raw)
            return scaling.inverse(mean.cpu().numpy())

        return rebuild

    def _decode(
        self, Z: NDArray[Any], condition: NDArray[np.float64] | None = None, *, noise: bool = False
    ) -> NDArray[Any]:
        dtype = self._dtype(Z, resolve_device(self.device))
        module, device = self._ready(dtype)
        rows = max(1, INFERENCE_ELEMENTS // max(1, self.schema_.size))
        context = self.codec_.context(condition, dtype)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(Z), rows):
                z = torch.tensor(Z[start : start + rows], dtype=dtype, device=device).view(-1, *module.code_shape)
                told = None if context is None else context[start : start + rows].to(device)
                raw = module.decode(z, told)
                parts.append((module.likelihood.sample(raw) if noise else module.likelihood.mean(raw)).cpu().numpy())
        return np.concatenate(parts)

    def _log_volume(self, raw: Raw) -> NDArray[np.float64]:
        if not self.module_.likelihood.density or not self.codec_.scaling.log_volume().any():
            return np.zeros(len(raw.values))
        values = raw.values
        mask = None if all_finite(values) else ~np.isnan(values)
        return self.codec_.log_volume(mask, len(values))


def check_support(likelihood: Likelihood, table: Table, codec: ArrayCodec, where: str = "") -> None:
    """Raise where a value lies outside what the likelihood can explain, naming the column."""
    inside = likelihood.supports(table.x)
    if inside is None or bool(inside.all()):
        return
    row, *position = (int(i) for i in (~inside).nonzero()[0])
    flat = int(np.ravel_multi_index(tuple(position), codec.schema.shape))
    value = float(codec.from_scale(table.x[row : row + 1].numpy())[(0, *position)])
    raise ValueError(
        f"{type(likelihood).__name__} needs {likelihood.support}; {codec.schema.feature(flat)} has {value:g}{where}. "
        "Use likelihood='gaussian', or scale='minmax' to bring the data into [0, 1]."
    )


@torch.no_grad()
def mse(module: AutoencoderModule, batch: Batch, codec: ArrayCodec) -> dict[str, float]:
    """Mean squared error over observed cells, in the units of the data."""
    x, mask = batch.x, batch.mask
    mean = module.likelihood.mean(module.trace(batch, sample=False).raw)
    table = codec.table
    if table is not None and len(table.scaled):  # of the numbers; labels alone have the error of their chances
        places = torch.from_numpy(table.starts[table.scaled]).to(x.device)
        x, mean, mask = x[:, places], mean[:, places], None if mask is None else mask[:, places]
    if codec.scaling.quantiles is None:
        squares, width = (mean - x).square(), codec.scaling.width
    else:
        there, here = (codec.scaling.inverse(t.cpu().double().numpy()) for t in (x, mean))
        squares, width = torch.from_numpy(np.square(here - there)).to(mean), np.ones(1)
    if table is not None and not len(table.scaled):
        width = np.ones(1)
    count = x.numel() if mask is None else float(mask.sum())
    each = (squares if mask is None else squares * mask).sum(0).cpu().double().numpy()
    return {"mse": float((each * width**2).sum() / count)} if count else {"mse": 0.0}
