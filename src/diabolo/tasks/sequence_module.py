"""The network of a SequenceVAE, its rows in memory, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.data.tokens import END, UNKNOWN
from diabolo.objectives import rising
from diabolo.parts.bottlenecks import Gaussian, draw_gaussian, gaussian_kl, split_gaussian
from diabolo.parts.networks.sequences import SequenceNetwork
from diabolo.records import Batch, Code, Loss, Table
from diabolo.training.rows import Selection

__all__ = ["ByLength", "SequenceModule", "SequenceTrace", "bound", "sequence_loss"]

NEAR = 50  # batches whose rows are put in order of length together


class SequenceTrace(NamedTuple):
    """One pass."""

    code: Code
    raw: Tensor  # logits (B, steps, n_tokens)


class Tokens(nn.Module):
    """What a decoder's numbers mean: logits of tokens."""

    def __init__(self, n_tokens: int):
        super().__init__()
        self.params = n_tokens


class FreeInformation(Gaussian):
    r"""A Gaussian posterior, each unit of which may tell some nats of a row at no cost in training.

    Over a batch the divergence of a unit is, exactly, that of the normal distribution with the mean and the variance :math:`v` of
    all codes from N(0, 1), and :math:`I = \frac12 (\log v - \overline{\log \sigma^2})`, what the unit tells of a row where codes
    together are normal. Only :math:`I` is free up to ``free_bits``: were it all of the divergence, codes that lie off the prior
    together would use it up and tell nothing.
    """

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean and log-variance; draw ``z`` or return the mean."""
        mu, logvar = split_gaussian(h)
        z = draw_gaussian(mu, logvar) if sample else mu
        kl = gaussian_kl(mu, logvar).sum(dim=1)
        if self.free_bits > 0 and self.training:
            spread = mu.var(dim=0, correction=0) + logvar.exp().mean(dim=0)
            told = 0.5 * (spread.log() - logvar.mean(dim=0))
            kl = kl + (self.free_bits - told).clamp_min(0.0).sum()
        return Code(z, {"kl": self.beta * kl}, {"mu": mu, "logvar": logvar})


class SequenceModule(nn.Module):
    """A network between tokens and a Gaussian code.

    Parameters
    ----------
    net : SequenceNetwork
        Reads and writes.
    bottleneck : Gaussian
        Of its code.
    n_tokens : int
        Numbers that a token may have.
    fixed : bool
        Whether all sequences have one length, and no end.
    """

    def __init__(self, net: SequenceNetwork, bottleneck: Gaussian, n_tokens: int, *, fixed: bool):
        super().__init__()
        self.net, self.bottleneck, self.fixed = net, bottleneck, fixed
        self.likelihood = Tokens(n_tokens)
        self.code_shape = (bottleneck.out_features,)

    def hidden(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return what the bottleneck takes of tokens ``(B, steps)``."""
        moments: Tensor = self.net.read(x.long(), self.counted(x))
        return moments.float()

    def counted(self, x: Tensor) -> Tensor:
        """Return which steps count: those of a sequence, and its end."""
        if self.fixed:
            return torch.ones_like(x, dtype=torch.bool)
        lengths = (x != END).sum(dim=1, keepdim=True)
        return torch.arange(x.shape[1], device=x.device) <= lengths

    def decode(
        self, z: Tensor, context: Tensor | None, x: Tensor, mask: Tensor | None = None, drop: float = 0.0
    ) -> Tensor:
        """Return logits of each token of ``x`` by the code and the tokens before it, of which a share is hidden."""
        before = F.pad(x.long()[:, :-1], (1, 0), value=self.net.onto.begin)
        if drop > 0:
            before = torch.where(torch.rand(before.shape, device=x.device) < drop, UNKNOWN, before)
        logits: Tensor = self.net.write(before, z)[0]
        return logits

    def log_prob(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return the log-probability of each sequence, in nats ``(B,)``."""
        # tokens side by side: with their axis in the middle it takes twice as long
        nats = F.cross_entropy(raw.float().flatten(0, 1), batch.x.long().flatten(), reduction="none").view(
            batch.x.shape
        )
        return -(nats * self.counted(batch.x)).sum(dim=1)

    def trace(self, batch: Batch, *, sample: bool, drop: float = 0.0) -> SequenceTrace:
        """Run both ways."""
        code = self.bottleneck(self.hidden(batch.x), sample=sample)
        return SequenceTrace(code, self.decode(code.z, None, batch.x, drop=drop))


def sequence_loss(warmup: float, drop: float, bag: float) -> Callable[[SequenceModule, Batch, float], Loss]:
    r"""Return the negative bound, in nats per sequence.

    .. math:: L = -\log p(x \mid z) + w\, \mathrm{KL} - \lambda \sum_t \log b(x_t \mid z)

    In training the weight :math:`w` rises to 1, a share of the tokens is hidden from the decoder, and the last term has the code
    tell which tokens there are, in any order.
    """

    def objective(module: SequenceModule, batch: Batch, progress: float) -> Loss:
        trace = module.trace(batch, sample=True, drop=drop if module.training else 0.0)
        nats, cost = -module.log_prob(trace.raw, batch).mean(), trace.code.costs["kl"].mean()
        total = nats + (rising(progress, warmup) if module.training else 1.0) * cost
        if module.training and bag > 0:
            told = torch.log_softmax(module.net.bag(trace.code.z).float(), dim=1).gather(1, batch.x.long())
            total = total - bag * (told * module.counted(batch.x)).sum(dim=1).mean()
        return Loss(total, {"reconstruction": nats.detach(), "kl": cost.detach()})

    return objective


def bound(n_samples: int) -> Callable[[SequenceModule, Batch], Tensor]:
    """Return what gives the bound of each sequence ``(B,)``, over draws of the code or at its centre, whatever beta is."""

    def score(module: SequenceModule, batch: Batch) -> Tensor:
        found = []
        for _ in range(max(1, n_samples)):
            trace = module.trace(batch, sample=n_samples > 0)
            found.append(module.log_prob(trace.raw, batch) - module.bottleneck.moments(trace.code)[2].sum(dim=1))
        return torch.stack(found).mean(dim=0)

    return score


class ByLength(Selection):
    """Rows of which those of like length are taken together, and what follows the longest is cut off.

    Parameters
    ----------
    table : Table
        All rows.
    index : Tensor
        Which of them.
    lengths : ndarray of shape (n_rows,)
        Steps of each row of the table that count.
    """

    def __init__(self, table: Table, index: Tensor, lengths: NDArray[np.int64]):
        super().__init__(table, index)
        self.lengths = torch.from_numpy(lengths)[index.cpu()]

    def shuffled(self, size: int) -> Iterator[Batch]:
        """Pass over all rows in random order."""
        order = torch.randperm(len(self.index))
        parts = []
        for part in order.split(size * NEAR):  # type: ignore[no-untyped-call]
            parts += part[self.lengths[part].argsort()].split(size)
        for i in torch.randperm(len(parts)).tolist():
            yield self._batch(parts[i])

    def in_order(self, size: int) -> Iterator[Batch]:
        """Pass over the rows, the shortest first."""
        for part in self.lengths.argsort(stable=True).split(size):  # type: ignore[no-untyped-call]
            yield self._batch(part)

    def _batch(self, places: Tensor) -> Batch:
        batch = self.table.take(self.index[places.to(self.index.device)])
        return batch._replace(x=batch.x[:, : int(self.lengths[places].max())])
