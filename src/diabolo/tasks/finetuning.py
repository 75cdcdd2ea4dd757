"""How a classifier or a regressor is made of an autoencoder: pre-training on all rows, fine-tuning on those with a label."""

from __future__ import annotations

import copy
import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from diabolo.checks import Ge, Gt, Le, Lt, check_parameters
from diabolo.data.raw import Raw
from diabolo.data.stream import Stream
from diabolo.declare import spec
from diabolo.estimator import BaseAutoencoder
from diabolo.module import AutoencoderModule
from diabolo.records import Batch, History, Loss
from diabolo.saving import Saved
from diabolo.seeding import draw_seed, seeded
from diabolo.tasks.classes import ClassBound
from diabolo.tasks.heads import BESIDE, STEPS, Beside, Head, Told, features_of
from diabolo.tasks.linear import Choice, Linear, choose, fit_linear, folds_of
from diabolo.training.device import resolve_device
from diabolo.training.loop import Settings, train
from diabolo.training.progress import Progress
from diabolo.zoo.vanilla import Autoencoder, DenoisingAutoencoder
from diabolo.zoo.variational import VAE

__all__ = ["Supervised", "usual_model"]

Array = NDArray[Any]
TURNS: tuple[Literal["shift", "rotate", "crop"], ...] = ("shift", "rotate", "crop")
JOINT = {"joint": 0.1, "m2": 1.0}  # weight of the autoencoder's loss: per feature, and per row
PRETRAINING = 1500  # steps of the optimiser, for a model that nobody named
BATCH = 256
KNOT_ROWS = 20_000  # rows that say where the range of a number is cut
JUDGES = 50  # held-out rows with a label from which on they can judge a network
FEWEST, MOST, PASSES = 1500, 15_000, 20  # steps of fine-tuning, and passes over labelled rows that are aimed at


class Held(NamedTuple):
    """What is predicted of rows that had no part in it."""

    linear: NDArray[np.float64]  # (n, outputs)
    networks: NDArray[np.float64]  # (n, outputs)
    targets: Array  # (n,)


@spec
class Supervised(Saved, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """What the classifier and the regressor share."""

    autoencoder: Annotated[
        BaseAutoencoder | None,
        "the model that learns from all rows first; None is a DenoisingAutoencoder for tables, an Autoencoder of shifted, turned "
        "and cropped images for images, and Autoencoder() for series; under method='m2' a VAE",
    ] = field(default=None, kw_only=False)
    method: Annotated[
        Literal["frozen", "finetune", "joint"],
        "what labels change: with 'frozen' linear outputs on the code alone, with 'finetune' the encoder too, with 'joint' the "
        "encoder and the decoder, which goes on rebuilding rows",
    ] = "finetune"
    joint_weight: Annotated[
        float | Literal["auto"],
        Ge(0),
        "weight of the autoencoder's own loss: under method='joint' per feature of a row, 'auto' is 0.1; under 'm2' per row, "
        "'auto' is 1",
    ] = "auto"
    layer_decay: Annotated[
        float,
        Gt(0),
        Le(1),
        "layer-wise learning rates: each layer of the encoder moves by this share of the rate of the layer above it",
    ] = 1.0
    dropout: Annotated[float, Ge(0), Lt(1), "fraction of what the outputs see that is dropped in fine-tuning"] = 0.1
    n_models: Annotated[
        int | Literal["auto"],
        Ge(1),
        "networks that are fine-tuned and averaged, each without another fold of the labelled rows, by which it is calibrated, "
        "and where they are 50 or more, stopped; a single one holds out a tenth of 500 labels or more; 'auto' is 5 for tables "
        "and 1 for images and series",
    ] = "auto"
    max_steps: Annotated[
        int | Literal["auto"],
        Ge(1),
        "steps of fine-tuning at most; 'auto' is 20 passes over the labelled rows, within 1500 and 15000 steps",
    ] = "auto"
    max_time: Annotated[
        float | None, Gt(0), "seconds of training at most, half of them for the model that learns from all rows"
    ] = None
    learning_rate: Annotated[float, Gt(0), "highest learning rate of fine-tuning"] = 2e-3
    random_state: Annotated[
        int | np.random.RandomState | None, "seed of the models, the folds and the order; None takes fresh entropy"
    ] = None
    verbose: Annotated[int, Ge(0), Le(2), "1 shows a bar while fine-tuning, 2 a line for each 50 steps"] = 0

    if TYPE_CHECKING:  # set by fit; an annotation that exists would make a parameter of them
        autoencoder_: BaseAutoencoder = field(init=False)
        heads_: nn.ModuleList = field(init=False)
        share_: float = field(init=False)

    def _fit(self, X: Any, y: Any) -> Self:
        check_parameters(self)
        if isinstance(X, Stream):
            raise TypeError(f"{type(self).__name__} takes rows in memory, not a Stream")
        given = Autoencoder() if self.autoencoder is None else self.autoencoder
        model = clone(given)
        check_parameters(model)
        if get_tags(model).target_tags.required or getattr(model, "condition", None):
            raise ValueError(
                f"{type(self).__name__} learns y from X alone, and {type(model).__name__} is told a condition. Use another model."
            )
        self._check_model(model)
        raw = model._read(X, reset=True)
        targets, labelled = self._learn_targets(y, len(raw.values))
        if self.autoencoder is None:
            model = usual_model(raw, variational=self._sums_out())
        seed = draw_seed(self.random_state)
        rng = np.random.default_rng(seed)
        if self.random_state is not None or self.autoencoder is None:
            model.set_params(random_state=int(rng.integers(2**31)))
        began = time.monotonic()
        if self.max_time is not None:
            model.set_params(max_time=min(self.max_time / 2, model.max_time or math.inf))
        model._read(X, reset=True)
        self.autoencoder_ = model._fit(raw)
        self.beside_ = self._beside(raw, rng)
        seen, known = self._seen(raw.take(labelled)), targets[labelled]
        folds = folds_of(known, rng, classes=self._outputs() > 1)
        choice = choose(seen, known, self._outputs(), folds)
        self.linear_ = fit_linear(seen, known, self._outputs(), choice.strength)
        self.histories_: list[History] = []
        self.heads_, self.spreading_ = nn.ModuleList(), False
        if self.method == "frozen" or model.history_.stop_reason == "interrupted":
            self._mix(None)
            return self
        guess_from = self._guesses(raw, targets, labelled, choice, folds, rng)
        held: list[Held] = []
        parts = self._parts(known, rng, raw.kind)
        for i, (learn, judge) in enumerate(parts):
            Progress(1, self.verbose).say(
                f"fine-tuning network {i + 1} of {len(parts)} on {len(learn)} rows with a label"
            )
            linear = fit_linear(seen[learn], known[learn], self._outputs(), choice.strength)
            seconds = None
            if self.max_time is not None:
                seconds = max(0.1, (began + self.max_time - time.monotonic()) / (len(parts) - i))
            guess, trust = guess_from(learn)
            head = self._fine_tune(raw, linear, guess, trust, labelled[learn], labelled[judge], seed + i, seconds)
            self.heads_.append(head.cpu())
            if len(judge):
                held.append(Held(linear(seen[judge]), self._run(head, raw.take(labelled[judge])), known[judge]))
            if self.histories_[-1].stop_reason == "interrupted":
                break
        self._mix(Held(*(np.concatenate(part) for part in zip(*held, strict=True))) if held else None)
        return self

    # what a classifier and a regressor do in their own way -------------------------------------------------------------------

    @abstractmethod
    def _outputs(self) -> int:
        """Return the number of outputs."""

    @abstractmethod
    def _learn_targets(self, y: Any, n: int) -> tuple[Array, Array]:
        """Return a target for each row, and the positions of rows that have one."""

    @abstractmethod
    def _guesses(
        self,
        raw: Raw,
        targets: Array,
        labelled: Array,
        choice: Choice,
        folds: list[tuple[Array, Array]],
        rng: np.random.Generator,
    ) -> Callable[[Array], tuple[Tensor, Tensor]]:
        """Return a function from the labelled rows that are known, by position, to targets and trust.

        Targets ``(n, outputs)`` are those of all rows, trust ``(n,)`` says how sure they are where there is no label, 0 to 1.
        """

    def _check_model(self, model: BaseAutoencoder) -> None:
        """Refuse a model that the method cannot fine-tune."""

    def _sums_out(self) -> bool:
        """Tell whether rows without a label are learned from by the sum over what theirs may be."""
        return False

    def _bound(self) -> ClassBound | None:
        """Return what explains rows by their class."""
        return None

    @abstractmethod
    def _mix(self, held: Held | None) -> None:
        """Learn from rows that had no part in what predicts them how linear model and networks are mixed."""

    def _beside(self, raw: Raw, rng: np.random.Generator) -> Beside | None:
        """Learn what outputs see beside the code, from some of the rows; nothing of images, series and wide tables."""
        size = self.autoencoder_.schema_.size
        if raw.kind != "vector" or size > BESIDE:
            return None
        some = raw.take(np.sort(rng.permutation(len(raw.values))[:KNOT_ROWS]))
        return Beside.learn(self.autoencoder_._apply(some, lambda _, batch: batch.x.flatten(1).float()))

    # fine-tuning --------------------------------------------------------------------------------------------------------------

    def _parts(self, known: Array, rng: np.random.Generator, kind: str) -> list[tuple[Array, Array]]:
        """Return for each network the labelled rows that it learns from, and those that it is judged by."""
        n_models = (5 if kind == "vector" else 1) if self.n_models == "auto" else self.n_models
        n, classes = len(known), self._outputs() > 1
        least = int(np.bincount(known).min()) if classes else n // 2
        every, none = np.arange(n), np.arange(0)
        seed = int(rng.integers(2**31))
        if n_models == 1:
            if n < 10 * JUDGES or least < 2:  # too few to tell
                return [(every, none)]
            cutter = (StratifiedShuffleSplit if classes else ShuffleSplit)(1, test_size=0.1, random_state=seed)
        elif min(n_models, least) < 2:
            return [(every, none)] * n_models
        else:
            cutter = (StratifiedKFold if classes else KFold)(min(n_models, least), shuffle=True, random_state=seed)
        return list(cutter.split(known, known if classes else None))

    def _fine_tune(
        self,
        raw: Raw,
        linear: Linear,
        guess: Tensor,
        trust: Tensor,
        learn: Array,
        judge: Array,
        seed: int,
        seconds: float | None,
    ) -> Head:
        """Return a network that began as the linear model; where there are enough rows to judge it by, the best on the way."""
        model = self.autoencoder_
        device = resolve_device(model.device)
        table = model.codec_.table_of(raw).to(device)
        steps = math.ceil(PASSES * len(learn) / BATCH)
        rest = np.ones(len(table), dtype=bool)
        rest[np.concatenate([learn, judge])] = False
        others = torch.from_numpy(np.flatnonzero(rest & (self._sums_out() | (trust.numpy() > 0)))).to(device)
        guess, trust = guess.to(device), trust.to(device)
        batch_size = BATCH if len(others) else min(BATCH, max(16, len(learn) // 4))
        settings = Settings(
            max_epochs=math.ceil(
                (min(MOST, max(FEWEST, steps)) if self.max_steps == "auto" else self.max_steps) / STEPS
            ),
            batch_size=batch_size,
            learning_rate=self.learning_rate,
            weight_decay=1e-2,
            max_time=seconds,
            device=device,
            verbose=self.verbose,
        )
        first, second = (torch.from_numpy(part).to(device) for part in (learn, judge))
        with seeded(seed, device):
            head = Head(
                model.module_,
                self._outputs(),
                len(linear.center),
                beside=copy.deepcopy(self.beside_),
                dropout=self.dropout,
                decay=self.layer_decay,
                joint=self._joint(),
                bound=self._bound(),
            )
            head.start(linear)
            history = train(
                head.to(device),  # type: ignore[arg-type]  # the objective is all that runs it
                Told(table, guess, first, others, trust, batch_size),
                Told(table, guess, second if len(second) >= JUDGES else second[:0]),
                _loss,  # type: ignore[arg-type]
                settings,
                augment=model._augmentation(model.schema_),
            )
        self.histories_.append(history)
        return head.eval()

    def _seen(self, raw: Raw) -> NDArray[np.float64]:
        """Return what the linear model sees of rows."""
        beside = self.beside_

        def pick(module: AutoencoderModule, batch: Batch) -> Tensor:
            return features_of(module, batch, None if beside is None else beside.to(batch.x.device))

        return self.autoencoder_._apply(raw, pick).astype(np.float64)

    def _run(self, head: Head, raw: Raw) -> NDArray[np.float64]:
        """Return the outputs ``(n, outputs)`` of a network."""
        model = self.autoencoder_
        head = head.to(resolve_device(model.device))

        def pick(_: AutoencoderModule, batch: Batch) -> Tensor:
            out: Tensor = head.to(batch.x.dtype)(batch)
            return out

        try:
            return model._apply(raw, pick).astype(np.float64)
        finally:
            head.float()

    def _outputs_of(self, X: Any) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        """Return the outputs of the linear model, and those of each network."""
        check_is_fitted(self, "heads_")
        raw = self.autoencoder_._read(X, reset=False)
        heads = list(self.heads_) if self.share_ > 0 else []  # those that do not count are not run
        return self.linear_(self._seen(raw)), [self._run(head, raw) for head in heads]  # type: ignore[arg-type]

    # the rest of the estimator ----------------------------------------------------------------------------------------------

    @property
    def n_features_in_(self) -> int:
        """Features of a row."""
        check_is_fitted(self, "autoencoder_")
        return int(self.autoencoder_.n_features_in_)

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Column names, where ``fit`` saw a frame."""
        names: NDArray[Any] = self.autoencoder_.feature_names_in_
        return names

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta = {
            "n_heads": len(self.heads_),
            "spreading": self.spreading_,
            "histories": [history.to_json() for history in self.histories_],
        }
        tensors = {f"linear:{k}": torch.from_numpy(v) for k, v in self.linear_._asdict().items()}
        if self.beside_ is not None:
            tensors |= {f"beside:{k}": v.cpu() for k, v in self.beside_.state_dict().items()}
        return meta, tensors | {f"heads:{k}": v.detach().cpu() for k, v in self.heads_.state_dict().items()}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        def under(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}:"): v for k, v in tensors.items() if k.startswith(f"{name}:")}

        self.linear_ = Linear(**{k: v.numpy() for k, v in under("linear").items()})
        pieces = under("beside")
        self.beside_ = Beside(**pieces) if pieces else None
        with seeded(0):
            self.heads_ = nn.ModuleList(
                Head(
                    self.autoencoder_.module_,
                    self._outputs(),
                    len(self.linear_.center),
                    beside=copy.deepcopy(self.beside_),
                    joint=self._joint(),
                    bound=self._bound(),
                )
                for _ in range(meta["n_heads"])
            )
        self.heads_.load_state_dict(under("heads"))
        self.heads_.eval()
        self.spreading_, self.histories_ = meta["spreading"], [History.from_json(h) for h in meta["histories"]]

    def _joint(self) -> float:
        if self.method in ("frozen", "finetune"):
            return 0.0
        return JOINT[self.method] if self.joint_weight == "auto" else self.joint_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags


def _loss(head: Head, batch: Batch, progress: float) -> Loss:
    return head.loss(batch, progress)


def usual_model(raw: Raw, *, variational: bool = False) -> BaseAutoencoder:
    """Return the model that learns from all rows when none is named."""
    if raw.kind == "image":
        # principal components rebuild images as they are best, so that a start from them would be kept in place of what turned
        # images teach
        model: BaseAutoencoder = (VAE if variational else Autoencoder)(32, network="mlp", augment=TURNS)
    elif variational:
        model = VAE(32, network="mlp")
    elif raw.kind == "vector":
        model = DenoisingAutoencoder(32, noise="swap", level=0.2)
    else:
        model = Autoencoder(32)
    return model.set_params(max_epochs=model._epochs(PRETRAINING, len(raw.values)))
