"""Imputation: missing cells are filled from the others, observed cells come back untouched."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Any, Literal, Self

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Gt, Lt, check_parameters
from diabolo.data.cells import Type
from diabolo.data.columns import Columns
from diabolo.data.raw import Raw
from diabolo.data.series import write_series
from diabolo.data.sparse import refuse_sparse
from diabolo.data.tables import fill_frame
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.objectives import importance_mean
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.records import Batch
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.fillers import usual_models
from diabolo.tasks.spread import Spread, variance_of
from diabolo.training.device import resolve_device

__all__ = ["Imputer"]

Array = NDArray[Any]


@register
@spec
class Imputer(Saved, OneToOneFeatureMixin, TransformerMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    r"""Fills missing cells with what an autoencoder makes of the observed ones.

    Tables as they come, numbers, images with missing pixels and series with gaps are filled by the same call, also rows that
    were not there in ``fit``. Observed cells come back as they are, to the bit, and columns in their own types.

    A share of the observed cells is hidden from the models. How far their predictions are from these cells says how sure a
    filled cell is: draws add errors of that size, larger in rows of which more is missing.

    How a model fills depends on its kind: a :class:`MaskedAutoencoder` has learned to say what hidden cells are; of a variational
    model :math:`E[x_\text{missing} \mid x_\text{observed}]` is taken over ``n_samples`` draws of the posterior, weighted by
    :math:`p(x_\text{observed} \mid z)\,p(z) / q(z \mid x)` (MIWAE: Mattei and Frellsen, 2019); of any other it is the
    reconstruction. Expectations of several models are averaged.

    {parameters}

    Attributes
    ----------
    models_ : list of BaseAutoencoder
        The fitted models.
    error_ : float
        Error on the hidden cells: the mean of squared errors of numbers, in units of the column's variance, and of 1 for each
        wrong label. Always filling in the mean or the most frequent label has about 1 for numbers.
    candidates_ : dict of str to float
        The error of each model that ``autoencoder`` offers, where it offers several.

    References
    ----------
    Mattei and Frellsen, MIWAE: deep generative modelling and imputation of incomplete data sets, ICML 2019, arXiv:1812.02633.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import Imputer, MaskedAutoencoder
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6))
    >>> holes = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    >>> imputer = Imputer(MaskedAutoencoder(max_epochs=20), n_models=1, random_state=0).fit(holes)
    >>> full = imputer.transform(holes)
    >>> bool(np.isfinite(full).all() and (full == X)[~np.isnan(holes)].all())
    True
    >>> len(imputer.draw(holes, 5, random_state=0))
    5
    """

    autoencoder: Annotated[
        BaseAutoencoder | tuple[BaseAutoencoder, ...] | None,
        "the model, or models, that fill; None is MaskedAutoencoder(likelihood='learned_gaussian') for images and series, and "
        "for tables of numbers an IWAE beside it",
    ] = field(default=None, kw_only=False)
    combine: Annotated[
        Literal["average", "best"],
        "what is made of several models: their expectations are averaged, or the one with the least error on hidden cells is "
        "taken",
    ] = "average"
    strategy: Annotated[
        Literal["mean", "median", "draw"],
        "what is filled in: the expected number, its median, or a draw with the spread that it has; of labels the most likely "
        "one, or a draw",
    ] = "mean"
    n_draws: Annotated[
        int | None,
        Ge(1),
        "None returns one completed X; a number returns a list of so many, each filled with draws (multiple imputation)",
    ] = None
    n_models: Annotated[
        int, Ge(1), "models of each kind, which differ in their seeds; their expectations are averaged"
    ] = 1
    n_samples: Annotated[int, Ge(1), "draws of the posterior that a variational model averages over"] = 200
    calibration_fraction: Annotated[
        float, Gt(0), Lt(1), "share of the observed cells that is hidden, to measure errors by"
    ] = 0.05
    random_state: Annotated[
        int | np.random.RandomState | None, "seed of hidden cells, models and draws; None takes fresh entropy"
    ] = None

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn how cells go together.

        Parameters
        ----------
        X : array, frame, tensor or list of series
            Rows, with NaN, None or another missing value of its library where a cell is missing.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        offered = self._offered()
        for model in offered:
            check_parameters(model)
            if get_tags(model).target_tags.required:
                raise ValueError(f"Imputer fills rows by X alone, and {type(model).__name__} is conditioned on y")
        refuse_sparse(X)
        raw = offered[0]._read(X, reset=True)
        if self.autoencoder is None:
            offered = usual_models(raw.kind, *raw.values.shape[:2], mixed=raw.table is not None)
        seed = draw_seed(self.random_state)
        rng = np.random.default_rng(seed)
        if raw.conditions is not None:
            raise ValueError("Imputer fills all columns; use a model that takes none of them as a condition")
        seen = raw.values[:1] if raw.kind != "vector" else raw.values
        with np.errstate(invalid="ignore"):
            self.whole_ = np.array([bool((v[~np.isnan(v)] % 1 == 0).all()) for v in seen.astype(np.float64).T])
        hidden = self._hide(raw, rng)
        values = np.array(raw.values, dtype=np.result_type(raw.values.dtype, np.float32))
        values[hidden] = np.nan
        holes = raw._replace(values=values)
        self.seed_, self.candidates_ = seed, {}
        fitted: dict[str, list[BaseAutoencoder]] = {}
        for model in offered:
            name = type(model).__name__
            name += f" {sum(k.split()[0] == name for k in fitted) + 1}" if name in fitted else ""
            fitted[name] = self._fit_models(model, X, holes, rng)
            if len(offered) > 1:
                self.models_ = fitted[name]
                self.candidates_[name] = self._measure(raw, holes, hidden)
        best = (
            min(self.candidates_, key=self.candidates_.__getitem__)
            if self.combine == "best" and self.candidates_
            else None
        )
        self.models_ = [m for name, models in fitted.items() if best in (None, name) for m in models]
        self._measure(raw, holes, hidden)
        return self

    def transform(self, X: Any) -> Any:
        """Fill missing cells.

        Parameters
        ----------
        X : array, frame, tensor or list of series
            Rows as in ``fit``, or others.

        Returns
        -------
        array, frame, tensor or list of series, or a list of ``n_draws`` of them
            ``X`` with its missing cells filled, in its own kind and types. Whole numbers stay whole; numbers lie in the range
            seen in ``fit``.
        """
        check_is_fitted(self, "models_")
        if self.n_draws is not None:
            return self.draw(X, self.n_draws)
        if self.strategy == "draw":
            return self.draw(X, 1)[0]
        raw = self._read(X)
        features = self._expect(raw)
        if self.strategy == "median":
            features = features + self.spread_.median * self.spread_.of(self._share(raw))
        return self._complete(X, raw, features)

    def draw(self, X: Any, n_draws: int = 1, *, random_state: Any = None) -> list[Any]:
        """Fill missing cells several times, each time with a draw of what they may be (multiple imputation).

        Parameters
        ----------
        X : array, frame, tensor or list of series
            Rows.
        n_draws : int
            How often.
        random_state : int, RandomState or None
            Seed of the draws; ``None`` is the same draws at every call, from the seed of ``fit``.

        Returns
        -------
        list of array, frame, tensor or list of series
            Completed copies of ``X``. A number is the expected one plus an error as large as those on hidden cells of its column
            were; a label is drawn by its chance.
        """
        check_is_fitted(self, "models_")
        raw = self._read(X)
        expected, spread = self._expect(raw), self.spread_.of(self._share(raw))
        rng = np.random.default_rng(self.seed_ + 1 if random_state is None else draw_seed(random_state))
        table = self.models_[0].codec_.table
        completed = []
        for _ in range(n_draws):
            features = expected + spread * rng.choice(self.spread_.shape, size=expected.shape)
            if table is not None:
                for column, start in zip(table.columns, table.starts, strict=True):
                    place = slice(start, start + column.width)
                    chances = expected[:, place]
                    if column.kind == "boolean":
                        features[:, place] = rng.random(chances.shape) < chances
                    elif column.kind == "category":
                        drawn = (rng.random((len(chances), 1)) > chances.cumsum(axis=1)).sum(axis=1)
                        features[:, place] = np.eye(column.width)[np.minimum(drawn, column.width - 1)]
            completed.append(self._complete(X, raw, features))
        return completed

    def uncertainty(self, X: Any) -> Any:
        """Tell which cells are filled and how sure that is.

        Parameters
        ----------
        X : array, frame, tensor or list of series
            Rows.

        Returns
        -------
        array or frame
            In the shape of ``X``: of a filled number its standard error in the units of the data, of a filled label the chance
            that it is another; NaN where a cell is observed.
        """
        check_is_fitted(self, "models_")
        raw = self._read(X)
        codec = self.models_[0].codec_
        features = self._expect(raw)
        spread = self.spread_.of(self._share(raw)) * self.spread_.shape.std()
        unsure = spread
        if codec.table is not None:
            unsure = np.empty((len(features), len(codec.table.columns)))
            for j, (column, start) in enumerate(zip(codec.table.columns, codec.table.starts, strict=True)):
                chances = features[:, start : start + column.width]
                if column.kind == "boolean":
                    unsure[:, j] = np.minimum(chances[:, 0], 1 - chances[:, 0])
                elif column.kind == "category":
                    unsure[:, j] = 1 - chances.max(axis=1)
                elif column.kind == "ordinal":
                    unsure[:, j] = spread[:, start] * (len(column.categories) - 1)
                elif column.kind == "count":  # of a logarithm
                    unsure[:, j] = spread[:, start] * column.log_range * np.exp(chances[:, 0] * column.log_range)
                else:
                    unsure[:, j] = spread[:, start]
        told = np.where(np.isnan(raw.values), unsure, np.nan)
        return codec.present(told, raw.container, raw.index, raw)

    def score(self, X: Any, y: Any = None, *, mask: Any = None) -> float:
        """Hide cells of ``X`` that are known, fill them, and compare.

        Parameters
        ----------
        X : array, frame, tensor or list of series
            Rows.
        y : None
            Ignored.
        mask : array of bool in the shape of X, optional
            Which cells to hide; by default a tenth of the observed ones, the same at every call. Cells that are missing in ``X``
            are left out.

        Returns
        -------
        float
            1 less the error, as ``error_`` is measured: 1 is perfect, and for numbers 0 is what the column's mean reaches.
        """
        check_is_fitted(self, "models_")
        raw = self._read(X)
        known = ~np.isnan(raw.values)
        if mask is None:
            hidden = known & (np.random.default_rng(self.seed_).random(known.shape) < 0.1)
        else:
            told = np.asarray(nw.from_native(mask, eager_only=True).to_numpy() if hasattr(mask, "columns") else mask)
            if told.shape != known.shape or told.dtype != bool:
                raise ValueError(
                    f"mask has shape {told.shape} and type {told.dtype}; expected booleans of shape {known.shape}"
                )
            hidden = known & told
        if not hidden.any():
            raise ValueError("there is no observed cell to hide; give a mask, or more rows")
        values = np.array(raw.values, dtype=np.result_type(raw.values.dtype, np.float32))
        values[hidden] = np.nan
        found = self._cells(self._expect(raw._replace(values=values)))
        return 1.0 - self._error(raw.values, found, hidden)

    @classmethod
    def around(cls, model: BaseAutoencoder) -> Imputer:
        """Return an imputer that fills cells with what one fitted model makes of the others.

        It does not know how sure that is: draws are expectations, and ``uncertainty`` is 0.
        """
        check_is_fitted(model)
        if model.codec_.conditions is not None:
            raise ValueError(
                "Imputer fills all columns, and the model takes some as a condition; use a model without one"
            )
        imputer = cls(model, n_models=1)
        imputer.models_, imputer.seed_, imputer.candidates_ = [model], model.seed_, {}
        shape = model.schema_.shape
        imputer.spread_, imputer.error_ = Spread(np.zeros(shape), np.ones(1), np.zeros(0), np.zeros(1)), float("nan")
        cells = shape if model.codec_.table is None else (len(model.codec_.table.columns),)
        imputer.variance_ = np.ones(cells)
        imputer.whole_ = np.array([c.whole for c in model.schema_.columns])
        return imputer

    # fitting ----------------------------------------------------------------------------------------------------------------

    def _offered(self) -> list[BaseAutoencoder]:
        if self.autoencoder is None:
            return usual_models("image", 0, 0)
        several = isinstance(self.autoencoder, tuple | list)
        offered = [clone(m) for m in (self.autoencoder if several else (self.autoencoder,))]
        if not offered:
            raise ValueError("autoencoder=() offers no model; give one, or None")
        return offered

    def _hide(self, raw: Raw, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Choose observed cells to hide: no column or channel loses all it has."""
        known = ~np.isnan(raw.values) if raw.values.dtype.kind == "f" else np.ones(raw.values.shape, dtype=bool)
        hidden = known & (rng.random(known.shape) < self.calibration_fraction)
        left = (known & ~hidden).reshape(len(known), -1)
        bare = ~left.any(axis=0)
        hidden.reshape(len(known), -1)[:, bare] = False
        return hidden

    def _fit_models(
        self, model: BaseAutoencoder, X: Any, holes: Raw, rng: np.random.Generator
    ) -> list[BaseAutoencoder]:
        models = []
        for _ in range(self.n_models):
            member = clone(model)
            if self.n_models > 1 or member.random_state is None or self.random_state is not None:
                member.set_params(random_state=int(rng.integers(2**31)))
            member._read(X, reset=True)
            models.append(member._fit(holes))
        return models

    def _measure(self, raw: Raw, holes: Raw, hidden: NDArray[np.bool_]) -> float:
        """Learn from the errors on hidden cells how unsure filled cells are; return the mean error."""
        codec = self.models_[0].codec_
        known, grid = holes.values, codec.schema.kind != "vector"
        self.variance_ = variance_of(known, grid)
        expected = self._expect(holes)
        wrong = np.where(self._each(hidden), codec.flat(raw.values) - expected, np.nan)
        width = np.sqrt(variance_of(codec.flat(known), grid))
        self.spread_ = Spread.learn(wrong, width, self._share(holes), self._numbers(), pooled=grid)
        self.error_ = self._error(raw.values, self._cells(expected), hidden)
        return self.error_

    def _numbers(self) -> Array:
        """Return the features that are numbers."""
        table = self.models_[0].codec_.table
        if table is None:
            return np.arange(self.models_[0].schema_.size)
        places = table.starts[[c.kind in ("number", "count", "date", "ordinal") for c in table.columns]]
        return np.asarray(places if len(places) else np.arange(table.width))

    def _error(self, truth: Array, found: Array, hidden: NDArray[np.bool_]) -> float:
        table = self.models_[0].codec_.table
        with np.errstate(invalid="ignore"):
            off = np.square(found - truth) / self.variance_
            if table is not None:
                labels = [c.kind in ("category", "boolean") for c in table.columns]
                off[:, labels] = found[:, labels] != truth[:, labels]
        return float(off[hidden].mean()) if hidden.any() else float("nan")

    # filling ----------------------------------------------------------------------------------------------------------------

    def _read(self, X: Any) -> Raw:
        refuse_sparse(X)
        raw = self.models_[0]._read(X, reset=False)
        return raw if raw.values.dtype.kind == "f" else raw._replace(values=raw.values.astype(np.float64))

    def _each(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Spread a mark of each column over its features."""
        table = self.models_[0].codec_.table
        return cells if table is None else cells[:, table.owner]

    def _share(self, raw: Raw) -> Array:
        return np.asarray(np.isnan(raw.values).reshape(len(raw.values), -1).mean(axis=1))

    def _expect(self, raw: Raw) -> Array:
        """Return expected features of all cells in the user's units, by all models; of labels their chances."""
        each = (model.codec_.from_scale(self._mean(model, raw)) for model in self.models_)
        total = np.array(next(each), dtype=np.float64)
        for features in each:
            total += features
        return total / len(self.models_)

    def _mean(self, model: BaseAutoencoder, raw: Raw) -> Array:
        bottleneck = model.module_.bottleneck
        if type(bottleneck).log_ratio is not Bottleneck.log_ratio:
            with seeded(self.seed_, resolve_device(model.device)):
                return model._apply(raw, lambda module, batch: importance_mean(module, batch, self.n_samples))

        def mean(module: AutoencoderModule, batch: Batch) -> Tensor:
            return module.likelihood.mean(module.trace(batch, sample=False).raw)

        return model._apply(raw, mean)

    def _cells(self, features: Array) -> Array:
        """Turn features into cells, within the range seen in fit."""
        codec = self.models_[0].codec_
        if codec.table is not None:
            return codec.table.bound(codec.table.collapse(features))
        if codec.schema.columns:
            low, high = (np.array([getattr(c, k) for c in codec.schema.columns]) for k in ("low", "high"))
            return np.clip(features, low, high)
        return features

    def _complete(self, X: Any, raw: Raw, features: Array) -> Any:
        """Return the user's rows with their missing cells filled."""
        cells = self._cells(features)
        gone = np.isnan(raw.values)
        if raw.container in ("pandas", "polars", "pyarrow") and raw.kind == "vector":
            return fill_frame(X, self._columns(X), cells, gone)
        values = np.where(gone, cells.astype(raw.values.dtype), raw.values)
        if raw.kind == "series":
            return write_series(values, raw.container, raw, raw.drop_channel)  # steps after the end of one are no gaps
        if isinstance(X, torch.Tensor):
            filled = X.detach().clone()
            if filled.is_floating_point() and gone.any():
                shaped = values[:, 0] if raw.drop_channel else values
                there = torch.from_numpy(np.ascontiguousarray(shaped)).to(filled)
                filled = torch.where(torch.isnan(filled), there.reshape(filled.shape), filled)
            return filled
        if not gone.any() and isinstance(X, np.ndarray) and not isinstance(X, np.ma.MaskedArray):
            return X.copy()
        return self.models_[0].codec_.present(values, raw.container, raw.index, raw)

    def _columns(self, X: Any) -> Columns:
        """Say how the columns of a frame are written."""
        codec = self.models_[0].codec_
        if codec.table is not None:
            return codec.table
        frame = nw.from_native(X, eager_only=True)
        columns = [replace(c, whole=bool(w)) for c, w in zip(codec.schema.columns, self.whole_, strict=True)]
        return Columns(columns, [Type.of(frame.get_column(name)) for name in frame.columns])

    # the rest of the estimator ----------------------------------------------------------------------------------------------

    @property
    def n_features_in_(self) -> int:
        """Features of a row."""
        check_is_fitted(self, "models_")
        return int(self.models_[0].n_features_in_)

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Column names, where ``fit`` saw a frame."""
        names: NDArray[Any] = self.models_[0].feature_names_in_
        return names

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        learned = {"variance": self.variance_, "whole": self.whole_, **vars(self.spread_)}
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64)) for k, v in learned.items()}
        return {"seed": self.seed_, "error": self.error_, "candidates": self.candidates_}, tensors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        arrays = {k: v.numpy() for k, v in tensors.items() if "." not in k}
        self.variance_, self.whole_ = arrays.pop("variance"), arrays.pop("whole")
        self.spread_ = Spread(**arrays)
        self.seed_, self.error_, self.candidates_ = meta["seed"], meta["error"], meta["candidates"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
