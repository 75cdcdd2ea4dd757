"""Sparse codes: a penalty on activity, a number of active units, learned thresholds, gates, nested dictionaries."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import Ge, Gt, Le, Lt, ParameterError
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck, Identity
from diabolo.parts.penalties import KLSparsity, L1Sparsity, Penalty
from diabolo.records import Batch, Code, Schema, Trace
from diabolo.zoo.dictionary import DictionaryModel, SparseUnits
from diabolo.zoo.sparse_codes import BatchTopK, SparseCode, TopK

__all__ = ["BatchTopKAutoencoder", "GatedAutoencoder", "JumpReLUAutoencoder", "KSparseAutoencoder"]
__all__ += ["MatryoshkaAutoencoder", "SparseAutoencoder", "TopKAutoencoder"]


@register
@spec
class SparseAutoencoder(BaseAutoencoder):
    r"""A code of which few units are active at a time.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b) + \lambda \, \Omega(z)

    where :math:`\Omega` is the mean over rows of :math:`\sum_d |z_d|` for rectified codes (``sparsity="l1"``), or the KL
    divergence of each unit's mean activation from ``rate`` for codes in (0, 1) (``sparsity="kl"``); in nats per row. The penalty
    is part of the validation loss: judged by its reconstruction alone, a model would keep weights whose codes are not sparse.

    {parameters}

    References
    ----------
    Ng, Sparse autoencoder, CS294A lecture notes, 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import SparseAutoencoder
    >>> X = load_iris().data
    >>> sparse = SparseAutoencoder(16, max_epochs=5, random_state=0).fit(X)
    >>> bool((sparse.transform(X) >= 0).all())
    True
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=64, kw_only=False)
    )
    sparsity: Annotated[
        Literal["l1", "kl"], "what is penalised: the absolute code, or the distance of mean activations from a rate"
    ] = "l1"
    sparsity_weight: Annotated[float, Ge(0), "weight of the penalty in the loss, in nats per row"] = 0.1
    rate: Annotated[float, Gt(0), Lt(1), "mean activation that sparsity='kl' aims at"] = 0.05

    _judge_penalties = True

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema), nn.ReLU() if self.sparsity == "l1" else nn.Sigmoid())

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        if self.sparsity == "l1":
            return (L1Sparsity(self.sparsity_weight),)
        return (KLSparsity(self.sparsity_weight, self.rate),)


# a number of active units -------------------------------------------------------------------------------------------------------


@register
@spec
class KSparseAutoencoder(SparseUnits):
    r"""Keeps the ``k`` largest units of a linear code, and nothing else is penalised.

    .. math:: h = W (x - b) + c, \qquad z = h \text{ on the support of its } k \text{ largest units, else } 0, \qquad
              \hat x = D z + b

    Units are linear and may be negative. The loss is :math:`-\log p(x \mid z)`, summed over features, averaged over rows, in
    nats, with the auxiliary loss of :class:`TopKAutoencoder` for dead units (the paper lowers ``k`` in the course of training to
    the same end).

    {parameters}

    References
    ----------
    Makhzani and Frey, k-Sparse autoencoders, 2013, arXiv:1312.5663.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import KSparseAutoencoder
    >>> X = load_iris().data
    >>> Z = KSparseAutoencoder(16, k=2, max_epochs=5, random_state=0).fit(X).transform(X)
    >>> int((Z != 0).sum(axis=1).max())
    2
    """

    alpha: Annotated[
        float,
        Ge(1),
        "active units outside training, as a multiple of k; above 1 helps features for a classifier and blurs "
        "reconstructions",
    ] = 1.0

    _unit_norm = False
    _rectify = False

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        width, k = self._code_width(schema), self._active(schema)
        later = min(width, round(self.alpha * k))
        return TopK(width, k, self.dead_after, rectify=self._rectify, k_inference=later)


@register
@spec
class TopKAutoencoder(SparseUnits):
    r"""Learns a dictionary of which each row uses at most ``k`` features.

    .. math:: z = \text{TopK}(\text{ReLU}(W (x - b) + c)), \qquad \hat x = D z + b, \qquad \|D_j\| = 1

    The loss is :math:`-\log p(x \mid z)` (under the Gaussian likelihood half the squared error), summed over features, averaged
    over rows, in nats, plus ``dead_weight`` times that of rebuilding the residual from dead units. :math:`W` starts as the
    transpose of :math:`D`.

    {parameters}

    References
    ----------
    Gao et al., Scaling and evaluating sparse autoencoders, 2024, arXiv:2406.04093.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import TopKAutoencoder
    >>> X = load_iris().data
    >>> topk = TopKAutoencoder(16, k=2, max_epochs=5, random_state=0).fit(X)
    >>> topk.dictionary_.shape, topk.activity(X).l0 <= 2
    ((16, 4), True)
    """

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return TopK(self._code_width(schema), self._active(schema), self.dead_after, rectify=self._rectify)


@register
@spec
class BatchTopKAutoencoder(SparseUnits):
    r"""Learns a dictionary of which rows use ``k`` features on average: hard rows more, easy rows fewer.

    As :class:`TopKAutoencoder`, but in training the :math:`k B` largest units of a whole batch of :math:`B` rows stay. Afterwards
    a unit is active when it exceeds a threshold, the average over batches of the smallest unit that stayed, so that the code of
    a row does not depend on other rows.

    {parameters}

    References
    ----------
    Bussmann et al., BatchTopK sparse autoencoders, 2024, arXiv:2412.06410.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import BatchTopKAutoencoder
    >>> X = load_iris().data
    >>> BatchTopKAutoencoder(16, k=2, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 16)
    """

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return BatchTopK(self._code_width(schema), self._active(schema), self.dead_after)


class Prefixes(Penalty):
    r""":math:`\sum_m -\log p(x \mid D_{:m} z_{:m} + b)` for each row: the first units alone must rebuild it too.

    Parameters
    ----------
    weight : float
        What the sum is multiplied by.
    sizes : tuple of int
        How many first units.
    """

    name = "prefixes"

    def __init__(self, weight: float, sizes: tuple[int, ...]):
        super().__init__(weight)
        self.sizes = sizes

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        weight, z = module.decoder.weight, trace.code.z
        raw = module.decoder.bias.expand(len(z), -1)
        total, start = trace.raw.new_zeros(len(z)), 0
        for stop in self.sizes:
            raw = raw + F.linear(z[:, start:stop], weight[:, start:stop])
            total = total - module.log_prob(raw.view_as(trace.raw), trace.batch)
            start = stop
        return self.weight * total


@register
@spec
class MatryoshkaAutoencoder(SparseUnits):
    r"""Nested dictionaries: the first units hold what is general, later ones add what is special.

    .. math:: L = -\sum_m \log p(x \mid D_{:m} z_{:m} + b)

    over the prefixes ``m`` of the code and the whole of it, each in nats, summed over features and averaged over rows; the code
    is that of :class:`BatchTopKAutoencoder`. The validation loss is that of the whole code.

    {parameters}

    References
    ----------
    Bussmann et al., Learning multi-level features with Matryoshka sparse autoencoders, 2025, arXiv:2503.17547.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import MatryoshkaAutoencoder
    >>> X = load_iris().data
    >>> nested = MatryoshkaAutoencoder(16, k=2, prefixes=(4, 8), max_epochs=5, random_state=0).fit(X)
    >>> nested.dictionary_[:4].shape
    (4, 4)
    """

    prefixes: Annotated[
        tuple[int, ...] | Literal["auto"],
        Ge(1),
        "numbers of first units that must rebuild a row by themselves, rising and below latent_dim; 'auto' is a sixteenth, an "
        "eighth, a quarter and a half of the code",
    ] = "auto"
    prefix_weight: Annotated[float, Ge(0), "weight of the losses of the prefixes beside that of the whole code"] = 1.0

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return BatchTopK(self._code_width(schema), self._active(schema), self.dead_after)

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        width = self._code_width(schema)
        if self.prefixes == "auto":
            sizes = tuple(sorted({width // n for n in (16, 8, 4, 2)} - {0}))
        else:
            sizes = tuple(self.prefixes)
            if sizes != tuple(sorted(set(sizes))) or any(m >= width for m in sizes):
                raise ParameterError(
                    f"prefixes={sizes}: expected rising numbers below the {width} units of the code; the whole code is "
                    "always the last prefix"
                )
        penalties = super()._penalties(schema)
        return (Prefixes(self.prefix_weight, sizes), *penalties) if sizes and self.prefix_weight > 0 else penalties


# learned thresholds and gates ---------------------------------------------------------------------------------------------------


class JumpReLU(SparseCode):
    r"""A unit passes unchanged where it exceeds a threshold of its own, and costs :math:`\lambda` nats where it does.

    .. math:: z = h \, H(h - \theta), \qquad \text{cost} = \lambda \sum_d H(h_d - \theta_d), \qquad \theta = e^\tau

    The step :math:`H` has no gradient; thresholds learn by straight-through estimates with a box :math:`K` of width
    :math:`\varepsilon`,

    .. math:: \frac{\partial z}{\partial\theta} \approx -\frac{\theta}{\varepsilon} K\Big(\frac{h - \theta}{\varepsilon}\Big),
              \qquad \frac{\partial H}{\partial\theta} \approx -\frac1\varepsilon K\Big(\frac{h - \theta}{\varepsilon}\Big).

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    weight : float
        :math:`\lambda`, nats for each active unit.
    bandwidth : float
        :math:`\varepsilon`, and where thresholds start, as a share of the root mean squared length of the centred rows.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    """

    length: Tensor

    def __init__(self, latent_dim: int, weight: float, bandwidth: float, dead_after: int):
        super().__init__(latent_dim, dead_after)
        self.weight, self.bandwidth = weight, bandwidth
        self.log_threshold = nn.Parameter(torch.full((latent_dim,), bandwidth).log())
        self.register_buffer("length", torch.ones(()))

    @torch.no_grad()
    def on_start(self, batch: Batch) -> None:
        """Take up the length of rows."""
        x = batch.x.flatten(1)
        length = (x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        self.length.copy_(torch.where(length > 0, length, torch.ones_like(length)))
        self.log_threshold.fill_(float(self.bandwidth * self.length)).log_()

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return units over their threshold."""
        theta = self.log_threshold.exp().view(1, -1, *[1] * (h.dim() - 2))
        epsilon = self.bandwidth * self.length
        active = (h > theta).to(h.dtype)
        near = ((h - theta).abs() < epsilon / 2).to(h.dtype)
        step = -near / epsilon * theta
        step = active + step - step.detach()  # the value of the step, the gradient of the estimate
        z = h * active + theta.detach() * (step - step.detach())
        self.watch(z)
        return Code(z, {"sparsity": self.weight * step.flatten(1).sum(1)}, {"h": h})


@register
@spec
class JumpReLUAutoencoder(DictionaryModel):
    r"""Learns a dictionary, and for each of its features the threshold over which it counts.

    .. math:: L = \frac1B \sum_b \Big[-\log p(x_b \mid z_b) + \lambda \, \|z_b\|_0\Big], \qquad
              z = h \, H(h - \theta), \quad h = W(x - b) + c

    in nats per row: an active unit costs :math:`\lambda` nats, so that it is used where it explains more than that. Thresholds
    learn by straight-through estimates; columns of the dictionary have length 1. The cost is part of the validation loss and
    of :meth:`score_samples`.

    In the paper ``bandwidth`` and the first thresholds are 0.001, for rows of length 1 and billions of them. Inputs are seldom
    that near to their thresholds, which would hardly move in some thousand steps; hence the wider default.

    {parameters}

    References
    ----------
    Rajamanoharan et al., Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders, 2024,
    arXiv:2407.14435.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import JumpReLUAutoencoder
    >>> X = load_iris().data
    >>> jump = JumpReLUAutoencoder(16, max_epochs=5, random_state=0).fit(X)
    >>> bool((jump.transform(X) >= 0).all())
    True
    """

    sparsity_weight: Annotated[float, Ge(0), "what an active unit costs, in nats"] = 1.0
    bandwidth: Annotated[
        float,
        Gt(0),
        "width around a threshold within which inputs move it, and its start, as a share of the root mean squared length of "
        "the centred rows",
    ] = 0.1
    sparsity_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the cost of active units rises from 0 to its full value"
    ] = 0.1

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return JumpReLU(self._code_width(schema), self.sparsity_weight, self.bandwidth, self.dead_after)

    def _warmup(self) -> float:
        return self.sparsity_warmup


class Gated(SparseCode):
    r"""One path decides which units are active, another how strongly; both read the same input.

    .. math:: z = H(h) \, \text{ReLU}(e^r h + c), \qquad \text{cost} = \lambda \sum_d \text{ReLU}(h_d)

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    weight : float
        :math:`\lambda`, nats for each unit of the gate's rectified input.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    """

    def __init__(self, latent_dim: int, weight: float, dead_after: int):
        super().__init__(latent_dim, dead_after)
        self.weight = weight
        self.log_gain = nn.Parameter(torch.zeros(latent_dim))
        self.shift = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return gated magnitudes."""
        shape = (1, -1, *[1] * (h.dim() - 2))
        magnitude = (h * self.log_gain.exp().view(shape) + self.shift.view(shape)).relu()
        z = magnitude * (h > 0)
        self.watch(z)
        return Code(z, {"sparsity": self.weight * h.relu().flatten(1).sum(1)}, {"h": h})


class GateAlone(Penalty):
    r""":math:`-\log p(x \mid D \, \text{ReLU}(h) + b)` for each row, with ``D`` and ``b`` held fixed: it trains the gate."""

    name = "gate"

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        decoder = module.decoder
        raw = F.linear(trace.code.aux["h"].relu(), decoder.weight.detach(), decoder.bias.detach())
        term: Tensor = -self.weight * module.log_prob(raw.view_as(trace.raw), trace.batch)
        return term


@register
@spec
class GatedAutoencoder(DictionaryModel):
    r"""Learns a dictionary with an L1 penalty that does not shrink the code.

    .. math:: L = \frac1B \sum_b \Big[-\log p(x_b \mid D z_b + b) + \lambda \sum_d \text{ReLU}(h_{bd})
              - \log p\big(x_b \mid D' \, \text{ReLU}(h_b) + b'\big)\Big], \qquad
              z = H(h) \, \text{ReLU}(e^r h + c)

    in nats per row, :math:`h = W(x - b) + a`. The gate :math:`H(h)` decides which units are active and bears the penalty; a gain
    and a shift of their own decide how strongly. The last term trains the gate, with the dictionary held fixed
    (:math:`D', b'`). Columns of the dictionary have length 1. The penalty is part of the validation loss and of
    :meth:`score_samples`.

    {parameters}

    References
    ----------
    Rajamanoharan et al., Improving dictionary learning with gated sparse autoencoders, 2024, arXiv:2404.16014.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import GatedAutoencoder
    >>> X = load_iris().data
    >>> gated = GatedAutoencoder(16, max_epochs=5, random_state=0).fit(X)
    >>> bool((gated.transform(X) >= 0).all())
    True
    """

    sparsity_weight: Annotated[
        float, Ge(0), "weight of the penalty in the loss, in nats for each unit of the gate's rectified input"
    ] = 2.0
    sparsity_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the penalty rises from 0 to its full weight"
    ] = 0.1

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Gated(self._code_width(schema), self.sparsity_weight, self.dead_after)

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        return (GateAlone(1.0), *super()._penalties(schema))

    def _warmup(self) -> float:
        return self.sparsity_warmup
