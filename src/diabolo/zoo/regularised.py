"""Deterministic autoencoders held back by more than a narrow code: contractive, regularised, robust, ordered."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import Ge, Gt, Lt, ParameterError
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck, Identity
from diabolo.parts.likelihoods import Likelihood, StudentT
from diabolo.parts.networks.base import ACTIVATIONS, Network
from diabolo.parts.networks.mlp import MLP
from diabolo.parts.penalties import (
    CodeJacobian,
    CodeL2,
    DecoderJacobian,
    DecoderL2,
    JacobianPenalty,
    Penalty,
    ReconstructionJacobian,
)
from diabolo.records import Code, Schema

__all__ = ["ContractiveAutoencoder", "OrderedAutoencoder", "RegularizedAutoencoder", "RobustAutoencoder"]


@register
@spec
class ContractiveAutoencoder(BaseAutoencoder):
    r"""A code that hardly moves when the row moves a little, except along the directions in which the data vary.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b)
              + \lambda \Big\| \frac{\partial z}{\partial x}(x_b) \Big\|_F^2 \Big]

    in nats per row of the scaled data. With ``jacobian="reconstruction"`` the Jacobian is that of the reconstruction
    :math:`\partial \hat x / \partial x`. The penalty on the code can be met by a smaller code and a steeper decoder too, where
    ``weight_decay`` or the activation does not stop it; the penalty on the reconstruction does not depend on the code's scale,
    and acts as small noise of variance :math:`2 \lambda` on the input of a denoising autoencoder does. Jacobians are those of
    the map that ``transform`` applies: without dropout, and with the running statistics of batch normalisation.

    {parameters}

    References
    ----------
    Rifai et al., Contractive auto-encoders: explicit invariance during feature extraction, ICML 2011.

    Alain and Bengio, What regularized auto-encoders learn from the data-generating distribution, JMLR 15, 2014,
    arXiv:1211.4246.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import ContractiveAutoencoder
    >>> X = load_iris().data
    >>> cae = ContractiveAutoencoder(2, contraction=0.5, max_epochs=5, random_state=0).fit(X)
    >>> cae.transform(X).shape
    (150, 2)
    """

    contraction: Annotated[
        float, Ge(0), "weight of the squared Frobenius norm of the Jacobian in the loss, in nats per row"
    ] = 0.1
    jacobian: Annotated[
        Literal["code", "reconstruction"], "what is to move little with the row: its code, or its reconstruction"
    ] = "code"
    probes: Annotated[
        int | Literal["auto", "exact"],
        Ge(1),
        "random directions in which a step estimates the norm, without bias; 'exact' takes all; 'auto' is exact up to 8 "
        "outputs of the map and 4 directions above",
    ] = "auto"

    code_activation: Annotated[
        Literal["identity", "sigmoid", "tanh"],
        "function of the code: 'sigmoid' with hidden=() is the paper's single layer, whose saturated units do not move",
    ] = "identity"

    _judge_penalties = True  # by reconstruction alone, the weights kept would be those that they have changed least

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        plain = self.code_activation == "identity"
        return Identity(self._code_width(schema), None if plain else ACTIVATIONS[self.code_activation]())

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        kind: type[JacobianPenalty] = CodeJacobian if self.jacobian == "code" else ReconstructionJacobian
        return (kind(self.contraction, self.probes),)


class Spectral(nn.Module):
    r"""A linear or convolutional layer with its weight divided by its largest singular value.

    The value is followed by one step of the power method in each pass of training (Miyato et al., 2018, arXiv:1802.05957).
    torch has such a parametrisation, but a module that holds it cannot be pickled.

    Parameters
    ----------
    layer : nn.Module
        With a ``weight`` of two or more dimensions.
    """

    right: Tensor

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
        if not self._matrix().any():  # a layer that starts at zero has no norm to divide by
            nn.init.orthogonal_(self.layer.weight)  # type: ignore[arg-type]
        self.register_buffer("right", F.normalize(torch.randn(self._matrix().shape[1]), dim=0))
        for _ in range(20):  # a start near the leading direction
            self._step()

    def _matrix(self) -> Tensor:
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        return (weight.transpose(0, 1) if self.transposed else weight).flatten(1)

    @torch.no_grad()
    def _step(self) -> None:
        matrix = self._matrix()
        self.right.copy_(F.normalize(matrix.T @ (matrix @ self.right), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with its normalised weight."""
        if self.training:
            self._step()
        norm = torch.linalg.vector_norm(self._matrix() @ self.right.clone()).clamp_min(1e-12)
        out: Tensor = torch.func.functional_call(self.layer, {"weight": self.layer.weight / norm}, (x,))
        return out


class SpectralDecoder:
    """A network whose decoder has every layer divided by its largest singular value.

    Parameters
    ----------
    network : Network
        Of linear and convolutional layers.
    """

    def __init__(self, network: Network):
        self.network = network

    def encoder(self, schema: Schema, out: int, *, spatial: bool) -> nn.Module:
        """Return the network's encoder."""
        return self.network.encoder(schema, out, spatial=spatial)

    def decoder(self, schema: Schema, inp: int, params: int, *, spatial: bool) -> nn.Module:
        """Return the network's decoder with normalised layers."""
        half = self.network.decoder(schema, inp, params, spatial=spatial)
        self._normalise(half)
        return half

    def _normalise(self, module: nn.Module) -> None:
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
        for name, child in module.named_children():
            if isinstance(child, kinds):
                setattr(module, name, Spectral(child))
            else:
                self._normalise(child)


@register
@spec
class RegularizedAutoencoder(BaseAutoencoder):
    r"""A smooth deterministic relative of the VAE: a small code, and a decoder that is kept smooth in place of noise.

    .. math:: L = \frac1B \sum_b \Big[ -\log p(x_b \mid z_b) + \frac{\beta}{2} \|z_b\|^2 \Big] + \lambda R(\text{decoder})

    in nats per row, where :math:`R` is the sum of squared weights of the decoder (``decoder_penalty="l2"``), or the mean over
    rows of :math:`\|\partial \hat x / \partial z\|_F^2` (``"gp"``). With ``"sn"`` there is no such term: each layer of the
    decoder is divided by its largest singular value, so that no layer stretches a distance.

    {parameters}

    References
    ----------
    Ghosh et al., From variational to deterministic autoencoders, ICLR 2020, arXiv:1903.12436.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import RegularizedAutoencoder
    >>> X = load_iris().data
    >>> rae = RegularizedAutoencoder(2, decoder_penalty="gp", max_epochs=5, random_state=0).fit(X)
    >>> rae.reconstruct(X).shape
    (150, 4)
    """

    code_weight: Annotated[float, Ge(0), "weight of half the squared code in the loss, in nats per row"] = 0.001
    decoder_penalty: Annotated[
        Literal["l2", "gp", "sn"],
        "how the decoder is kept smooth: squared weights, squared gradient of the row with respect to the code, or layers "
        "divided by their largest singular value (on a network without a linear shortcut)",
    ] = "l2"
    decoder_weight: Annotated[
        float, Ge(0), "weight of the decoder's penalty for 'l2' and 'gp' in the loss, in nats per row"
    ] = 0.0001

    _judge_penalties = True  # as for ContractiveAutoencoder

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema))

    def _network(self, schema: Schema) -> Network:
        if self.decoder_penalty != "sn":
            return super()._network(schema)
        if self.network.startswith("shortcut"):
            raise ParameterError(
                f"network={self.network!r} starts its decoder at the principal components, which decoder_penalty='sn' would "
                f"rescale. Use network={self.network.replace('shortcut_', '')!r}, or decoder_penalty='gp'."
            )
        if self.network == "auto":
            return SpectralDecoder(MLP(self._hidden(schema), self.activation, self.dropout, self.norm))
        return SpectralDecoder(super()._network(schema))

    def _penalties(self, schema: Schema) -> tuple[Penalty, ...]:
        code = CodeL2(self.code_weight)
        if self.decoder_penalty == "l2":
            return code, DecoderL2(self.decoder_weight)
        return (code, DecoderJacobian(self.decoder_weight)) if self.decoder_penalty == "gp" else (code,)


@register
@spec
class RobustAutoencoder(BaseAutoencoder):
    r"""An autoencoder that gross outliers do not bend: residuals have the heavy tails of Student's t.

    .. math:: L = \frac1B \sum_b \sum_j \Big[ \frac{\nu + 1}{2} \log\Big(1 + \frac{(x_{bj} - \hat x_{bj})^2}{\nu \sigma_j^2}\Big)
              + \log \sigma_j \Big] + \text{const}

    in nats per row. The pull of a residual grows no more beyond :math:`\sqrt\nu \sigma_j` and fades further out, where squared
    error pulls ever harder. The scale :math:`\sigma_j` is learned from the data, outliers counting little, so that what is gross
    is judged by the other rows. ``likelihood="laplace"`` is a milder choice, whose pull is the same at every distance.

    {parameters}

    References
    ----------
    Lange, Little and Taylor, Robust statistical modeling using the t distribution, JASA 84, 1989,
    doi:10.1080/01621459.1989.10478852.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import RobustAutoencoder
    >>> X = load_iris().data
    >>> robust = RobustAutoencoder(2, max_epochs=5, random_state=0).fit(X)
    >>> robust.choices_["likelihood"]
    'student_t'
    """

    dof: Annotated[
        float, Gt(0), "degrees of freedom of likelihood='student_t'; fewer make less of outliers, many are a Gaussian"
    ] = 3.0

    _auto_likelihood = "student_t"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema))

    def _likelihood(self, schema: Schema) -> Likelihood:
        likelihood = super()._likelihood(schema)
        if isinstance(likelihood, StudentT):
            likelihood.dof = self.dof
        return likelihood


class Nested(Bottleneck):
    r"""Nested dropout: in training, the units of the code beyond a random one are set to 0.

    Parameters
    ----------
    latent_dim : int
        Width :math:`D` of the code.
    rate : float or None
        :math:`p(b) \propto (1 - \text{rate})^{b-1}` for the last unit kept :math:`b = 1, \dots, D`; ``None`` makes all of them
        equally likely.
    """

    linear = True
    weights: Tensor

    def __init__(self, latent_dim: int, rate: float | None):
        super().__init__()
        self.in_features = self.out_features = latent_dim
        decay = 1.0 if rate is None else 1.0 - rate
        # weights that underflow would leave their units without any training
        weights = torch.as_tensor(decay, dtype=torch.float64).pow(torch.arange(latent_dim)).clamp_min(1e-30)
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, h: Tensor, *, sample: bool) -> Code:
        """Cut the code of each row at a unit of its own, or return it whole."""
        if not sample:
            return Code(h, {}, {})
        last = torch.multinomial(self.weights.float(), len(h), replacement=True)  # (B,)
        kept = torch.arange(self.out_features, device=h.device) <= last[:, None]  # (B, D)
        return Code(h * kept.view(*kept.shape, *[1] * (h.dim() - 2)), {}, {})


@register
@spec
class OrderedAutoencoder(BaseAutoencoder):
    r"""A code whose units come in order of importance, so that it can be cut to any length after training.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_{b,1}, \dots, z_{b,k}, 0, \dots, 0), \qquad k \sim p(k)

    in nats per row, with a :math:`k` drawn for each row and step (nested dropout). The first units must do well alone, and each
    further one adds what those before it leave. With ``hidden=()`` unit ``i`` is the ``i``-th principal component. To use ``m``
    units, set the columns of the code beyond them to 0.

    {parameters}

    References
    ----------
    Rippel, Gelbart and Adams, Learning ordered representations with nested dropout, ICML 2014, arXiv:1402.0915.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import OrderedAutoencoder
    >>> X = load_iris().data
    >>> ordered = OrderedAutoencoder(3, max_epochs=5, random_state=0).fit(X)
    >>> Z = ordered.transform(X)
    >>> Z[:, 1:] = 0  # the first unit alone
    >>> ordered.inverse_transform(Z).shape
    (150, 4)
    """

    truncation: Annotated[
        Literal["geometric", "uniform"], "distribution of the last unit kept: falling with its number, or even over all"
    ] = "geometric"
    rate: Annotated[
        float, Gt(0), Lt(1), "chance of truncation='geometric' to stop at a unit, given that it was reached"
    ] = 0.1

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Nested(self._code_width(schema), self.rate if self.truncation == "geometric" else None)
