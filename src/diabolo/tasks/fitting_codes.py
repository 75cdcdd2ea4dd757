"""Fits the networks that compress."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diabolo.records import History, Schema, Table
from diabolo.tasks.autoregressive import nats
from diabolo.tasks.image_codes import ImageCoder, rate_distortion
from diabolo.tasks.image_transform import PATCH, ImageCodec
from diabolo.tasks.pictures import cut_patches, draw_places, in_unit, pixel_range, read_pictures, turned
from diabolo.tasks.row_codes import RowCoder
from diabolo.tasks.row_layouts import PixelLayout, learn_layout
from diabolo.training.loop import Settings, train
from diabolo.training.rows import Selection

__all__ = ["learn_images", "learn_rows"]

SIDE = 2 * PATCH  # pixels of a patch to learn from
HELD_OUT = 96  # patches that the weights to keep are chosen by
PATCHES, ROWS = 16, 256  # of a step
SAMPLED = 100_000  # symbols by which weights are rounded
JUDGED = 0.05  # share of rows that the weights to keep are chosen by


def learn_images(
    X: Any,
    patches: int,
    max_steps: int,
    settings: Callable[[int, int], Settings],
    rng: np.random.Generator,
) -> tuple[ImageCoder, History]:
    """Fit a transform of images.

    Parameters
    ----------
    X : list or stack of images
        To learn from.
    patches, max_steps : int
        Patches to cut from them, and steps to take.
    settings : callable
        Returns the settings for so many patches, so many a step.
    rng : numpy.random.Generator
        Chooses the patches.
    """
    pictures = read_pictures(X)
    low, spread = pixel_range(pictures)
    planes = [in_unit(p.planes, low, spread) - np.float32(0.5) for p in pictures]
    aside = planes[-max(1, len(planes) // 10) :]  # the weights to keep are chosen by images that are not learned
    taken = planes[: -len(aside)] or planes
    learned = cut_patches(taken, draw_places(taken, patches, SIDE, rng), SIDE)
    judged = cut_patches(aside, draw_places(aside, min(HELD_OUT, patches), SIDE, rng), SIDE)
    channels, told = len(planes[0]), settings(patches, PATCHES)
    schema = Schema("image", (channels, SIDE, SIDE), patches, "unit", shared_unit=True)
    rows = Table(schema, torch.from_numpy(np.concatenate([learned, judged]))).to(told.device)
    index = torch.arange(len(rows), device=told.device)
    module = ImageCodec(channels)
    module.start(torch.from_numpy(learned[:256]))
    module = module.to(told.device)
    history = train(
        module,  # type: ignore[arg-type]  # the objective is all that runs it
        Selection(rows, index[:patches][: max_steps * told.batch_size]),
        Selection(rows, index[patches:]),
        rate_distortion,
        told,
        augment=turned,
    )
    module = module.cpu().half().float()  # as a model folder holds it
    return ImageCoder(module, ImageCoder.learn_tables(module), low, spread), history


def learn_rows(
    X: Any, max_error: Any, width: int | None, settings: Callable[[int, int], Settings]
) -> tuple[RowCoder, History]:
    """Fit a network that tells the symbols of rows.

    Parameters
    ----------
    X : frame, ndarray or stack of images
        To learn from.
    max_error : float, dict or None
        How far numbers may be off.
    width : int or None
        Of the network; None is chosen.
    settings : callable
        Returns the settings for so many rows, so many a step.
    """
    layout = learn_layout(X, max_error)
    symbols = layout.symbols(layout.cut(X, 0, len(X))).symbols
    shape = layout.shape if isinstance(layout, PixelLayout) else (layout.width,)
    judged = int(len(symbols) * JUDGED)
    told = settings(len(symbols) - judged, ROWS)
    schema = Schema("vector", shape, len(symbols))
    x = torch.from_numpy(symbols.astype(np.uint8 if max(layout.sizes) <= 256 else np.int16)).view(-1, *shape)
    rows, order = Table(schema, x).to(told.device), torch.randperm(len(x)).to(told.device)
    module = RowCoder.network(layout, width or RowCoder.width_for(layout, symbols)).to(told.device)
    history = train(
        module,  # type: ignore[arg-type]  # the objective is all that runs it
        Selection(rows, order[judged:]),
        Selection(rows, order[:judged]),
        nats,
        told,
    )
    some = x[order[: SAMPLED // layout.width + 1].cpu()].long()

    def bits(network: Any) -> float:
        with torch.inference_mode():
            nats = network.nats(some, share=1.0) if isinstance(layout, PixelLayout) else network.nats(some)
        return float(nats.mean()) / math.log(2) * len(x)

    return RowCoder.of(module.cpu(), layout, bits), history
