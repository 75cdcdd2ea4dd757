"""The records that flow through the library: what was learned of the data, a batch, a code, a trace, a loss, a history."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Batch", "Code", "Column", "History", "Loss", "Resident", "Schema", "Table", "Trace"]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
        As the user knows it.
    low, high : float
        Range of its observed values in the user's units; of dates in seconds since 1970, of labels their positions.
    kind : str
        ``"number"``, ``"count"``, ``"boolean"``, ``"category"``, ``"ordinal"`` or ``"date"``.
    categories : tuple
        Labels, in the order of their features.
    whole : bool
        Whether all observed numbers are whole, or all dates whole days.
    rest : bool
        Whether the last label stands for all rarer ones too.
    """

    name: str
    low: float
    high: float
    kind: str = "number"
    categories: tuple[Any, ...] = ()
    whole: bool = False
    rest: bool = False

    @property
    def log_range(self) -> float:
        """Of counts, the largest logarithm of one more than a count."""
        return math.log1p(max(self.high, 1.0))

    @property
    def width(self) -> int:
        """Features that the column takes: one for each category, else one."""
        return len(self.categories) if self.kind == "category" else 1


@dataclass(frozen=True)
class Schema:
    """What was learned of the data in ``fit``, and all that networks are sized from.

    Attributes
    ----------
    kind : str
        ``"vector"`` for rows of numbers, ``"image"`` for ``(channels, height, width)``, ``"series"`` for ``(channels, steps)``.
    shape : tuple of int
        Shape of one row as the network sees it.
    n_rows : int
        Rows seen in ``fit``, the validation rows included.
    values : str
        ``"binary"`` when every observed value is 0 or 1 and scaling keeps it so, ``"unit"`` when all scaled values lie in
        [0, 1], else ``"real"``.
    columns : tuple of Column
        Of a table, empty for images and series. A column is one feature, but in a mixed table a category has one for each label.
    context : int
        Width of the condition given to encoder and decoder; 0 without one.
    shared_unit : bool
        Whether all features are in one unit, as pixels are, so that one scale serves for all.
    """

    kind: str
    shape: tuple[int, ...]
    n_rows: int
    values: str = "real"
    columns: tuple[Column, ...] = ()
    context: int = 0
    shared_unit: bool = False

    @property
    def size(self) -> int:
        """Number of features of a row."""
        n = 1
        for length in self.shape:
            n *= length
        return n

    @property
    def mixed(self) -> bool:
        """Whether columns are of several kinds."""
        return any(c.kind != "number" for c in self.columns)

    def owners(self) -> list[tuple[Column, int]]:
        """Return for each feature of a table its column, and its place in it."""
        return [(column, i) for column in self.columns for i in range(column.width)]

    def feature(self, index: int) -> str:
        """Name the feature at a flat ``index`` as a user would: a column, a pixel, or a channel and a step."""
        if self.columns:
            column, place = self.owners()[index]
            return f"column {column.name!r}" + (f" ({column.categories[place]!r})" if column.width > 1 else "")
        position = []
        for length in reversed(self.shape):
            index, remainder = divmod(index, length)
            position.append(remainder)
        if self.kind == "series":
            return f"channel {position[1]}, step {position[0]}"
        return f"pixel {tuple(reversed(position))}" if len(position) > 1 else f"column {position[0]}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """Build a schema from what ``to_json`` returned."""
        columns = tuple(Column(**{**c, "categories": tuple(c.get("categories", ()))}) for c in data["columns"])
        return cls(**{**data, "shape": tuple(data["shape"]), "columns": columns})


class Batch(NamedTuple):
    """Rows as the network sees them."""

    x: Tensor  # (B, *shape), scaled, missing cells filled with 0
    mask: Tensor | None = None  # (B, *shape), 1 where observed
    context: Tensor | None = None  # (B, C)

    def head(self, n: int) -> Batch:
        """Return the first ``n`` rows, as views."""
        return Batch(*(None if t is None else t[:n] for t in self))  # type: ignore[arg-type]

    def split(self, size: int) -> Iterator[Batch]:
        """Cut into batches of ``size`` rows, the rest last, as views."""
        cut: list[Any] = [repeat(None) if t is None else t.split(size) for t in self]  # type: ignore[no-untyped-call]
        return (Batch(*parts) for parts in zip(*cut, strict=False))


class Resident(ABC):
    """Rows in memory, from which batches are cut.

    Attributes
    ----------
    schema : Schema
        What a row looks like.
    """

    schema: Schema

    @abstractmethod
    def __len__(self) -> int:
        """Return how many rows there are."""

    @abstractmethod
    def take(self, index: Tensor) -> Batch:
        """Gather the rows at ``index`` ``(B,)``."""

    @abstractmethod
    def to(self, device: Any) -> Resident:
        """Hand out batches on a device."""

    @abstractmethod
    def contents(self) -> Iterator[NDArray[Any]]:
        """Return the arrays that hold the rows."""

    @abstractmethod
    def parts(self, *, everything: bool) -> Iterator[Table]:
        """Pass over the rows as tables; unless ``everything``, those that are at hand without work will do."""


@dataclass(frozen=True)
class Table(Resident):
    """Rows as tensors. Batches are cut from it by index, whole, never row by row."""

    schema: Schema
    x: Tensor  # (n, *shape)
    mask: Tensor | None = None
    context: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, index: Tensor) -> Batch:
        """Gather the rows at ``index`` ``(B,)``."""
        return Batch(
            self.x.index_select(0, index),
            None if self.mask is None else self.mask.index_select(0, index),
            None if self.context is None else self.context.index_select(0, index),
        )

    def slice(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` as views."""
        return Batch(
            self.x[start:stop],
            None if self.mask is None else self.mask[start:stop],
            None if self.context is None else self.context[start:stop],
        )

    def contents(self) -> Iterator[NDArray[Any]]:
        """Return the arrays that hold the rows."""
        yield from (t.numpy() for t in (self.x, self.mask, self.context) if t is not None)

    def parts(self, *, everything: bool) -> Iterator[Table]:
        """Pass over the rows, all at once."""
        yield self

    def to(self, device: Any) -> Table:
        """Move the tensors to a device."""
        mask = None if self.mask is None else self.mask.to(device)
        context = None if self.context is None else self.context.to(device)
        return Table(self.schema, self.x.to(device), mask, context)


class Code(NamedTuple):
    """What a bottleneck returns."""

    z: Tensor  # (B, D, *grid)
    costs: dict[str, Tensor]  # name -> (B,), weighted nats
    aux: dict[str, Tensor]  # what penalties and diagnostics need, such as mu and logvar


class Trace(NamedTuple):
    """One pass through the model, with everything that a loss or a diagnosis may look at."""

    batch: Batch
    x_in: Tensor  # (B, *shape), what the encoder saw: batch.x, or a corrupted copy
    code: Code
    raw: Tensor  # (B, likelihood.params, *shape)


class Loss(NamedTuple):
    """A loss in nats per row and its named terms, each a scalar."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass
class History:
    """How training went.

    ``history_["val_loss"]`` is the list of a quantity over epochs; losses are nats per row of the scaled data,
    ``mse`` and ``val_mse`` are mean squared errors in the units of the data.

    Attributes
    ----------
    rows : list of dict
        One dict for each epoch.
    events : list of str
        What happened on the way: choices made for the user, a recovery from a non-finite loss, an interrupt.
    stop_reason : str
        Why training ended.
    best_epoch : int
        Epoch (from 1) whose weights the model holds.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    stop_reason: str = ""
    best_epoch: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def keys(self) -> list[str]:
        """Names of the recorded quantities."""
        return list(dict.fromkeys(k for row in self.rows for k in row))

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.keys():
            raise KeyError(f"the history has no {name!r}; it has {', '.join(self.keys()) or 'no epoch yet'}")
        return [row.get(name, float("nan")) for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> History:
        """Build a history from what ``to_json`` returned."""
        return cls(**data)
