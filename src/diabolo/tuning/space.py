"""What a search tries: ranges and choices, made from the declarations of an estimator's parameters or given by the user."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from sklearn.base import BaseEstimator, clone

from diabolo.checks import Bound, Field, Ge, Gt, Le, Lt, check_parameters, did_you_mean, parameter_fields
from diabolo.estimator import BaseAutoencoder
from diabolo.parameters import SharedParameters

__all__ = ["Choices", "Range", "Space", "space_of"]


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which belong to it."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def ends(self) -> tuple[Any, ...]:
        """Return values by which a space is checked."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


@dataclass(frozen=True)
class Choices:
    """A few values."""

    values: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        """Return values by which a space is checked."""
        return self.values


Space = dict[str, Range | Choices]

# Of the parameters that all models share: what is worth a trial, and where. Scale and likelihood change what scores mean.
SHARED: Space = {
    "hidden": Choices(("auto", (64,), (128, 128), (256, 256), (512, 512), (256, 128, 64))),
    "activation": Choices(("silu", "relu", "tanh")),
    "dropout": Range(0.0, 0.3),
    "learning_rate": Range(3e-4, 1e-2, log=True),
    "weight_decay": Range(1e-6, 1e-1, log=True),
    "batch_size": Choices(("auto", 32, 64, 128, 256)),
}
WIDTHS = Range(2, 64, log=True, whole=True)
ROOM = 4  # how many times smaller and larger than its default a number of a model's own may become
LEFT_ALONE = {  # what a search has no business with, or which only costs time
    "n_models",
    "n_samples",
    "n_draws",
    "calibration_fraction",
    "contamination",
    "max_steps",
    "max_time",
    "label_spreading",
    "method",
    "training",
    "condition_kind",
    "n_importance",
}


def space_of(estimator: Any, given: Any, *, sized: bool) -> Space:
    """Return what to try.

    Parameters
    ----------
    estimator : BaseEstimator
        A model, or a task with one inside.
    given : "auto" or mapping
        For each name of a parameter (``autoencoder__hidden`` for one of the model inside) a pair ``(low, high)``, a triple
        ``(low, high, "log")``, or a list of choices; ``"auto"`` as a value is the range that ``"auto"`` has for it. By itself
        ``"auto"`` leaves alone what the user has set.
    sized : bool
        Whether models with codes of unequal size can be compared.

    Raises
    ------
    ValueError
        For a parameter that does not exist, or a value that it cannot have.
    """
    names = estimator.get_params(deep=True)
    automatic = _automatic(estimator, sized)
    if isinstance(given, str):
        if given != "auto":
            raise ValueError(f"space={given!r}: expected 'auto', or a mapping from names of parameters to what to try")
        return automatic
    space: Space = {}
    for name, what in dict(given).items():
        if name not in names:
            listed = sorted(k for k in names if "__" not in k)
            raise ValueError(
                f"space: {type(estimator).__name__} has no parameter {name!r}.{did_you_mean(str(name), names)} It has: "
                f"{', '.join(listed)}."
            )
        space[name] = _read(name, what, automatic)
    if not space:
        raise ValueError("space is empty: name at least one parameter, or leave it 'auto'")
    for name, dimension in space.items():
        for value in dimension.ends():
            _check(estimator, name, value)
    return space


def _read(name: str, what: Any, automatic: Space) -> Range | Choices:
    if isinstance(what, Range | Choices):
        return what
    if isinstance(what, str) and what == "auto":
        if name not in automatic:
            raise ValueError(
                f"space[{name!r}]='auto': there is no usual range for it; give (low, high) or a list of choices"
            )
        return automatic[name]
    if isinstance(what, list) and what:
        return Choices(tuple(tuple(v) if isinstance(v, list) else v for v in what))
    if isinstance(what, tuple) and len(what) in (2, 3) and all(_is_number(v) for v in what[:2]):
        low, high, log = what[0], what[1], what[2:] == ("log",)
        if low < high and (len(what) == 2 or log) and not (log and low <= 0):
            return Range(low, high, log, whole=isinstance(low, int) and isinstance(high, int))
    raise ValueError(
        f"space[{name!r}]={what!r}: expected a pair (low, high), (low, high, 'log') with low above 0, or a list of choices"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(estimator: Any, name: str, value: Any) -> None:
    """Refuse a value that the estimator does not take, with its own words."""
    trial = clone(estimator).set_params(**{name: value})
    owner, _, rest = name.rpartition("__")
    part = trial.get_params(deep=True)[owner] if rest and owner else trial
    check_parameters(part)


def _automatic(estimator: Any, sized: bool) -> Space:
    if not isinstance(estimator, BaseAutoencoder):
        inside = getattr(estimator, "autoencoder", None)
        own = _free(estimator, _own(estimator))
        if isinstance(inside, BaseEstimator):
            own |= {f"autoencoder__{k}": v for k, v in _automatic(inside, sized=True).items()}
        return own
    space = dict(SHARED)
    if (
        estimator.network in ("gru", "lstm", "attention", "conv", "shortcut_conv")
        or "hidden" not in estimator.get_params()
    ):
        del space["hidden"]
    if sized:
        space["latent_dim"] = WIDTHS
    return _free(estimator, space | _own(estimator))


def _free(estimator: Any, space: Space) -> Space:
    """Leave out what the user has set."""
    defaults = {f.name: f.default for f in parameter_fields(type(estimator))}
    return {k: v for k, v in space.items() if k in defaults and getattr(estimator, k) == defaults[k]}


def _own(estimator: Any) -> Space:
    """Return ranges of a model's parameters that it does not share with all, and of all of a task, from their declarations."""
    shared = {f.name for f in parameter_fields(SharedParameters)} if isinstance(estimator, BaseAutoencoder) else set()
    found: Space = {}
    for f in parameter_fields(type(estimator)):
        if f.name in shared or f.name in LEFT_ALONE or f.name in ("random_state", "verbose"):
            continue
        dimension = _dimension(f)
        if dimension is not None:
            found[f.name] = dimension
    return found


def _dimension(f: Field) -> Range | Choices | None:
    """Return a range around a default within its constraints, or all of its choices; ``None`` for what has neither."""
    options = get_args(f.hint) if get_origin(f.hint) in (Union, UnionType) else (f.hint,)
    choices = [c for o in options if get_origin(o) is Literal for c in get_args(o)]
    if bool in options and isinstance(f.default, bool):
        return Choices((True, False))
    if choices and f.default in choices and NoneType not in options:
        return Choices(tuple(choices)) if 1 < len(choices) <= 6 else None
    if isinstance(f.default, bool) or not isinstance(f.default, int | float) or f.default <= 0:
        return None
    low, high = f.default / ROOM, f.default * ROOM
    for bound in f.constraints:
        if isinstance(bound, Bound):
            low = max(low, bound.bound) if isinstance(bound, Ge | Gt) else low
            high = min(high, bound.bound) if isinstance(bound, Le) else high
            high = min(high, bound.bound - (bound.bound - f.default) / ROOM) if isinstance(bound, Lt) else high
    if isinstance(f.default, int):
        low, high = max(1, math.floor(low)), math.ceil(high)
        return Range(low, high, log=True, whole=True) if low < high else None
    return Range(low, high, log=low > 0) if low < high else None
