"""The likelihood of a mixed table: numbers under a density, booleans under coins, labels under a choice among them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.parts.likelihoods.counts import NegativeBinomial
from diabolo.parts.likelihoods.elements import LOGIT_SLOPE, Likelihood
from diabolo.records import Column

__all__ = ["Mixed"]

FAR = 1e4  # a threshold that no output comes near


class Mixed(Likelihood):
    r"""Independent columns of several kinds, each with its own distribution; all in nats, so that columns compare.

    - Numbers and dates: ``numbers``, a likelihood of scaled values.
    - Counts: :class:`~diabolo.parts.likelihoods.NegativeBinomial`.
    - Booleans: :math:`x \log\sigma(r) + (1-x) \log(1-\sigma(r))`.
    - Categories, one feature for each label: :math:`x \cdot \log \operatorname{softmax}(r)`.
    - Ordinals with levels :math:`0 \dots K-1`, the feature being the level over :math:`K-1`: the cumulative logit model
      :math:`P(\text{level} \le k) = \sigma(t_k - r)` with learned rising thresholds :math:`t` (McCullagh, 1980,
      doi:10.1111/j.2517-6161.1980.tb01109.x).

    Parameters
    ----------
    columns : sequence of Column
        Of the table.
    numbers : Likelihood
        With one output for each element; of rows of ``(number of number columns,)``.
    """

    index: Tensor  # the features of numbers
    booleans: Tensor
    labels: Tensor  # the features of categories, column after column
    ordinals: Tensor
    counted: Tensor
    log_range: Tensor

    def __init__(self, columns: Sequence[Column], numbers: Likelihood):
        super().__init__()
        if numbers.params != 1:
            raise ValueError(f"{type(numbers).__name__} has {numbers.params} outputs for each number; expected 1")
        self.numbers, self.robust = numbers, numbers.robust
        self.support = numbers.support
        places: dict[str, list[int]] = {"number": [], "count": [], "boolean": [], "category": [], "ordinal": []}
        widths, levels, start = [], [], 0
        for column in columns:
            kind = "number" if column.kind == "date" else column.kind
            places[kind] += range(start, start + column.width)
            if kind == "category":
                widths.append(column.width)
            elif kind == "ordinal":
                levels.append(len(column.categories))
            start += column.width
        self.size = start
        ranges = [c.log_range for c in columns if c.kind == "count"]
        self.counts = NegativeBinomial((len(ranges),)) if ranges else None
        self.register_buffer("log_range", torch.tensor(ranges), persistent=False)
        for name, kind in (
            ("index", "number"),
            ("counted", "count"),
            ("booleans", "boolean"),
            ("labels", "category"),
            ("ordinals", "ordinal"),
        ):
            self.register_buffer(name, torch.tensor(places[kind], dtype=torch.long), persistent=False)
        self.widths = widths  # labels of each category column
        self.n_levels = levels
        self.lowest: nn.Parameter | None = None  # thresholds of ordinals: the lowest, and steps upwards
        self.steps: nn.Parameter | None = None
        if levels:
            step = [[_inverse_softplus(LOGIT_SLOPE / max(n - 1, 1))] * max(max(levels) - 2, 1) for n in levels]
            self.lowest = nn.Parameter(torch.tensor([LOGIT_SLOPE * (0.5 / max(n - 1, 1) - 0.5) for n in levels]))
            self.steps = nn.Parameter(torch.tensor(step))

    # pieces -----------------------------------------------------------------------------------------------------------------

    def _number_output(self, raw: Tensor) -> Tensor:
        return raw[:, :, self.index]

    def _log_choice(self, logits: Tensor) -> Tensor:
        """Return log-probabilities ``(B, len(labels))`` of the labels of all category columns."""
        return torch.cat([F.log_softmax(part, dim=1) for part in torch.split(logits, self.widths, dim=1)], dim=1)

    def _thresholds(self) -> Tensor:
        """Return ``(n_ordinals, most levels + 1)``: rising thresholds between two that are as good as infinite."""
        if self.lowest is None or self.steps is None:
            raise ValueError("there are no ordinals")
        upwards = F.softplus(self.steps).cumsum(dim=1)
        inner = torch.cat([self.lowest[:, None], self.lowest[:, None] + upwards], dim=1)[:, : max(self.n_levels)]
        ends = inner.new_full((len(inner), 1), FAR)
        rising = torch.cat([-ends, inner, ends], dim=1)[:, : max(self.n_levels) + 1]
        places = torch.arange(rising.shape[1], device=inner.device)[None]
        return rising.masked_fill(places >= torch.tensor(self.n_levels, device=inner.device).view(-1, 1), FAR)

    def _level_log_probs(self, output: Tensor) -> Tensor:
        """Return log-probabilities ``(B, n_ordinals, most levels)`` of each level; hardly any beyond a column's."""
        gap = self._thresholds().to(output)[None] - output[:, :, None]  # (B, n_ordinals, levels + 1)
        above, below = gap[:, :, 1:], gap[:, :, :-1]
        # log(sigmoid(a) - sigmoid(b)) without cancellation: sigmoid differences are the same mirrored at 0
        mirrored = below + above > 0
        a, b = torch.where(mirrored, -below, above), torch.where(mirrored, -above, below)
        step = (b - a).clamp(max=-1e-6)  # of equal thresholds, beyond the last level
        return F.logsigmoid(a) + F.logsigmoid(-b) + torch.log(-torch.expm1(step))

    def _levels(self, x: Tensor) -> Tensor:
        top = torch.tensor(self.n_levels, device=x.device) - 1
        return (x[:, self.ordinals] * top).round().long()

    def _logs(self, x: Tensor) -> Tensor:
        """Return the logarithms of one more than the counts ``(B, n_counts)``."""
        return x[:, self.counted] * self.log_range.to(x)

    # the interface ----------------------------------------------------------------------------------------------------------

    def log_prob(self, raw: Tensor, x: Tensor) -> Tensor:
        """Return the log-density or log-probability of each feature ``(B, size)``; a category's is the sum over its labels."""
        output, out = raw.squeeze(1), torch.zeros_like(x, dtype=raw.dtype)
        if len(self.index):
            out = out.index_copy(1, self.index, self.numbers.log_prob(self._number_output(raw), x[:, self.index]))
        if self.counts is not None:
            each = self.counts.log_prob(raw[:, :, self.counted], self._logs(x))
            out = out.index_copy(1, self.counted, each)
        if len(self.booleans):
            coins = -F.binary_cross_entropy_with_logits(output[:, self.booleans], x[:, self.booleans], reduction="none")
            out = out.index_copy(1, self.booleans, coins.to(out))
        if len(self.labels):
            out = out.index_copy(1, self.labels, x[:, self.labels] * self._log_choice(output[:, self.labels]))
        if len(self.ordinals):
            each = self._level_log_probs(output[:, self.ordinals]).gather(2, self._levels(x)[:, :, None])[:, :, 0]
            out = out.index_copy(1, self.ordinals, each)
        return out

    def mean(self, raw: Tensor) -> Tensor:
        """Return expected numbers, probabilities of booleans and of labels, and the expected level of ordinals."""
        output, out = raw.squeeze(1), torch.zeros_like(raw.squeeze(1))
        if len(self.index):
            out = out.index_copy(1, self.index, self.numbers.mean(self._number_output(raw)))
        if self.counts is not None:
            logs = self.counts.mean(raw[:, :, self.counted])
            out = out.index_copy(1, self.counted, logs / self.log_range.to(logs))
        if len(self.booleans):
            out = out.index_copy(1, self.booleans, output[:, self.booleans].sigmoid())
        if len(self.labels):
            out = out.index_copy(1, self.labels, self._log_choice(output[:, self.labels]).exp())
        if len(self.ordinals):
            chance = self._level_log_probs(output[:, self.ordinals]).exp()
            level = torch.arange(chance.shape[2], device=chance.device).to(chance)
            out = out.index_copy(1, self.ordinals, self._unit((chance * level).sum(2)))
        return out

    def _unit(self, levels: Tensor) -> Tensor:
        return levels / (torch.tensor(self.n_levels, device=levels.device) - 1).clamp_min(1)

    def sample(self, raw: Tensor) -> Tensor:
        """Draw rows; of a category one label."""
        output, out = raw.squeeze(1), torch.zeros_like(raw.squeeze(1))
        if len(self.index):
            out = out.index_copy(1, self.index, self.numbers.sample(self._number_output(raw)))
        if self.counts is not None:
            logs = self.counts.sample(raw[:, :, self.counted])
            out = out.index_copy(1, self.counted, logs / self.log_range.to(logs))
        if len(self.booleans):
            out = out.index_copy(1, self.booleans, torch.bernoulli(output[:, self.booleans].sigmoid()))
        if len(self.labels):
            # the largest of the logits with Gumbel noise is a draw
            noisy = output[:, self.labels] - torch.empty_like(output[:, self.labels]).exponential_().log()
            chosen = [F.one_hot(part.argmax(dim=1), part.shape[1]) for part in torch.split(noisy, self.widths, dim=1)]
            out = out.index_copy(1, self.labels, torch.cat(chosen, dim=1).to(out))
        if len(self.ordinals):
            scores = self._level_log_probs(output[:, self.ordinals])
            scores = scores - torch.empty_like(scores).exponential_().log()
            out = out.index_copy(1, self.ordinals, self._unit(scores.argmax(dim=2).to(out)))
        return out

    def output_for(self, x: Tensor) -> Tensor:
        """Return outputs near ``x``: of numbers as their likelihood says, of all others logits."""
        out = LOGIT_SLOPE * (x - 0.5)
        if len(self.index):
            out = out.index_copy(1, self.index, self.numbers.output_for(x[:, self.index]))
        if self.counts is not None:
            out = out.index_copy(1, self.counted, self.counts.output_for(self._logs(x)).to(out))
        return out

    def learn(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Let the likelihood of counts look at rows before training."""
        if self.counts is not None:
            self.counts.learn(self._logs(x), None if mask is None else mask[:, self.counted])

    def complete(self, raw: Tensor, x: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Add the usual sizes of counts."""
        if self.counts is None:
            return raw
        return raw.index_copy(2, self.counted, self.counts.complete(raw[:, :, self.counted]))

    def start(self, residual: float) -> float:
        """Start the scales of numbers; return the mean variance of the noise over features."""
        chances = len(self.booleans) + len(self.ordinals)
        total = chances * 0.25 + (len(self.labels) + len(self.counted)) * min(residual, 0.25)
        if len(self.index):
            total += len(self.index) * self.numbers.start(residual)
        return total / self.size

    def observe(self, raw: Tensor, x: Tensor, mask: Tensor | None) -> None:
        """Let the likelihood of numbers follow the residuals."""
        if len(self.index):
            seen = None if mask is None else mask[:, self.index]
            self.numbers.observe(self._number_output(raw), x[:, self.index], seen)

    def supports(self, x: Tensor) -> Tensor | None:
        """Return where numbers lie in the support of their likelihood."""
        inside = self.numbers.supports(x[:, self.index]) if len(self.index) else None
        if inside is None:
            return None
        return torch.ones_like(x, dtype=torch.bool).index_copy(1, self.index, inside)


def _inverse_softplus(x: float) -> float:
    return x + math.log(-math.expm1(-x))
