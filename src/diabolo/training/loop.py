"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diabolo.module import AutoencoderModule
from diabolo.objectives import Objective
from diabolo.records import Batch, History, Loss
from diabolo.seeding import generator_state, seeded, set_generator_state
from diabolo.training.checkpoint import check_folder, resume_run, save_run
from diabolo.training.device import autocast, gradient_scaler
from diabolo.training.diagnosis import diagnose
from diabolo.training.optimizer import Optimizer
from diabolo.training.progress import Progress
from diabolo.training.ranks import PeerError, Ranks
from diabolo.training.rows import Rows
from diabolo.training.stopping import INTERRUPTED, TIME, Stop

__all__ = ["WARMUP", "Callback", "DivergenceError", "Run", "Settings", "evaluated_rows", "train"]

EVALUATION_ROWS, EVALUATION_ELEMENTS = (1024, 4096), 2**20  # rows in a batch without gradients, and numbers in them
EVALUATION_MEMORY = 2**22  # numbers in such a batch of few but wide rows
METRIC_ROWS, METRIC_ELEMENTS = 1024, 2**19  # rows on which mse is watched, and numbers in them
WARMUP = 0.05  # share of training over which the learning rate rises
COOLDOWN = 0.2  # of the epochs up to the best: how long the learning rate falls when there is no better one
RETRIES = 5  # recoveries from a non-finite loss before giving up


class DivergenceError(ArithmeticError):
    """Training met a non-finite loss again and again; the message names where it comes from."""


@dataclass(frozen=True)
class Settings:
    """What the loop is told; every field is resolved, no ``"auto"`` is left."""

    max_epochs: int
    batch_size: int
    learning_rate: float
    schedule: str = "cosine"
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    widest: int = 0
    patience: int | None = None
    patience_from: float = 0.0
    max_time: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    verbose: int = 0
    checkpoint: Path | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    valid_seed: int = 0
    ranks: Ranks = field(default_factory=Ranks)


@dataclass
class Run:
    """The state of a run; callbacks see it, a checkpoint holds it."""

    module: AutoencoderModule
    optimizer: Optimizer
    settings: Settings
    history: History = field(default_factory=History)
    epoch: int = 0
    steps: int = 0
    best: dict[str, Tensor] | None = None
    best_value: float = math.inf
    waited: int = 0
    lr_scale: float = 1.0
    retries: int = 0
    seconds: float = 0.0
    cooled_from: int = 0
    cooled_until: int = 0
    saved: int = 0  # epoch of the last good checkpoint
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = gradient_scaler(self.settings.device, self.settings.precision)


class Callback:
    """Watches a run. Subclass and override; an epoch's return value ``True`` stops training.

    A plain function is taken as ``on_epoch_end``. Of several processes that train one model the first calls it.
    """

    def on_fit_begin(self, run: Run) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, run: Run) -> bool | None:
        """After each epoch, ``run.history.rows[-1]`` being its record."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, with the best weights in place."""


def train(
    module: AutoencoderModule,
    rows: Rows,
    held_out: Rows,
    objective: Objective,
    settings: Settings,
    callbacks: Iterable[Callback | Callable[[Run], bool | None]] = (),
    metric: Callable[[AutoencoderModule, Batch], dict[str, float]] | None = None,
    augment: Callable[[Batch], Batch] | None = None,
    pretrain: Callable[[Run], None] | None = None,
) -> History:
    """Fit ``module`` to ``rows``; call it inside :func:`diabolo.seeding.seeded`.

    Parameters
    ----------
    module : AutoencoderModule
        On ``settings.device``; holds the best weights afterwards.
    rows, held_out : Rows
        Scaled rows to learn from, and to judge by; without the latter the last weights are kept.
    objective : Objective
        The loss, in nats per row.
    settings : Settings
        Everything else.
    callbacks : iterable of Callback or callable
        What watches the run.
    metric : callable, optional
        ``(module, batch) -> numbers`` to record for each epoch beside the loss.
    augment : callable, optional
        What is done to each batch of training, and to no other, before the objective sees it.
    pretrain : callable, optional
        Called with the run before its first epoch, to change the weights that it starts from; not for a run that is taken up
        from a checkpoint.

    Returns
    -------
    History
        One row an epoch, and why it ended. A keyboard interrupt ends training, not the program: the best weights so far are
        kept and the reason is ``"interrupted"``.

    Raises
    ------
    DivergenceError
        When the loss is not finite even at a much lower learning rate.
    PeerError
        When another process of the run is gone.
    OSError
        When the checkpoint folder cannot be written before the first epoch.
    """
    run = Run(module, _optimizer(module, settings), settings)
    try:
        resumed = settings.checkpoint is not None and resume_run(run)
        if run.history.stop_reason == "interrupted" or run.history.stop_reason.startswith("reached max_time"):
            run.history.stop_reason = _stop_reason(run, asked=False)  # there may be more time now
        settings.ranks.attach(module)
        return _train(run, resumed, rows, held_out, objective, callbacks, metric, augment, pretrain)
    except PeerError as error:
        raise PeerError(f"{error}{_way_on(run)}") from error
    finally:
        settings.ranks.detach(module)


def _train(
    run: Run,
    resumed: bool,
    rows: Rows,
    held_out: Rows,
    objective: Objective,
    callbacks: Iterable[Callback | Callable[[Run], bool | None]],
    metric: Callable[[AutoencoderModule, Batch], dict[str, float]] | None,
    augment: Callable[[Batch], Batch] | None,
    pretrain: Callable[[Run], None] | None,
) -> History:
    module, settings, ranks = run.module, run.settings, run.settings.ranks
    watchers = [c if isinstance(c, Callback) else _FunctionCallback(c) for c in callbacks if ranks.is_first]
    watched = (held_out if len(held_out) else rows).head(max(1, min(METRIC_ROWS, METRIC_ELEMENTS // rows.schema.size)))
    steps_per_epoch = math.ceil(len(rows) / settings.batch_size)
    total = settings.max_epochs * steps_per_epoch
    if resumed and run.history.stop_reason:
        _restore_best(run)
        return run.history
    if settings.checkpoint is not None and ranks.is_first:
        check_folder(settings.checkpoint)  # before anything is learned
    for watcher in watchers:
        watcher.on_fit_begin(run)
    if not resumed and pretrain is not None:
        pretrain(run)
    rows, held_out = ranks.shares(rows), ranks.shares(held_out)
    if not resumed and len(held_out):
        _judge(run, _evaluate(run, held_out, objective)["loss"])  # a good start is not lost
    good = _snapshot(run)
    stop = Stop(settings.max_time, patient=ranks.world > 1)
    with Progress(settings.max_epochs, settings.verbose if ranks.is_first else 0) as progress, stop:
        try:
            while not run.history.stop_reason:
                began = time.monotonic()
                stop.begin(run.seconds)
                row = _run_epoch(run, rows, objective, total, augment, stop)
                done = run.steps - run.epoch * steps_per_epoch
                cut = _cut_reason(settings, stop.agreed) if done < steps_per_epoch else ""
                module.eval()
                ranks.settle(module)
                if len(held_out):
                    row |= {f"val_{k}": v for k, v in _evaluate(run, held_out, objective).items()}
                if not all(math.isfinite(v) for v in row.values()):
                    _recover(run, good, rows)
                    progress.say(run.history.events[-1])
                    run.history.stop_reason = cut
                    continue
                if metric is not None:
                    found = metric(module, watched)
                    row |= {("val_" if len(held_out) else "") + k: v for k, v in found.items()}
                run.epoch += 1
                (run.seconds,) = ranks.largest(run.seconds + time.monotonic() - began)
                run.history.rows.append({"epoch": run.epoch, **row, "seconds": run.seconds})
                _judge(run, row.get("val_loss"))
                progress.update(run.epoch, row)
                stops = [watcher.on_epoch_end(run) for watcher in watchers]  # each sees every epoch
                asked, interrupted = ranks.largest(any(s is True for s in stops), stop.interrupted)
                if _is_stuck(run) and not (run.cooled_until or asked or cut):
                    _begin_cooling(run)
                run.history.stop_reason = (
                    cut or _stop_reason(run, bool(asked)) or ("interrupted" if interrupted else "")
                )
                good = _snapshot(run)
                if cut:
                    event = f"epoch {run.epoch}: ended after {done} of {steps_per_epoch} steps, and was judged like a whole one"
                    run.history.events.append(event)
                elif settings.checkpoint is not None:
                    save_run(run, progress)
        except KeyboardInterrupt:
            run.history.stop_reason = "interrupted"
            if run.best is None:
                _load(run, good)
        progress.say(f"stopped: {run.history.stop_reason}")
    _restore_best(run)
    for watcher in watchers:
        watcher.on_fit_end(run)
    return run.history


def _run_epoch(
    run: Run,
    rows: Rows,
    objective: Objective,
    total: int,
    augment: Callable[[Batch], Batch] | None,
    stop: Stop,
) -> dict[str, float]:
    """Take one pass over ``rows`` in random order, or part of it; return the mean loss terms over the rows taken."""
    module, settings, ranks = run.module.train(), run.settings, run.settings.ranks
    hooks: list[Callable[[], None]] = [p.after_step for p in module.modules() if hasattr(p, "after_step")]  # type: ignore[misc]
    parameters = [p for p in module.parameters() if p.requires_grad]
    means = Means(math.ceil(len(rows) / settings.batch_size))
    for batch in rows.shuffled(settings.batch_size):
        progress = run.steps / total
        run.optimizer.param_groups[0]["lr"] = _learning_rate(settings, progress) * run.lr_scale * _cooled(run)
        if augment is not None:
            batch = augment(batch)
        with autocast(settings.device, settings.precision):
            loss = objective(module, batch, progress)
        run.scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
        stop.agreed = ranks.average(parameters, stop.wanted())
        run.scaler.unscale_(run.optimizer)  # type: ignore[arg-type]
        if settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        run.scaler.step(run.optimizer)  # type: ignore[arg-type]
        run.scaler.update()
        run.optimizer.zero_grad()
        for hook in hooks:
            hook()
        run.steps += 1
        means.add(ranks.rows(batch), loss)
        if stop.agreed:
            break
    return means.found(ranks)


def evaluated_rows(size: int) -> int:
    """Return how many rows of ``size`` features are judged at a time: memory does not grow with their width."""
    least, most = EVALUATION_ROWS
    return max(min(least, EVALUATION_MEMORY // size), min(most, EVALUATION_ELEMENTS // size), 1)


@torch.no_grad()
def _evaluate(run: Run, rows: Rows, objective: Objective) -> dict[str, float]:
    """Return the mean loss terms over ``rows``, with the same noise each time and the training stream left alone."""
    run.module.eval()
    ranks = run.settings.ranks
    with seeded(run.settings.valid_seed + ranks.rank, run.settings.device):
        size = evaluated_rows(rows.schema.size)
        means = Means(math.ceil(len(rows) / size))
        for batch in rows.in_order(size):
            means.add(ranks.rows(batch), objective(run.module, batch, 1.0))
    return means.found(ranks)


class Means:
    """Means of loss terms over batches, by their rows, without waiting for the device.

    All values go into one tensor: a small one kept of each step would come to lie where a large one was freed, which then has no
    room there in the next step, so that memory would grow from step to step.

    Parameters
    ----------
    batches : int
        About how many there are.
    """

    def __init__(self, batches: int):
        self.batches = batches
        self.rows: list[int] = []
        self.values: Tensor | None = None  # (batches, 1 + terms)
        self.names: tuple[str, ...] = ()

    def add(self, rows: int, loss: Loss) -> None:
        """Take in a batch."""
        if self.values is None:
            self.names = tuple(loss.terms)
            self.values = torch.empty(max(1, self.batches), 1 + len(self.names), device=loss.total.device)
        if len(self.rows) == len(self.values):
            self.values = torch.cat([self.values, torch.empty_like(self.values)])
        for i, value in enumerate((loss.total, *(loss.terms[name] for name in self.names))):
            self.values[len(self.rows), i] = value.detach()
        self.rows.append(rows)

    def found(self, ranks: Ranks) -> dict[str, float]:
        """Return the mean of each term; the only place where the loop waits for the device."""
        if self.values is None:
            raise RuntimeError("means of no batch")
        weights = torch.tensor(self.rows, dtype=torch.float64)
        count = float(weights.sum())
        means = (weights / count) @ self.values[: len(self.rows)].cpu().double()
        return ranks.means(dict(zip(("loss", *self.names), means.tolist(), strict=True)), count)


def _learning_rate(settings: Settings, progress: float) -> float:
    """Rise linearly over the first share ``WARMUP`` of training, then fall along a cosine to a hundredth."""
    if settings.schedule == "constant":
        return settings.learning_rate
    if progress < WARMUP:
        return settings.learning_rate * (0.05 + 0.95 * progress / WARMUP)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))))


def _is_stuck(run: Run) -> bool:
    """Tell whether the run has waited long enough for a better validation loss."""
    return run.settings.patience is not None and run.waited >= run.settings.patience


def _begin_cooling(run: Run) -> None:
    """Go back to the best weights, from which the learning rate then falls to zero: a run does not end in mid-course."""
    epochs = max(2, round(COOLDOWN * max(run.history.best_epoch, run.waited)))
    epochs = min(epochs, run.settings.max_epochs - run.epoch)
    if epochs == 0 or run.best is None:
        return
    run.module.load_state_dict(run.best)
    run.cooled_from, run.cooled_until = run.steps, run.steps + epochs * (run.steps // run.epoch)
    run.history.events.append(
        f"epoch {run.epoch}: no better validation loss for {run.waited} epochs; went back to the weights of epoch "
        f"{run.history.best_epoch}, and the learning rate falls to zero over {epochs} epochs"
    )


def _cooled(run: Run) -> float:
    """Return the share of the learning rate that cooling leaves."""
    if not run.cooled_until:
        return 1.0
    return max(0.0, 1.0 - (run.steps - run.cooled_from) / (run.cooled_until - run.cooled_from))


def _optimizer(module: nn.Module, settings: Settings) -> Optimizer:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    share_of: Callable[[str], float] | None = getattr(module, "share_of", None)  # of the learning rate, by name
    return Optimizer(
        (p for _, p in named),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        widest=settings.widest,
        shares=None if share_of is None else [share_of(name) for name, _ in named],
    )


def _judge(run: Run, value: float | None) -> None:
    """Keep the weights when they are the best so far."""
    if value is None:
        run.history.best_epoch = run.epoch
        return
    if value < run.best_value:
        run.best_value, run.waited, run.history.best_epoch = value, 0, run.epoch
        run.best = {k: v.detach().clone() for k, v in run.module.state_dict().items()}
    elif run.epoch > run.settings.patience_from * run.settings.max_epochs:
        run.waited += 1


def _stop_reason(run: Run, asked: bool) -> str:
    settings = run.settings
    if asked:
        return "stopped by a callback"
    if run.steps >= run.cooled_until if run.cooled_until else _is_stuck(run):
        return f"no better validation loss for {settings.patience} epochs"
    if run.epoch >= settings.max_epochs:
        return f"reached max_epochs={settings.max_epochs}"
    if settings.max_time is not None and run.seconds >= settings.max_time:
        return _cut_reason(settings, TIME)
    return ""


def _cut_reason(settings: Settings, wish: str) -> str:
    return "interrupted" if wish == INTERRUPTED else f"reached max_time={settings.max_time:g} s"


def _way_on(run: Run) -> str:
    """Say where a run that has lost a process can be taken up."""
    folder = run.settings.checkpoint
    if folder is None:
        return ""
    if not run.saved:
        return " No epoch was over yet: start all processes again."
    return f" {folder} holds the run up to epoch {run.saved}: start all processes again, with the same data, to go on from there."


def _restore_best(run: Run) -> None:
    if run.best is not None:
        run.module.load_state_dict(run.best)
    run.module.eval()


Snapshot = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], int]


def _snapshot(run: Run) -> Snapshot:
    weights = {k: v.detach().clone() for k, v in run.module.state_dict().items()}
    moments = {k: v.clone() for k, v in run.optimizer.tensors().items()}
    return weights, moments, generator_state(run.settings.device), run.steps


def _load(run: Run, good: Snapshot) -> None:
    weights, moments, generators, run.steps = good
    run.module.load_state_dict(weights)
    run.optimizer.load(moments)
    set_generator_state(generators, run.settings.device)


def _recover(run: Run, good: Snapshot, rows: Rows) -> None:
    """Go back to the last good weights at a lower learning rate, or say where the trouble comes from."""
    run.retries += 1
    _load(run, good)
    if run.retries > RETRIES:
        cause = diagnose(run.module, rows)
        raise DivergenceError(
            f"the loss is not finite in epoch {run.epoch + 1}, even at a learning rate of "
            f"{run.settings.learning_rate * run.lr_scale:.3g}. {cause}"
        )
    run.optimizer.zero_grad()
    run.lr_scale *= 0.25
    run.history.events.append(
        f"epoch {run.epoch + 1}: the loss was not finite; went back to the last good weights "
        f"at {run.lr_scale:.3g} times the learning rate"
    )


class _FunctionCallback(Callback):
    def __init__(self, function: Callable[[Run], bool | None]):
        self.function = function

    def on_epoch_end(self, run: Run) -> bool | None:
        return self.function(run)
