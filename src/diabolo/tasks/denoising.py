"""Denoising: of images of any size by a convolutional network, of tables and series by an autoencoder."""

from __future__ import annotations

import math
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import Ge, Gt, ParameterError, check_parameters
from diabolo.declare import register, spec
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.networks.unet import REACH, STRIDE, ResidualUNet
from diabolo.records import Batch, History, Loss, Schema, Table
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.pictures import Picture, are_pictures, cut_patches, in_tiles, pixel_range, read_pictures, turned
from diabolo.training.device import bfloat16_is_fast, resolve_device, resolve_precision
from diabolo.training.loop import Settings, train
from diabolo.training.rows import Selection
from diabolo.zoo.vanilla import DenoisingAutoencoder

__all__ = ["Denoiser"]

Array = NDArray[Any]
PATCHES, SIDE = 12_800, 48  # to learn from at most, and pixels of a side
BATCH = 32
HELD_OUT = 256  # patches that the weights to keep are chosen by
TILE = 256
SPREAD = 0.01  # standard deviation of what is left of the noise, by which squared errors become nats: it scales the loss alone


@register
@spec
class Denoiser(OneToOneFeatureMixin, TransformerMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    r"""Takes noise out of images of any size, and of tables and series.

    For images a convolutional network learns from patches what to add to a noisy one: of clean images, which it makes noisy by
    itself,

    .. math:: L = \tfrac12 \sum \big(f(x + n) - x\big)^2 / s^2

    or of noisy images alone, by predicting from one half of the pixels the other, whose noise is another (Neighbor2Neighbor; the
    noise of neighbouring pixels must be independent). It sees images of one type of numbers and as many channels, grey or
    colour, and takes them of any size: in tiles without seams, in memory for one tile. Images come back as they are given: list
    or stack, channels first or last, in their type of numbers.

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

    autoencoder: Annotated[
        BaseAutoencoder | None,
        "the model of tables and series; None is a DenoisingAutoencoder",
    ] = field(default=None, kw_only=False)
    noise: Annotated[
        Literal["gaussian", "poisson", "salt_and_pepper"],
        "what is put on clean images: normal noise; the noise of counted light, whose variance is in proportion to brightness; "
        "or pixels that become the lowest or the highest value",
    ] = "gaussian"
    level: Annotated[
        float | tuple[float, ...] | Literal["auto"],
        "how much: a standard deviation in units of the pixels (of 'poisson' that at the highest value), or a share of the "
        "pixels; a pair is a range, of which each patch draws its own; 'auto' is the range from 0 to a fifth of the range of "
        "pixels, or from 0 to 0.5 of the pixels",
    ] = "auto"
    learn_from: Annotated[
        Literal["clean", "noisy"],
        "what the images of fit are: with 'noisy' no noise is put on them, and noise and level are not used",
    ] = "clean"
    width: Annotated[int, Ge(4), "channels of the network at half the size of an image"] = 48
    max_steps: Annotated[int, Ge(1), "steps of the optimiser, each on 32 patches"] = 2000
    max_time: Annotated[float | None, Gt(0), "seconds after which training ends; what was learned is kept"] = None
    learning_rate: Annotated[float, Gt(0), "step size after warm-up"] = 2e-3
    device: Annotated[str, "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        "of the products in training; 'auto' is bfloat16 where the processor multiplies it much faster",
    ] = "auto"
    verbose: Annotated[int, "1 shows progress"] = 0
    random_state: Annotated[int | np.random.RandomState | None, "seed; None draws one"] = None

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
        for name in ("module_", "history_", "autoencoder_", "feature_names_in_"):
            if hasattr(self, name):
                delattr(self, name)
        if self.autoencoder is not None or not are_pictures(X):
            model = DenoisingAutoencoder() if self.autoencoder is None else clone(self.autoencoder)
            if self.random_state is not None:
                model.set_params(random_state=draw_seed(self.random_state))
            self.autoencoder_ = model.fit(X)
            self._take_names()
            return self
        pictures = read_pictures(X)
        self.low_, self.range_ = pixel_range(pictures)
        self.channels_ = len(pictures[0].planes)
        self.n_features_in_ = self.channels_
        self.level_ = self._levels(pictures[0].pixels.dtype)
        device, seed = resolve_device(self.device), draw_seed(self.random_state)
        rng = np.random.default_rng(seed)
        planes = [self._unit(p.planes) for p in pictures]
        aside = planes[-max(1, len(planes) // 10) :]  # the weights to keep are chosen by images that are not learned
        learned = cut_patches(planes[: -len(aside)] or planes, PATCHES, SIDE, rng)
        judged = cut_patches(aside, HELD_OUT, SIDE, rng)
        schema = Schema("image", (self.channels_, SIDE, SIDE), PATCHES, "unit", shared_unit=True)
        rows = Table(schema, torch.from_numpy(np.concatenate([learned, judged]))).to(device)
        index = torch.arange(len(rows), device=device)
        precision = resolve_precision(self.precision, device)
        if self.precision == "auto" and device.type == "cpu" and bfloat16_is_fast():
            precision = "bfloat16"
        settings = Settings(
            max_epochs=math.ceil(self.max_steps / math.ceil(PATCHES / BATCH)),
            batch_size=BATCH,
            learning_rate=self.learning_rate,
            max_time=self.max_time,
            device=device,
            precision=precision,
            verbose=self.verbose,
            valid_seed=seed,
        )
        with seeded(seed, device):
            module = ResidualUNet(self.channels_, self.width).to(device)
            self.history_ = train(
                module,  # type: ignore[arg-type]  # the objective is all that runs it
                Selection(rows, index[:PATCHES][: self.max_steps * BATCH]),
                Selection(rows, index[PATCHES:]),
                self._objective,
                settings,
                augment=turned,
            )
        self.module_ = module.cpu().eval()
        return self

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
        check_is_fitted(self, "module_")
        if not are_pictures(X):
            raise ValueError(
                "this Denoiser was fitted on images; expected a stack (n, height, width) or (n, channels, height, width), or a "
                f"list of images, got {type(X).__name__}. A single image is a list of one: [X]"
            )
        pictures = read_pictures(X)
        if len(pictures[0].planes) != self.channels_:
            raise ValueError(
                f"the images have {len(pictures[0].planes)} channel(s), expected {self.channels_} as seen in fit"
            )
        done = [self._restored(picture) for picture in pictures]
        if not isinstance(X, np.ndarray | torch.Tensor) or X.dtype == object:
            return [torch.from_numpy(image) for image in done] if isinstance(X[0], torch.Tensor) else done
        stack = np.stack(done)
        return torch.from_numpy(stack) if isinstance(X, torch.Tensor) else stack

    # images -------------------------------------------------------------------------------------------------------------------

    def _levels(self, dtype: Any) -> tuple[float, float]:
        """Return the range of levels: of normal and of counted noise as shares of the range of pixels."""
        share = self.noise == "salt_and_pepper"
        if self.level == "auto":
            return (0.0, 0.5 if share else 0.2)
        given = self.level if isinstance(self.level, tuple) else (self.level, self.level)
        if len(given) != 2 or not 0 <= given[0] <= given[1] or (share and given[1] >= 1):
            raise ParameterError(
                f"level={self.level!r}: expected a number of at least 0, or a range (low, high)"
                + (" of shares below 1" if share else "")
            )
        return given if share else (given[0] / self.range_, given[1] / self.range_)

    def _unit(self, planes: Array) -> Array:
        """Return pixels from 0 to 1."""
        return ((planes.astype(np.float32) - np.float32(self.low_)) / np.float32(self.range_)).astype(np.float32)

    def _noisy(self, x: Tensor) -> Tensor:
        low, high = self.level_
        level = low + (high - low) * torch.rand(len(x), 1, 1, 1, device=x.device)
        if self.noise == "salt_and_pepper":
            u = torch.rand(len(x), 1, *x.shape[2:], device=x.device)
            return torch.where(u < level, (u < level / 2).to(x.dtype), x)
        strength = level if self.noise == "gaussian" else level * x.clamp(min=0).sqrt()
        return x + strength * torch.randn_like(x)

    def _objective(self, module: nn.Module, batch: Batch, progress: float) -> Loss:
        x = batch.x
        if self.learn_from == "clean":
            off = (module(self._noisy(x)) - x).float().square()
        else:
            first, second = _pairs(x)
            one, other = _picked(x, first), _picked(x, second)
            guess = module(one)
            off = (guess - other).float().square()
            if module.training:  # neighbours differ by more than noise: as much as those of the restored whole
                with torch.no_grad():
                    whole = module(x)
                    gap = _picked(whole, first) - _picked(whole, second)
                off = off + progress * (guess - other - gap).float().square()
        total = off.flatten(1).sum(dim=1).mean() / (2 * SPREAD**2)
        return Loss(total, {"squared error": total.detach()})

    def _restored(self, picture: Picture) -> Array:
        planes = picture.planes
        device = resolve_device(self.device)
        module = self.module_.to(device)

        def restore(part: Array) -> Array:
            x = torch.from_numpy(self._unit(part))[None].to(device)
            with torch.inference_mode():
                return np.asarray(module(x).float().cpu()[0].numpy())

        out = np.empty(planes.shape, dtype=planes.dtype)
        whole = planes.dtype.kind in "bui"
        ends = np.iinfo(planes.dtype) if planes.dtype.kind in "ui" else None
        for top, left, tile in in_tiles(planes, restore, side=TILE, reach=REACH, multiple=STRIDE):
            value = tile * np.float32(self.range_) + np.float32(self.low_)
            if whole:
                value = np.clip(np.rint(value), *((ends.min, ends.max) if ends is not None else (0, 1)))
            out[:, top, left] = value
        self.module_.cpu()
        return picture.like(out)

    def save(self, path: str | Path) -> None:
        """Write the denoiser to a folder; see :func:`diabolo.load`."""
        from diabolo.persistence import save

        save(self, path)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if hasattr(self, "autoencoder_"):
            return {}, {}
        meta = {
            "channels": self.channels_,
            "low": self.low_,
            "range": self.range_,
            "level": list(self.level_),
            "history": self.history_.to_json(),
        }
        return meta, {f"module:{k}": v.cpu() for k, v in self.module_.state_dict().items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        if not meta:
            self._take_names()
            return
        self.channels_, self.low_, self.range_ = meta["channels"], meta["low"], meta["range"]
        self.level_, self.history_ = (meta["level"][0], meta["level"][1]), History.from_json(meta["history"])
        self.n_features_in_ = self.channels_
        self.module_ = ResidualUNet(self.channels_, self.width).eval()
        self.module_.load_state_dict(
            {k.removeprefix("module:"): v for k, v in tensors.items() if k.startswith("module:")}
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "autoencoder_") or hasattr(self, "module_")

    def _take_names(self) -> None:
        """Learn width and names of columns from the autoencoder."""
        self.n_features_in_ = self.autoencoder_.n_features_in_
        if hasattr(self.autoencoder_, "feature_names_in_"):
            self.feature_names_in_ = self.autoencoder_.feature_names_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


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
