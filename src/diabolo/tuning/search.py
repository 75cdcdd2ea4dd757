"""The search: trials within a budget, hopeless ones cut short, taken up again after a kill, shared by processes."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from diabolo.checks import check_parameters
from diabolo.data.arrays import read
from diabolo.data.stream import Stream
from diabolo.seeding import draw_seed
from diabolo.training.loop import Callback, DivergenceError
from diabolo.training.progress import Progress
from diabolo.tuning.objectives import find_objective, has_cost
from diabolo.tuning.space import Choices, Space, space_of
from diabolo.tuning.splits import split
from diabolo.tuning.study import Watch, import_optuna, open_study, quiet

__all__ = ["Tuned", "tune"]

HELD_OUT = 0.25  # share of the rows that trials are judged by
UNITS = {
    "": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
}
SAME_LOSS = {  # parameters under which losses of one epoch compare
    "hidden",
    "activation",
    "dropout",
    "norm",
    "network",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "gradient_clip",
    "optimizer",
    "schedule",
    "latent_dim",
    "kl_warmup",
}
SPARE = 1.3  # how much longer the fit on all rows may take than the trial did


@dataclass
class Tuned:
    """What a search found.

    Attributes
    ----------
    estimator : BaseEstimator
        The best one, fitted to all rows.
    params : dict
        What the search chose; empty where nothing was better than the estimator as it was given.
    value : float
        Its objective on held-out rows, higher is better.
    objective : str
        Name of the objective.
    trials : list of dict
        All trials, in order: ``number``, ``state`` (``"complete"``, ``"pruned"``, ``"failed"``), ``value``, ``seconds``,
        ``params`` and ``note``. Number 0 is the estimator as it was given.
    seconds : float
        Time spent, the last fit included.
    overhead : float
        Share of this time that was not spent on fitting and judging.
    """

    estimator: Any
    params: dict[str, Any]
    value: float
    objective: str
    trials: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    overhead: float = 0.0

    def table(self) -> list[dict[str, Any]]:
        """Return the trials, best first, one flat record for each, as ``pandas.DataFrame`` and ``polars.DataFrame`` take them."""

        def order(trial: dict[str, Any]) -> tuple[bool, float]:
            value = trial["value"]
            return trial["state"] != "complete", -value if value is not None else math.inf

        return [
            {k: v for k, v in trial.items() if k != "params"} | trial["params"]
            for trial in sorted(self.trials, key=order)
        ]


def tune(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    space: str | Mapping[str, Any] = "auto",
    objective: Any = "auto",
    budget: str | float = "10 min",
    n_trials: int | None = None,
    storage: str | Path | None = None,
    random_state: int | None = None,
    verbose: int = 1,
) -> Tuned:
    """Search for hyperparameters, without labels or with them.

    The estimator as it is given comes first, and others are only taken where they are better on held-out rows, a quarter of
    all. What to try next is chosen by a tree-structured Parzen estimator (Bergstra et al., 2011) of Optuna. A trial whose
    validation loss lies below the median of the others at the same share of training is cut short, where losses compare. The best
    is then fitted to all rows.

    Parameters
    ----------
    estimator : BaseAutoencoder, AutoencoderClassifier, AutoencoderRegressor or AnomalyDetector
        What to tune, with all that should stay as it is.
    X : array, frame, tensor or list of series
        Rows, as for its ``fit``.
    y : array-like of shape (n,), optional
        Labels, for the objectives that take them and for estimators that learn from them.
    space : "auto" or mapping
        What to try: for each parameter a pair ``(low, high)``, ``(low, high, "log")``, or a list of choices.
        ``autoencoder__hidden`` is that of the model inside a task. ``"auto"`` takes sensible ranges of parameters that are
        at their defaults; as a value for one parameter it takes the range of that.
    objective : "auto", "bound", "masked", "downstream", "stability", "anomaly", "prediction" or callable
        What models are judged by on held-out rows, higher is better: the log-likelihood or its bound (nats per row); the
        error in filling hidden cells; a linear model of the codes, given ``y``; the likeness of codes under two seeds; the
        agreement of two seeds on what is odd; held-out labels or numbers, for estimators that predict; or a function
        ``(fitted estimator, held-out rows) -> float``. ``"auto"`` is what fits the estimator.
    budget : str or float
        Time, such as ``"10 min"``, ``"90 s"``, ``"2 h"``, or seconds. The last fit is part of it, as far as the best trial tells
        how long that takes; the first trial is always made.
    n_trials : int, optional
        Trials at most, those of earlier runs on the same ``storage`` included.
    storage : str or Path, optional
        File in which trials are kept, or the URL of a database (``sqlite:///...``, ``postgresql://...``). The same call goes on
        where an earlier one ended or was killed; several processes or machines with the same call share the work.
    random_state : int, optional
        Seed of splits, models and proposals; ``None`` takes fresh entropy, and with a ``storage`` 0, so that calls agree.
    verbose : int
        1 shows a line for each trial on standard error.

    Returns
    -------
    Tuned
        The fitted estimator, and a table of trials.

    Raises
    ------
    ImportError
        Without Optuna (``pip install 'diabolo[tune]'``).
    ValueError
        For a space, an objective or a budget that cannot be, or a storage that holds another search.

    Notes
    -----
    A keyboard interrupt ends the search, not the program: the best so far is fitted. With ``n_trials`` and a budget that is not
    used up the same ``random_state`` gives the same trials.

    References
    ----------
    Bergstra et al., Algorithms for hyper-parameter optimization, NIPS 2011.

    Akiba et al., Optuna: a next-generation hyperparameter optimization framework, KDD 2019, arXiv:1907.10902.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> import diabolo
    >>> model = diabolo.VAE(2, max_epochs=5, random_state=0)
    >>> found = diabolo.tune(model, load_iris().data, space={"hidden": [(16,), (32,)]}, n_trials=3, random_state=0, verbose=0)
    >>> len(found.trials), found.estimator.transform(load_iris().data).shape
    (3, (150, 2))
    """
    return Search(estimator, X, y, space, objective, budget, n_trials, storage, random_state, verbose).run()


class Search:
    """One call of :func:`tune`."""

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        space: str | Mapping[str, Any],
        objective: Any,
        budget: str | float,
        n_trials: int | None,
        storage: str | Path | None,
        random_state: int | None,
        verbose: int,
    ):
        self.began = time.monotonic()
        self.budget = parse_budget(budget)
        if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1):
            raise ValueError(f"n_trials={n_trials!r}: expected a whole number of at least 1")
        if isinstance(X, Stream):
            raise TypeError("tune splits rows in memory; give it some rows of the stream")
        self.optuna = import_optuna()
        self.estimator = clone(estimator)
        check_parameters(self.estimator)
        self.X, self.y, self.n_trials, self.verbose = X, y, n_trials, verbose
        self.name, self.judge = find_objective(objective, self.estimator, y)
        self.space = space_of(self.estimator, space, sized=self.name != "bound" or has_cost(self.estimator))
        self.seed = draw_seed(0 if random_state is None and storage is not None else random_state)
        self.split = split(self.estimator, X, y, HELD_OUT, self.seed, predicts=self.name == "prediction")
        self.storage = storage
        self.fitting = 0.0  # seconds spent on fitting and judging
        self.say = Progress(1, verbose).say

    def run(self) -> Tuned:
        """Make trials until the budget is spent, and fit the best."""
        mark = {
            "estimator": _words(self.estimator),
            "space": {k: repr(v) for k, v in self.space.items()},
            "objective": self.name,
            "rows": _digest(self.split.learn),
        }
        with quiet(self.optuna):
            study = open_study(self.optuna, self.storage, self.seed, mark)
            try:
                self._trials(study)
            except KeyboardInterrupt:
                self.say("interrupted; the best so far is fitted to all rows")
            best = max(_complete(study), key=lambda t: t.value, default=None)
        params = {} if best is None else _decode(best.user_attrs["params"], self.space)
        seconds = self.budget if best is None else best.user_attrs["seconds"]
        began = time.monotonic()
        fitted = self._made(params, seconds * SPARE / (1 - HELD_OUT) if best is None else None).fit(self.X, self.y)
        self.fitting += time.monotonic() - began
        total = time.monotonic() - self.began
        return Tuned(
            fitted,
            params,
            float("nan") if best is None else float(best.value),
            self.name,
            [_record(trial, self.space) for trial in study.get_trials(deepcopy=False)],
            total,
            max(0.0, 1 - self.fitting / total),
        )

    # trials -----------------------------------------------------------------------------------------------------------------

    def _trials(self, study: Any) -> None:
        if not any(t.user_attrs.get("given") for t in _complete(study)):
            self._first(study)
        while not self._spent(study):
            trial = study.ask()
            params = {name: self._suggest(trial, name) for name in self.space}
            trial.set_user_attr("params", {k: _encode(v) for k, v in params.items()})
            self._try(study, trial, params)

    def _first(self, study: Any) -> None:
        """Try the estimator as it is given, which is no point of the space."""
        trial = study.ask()
        trial.set_user_attr("params", {})
        trial.set_user_attr("given", value=True)
        self._try(study, trial, {})

    def _try(self, study: Any, trial: Any, params: dict[str, Any]) -> None:
        state = self.optuna.trial.TrialState
        began = time.monotonic()
        value, ended, note = None, state.COMPLETE, ""
        watch = Watch(trial, self.optuna.TrialPruned) if params and self._comparable() else None
        left = self.budget - (began - self.began)
        try:
            with warnings.catch_warnings(
                record=True
            ) as said:  # of a trial they are a note; the last fit gives them again
                warnings.simplefilter("always")
                model = self._made(params, max(0.5, left), watch).fit(self.split.learn, self.split.learn_y)
                value = self.judge(model, self.split)
            note = "; ".join(dict.fromkeys(str(w.message).split(". ")[0] for w in said))
            if not math.isfinite(value):
                value, ended, note = None, state.FAIL, f"the objective is {value}"
            elif _interrupted(model):
                raise KeyboardInterrupt
        except self.optuna.TrialPruned:
            ended = state.PRUNED
        except (DivergenceError, ValueError) as error:
            if not params:
                raise  # the estimator cannot be fitted as it is given
            ended, note = state.FAIL, str(error).splitlines()[0]
        except KeyboardInterrupt:
            study.tell(trial, state=state.FAIL)
            raise
        seconds = time.monotonic() - began
        self.fitting += seconds
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("note", note)
        study.tell(trial, value, state=ended)
        shown = f"{value:.5g}" if value is not None else ended.name.lower()
        chosen = ", ".join(f"{k}={_short(v)}" for k, v in params.items()) or "as given"
        self.say(f"trial {trial.number}  {self.name} {shown}  {seconds:.1f} s  {chosen}{'  ' + note if note else ''}")

    def _spent(self, study: Any) -> bool:
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        if self.n_trials is not None and len(finished) >= self.n_trials:
            return True
        best = max(_complete(study), key=lambda t: t.value, default=None)
        last = 0.0 if best is None else best.user_attrs["seconds"] * SPARE / (1 - HELD_OUT)
        usual = float(np.median([t.user_attrs["seconds"] for t in finished if "seconds" in t.user_attrs] or [0.0]))
        return time.monotonic() - self.began + last + usual > self.budget

    def _made(self, params: dict[str, Any], seconds: float | None, watch: Callback | None = None) -> Any:
        """Make an estimator, its seed set where it has none of its own, that takes no longer than so many seconds."""
        made = clone(self.estimator).set_params(**params)
        known = made.get_params(deep=False)
        if known["random_state"] is None:
            made.set_params(random_state=self.seed)
        if "max_time" in known and seconds is not None:
            made.set_params(max_time=seconds if known["max_time"] is None else min(seconds, known["max_time"]))
        if watch is not None and "callbacks" in known:
            made.set_params(callbacks=(*known["callbacks"], watch))
        return made

    def _comparable(self) -> bool:
        """Tell whether losses of one epoch compare between trials."""
        return set(self.space) <= SAME_LOSS and "callbacks" in self.estimator.get_params(deep=False)

    def _suggest(self, trial: Any, name: str) -> Any:
        dimension = self.space[name]
        if isinstance(dimension, Choices):  # by position: a choice may be of any type
            return dimension.values[trial.suggest_categorical(name, list(range(len(dimension.values))))]
        if dimension.whole:
            return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)

    # rows and storage -------------------------------------------------------------------------------------------------------


def parse_budget(budget: str | float) -> float:
    """Return seconds.

    Raises
    ------
    ValueError
        When it is no time.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*?)s?\s*", budget.lower()) if isinstance(budget, str) else None
    if match is not None and match[2] in UNITS:
        seconds = float(match[1]) * UNITS[match[2]]
    elif isinstance(budget, int | float) and not isinstance(budget, bool):
        seconds = float(budget)
    else:
        seconds = math.nan
    if not (0 < seconds < math.inf):
        raise ValueError(f"budget={budget!r}: expected a time such as '10 min', '90 s', '2 h', or seconds above 0")
    return seconds


def _complete(study: Any) -> list[Any]:
    return [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]


def _record(trial: Any, space: Space) -> dict[str, Any]:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running")
    return {
        "number": trial.number,
        "state": state,
        "value": trial.value if state == "complete" else None,
        "seconds": trial.user_attrs.get("seconds"),
        "params": _decode(trial.user_attrs.get("params", {}), space),
        "note": trial.user_attrs.get("note", ""),
    }


def _encode(value: Any) -> Any:
    return (
        list(value)
        if isinstance(value, tuple)
        else value
        if isinstance(value, str | int | float | None)
        else repr(value)
    )


def _decode(params: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return values as the space has them, which JSON may have made others of."""
    found = {}
    for name, value in params.items():
        dimension = space[name]
        if isinstance(dimension, Choices):
            value = next(v for v in dimension.values if _encode(v) == value)
        found[name] = value
    return found


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else repr(value)


def _words(estimator: Any) -> str:
    return " ".join(repr(estimator).split())


def _interrupted(model: Any) -> bool:
    inside = getattr(model, "autoencoder_", model)
    return getattr(getattr(inside, "history_", None), "stop_reason", "") == "interrupted"


def _digest(rows: Any) -> str:
    """Name rows by their contents."""
    raw = read(rows, learn=True)
    values = np.asarray(rows, dtype=np.float64) if raw is None else raw.values
    lean = getattr(values, "matrix", None)
    data = np.asarray(values if lean is None else lean.data)
    return hashlib.sha256(np.ascontiguousarray(data).tobytes() + json.dumps(list(data.shape)).encode()).hexdigest()[:16]
