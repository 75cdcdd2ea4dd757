"""The masked autoencoder: cells are hidden from the encoder, and the decoder must say what was there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diabolo.checks import Ge, Gt, Lt, ParameterError
from diabolo.data.arrays import ArrayCodec
from diabolo.data.raw import Raw
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Bottleneck, Identity
from diabolo.parts.corruptions import Corruption
from diabolo.parts.networks.base import Network
from diabolo.records import Batch, Schema, Trace
from diabolo.training.loop import Settings

__all__ = ["MaskedAutoencoder"]

GRID = 7  # patch_size="auto" cuts the shorter side of an image into about this many
LARGEST = 16  # pixels, as in the paper
FOLDS = 8  # groups of patches that are hidden in turn for scores


class Hiding(Corruption):
    """Hides patches of each row from the encoder.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row.
    level : float
        Expected share of the patches hidden. Each row draws a share of its own between 0 and 1, by :math:`u^{1/f - 1}` with
        :math:`u` uniform and :math:`f` the level, so that rows with few missing cells and with many are known from training.
    patch : int
        Cells along each side of a patch, which reaches over all channels; 1 for tables, whose columns are hidden one by one.
    seen_weight : float
        Weight of cells that are not hidden in the loss.
    """

    def __init__(self, shape: tuple[int, ...], level: float, patch: int, *, seen_weight: float):
        super().__init__(level)
        self.patch, self.seen_weight = patch, seen_weight
        self.height, self.width = shape[1:] if len(shape) == 3 else (1, shape[-1])
        self.rows, self.columns = math.ceil(self.height / patch), math.ceil(self.width / patch)

    def by_column(self, owner: Sequence[int]) -> None:
        """Hide the features of a column together."""
        super().by_column(owner)
        self.columns = owner[-1] + 1

    @property
    def n_patches(self) -> int:
        """Patches of a row; those at the border may be smaller."""
        return self.rows * self.columns

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with hidden cells at 0."""
        return x * self.seen(x)

    def seen(self, x: Tensor) -> Tensor:
        """Draw which cells the encoder may see: ``(B, *shape)``, 1 where it may."""
        n = self.n_patches
        share = torch.rand(len(x), 1, device=x.device) ** (1 / self.level - 1)  # (B, 1)
        # rounded by chance, so that the share holds
        hidden = (share * n + torch.rand(len(x), 1, device=x.device)).floor()
        order = torch.rand(len(x), n, device=x.device).argsort(dim=1).argsort(dim=1)
        return self.cells(order >= hidden, x)

    def folds(self, x: Tensor) -> list[Tensor]:
        """Return fixed choices of seen cells, ``(1, *shape)`` each, of which every cell is hidden in one."""
        row, column = torch.arange(self.rows, device=x.device), torch.arange(self.columns, device=x.device)
        group = (3 * row[:, None] + column).flatten() % FOLDS  # neighbours are in different groups
        return [self.cells((group != k)[None], x[:1]) for k in sorted(set(group.tolist()))]

    def cells(self, patches: Tensor, x: Tensor) -> Tensor:
        """Spread values of patches ``(B, n_patches)`` over the cells of rows like ``x``."""
        if self.owner is not None:
            return patches.to(x.dtype)[:, self.owner.to(x.device)]
        grid = patches.view(-1, 1, self.rows, self.columns).to(x.dtype)
        grid = grid.repeat_interleave(self.patch, dim=2).repeat_interleave(self.patch, dim=3)
        grid = grid[:, :, : self.height, : self.width]
        return grid.expand(-1, x[0].numel() // (self.height * self.width), -1, -1).reshape(-1, *x.shape[1:])


class MaskedModule(AutoencoderModule):
    """Hides cells where other models damage them: to the encoder a hidden cell is a missing one."""

    corruption: Hiding

    def trace(self, batch: Batch, *, sample: bool, corrupt: bool = False, progress: float = 1.0) -> Trace:
        """Run everything once; with ``corrupt`` the trace's batch has the weights of the cells in the loss as its mask."""
        if not corrupt:
            return super().trace(batch, sample=sample)
        return self.trace_seen(batch, self.corruption.seen(batch.x), sample=sample)

    def trace_seen(self, batch: Batch, seen: Tensor, *, sample: bool) -> Trace:
        """Run everything once on the cells that are observed and ``seen``, broadcastable to ``(B, *shape)``."""
        observed = torch.ones_like(batch.x) if batch.mask is None else batch.mask
        shown, hidden = observed * seen, observed * (1 - seen)
        x_in = batch.x * shown
        code = self.encode(x_in, batch.context, shown, sample=sample)
        raw = self.decode(code.z, batch.context, x_in, shown)
        if self.training:
            self.likelihood.observe(raw, batch.x, hidden)
        return Trace(batch._replace(mask=hidden + self.corruption.seen_weight * shown), x_in, code, raw)

    def predicted_log_prob(self, batch: Batch) -> Tensor:
        """Return the log-density of each cell ``(B, *shape)`` given those that are seen while it is hidden."""
        total = torch.zeros_like(batch.x)
        for seen in self.corruption.folds(batch.x):
            raw = self.trace_seen(batch, seen, sample=False).raw
            total += (1 - seen) * self.log_prob_elements(raw, batch)
        return total


class WithIndicators:
    """A network whose encoder also gets, for each cell, whether it is missing.

    Parameters
    ----------
    network : Network
        Builds the halves; an encoder of its own that takes a mask is left as it is.
    """

    def __init__(self, network: Network):
        self.network = network

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return an encoder for twice as many channels, or columns."""
        first, *rest = schema.shape
        doubled = dataclasses.replace(schema, shape=(2 * first, *rest), columns=())
        body = self.network.encoder(doubled, out, spatial=spatial)
        if getattr(body, "takes_mask", False):
            return self.network.encoder(schema, out, spatial=spatial)
        return IndicatorEncoder(body, schema.size)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return the network's decoder."""
        return self.network.decoder(schema, inp, params, spatial=spatial)


class IndicatorEncoder(nn.Module):
    """Puts a row and the indicators of its missing cells side by side."""

    takes_mask = True

    def __init__(self, body: nn.Module, size: int):
        super().__init__()
        self.body = body
        if self.shortcut is not None:  # a linear start at principal components says nothing of missing cells
            with torch.no_grad():
                self.shortcut.weight[:, size : 2 * size] = 0.0

    @property
    def shortcut(self) -> nn.Linear | None:
        """The linear map beside the layers, where there is one."""
        return getattr(self.body, "shortcut", None)

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """Map ``(B, *shape)`` and a mask, 1 where observed, to what the body returns."""
        missing = torch.zeros_like(x) if mask is None else (1 - mask).expand_as(x)
        both = torch.cat([x, missing], dim=1)
        h: Tensor = self.body(both) if context is None else self.body(both, context)
        return h


@register
@spec
class MaskedAutoencoder(BaseAutoencoder):
    r"""Sees part of a row and says what the rest is: the model to fill holes with.

    In training the encoder sees a random part of the cells: for images all but some square patches, for tables all but some
    columns of each row. It gets a second channel that marks hidden cells, and a missing cell (NaN) looks the same to it. How much
    is hidden differs from row to row, from almost nothing to almost all, so that rows with few holes and with many can be filled;
    the paper hides 0.75 of every image and rebuilds none without holes. With
    :math:`m_{bj} = 1` where a cell is hidden and :math:`w` for ``seen_weight``,

    .. math:: L = -\frac1B \sum_b \sum_j \big(m_{bj} + w (1 - m_{bj})\big) \log p\big(x_{bj} \mid z_b\big), \qquad
              z_b = \text{encoder}\big((1 - m_b) \odot x_b,\; m_b\big)

    over the observed cells, averaged over rows, in nats. The paper's loss has :math:`w = 0`; without it no more is known of cells
    that are there than of those that are not, and ``reconstruct`` blurs them.

    ``reconstruct`` fills missing cells from the others, and rebuilds those too. ``score_samples`` and ``score_features`` hide an
    eighth of each row in turn (of a table of up to eight columns each column), the same at every call, and say how well the
    hidden cells are predicted by the others: a pseudo-likelihood :math:`\sum_j \log p(x_j \mid \text{others})`, in nats. A row
    is anomalous where its cells do not go together. It is not a density of whole rows, and does not compare with the scores of
    other models.

    {parameters}

    References
    ----------
    He et al., Masked autoencoders are scalable vision learners, 2022, arXiv:2111.06377.

    Besag, Statistical analysis of non-lattice data, The Statistician 24, 1975, doi:10.2307/2987782 (pseudo-likelihood).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import MaskedAutoencoder
    >>> X = load_iris().data
    >>> X[::3, 2] = np.nan
    >>> filled = np.where(np.isnan(X), MaskedAutoencoder(max_epochs=5, random_state=0).fit(X).reconstruct(X), X)
    >>> bool(np.isfinite(filled).all())
    True
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=32, kw_only=False)
    )
    mask_fraction: Annotated[
        float,
        Gt(0),
        Lt(1),
        "expected share of the cells hidden in training; each row draws its own, for 0.5 uniform between 0 and 1",
    ] = 0.5
    patch_size: Annotated[
        int | Literal["auto"],
        Ge(1),
        "pixels along the sides of the patches that are hidden; 'auto' is a seventh of the shorter side and at most 16; tables "
        "have none",
    ] = "auto"
    seen_weight: Annotated[float, Ge(0), "weight in the loss of cells that are not hidden"] = 0.5

    _module = MaskedModule

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema))

    def _network(self, schema: Schema) -> Network:
        return WithIndicators(super()._network(schema))

    def _corruption(self, schema: Schema) -> Hiding:
        table = schema.kind == "vector"
        if table and self.patch_size != "auto":
            raise ParameterError(
                f"patch_size={self.patch_size!r} cuts images into patches; X has rows of shape {schema.shape}. "
                "Leave it at 'auto'."
            )
        sides = [n for n in schema.shape[1:] if n > 1] or [1]
        patch = 1 if table else min(LARGEST, math.ceil(min(sides) / GRID))
        if self.patch_size != "auto":
            patch = self.patch_size
        return Hiding(schema.shape, self.mask_fraction, patch, seen_weight=self.seen_weight)

    def _choices(self, codec: ArrayCodec, module: AutoencoderModule, settings: Settings) -> dict[str, Any]:
        return super()._choices(codec, module, settings) | {"patch_size": cast(Hiding, module.corruption).patch}

    def _score_features(self, raw: Raw) -> NDArray[Any]:
        return self._apply(raw, lambda m, batch: cast(MaskedModule, m).predicted_log_prob(batch), support=True)

    def _score(self, raw: Raw, n_samples: int = 0, random_state: Any = None) -> NDArray[Any]:
        cells = self._score_features(raw)
        scores: NDArray[Any] = cells.reshape(len(cells), -1).sum(axis=1)
        scores -= self._log_volume(raw)
        return scores
