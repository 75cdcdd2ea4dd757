"""A variational autoencoder with several layers of codes, each the prior of the one below."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from diabolo.checks import Ge
from diabolo.declare import register, spec
from diabolo.parts.bottlenecks import Bottleneck, draw_gaussian, gaussian_kl, gaussian_log_prob, split_gaussian
from diabolo.records import Code, Schema
from diabolo.zoo.variational import VariationalCode

__all__ = ["LadderVAE", "merge"]


def merge(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> tuple[Tensor, Tensor]:
    r"""Multiply two Gaussians: what the row says of a code, and what the code above says of it.

    .. math:: \frac{1}{\sigma_q^2} = \frac{1}{\hat\sigma^2} + \frac{1}{\sigma_p^2}, \qquad
              \mu_q = \sigma_q^2 \left( \frac{\hat\mu}{\hat\sigma^2} + \frac{\mu_p}{\sigma_p^2} \right)

    Parameters
    ----------
    mu, logvar, prior_mu, prior_logvar : Tensor of shape (B, D)
        Of the two.

    Returns
    -------
    tuple of Tensor
        Mean and log-variance of the product.
    """
    share = torch.sigmoid(prior_logvar - logvar)  # of the row's word in the mean
    return prior_mu + share * (mu - prior_mu), logvar + torch.nn.functional.logsigmoid(prior_logvar - logvar)


def _layers(inp: int, hidden: int, out: int) -> nn.Sequential:
    last = nn.Linear(hidden, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inp, hidden), nn.SiLU(), last)


class Ladder(Bottleneck):
    r"""Layers of Gaussian codes: on the way up the row speaks to each, on the way down each layer is the prior of the next.

    ::

        encoder --> mu_1, var_1                     z_1 --> decoder
               \--> d_1 --> mu_2, var_2              ^
                     \----> d_2 --> ...             z_2 --> p(z_1 | z_2)
                                                     ^
                                                    N(0, I)

    .. math:: q(z_l \mid z_{l+1}, x) \propto N(\hat\mu_l(x), \hat\sigma_l^2(x)) \, p(z_l \mid z_{l+1}), \qquad
              \text{cost}_l = \mathrm{KL}\big(q(z_l \mid z_{l+1}, x) \,\|\, p(z_l \mid z_{l+1})\big)

    in nats per row, in closed form given the draw of the layer above; at the centre of a code, given the centre above.

    Parameters
    ----------
    widths : tuple of int
        Width of each layer's code, the lowest first.
    hidden : int
        Width of the deterministic layers between them.
    """

    generative = True
    linear = True  # at the start, up to the pull of the prior
    stochastic = True

    def __init__(self, widths: tuple[int, ...], hidden: int):
        super().__init__()
        self.widths = widths
        self.in_features, self.out_features = 2 * widths[0] + hidden, widths[0]
        above = widths[1:]
        self.up = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) for _ in above
        )
        self.read = nn.ModuleList(nn.Linear(hidden, 2 * width) for width in above)
        self.down = nn.ModuleList(_layers(high, hidden, 2 * low) for low, high in zip(widths, above, strict=False))

    def likelihoods(self, h: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what the row says of each layer's code, mean and log-variance, the lowest first."""
        first = 2 * self.widths[0]
        out, d = [h[:, :first]], h[:, first:]
        for up, read in zip(self.up, self.read, strict=True):
            d = up(d)
            out.append(read(d))
        return [split_gaussian(o) for o in out]

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Go up and down; draw codes or take their centres."""
        found = self.likelihoods(h)
        zero = torch.zeros_like(found[-1][0])
        prior = (zero, zero)
        costs: dict[str, Tensor] = {}
        aux: dict[str, Tensor] = {}
        for layer in reversed(range(len(self.widths))):
            mu, logvar = merge(*found[layer], *prior)
            z = draw_gaussian(mu, logvar) if sample else mu
            kl = gaussian_kl(mu, logvar, *prior)
            costs[f"kl_{layer + 1}"] = kl.sum(1)
            aux |= {
                f"z_{layer + 1}": z,
                f"mean_{layer + 1}": mu,
                f"logvar_{layer + 1}": logvar,
                f"units_{layer + 1}": kl,
            }
            if layer > 0:
                prior = split_gaussian(self.down[layer - 1](z))
        return Code(z, dict(reversed(costs.items())), aux)

    def moments(self, code: Code) -> tuple[Tensor, ...]:
        """Return mean, variance and KL divergence of each unit of the lowest layer."""
        return code.aux["mean_1"], code.aux["logvar_1"].exp(), code.aux["units_1"]

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) - log p(z)`` over the codes of all layers, ``(B,)``."""
        top = len(self.widths)
        zero = torch.zeros_like(code.aux[f"z_{top}"])
        prior, total = (zero, zero), zero.new_zeros(len(zero))
        for layer in reversed(range(top)):
            z = code.aux[f"z_{layer + 1}"]
            posterior = gaussian_log_prob(z, code.aux[f"mean_{layer + 1}"], code.aux[f"logvar_{layer + 1}"])
            total = total + (posterior - gaussian_log_prob(z, *prior)).sum(1)
            if layer > 0:
                prior = split_gaussian(self.down[layer - 1](z))
        return total

    @torch.no_grad()
    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw the highest code from N(0, I), and each lower one from the one above."""
        like = next(self.parameters())
        z = temperature * torch.randn(n, self.widths[-1]).to(like)
        for down in reversed(self.down):
            mu, logvar = split_gaussian(down(z))
            z = mu + temperature * torch.randn(mu.shape).to(like) * (0.5 * logvar).exp()
        return z.cpu()


@register
@spec
class LadderVAE(VariationalCode):
    r"""A VAE with several layers of codes: the highest says what kind of row it is, the lower ones fill in.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_{1b}) + \sum_l
              \mathrm{KL}\big(q(z_l \mid z_{l+1}, x_b) \,\|\, p(z_l \mid z_{l+1})\big) \Big], \qquad p(z_L \mid \cdot) = N(0, I)

    in nats per row, codes being drawn from the top down. The posterior of a layer is the product of what the row says and of
    what the layer above expects, each weighed by its precision, so that layers do not have to learn twice what the prior
    knows. ``transform`` gives the lowest code, from which rows are decoded; :meth:`layers` gives all. KL terms of single
    layers are in the history as ``kl_1`` (the lowest), ``kl_2`` and so on; the slow rise of their weight (``kl_warmup``) keeps
    higher layers in use.

    {parameters}

    References
    ----------
    Sønderby et al., Ladder Variational Autoencoders, 2016, arXiv:1602.02282.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import LadderVAE
    >>> X = load_iris().data
    >>> ladder = LadderVAE(latent_dim=2, upper_dims=(1,), max_epochs=5, random_state=0).fit(X)
    >>> [Z.shape for Z in ladder.layers(X)]
    [(150, 2), (150, 1)]
    """

    upper_dims: Annotated[
        tuple[int, ...] | Literal["auto"],
        Ge(1),
        "sizes of the codes above that of latent_dim, from below; () is a VAE; 'auto' is one of half the size",
    ] = "auto"
    ladder_hidden: Annotated[int, Ge(1), "width of the deterministic layers between codes"] = 64

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        width = self._code_width(schema)
        upper = (max(1, width // 2),) if self.upper_dims == "auto" else tuple(self.upper_dims)
        return Ladder((width, *upper), self.ladder_hidden)

    def layers(self, X: Any) -> list[NDArray[Any]]:
        """Encode rows into the codes of all layers.

        Parameters
        ----------
        X : array, frame or tensor
            Rows as in ``fit``.

        Returns
        -------
        list of ndarray
            The centre of each row's code ``(n, width)``, the lowest layer first; that is what ``transform`` gives.
        """
        check_is_fitted(self)
        raw = self._read(X, reset=False)
        bottleneck: Any = self.module_.bottleneck
        names = [f"z_{layer + 1}" for layer in range(len(bottleneck.widths))]
        together = self._apply(raw, lambda module, batch: _codes(module.trace(batch, sample=False).code, names))
        edges = [sum(bottleneck.widths[: i + 1]) for i in range(len(names) - 1)]
        return list(np.split(together, edges, axis=1))


def _codes(code: Code, names: list[str]) -> Tensor:
    return torch.cat([code.aux[name] for name in names], dim=1)
