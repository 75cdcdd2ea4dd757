"""Several processes that train one model: what they share out, add up and agree on; nothing of it where there is one."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from diabolo.launch import launched
from diabolo.records import Batch
from diabolo.seeding import Stream, generator_state
from diabolo.training.rows import Rows
from diabolo.training.stopping import INTERRUPTED, TIME

__all__ = ["PeerError", "Ranks", "Several", "join"]

TIMEOUT = timedelta(
    minutes=10
)  # longest wait for a peer: more than a callback or a write of the first process should take


class PeerError(ConnectionError):
    """Another process of the run is gone or does not answer; the message says how to go on."""


class Ranks:
    """The processes of a run, here a single one: it has every row, and nobody to agree with.

    Attributes
    ----------
    world : int
        How many processes there are.
    rank : int
        Which of them this is, from 0.
    """

    world = 1
    rank = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that shows progress, calls callbacks and writes."""
        return self.rank == 0

    def shares(self, rows: Rows) -> Rows:
        """Return this process's share of ``rows``."""
        return rows

    def rows(self, batch: Batch) -> int:
        """Return how many rows of a batch that :meth:`shares` gave count."""
        return len(batch.x)

    def average(self, parameters: list[nn.Parameter], stop: str) -> str:
        """Make each gradient that of the mean over the rows of all; return why any process wants to stop, or nothing."""
        return stop

    def attach(self, module: nn.Module) -> None:
        """Start all processes from the tensors of the first, and let parts with an attribute ``ranks`` ask for totals."""

    def detach(self, module: nn.Module) -> None:
        """Undo what :meth:`attach` told the parts."""

    def settle(self, module: nn.Module) -> None:
        """Average what layers such as batch normalisation have seen."""

    def means(self, values: dict[str, float], weight: float) -> dict[str, float]:
        """Average numbers over processes, each by its weight."""
        return values

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """Return for each number the largest of any process."""
        return numbers

    def first(self, data: bytes) -> bytes:
        """Return what the first process has."""
        return data

    def differing(self, named: dict[str, bytes]) -> list[str]:
        """Return the names of what is not the same in all processes."""
        return []


class Several(Ranks):
    """One of several processes that call the same methods in the same order; see :func:`join`.

    Parameters
    ----------
    rank, world : int
        Which process this is, and how many there are.
    device : torch.device
        Where tensors are exchanged.
    """

    def __init__(self, rank: int, world: int, device: torch.device):
        self.rank, self.world, self.device = rank, world, device
        self.share = 1.0 / world  # of the rows of the batch at hand

    def shares(self, rows: Rows) -> Rows:
        """Return this process's share of ``rows``."""
        return Share(rows, self) if len(rows) else rows

    def rows(self, batch: Batch) -> int:
        """Return how many rows of the batch count: none where it was too small for all."""
        return len(batch.x) if self.share > 0 else 0

    def cut(self, batch: Batch) -> Batch:
        """Return this process's rows of a batch, and remember their share.

        A batch of few rows is cut for few processes, so that none gets a single row, which batch normalisation could not
        take. The others take its first rows along, which then count for nothing.
        """
        n = len(batch.x)
        parts = max(1, min(self.world, n // 2))
        if self.rank >= parts:
            self.share = 0.0
            return Batch(*(None if t is None else t[:2] for t in batch))  # type: ignore[arg-type]
        start, stop = self.rank * n // parts, (self.rank + 1) * n // parts
        self.share = (stop - start) / n
        return Batch(*(None if t is None else t[start:stop] for t in batch))  # type: ignore[arg-type]

    @torch.no_grad()
    def average(self, parameters: list[nn.Parameter], stop: str) -> str:
        """Add up the gradients by the shares of the rows, in one exchange.

        Behind the gradients travel a mark for each parameter that has one, because an optimiser leaves one without a gradient
        alone, and the wishes to stop.
        """
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        marks = [float(p.grad is not None) for p in parameters]
        wishes = [float(stop == TIME), float(stop == INTERRUPTED)]
        tail = torch.tensor(marks + wishes, device=self.device)
        total = torch.cat([*(g.flatten().float() * self.share for g in flat), tail])
        self._reduce(total)
        *marks, time_spent, interrupted = total[-len(tail) :].tolist()
        start = 0
        for p, mark in zip(parameters, marks, strict=True):
            mean = total[start : start + p.numel()].view_as(p)
            p.grad = torch.empty_like(p).copy_(mean) if mark else None  # laid out in memory as the parameter is
            start += p.numel()
        return INTERRUPTED if interrupted else TIME if time_spent else ""

    def attach(self, module: nn.Module) -> None:
        """Start from the tensors of the first process; parts with an attribute ``ranks`` get this object in it."""
        for tensor in module.state_dict().values():
            tensor.copy_(self.of_first(tensor))
        for part in module.modules():
            if hasattr(part, "ranks"):
                part.ranks = self  # type: ignore[assignment]

    def detach(self, module: nn.Module) -> None:
        """Take this object back from the parts."""
        for part in module.modules():
            if hasattr(part, "ranks"):
                part.ranks = None  # type: ignore[assignment]

    @torch.no_grad()
    def settle(self, module: nn.Module) -> None:
        """Average all buffers of floating point."""
        kept = module.state_dict().keys()
        buffers = [b for k, b in module.named_buffers() if k in kept and b.is_floating_point()]
        if not buffers:
            return
        total = torch.cat([b.flatten().float() for b in buffers])
        self._reduce(total)
        for buffer, mean in zip(buffers, torch.split(total / self.world, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def means(self, values: dict[str, float], weight: float) -> dict[str, float]:
        """Average numbers over processes; those of a process without weight may be anything."""
        numbers = [weight * v if weight else 0.0 for v in values.values()]
        total = torch.tensor([*numbers, weight], dtype=torch.float64, device=self.device)
        self._reduce(total)
        *sums, weight = total.tolist()
        return {k: v / weight for k, v in zip(values, sums, strict=True)}

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """Return for each number the largest of any process."""
        import torch.distributed as dist

        found = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self._try(dist.all_reduce, found, op=dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def first(self, data: bytes) -> bytes:
        """Return what the first process has, whatever this one has."""
        length = self.of_first(torch.tensor(len(data), device=self.device))
        sent = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_first and data:
            sent = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return self.of_first(sent.to(self.device)).cpu().numpy().tobytes() if len(sent) else b""

    def differing(self, named: dict[str, bytes]) -> list[str]:
        """Return the names of what is not the same in all processes."""
        other = self.largest(*[float(self.first(data) != data) for data in named.values()])
        return [name for name, differs in zip(named, other, strict=True) if differs]

    # what parts ask for -----------------------------------------------------------------------------------------------------

    def total(self, tensor: Tensor) -> Tensor:
        """Add up what each process found in its rows of the batch."""
        total = tensor.float() * (self.share > 0)
        self._reduce(total)
        return total.to(tensor.dtype)

    def mean(self, tensor: Tensor, weight: Tensor | float) -> Tensor:
        """Average over processes, each by its ``weight``, a number or one for each element; 0 where all of them are 0."""
        weights = torch.as_tensor(weight, dtype=torch.float32, device=tensor.device).expand_as(tensor)
        found = self.total(torch.stack([tensor.float() * weights, weights]))
        return torch.where(found[1] > 0, found[0] / found[1], 0.0).to(tensor.dtype)

    def of_first(self, tensor: Tensor) -> Tensor:
        """Return the tensor of the first process."""
        import torch.distributed as dist

        tensor = tensor.contiguous()
        self._try(dist.broadcast, tensor, src=0)
        return tensor

    def _reduce(self, tensor: Tensor) -> None:
        import torch.distributed as dist

        self._try(dist.all_reduce, tensor)

    def _try(self, exchange: Any, tensor: Tensor, **how: Any) -> None:
        try:
            exchange(tensor, **how)
        except RuntimeError as error:
            raise PeerError(
                f"process {self.rank} of {self.world} lost another process of the run: it ended, or did not answer for "
                f"{TIMEOUT.seconds} s ({_cause(error)})."
            ) from error


class Share(Rows):
    """The share of one process in the rows of all.

    The order of rows is drawn from the run's generator, which is in the same state in every process; what is drawn while a
    batch is learned from comes from a generator of the process's own, made anew for each epoch from that state.
    """

    def __init__(self, rows: Rows, ranks: Several):
        self.schema, self.whole, self.ranks = rows.schema, rows, ranks

    def __len__(self) -> int:
        return len(self.whole)

    def shuffled(self, size: int) -> Iterator[Batch]:
        """Pass over this process's part of each batch of ``size`` rows of all."""
        device = self.ranks.device
        state = hashlib.sha256(self.ranks.rank.to_bytes(4, "little"))
        for tensor in generator_state(device).values():
            state.update(tensor.numpy().tobytes())
        noise = Stream(int.from_bytes(state.digest()[:6], "little"), device)
        for batch in self.whole.shuffled(size):
            noise.swap()
            yield self.ranks.cut(batch)
            noise.swap()

    def in_order(self, size: int) -> Iterator[Batch]:
        """Pass over this process's part of the rows, up to ``size`` at a time."""
        for batch in self.whole.in_order(size * self.ranks.world):
            yield self.ranks.cut(batch)

    def head(self, n: int) -> Batch:
        """Return rows that stand for those of all processes."""
        return self.whole.head(n)


def join(device: torch.device) -> Ranks:
    """Meet the other processes of this run, on the first call of a process; alone, do nothing.

    Raises
    ------
    PeerError
        When they do not come.
    """
    rank, world = launched()
    if world == 1:
        return Ranks()
    import torch.distributed as dist

    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=TIMEOUT)
        except RuntimeError as error:
            raise PeerError(
                f"process {rank} of {world} could not meet the others at {os.environ['MASTER_ADDR']}:"
                f"{os.environ['MASTER_PORT']} within {TIMEOUT.seconds} s ({_cause(error)}). "
                "Every process must call fit; to train alone, unset WORLD_SIZE."
            ) from error
        atexit.register(_leave)
    return Several(rank, world, device)


def _cause(error: RuntimeError) -> str:
    """Return the first sentence of a message, without the place in torch's source."""
    return re.sub(r"^\[\S*\] ", "", str(error)).split(". ")[0].split("\n")[0]


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
