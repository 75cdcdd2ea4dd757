"""The one module: corrupt -> encode -> bottleneck -> decode -> log_prob, written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diabolo.parts.bottlenecks import Bottleneck
from diabolo.parts.corruptions import Corruption
from diabolo.parts.likelihoods import Likelihood
from diabolo.parts.networks.base import Network, run_encoder
from diabolo.parts.penalties import Penalty
from diabolo.principal import start_at_principal_components
from diabolo.records import Batch, Code, Schema, Trace

__all__ = ["AutoencoderModule", "start_rows"]

START_ROWS, START_ELEMENTS = (
    (2048, 20_000),
    2**22,
)  # training rows that parts look at before training, and numbers in them
START_MEMORY = 2**24  # numbers in few but wide rows
CODE_ROWS = 4096  # training rows whose codes a bottleneck looks at before training


def start_rows(size: int) -> int:
    """Return how many training rows of ``size`` features parts look at before training."""
    least, most = START_ROWS
    return max(min(least, START_MEMORY // size), min(most, START_ELEMENTS // size), 1)


class AutoencoderModule(nn.Module):
    r"""Runs the parts of an autoencoder in order.

    ::

        x --corruption--> x_in --encoder--> h --bottleneck--> z --decoder--> raw --likelihood--> log p(x | z)
             (training)        (B, in, *grid)   (B, D, *grid)    (B, P, *shape)   (B, *shape) -> (B,)

    Parameters
    ----------
    schema : Schema
        What was learned of the data.
    encoder, decoder : nn.Module
        Any modules of matching widths: ``(B, *shape) -> (B, bottleneck.in_features, *grid)`` and
        ``(B, bottleneck.out_features, *grid) -> likelihood.params * size`` numbers a row. They also take a context
        ``(B, C)`` where the schema has one. An encoder that must know which cells are observed says ``takes_mask = True``
        and is called as ``encoder(x, context, mask=mask)``, with ``None`` where nothing is missing.
    bottleneck, likelihood, corruption, penalties
        The other parts.
    """

    meets_rows = False  # whether `meet` must be shown all rows
    of_rows: tuple[str, ...] = ()  # how names begin of tensors that belong to the rows of one fit, which no other takes

    def __init__(
        self,
        schema: Schema,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        bottleneck: Bottleneck,
        likelihood: Likelihood,
        corruption: Corruption | None = None,
        penalties: Sequence[Penalty] = (),
    ):
        super().__init__()
        self.shape = schema.shape
        self.encoder, self.bottleneck, self.decoder, self.likelihood = encoder, bottleneck, decoder, likelihood
        self.corruption = corruption
        self.penalties = nn.ModuleList(penalties)
        self.code_shape: tuple[int, ...] = (bottleneck.out_features,)

    @classmethod
    def from_network(
        cls,
        network: Network,
        schema: Schema,
        *,
        bottleneck: Bottleneck,
        likelihood: Likelihood,
        corruption: Corruption | None = None,
        penalties: Sequence[Penalty] = (),
    ) -> AutoencoderModule:
        """Size both halves of ``network`` from what the other parts declare."""
        return cls(
            schema,
            encoder=network.encoder(schema, bottleneck.in_features, spatial=bottleneck.spatial),
            decoder=network.decoder(schema, bottleneck.out_features, likelihood.params, spatial=bottleneck.spatial),
            bottleneck=bottleneck,
            likelihood=likelihood,
            corruption=corruption,
            penalties=penalties,
        )

    def encode(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, *, sample: bool = False
    ) -> Code:
        """Return the code of rows ``(B, *shape)``; ``mask`` is 1 where a cell is observed."""
        code: Code = self.bottleneck(self.hidden(x, context, mask), sample=sample)
        return code

    def encode_shown(self, x_in: Tensor, batch: Batch, *, sample: bool) -> Code:
        """Return the code of what is shown of a batch: ``x_in``, damaged in training."""
        return self.encode(x_in, batch.context, batch.mask, sample=sample)

    def hidden(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return what the encoder hands to the bottleneck ``(B, bottleneck.in_features, *grid)``."""
        return run_encoder(self.encoder, self.likelihood.shown(x, mask), context, mask)

    def decode(
        self, z: Tensor, context: Tensor | None = None, x: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the parameters of the likelihood ``(B, P, *shape)`` for codes ``(B, D, *grid)``, of rows ``x`` where known."""
        raw: Tensor = self.decoder(z) if context is None else self.decoder(z, context)
        return self.likelihood.complete(raw.reshape(-1, self.likelihood.params, *self.shape), x, mask)

    def trace(self, batch: Batch, *, sample: bool, corrupt: bool = False, progress: float = 1.0) -> Trace:
        """Run everything once; ``sample`` draws from the posterior, ``corrupt`` damages the input first.

        ``progress`` runs from 0 to 1 over training: damage may depend on it. The trace's batch is what the decoder is to explain.
        """
        x_in = self.corruption(batch.x, progress) if corrupt and self.corruption is not None else batch.x
        if batch.mask is not None:
            x_in = x_in * batch.mask  # a missing cell looks the same to the encoder in training and afterwards
        code = self.encode_shown(x_in, batch, sample=sample)
        raw = self.decode(code.z, batch.context, batch.x, batch.mask)
        if self.training:
            self.likelihood.observe(raw, batch.x, batch.mask)
        return Trace(batch, x_in, code, raw)

    def log_prob_elements(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return ``log p(x | z)`` of each element ``(B, *shape)``, 0 where a cell is missing."""
        elements = self.likelihood.log_prob(raw, batch.x)
        return elements if batch.mask is None else elements * batch.mask

    def log_prob(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return ``log p(x | z)`` ``(B,)``: the sum over observed features, in nats."""
        return self.likelihood.rows(raw, batch.x, batch.mask)

    def mean_log_prob(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows of :meth:`log_prob`, a scalar in nats, without making each row's."""
        return self.likelihood.total(raw, batch.x, batch.mask) / len(batch.x)

    def meet(self, x: Tensor) -> None:
        """Take note of rows ``(n, *shape)`` of fit, before training; it is called until all have been shown."""

    @torch.no_grad()
    def start(self, batch: Batch) -> None:
        """Let parts look at training rows, start linear paths at principal components, and check that parts fit together.

        Parameters
        ----------
        batch : Batch
            Rows for training, at random; :func:`start_rows` says how many are enough.
        """
        self.likelihood.learn(batch.x, batch.mask)
        shown = batch._replace(x=self.likelihood.shown(batch.x, batch.mask))
        for part in self.modules():
            on_start: Callable[[Batch], None] | None = getattr(part, "on_start", None)
            if on_start is not None:
                on_start(batch if part is self.corruption else shown)
        encoder, decoder = getattr(self.encoder, "shortcut", None), getattr(self.decoder, "shortcut", None)
        if isinstance(encoder, nn.Linear) and isinstance(decoder, nn.Linear) and self.bottleneck.linear:
            start_at_principal_components(encoder, decoder, self.bottleneck, self.likelihood, shown.x, batch.context)
        training = self.training
        self.eval()
        some = next(batch.split(2))
        h = self.hidden(some.x, some.context, some.mask)
        if h.dim() < 2 or h.shape[1] != self.bottleneck.in_features:
            raise ValueError(
                f"the encoder returns rows of shape {tuple(h.shape[1:])}; {type(self.bottleneck).__name__} of this size "
                f"expects {self.bottleneck.in_features} numbers in dimension 1"
            )
        z = self.bottleneck(h, sample=False).z
        self.code_shape = tuple(z.shape[1:])
        raw = self.decoder(z) if some.context is None else self.decoder(z, some.context)
        expected = self.likelihood.params * math.prod(self.shape)
        if raw.numel() != len(some.x) * expected:
            raise ValueError(
                f"the decoder returns {raw.numel() // len(some.x)} numbers a row; a row of shape {self.shape} under "
                f"{type(self.likelihood).__name__} needs {expected}"
            )
        on_encoded: Callable[[Tensor], None] | None = getattr(self.bottleneck, "on_encoded", None)
        if on_encoded is not None:
            some = next(batch.split(CODE_ROWS))
            on_encoded(self.hidden(some.x, some.context, some.mask))
        self.train(training)
