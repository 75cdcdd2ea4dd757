"""What models of sparse codes share: a linear dictionary, units that are counted, help for dead units."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import Ge, ParameterError
from diabolo.data.arrays import ArrayCodec
from diabolo.declare import spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.likelihoods import Likelihood
from diabolo.parts.networks.base import Network
from diabolo.parts.networks.mlp import FullyConnected
from diabolo.parts.penalties import Penalty
from diabolo.records import Batch, Code, Schema, Trace
from diabolo.training.loop import Settings

__all__ = ["Activity", "BatchTopK", "DeadUnits", "Dictionary", "DictionaryModel", "SparseCode", "SparseUnits", "TopK"]

THRESHOLD_STEP = 0.02  # share of the way that a followed threshold moves with each batch


class Dictionary(nn.Module):
    """A decoder that is one matrix: each column is a feature, each row of data a sum of few of them and a bias.

    Parameters
    ----------
    units, out : int
        Width of the code, and of the decoder's output.
    unit_norm : bool
        Whether columns keep length 1: without it a smaller code and a longer column are the same thing.
    link : callable
        From rows to the output that stands for them; the bias starts at its mean.
    """

    def __init__(self, units: int, out: int, *, unit_norm: bool, link: Callable[[Tensor], Tensor]):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(out, units), dim=0))
        self.bias = nn.Parameter(torch.zeros(out))
        self.unit_norm, self.link = unit_norm, link

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(B, units)`` to ``(B, out)``."""
        return F.linear(z, self.weight, self.bias)

    @torch.no_grad()
    def on_start(self, batch: Batch) -> None:
        """Start the bias at the mean of the rows."""
        mean = self.link(batch.x).flatten(1).mean(dim=0)
        self.bias[: len(mean)] = mean

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring columns back to length 1."""
        if self.unit_norm:
            self.weight.copy_(F.normalize(self.weight, dim=0))


class CentredEncoder(nn.Module):
    """Subtracts the dictionary's bias from the row before it is encoded.

    The dictionary is held in a tuple, so that its weights are counted and saved once, as the decoder's.
    """

    def __init__(self, body: nn.Module, dictionary: Dictionary):
        super().__init__()
        self.body, self.tied = body, (dictionary,)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, *shape)`` to ``(B, units)``."""
        out: Tensor = self.body(x - self.tied[0].bias.view(x.shape[1:]))
        return out


class DictionaryNetwork:
    """Any encoder, with a linear dictionary as its decoder.

    The encoder's linear path starts as the transpose of the dictionary, so that a unit's input is at first the product of the
    row with its own column. The dictionary's bias is subtracted from the encoder's input where the decoder's output is the row
    itself, and not, say, a logit.
    """

    def __init__(self, inner: Network, units: int, schema: Schema, likelihood: Likelihood, *, unit_norm: bool):
        self.inner = inner
        out = likelihood.params * schema.size
        self.dictionary = Dictionary(units, out, unit_norm=unit_norm, link=likelihood.output_for)
        self.centred = is_row(likelihood)

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, *shape) -> (B, out)``."""
        body = self.inner.encoder(schema, out, spatial=spatial)
        only = body.body[0] if isinstance(body, FullyConnected) and len(body.body) == 1 else None
        linear = getattr(body, "shortcut", only)
        if isinstance(linear, nn.Linear):
            with torch.no_grad():
                linear.weight.copy_(self.dictionary.weight[: schema.size].T)
                linear.bias.zero_()
        return CentredEncoder(body, self.dictionary) if self.centred else body

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return the dictionary."""
        return self.dictionary


def is_row(likelihood: Likelihood) -> bool:
    """Tell whether the decoder's output is the expected row itself."""
    kind = type(likelihood)
    return likelihood.params == 1 and kind.mean is Likelihood.mean and kind.output_for is Likelihood.output_for


class SparseCode(Bottleneck, ABC):
    """A code of few active units, which counts for each unit the training rows since it was last active.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    """

    idle: Tensor
    seen: Tensor

    def __init__(self, latent_dim: int, dead_after: int):
        super().__init__()
        self.in_features = self.out_features = latent_dim
        self.dead_after = dead_after
        self.register_buffer("idle", torch.zeros(latent_dim, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._pending: tuple[Tensor, int] | None = None

    def watch(self, z: Tensor) -> None:
        """Note who was active in a training batch ``(B, D, *grid)``; takes effect in :meth:`after_step`."""
        if self.training:
            active = (z.detach() != 0).flatten(2).any(dim=2) if z.dim() > 2 else z.detach() != 0
            self._pending = (active.any(dim=0), len(z))

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the rows of the last batch."""
        if self._pending is None:
            return
        active, rows = self._pending
        self._pending = None
        self.idle += rows
        self.idle.masked_fill_(active, 0)
        self.seen += rows

    def dead(self) -> Tensor:
        """Return which units are dead ``(D,)``: idle over the last ``dead_after`` rows, or over all rows if there were fewer."""
        return (self.idle > 0) & (self.idle >= self.seen.clamp(max=self.dead_after))


def keep_largest(h: Tensor, k: int) -> Tensor:
    """Set all but the ``k`` largest of each row's units to 0, at each place of the grid: ``(B, D, *grid)``."""
    top, index = h.topk(k, dim=1)
    return torch.zeros_like(h).scatter(1, index, top)


class TopK(SparseCode):
    """The ``k`` largest inputs of each row stay, the others are 0.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    k : int
        Active units in training.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    rectify : bool
        Whether inputs below 0 are 0 as well, so that a row may have fewer active units.
    k_inference : int, optional
        Active units outside training, ``k`` by default.
    """

    def __init__(self, latent_dim: int, k: int, dead_after: int, *, rectify: bool, k_inference: int | None = None):
        super().__init__(latent_dim, dead_after)
        self.k, self.rectify = k, rectify
        self.k_inference = k if k_inference is None else k_inference

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return the largest inputs."""
        z = keep_largest(h.relu() if self.rectify else h, self.k if self.training else self.k_inference)
        self.watch(z)
        return Code(z, {}, {"h": h})


class BatchTopK(SparseCode):
    r"""In training the :math:`k B` largest rectified inputs of a batch of :math:`B` rows stay; afterwards those over a threshold.

    The threshold follows the smallest input that stayed, by an exponential average over batches. Before the first batch, ``k``
    units of each row stay.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    k : int
        Active units of a row, on average.
    dead_after : int
        Training rows without activity after which a unit counts as dead.
    """

    threshold: Tensor

    def __init__(self, latent_dim: int, k: int, dead_after: int):
        super().__init__(latent_dim, dead_after)
        self.k = k
        self.register_buffer("threshold", torch.tensor(-1.0))  # below 0: not known yet
        self._smallest: Tensor | None = None

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Return the inputs that stay."""
        a = h.relu()
        if self.training:
            places = a.numel() // a.shape[1]  # rows, times places of the grid
            top, index = a.flatten().topk(self.k * places)
            z = torch.zeros_like(a).flatten().scatter(0, index, top).view_as(a)
            self._smallest = top.detach()
        elif self.threshold < 0:
            z = keep_largest(a, self.k)
        else:
            z = a * (a >= self.threshold)
        self.watch(z)
        return Code(z, {}, {"h": h})

    @torch.no_grad()
    def after_step(self) -> None:
        """Count activity, and move the threshold towards that of the last batch."""
        super().after_step()
        if self._smallest is None:
            return
        positive = self._smallest[self._smallest > 0]
        self._smallest = None
        if len(positive):
            now = positive.min().to(self.threshold.dtype)
            self.threshold.copy_(torch.where(self.threshold < 0, now, self.threshold.lerp(now, THRESHOLD_STEP)))


class DeadUnits(Penalty):
    r"""Lets dead units learn from what the living ones leave unexplained.

    .. math:: \alpha \left[ \log p(x \mid \hat x) - \log p(x \mid \hat x + D_\text{dead} z_\text{dead}) \right]

    for each row, in nats, with :math:`\hat x` held fixed and :math:`z_\text{dead}` the ``n`` largest rectified inputs among
    dead units. Under the Gaussian likelihood it is, but for a constant, half the squared distance of the residual from what
    dead units make of it (Gao et al., 2024). It is 0 when no unit is dead.

    Parameters
    ----------
    weight : float
        :math:`\alpha`.
    n : int
        Dead units that may take part for a row.
    """

    name = "dead_units"

    def __init__(self, weight: float, n: int):
        super().__init__(weight)
        self.n = n

    def forward(self, module: Any, trace: Trace) -> Tensor:
        """Return ``(B,)``."""
        dead = module.bottleneck.dead()
        if not bool(dead.any()):
            return trace.raw.new_zeros(len(trace.raw))
        h = trace.code.aux["h"][:, dead].relu()  # (B, n_dead)
        top, index = h.topk(min(self.n, h.shape[1]), dim=1)
        z = torch.zeros_like(h).scatter(1, index, top)
        more = F.linear(z, module.decoder.weight[:, dead])
        raw = trace.raw.detach()
        helped = module.log_prob(raw + more.view_as(raw), trace.batch)
        term: Tensor = self.weight * (module.log_prob(raw, trace.batch) - helped)
        return term


@dataclass(frozen=True)
class Activity:
    """How a sparse code is used by some rows.

    Attributes
    ----------
    rate : ndarray of shape (latent_dim,)
        Share of the rows in which each unit is active, that is, not 0.
    strength : ndarray of shape (latent_dim,)
        Mean absolute value of each unit over the rows in which it is active; 0 for a unit that never is.
    n_active : ndarray of shape (n,)
        Active units of each row.
    """

    rate: NDArray[Any]
    strength: NDArray[Any]
    n_active: NDArray[np.int64]

    @property
    def l0(self) -> float:
        """Mean number of active units of a row."""
        return float(self.n_active.mean())


@spec
class DictionaryModel(BaseAutoencoder, ABC):
    """A sparse code over a linear dictionary, with help for dead units; the encoder may have hidden layers."""

    latent_dim: Annotated[
        int | Literal["auto"],
        Ge(1),
        "units of the code, which may be more than there are features; 'auto' is four times the number of features, at most "
        "4096",
    ] = field(default="auto", kw_only=False)
    hidden: Annotated[
        tuple[int, ...] | Literal["auto"],
        Ge(1),
        "widths of the encoder's hidden layers; () makes it linear; 'auto' sizes two layers from the data; the decoder is "
        "always one linear dictionary",
    ] = ()
    dead_weight: Annotated[
        float, Ge(0), "weight of the auxiliary loss, by which dead units learn from the residual; 0 is none"
    ] = 0.03125
    n_dead: Annotated[
        int | Literal["auto"],
        Ge(1),
        "dead units that take part in the auxiliary loss for a row; 'auto' is half the number of features",
    ] = "auto"
    dead_after: Annotated[int, Ge(1), "training rows without activity after which a unit counts as dead"] = 10_000

    _unit_norm = True  # not annotated, hence not a parameter

    @property
    def dictionary_(self) -> NDArray[Any]:
        """The features that the model has found, ``(latent_dim, n_features)``: what 1 in each unit adds to a row.

        In the units of the data where the decoder's output is the row (the Gaussian and Laplace likelihoods) and scaling is
        linear; else in the units of the decoder's output: logits, or quantile-transformed values.
        """
        check_is_fitted(self)
        size = self.schema_.size
        decoder: Any = self.module_.decoder
        columns = decoder.weight[:size].detach().cpu().double().numpy().T
        scaling = self.codec_.scaling
        if not is_row(self.module_.likelihood) or scaling.quantiles is not None:
            return np.asarray(columns)
        rows = columns.reshape(-1, *self.schema_.shape)
        return np.asarray((rows * scaling.width).reshape(len(columns), size))

    @property
    def dead_units_(self) -> NDArray[np.int64]:
        """Units that were never active over the last ``dead_after`` rows of training, or all of them if there were fewer."""
        check_is_fitted(self)
        bottleneck: Any = self.module_.bottleneck
        return np.flatnonzero(bottleneck.dead().cpu().numpy())

    def activity(self, X: Any) -> Activity:
        """Tell how often and how strongly each unit is active, and how many units a row has.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.

        Returns
        -------
        Activity
            ``rate`` and ``strength`` of each unit, ``n_active`` of each row, and their mean ``l0``.
        """
        Z = np.abs(np.asarray(self.transform(X)))  # also where set_output asks for frames
        active = Z > 0
        counts = active.sum(axis=0)
        return Activity(counts / len(Z), Z.sum(axis=0) / np.maximum(counts, 1), active.sum(axis=1))

    def _code_width(self, schema: Schema) -> int:
        return min(4096, 4 * schema.size) if self.latent_dim == "auto" else self.latent_dim

    def _network(self, schema: Schema) -> Network:
        inner, likelihood = super()._network(schema), self._likelihood(schema)
        return DictionaryNetwork(inner, self._code_width(schema), schema, likelihood, unit_norm=self._unit_norm)

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        if self.dead_weight == 0:
            return ()
        n = max(1, schema.size // 2) if self.n_dead == "auto" else self.n_dead
        return (DeadUnits(self.dead_weight, n),)


@spec
class SparseUnits(DictionaryModel, ABC):
    """A code of which ``k`` units are active."""

    k: Annotated[
        int | Literal["auto"],
        Ge(1),
        "active units of a row; 'auto' is a quarter of the number of features, at least 1 and at most 32",
    ] = "auto"

    def _active(self, schema: Schema) -> int:
        width = self._code_width(schema)
        if self.k == "auto":
            return min(width, 32, max(1, schema.size // 4))
        if self.k > width:
            raise ParameterError(
                f"k={self.k}: a code of {width} units cannot have {self.k} active; expected k <= latent_dim. "
                "Lower k, or raise latent_dim."
            )
        return self.k

    def _choices(self, codec: ArrayCodec, module: AutoencoderModule, settings: Settings) -> dict[str, Any]:
        return {**super()._choices(codec, module, settings), "k": self._active(codec.schema)}
