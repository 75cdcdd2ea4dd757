"""Objectives: from a module and a batch to a loss. The loss is summed over features and averaged over rows: nats per row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from diabolo.module import AutoencoderModule
from diabolo.records import Batch, Code, Loss, Trace

__all__ = ["Objective", "elbo", "importance_mean", "iwae", "log_likelihood", "rising"]

Objective = Callable[[AutoencoderModule, Batch, float], Loss]
"""``(module, batch, progress)`` -> loss; ``progress`` runs from 0 to 1 over training, for annealing."""


def elbo(module: AutoencoderModule, batch: Batch, progress: float, *, warmup: float = 0.0) -> Loss:
    r"""Negative evidence lower bound, or for a deterministic code the plain reconstruction loss.

    .. math:: L = \frac1B \sum_b \Big[-\sum_j \log p(x_{bj} \mid z_b) + w \sum_k \text{cost}_k(b)\Big] + \text{penalties}

    in nats per row, with :math:`z_b` drawn once from the posterior. Most penalties are training's alone: outside training mode
    the loss is the bound, and those of them that are judged.

    Parameters
    ----------
    module : AutoencoderModule
        The model.
    batch : Batch
        Rows.
    progress : float
        How far training has come, 0 to 1.
    warmup : float
        Share of training over which the weight ``w`` of the code's costs rises from 0 to 1.
    """
    trace = module.trace(batch, sample=True, corrupt=True, progress=progress)
    terms: dict[str, Tensor] = {"reconstruction": -module.mean_log_prob(trace.raw, trace.batch)}
    total = terms["reconstruction"]
    weight = rising(progress, warmup)
    for name, cost in trace.code.costs.items():
        terms[name] = cost.mean()
        total = total + weight * terms[name]
    total = _add_penalties(module, trace, total, terms)
    return Loss(total, terms)


def iwae(
    module: AutoencoderModule, batch: Batch, progress: float, *, n: int, dreg: bool = False, warmup: float = 0.0
) -> Loss:
    r"""Negative importance-weighted bound (Burda et al., 2016, arXiv:1509.00519).

    .. math:: L = -\frac1B \sum_b \log \frac1n \sum_{i=1}^n \exp(\ell_{bi}), \qquad
              \ell_{bi} = \log p(x_b \mid z_{bi}) - w \log \frac{q(z_{bi} \mid x_b)}{p(z_{bi})}, \quad z_{bi} \sim q(z \mid x_b)

    in nats per row; for ``n=1`` it is the evidence lower bound, estimated with a draw in place of the exact divergence. The
    draws are made in one pass over ``n`` copies of each row. The terms are the reconstruction and the divergence averaged over
    draws, and ``importance``, the (negative) rest: how much tighter the bound is than that of a single draw.

    Parameters
    ----------
    module : AutoencoderModule
        A model whose bottleneck knows ``log_ratio``.
    batch : Batch
        Rows.
    progress : float
        How far training has come, 0 to 1.
    n : int
        Draws for each row.
    dreg : bool
        Whether the encoder gets the doubly reparameterised gradient (Tucker et al., 2018, arXiv:1810.04152): the same
        expectation, and a signal-to-noise ratio that does not fall as ``n`` grows. It also scales gradients that reach the
        code through penalties.
    warmup : float
        Share of training over which the weight ``w`` rises from 0 to 1.
    """
    copies = Batch(*(None if t is None else t.repeat_interleave(n, dim=0) for t in batch))  # type: ignore[arg-type]
    trace = module.trace(copies, sample=True, corrupt=True, progress=progress)
    copies = trace.batch
    z = trace.code.z
    aux = {k: v.detach() for k, v in trace.code.aux.items()} if dreg else trace.code.aux
    log_prob = module.log_prob(trace.raw, copies).view(-1, n)  # (B, n)
    ratio = module.bottleneck.log_ratio(Code(z, {}, aux)).view(-1, n)  # (B, n)
    log_weight = log_prob - rising(progress, warmup) * ratio
    bound = (log_weight.logsumexp(dim=1) - math.log(n)).mean()
    share = log_weight.detach().softmax(dim=1)  # (B, n), what each draw contributes
    terms = {"reconstruction": -log_prob.mean(), "kl": ratio.mean()}
    terms["importance"] = log_weight.mean() - bound
    total = -bound
    if dreg and z.requires_grad:
        # The gradient of the bound is that of the log-weights averaged by their share. On its way from the code into the
        # encoder it is multiplied by the share once more; what the posterior's own density adds has been detached above.
        surrogate = (share * log_weight).sum(dim=1).mean()
        total = -bound.detach() - (surrogate - surrogate.detach())
        once_more = share.reshape(-1, *[1] * (z.dim() - 1))
        z.register_hook(lambda gradient: gradient * once_more.to(gradient.dtype))  # type: ignore[no-untyped-call]
    if module.training:
        # A likelihood that follows the data must count each draw by its share, as the bound does.
        cells = share.reshape(-1, *[1] * (copies.x.dim() - 1)).expand_as(copies.x)
        module.likelihood.observe(trace.raw, copies.x, cells if copies.mask is None else cells * copies.mask)
    total = _add_penalties(module, trace, total, terms)
    return Loss(total, terms)


@torch.no_grad()
def log_likelihood(
    module: AutoencoderModule,
    batch: Batch,
    n: int,
    *,
    elements: int,
    log_prior: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Estimate the log-likelihood of rows by importance sampling from the posterior, ``(B, 2)`` in nats and float64.

    .. math:: \log \frac1n \sum_{i=1}^n \frac{p(x \mid z_i)\, p(z_i)}{q(z_i \mid x)}, \qquad z_i \sim q(z \mid x)

    The encoder runs once for each row; draws are made and decoded in parts, so that memory does not grow with ``n``. The second
    number is the standard error of the first, by the spread of the weights: that of their mean, over their mean.

    Parameters
    ----------
    module : AutoencoderModule
        A model whose bottleneck knows ``log_ratio``.
    batch : Batch
        Rows.
    n : int
        Draws for each row.
    elements : int
        Numbers that the decoder puts out at a time.
    log_prior : callable, optional
        The log-density of codes ``(B, D)`` under another prior than the bottleneck's own, whose density must then be known.
    """
    x = batch.x if batch.mask is None else batch.x * batch.mask
    batch = batch._replace(x=x)
    h = module.hidden(x, batch.context, batch.mask)
    size = module.likelihood.params * x[0].numel()
    draws = min(n, max(1, elements // size))  # of a row at a time
    rows = max(1, elements // (size * draws))
    found = []
    for start in range(0, len(x), rows):
        part = Batch(*(None if t is None else t[start : start + rows] for t in batch))  # type: ignore[arg-type]
        total = squares = torch.full((len(part.x),), -math.inf, dtype=torch.float64)
        for done in range(0, n, draws):
            k = min(draws, n - done)
            copies = Batch(*(None if t is None else _repeat(t, k) for t in part))  # type: ignore[arg-type]
            code = module.bottleneck(_repeat(h[start : start + rows], k), sample=True)
            raw = module.decode(code.z, copies.context, copies.x, copies.mask)
            log_prob = module.log_prob(raw, copies)
            log_weight = log_prob - module.bottleneck.log_ratio(code)
            if log_prior is not None:
                log_weight = log_weight + log_prior(code.z) - cast(Tensor, module.bottleneck.log_prior(code.z))
            log_weight = log_weight.view(-1, k)  # (rows, k)
            log_weight = log_weight.cpu().double()
            total = torch.logaddexp(total, log_weight.logsumexp(dim=1))
            squares = torch.logaddexp(squares, (2 * log_weight).logsumexp(dim=1))
        spread = (n * (squares - 2 * total).exp() - 1).clamp_min(0.0)  # variance of the weights over their squared mean
        error = (spread / (n - 1)).sqrt() if n > 1 else torch.full_like(total, math.nan)
        found.append(torch.stack([total - math.log(n), error], dim=1))
    return torch.cat(found)


def _repeat(t: Tensor, k: int) -> Tensor:
    """Return ``k`` copies of each row; of a single one without copying."""
    return t.expand(k, *t.shape[1:]) if len(t) == 1 else t.repeat_interleave(k, dim=0)


def rising(progress: float, share: float) -> float:
    """Return a weight that rises linearly from 0 to 1 over the first ``share`` of training."""
    return min(1.0, progress / share) if share > 0 else 1.0


def _add_penalties(module: AutoencoderModule, trace: Trace, total: Tensor, terms: dict[str, Tensor]) -> Tensor:
    """Add every penalty in training, and afterwards those that are judged."""
    for penalty in module.penalties:
        if not (module.training or penalty.judged):
            continue
        name, term = str(penalty.name), penalty(module, trace).mean()
        terms[name] = terms[name] + term if name in terms else term
        total = total + term
    return total


def importance_mean(module: AutoencoderModule, batch: Batch, n: int) -> Tensor:
    r"""Return :math:`E[x \mid x_\text{observed}]` ``(B, *shape)`` by self-normalised importance sampling.

    The mean of the likelihood is averaged over ``n`` draws of the posterior with weights in proportion to
    :math:`p(x_\text{observed} \mid z)\, p(z) / q(z \mid x)`.
    """
    weights = total = most = None
    for _ in range(n):
        trace = module.trace(batch, sample=True)
        weight = module.log_prob(trace.raw, batch) - module.bottleneck.log_ratio(trace.code)  # (B,)
        mean = module.likelihood.mean(trace.raw)
        higher = weight if most is None else torch.maximum(most, weight)
        new = (weight - higher).exp()
        view = (-1, *[1] * (mean.dim() - 1))
        if total is None or weights is None or most is None:
            total, weights = new.view(view) * mean, new
        else:
            old = (most - higher).exp()
            total, weights = total * old.view(view) + new.view(view) * mean, weights * old + new
        most = higher
    if total is None or weights is None:
        raise ValueError("expected at least one draw")
    return total / weights.view(-1, *[1] * (total.dim() - 1))
