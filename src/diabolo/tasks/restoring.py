"""Restoring: what covers parts of images is found and filled; so are missing cells of tables and series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from diabolo.checks import Ge, ParameterError, check_parameters
from diabolo.declare import register, spec
from diabolo.parts.degradations import MARKS, cover, resolve_levels
from diabolo.parts.networks.dilated import DilatedCNN
from diabolo.parts.networks.unet import ResidualUNet
from diabolo.records import Batch, Loss
from diabolo.tasks.imputation import Imputer
from diabolo.tasks.membrane import halved, membrane
from diabolo.tasks.picture_models import TILE, PictureModel, groups, handed_back, in_nats, stacked
from diabolo.tasks.pictures import Picture, are_pictures, padded, read_pictures, windows
from diabolo.training.device import resolve_device

__all__ = ["Restorer"]

Array = NDArray[Any]
Mark = Literal["pixels", "blocks", "scratches", "dust"]
Share = float | tuple[float, ...]
SIDE, DEPTH = 64, 2  # of the patches to learn from, and how often the network halves what it sees, after the first time
HALVINGS = 3  # from an image to the one that is filled as a whole, which the tiles share
MARGIN = 2**HALVINGS  # what the first guess at the border of a tile can differ by from that of the whole
SURE, LIKELY = 2.0, -1.5  # log-odds of damage: of where it surely is, and of what belongs to it where they touch
BAND = 512  # rows that are halved at a time


class Restoration(nn.Module):
    """Two networks: one fills holes, the other finds them."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.filler = ResidualUNet(channels, width, depth=DEPTH, hints=1)
        self.finder = DilatedCNN(channels, 1, max(4, width // 2))

    def fill(self, x: Tensor, seen: Tensor) -> Tensor:
        """Improve a first guess ``(B, channels, H, W)`` of what holes hide; ``seen`` ``(B, 1, H, W)`` is 0 there."""
        filled: Tensor = self.filler(x, seen)
        return filled

    def find(self, x: Tensor) -> Tensor:
        """Return the logits of being covered ``(B, 1, H, W)``."""
        logits: Tensor = self.finder(x)
        return logits


@spec
class RowsByImputer:
    """The parameter that comes first."""

    imputer: Annotated[
        Imputer | None,
        "the model of tables and series; None is an Imputer",
    ] = field(default=None, kw_only=False)


@register
@spec
class Restorer(PictureModel, RowsByImputer):
    r"""Fills what is missing in images of any size, and in tables and series.

    For images a convolutional network learns from patches, of which it hides parts by itself: single pixels, blocks, scratches
    and dust. A smooth surface through the pixels around a hole is a first guess :math:`g`; what to add to it is learned,

    .. math:: L = \tfrac12 \sum_{\text{hidden}} \big(f(g) - x\big)^2 / s^2

    Holes are what a mask says; without one, pixels that are NaN or have the value ``missing_values``; and where there is no NaN
    and no such value, what a second network takes for damage: it learns beside the first to tell pixels, blocks, scratches and
    dust, black, white or coloured, from the image below. All other pixels come back as they are, to the bit.

    Images may be of any size, grey or colour: they are filled in tiles without seams, in memory for one tile, and come back as
    they are given. Those to learn from may have holes themselves; what they hide is not learned.

    Missing cells of tables and series are filled by an :class:`Imputer`.

    {parameters}

    Attributes
    ----------
    imputer_ : Imputer
        Of tables and series: the fitted model.
    module_ : nn.Module
        Of images: the two networks.
    history_ : History
        Of images: the loss over the epochs, in nats per patch.
    low_, range_ : float
        Of images: the lowest pixel value, and the range of values, that become 0 and 1.

    References
    ----------
    Pathak et al., Context encoders: feature learning by inpainting, 2016, arXiv:1604.07379.

    Liu et al., Image inpainting for irregular holes using partial convolutions, 2018, arXiv:1804.07723.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from diabolo import Restorer
    >>> images = load_digits().images
    >>> restorer = Restorer(max_steps=20, random_state=0).fit(images[:500])
    >>> holes = np.zeros((8, 8), dtype=bool)
    >>> holes[3:5, 2:6] = True
    >>> (filled,) = restorer.transform(images[500:501], mask=[holes])
    >>> bool((filled[~holes] == images[500][~holes]).all())
    True
    """

    width: Annotated[int, Ge(4), "channels of the network at half the size of an image"] = 32
    holes: Annotated[
        Mark | tuple[Mark, ...],
        "what is hidden from the network in training; each patch has holes of one kind",
    ] = ("pixels", "blocks", "scratches", "dust")
    share: Annotated[
        Share | dict[str, Share] | Literal["auto"],
        "which share of a patch; a pair is a range, of which each patch draws its own; of several kinds by name, "
        "{'blocks': (0.0, 0.3)}; 'auto' is up to 0.8 for pixels, 0.25 for blocks, 0.2 for scratches and 0.1 for dust",
    ] = "auto"
    missing_values: Annotated[
        float | None,
        "the value that pixels of a hole have in all channels, besides NaN; None where there is none",
    ] = None

    def fit(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Learn what images, or rows, look like.

        Parameters
        ----------
        X : list or stack of images, or array, frame or list of series
            ``(n, height, width)``, ``(n, channels, height, width)``, ``(n, height, width, channels)``, or a list of images of
            any sizes; 8 or 16 bits, or floating point, where NaN is a hole. All else is for the imputer.
        y : None
            Ignored.
        mask : list or stack of arrays of shape (height, width), optional
            Other than 0 where a pixel of an image is not to be learned.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        self._start()
        if self.imputer is not None or not are_pictures(X):
            self.imputer_ = self._fit_rows(self.imputer or Imputer(), _no_mask(X, mask))
            return self
        try:
            shares = resolve_levels((self.holes,) if isinstance(self.holes, str) else self.holes, self.share, MARKS)
        except ValueError as error:
            raise ParameterError(f"share={error}") from None
        pictures = read_pictures(X, holes=True)
        holes = [_with_nan(p.planes, m) for p, m in zip(pictures, self._marked(pictures, mask), strict=True)]
        _refuse_empty(holes)
        known = [~hole[None] for hole in holes]
        self._measure(pictures, known)
        some = any(hole.any() for hole in holes)
        return self._learn(pictures, self._build, _objective(shares), side=SIDE, known=known if some else None)

    def transform(self, X: Any, *, mask: Any = None) -> Any:
        """Return images, or rows, without holes.

        Parameters
        ----------
        X : list or stack of images, or array, frame or list of series
            As in ``fit``; images of any size.
        mask : list or stack of arrays of shape (height, width), optional
            For images: other than 0 where a pixel is to be filled, one array for each of them. Without it, holes are pixels that
            are NaN or have the value ``missing_values``; if there is no such value and no NaN in ``X``, what :meth:`find_damage`
            says.

        Returns
        -------
        list, array, frame or tensor
            As given. Pixels that are not in holes are the same, to the bit.
        """
        if hasattr(self, "imputer_"):
            return self.imputer_.transform(_no_mask(X, mask))
        self._checked(X)
        pictures = self._same_channels(read_pictures(X, holes=True))
        marked = self._marked(pictures, mask)
        told = mask is not None or self.missing_values is not None
        if not told and not any(_with_nan(p.planes, m).any() for p, m in zip(pictures, marked, strict=True)):
            marked = self._found(pictures)
        _refuse_empty([_with_nan(p.planes, m) for p, m in zip(pictures, marked, strict=True)])
        done: list[Array] = []
        for group in groups(pictures):
            done += self._filled(group, np.stack(marked[len(done) : len(done) + len(group)]))
        return handed_back(X, done)

    def find_damage(self, X: Any) -> Any:
        """Say which pixels seem to be covered by scratches, dust, or blocks and pixels of one colour.

        Parameters
        ----------
        X : list or stack of images
            As in ``fit``, without NaN.

        Returns
        -------
        list or stack of bool arrays of shape (height, width)
            True where a pixel seems to be covered, and for its neighbours; fit for ``mask`` of :meth:`transform`.
        """
        self._checked(X)
        found = self._found(self._same_channels(read_pictures(X)))
        return handed_back(X, found)

    # holes --------------------------------------------------------------------------------------------------------------------

    def _marked(self, pictures: list[Picture], mask: Any) -> list[Array]:
        """Return which pixels ``(height, width)`` are in a hole, but for those that are NaN."""
        if mask is not None:
            return _read_masks(pictures, mask)
        if self.missing_values is None:
            return [np.zeros(p.planes.shape[1:], dtype=bool) for p in pictures]
        return [np.asarray((p.planes == self.missing_values).all(axis=0)) for p in pictures]

    def _found(self, pictures: list[Picture]) -> list[Array]:
        module: Any = self.module_

        found: list[Array] = []
        around = np.ones((3, 3), dtype=bool)
        for group in groups(pictures):
            planes = stacked(group)
            sure, likely = (np.empty((len(group), *planes.shape[2:]), dtype=bool) for _ in range(2))
            for at, tile in self._in_tiles(planes, module.finder, module.find):
                sure[:, *at], likely[:, *at] = tile[:, 0] > SURE, tile[:, 0] > LIKELY
            for seeds, mask in zip(sure, likely, strict=True):
                whole = ndimage.binary_propagation(seeds, structure=around, mask=mask)
                # damage has soft edges: its neighbours count as well
                found.append(np.asarray(ndimage.binary_dilation(whole, around)))
        return found

    def _filled(self, group: list[Picture], marked: Array) -> list[Array]:
        """Fill the holes of images of one size; ``marked`` ``(n, height, width)`` says where, besides NaN."""
        planes = stacked(group)
        holes = np.stack([_with_nan(p, m) for p, m in zip(planes, marked, strict=True)])
        if not holes.any():
            return [np.array(picture.pixels) for picture in group]
        coarse = self._coarse(planes, holes)
        device, multiple = resolve_device(self.device), 2**HALVINGS
        module: Any = self.module_.to(device)
        out = np.array(planes)
        for inner, outer in windows(planes.shape[2], planes.shape[3], TILE, module.filler.reach + MARGIN):
            if not holes[:, *inner].any():
                continue
            pads = [-(at.stop - at.start) % multiple for at in outer]
            x, seen = self._given(padded(planes[:, :, *outer], pads), padded(holes[:, *outer], pads))
            part = coarse[:, :, *(slice(at.start // multiple, -(-at.stop // multiple)) for at in outer)]
            with torch.inference_mode():
                guess = membrane(x.to(device), seen.to(device), coarse=part.to(device), levels=HALVINGS)
                done = module.fill(guess, seen.to(device)).float().cpu().numpy()
            first, second = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            values = self._values(done[:, :, first, second], planes.dtype)
            old = planes[:, :, *inner]
            new = marked[:, None, *inner] | (np.isnan(old) if old.dtype.kind == "f" else False)
            out[:, :, *inner] = np.where(new, values, old)
        self.module_.cpu()
        return [picture.like(image) for picture, image in zip(group, out, strict=True)]

    def _coarse(self, planes: Array, holes: Array) -> Tensor:
        """Return images without holes at an eighth of the size, ``(n, channels, ceil(H / 8), ceil(W / 8))``."""
        bands = []
        for top in range(0, planes.shape[2], BAND):
            x, seen = self._given(planes[:, :, top : top + BAND], holes[:, top : top + BAND])
            for _ in range(HALVINGS):
                x, seen = halved(x, seen)
            bands.append((x, seen))
        return membrane(torch.cat([x for x, _ in bands], dim=2), torch.cat([seen for _, seen in bands], dim=2))

    def _given(self, planes: Array, holes: Array) -> tuple[Tensor, Tensor]:
        """Return pixels from 0 to 1, 0 in holes, and where there is none ``(n, 1, height, width)``."""
        x = np.where(holes[:, None], np.float32(0), self._unit(planes))
        return torch.from_numpy(x), torch.from_numpy(~holes[:, None]).float()

    def _build(self) -> nn.Module:
        return Restoration(self.channels_, self.width)


def _objective(shares: dict[str, tuple[float, float]]) -> Callable[[Restoration, Batch, float], Loss]:
    """Return the loss of hidden pixels, and of not finding what hides them."""

    def objective(module: Restoration, batch: Batch, progress: float) -> Loss:
        x, known = batch.x, torch.ones_like(batch.x[:, :1]) if batch.mask is None else batch.mask
        if batch.mask is not None:
            x = membrane(x, known)
        damaged, covered = cover(x, shares)
        hidden = (covered > 0).to(x.dtype)
        seen = known * (1 - hidden)
        filled = in_nats((module.fill(membrane(x, seen), seen) - x).float().square() * hidden * known)
        odds = F.binary_cross_entropy_with_logits(module.find(damaged).float(), hidden, reduction="none")
        found = (odds * known).flatten(1).sum(dim=1).mean()
        return Loss(filled + found, {"squared error": filled.detach(), "damage": found.detach()})

    return objective


def _with_nan(planes: Array, marked: Array) -> Array:
    """Return which pixels ``(height, width)`` are marked, or NaN in any channel."""
    return marked | np.isnan(planes).any(axis=0) if planes.dtype.kind == "f" else marked


def _read_masks(pictures: list[Picture], mask: Any) -> list[Array]:
    masks = [np.asarray(m.detach().cpu() if isinstance(m, torch.Tensor) else m) for m in mask]
    if len(masks) != len(pictures):
        raise ValueError(f"expected a mask for each of {len(pictures)} image(s), got {len(masks)}")
    found = []
    for i, (m, picture) in enumerate(zip(masks, pictures, strict=True)):
        size = picture.planes.shape[1:]
        if (
            m.dtype.kind not in "buif"
            or m.size != size[0] * size[1]
            or tuple(s for s in m.shape if s > 1) != tuple(s for s in size if s > 1)
        ):
            raise ValueError(f"mask {i} has shape {m.shape} and type {m.dtype}; expected {size}, other than 0 in holes")
        found.append(m.reshape(size) != 0)
    return found


def _refuse_empty(holes: list[Array]) -> None:
    for i, hole in enumerate(holes):
        if hole.all():
            raise ValueError(f"image {i} has no pixel that is known; leave it out")


def _no_mask(X: Any, mask: Any) -> Any:
    if mask is not None:
        raise ValueError("a mask is for images; missing cells of tables and series are NaN, or None in frames")
    return X
