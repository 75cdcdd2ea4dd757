"""Where the loop gets its rows from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from diabolo.records import Batch, Resident, Schema

__all__ = ["Rows", "Selection"]

GATHERED = 2**18  # numbers that are gathered at a time: what a core keeps near


class Rows(ABC):
    """Rows to learn from or to judge by, wherever they lie.

    Attributes
    ----------
    schema : Schema
        What a row looks like.
    """

    schema: Schema

    @abstractmethod
    def __len__(self) -> int:
        """Return how many there are."""

    @abstractmethod
    def shuffled(self, size: int) -> Iterator[Batch]:
        """Pass over all rows once, in an order drawn from torch's generator, ``size`` at a time and the rest last.

        No batch has a single row, because batch normalisation needs two: one more row is seen twice.
        """

    @abstractmethod
    def in_order(self, size: int) -> Iterator[Batch]:
        """Pass over all rows once, in the same order each time, up to ``size`` at a time."""

    @abstractmethod
    def head(self, n: int) -> Batch:
        """Return up to ``n`` rows that stand for all, the same each time."""


class Selection(Rows):
    """Rows of a resident table.

    Parameters
    ----------
    table : Resident
        All rows.
    index : Tensor of int64, of shape (n,)
        Which of them, in random order.
    """

    def __init__(self, table: Resident, index: Tensor):
        self.schema, self.table, self.index = table.schema, table, index

    def __len__(self) -> int:
        return len(self.index)

    def shuffled(self, size: int) -> Iterator[Batch]:
        """Pass over all rows in random order; rows of many small batches are gathered at once."""
        order = self.index[torch.randperm(len(self.index)).to(self.index.device)]
        if size == 1:
            order, size = order.repeat_interleave(2), 2
        elif len(order) % size == 1:
            order = torch.cat([order, order[:1]])
        many = size * max(1, GATHERED // (size * max(1, self.schema.size)))
        for start in range(0, len(order), many):
            yield from self.table.take(order[start : start + many]).split(size)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Pass over the rows as they are numbered."""
        for start in range(0, len(self.index), size):
            yield self.table.take(self.index[start : start + size])

    def head(self, n: int) -> Batch:
        """Return the first ``n``."""
        return self.table.take(self.index[:n])
