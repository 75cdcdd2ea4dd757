"""CDAE: a denoising autoencoder of choices with a node for each user."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from diabolo.checks import Ge, Lt
from diabolo.declare import register, spec
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Bottleneck, Identity
from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.records import Batch, Code, Schema
from diabolo.zoo.choices import ChoiceModule, Choices

__all__ = ["CDAE"]

NOBODY = 2**63 - 1  # a key that no row has


class UserNodes(nn.Module):
    """A vector for each row of fit, found again by what the row holds; rows that hold the same share one.

    A row's key is a sum of whole numbers modulo 2^64, one for each cell, which is the same on every machine and for every batch.

    Parameters
    ----------
    size : int
        Features of a row.
    n_rows : int
        Rows of fit.
    width : int
        Length of a vector; vectors start at zero.
    """

    factors: Tensor
    keys: Tensor

    def __init__(self, size: int, n_rows: int, width: int):
        super().__init__()
        self.register_buffer("factors", torch.randint(-(2**62), 2**62, (size,)) * 2 + 1)
        self.register_buffer("keys", torch.full((n_rows,), NOBODY))
        self.nodes = nn.Embedding(n_rows, width)
        nn.init.zeros_(self.nodes.weight)

    def key(self, x: Tensor) -> Tensor:
        """Return the keys of rows ``(B, *shape)``."""
        bits = (x.flatten(1).float() + 0.0).contiguous().view(torch.int32).long()  # adding 0 makes -0 the same
        return (bits * self.factors).sum(1)

    @torch.no_grad()
    def meet(self, x: Tensor) -> None:
        """Give each of some rows a node; all must be met before any node has learned."""
        found = torch.unique(torch.cat([self.keys, self.key(x).to(self.keys.device)]))
        self.keys.copy_(nn.functional.pad(found, (0, len(self.keys)), value=NOBODY)[: len(self.keys)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors of rows, zero for those that were not met ``(B, width)``."""
        keys = self.key(x)
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        nodes: Tensor = self.nodes(places)
        return nodes * (self.keys[places] == keys)[:, None]


class CDAEModule(ChoiceModule):
    """An autoencoder of choices in which a row of fit has a vector of its own beside what the encoder makes of it."""

    meets_rows = True
    of_rows = ("users.",)
    users: UserNodes
    hidden_share: float

    def meet(self, x: Tensor) -> None:
        """Give rows ``(n, *shape)`` their nodes."""
        self.users.meet(x)

    def encode(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, *, sample: bool = False
    ) -> Code:
        """Return the code of whole rows."""
        return self._code(x, Batch(x, mask, context), sample)

    def encode_shown(self, x_in: Tensor, batch: Batch, *, sample: bool) -> Code:
        """Return the code of what is shown; whose row it is says the whole row, but of some users not in training."""
        return self._code(x_in, batch, sample)

    def _code(self, x_in: Tensor, batch: Batch, sample: bool) -> Code:
        nodes = self.users(batch.x)
        if self.training:
            nodes = nodes * (torch.rand(len(nodes), 1, device=nodes.device) >= self.hidden_share)
        h = self.hidden(x_in, batch.context, batch.mask)
        code: Code = self.bottleneck(h + nodes.to(h.dtype), sample=sample)
        return code


@register
@spec
class CDAE(Choices):
    r"""A denoising autoencoder of what users choose, with a node of its own for each user of ``fit``.

    .. math:: L = -\frac1B \sum_b \sum_j x_{bj} \log \pi_j(z_b), \qquad z_b = \sigma(W \tilde x_b + V_b + c)

    in nats per row, where :math:`\tilde x_b` is a row of which a part is hidden, :math:`V_b` the vector of its user, and
    :math:`\pi` the softmax of the decoder's output. A user is known by the row: one that is not of ``fit``, as of a new user or
    after a further choice, has no vector, and is coded by what it holds alone. So that this is learned too, vectors are hidden
    from a share of the rows in each step, and validation judges by new users. ``likelihood="bernoulli"`` is the logistic loss
    of the paper, over all items in place of some drawn at random.

    {parameters}

    References
    ----------
    Wu et al., Collaborative denoising auto-encoders for top-N recommender systems, WSDM 2016, doi:10.1145/2835776.2835837.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import CDAE
    >>> rng = np.random.default_rng(0)
    >>> own = np.arange(50) % 5 == rng.integers(0, 5, (200, 1))  # each user has a taste for a fifth of the items
    >>> X = rng.random((200, 50)) < np.where(own, 0.5, 0.02)
    >>> CDAE(8, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (200, 8)
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=200, kw_only=False)
    )
    hidden: Annotated[
        tuple[int, ...] | Literal["auto"], Ge(1), "widths of the encoder's hidden layers, mirrored in the decoder"
    ] = ()
    code_activation: Annotated[Literal["identity", "relu", "sigmoid", "tanh"], "function of the code"] = "sigmoid"
    node_dropout: Annotated[
        float, Ge(0), Lt(1), "share of the rows whose user's vector is hidden in a training step"
    ] = 0.5

    _module = CDAEModule

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(
            self._code_width(schema),
            None if self.code_activation == "identity" else ACTIVATIONS[self.code_activation](),
        )

    def _build(self, schema: Schema) -> AutoencoderModule:
        module = super()._build(schema)
        if isinstance(module, CDAEModule):
            module.users = UserNodes(schema.size, schema.n_rows, module.bottleneck.in_features)
            module.hidden_share = self.node_dropout
        return module
