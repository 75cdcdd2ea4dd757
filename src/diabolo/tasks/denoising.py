"""Denoising: of images of any size by a convolutional network, of tables and series by an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import ParameterError, check_parameters
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.degradations import DEGRADATIONS, degrade, resolve_levels
from diabolo.parts.networks.unet import ResidualUNet
from diabolo.records import Batch, Loss
from diabolo.tasks.noise_level import LEAST, noise_level
from diabolo.tasks.picture_models import PictureModel, groups, handed_back, in_nats, stacked
from diabolo.tasks.pictures import Picture, are_pictures, read_pictures
from diabolo.zoo.vanilla import DenoisingAutoencoder

__all__ = ["Denoiser"]

Array = NDArray[Any]
Noise = Literal["gaussian", "poisson", "salt_and_pepper", "jpeg", "blur", "scratches", "dust"]
Level = float | tuple[float, ...]
SIDE = 48  # of the patches to learn from


@spec
class RowsByAutoencoder:
    """The parameter that comes first."""

    autoencoder: Annotated[
        BaseAutoencoder | None,
        "the model of tables and series; None is a DenoisingAutoencoder",
    ] = field(default=None, kw_only=False)


@register
@spec
class Denoiser(PictureModel, RowsByAutoencoder):
    r"""Takes noise out of images of any size, and of tables and series.

    For images a convolutional network learns from patches what to add to a noisy one: of clean images, which it makes noisy by
    itself,

    .. math:: L = \tfrac12 \sum \big(f(x + n) - x\big)^2 / s^2

    or of noisy images alone, by predicting from one half of the pixels the other, whose noise is another (Neighbor2Neighbor; the
    noise of neighbouring pixels must be independent). It sees images of one type of numbers and as many channels, grey or
    colour, and takes them of any size: in tiles without seams, in memory for one tile. Images come back as they are given: list
    or stack, channels first or last, in their type of numbers.

    Noise stands for all that spoils an image as a whole; where pixels are whole numbers, it ends at black and white as in
    files. A level is, by kind,

    - ``"gaussian"``: the standard deviation of normal noise, in units of the pixels;
    - ``"poisson"``: that of counted light where the image is white; its variance is in proportion to brightness;
    - ``"salt_and_pepper"``: the share of pixels that become the lowest or the highest value;
    - ``"jpeg"``: the quality of a JPEG file, from 1 to 100 (the extra ``image`` installs Pillow, which writes it);
    - ``"blur"``: the standard deviation of a Gaussian blur, in pixels;
    - ``"scratches"``, ``"dust"``: the share of pixels that they touch, light or dark.

    Tables and series are rebuilt by an autoencoder.

    {parameters}

    Attributes
    ----------
    autoencoder_ : BaseAutoencoder
        Of tables and series: the fitted model.
    module_ : nn.Module
        Of images: the network.
    history_ : History
        Of images: the loss over the epochs, in nats per patch.
    low_, range_ : float
        Of images: the lowest pixel value, and the range of values, that become 0 and 1.

    References
    ----------
    Zhang et al., Beyond a Gaussian denoiser, 2017, arXiv:1608.03981.

    Huang et al., Neighbor2Neighbor, 2021, arXiv:2101.02824.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from diabolo import Denoiser
    >>> images = load_digits().images
    >>> denoiser = Denoiser(level=3.0, max_steps=20, random_state=0).fit(images[:500])
    >>> noisy = images[500:] + np.random.default_rng(0).normal(0, 3, images[500:].shape)
    >>> denoiser.transform(noisy).shape
    (1297, 8, 8)
    """

    noise: Annotated[
        Noise | tuple[Noise, ...],
        "what is put on clean images; of several kinds one after the other",
    ] = "gaussian"
    level: Annotated[
        Level | dict[str, Level] | Literal["auto"],
        "how much of it; a pair is a range, of which each patch draws its own; of several kinds by name, "
        "{'gaussian': (0.0, 30.0), 'blur': 1}; 'auto' is a range from little to much, of normal noise up to a fifth of the range "
        "of pixels",
    ] = "auto"
    learn_from: Annotated[
        Literal["clean", "noisy"],
        "what the images of fit are: with 'noisy' no noise is put on them, and noise and level are not used",
    ] = "clean"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what images, or rows, look like without noise.

        Parameters
        ----------
        X : list or stack of images, or array, frame or list of series
            ``(n, height, width)``, ``(n, channels, height, width)``, ``(n, height, width, channels)``, or a list of images of
            any sizes; 8 or 16 bits, or floating point. All else is for the autoencoder.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        self._start()
        if self.autoencoder is not None or not are_pictures(X):
            self.autoencoder_ = self._fit_rows(self.autoencoder or DenoisingAutoencoder(), X)
            return self
        pictures = read_pictures(X)
        self._measure(pictures)
        if self.learn_from == "noisy":
            return self._learn(pictures, self._build, _from_noisy, side=SIDE)
        try:
            kinds = (self.noise,) if isinstance(self.noise, str) else self.noise
            levels = resolve_levels(kinds, self.level, DEGRADATIONS, self.range_)
        except ValueError as error:
            raise ParameterError(f"level={error}") from None
        whole = pictures[0].pixels.dtype.kind in "bui"
        return self._learn(pictures, self._build, _from_clean(levels, whole), side=SIDE)

    def transform(self, X: Any) -> Any:
        """Return images, or rows, without noise.

        Parameters
        ----------
        X : list or stack of images, or array, frame or list of series
            As in ``fit``; images of any size.

        Returns
        -------
        list, array, frame or tensor
            As given: pixels in their type of numbers, rounded and held in range for whole numbers.
        """
        if hasattr(self, "autoencoder_"):
            return self.autoencoder_.reconstruct(X)
        self._checked(X)
        pictures = self._same_channels(read_pictures(X))
        return handed_back(X, [image for group in groups(pictures) for image in self._cleaned(group)])

    @staticmethod
    def estimate_noise(X: Any) -> Array:
        """Estimate how much normal noise images have, from the images alone.

        Noise is what the finest details of the quieter parts are made of. Textures that are everywhere are taken for it: clean
        photographs of 8 bits seem to have a level of 1 or 2.

        Parameters
        ----------
        X : list or stack of images
            As in ``fit``, with sides of at least 19 pixels.

        Returns
        -------
        ndarray of shape (n,)
            Standard deviations in units of the pixels.

        References
        ----------
        Donoho and Johnstone, Ideal spatial adaptation by wavelet shrinkage, 1994, doi:10.1093/biomet/81.3.425.

        Examples
        --------
        >>> import numpy as np
        >>> from diabolo import Denoiser
        >>> image = np.random.default_rng(0).normal(100, 12, (256, 256))
        >>> print(Denoiser.estimate_noise([image]).round())
        [12.]
        """
        if not are_pictures(X):
            raise ValueError(
                f"expected a list or a stack of images, got {type(X).__name__}; a single image is a list of one: [X]"
            )
        pictures = read_pictures(X)
        for i, picture in enumerate(pictures):
            height, width = picture.planes.shape[1:]
            if min(height, width) < LEAST:
                raise ValueError(f"image {i} has {height} x {width} pixels; expected sides of at least {LEAST}")
        return np.array([noise_level(picture.planes) for picture in pictures])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _build(self) -> nn.Module:
        return ResidualUNet(self.channels_, self.width)

    def _cleaned(self, group: list[Picture]) -> list[Array]:
        """Clean images of one size."""
        planes = stacked(group)
        out = np.empty(planes.shape, dtype=planes.dtype)
        for at, tile in self._in_tiles(planes, self.module_, self.module_):
            out[:, :, *at] = self._values(tile, planes.dtype)
        return [picture.like(image) for picture, image in zip(group, out, strict=True)]


def _from_clean(levels: dict[str, tuple[float, float]], whole: bool) -> Callable[[nn.Module, Batch, float], Loss]:
    """Return the loss where clean images are known; whole numbers hold no noise beyond black and white."""

    def objective(module: nn.Module, batch: Batch, progress: float) -> Loss:
        noisy = degrade(batch.x, levels)
        total = in_nats((module(noisy.clamp(0, 1) if whole else noisy) - batch.x).float().square())
        return Loss(total, {"squared error": total.detach()})

    return objective


def _from_noisy(module: nn.Module, batch: Batch, progress: float) -> Loss:
    """Return the loss of noisy images alone."""
    x = batch.x
    first, second = _pairs(x)
    one, other = _picked(x, first), _picked(x, second)
    guess = module(one)
    off = (guess - other).float().square()
    if module.training:  # neighbours differ by more than noise: as much as those of the restored whole
        with torch.no_grad():
            whole = module(x)
            gap = _picked(whole, first) - _picked(whole, second)
        off = off + progress * (guess - other - gap).float().square()
    total = in_nats(off)
    return Loss(total, {"squared error": total.detach()})


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Draw two neighbouring pixels of each cell of 2 x 2: their numbers in it ``(B, 1, H / 2, W / 2)``."""
    shape = (len(x), 1, x.shape[2] // 2, x.shape[3] // 2)
    first = torch.randint(4, shape, device=x.device)
    # of the pixels 0 1 / 2 3 of a cell the neighbours of 0 and 3 are 1 and 2, and the other way round
    beside = torch.tensor([[1, 2], [0, 3], [0, 3], [1, 2]], device=x.device)
    return first, beside[first, torch.randint(2, shape, device=x.device)]


def _picked(x: Tensor, which: Tensor) -> Tensor:
    """Return one pixel of each cell of 2 x 2, ``(B, channels, H / 2, W / 2)``."""
    cells = F.pixel_unshuffle(x, 2)  # (B, channels * 4, H / 2, W / 2)
    cells = cells.reshape(len(x), x.shape[1], 4, *cells.shape[2:])
    found: Tensor = cells.gather(2, which[:, :, None].expand(-1, x.shape[1], -1, -1, -1))
    return found[:, :, 0]
