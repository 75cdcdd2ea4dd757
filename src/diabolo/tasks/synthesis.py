"""Synthetic tables: rows that are like those of a table, and none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from diabolo.checks import Ge, Gt, Lt, check_parameters
from diabolo.data.columns import Columns
from diabolo.data.raw import Raw, refuse_infinity
from diabolo.data.tables import fill_frame, is_frame
from diabolo.declare import register, spec
from diabolo.generation import in_blocks
from diabolo.records import Column, History, Schema, Table
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.autoregressive import nats
from diabolo.tasks.bins import Bins
from diabolo.tasks.cellwise import CellModel, CellNetwork
from diabolo.tasks.constraints import Limits, place_of, read_limits
from diabolo.training.device import resolve_device
from diabolo.training.loop import Settings, train
from diabolo.training.rows import Selection

__all__ = ["TableSynthesizer"]

Array = NDArray[Any]
ROUNDS = 30  # how often rows that repeat others are drawn again
LEAST_BINS, MOST_BINS = 8, 100


@register
@spec
class TableSynthesizer(Saved, BaseEstimator):  # type: ignore[misc]
    r"""Makes new rows of a table: of numbers, labels, booleans, dates and missing cells, one column given those before it.

    Each column becomes classes: labels stay what they are, numbers are cut into bins of about as many rows (values that many rows
    share have a bin of their own), and a missing cell is a class. A network learns to tell each cell from any others, whichever
    these are. A row is drawn cell by cell in a random order, each from what the network says of it given the cells that are
    there,

    .. math:: p(x) = \prod_{i=1}^d p\big(x_{o_i} \mid x_{o_1}, \dots, x_{o_{i-1}}\big)

    and a number is drawn from within its bin. So the same model completes rows of which any cells are known, makes rows of a
    given class, and keeps to bounds: known and constrained cells come first.

    {parameters}

    Attributes
    ----------
    module_ : CellNetwork
        The network.
    history_ : History
        Nats per row over the epochs.
    n_rows_ : int
        That were learned from.
    bins_ : list of Bins
        The classes of each column.

    References
    ----------
    Uria, Murray and Larochelle, A deep and tractable density estimator, ICML 2014, arXiv:1310.1757 (one model for all orders).

    Gulati and Roysdon, TabMT: generating tabular data with masked transformers, NeurIPS 2023, arXiv:2312.06089.

    Examples
    --------
    >>> import pandas as pd
    >>> from diabolo import TableSynthesizer
    >>> people = pd.DataFrame({"age": [31, 45, 28, 60] * 30, "city": ["Oslo", "Rome", "Lima", "Rome"] * 30})
    >>> synthesizer = TableSynthesizer(max_epochs=5, random_state=0).fit(people)
    >>> new = synthesizer.sample(50, condition={"city": "Rome"}, bounds={"age": (40, 70)}, random_state=0)
    >>> set(new["city"]), bool(new["age"].between(40, 70).all())
    ({'Rome'}, True)
    """

    n_bins: Annotated[
        int | Literal["auto"],
        Ge(2),
        "bins of a column of numbers with more values than that; 'auto' is the root of the number of rows, from 8 to 100",
    ] = field(default="auto", kw_only=False)
    columns: Annotated[
        dict[str, str] | None,
        "kinds of columns of a frame by name, where they are not what their types say: 'number', 'count', 'boolean', "
        "'category', 'ordinal' or 'date'",
    ] = None
    width: Annotated[
        int | Literal["auto"], Ge(1), "of the network's layers; 'auto' is 64 to 256, by the number of rows"
    ] = "auto"
    dropout: Annotated[float, Ge(0), Lt(1), "share of the network's hidden units dropped in training"] = 0.1
    max_epochs: Annotated[int, Ge(1), "epochs of training"] = 40
    learning_rate: Annotated[float, Gt(0), "step size after warm-up"] = 1e-3
    device: Annotated[str, "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps', to learn on; rows are drawn on the CPU"] = "auto"
    verbose: Annotated[Literal[0, 1, 2], "what is shown while training, as for models"] = 0
    random_state: Annotated[int | np.random.RandomState | None, "seed"] = None

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn how cells of a table go together.

        Parameters
        ----------
        X : frame or array of shape (n, columns)
            A table; NaN, None or another missing value of its library where a cell is missing.
        y : None
            Ignored: a column to predict is a column like all others.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        values = self._read(X, reset=True)
        self.n_rows_ = n = len(values)
        n_bins = int(np.clip(np.sqrt(n), LEAST_BINS, MOST_BINS)) if self.n_bins == "auto" else self.n_bins
        self.bins_ = [Bins.learn(c, v, n_bins) for c, v in zip(self._columns(values), values.T, strict=True)]
        codes = np.column_stack([b.encode(v) for b, v in zip(self.bins_, values.T, strict=True)])
        codes = np.where(codes < 0, [len(b.knots) for b in self.bins_], codes)  # a missing cell is a class
        device, seed = resolve_device(self.device), draw_seed(self.random_state)
        settings = Settings(
            self.max_epochs,
            int(np.clip(n // 16, 32, 512)),
            self.learning_rate,
            weight_decay=0.01,
            gradient_clip=5.0,
            device=device,
            verbose=self.verbose,
        )
        x = torch.from_numpy(codes.astype(np.int32))
        rows = Table(Schema("vector", (len(self.bins_),), n), x).to(device)
        every = torch.arange(n, device=device)
        width = int(np.clip(2 ** round(np.log2(3 * np.sqrt(n))), 64, 256)) if self.width == "auto" else self.width
        with seeded(seed, device):
            module = self._network(width).to(device)
            # no rows are held out: they would choose weights by chance, of which some have shares that are off
            self.history_ = train(
                module,  # type: ignore[arg-type]  # the objective is all that runs it
                Selection(rows, every),
                Selection(rows, every[:0]),
                nats,
                settings,
            )
        self.module_ = module.cpu().eval()
        return self

    def sample(
        self,
        n: int = 1,
        *,
        condition: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
        allowed: Mapping[str, Sequence[Any]] | None = None,
        unique: Sequence[str] | bool = (),
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> Any:
        """Make new rows.

        Parameters
        ----------
        n : int
            How many.
        condition : mapping from column to value, optional
            What all rows have; everything else is drawn given that.
        bounds : mapping from column to (low, high), optional
            Numbers, or for dates whatever the column holds, that cells must lie between, both included; None for an open side.
            Such cells are not missing.
        allowed : mapping from column to values, optional
            Labels that cells must have one of.
        unique : sequence of column, or bool
            Columns in which no value comes twice; ``True`` means that no row comes twice.
        temperature : float
            Below 1 likely cells become likelier, above 1 rare ones.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        frame or array
            ``n`` rows like those of ``fit``, in their types.

        Raises
        ------
        ValueError
            When a column or a label is unknown, a constraint cannot be met by any value seen in ``fit``, or there are not as many
            different values as rows.
        """
        check_is_fitted(self, "module_")
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: expected a number above 0")
        limits = read_limits(self.bins_, self._table, condition, bounds, allowed)
        repeated = [] if isinstance(unique, bool) else self._places(unique)
        rng = np.random.default_rng(draw_seed(random_state))
        values = self._draw(np.full((n, len(self.bins_)), np.nan), limits, temperature, rng)
        if unique:
            self._make_unique(values, repeated, limits, temperature, rng)
        return self._write(values)

    def sample_blocks(self, n: int, *, rows: int = 10_000, random_state: Any = None, **options: Any) -> Iterator[Any]:
        """Make new rows block by block, so that any number of them takes no more memory than one block.

        Parameters
        ----------
        n : int
            How many in all.
        rows : int
            How many in a block; the last may be smaller.
        random_state : int, RandomState or None
            Seed; with an int the blocks are the same at every call.
        **options
            As in :meth:`sample`; what is unique is so within a block.

        Yields
        ------
        frame or array
            Blocks as from :meth:`sample`.
        """
        yield from in_blocks(self.sample, n, rows, random_state, options)

    def complete(self, X: Any, n: int = 1, *, temperature: float = 1.0, random_state: Any = None) -> list[Any]:
        """Fill rows that are known in part, each time otherwise.

        Parameters
        ----------
        X : frame or array
            Rows as in ``fit``, missing cells to be filled.
        n : int
            How many times.
        temperature : float
            As in :meth:`sample`.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        list of frames or arrays
            ``n`` of them. Cells that were there are untouched; filled ones are never missing.
        """
        check_is_fitted(self, "module_")
        if n < 1:
            raise ValueError(f"n={n}: expected at least 1")
        values = self._read(X, reset=False)
        gone = np.isnan(values)
        rng = np.random.default_rng(draw_seed(random_state))
        limits = Limits.none(self.bins_, missing=False)
        out = []
        for _ in range(n):
            drawn = self._draw(values, limits, temperature, rng)
            if self._table is not None:
                out.append(fill_frame(X, self._table, drawn, gone))
            else:
                out.append(np.where(gone, drawn, np.asarray(X, dtype=np.result_type(values, np.float32))))
        return out

    def balance(self, X: Any, by: str, *, random_state: Any = None) -> Any:
        """Add new rows of rare classes, until all classes are as frequent as the most frequent one.

        Parameters
        ----------
        X : frame
            Rows as in ``fit``.
        by : str
            A column of labels.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        frame
            The rows of ``X``, and after them the new ones. Rows whose class is missing count for none.
        """
        check_is_fitted(self, "module_")
        place = self._places((by,))[0]
        labels = self.bins_[place].labels
        if labels is None or self._table is None:
            raise ValueError(f"column {by!r} holds numbers; rows are balanced by a column of labels of a frame")
        values = self._read(X, reset=False)
        counts = [int((values[:, place] == k).sum()) for k in range(len(labels))]
        rng = np.random.default_rng(draw_seed(random_state))
        parts = [
            self._draw(np.full((more, len(self.bins_)), np.nan), limits, 1.0, rng)
            for k, more in enumerate(max(counts) - np.array(counts))
            if more and counts[k]
            for limits in [read_limits(self.bins_, self._table, {by: labels[k]}, None, None)]
        ]
        if not parts:
            return X
        frame = nw.from_native(X, eager_only=True)
        added = nw.from_native(self._write(np.concatenate(parts)), eager_only=True).select(frame.columns)
        return nw.concat([frame, added], how="vertical").to_native()

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Log-probability of each row's classes, drawn in the order of the columns: nats, higher is likelier.

        Parameters
        ----------
        X : frame or array
            Rows as in ``fit``.

        Returns
        -------
        ndarray of shape (n,)
            Nats. Over all rows that there could be, probabilities sum to one.
        """
        check_is_fitted(self, "module_")
        codes = self._encode(self._read(X, reset=False), missing=True)
        return CellModel(self.module_).log_prob(codes)

    # reading and writing ----------------------------------------------------------------------------------------------------

    def _read(self, X: Any, *, reset: bool) -> Array:
        """Return cells as numbers ``(n, columns)``, NaN where they are missing."""
        if not is_frame(X):
            if not reset and self._table is not None:
                raise ValueError(
                    f"{type(self).__name__} was fitted on a frame; expected such a frame, got {type(X).__name__}"
                )
            values = validate_data(self, X, reset=reset, ensure_all_finite=False, dtype="numeric")
            if reset:
                self._container, self._integers = "numpy", values.dtype.kind in "iub"
                self._table: Columns | None = None
            values = values.astype(np.float64)
            refuse_infinity(Raw(values, "vector", "numpy"))
            empty = np.flatnonzero(np.isnan(values).all(axis=0))
            if reset and len(empty):
                raise ValueError(f"column {empty[0]} has no observed value. Drop it before fit.")
            return np.asarray(values)
        frame = nw.from_native(X, eager_only=True)
        if reset:
            if not len(frame):
                raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
            self._table = Columns.learn(frame, self.columns)
            self._container, self._integers = str(frame.implementation.value), False
            self.n_features_in_ = len(self._table.columns)
            self.feature_names_in_ = np.array(self._table.names, dtype=object)
        if self._table is None:
            validate_data(self, X, reset=False, skip_check_array=True)
            return np.asarray(frame.to_numpy(), dtype=np.float64)
        return self._table.read(frame)[0]

    def _columns(self, values: Array) -> Sequence[Column]:
        if self._table is not None:
            return self._table.columns
        return [Column(str(j), float(np.nanmin(v)), float(np.nanmax(v))) for j, v in enumerate(values.T)]

    def _write(self, values: Array) -> Any:
        if self._table is not None:
            return self._table.write(values, self._container)
        return values.astype(np.int64) if self._integers and not np.isnan(values).any() else values

    def _places(self, names: Sequence[str]) -> list[int]:
        if isinstance(names, str):
            raise TypeError(f"expected a sequence of column names, got the text {names!r}: write ({names!r},)")
        return [place_of(self.bins_, name) for name in names]

    def _encode(self, values: Array, *, missing: bool) -> NDArray[np.int64]:
        """Return classes; a missing cell is -1, or with ``missing`` its class where the column has one."""
        codes = np.column_stack([b.encode(v) for b, v in zip(self.bins_, values.T, strict=True)])
        for j, b in enumerate(self.bins_):
            gone = codes[:, j] < 0
            if missing and gone.any():
                if not b.missing:
                    raise ValueError(f"column {b.name!r} has missing cells, and had none in fit")
                codes[gone, j] = len(b.knots)
        return codes

    # drawing ----------------------------------------------------------------------------------------------------------------

    def _draw(self, values: Array, limits: Limits, temperature: float, rng: np.random.Generator) -> Array:
        """Fill what is missing in rows of cells."""
        out = values.copy()
        for j, value in limits.given.items():
            out[:, j] = value
        codes = self._encode(out, missing=False)
        for j in limits.empty:
            codes[:, j] = len(self.bins_[j].knots)
        unknown = codes < 0
        CellModel(self.module_).fill(codes, limits.weights, temperature, rng)
        for j, b in enumerate(self.bins_):
            rows = np.flatnonzero(unknown[:, j])
            out[rows, j] = b.decode(codes[rows, j], rng, limits.bounds.get(j))
        return out

    def _make_unique(
        self, values: Array, columns: Sequence[int], limits: Limits, temperature: float, rng: np.random.Generator
    ) -> None:
        """Draw rows that repeat others again, until none does."""
        for _ in range(ROUNDS):
            again = _repeats(values, columns)
            if not len(again):
                return
            values[again] = self._draw(np.full((len(again), values.shape[1]), np.nan), limits, temperature, rng)
        again = _repeats(values, columns)
        if len(again):
            what = ", ".join(repr(self.bins_[j].name) for j in columns)
            raise ValueError(
                f"{len(again)} of {len(values)} rows still repeat others{' in ' + what if what else ''} after {ROUNDS} draws: "
                "there are too few different values. Ask for fewer rows, or leave unique out"
            )

    def _network(self, width: int) -> CellNetwork:
        bins = [0 if b.labels else len(b.knots) for b in self.bins_]
        return CellNetwork([b.size for b in self.bins_], bins, width, self.dropout)

    # files ------------------------------------------------------------------------------------------------------------------

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta = {
            "bins": [b.to_json() for b in self.bins_],
            "table": None if self._table is None else self._table.whole_json(),
            "container": self._container,
            "integers": self._integers,
            "n_features_in": self.n_features_in_,
            "feature_names_in": list(getattr(self, "feature_names_in_", [])) or None,
            "n_rows": self.n_rows_,
            "width": self.module_.place.shape[1],
            "history": self.history_.to_json(),
        }
        tensors = {f"knots.{j}": torch.from_numpy(b.knots.copy()) for j, b in enumerate(self.bins_)}
        return meta, tensors | {f"module.{k}": v for k, v in self.module_.state_dict().items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.bins_ = [Bins.from_json(b, tensors[f"knots.{j}"].numpy()) for j, b in enumerate(meta["bins"])]
        self._table = None if meta["table"] is None else Columns.from_whole_json(meta["table"])
        self._container, self._integers = meta["container"], meta["integers"]
        self.n_features_in_ = meta["n_features_in"]
        if meta["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)
        self.n_rows_, self.history_ = meta["n_rows"], History.from_json(meta["history"])
        self.module_ = self._network(meta["width"]).eval()
        self.module_.load_state_dict(
            {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _repeats(values: Array, columns: Sequence[int]) -> NDArray[np.int64]:
    """Return rows that repeat an earlier one in one of some columns, or as a whole where there are none."""
    found = np.zeros(len(values), dtype=bool)
    for part in [values[:, [j]] for j in columns] or [values]:
        filled = np.where(np.isnan(part), -np.inf, part)
        first = np.unique(filled, axis=0, return_index=True)[1]
        found |= ~np.isin(np.arange(len(values)), first) & ~np.isnan(part).all(axis=1)
    return np.flatnonzero(found)
