"""What looks wrong in a fitted model, and what to try, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diabolo.report.draw import compact, percent
from diabolo.report.facts import Facts

__all__ = ["Advice", "advise", "error_ratio"]


@dataclass(frozen=True)
class Advice:
    """One finding: what was seen, and what to try."""

    title: str
    text: str
    serious: bool = True


def advise(facts: Facts) -> list[Advice]:
    """Return what to look into, the most serious first; nothing when all looks well."""
    found = [*_training(facts), *_code(facts), *_reconstruction(facts), *_data(facts)]
    return sorted(found, key=lambda advice: not advice.serious)


def error_ratio(facts: Facts) -> float | None:
    """Return the reconstruction error of the validation rows over that of the training rows, in the best epoch.

    The log-density of a perfect reconstruction is taken off both losses first, so that the ratio is one of errors.
    ``None`` without validation rows, or for a likelihood of the user's own.
    """
    history = facts.model.history_
    if not history.best_epoch or not {"reconstruction", "val_reconstruction"} <= set(history.keys()):
        return None
    size = facts.model.schema_.size * (1 - facts.missing)
    train, valid = (history[k][history.best_epoch - 1] for k in ("reconstruction", "val_reconstruction"))
    name = facts.model.choices_["likelihood"]
    if name == "learned_gaussian":  # at the learned scale the mean squared error is one unit a feature
        return 1 + 2 * (valid - train) / size if size else None
    floors = {"bernoulli": 0.0, "laplace": size * math.log(2)}
    gauss = 0.5 * math.log(2 * math.pi) * size
    floor = floors.get(name, gauss if name in ("gaussian", "sigmoid_gaussian") else None)
    return None if floor is None or train <= floor else (valid - floor) / (train - floor)


def _training(facts: Facts) -> list[Advice]:
    model, history = facts.model, facts.model.history_
    found = []
    ratio = error_ratio(facts)
    if ratio is not None and ratio > 2:
        few = round(facts.model.schema_.n_rows * model.validation_fraction) < 50
        found.append(
            Advice(
                "Overfitting",
                f"The error on held-out rows is {compact(ratio)} times that on the training rows. More rows help most; "
                "else a smaller network (hidden), dropout=0.1, or a larger weight_decay."
                + (" With so few held-out rows part of the gap may be chance." if few else ""),
            )
        )
    recorded = history.keys()
    errors = next(([v for v in history[k] if math.isfinite(v)] for k in ("val_mse", "mse") if k in recorded), [])
    if history.stop_reason.startswith("reached max") and len(errors) >= 4:
        before, last = errors[len(errors) // 2 - 1], errors[-1]
        if last > 0 and before > 1.15 * last and min(errors) > 0.98 * last:
            limit = "max_time" if "max_time" in history.stop_reason else "max_epochs"
            found.append(
                Advice(
                    "Training was cut short",
                    f"The error was still falling when training {history.stop_reason}: the second half of the epochs "
                    f"brought it down by {percent(1 - last / before)}. Raise {limit}.",
                )
            )
    if history.stop_reason == "interrupted":
        found.append(
            Advice("Training was interrupted", "The weights are those of the best epoch until then. Fit again.")
        )
    recoveries = [event for event in history.events if "not finite" in event]
    if recoveries:
        found.append(
            Advice(
                "The loss was not finite at times",
                f"Training went back to good weights {_times(len(recoveries))}, at a lower learning rate. Lower "
                "learning_rate, set gradient_clip=1, or look for extreme values in the data (scale='quantile').",
            )
        )
    return found


def _code(facts: Facts) -> list[Advice]:
    units = facts.units
    if units.n_active is None:
        return []
    total, active = len(units.variance), units.n_active
    if units.variational and active == 0:
        return [
            Advice(
                "The code has collapsed",
                "No unit carries information: each row gets the same code, and the decoder returns an average. Lower beta, "
                "let the KL term rise slowly (kl_warmup=0.5), or give each unit some free nats (free_bits=0.1).",
            )
        ]
    if units.variational and active < total / 2:
        return [
            Advice(
                "Much of the code is unused",
                f"Only {active} of {total} units are active. If the reconstruction is good, the data need no more, and a "
                f"smaller latent_dim does the same. If not, lower beta, raise kl_warmup, or set free_bits=0.1.",
            )
        ]
    if active == 0:
        return [
            Advice(
                "The code is constant",
                "Each row gets the same code. Train longer, lower the penalties, or try another learning_rate.",
            )
        ]
    if active < total / 2:
        return [
            Advice(
                "Many units are dead",
                f"Only {active} of {total} units vary between rows. A smaller latent_dim would do; for a sparse model "
                "lower sparsity_weight.",
                serious=False,
            )
        ]
    return []


def _reconstruction(facts: Facts) -> list[Advice]:
    found = []
    explained, yardstick = facts.explained, facts.yardstick
    variational = facts.units.variational
    if explained is not None and explained < 0.01:
        found.append(
            Advice(
                "The reconstruction is no better than the mean",
                "The model has learned next to nothing of these rows. If they are of the kind it was trained on, train "
                "longer, or look for extreme values that dominate the scaling.",
            )
        )
    elif explained is not None and yardstick.explained is not None:
        lost, lost_by_pca = 1 - explained, 1 - yardstick.explained
        if lost > 1.1 * lost_by_pca and lost - lost_by_pca > 0.01:
            why = (
                "A variational model pays for a simple code with some detail, so a gap is no surprise; a lower beta or more "
                "epochs narrow it."
                if variational
                else "Train longer, widen hidden, or lower what holds the model back (penalties, noise, weight_decay)."
            )
            found.append(
                Advice(
                    "Principal components rebuild these rows better",
                    f"With as many numbers a row, PCA keeps {percent(yardstick.explained)} of the variance and this model "
                    f"{percent(explained)}. {why}",
                    serious=not variational,
                )
            )
    if explained is not None and 0.01 <= explained < 0.5 and not found:
        less = "a lower beta, " if variational else ""
        found.append(
            Advice(
                "The code keeps less than half of the variance",
                f"{percent(explained)} survives. Where that is too little: a larger latent_dim, {less}or longer training.",
                serious=False,
            )
        )
    if facts.picture_shape is None and facts.series_shape is None and facts.model.schema_.size >= 10:
        order = np.argsort(-facts.features.loss_share)
        few = max(1, facts.model.schema_.size // 10)
        share = float(facts.features.loss_share[order[:few]].sum())
        if share > 0.5:
            names = ", ".join(facts.names[j] for j in order[: min(few, 3)])
            more = f" and {few - 3} more" if few > 3 else ""
            found.append(
                Advice(
                    "A few columns make most of the error",
                    f"{names}{more}: {percent(share)} of the loss. Heavy tails are a common cause: take logarithms, or use "
                    "scale='quantile'.",
                    serious=False,
                )
            )
    return found


def _data(facts: Facts) -> list[Advice]:
    found = []
    told = facts.raw.condition
    unknown = 0.0 if told is None else float(np.isnan(told).any(axis=1).mean())
    if unknown:
        found.append(
            Advice(
                "The condition is not known",
                f"The model was fitted with a condition, and {percent(unknown)} of these rows came without it: what is shown of "
                "them is what the model makes of a row whose condition nobody told. Hand it over with condition= "
                "(--labels on the command line).",
            )
        )
    if facts.holes > 0.2:
        found.append(
            Advice(
                "Many cells are missing",
                f"{percent(facts.holes)} of the cells have no value. They are left out of every error here; columns with "
                "few values are learned from few rows.",
                serious=False,
            )
        )
    constant = np.flatnonzero(facts.features.constant)
    if facts.n > 1 and facts.picture_shape is None and facts.series_shape is None and len(constant):
        names = ", ".join(facts.names[j] for j in constant[:5])
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        found.append(
            Advice(
                "Some columns are constant",
                f"{names}{more}: one value in all rows. They do no harm, and can be dropped.",
                serious=False,
            )
        )
    if facts.detector is not None:
        flagged = float((facts.scores < facts.detector.offset_).mean())
        if flagged > 0.2:
            found.append(
                Advice(
                    "A large share of the rows is flagged",
                    f"{percent(flagged)} of these rows score below the threshold. If they are not expected to be anomalies, "
                    "the data have changed since fit, or contamination is set too high.",
                )
            )
    return found


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
