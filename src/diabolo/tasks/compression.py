"""Compression to files."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Gt, ParameterError, check_parameters
from diabolo.declare import register, spec
from diabolo.records import History
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.container import CompressedFileError, ContainerReader, ContainerWriter
from diabolo.tasks.fitting_codes import learn_images, learn_rows
from diabolo.tasks.image_codes import QUALITIES, ImageCoder
from diabolo.tasks.image_transform import ImageCodec
from diabolo.tasks.pictures import Picture, are_pictures, read_pictures
from diabolo.tasks.row_codes import RowCoder
from diabolo.tasks.symbols import MalformedError
from diabolo.training.device import resolve_device, resolve_precision
from diabolo.training.loop import Settings

__all__ = ["Compressor"]

Array = NDArray[Any]
STACK, LIST = 1, 2  # kinds of files: what images came as


@register
@spec
class Compressor(Saved, BaseEstimator):  # type: ignore[misc]
    r"""Compresses images to real files, with loss; and tables and small images to files without any.

    A convolutional transform is learned from patches of images; its rounded numbers are written by a range coder under normal
    distributions that a second, smaller code tells. One fitted model serves all rates. What decides about the bytes, and the
    transform back to pixels, is computed in numbers that every machine sums alike: a file decodes to the same pixels anywhere,
    with any number of threads.

    Tables, and with ``lossless`` stacks of small images, grey or in colour, come back as they were: a network tells each value
    from those before it in its row, and the range coder writes it under what was told. Values that ``fit`` did not see cost more,
    and less where they come again; they are kept.

    {parameters}

    Attributes
    ----------
    module_ : ImageCodec, ColumnNetwork, PixelNetwork or ColourNetwork
        The network.
    history_ : History
        Bits per pixel plus the weighted squared error over the epochs; without loss nats per row.
    channels_ : int
        Of an image that is compressed with loss.
    fingerprint_ : str
        Names the fitted model; files carry it.
    n_features_in_ : int
        Channels of images that are compressed with loss; without it numbers or cells of a row.

    References
    ----------
    Balle et al., Variational image compression with a scale hyperprior, 2018, arXiv:1802.01436.

    Larochelle and Murray, The neural autoregressive distribution estimator, 2011.

    Minnen, Balle and Toderici, Joint autoregressive and hierarchical priors, 2018, arXiv:1809.02736.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_sample_images
    >>> from diabolo import Compressor
    >>> photos = load_sample_images().images
    >>> compressor = Compressor(patches=64, max_steps=2, random_state=0).fit(photos)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "photos.dbl"
    ...     size = compressor.compress(photos, path, quality=30)
    ...     back = compressor.decompress(path)
    >>> [image.shape for image in back]
    [(427, 640, 3), (427, 640, 3)]

    A table comes back as it was:

    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 5, (500, 3))
    >>> rows = Compressor(max_steps=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = rows.compress(X, Path(folder) / "rows.dbl")
    ...     bool((rows.decompress(Path(folder) / "rows.dbl") == X).all())
    True
    """

    lossless: Annotated[
        bool, "whether stacks of small images of one size come back as they were, as tables always do"
    ] = False
    max_error: Annotated[
        Any,
        "how far floating-point numbers of tables may be off: a number, or a dict by column; None keeps every bit",
    ] = None
    width: Annotated[
        int | None,
        Ge(8),
        "of the network without loss; None is the width with which one file of the rows of fit and the model folder are small "
        "together. With 128 files of many more rows are a little smaller, and the folder several times as large",
    ] = None
    patches: Annotated[int, Ge(2), "of 128 x 128 pixels to learn from"] = 2048
    max_steps: Annotated[int, Ge(1), "steps of the optimiser"] = 3000
    batch_size: Annotated[int | None, Ge(2), "patches or rows of a step; None takes 16 patches, or 256 rows"] = None
    max_time: Annotated[float | None, Gt(0), "seconds after which training ends; what was learned is kept"] = None
    learning_rate: Annotated[
        float | None, Gt(0), "step size after warm-up; None takes 1e-3 of images with loss, 3e-3 of all else"
    ] = None
    device: Annotated[str, "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'; files are decoded on the CPU always"] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        "of the products in training; 'auto' is bfloat16 where the processor multiplies it much faster",
    ] = "auto"
    verbose: Annotated[int, "1 shows progress"] = 0
    random_state: Annotated[int | np.random.RandomState | None, "seed; None draws one"] = None

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what the data look like.

        Parameters
        ----------
        X : list or stack of images, frame, or ndarray of shape (n_rows, n_columns)
            Images are ``(n, height, width)``, ``(n, channels, height, width)``, ``(n, height, width, channels)``, or a list of
            any sizes; with ``lossless`` a stack ``(n, height, width)`` or ``(n, height, width, channels)`` of
            whole numbers. Frames of pandas, polars and pyarrow
            have columns of numbers, booleans, text, categories, dates, times and durations, with missing cells.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        ValueError
            For data that are none of these.
        """
        check_parameters(self)
        _check_max_error(self.max_error)
        device, seed = resolve_device(self.device), draw_seed(self.random_state)
        if self.lossless or not are_pictures(X):
            self.__dict__.pop("channels_", None)
            with seeded(seed, device):
                coder, self.history_ = learn_rows(
                    X, self.max_error, self.width, partial(self._settings, device, seed, 3e-3)
                )
            self._take(coder)
            return self
        if self.max_error is not None:
            raise ParameterError("max_error is for tables; images are compressed by quality or bits_per_pixel")
        with seeded(seed, device):
            images, self.history_ = learn_images(
                X,
                self.patches,
                self.max_steps,
                partial(self._settings, device, seed, 1e-3),
                np.random.default_rng(seed),
            )
        self.channels_ = images.module.channels
        self._take(images)
        return self

    def _settings(self, device: torch.device, seed: int, learning_rate: float, n: int, batch_size: int) -> Settings:
        """Return how to learn from ``n`` patches or rows."""
        batch_size = self.batch_size or batch_size
        return Settings(
            max_epochs=math.ceil(self.max_steps / math.ceil(n / batch_size)),
            batch_size=batch_size,
            learning_rate=self.learning_rate or learning_rate,
            gradient_clip=1.0,
            max_time=self.max_time,
            device=device,
            precision=resolve_precision(self.precision, device, half_on=("cuda", "cpu")),
            verbose=self.verbose,
            valid_seed=seed,
        )

    # files --------------------------------------------------------------------------------------------------------------------

    def compress(
        self, X: Any, path: str | Path, *, quality: int | None = None, bits_per_pixel: float | None = None
    ) -> int:
        """Write images or rows to a file.

        Parameters
        ----------
        X : list, stack or iterable of images; frame, array, or iterator of blocks of rows
            As in ``fit``. Images may have any sizes with loss, and are taken one at a time; one without an axis of channels may
            go to any model. Rows are taken block by block.
        path : str or Path
            The file; it is there when all is written, and what was there before is kept until then.
        quality : int, optional
            Of images with loss, from 0 to 100: how finely the code is rounded; 50 where nothing is said.
        bits_per_pixel : float, optional
            Instead: the best quality of each image that costs no more, or 0 where all cost more.

        Returns
        -------
        int
            Bytes of the file.

        Raises
        ------
        ValueError
            For images that are none, or have other channels than those of ``fit``; for rows of other columns.
        ImportError
            Without the entropy coder of the extra ``compress``.
        """
        coder = self._coder()
        if isinstance(coder, RowCoder):
            if quality is not None or bits_per_pixel is not None:
                raise ParameterError("quality and bits_per_pixel are for images with loss; this model loses nothing")
            return coder.write(X, Path(path), self.verbose)
        try:
            quality = operator.index(50 if quality is None else quality)
        except TypeError:
            raise ParameterError(f"quality={quality!r}: expected a whole number from 0 to 100") from None
        if not 0 <= quality < QUALITIES:
            raise ParameterError(f"quality={quality}: expected a whole number from 0 to 100")
        if bits_per_pixel is not None and not bits_per_pixel > 0:
            raise ParameterError(f"bits_per_pixel={bits_per_pixel!r}: expected a number above 0")

        def choose(rate: Callable[[int], float]) -> int:
            if bits_per_pixel is None:
                return quality
            low, high = 0, QUALITIES - 1
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if rate(middle) <= bits_per_pixel else (low, middle - 1)
            return low

        device = resolve_device(self.device)
        stacked = isinstance(X, np.ndarray | torch.Tensor) and X.dtype != object
        with ContainerWriter(Path(path), STACK if stacked else LIST, coder.fingerprint) as file:
            for picture in self._pictures(X):
                for piece in coder.pieces(picture, choose, device):
                    file.write(piece)
        return file.size

    def decompress(
        self, path: str | Path, *, items: int | slice | None = None, region: tuple[slice, slice] | None = None
    ) -> Any:
        """Read images or rows from a file.

        Parameters
        ----------
        path : str or Path
            What :meth:`compress` wrote, on this machine or another.
        items : int or slice, optional
            Which images or rows; other images, and chunks of 10,000 rows without any of them, are not decoded.
        region : (slice, slice), optional
            Rows and columns of the part of an image to decode, without its other tiles of 1024 x 1024 pixels but for those
            beside the part; ``items`` says of which image, and may be left out where there is one.

        Returns
        -------
        list, ndarray or frame
            Images are a stack where a stack was written, else a list; with a number for ``items`` one image. Rows are a frame of
            the library that they came from, or an array; with a number for ``items`` a frame of one row, or an array of one
            axis less.

        Raises
        ------
        CompressedFileError
            For a file that is damaged, foreign, or of another model.
        """
        coder = self._coder()
        with ContainerReader(Path(path)) as file:
            mine = coder.fingerprint
            if file.fingerprint != mine:
                raise CompressedFileError(
                    f"{path} was written by the model {file.fingerprint.hex()}, and this one is {mine.hex()}; load the model "
                    "that wrote it"
                )
            if isinstance(coder, RowCoder):
                if region is not None:
                    raise ValueError("region is for images; items says which rows")
                return coder.read(file, items)
            if file.kind not in (STACK, LIST):
                raise file.damaged("it holds no images")
            found = list(self._places(file, coder))
            if region is not None and not isinstance(items, int):
                if items is not None or len(found) != 1:
                    raise ValueError(f"region is of one image, and {path} holds {len(found)}; name it: items=0")
                items = 0
            if isinstance(items, int):
                try:
                    place = found[items]
                except IndexError:
                    raise IndexError(f"{path} holds {len(found)} image(s); there is no image {items}") from None
                return self._decoded(file, coder, place, region)
            images = [self._decoded(file, coder, place) for place in found[slice(None) if items is None else items]]
        return np.stack(images) if file.kind == STACK and images else images

    def _pictures(self, X: Any) -> Iterator[Picture]:
        """Read images one at a time."""
        if not isinstance(X, Iterable) or isinstance(X, str | bytes | dict):
            raise ValueError(f"expected images: a stack of three or four axes, or a list; got {type(X).__name__}")
        for i, item in enumerate(X):
            (picture,) = read_pictures([item], i, self.channels_)
            if picture.pixels.ndim > 2 and len(picture.planes) != self.channels_:
                raise ValueError(
                    f"image {i} has {len(picture.planes)} channel(s), expected {self.channels_} as seen in fit"
                )
            yield picture

    def _places(self, file: ContainerReader, coder: ImageCoder) -> Iterator[tuple[int, int]]:
        """Return for each image its first piece, and how many it has."""
        number = 0
        while number < len(file.pieces):
            try:
                tall, wide = coder.heading(file.read(number))[0].tiles
            except MalformedError as error:
                raise file.damaged(str(error)) from None
            if number + tall * wide > len(file.pieces):
                raise file.damaged("pieces of an image are missing")
            yield number, tall * wide
            number += tall * wide

    def _decoded(
        self,
        file: ContainerReader,
        coder: ImageCoder,
        place: tuple[int, int],
        region: tuple[slice, slice] | None = None,
    ) -> Array:
        number, _ = place
        heading, first = coder.heading(file.read(number))
        part = None if region is None else _within(region, (heading.height, heading.width))
        try:
            return coder.picture(heading, lambda i: first if i == 0 else file.read(number + i), part)
        except MalformedError as error:
            raise file.damaged(str(error)) from None

    # state --------------------------------------------------------------------------------------------------------------------

    def _coder(self) -> ImageCoder | RowCoder:
        check_is_fitted(self, "module_")
        coder: ImageCoder | RowCoder = self._own_coder
        return coder

    def _take(self, coder: ImageCoder | RowCoder) -> None:
        self._own_coder, self.module_ = coder, coder.module
        self.fingerprint_ = coder.fingerprint.hex()
        self.n_features_in_ = coder.layout.width if isinstance(coder, RowCoder) else coder.module.channels

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        coder = self._coder()
        if isinstance(coder, RowCoder):
            meta, tensors = coder.state()
            return {"rows": meta, "history": self.history_.to_json()}, tensors
        meta = {
            "channels": self.channels_,
            "low": coder.low,
            "spread": coder.spread,
            "history": self.history_.to_json(),
        }
        tensors = {f"module:{k}": v.half() for k, v in coder.module.state_dict().items()}
        return meta, tensors | {f"table:{k}": v for k, v in coder.tables.items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.history_ = History.from_json(meta["history"])
        if "rows" in meta:
            self._take(RowCoder.from_state(meta["rows"], tensors))
            return
        self.channels_ = meta["channels"]
        module = ImageCodec(self.channels_)
        module.load_state_dict(
            {k.removeprefix("module:"): v.float() for k, v in tensors.items() if k.startswith("module:")}
        )
        tables = {k.removeprefix("table:"): v for k, v in tensors.items() if k.startswith("table:")}
        self._take(ImageCoder(module, tables, meta["low"], meta["spread"]))


def _within(region: tuple[slice, slice], sides: tuple[int, int]) -> tuple[slice, slice]:
    """Return rows and columns of a part of an image from a first to a last."""
    found = [range(side)[part] for part, side in zip(region, sides, strict=True)]
    if any(not part or part.step != 1 for part in found):
        raise ValueError(
            f"region={region!r} of an image of {sides[0]} x {sides[1]} pixels; expected slices of its rows and columns that "
            "hold some, without a step"
        )
    rows, columns = (slice(part.start, part.stop) for part in found)
    return rows, columns


def _check_max_error(max_error: Any) -> None:
    values = max_error.values() if isinstance(max_error, Mapping) else [] if max_error is None else [max_error]
    wrong = [v for v in values if isinstance(v, bool) or not isinstance(v, int | float) or not 0 < v < math.inf]
    if wrong:
        raise ParameterError(f"max_error={max_error!r}: expected a number above 0, or a dict of them by column")
