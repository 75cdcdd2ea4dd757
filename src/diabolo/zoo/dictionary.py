"""What models of sparse codes share: a linear dictionary, an encoder that may look again, help for dead units."""

from __future__ import annotations

import math
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

from diabolo.checks import Ge, Gt, ParameterError
from diabolo.data.arrays import ArrayCodec
from diabolo.declare import spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.parts.likelihoods import Likelihood
from diabolo.parts.networks.base import Network, run_encoder
from diabolo.parts.networks.mlp import FullyConnected
from diabolo.parts.penalties import Penalty
from diabolo.records import Batch, Schema, Trace
from diabolo.training.loop import Settings
from diabolo.zoo.sparse_codes import keep_largest

__all__ = ["Activity", "DeadUnits", "Dictionary", "DictionaryModel", "SparseUnits"]


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


@dataclass(frozen=True)
class Refinement:
    """How often the encoder reads the rest of a row, and what of the code so far it takes as given.

    Attributes
    ----------
    rounds : int
        Looks after the first.
    k : int
        Units of the code between looks.
    rectify : bool
        Whether these are at least 0.
    """

    rounds: int
    k: int
    rectify: bool


class DictionaryEncoder(nn.Module):
    r"""Reads a row, and then, as often as it is told, what the code so far leaves unexplained of it.

    .. math:: h_0 = E(x - b), \qquad h_{t+1} = z_t + E(x - \hat x(z_t)), \qquad z_t = \text{the } k \text{ largest units of } h_t

    With a linear :math:`E` a look is a step of iterative hard thresholding (Blumensath and Davies, 2009,
    doi:10.1016/j.acha.2009.04.002), of which the matrix is learned (Gregor and LeCun, Learning fast approximations of sparse
    coding, 2010). The bias :math:`b` of the dictionary is subtracted where the decoder's output is the row itself, and not, say,
    a logit.

    The dictionary is held in a tuple, so that its weights are counted and saved once, as the decoder's.

    Parameters
    ----------
    body : nn.Module
        ``(B, *shape) -> (B, units)``.
    dictionary : Dictionary
        The decoder.
    likelihood : Likelihood
        From the decoder's output to the expected row.
    refinement : Refinement, optional
        Looks after the first; None is a single look.
    """

    def __init__(
        self, body: nn.Module, dictionary: Dictionary, likelihood: Likelihood, refinement: Refinement | None = None
    ):
        super().__init__()
        self.body, self.tied, self.centred = body, (dictionary, likelihood), is_row(likelihood)
        self.refinement = refinement
        self.takes_mask: bool = getattr(body, "takes_mask", False) or refinement is not None

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """Map ``(B, *shape)`` and ``(B, C)`` to ``(B, units)``."""
        dictionary, likelihood = self.tied
        h = run_encoder(self.body, x - dictionary.bias.view(x.shape[1:]) if self.centred else x, context, mask)
        if self.refinement is not None:
            for _ in range(self.refinement.rounds):
                z = keep_largest(h, self.refinement.k, rectify=self.refinement.rectify)
                raw = dictionary(z).view(len(x), likelihood.params, *x.shape[1:])
                left = x - likelihood.mean(likelihood.complete(raw))
                h = z + run_encoder(self.body, left if mask is None else left * mask, context, mask)
        return h


class DictionaryNetwork:
    """Any encoder, with a linear dictionary as its decoder.

    The encoder's linear path starts as the transpose of the dictionary, so that a unit's input is at first the product of the
    row with its own column.
    """

    def __init__(
        self,
        inner: Network,
        units: int,
        schema: Schema,
        likelihood: Likelihood,
        *,
        unit_norm: bool,
        refinement: Refinement | None = None,
    ):
        self.inner, self.likelihood, self.refinement = inner, likelihood, refinement
        out = likelihood.params * schema.size
        self.dictionary = Dictionary(units, out, unit_norm=unit_norm, link=likelihood.output_for)

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, *shape) -> (B, out)``."""
        body = self.inner.encoder(schema, out, spatial=spatial)
        only = body.body[0] if isinstance(body, FullyConnected) and len(body.body) == 1 else None
        linear = getattr(body, "shortcut", only)
        if isinstance(linear, nn.Linear):
            with torch.no_grad():
                linear.weight.copy_(self.dictionary.weight[: schema.size].T)
                linear.bias.zero_()
        if self.refinement is None and not is_row(self.likelihood):
            return body
        return DictionaryEncoder(body, self.dictionary, self.likelihood, self.refinement)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return the dictionary."""
        return self.dictionary


def is_row(likelihood: Likelihood) -> bool:
    """Tell whether the decoder's output is the expected row itself."""
    kind = type(likelihood)
    return likelihood.params == 1 and kind.mean is Likelihood.mean and kind.output_for is Likelihood.output_for


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
    learning_rate: Annotated[
        float | Literal["auto"],
        Gt(0),
        "highest learning rate; 'auto' is 0.005 for up to 128 features, and above it falls with the root of their number",
    ] = "auto"  # type: ignore[assignment]  # every other model has a number
    weight_decay: Annotated[float, Ge(0), "decoupled L2 decay of the weights, per unit of learning rate"] = 0.0
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

    def _rate(self, size: int) -> float:
        if self.learning_rate == "auto":
            return 5e-3 * min(1.0, math.sqrt(128 / size))
        return self.learning_rate

    def _code_width(self, schema: Schema) -> int:
        return min(4096, 4 * schema.size) if self.latent_dim == "auto" else self.latent_dim

    def _network(self, schema: Schema) -> Network:
        inner, likelihood = super()._network(schema), self._likelihood(schema)
        units, refinement = self._code_width(schema), self._refinement(schema)
        return DictionaryNetwork(inner, units, schema, likelihood, unit_norm=self._unit_norm, refinement=refinement)

    def _refinement(self, schema: Schema) -> Refinement | None:
        """Return how the encoder comes back to a row."""
        return None

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

    refinements: Annotated[
        int,
        Ge(0),
        "how often the encoder reads what its code leaves unexplained of a row, and adds to it; each costs about half as much "
        "again as the first look",
    ] = 0

    _rectify = True

    def _refinement(self, schema: Schema) -> Refinement | None:
        return Refinement(self.refinements, self._active(schema), self._rectify) if self.refinements else None

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
