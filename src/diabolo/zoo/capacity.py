"""A variational autoencoder that is told how many nats its code may hold."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from diabolo.checks import Ge, Gt, Le
from diabolo.declare import register, spec
from diabolo.module import AutoencoderModule
from diabolo.objectives import Objective, elbo, rising
from diabolo.records import Batch, Loss
from diabolo.zoo.variational import VariationalCode

__all__ = ["CapacityVAE"]


def annealed_capacity(
    module: AutoencoderModule, batch: Batch, progress: float, *, capacity: float | None, gamma: float, rise: float
) -> Loss:
    r"""Return the reconstruction loss plus :math:`\gamma\, |\mathrm{KL} - C|`, in nats per row.

    Parameters
    ----------
    module : AutoencoderModule
        The model.
    batch : Batch
        Rows; the divergence is averaged over them before it is compared.
    progress : float
        How far training has come, 0 to 1.
    capacity : float or None
        Nats that are reached in the end; None is 2.5 for each unit.
    gamma : float
        Weight of the distance from those of the moment.
    rise : float
        Share of training over which :math:`C` rises from 0 to ``capacity``.
    """
    loss = elbo(module, batch, progress)
    kl = loss.terms["kl"]
    full = 2.5 * module.bottleneck.out_features if capacity is None else capacity
    distance = gamma * (kl - full * rising(progress, rise)).abs()
    return Loss(loss.total - kl + distance, loss.terms | {"distance": distance})


@register
@spec
class CapacityVAE(VariationalCode):
    r"""A VAE whose code is given more to say as training goes on, so that units are taken into use one after the other.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b) + \gamma \Big| \frac1B \sum_b
              \mathrm{KL}\big(q(z \mid x_b) \,\|\, N(0, I)\big) - C \Big|, \qquad z_b \sim q(z \mid x_b)

    in nats per row. :math:`C` rises from 0 to ``capacity``, which the code then holds: neither more nor, however strong the
    decoder is, less. ``score_samples`` keeps the meaning it has in every model, a bound on the likelihood.

    {parameters}

    References
    ----------
    Burgess et al., Understanding disentangling in beta-VAE, 2018, arXiv:1804.03599. Values: Locatello et al., 2019,
    arXiv:1811.12359.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import CapacityVAE
    >>> X = load_iris().data
    >>> CapacityVAE(latent_dim=2, capacity=3.0, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    capacity: Annotated[
        float | Literal["auto"],
        Ge(0),
        "nats of KL that the code holds in the end, averaged over rows; 'auto' is 2.5 for each unit of the code; 5 to "
        "100 are tried for images",
    ] = "auto"
    gamma: Annotated[float, Gt(0), "weight of the distance of the KL term from the capacity"] = 1000.0
    kl_warmup: Annotated[
        float, Ge(0), Le(1), "share of training over which the capacity rises from 0 to its full value"
    ] = 0.8

    def _objective(self) -> Objective:
        capacity = None if self.capacity == "auto" else self.capacity
        return functools.partial(annealed_capacity, capacity=capacity, gamma=self.gamma, rise=self.kl_warmup)

    def _remedies(self) -> tuple[str, ...]:
        return ("a larger capacity",)
