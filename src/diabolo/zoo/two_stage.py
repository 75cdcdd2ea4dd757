"""A variational autoencoder whose codes are the rows of a second one, which knows where they lie."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from diabolo.checks import Ge
from diabolo.declare import register, spec
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Bottleneck, Gaussian, gaussian_entropy, gaussian_log_prob
from diabolo.parts.likelihoods import LearnedGaussian
from diabolo.parts.networks.mlp import MLP
from diabolo.records import Batch, Code, Schema
from diabolo.zoo.flows import sign_points
from diabolo.zoo.variational import VariationalCode

__all__ = ["TwoStageVAE"]


class CodeNoise(LearnedGaussian):
    """A learned scale that does not start too small: a second stage that copies codes exactly has nothing left to learn."""

    def start(self, residual: float) -> float:
        """Start at the scale of the residuals, or at a twentieth of the variance that codes have."""
        return super().start(max(residual, 0.05))


class TwoStage(Bottleneck):
    r"""A diagonal Gaussian code, and a second variational autoencoder over such codes.

    In training the costs are those of two models that learn side by side, in nats per row:

    .. math:: \text{kl} = \mathrm{KL}\big(q(z \mid x) \,\|\, N(0, I)\big), \qquad
              \text{second stage} = -\log p_2(z \mid u) + \mathrm{KL}\big(q_2(u \mid z) \,\|\, N(0, I)\big), \quad
              z \sim q(z \mid x), \; u \sim q_2(u \mid z)

    where the gradient of the second stops at ``z``. Otherwise the cost is that of the model which generates,
    :math:`\log q(z \mid x)` plus the second term: an upper bound of the divergence of :math:`q(z \mid x)` from the prior
    :math:`p_2(z)`.

    Parameters
    ----------
    latent_dim : int
        Width of both codes.
    hidden : tuple of int
        Widths of the hidden layers of the second stage.
    """

    generative = True
    linear = True
    stochastic = True

    def __init__(self, latent_dim: int, hidden: tuple[int, ...]):
        super().__init__()
        self.in_features, self.out_features = 2 * latent_dim, latent_dim
        self.first = Gaussian(latent_dim)
        self.schema = Schema("vector", (latent_dim,), 0)
        self.second = AutoencoderModule.from_network(
            MLP(hidden, shortcut=True), self.schema, bottleneck=Gaussian(latent_dim), likelihood=CodeNoise((1,))
        )

    def on_encoded(self, h: Tensor) -> None:
        """Start the second stage at the principal components of codes."""
        codes = self.first(h, sample=True).z
        self.second.start(Batch(codes))

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Split ``h`` into mean and log-variance; draw ``z`` or return the mean."""
        first: Code = self.first(h, sample=sample)
        if self.training:
            return first._replace(costs=first.costs | {"second_stage": self.second_stage(first.z.detach(), sample)})
        mu, logvar = first.aux["mu"], first.aux["logvar"]
        if sample:
            kl = gaussian_log_prob(first.z, mu, logvar).sum(1) + self.second_stage(first.z, True)
        else:
            points = sign_points(mu, logvar)  # (P, B, D)
            costs = self.second_stage(points.flatten(0, 1), False).view(len(points), -1)
            kl = costs.mean(0) - gaussian_entropy(logvar).sum(1)
        return first._replace(costs={"kl": kl})

    def second_stage(self, z: Tensor, sample: bool) -> Tensor:
        """Return the negative bound of the second stage for codes ``(B, D)``, ``(B,)``."""
        batch = Batch(z)
        trace = self.second.trace(batch, sample=sample)
        cost: Tensor = trace.code.costs["kl"] - self.second.log_prob(trace.raw, batch)
        return cost

    def log_ratio(self, code: Code) -> Tensor:
        """Return ``log q(z | x) + log q2(u | z) - log p2(z | u) - log p(u)`` ``(B,)``, with a ``u`` that is drawn here.

        The prior of codes has no density in closed form; pairs of ``z`` and ``u`` have one.
        """
        batch = Batch(code.z)
        trace = self.second.trace(batch, sample=True)
        second = self.second.bottleneck.log_ratio(trace.code) - self.second.log_prob(trace.raw, batch)
        first = gaussian_log_prob(code.z, code.aux["mu"], code.aux["logvar"]).sum(1)
        ratio: Tensor = first + second
        return ratio

    def moments(self, code: Code) -> tuple[Tensor, ...] | None:
        """Return mean, variance and KL divergence from N(0, I) of each unit."""
        return self.first.moments(code)

    @torch.no_grad()
    def prior(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw a code of the second stage, and from it a code of the first."""
        like = next(self.second.parameters())
        raw = self.second.decode(self.second.bottleneck.prior(n, temperature).to(like))
        mean = self.second.likelihood.mean(raw)
        return (mean + temperature * (self.second.likelihood.sample(raw) - mean)).cpu()


@register
@spec
class TwoStageVAE(VariationalCode):
    r"""A VAE with a second VAE for its codes: samples come from where codes are, not from where they should be.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \mathrm{KL}\big(q(z \mid x_b) \,\|\, N(0, I)\big)
              - \log p_2(\bar z_b \mid u_b) + \mathrm{KL}\big(q_2(u \mid \bar z_b) \,\|\, N(0, I)\big) \Big], \qquad
              z_b \sim q(z \mid x_b), \quad u_b \sim q_2(u \mid \bar z_b)

    in nats per row. Where rows lie near a surface, the codes of all rows together seldom look like draws of N(0, I), and a
    VAE that draws there decodes what it has never seen. The second stage learns the distribution of codes; ``sample`` draws
    ``u``, then ``z``, then the row. Dai and Wipf train it after the first has ended; here both learn in one run, the second from
    codes through which no gradient goes back (:math:`\bar z`), so that the first is the VAE it would be alone. Validation and
    ``score_samples`` judge the model that generates, with :math:`p_2(z)` for a prior.

    {parameters}

    References
    ----------
    Dai and Wipf, Diagnosing and Enhancing VAE Models, 2019, arXiv:1903.05789.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import TwoStageVAE
    >>> X = load_iris().data
    >>> TwoStageVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X).sample(3, random_state=0).shape
    (3, 4)
    """

    second_hidden: Annotated[
        tuple[int, ...],
        Ge(1),
        "widths of the hidden layers of the second stage; with few rows wide ones learn the codes by heart, and () is a normal "
        "distribution",
    ] = (32, 32)

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return TwoStage(self._code_width(schema), tuple(self.second_hidden))
