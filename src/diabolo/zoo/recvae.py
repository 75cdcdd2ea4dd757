"""RecVAE: a variational autoencoder of choices whose halves learn in turn, under a prior that remembers."""

from __future__ import annotations

import itertools
from dataclasses import field
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from diabolo.checks import Ge
from diabolo.declare import register, spec
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import (
    Bottleneck,
    draw_gaussian,
    gaussian_kl,
    gaussian_log_prob,
    mixture_kl_bound,
    mixture_log_prob,
    normal_log_prob,
    split_gaussian,
)
from diabolo.parts.networks.base import ACTIVATIONS, Network, run_encoder
from diabolo.parts.networks.sparse import SparseLinear
from diabolo.records import Batch, Code, Schema, Trace
from diabolo.training.device import resolve_device
from diabolo.zoo.choices import ChoiceModule, Choices

__all__ = ["RecVAE"]

SHARES = (0.15, 0.75, 0.1)  # of the prior: standard normal, former posterior, wide normal
WIDE_LOGVAR = 10.0  # of the wide normal
ROUND = 4  # epochs of a round: three of the encoder, then one of the decoder
ENCODER_SHARE = 0.75


class DenseEncoder(nn.Module):
    """Layers that see the sum of all before them of their width, each normalised after its activation."""

    EPSILON = 0.1  # of the normalisation, the authors' choice

    def __init__(self, inp: int, hidden: tuple[int, ...], out: int, activation: str, dropout: float):
        super().__init__()
        widths = (inp, *hidden)
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        self.layers = nn.ModuleList([*(SparseLinear.like(layer) for layer in layers[:1]), *layers[1:]])
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=self.EPSILON) for width in hidden)
        self.activation, self.dropout = ACTIVATIONS[activation](), nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], out)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``(B, *shape)`` and ``(B, C)`` to ``(B, out)``."""
        h = x.flatten(1) if context is None else torch.cat([x.flatten(1), context], dim=1)
        before: list[Tensor] = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            made = layer(h)
            for other in before:
                if other.shape == made.shape:
                    made = made + other
            h = norm(self.activation(made))
            before.append(h)
            h = self.dropout(h)
        out: Tensor = self.out(h)
        return out


class DenseNetwork:
    """The encoder of RecVAE, and a decoder that is one linear layer.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the encoder's layers.
    activation : str
        A key of ``ACTIVATIONS``.
    dropout : float
        Fraction of hidden units dropped in training.
    """

    def __init__(self, hidden: tuple[int, ...], activation: str, dropout: float):
        self.hidden, self.activation, self.dropout = hidden, activation, dropout

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, *shape) -> (B, out)``."""
        return DenseEncoder(schema.size + schema.context, self.hidden, out, self.activation, self.dropout)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return ``(B, inp) -> (B, params * size)``."""
        return nn.Sequential(nn.Linear(inp, params * schema.size))


class CompositePrior(Bottleneck):
    r"""A Gaussian posterior under a prior of each row's own: a standard normal, what its posterior was before, a wide normal.

    .. math:: p(z \mid x) = \alpha_1 N(0, I) + \alpha_2\, q_\text{former}(z \mid x) + \alpha_3 N(0, e^{10} I)

    with :math:`\alpha = (0.15, 0.75, 0.1)`.

    Parameters
    ----------
    latent_dim : int
        Width of the code.
    """

    generative = True
    linear = True
    stochastic = True

    def __init__(self, latent_dim: int):
        super().__init__()
        self.in_features, self.out_features = 2 * latent_dim, latent_dim

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean and log-variance; draw ``z`` or return the mean. What the code costs depends on the row."""
        mean, logvar = split_gaussian(h)
        aux = {"posterior_mean": mean, "posterior_logvar": logvar}
        return Code(draw_gaussian(mean, logvar) if sample else mean, {}, aux)

    def divergence(self, code: Code, former: Tensor, *, drawn: bool) -> Tensor:
        """Return a draw of the divergence from the prior ``(B,)`` in nats, of a centre an upper bound.

        Parameters
        ----------
        code : Code
            What :meth:`forward` returned.
        former : Tensor of shape (B, 2 * latent_dim)
            The output of the former encoder for the same rows.
        drawn : bool
            Whether the code was drawn.
        """
        mean, logvar = code.aux["posterior_mean"], code.aux["posterior_logvar"]
        means, logvars = split_gaussian(former)
        zero = torch.zeros_like(means)
        parts = torch.stack([zero, means, zero], 1), torch.stack([zero, logvars, zero + WIDE_LOGVAR], 1)  # (B, 3, D)
        shares = torch.tensor(SHARES, dtype=mean.dtype, device=mean.device).log()  # (3,)
        if drawn:
            return gaussian_log_prob(code.z, mean, logvar).sum(1) - mixture_log_prob(code.z, *parts, shares)
        return mixture_kl_bound(gaussian_kl(mean[:, None], logvar[:, None], *parts).sum(2), shares)

    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw from N(0, I), the part of the prior that needs no row."""
        return temperature * torch.randn(n, self.out_features)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log-density of N(0, I)."""
        return normal_log_prob(z)


class RecVAEModule(ChoiceModule):
    """Runs a RecVAE: its encoder learns while the decoder rests, then the decoder from whole rows while the encoder rests."""

    gamma: float
    rounds: int
    turn: Tensor

    def prepare(self, gamma: float, max_epochs: int) -> None:
        """Take the weight of the divergence, and how long training is; remember the encoder as it is."""
        self.gamma, self.rounds = gamma, max(1, max_epochs // ROUND)
        self._resting: str | None = None
        self._former = {name: f"former_{i}" for i, (name, _) in enumerate(self.encoder.named_parameters())}
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))  # rounds whose encoder is remembered
        for name, parameter in self.encoder.named_parameters():
            self.register_buffer(self._former[name], parameter.detach().clone())

    @torch.no_grad()
    def remember(self) -> None:
        """Make the encoder of now the former one."""
        for name, parameter in self.encoder.named_parameters():
            getattr(self, self._former[name]).copy_(parameter)

    def trace(self, batch: Batch, *, sample: bool, corrupt: bool = False, progress: float = 1.0) -> Trace:
        """Run everything once; in training one half rests, and the decoder learns from rows of which nothing is hidden."""
        if not (self.training and corrupt):
            self._resting = None
            return super().trace(batch, sample=sample, corrupt=corrupt, progress=progress)
        place = progress * self.rounds
        this = min(int(place), self.rounds - 1)
        encoders = place - this < ENCODER_SHARE
        self._resting = "decoder" if encoders else "encoder"
        if not encoders and int(self.turn) <= this:
            self.remember()
            self.turn.fill_(this + 1)
        return super().trace(batch, sample=sample, corrupt=encoders, progress=progress)

    def encode_shown(self, x_in: Tensor, batch: Batch, *, sample: bool) -> Code:
        """Return the code of what is shown, which costs more the more the user chose."""
        code = super().encode_shown(x_in, batch, sample=sample)
        former = {name: getattr(self, at) for name, at in self._former.items()}
        with torch.no_grad():
            shown = self.likelihood.shown(batch.x, batch.mask)
            h = run_encoder(self.encoder, shown, batch.context, batch.mask, former)
        chosen = (batch.x != 0).flatten(1).sum(1)  # (B,)
        cost = self.gamma * chosen * self._composite.divergence(code, h, drawn=sample)
        z = code.z.detach() if self._resting == "encoder" else code.z
        return code._replace(z=z, costs={"kl": cost.detach() if self._resting == "encoder" else cost})

    @property
    def _composite(self) -> CompositePrior:
        bottleneck = self.bottleneck
        if not isinstance(bottleneck, CompositePrior):
            raise TypeError(f"RecVAE needs its own bottleneck, got {type(bottleneck).__name__}")
        return bottleneck

    def decode(
        self, z: Tensor, context: Tensor | None = None, x: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the parameters of the likelihood; while the decoder rests it is a constant."""
        if self._resting != "decoder":
            return super().decode(z, context, x, mask)
        weights = {name: p.detach() for name, p in self.decoder.named_parameters()}
        raw: Tensor = functional_call(self.decoder, weights, (z,) if context is None else (z, context))
        return self.likelihood.complete(raw.reshape(-1, self.likelihood.params, *self.shape), x, mask)


@register
@spec
class RecVAE(Choices):
    r"""A variational autoencoder of what users choose, under a prior that keeps each user near what was known before.

    .. math:: L = \frac1B \sum_b \Big[ -\sum_j x_{bj} \log \pi_j(z_b) + \gamma N_b \,
              \mathrm{KL}\big(q(z \mid x_b) \,\|\, p(z \mid x_b)\big) \Big], \qquad
              p(z \mid x) = 0.15\, N(0, I) + 0.75\, q_\text{former}(z \mid x) + 0.1\, N(0, e^{10} I)

    in nats per row, with :math:`N_b` the number of the user's choices and :math:`q_\text{former}` the encoder at the end of its
    last turn. The divergence is that of one draw. Training goes in rounds of four epochs: for three of them the encoder learns
    from rows of which a part is hidden while the decoder rests; then the decoder learns from whole rows, while the encoder
    rests. Each layer of the encoder sees the sum of those before it of the same width; the decoder is linear. That is
    ``network="auto"``; another network keeps prior and turns. New rows are drawn from the standard normal part of the prior.

    {parameters}

    References
    ----------
    Shenbin et al., RecVAE: a new variational autoencoder for top-N recommendations with implicit feedback, WSDM 2020,
    arXiv:1912.11160.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import RecVAE
    >>> rng = np.random.default_rng(0)
    >>> own = np.arange(50) % 5 == rng.integers(0, 5, (200, 1))  # each user has a taste for a fifth of the items
    >>> X = rng.random((200, 50)) < np.where(own, 0.5, 0.02)
    >>> model = RecVAE(4, hidden=(16, 16), learning_rate=0.02, max_epochs=8, random_state=0).fit(X)
    >>> model.transform(X).shape
    (200, 4)
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=200, kw_only=False)
    )
    hidden: Annotated[tuple[int, ...] | Literal["auto"], Ge(1), "widths of the encoder's layers"] = (
        600,
        600,
        600,
        600,
        600,
    )
    learning_rate: Annotated[float, Ge(0), "highest learning rate"] = 1e-3
    gamma: Annotated[float, Ge(0), "weight of the KL term for each choice of the user"] = 0.005
    _module = RecVAEModule

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return CompositePrior(self._code_width(schema))

    def _network(self, schema: Schema) -> Network:
        if self.network != "auto":
            return super()._network(schema)
        return DenseNetwork(self._hidden(schema), self.activation, self.dropout)

    def _build(self, schema: Schema) -> AutoencoderModule:
        module = super()._build(schema)
        if isinstance(module, RecVAEModule):
            n_train = schema.n_rows - self._validation_rows(schema.n_rows)
            settings = self._settings(n_train, resolve_device(self.device), schema.size)
            module.prepare(self.gamma, settings.max_epochs)
        return module
