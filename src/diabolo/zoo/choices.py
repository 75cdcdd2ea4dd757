"""Autoencoders of what people choose: rows are users, columns items."""

from __future__ import annotations

from abc import ABC
from dataclasses import field
from typing import Annotated, Literal

import torch
from torch import Tensor

from diabolo.checks import Ge, Le, Lt
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Bottleneck, Identity
from diabolo.parts.corruptions import Corruption, Masking
from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.parts.networks.sparse import filled
from diabolo.records import Batch, Schema, Trace
from diabolo.zoo.variational import GaussianCode

__all__ = ["AutoRec", "MultDAE", "MultVAE"]


class PartlyHidden(Masking):
    """Hides a fraction of what was chosen.

    Parameters
    ----------
    level : float
        The fraction.
    seen_weight : float
        Weight in the training loss of what is not hidden.
    """

    def __init__(self, level: float, seen_weight: float):
        super().__init__(level)
        self.seen_weight = seen_weight

    def damage(self, x: Tensor, level: Tensor | float) -> Tensor:
        """Return ``x`` with choices blanked; on a CPU only they are drawn for, as they are few."""
        if x.device.type != "cpu" or self.owner is not None:
            return super().damage(x, level)
        places = filled(x)
        hidden = places[torch.rand(len(places)) < level]
        return x.flatten().index_fill(0, hidden, 0.0).view_as(x)


class ChoiceModule(AutoencoderModule):
    """An autoencoder of choices, which is judged by how well it finds those that were hidden from it."""

    def trace(self, batch: Batch, *, sample: bool, corrupt: bool = False, progress: float = 1.0) -> Trace:
        """Run everything once; where a part of a row is hidden, what is shown counts less, and outside training not at all.

        A row is rebuilt ever better from what is shown of it, long after the network has begun to learn users by heart.
        """
        trace = super().trace(batch, sample=sample, corrupt=corrupt, progress=progress)
        if not corrupt or not isinstance(self.corruption, PartlyHidden):
            return trace
        weight = self.corruption.seen_weight if self.training else 0.0
        target = batch.x.sub(trace.x_in, alpha=1.0 - weight)  # what is shown is the same as in the row
        return trace._replace(batch=batch._replace(x=target))


@spec
class Choices(BaseAutoencoder, ABC):
    """Rows of amounts, 0 where nothing was chosen, of which some are hidden in training; ``network="auto"`` is ``"mlp"``."""

    learning_rate: Annotated[float, Ge(0), "highest learning rate"] = 1e-3
    level: Annotated[float, Ge(0), Lt(1), "fraction of a row that is hidden from the encoder in training"] = 0.5

    seen_weight: Annotated[
        float,
        Ge(0),
        Le(1),
        "weight in the loss of what the encoder is shown, beside what is hidden from it; 1 is the loss of the paper",
    ] = 0.0

    _module = ChoiceModule
    _auto_shortcut = False  # what a row has is a poor guess of what it will have
    _mostly_zero = True
    _amounts = "multinomial"  # not annotated, hence no parameter: the likelihood of amounts

    def _corruption(self, schema: Schema) -> Corruption | None:
        return PartlyHidden(self.level, self.seen_weight) if self.level > 0 else None

    def _scale(self) -> str | None:
        return "amounts" if self.likelihood == "auto" and self.scale == "auto" else super()._scale()

    def _usual_likelihood(self, schema: Schema) -> str:
        """Return the likelihood of amounts for tables of values of at least 0, else what is usual."""
        amounts = schema.kind == "vector" and not schema.mixed and all(c.low >= 0 for c in schema.columns)
        return self._amounts if amounts and self.scale in ("auto", None) else super()._usual_likelihood(schema)


@register
@spec
class MultDAE(Choices):
    r"""The denoising autoencoder of what users choose, under the multinomial likelihood.

    .. math:: L = -\frac1B \sum_b \sum_j x_{bj} \log \pi_j(z_b), \qquad \pi = \text{softmax of the decoder's output}

    in nats per row, where the encoder sees a row of which a part is hidden. ``likelihood="auto"`` is the multinomial for rows of
    amounts of at least 0, which are then not scaled, and for other data what :class:`DenoisingAutoencoder` takes.

    {parameters}

    References
    ----------
    Liang et al., Variational autoencoders for collaborative filtering, WWW 2018, arXiv:1802.05814.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from diabolo import MultDAE, Recommender
    >>> X = sparse.random_array((200, 50), density=0.1, rng=np.random.default_rng(0), format="csr")
    >>> items, scores = Recommender(MultDAE(8, max_epochs=2), random_state=0).fit(X).recommend(k=3)
    >>> items.shape
    (200, 3)
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=200, kw_only=False)
    )
    hidden: Annotated[
        tuple[int, ...] | Literal["auto"], Ge(1), "widths of the encoder's hidden layers, mirrored in the decoder"
    ] = ()
    code_activation: Annotated[Literal["identity", "relu", "sigmoid", "tanh"], "function of the code"] = "tanh"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(
            self._code_width(schema),
            None if self.code_activation == "identity" else ACTIVATIONS[self.code_activation](),
        )


@register
@spec
class MultVAE(Choices, GaussianCode):
    r"""The variational autoencoder of what users choose, under the multinomial likelihood, with a weak prior.

    .. math:: L = \frac1B \sum_b \Big[ -\sum_j x_{bj} \log \pi_j(z_b) + \beta \,
              \mathrm{KL}\big(q(z \mid x_b) \,\|\, N(0, I)\big) \Big], \qquad z_b \sim q(z \mid x_b)

    in nats per row, where the encoder sees a row of which a part is hidden. The weight of the KL term rises to :math:`\beta` over
    the share ``kl_warmup`` of training (annealing). The paper has a hidden layer of 600 and :math:`\beta = 0.2`; without one,
    and with a stronger prior, new choices are found better where users are some thousands. ``likelihood="auto"`` is the
    multinomial for rows of amounts of at least 0, which are then not scaled, and for other data what :class:`VAE` takes.

    {parameters}

    References
    ----------
    Liang et al., Variational autoencoders for collaborative filtering, WWW 2018, arXiv:1802.05814.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import MultVAE
    >>> rng = np.random.default_rng(0)
    >>> own = np.arange(50) % 5 == rng.integers(0, 5, (200, 1))  # each user has a taste for a fifth of the items
    >>> X = rng.random((200, 50)) < np.where(own, 0.5, 0.02)
    >>> model = MultVAE(4, learning_rate=0.02, max_epochs=40, random_state=0).fit(X)
    >>> model.choices_["likelihood"], model.transform(X).shape
    ('multinomial', (200, 4))
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=200, kw_only=False)
    )
    hidden: Annotated[
        tuple[int, ...] | Literal["auto"], Ge(1), "widths of the encoder's hidden layers, mirrored in the decoder"
    ] = ()
    learning_rate: Annotated[float, Ge(0), "highest learning rate"] = 4e-3
    beta: Annotated[float, Ge(0), "weight of the KL term once it has risen"] = 0.5
    kl_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the weight of the KL term rises from 0 to its full value"
    ] = 0.5


@register
@spec
class AutoRec(Choices):
    r"""The autoencoder of explicit ratings: squared error on those that are there.

    .. math:: L = \frac1B \sum_b \sum_{j: x_{bj} \ne 0} \tfrac12 (x_{bj} - \hat x_{bj})^2 + \text{const}

    in nats per row. 0 stands for no rating. The encoder sees what ratings differ from the mean of their item by, some of them
    hidden, and the decoder adds to that mean; decay of the weights keeps it from learning users by heart.

    {parameters}

    References
    ----------
    Sedhain et al., AutoRec: autoencoders meet collaborative filtering, WWW 2015, doi:10.1145/2740908.2742726.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import AutoRec
    >>> rng = np.random.default_rng(0)
    >>> stars = rng.integers(1, 6, (100, 20)) * (rng.random((100, 20)) < 0.4)
    >>> AutoRec(8, max_epochs=2, random_state=0).fit(stars).reconstruct(stars).shape
    (100, 20)
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=200, kw_only=False)
    )
    hidden: Annotated[
        tuple[int, ...] | Literal["auto"], Ge(1), "widths of the encoder's hidden layers, mirrored in the decoder"
    ] = ()
    weight_decay: Annotated[float, Ge(0), "decoupled L2 decay of the weights, per unit of learning rate"] = 3.0
    seen_weight: Annotated[
        float, Ge(0), Le(1), "weight in the loss of ratings that the encoder is shown, beside those hidden from it"
    ] = 1.0

    _amounts = "ratings"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema), ACTIVATIONS["sigmoid"]())
