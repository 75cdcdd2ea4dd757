"""An encoder with linear outputs, and how it learns from rows of which few have a label."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.module import AutoencoderModule
from diabolo.objectives import elbo
from diabolo.records import Batch, Loss, Resident
from diabolo.tasks.classes import ClassBound
from diabolo.tasks.linear import Linear
from diabolo.training.rows import Rows

__all__ = ["Beside", "Head", "Told", "features_of"]

BESIDE = 2000  # numbers of a row, its pieces included, up to which the outputs see it beside its code
PIECES = 8  # into which the range of a number is cut
STEPS = 50  # in what the loop takes for an epoch
LABELLED = 0.25  # share of a batch that has labels, where rows without one have a guess


class Beside(nn.Module):
    r"""What linear outputs see of a row of a table beside its code: its features, and how far numbers are into each piece.

    The range of a number is cut at its octiles :math:`t_0 < t_1 < \dots`, over all rows, labelled or not; piece :math:`i` of
    :math:`x` is :math:`(x - t_{i-1}) / (t_i - t_{i-1})`, held within 0 and 1 (Gorishniy et al., On embeddings for numerical
    features in tabular deep learning, 2022, arXiv:2203.05556). So outputs are linear in any piecewise linear function of each
    number.

    Parameters
    ----------
    places : Tensor of int64 of shape (pieces,)
        The feature that each piece belongs to.
    low, high : Tensor of shape (pieces,)
        Its ends.
    """

    places: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, places: Tensor, low: Tensor, high: Tensor):
        super().__init__()
        for name, tensor in (("places", places), ("low", low), ("high", high)):
            self.register_buffer(name, tensor)

    @classmethod
    def learn(cls, x: NDArray[np.float32]) -> Beside | None:
        """Cut the features of rows ``(n, size)``; ``None`` where they are too many to be seen beside a code."""
        places: list[int] = []
        ends: list[tuple[float, float]] = []
        if x.shape[1] > BESIDE:
            return None
        for j, column in enumerate(x.T):
            knots = np.unique(np.quantile(column, np.linspace(0, 1, PIECES + 1)))
            if len(knots) > 2:  # a label, or what hardly varies, is one piece as it is
                places += [j] * (len(knots) - 1)
                ends += list(itertools.pairwise(knots.tolist()))
        if x.shape[1] + len(places) > BESIDE:
            places, ends = [], []
        found = torch.tensor(ends, dtype=torch.float32).reshape(-1, 2)
        return cls(torch.tensor(places, dtype=torch.int64), found[:, 0].contiguous(), found[:, 1].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, size)`` to ``(B, size + pieces)``."""
        low, high = self.low.to(x.dtype), self.high.to(x.dtype)
        return torch.cat([x, ((x[:, self.places] - low) / (high - low)).clamp(0, 1)], dim=1)


def features_of(module: AutoencoderModule, batch: Batch, beside: Beside | None) -> Tensor:
    """Return what linear outputs see of rows ``(B, n)``: the code, and of tables the row beside it."""
    z = module.encode(batch.x, batch.context, batch.mask).z.flatten(1)
    return z if beside is None else torch.cat([beside(batch.x.flatten(1)), z], dim=1)


class Head(nn.Module):
    r"""Linear outputs on a copy of an encoder.

    .. math:: o = W\,\frac{f(x) - c}{s} + b

    with :math:`f(x)` the code and, of tables, the row beside it (:class:`Beside`).

    Parameters
    ----------
    module : AutoencoderModule
        Fitted; its encoder is copied, and with ``joint`` its decoder, too.
    outputs : int
        Classes, or 1 for a number.
    width : int
        Numbers that the outputs see.
    beside : Beside or None
        What they see beside the code.
    dropout : float
        Fraction of these numbers that is dropped in training.
    decay : float
        Each layer of the encoder moves by this share of the learning rate of the one above it.
    joint : float
        Weight of the autoencoder's own loss, in nats per feature; of ``bound`` in nats per row.
    bound : ClassBound or None
        What explains rows by their class, in place of the decoder.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        module: AutoencoderModule,
        outputs: int,
        width: int,
        *,
        beside: Beside | None,
        dropout: float = 0.0,
        decay: float = 1.0,
        joint: float = 0.0,
        bound: ClassBound | None = None,
    ):
        super().__init__()
        self.beside, self.dropout, self.joint, self.outputs, self.bound = beside, dropout, joint, outputs, bound
        rebuilds = joint > 0 and bound is None
        kept = {} if rebuilds else {id(module.decoder): nn.Identity()}  # what plays no part is not copied
        self.module = copy.deepcopy(module, kept).requires_grad_(True)
        self.linear = nn.Linear(width, outputs)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        layers = list(dict.fromkeys(_layer(name) for name, _ in self.module.encoder.named_parameters()))
        self._share = {f"module.encoder.{name}": decay ** (len(layers) - i) for i, name in enumerate(layers)}

    def share_of(self, name: str) -> float:
        """Return the share of the learning rate by which a parameter moves."""
        return self._share.get(_layer(name), 1.0)

    def start(self, linear: Linear) -> None:
        """Begin with linear outputs that were learned before."""
        with torch.no_grad():
            self.center.copy_(torch.from_numpy(linear.center))
            self.spread.copy_(torch.from_numpy(linear.spread))
            self.linear.weight.copy_(torch.from_numpy(linear.weight))
            self.linear.bias.copy_(torch.from_numpy(linear.bias))

    def forward(self, batch: Batch) -> Tensor:
        """Return the outputs ``(B, outputs)``."""
        seen = (features_of(self.module, batch, self.beside) - self.center) / self.spread
        out: Tensor = self.linear(F.dropout(seen, self.dropout, self.training))
        return out

    def loss(self, batch: Batch, progress: float) -> Loss:
        """Return the weighted cross-entropy, or half the squared error of a single output, in nats per labelled row."""
        batch, targets, weight, known = _split(batch, self.outputs)
        x = batch.x
        if self.training and self.module.corruption is not None:
            x = self.module.corruption(x, progress)
            x = x if batch.mask is None else x * batch.mask
        out = self(batch._replace(x=x))
        each = 0.5 * (out - targets).square().sum(1) if self.outputs == 1 else -(targets * out.log_softmax(1)).sum(1)
        total = (weight * each).mean()
        terms = {"labels": total}
        if self.joint and self.training:
            if self.bound is not None:
                own = -self.bound(batch, out.log_softmax(1), targets, known, progress)
            else:
                own = elbo(self.module, batch, progress).total / batch.x[0].numel()
            terms["autoencoder"] = self.joint * own
            total = total + terms["autoencoder"]
        return Loss(total, terms)


def _layer(name: str) -> str:
    """Return the layer that a parameter belongs to."""
    return re.sub(r"\.[^.]+$", "", name)


def _split(batch: Batch, outputs: int) -> tuple[Batch, Tensor, Tensor, Tensor]:
    """Take targets ``(B, outputs)``, weights ``(B,)`` and marks of labels from where :class:`Told` has put them."""
    context = batch.context
    if context is None:
        raise ValueError("expected rows with targets beside them")
    own, targets, weight, known = context.split([context.shape[1] - outputs - 2, outputs, 1, 1], dim=1)  # type: ignore[no-untyped-call]
    return batch._replace(context=own if own.shape[1] else None), targets, weight[:, 0], known[:, 0]


class Told(Rows):
    """Rows with targets, which travel at the end of the context: targets, the weight of the row, and 1 where it has a label.

    Parameters
    ----------
    table : Resident
        All rows.
    targets : Tensor of shape (n, outputs)
        Of all rows; of those without a label a guess.
    labelled : Tensor of int64
        Positions of rows with a label that belong to these.
    others : Tensor of int64, optional
        Positions of rows without a label that are learned from.
    trust : Tensor of shape (n,), optional
        How sure guesses of their targets are, 0 to 1.
    batch_size : int
        Rows in a step.
    """

    def __init__(
        self,
        table: Resident,
        targets: Tensor,
        labelled: Tensor,
        others: Tensor | None = None,
        trust: Tensor | None = None,
        batch_size: int = 256,
    ):
        self.table, self.schema, self.targets = table, table.schema, targets
        self.labelled, self.others, self.trust, self.batch_size = labelled, others, trust, batch_size

    def __len__(self) -> int:
        return STEPS * self.batch_size if len(self.labelled) else 0

    def shuffled(self, size: int) -> Iterator[Batch]:
        """Yield batches of which a quarter has labels where there are guesses for the others, and all have where not."""
        with_guess = self.others is not None and self.trust is not None and len(self.others) > 0
        told = max(1, round(LABELLED * size)) if with_guess else size
        first = _endless(self.labelled, told)
        second = _endless(self.others, size - told) if with_guess and self.others is not None else None
        for _ in range(STEPS):
            index = next(first)
            weight = known = torch.ones(len(index), device=index.device)
            if second is not None and self.trust is not None:
                more = next(second)
                weight = torch.cat([weight * (size / len(index)), self.trust[more] * (size / len(more))])
                index = torch.cat([index, more])
                known = torch.cat([known, torch.zeros(len(more), device=index.device)])
            yield self._batch(index, weight, known)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Pass over the rows with labels."""
        for index in self.labelled.split(size):  # type: ignore[no-untyped-call]
            yield self._labelled(index)

    def head(self, n: int) -> Batch:
        """Return the first rows with labels."""
        return self._labelled(self.labelled[:n])

    def _labelled(self, index: Tensor) -> Batch:
        ones = torch.ones(len(index), device=index.device)
        return self._batch(index, ones, ones)

    def _batch(self, index: Tensor, weight: Tensor, known: Tensor) -> Batch:
        batch = self.table.take(index)
        told = torch.cat([self.targets[index], weight[:, None], known[:, None]], dim=1)
        return batch._replace(context=told if batch.context is None else torch.cat([batch.context, told], dim=1))


def _endless(index: Tensor, size: int) -> Iterator[Tensor]:
    """Yield positions ``size`` at a time, all of them before any comes again."""
    left = index[:0]
    while True:
        while len(left) < size:
            left = torch.cat([left, index[torch.randperm(len(index)).to(index.device)]])
        yield left[:size]
        left = left[size:]
