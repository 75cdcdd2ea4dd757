"""Rows of a stream for the loop: blocks in random order, several of them mixed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from diabolo.data.arrays import ArrayCodec
from diabolo.data.raw import Raw, all_finite
from diabolo.data.stream import Stream
from diabolo.records import Batch, Schema, Table
from diabolo.training.rows import Rows, Selection

__all__ = ["StreamedRows", "set_aside"]

MIXED = 8  # share of the memory that mixed rows take, as its divisor: they are there twice while they are shuffled
HELD = 16  # the same of the rows that are held out


class StreamedRows(Rows):
    """Rows of a stream that are not held out.

    A window of blocks, in random order, is read and encoded, its rows are shuffled and cut into batches; what does not fill a
    batch goes into the next window. One thread reads ahead.

    Parameters
    ----------
    stream : Stream
        All rows.
    codec : ArrayCodec
        What makes tensors of them.
    sizes : list of int
        Rows of each block.
    held : list of Tensor of int64
        Of each block the rows that are not trained on.
    sample : Batch
        Some of the others from everywhere.
    masked : bool
        Whether any cell of the stream is missing.
    device : torch.device
        Where batches are wanted.
    """

    def __init__(
        self,
        stream: Stream,
        codec: ArrayCodec,
        sizes: Sequence[int],
        held: Sequence[Tensor],
        sample: Batch,
        masked: bool,
        device: torch.device,
    ):
        self.stream, self.codec, self.sizes, self.held, self.sample = stream, codec, sizes, held, sample
        self.masked, self.device = masked, device
        self.schema: Schema = codec.schema
        self.window = max(1, stream.memory // (MIXED * 4 * max(1, self.schema.size)))  # rows

    def __len__(self) -> int:
        return sum(self.sizes) - sum(len(h) for h in self.held)

    def shuffled(self, size: int) -> Iterator[Batch]:
        """Pass over all rows once."""
        pairs = size == 1  # every row with itself: no batch has a single row
        numbers = torch.randperm(len(self.sizes)).tolist()
        order = None if self.stream.ordered else numbers
        waiting: list[Batch] = []
        first: Batch | None = None
        rows = 0
        for table in ahead(self._encoded(order)):
            waiting.append(table.slice(0, len(table)))
            rows += len(table)
            if rows >= max(self.window, 2 * size):
                mixed = _shuffle(waiting)
                full = (rows - 1) // size * size  # at least one row stays, for the last batch
                for batch in mixed.head(full).split(size):
                    first = _cut(batch, 0, 1) if first is None else first  # a copy, which does not keep the others
                    yield self._there(batch, pairs)
                waiting, rows = [_cut(mixed, full, rows)], rows - full
                del mixed, batch  # before the next window is read
        if rows:
            mixed = _shuffle(waiting)
            if rows % size == 1 and size > 1:
                mixed = _join([mixed, (mixed if first is None else first).head(1)])
            for batch in mixed.split(size):
                yield self._there(batch, pairs)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Pass over the rows in the order of the stream."""
        for table in ahead(self._encoded(None)):
            for batch in table.slice(0, len(table)).split(size):
                yield self._there(batch, False)

    def head(self, n: int) -> Batch:
        """Return rows from everywhere."""
        return self._there(self.sample.head(n), False)

    def _encoded(self, order: Sequence[int] | None) -> Iterator[Table]:
        numbers = range(len(self.sizes)) if order is None else order
        for i, raw in zip(numbers, self.stream.blocks(order, self.schema.kind), strict=True):
            kept = np.ones(self.sizes[i], dtype=bool)
            kept[self.held[i].numpy()] = False
            if len(raw.values) != len(kept):
                raise ValueError(f"{self.stream!r} has changed since it was first read: block {i} has other rows")
            if kept.any():
                yield masked_table(self.codec.encode(raw.take(kept)), self.masked)
            del raw
            give_back()

    def _there(self, batch: Batch, pairs: bool) -> Batch:
        if pairs:
            batch = _join([batch, batch])
        return _each(batch, lambda t: t.to(self.device))


def ahead(items: Iterator[Table]) -> Iterator[Table]:
    """Read one item ahead in a thread; an error there is raised here."""
    with ThreadPoolExecutor(1, thread_name_prefix="stream") as pool:
        waiting = pool.submit(next, items, None)
        while (found := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield found


def give_back() -> None:
    """Return what was freed to the system, where it is glibc that keeps it.

    Blocks are allocated in one thread and freed in another, and their sizes differ a little, so that holes stay between them: the
    process would grow with the number of blocks.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Change every tensor of a batch."""
    return Batch(*(None if t is None else change(t) for t in batch))  # type: ignore[arg-type]


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    """Copy some rows of a batch, so that the others may be forgotten."""
    return _each(batch, lambda t: t[start:stop].clone())


def _join(parts: Sequence[Batch]) -> Batch:
    """Put batches one below the other."""
    return Batch(*(None if ts[0] is None else torch.cat(ts) for ts in zip(*parts, strict=True)))  # type: ignore[arg-type]


def _shuffle(parts: Sequence[Batch]) -> Batch:
    """Put batches into one, each row in a place of its own, drawn at random; there is no second copy on the way."""
    ends = np.cumsum([len(part.x) for part in parts])
    places = torch.randperm(int(ends[-1]))
    mixed: list[Tensor | None] = []
    for tensors in zip(*parts, strict=True):
        if tensors[0] is None:
            mixed.append(None)
            continue
        whole = tensors[0].new_empty(len(places), *tensors[0].shape[1:])
        for tensor, place in zip(tensors, places.tensor_split(ends[:-1].tolist()), strict=True):
            whole[place] = tensor
        mixed.append(whole)
    return Batch(*mixed)  # type: ignore[arg-type]


def set_aside(
    stream: Stream, codec: ArrayCodec, fraction: float, sample_rows: int, device: torch.device
) -> tuple[StreamedRows, Selection]:
    """Read a stream once, hold rows out, and keep a sample of the others; draws from torch's generator.

    The share ``fraction`` of the rows of each block is held out, at most as many as fit into a sixteenth of the memory.
    """
    n, size = codec.schema.n_rows, codec.schema.size
    share = min(fraction, stream.memory / (HELD * 4 * size) / n) if n > 1 else 0.0
    chance = min(1.0, 2 * sample_rows / max(1, n))
    sizes: list[int] = []
    held: list[Tensor] = []
    held_raws: list[Raw] = []
    sampled: list[Raw] = []
    masked, taken = False, 0
    for raw in stream.blocks(None, codec.schema.kind):
        rows = len(raw.values)
        done = sum(sizes) + rows
        masked |= not all_finite(raw.values)
        upto = round(done * share)
        if share and done == n:
            upto = min(n - 1, max(1, upto))
        order = torch.randperm(rows)
        out = max(0, min(rows, upto - taken))
        taken += out
        sizes.append(rows)
        held.append(order[:out].clone())
        if out:
            held_raws.append(raw.take(held[-1].numpy()))
        rest = order[out:]
        some = rest[torch.rand(len(rest)) < chance]
        if len(some) or (not sampled and len(rest)):
            sampled.append(raw.take((some if len(some) else rest[:1]).numpy()))
    sample = _table(codec, sampled, masked)
    mixed = torch.randperm(len(sample))[:sample_rows]
    streamed = StreamedRows(stream, codec, sizes, held, sample.take(mixed), masked, device)
    valid = _table(codec, held_raws, masked) if held_raws else sample
    return streamed, Selection(valid.to(device), torch.randperm(len(valid) if held_raws else 0).to(device))


def masked_table(table: Table, masked: bool) -> Table:
    """Give a table a mask where other parts of the same rows have one."""
    mask = torch.ones_like(table.x) if masked and table.mask is None else table.mask
    return Table(table.schema, table.x, mask, table.context)


def _table(codec: ArrayCodec, raws: list[Raw], masked: bool) -> Table:
    values = np.concatenate([raw.values for raw in raws])
    return masked_table(codec.encode(raws[0]._replace(values=values, index=None, labels=None)), masked)
