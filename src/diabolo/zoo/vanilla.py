"""Deterministic autoencoders: plain, denoising, and one to build yourself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal

from diabolo.checks import Ge, ParameterError
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.parts.bottlenecks import Bottleneck, Identity, Rectified
from diabolo.parts.corruptions import CORRUPTIONS, Corruption
from diabolo.parts.networks.base import ACTIVATIONS
from diabolo.records import Schema

__all__ = ["Autoencoder", "CustomAutoencoder", "DenoisingAutoencoder"]


@register
@spec
class Autoencoder(BaseAutoencoder):
    r"""The plain autoencoder: encode each row into a short code, and rebuild the row from it.

    .. math:: L = -\frac1B \sum_b \log p(x_b \mid z_b), \qquad z_b = \text{encoder}(x_b)

    summed over features, averaged over rows, in nats; under the Gaussian likelihood half the sum of squared errors. With
    ``hidden=()`` it spans the subspace of principal components.

    {parameters}

    References
    ----------
    Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313, 2006,
    doi:10.1126/science.1127647.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> X = load_iris().data
    >>> ae = Autoencoder(latent_dim=2, max_epochs=20, random_state=0).fit(X)
    >>> ae.transform(X).shape, ae.reconstruct(X).shape
    ((150, 2), (150, 4))
    """

    code_activation: Annotated[
        Literal["identity", "relu", "sigmoid", "tanh"],
        "function of the code; with 'relu' and hidden=() it is the single layer of many tutorials",
    ] = "identity"

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        width = self._code_width(schema)
        if self.code_activation == "relu":
            return Rectified(width)
        return Identity(width, None if self.code_activation == "identity" else ACTIVATIONS[self.code_activation]())


@register
@spec
class DenoisingAutoencoder(BaseAutoencoder):
    """Rebuilds the clean row from a damaged copy, so that the code keeps what survives damage.

    The loss is that of :class:`Autoencoder`, with the damaged row going in and the clean row as the target. With
    ``noise_schedule="decreasing"`` training goes from coarse features to fine ones; with ``"mixed"`` one model serves all levels
    up to ``level``. Validation rows are damaged as at the end of training, the same way after each epoch: epochs compare, and
    the weights that are kept are the best at what training ends with. While the noise decreases, training does not stop early.

    {parameters}

    References
    ----------
    Vincent et al., Stacked denoising autoencoders, JMLR 11, 2010.

    Geras and Sutton, Scheduled denoising autoencoders, 2015, arXiv:1406.3269.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import DenoisingAutoencoder
    >>> X = load_iris().data
    >>> dae = DenoisingAutoencoder(noise="masking", level=0.25, max_epochs=5, random_state=0).fit(X)
    >>> dae.reconstruct(X).shape
    (150, 4)
    """

    latent_dim: Annotated[int | Literal["auto"], Ge(1), "size of the code; 'auto' is the same as for Autoencoder"] = (
        field(default=32, kw_only=False)
    )
    noise: Annotated[
        Literal["gaussian", "masking", "salt_and_pepper", "swap", "occlusion"],
        "damage: normal noise, cells set to 0, cells set to their feature's lowest or highest value, cells taken from "
        "another row, or a rectangle of an image set to 0",
    ] = "gaussian"
    level: Annotated[
        float,
        Ge(0),
        "standard deviation of the normal noise in units of the scaled data, or the fraction of cells damaged",
    ] = 0.3
    noise_schedule: Annotated[
        Literal["constant", "decreasing", "mixed"],
        "course of the level: the same throughout, falling linearly to end_level in the course of training, or drawn for each "
        "row between 0 and level",
    ] = "constant"
    end_level: Annotated[float, Ge(0), "level at which noise_schedule='decreasing' ends"] = 0.0

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        return Identity(self._code_width(schema))

    def _patience_from(self) -> float:
        return 1.0 if self.noise_schedule == "decreasing" else 0.0

    def _corruption(self, schema: Schema) -> Corruption:
        if self.noise_schedule == "decreasing" and self.end_level > self.level:
            raise ParameterError(
                f"end_level={self.end_level!r}: noise_schedule='decreasing' expects at most level={self.level!r}"
            )
        if self.noise == "occlusion" and schema.kind != "image":
            raise ParameterError(
                f"noise='occlusion' blanks a rectangle of an image; X has rows of shape {schema.shape}. Use noise='masking', "
                "or reshape X to images."
            )
        if self.noise != "gaussian" and self.level >= 1:
            raise ParameterError(f"level={self.level!r}: expected a fraction < 1 of the cells for noise={self.noise!r}")
        return CORRUPTIONS[self.noise](self.level, self.noise_schedule, self.end_level)


@register
@spec
class CustomAutoencoder(BaseAutoencoder):
    """An autoencoder of your own parts, with everything else as in every other model.

    ``build`` gets the schema of the data and returns an :class:`~diabolo.module.AutoencoderModule` of any encoder and decoder
    with a bottleneck and a likelihood. The parameters that shape the network (``latent_dim``, ``hidden``, ``activation``,
    ``dropout``, ``norm``, ``network``, ``likelihood``, ``weight_l1``) are left to ``build``.

    {parameters}

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from torch import nn
    >>> from diabolo import AutoencoderModule, CustomAutoencoder
    >>> from diabolo.parts.bottlenecks import Identity
    >>> from diabolo.parts.likelihoods import Laplace
    >>> def build(schema):
    ...     encoder = nn.Sequential(nn.Linear(schema.size, 16), nn.Tanh(), nn.Linear(16, 2))
    ...     decoder = nn.Linear(2, schema.size)
    ...     return AutoencoderModule(
    ...         schema, encoder=encoder, decoder=decoder, bottleneck=Identity(2), likelihood=Laplace()
    ...     )
    >>> X = load_iris().data
    >>> CustomAutoencoder(build=build, max_epochs=5, random_state=0).fit(X).transform(X).shape
    (150, 2)
    """

    build: Annotated[
        Callable[[Schema], Any] | None, "function from the schema to an AutoencoderModule; required to fit"
    ] = None

    def _bottleneck(self, schema: Schema) -> Bottleneck:
        bottleneck: Bottleneck = self._build(schema).bottleneck
        return bottleneck

    def _build(self, schema: Schema) -> AutoencoderModule:
        if self.build is None:
            raise ParameterError("CustomAutoencoder needs build=, a function from the schema to an AutoencoderModule")
        module = self.build(schema)
        if not isinstance(module, AutoencoderModule):
            raise TypeError(f"build returned {type(module).__name__}; expected an AutoencoderModule")
        return module
