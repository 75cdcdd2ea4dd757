"""What models of images share: a network that learns from patches and works on images of any size, in tiles."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from diabolo.checks import Ge, Gt
from diabolo.declare import spec
from diabolo.records import Batch, History, Loss, Schema, Table
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.pictures import (
    Picture,
    are_pictures,
    as_pixels,
    cut_patches,
    draw_places,
    in_unit,
    padded,
    pixel_range,
    turned,
    windows,
)
from diabolo.training.device import resolve_device, resolve_precision
from diabolo.training.loop import Settings, train
from diabolo.training.rows import Selection

__all__ = ["PictureModel", "groups", "handed_back", "in_nats", "stacked"]

Array = NDArray[Any]
PATCHES = 12_800  # to learn from at most
BATCH = 32
HELD_OUT = 256  # patches that the weights to keep are chosen by
TILE = 256
SPREAD = 0.01  # standard deviation of what is left of the noise, by which squared errors become nats: it scales the loss alone


def in_nats(squared: Tensor) -> Tensor:
    """Return the mean over patches of the sums of squared errors ``(B, ...)``, in nats."""
    return squared.float().flatten(1).sum(dim=1).mean() / (2 * SPREAD**2)


@spec
class PictureModel(Saved, OneToOneFeatureMixin, TransformerMixin, MetaEstimatorMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Learns from patches of images; hands tables and series to an estimator of rows."""

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

    # learning -----------------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Forget what an earlier fit learned."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _fit_rows(self, model: Any, X: Any) -> Any:
        """Fit a copy of an estimator of rows, and take over the names of columns."""
        model = clone(model)
        if self.random_state is not None:
            model.set_params(random_state=draw_seed(self.random_state))
        return self._named_by(model.fit(X))

    def _named_by(self, model: Any) -> Any:
        self.n_features_in_ = model.n_features_in_
        if hasattr(model, "feature_names_in_"):
            self.feature_names_in_ = model.feature_names_in_
        return model

    def _measure(self, pictures: list[Picture], known: list[Array] | None = None) -> None:
        """Learn the channels, and the range of pixels."""
        self.low_, self.range_ = pixel_range(pictures, known)
        self.channels_ = self.n_features_in_ = len(pictures[0].planes)

    def _learn(
        self,
        pictures: list[Picture],
        build: Callable[[], nn.Module],
        objective: Callable[[Any, Batch, float], Loss],
        *,
        side: int,
        known: list[Array] | None = None,
    ) -> Self:
        """Train a network on patches of at most so many pixels a side.

        Of ``known`` masks ``(1, height, width)``, pixels that are False count for nothing.
        """
        device, seed = resolve_device(self.device), draw_seed(self.random_state)
        rng = np.random.default_rng(seed)
        planes = [p.planes for p in pictures]
        side = min(side, max(-(-length // 8) * 8 for p in planes for length in p.shape[1:]))
        apart = len(planes) - max(1, len(planes) // 10)  # the weights to keep are chosen by images that are not learned
        n = min(PATCHES, self.max_steps * BATCH)
        places = draw_places(planes[: apart or 1], n, side, rng)
        places += [(apart + i, *at) for i, *at in draw_places(planes[apart:], HELD_OUT, side, rng)]  # type: ignore[misc]
        x = self._unit(cut_patches(planes, places, side))
        mask = None
        if known is not None:
            mask = torch.from_numpy(cut_patches(known, places, side))
            x = np.where(mask.numpy() > 0, x, np.float32(0))
        schema = Schema("image", (self.channels_, side, side), n, "unit", shared_unit=True)
        rows = Table(schema, torch.from_numpy(x), mask).to(device)
        index = torch.arange(len(rows), device=device)
        settings = Settings(
            max_epochs=math.ceil(self.max_steps / math.ceil(n / BATCH)),
            batch_size=BATCH,
            learning_rate=self.learning_rate,
            max_time=self.max_time,
            device=device,
            precision=resolve_precision(self.precision, device, half_on=("cpu",)),
            verbose=self.verbose,
            valid_seed=seed,
        )
        with seeded(seed, device):
            module = build().to(device)
            self.history_ = train(
                module,  # type: ignore[arg-type]  # the objective is all that runs it
                Selection(rows, index[:n]),
                Selection(rows, index[n:]),
                objective,
                settings,
                augment=turned,
            )
        self.module_ = module.cpu().half().float().eval()  # as a model folder holds it
        return self

    # images as numbers --------------------------------------------------------------------------------------------------------

    def _unit(self, planes: Array) -> Array:
        """Return pixels from 0 to 1."""
        return in_unit(planes, self.low_, self.range_)

    def _values(self, unit: Array, dtype: np.dtype[Any]) -> Array:
        """Return numbers from 0 to 1 as pixels, rounded and held in range for whole numbers."""
        return as_pixels(unit * np.float32(self.range_) + np.float32(self.low_), dtype)

    def _checked(self, X: Any) -> None:
        """Refuse what is no list or stack of images."""
        check_is_fitted(self, "module_")
        if not are_pictures(X):
            raise ValueError(
                f"this {type(self).__name__} was fitted on images; expected a stack (n, height, width) or (n, channels, height, "
                f"width), or a list of images, got {type(X).__name__}. A single image is a list of one: [X]"
            )

    def _same_channels(self, pictures: list[Picture]) -> list[Picture]:
        if len(pictures[0].planes) != self.channels_:
            raise ValueError(
                f"the images have {len(pictures[0].planes)} channel(s), expected {self.channels_} as seen in fit"
            )
        return pictures

    def _in_tiles(
        self, planes: Array, net: nn.Module, run: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[tuple[slice, slice], Array]]:
        """Run a network over images ``(n, channels, height, width)``, tile by tile, without seams.

        Yields
        ------
        (slice, slice), ndarray
            Rows and columns of a tile, and what comes of it ``(n, channels, rows, columns)``.
        """
        stride, reach = int(net.stride), int(net.reach)  # type: ignore[arg-type]  # a ResidualUNet
        device = resolve_device(self.device)
        net.to(device)
        for inner, outer in windows(planes.shape[2], planes.shape[3], TILE, reach):
            part = planes[:, :, *outer]
            x = torch.from_numpy(self._unit(padded(part, [-length % stride for length in part.shape[2:]]))).to(device)
            with torch.inference_mode():
                done = run(x).float().cpu().numpy()
            first, second = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            yield inner, done[:, :, first, second]
        net.cpu()

    # what is kept -------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _build(self) -> nn.Module:
        """Return the network as it is before training."""

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not hasattr(self, "module_"):
            return {}, {}
        meta = {
            "channels": self.channels_,
            "low": self.low_,
            "range": self.range_,
            "history": self.history_.to_json(),
        }
        return meta, {f"module:{k}": v.half() for k, v in self.module_.state_dict().items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        if not meta:
            self._named_by(next(v for k, v in vars(self).items() if k.endswith("_")))
            return
        self.channels_, self.low_, self.range_ = meta["channels"], meta["low"], meta["range"]
        self.history_ = History.from_json(meta["history"])
        self.n_features_in_ = self.channels_
        self.module_ = self._build().eval()
        self.module_.load_state_dict(
            {k.removeprefix("module:"): v.float() for k, v in tensors.items() if k.startswith("module:")}
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def handed_back(X: Any, done: list[Array]) -> Any:
    """Return images as they were given: a list or a stack, of arrays or of tensors."""
    if not isinstance(X, np.ndarray | torch.Tensor) or X.dtype == object:
        return [torch.from_numpy(image) for image in done] if isinstance(X[0], torch.Tensor) else done
    stack = np.stack(done)
    return torch.from_numpy(stack) if isinstance(X, torch.Tensor) else stack


def groups(pictures: list[Picture]) -> Iterator[list[Picture]]:
    """Put images of one size that follow each other together, as many as a tile has room for."""
    group: list[Picture] = []
    for picture in pictures:
        shape = picture.planes.shape
        if group and (shape != group[0].planes.shape or (len(group) + 1) * shape[1] * shape[2] > TILE**2):
            yield group
            group = []
        group.append(picture)
    yield group


def stacked(group: list[Picture]) -> Array:
    """Return images of one size as ``(n, channels, height, width)``."""
    return np.stack([p.planes for p in group]) if len(group) > 1 else group[0].planes[None]
