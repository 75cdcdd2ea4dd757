"""The hyperparameters that every model shares, and what each ``"auto"`` among them becomes."""

from __future__ import annotations

import math
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator

from diabolo.checks import Ge, Gt, Le, Lt, ParameterError
from diabolo.declare import spec
from diabolo.parts.augmentation import Augmentation
from diabolo.parts.likelihoods import (
    CHOICES,
    COUNTS,
    LIKELIHOODS,
    Counts,
    LearnedGaussian,
    Likelihood,
    Mixed,
    Multinomial,
    Ratings,
)
from diabolo.parts.networks.attention import Attention
from diabolo.parts.networks.base import Network
from diabolo.parts.networks.conv import Conv, stage_channels
from diabolo.parts.networks.mlp import MLP
from diabolo.parts.networks.recurrent import Recurrent
from diabolo.records import Schema
from diabolo.training.device import resolve_precision
from diabolo.training.loop import WARMUP, Settings
from diabolo.training.ranks import join

__all__ = ["SharedParameters"]

AUTO_STEPS = 8000  # optimiser steps that max_epochs="auto" plans for
LIBRARY = 100  # columns of counts from which library_size="auto" takes a row's total as known
TURNED = 128  # rows or columns up to which optimizer="soap" turns a matrix: above, a step takes too long
PATIENT_SHARE = 0.1  # of max_epochs: what patience="auto" waits
PATIENT_STEPS = 100  # optimiser steps that patience="auto" waits for at least
CONVOLUTIONS = ("shortcut_conv", "conv")
RECURRENT = ("gru", "lstm")
FITS = {  # the kinds of rows that each network is for
    **dict.fromkeys(("auto", "shortcut_mlp", "mlp", "residual_mlp"), ("vector", "image", "series")),
    **dict.fromkeys((*CONVOLUTIONS, "attention"), ("image", "series")),
    **dict.fromkeys(RECURRENT, ("series",)),
}
SHAPES = {"image": "images (n, height, width) or (n, channels, height, width)", "series": "series (kind='series')"}


@spec
class SharedParameters:
    """Fields stored untouched by the constructor, read where a part or the loop is made."""

    latent_dim: Annotated[
        int | Literal["auto", "search"],
        Ge(1),
        "size of the code; 'auto' is twice the root of the number of features, at most half of them and at most 32; 'search' "
        "tries sizes in short runs on four fifths of the rows, and takes the smallest beyond which more numbers explain no more "
        "of the others than noise",
    ] = field(default="auto", kw_only=False)
    hidden: Annotated[
        tuple[int, ...] | Literal["auto"],
        Ge(1),
        "widths of the encoder's hidden layers, mirrored in the decoder; for convolutions the channels of its stages, each at "
        "half the length, or height and width, of the one before; for attention one width for all blocks; () is a single layer "
        "each way; 'auto' sizes layers from the data",
    ] = "auto"
    kind: Annotated[
        Literal["auto", "vector", "image", "series"],
        "what a row of X is; 'auto' takes arrays of two dimensions for rows of numbers, of three and four for images, and "
        "lists of arrays of unequal length for series; 'series' also takes arrays (n, steps) and (n, steps, channels)",
    ] = "auto"
    columns: Annotated[
        dict[str, str] | None,
        "kinds of columns of a frame by name, where they are not what their types say: 'number', 'count', 'boolean', "
        "'category', 'ordinal' or 'date', such as {'grade': 'ordinal', 'zip': 'category'}",
    ] = None
    activation: Annotated[
        Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus", "identity"],
        "non-linearity of the hidden layers; recurrent cells have their own",
    ] = "silu"
    dropout: Annotated[
        float, Ge(0), Lt(1), "fraction of hidden units dropped in training; for convolutions of whole channels"
    ] = 0.0
    norm: Annotated[
        Literal["batch", "layer"] | None,
        "normalisation in the hidden layers: of each unit over the batch, or of a row's units (for convolutions all channels "
        "and pixels of an image, for series the units of each step) together; attention always has the latter",
    ] = None
    network: Annotated[
        Literal["auto", "shortcut_mlp", "mlp", "residual_mlp", "shortcut_conv", "conv", "attention", "gru", "lstm"],
        "kind of network: full connections beside a linear map that starts at the principal components, plain full "
        "connections, or full connections with a skip around each layer; for images and series also convolutions, with and "
        "without a linear map beside them, and attention between patches; for series also recurrent cells, gated or with long "
        "short-term memory; 'auto' is 'shortcut_mlp'",
    ] = "auto"
    likelihood: Annotated[
        Literal[
            "auto",
            "gaussian",
            "learned_gaussian",
            "sigmoid_gaussian",
            "student_t",
            "laplace",
            "bernoulli",
            "poisson",
            "negative_binomial",
            "zero_inflated_poisson",
            "zero_inflated_negative_binomial",
            "multinomial",
            "ratings",
        ],
        "distribution of the data given the code: 'gaussian' is squared error (MSE), 'learned_gaussian' squared error with "
        "a learned scale, 'sigmoid_gaussian' squared error with outputs kept in [0, 1], 'student_t' heavy tails with a learned "
        "scale, so that outliers hardly pull, 'laplace' absolute error, "
        "'bernoulli' binary cross-entropy; of counts 'poisson', 'negative_binomial' with a learned dispersion of each feature, "
        "or one of them with a chance of nothing beside it; of what users choose 'multinomial', how a row's total is "
        "shared out, and 'ratings', squared error where a cell is not 0; 'auto' is 'bernoulli' for data of zeros and ones, else "
        "a Gaussian",
    ] = "auto"
    library_size: Annotated[
        Literal["auto", "observed"] | None,
        "of counts: with 'observed' the code says how a row's total is divided, and the total is taken as known (of single cells "
        "the sequencing depth); None lets the code say how large counts are; 'auto' is 'observed' for tables of 100 columns or "
        "more",
    ] = "auto"
    scale: Annotated[
        Literal["auto", "standard", "minmax", "quantile"] | None,
        "how features are scaled before training; 'auto' standardises columns of different units, divides pixels and other "
        "columns of one unit by one common width, and leaves zeros and ones alone",
    ] = "auto"
    augment: Annotated[
        tuple[Literal["flip", "shift", "rotate", "crop", "noise", "binarize"], ...],
        "random changes of each training image, in this order: 'flip' mirrors half of them left to right, 'shift' moves by up "
        "to an eighth of each side, 'rotate' turns by up to 15 degrees, 'crop' blows up a part with at least 0.8 of each side, "
        "'noise' adds normal noise of 0.05 of the range, 'binarize' (also for rows of numbers) takes values in [0, 1] as the "
        "chance of a one and draws it; images that are judged stay as they are",
    ] = ()
    init_from: Annotated[
        str | Path | BaseEstimator | None,
        "a fitted model of this kind, or the folder of one, whose weights training starts from; where the columns are the same "
        "the scale is that model's too, where some are new they start without influence; clone and all that is built on it need "
        "a folder, or sklearn.frozen.FrozenEstimator(model)",
    ] = None
    freeze: Annotated[Literal["encoder", "decoder"] | None, "half of the network that training leaves as it starts"] = (
        None
    )
    max_epochs: Annotated[
        int | Literal["auto"], Ge(1), "passes over the training rows at most; 'auto' plans by the number of rows"
    ] = "auto"
    max_time: Annotated[
        float | None,
        Gt(0),
        "seconds of training at most; what was learned in an epoch that it ends is judged like an epoch",
    ] = None
    pretrain: Annotated[
        Literal["layerwise"] | None,
        "what happens before training: with 'layerwise' each layer of a fully connected network first learns to rebuild the "
        "codes of the layers below; network='auto' is then 'mlp'",
    ] = None
    pretrain_epochs: Annotated[
        int | Literal["auto"],
        Ge(1),
        "passes over the training rows for each layer that is pre-trained; 'auto' is a fifth of max_epochs and at least 5",
    ] = "auto"
    batch_size: Annotated[int | Literal["auto"], Ge(1), "rows in a step; 'auto' grows with the number of rows"] = "auto"
    optimizer: Annotated[
        Literal["adamw", "soap"],
        "how steps are taken: 'adamw', or 'soap', which turns the gradients of weight matrices of up to 128 rows or columns to "
        "their principal axes first: fewer steps, each a little longer, for networks with a narrow layer",
    ] = "adamw"
    learning_rate: Annotated[float, Gt(0), "highest learning rate"] = 2e-3
    schedule: Annotated[
        Literal["cosine", "constant"], "course of the learning rate: a short rise and a cosine fall, or constant"
    ] = "cosine"
    weight_decay: Annotated[float, Ge(0), "decoupled L2 decay of the weights, per unit of learning rate"] = 1e-4
    weight_l1: Annotated[float, Ge(0), "weight of the sum of absolute weights in the loss, nats per row"] = 0.0
    gradient_clip: Annotated[float | None, Gt(0), "largest norm of the gradient"] = None
    validation_fraction: Annotated[
        float, Ge(0), Lt(1), "share of the rows held out to stop early and to keep the best weights; 0 is none"
    ] = 0.1
    patience: Annotated[
        int | Literal["auto"] | None,
        Ge(1),
        "epochs without a better validation loss before training goes back to the best weights, lets the learning rate fall to "
        "zero over some more epochs, and stops; 'auto' is a tenth of max_epochs, and at least 5 and 100 steps; None never stops "
        "early",
    ] = "auto"
    device: Annotated[str, "'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1' or 'mps'"] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        "number format of the products in training: 'bfloat16' is faster where the processor has it, 'float16' (CUDA only, with "
        "the loss scaled) on older GPUs; 'auto' is 'float32', and on a processor that multiplies bfloat16 at least twice as fast "
        "'bfloat16' for plain and Gaussian codes between full connections with a million weights or more",
    ] = "auto"
    random_state: Annotated[
        int | np.random.RandomState | None, "seed of split, weights, order and noise; None takes fresh entropy"
    ] = None
    verbose: Annotated[
        int,
        Ge(0),
        Le(2),
        "0 is silent, 1 shows a bar (plain lines where there is no terminal), 2 a line for each epoch",
    ] = 0
    callbacks: Annotated[
        tuple[Any, ...], "functions called with the run after each epoch, or Callback objects; True stops training"
    ] = ()
    checkpoint: Annotated[
        str | Path | None, "folder in which the run is saved after each epoch, and from which it goes on after a kill"
    ] = None

    if TYPE_CHECKING:  # set by fit
        latent_dim_: int = field(init=False)

    _auto_likelihood = "gaussian"  # not annotated, hence not parameters
    _mostly_zero = False  # whether rows are taken to hold mostly zeros
    _auto_shortcut = True  # whether network="auto" starts at principal components

    def _warmup(self) -> float:
        """Return the share of training over which the cost of the code rises to its full weight."""
        return 0.0

    def _patience_from(self) -> float:
        """Return the share of training before which epochs without a better validation loss are not counted."""
        return self._warmup()

    def _code_width(self, schema: Schema) -> int:
        if self.latent_dim == "search":
            return self.latent_dim_
        if self.latent_dim != "auto":
            return self.latent_dim
        size = len(schema.columns) if schema.mixed else schema.size
        return max(1, min(32, size // 2, round(2 * math.sqrt(size))))

    def _hidden(self, schema: Schema) -> tuple[int, ...]:
        if self.hidden != "auto":
            return tuple(self.hidden)
        if self.network in CONVOLUTIONS:
            return stage_channels(schema)
        if self.network in RECURRENT or self.network == "attention":
            return (64,) if self.network in RECURRENT else (64, 64)
        wide = min(512, max(64, 2 ** math.ceil(math.log2(2 * schema.size))))
        return (wide, wide)

    def _network(self, schema: Schema) -> Network:
        kinds = FITS[self.network]
        if schema.kind not in kinds:
            fitting = ", ".join(repr(name) for name in FITS if schema.kind in FITS[name] and name != "auto")
            raise ValueError(
                f"network={self.network!r} is for {' and for '.join(SHAPES[kind] for kind in kinds)}; X has rows of shape "
                f"{schema.shape}, {schema.kind} data. Use one of network={fitting}; or say what a row is with kind."
            )
        hidden = self._hidden(schema)
        if self.network in CONVOLUTIONS:
            shortcut = self.network == "shortcut_conv"
            return Conv(hidden, self.activation, self.dropout, self.norm, shortcut=shortcut)
        if self.network in RECURRENT:
            return Recurrent(self.network, hidden, self.dropout, self.norm)
        if self.network == "attention":
            return Attention(hidden, self.activation, self.dropout, self.norm)
        return MLP(
            hidden,
            self.activation,
            self.dropout,
            self.norm,
            residual=self.network == "residual_mlp",
            shortcut=self.network == "shortcut_mlp"
            or (self.network == "auto" and self.pretrain is None and self._auto_shortcut),
            mostly_zero=self._mostly_zero,
        )

    def _usual_likelihood(self, schema: Schema) -> str:
        """Return what ``likelihood="auto"`` is for these data."""
        return "bernoulli" if schema.values == "binary" else self._auto_likelihood

    def _likelihood(self, schema: Schema) -> Likelihood:
        name: str = self._usual_likelihood(schema) if self.likelihood == "auto" else self.likelihood
        kind = LIKELIHOODS[name]
        if name in CHOICES:
            if schema.mixed:
                raise ValueError(
                    f"likelihood={name!r} is for rows of nothing but amounts of one kind, such as users by items"
                )
            return Ratings(schema.shape) if name == "ratings" else Multinomial(schema.shape, self._known_total(schema))
        if schema.mixed:
            count = sum(c.kind in ("number", "date") for c in schema.columns)
            return Mixed(schema.columns, kind((count,)) if issubclass(kind, LearnedGaussian) else kind())
        if issubclass(kind, Counts):
            return kind(schema.shape, self._known_total(schema))
        if issubclass(kind, LearnedGaussian):
            each = schema.shape[:1] + (1,) * (len(schema.shape) - 1) if schema.kind == "series" else schema.shape
            return kind((1,) * len(schema.shape) if schema.shared_unit else each)
        return kind()

    def _known_total(self, schema: Schema) -> bool:
        if self.library_size == "auto":
            return schema.kind == "vector" and schema.size >= LIBRARY
        return self.library_size == "observed"

    def _augmentation(self, schema: Schema) -> Augmentation | None:
        if not self.augment:
            return None
        if "binarize" in self.augment and schema.values == "real":
            raise ParameterError(
                f"augment={tuple(self.augment)!r} draws zeros and ones by values in [0, 1], and X once scaled has others. Use "
                "likelihood='bernoulli', or scale='minmax'."
            )
        if schema.kind != "image" and set(self.augment) != {"binarize"}:
            raise ParameterError(
                f"augment={tuple(self.augment)!r} changes images, (n, height, width) or (n, channels, height, width); "
                f"X has rows of shape {schema.shape}. Use augment=(), or reshape X to images."
            )
        return Augmentation(tuple(self.augment))

    def _scale(self) -> str | None:
        if self.likelihood in COUNTS:
            if self.scale != "auto":
                raise ParameterError(
                    f"scale={self.scale!r}: counts, as likelihood={self.likelihood!r} takes them, have no scale; expected 'auto'"
                )
            return "log1p"
        if self.likelihood in CHOICES and self.scale not in ("auto", None):
            raise ParameterError(
                f"scale={self.scale!r}: amounts, as likelihood={self.likelihood!r} takes them, are not scaled; expected 'auto'"
            )
        if self.likelihood in CHOICES:
            return None
        bounded = self.likelihood in ("bernoulli", "sigmoid_gaussian")
        return "unit" if bounded and self.scale == "auto" else self.scale

    def _rate(self, size: int) -> float:
        """Return the highest learning rate for rows of ``size`` features."""
        return self.learning_rate

    def _epochs(self, steps: int, n: int) -> int:
        """Return how many epochs over ``n`` rows take so many steps at least."""
        return math.ceil(steps / math.ceil(n / self._settings(n, torch.device("cpu"), 1).batch_size))

    def _settings(self, n_train: int, device: torch.device, size: int) -> Settings:
        batch_size = min(256, max(32, 2 ** round(math.log2(max(1, n_train / 100)))))
        if self.batch_size != "auto":
            batch_size = self.batch_size
        max_epochs = min(500, max(10, math.ceil(AUTO_STEPS / math.ceil(n_train / batch_size))))
        if self.max_epochs != "auto":
            max_epochs = self.max_epochs
        patience = self.patience
        if patience == "auto":
            waiting = math.floor(PATIENT_SHARE * max_epochs)
            patience = max(5, waiting, math.ceil(PATIENT_STEPS / math.ceil(n_train / batch_size)))
        return Settings(
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=self._rate(size),
            widest=TURNED if self.optimizer == "soap" else 0,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            gradient_clip=self.gradient_clip,
            patience=patience,
            patience_from=max(self._patience_from(), 0.0 if self.schedule == "constant" else WARMUP),
            max_time=self.max_time,
            device=device,
            precision=resolve_precision(self.precision, device),
            verbose=self.verbose,
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
            ranks=join(device),
        )
