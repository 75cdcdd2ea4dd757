"""What is asked of Optuna: a study that outlives its process, proposals that a seed repeats, and trials that end early."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.training.loop import Callback, Run

__all__ = ["Watch", "import_optuna", "open_study", "quiet"]

LOOKS = 10  # at the course of a trial, to tell whether it is hopeless


def open_study(optuna: Any, storage: str | Path | None, seed: int, mark: dict[str, Any]) -> Any:
    """Make a study, or take up the one that is in the storage.

    Parameters
    ----------
    optuna : module
        Optuna.
    storage : str or Path, optional
        A file, or the URL of a database; nothing keeps trials in memory.
    seed : int
        Of proposals.
    mark : dict
        What must be alike for trials to be of one search.

    Raises
    ------
    ValueError
        When the storage holds another search.
    """
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=LOOKS // 3)
    place: Any = storage
    if storage is not None and "://" not in str(storage):
        journal = optuna.storages.journal
        place = optuna.storages.JournalStorage(journal.JournalFileBackend(str(storage)))
    study = optuna.create_study(
        storage=place,
        sampler=_each_its_seed(optuna, seed),
        pruner=pruner,
        study_name="diabolo",
        direction="maximize",
        load_if_exists=True,
    )
    found = study.user_attrs.get("search")
    if found is None:
        study.set_user_attr("search", mark)
    elif found != mark:
        differs = ", ".join(k for k in mark if found.get(k) != mark[k])
        raise ValueError(
            f"storage={str(storage)!r} holds another search: it differs in {differs}. Use another storage, or the same "
            "estimator, space, objective, rows and random_state."
        )
    return study


class Watch(Callback):
    """Tells a study how a trial goes, and ends it where it is hopeless."""

    def __init__(self, trial: Any, pruned: type[Exception]):
        self.trial, self.pruned, self.looks = trial, pruned, 0

    def on_epoch_end(self, run: Run) -> bool | None:
        """Report the best validation loss so far, at each tenth of training."""
        look = LOOKS * run.epoch // run.settings.max_epochs
        if look > self.looks and math.isfinite(run.best_value):
            self.looks = look
            self.trial.report(-run.best_value, look)
            if self.trial.should_prune():
                raise self.pruned
        return None


def import_optuna() -> Any:
    """Import Optuna, or say how to install it."""
    try:
        import optuna
    except ImportError:
        raise ImportError("tune needs the package optuna: pip install 'diabolo[tune]'") from None
    return optuna


@contextlib.contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Let Optuna log warnings only, and give it its level back."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _each_its_seed(optuna: Any, seed: int) -> Any:
    """Return a sampler whose proposals follow from the seed, the number of the trial and those before it.

    So processes that share a study do not make the same trials, and one alone makes the same each time.
    """

    class Sampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inner = optuna.samplers.TPESampler(seed=seed)

        def before_trial(self, study: Any, trial: Any) -> None:
            mixed = np.random.SeedSequence([seed, trial.number]).generate_state(1)[0]
            self.inner = optuna.samplers.TPESampler(seed=int(mixed), n_startup_trials=8)

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self.inner.sample_independent(study, trial, param_name, param_distribution)

    return Sampler()
