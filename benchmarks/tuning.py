"""What a search finds in a fixed time, beside defaults, random search and Optuna used by hand.

    python benchmarks/tuning.py [--budget 600] [--seeds 0] [--sets cardio ...] [--only search size]
                                [--methods ...] [--results FILE]

``search``   a VAE on six tables of ADBench, up to 3,000 rows each, a quarter of them for the test. Every search has the same
             space, the same held-out quarter of the other rows, and the same time, of which a fit to all of them at the end is
             part. The figure is the test log-likelihood in nats per row, by 200 importance samples.
``size``     latent_dim="search" on ten made-up tables of known dimension, flat and curved: what it finds, and its time over
             that of a fit of the right size.

Data are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). Each result is written as soon as it is
there, and what is there is not computed again. Results go to benchmarks/results/tuning.json. Several processes need a file of
results each.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import optuna

import diabolo
from diabolo import VAE, Autoencoder
from diabolo.tuning.objectives import bound
from diabolo.tuning.space import Choices, space_of
from diabolo.tuning.splits import split

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "tuning.json"
SETS = {
    "cardio": "6_cardio",
    "letter": "20_letter",
    "satellite": "30_satellite",
    "annthyroid": "2_annthyroid",
    "yeast": "47_yeast",
    "magic": "22_magic.gamma",
}
METHODS = ("defaults", "random search", "Optuna by hand", "diabolo.tune")


def rows(name):
    X = np.load(DATA / "tabular_ad" / f"{SETS[name]}.npz")["X"].astype(np.float64)
    X = X[np.random.default_rng(0).permutation(len(X))[:3000]]
    X = X[:, X.std(0) > 0]
    n = len(X) // 4
    return X[n:], X[:n]


def by_hand(A, budget, seed, sampler):
    """Search as a user of Optuna would: a loop of trials on a held-out quarter, and the best of them fitted to all rows."""
    began = time.monotonic()
    parts, space, slowest = split(VAE(), A, None, 0.25, seed, predicts=False), space_of(VAE(), "auto", sized=True), 0.0

    def objective(trial):
        params = {}
        for name, dimension in space.items():
            if isinstance(dimension, Choices):
                params[name] = dimension.values[trial.suggest_categorical(name, range(len(dimension.values)))]
            elif dimension.whole:
                params[name] = trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
            else:
                params[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        start = time.monotonic()
        value = bound(VAE(random_state=seed, **params).fit(parts.learn), parts)
        trial.set_user_attr("seconds", time.monotonic() - start)
        trial.set_user_attr("params", params)
        return value

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while time.monotonic() - began + 1.3 * slowest / 0.75 < budget or not study.trials:
        study.optimize(objective, n_trials=1)
        slowest = study.best_trial.user_attrs["seconds"]
    return VAE(random_state=seed, **study.best_trial.user_attrs["params"]).fit(A), {"trials": len(study.trials)}


def found(method, A, budget, seed):
    if method == "defaults":
        return VAE(random_state=seed).fit(A), {}
    if method == "diabolo.tune":
        best = diabolo.tune(VAE(), A, budget=budget, random_state=seed, verbose=0)
        states = [t["state"] for t in best.trials]
        return best.estimator, {"trials": len(states), "pruned": states.count("pruned"), "overhead": best.overhead}
    made = optuna.samplers.RandomSampler if method == "random search" else optuna.samplers.TPESampler
    return by_hand(A, budget, seed, made(seed=seed))


def search(name, method, budget, seed):
    A, B = rows(name)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, more = found(method, A, budget, seed)
    seconds = time.monotonic() - began
    value = float(model.log_likelihood(B, n_samples=200, random_state=0).mean())
    return {"test": value, "seconds": seconds, "budget": budget, **more}


def made_up(kind, d, features, n, seed):
    """Rows of known dimension, with noise of a twentieth of the spread of each column."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    X = z @ rng.normal(size=(d, features))
    if kind == "curved":
        bent = np.tanh(z @ rng.normal(size=(d, features)) / np.sqrt(d)) @ rng.normal(size=(features, features))
        X = 1.2 * bent / np.sqrt(features) + 0.5 * X
    return X + 0.05 * X.std(axis=0) * rng.normal(size=X.shape)


def size(kind, d, features, n, seed):
    X = made_up(kind, d, features, n, seed)
    began = time.process_time()
    Autoencoder(d, random_state=seed).fit(X)
    once = time.process_time() - began
    began = time.process_time()
    model = Autoencoder("search", random_state=seed).fit(X)
    return {
        "found": model.latent_dim_,
        "times": (time.process_time() - began) / once,
        "curve": model.choices_["latent_dim_curve"],
    }


CASES = [("flat", d, 30, 1000) for d in (1, 3, 6, 12, 20)] + [("curved", d, 30, 2000) for d in (1, 2, 3, 4, 6)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=float, default=600)
    parser.add_argument("--only", nargs="+", default=["size", "search"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    jobs = []
    if "size" in given.only:
        jobs += [(f"size/{case[0]}/{case[1]}", size, (*case, i)) for i, case in enumerate(CASES)]
    if "search" in given.only:
        jobs += [
            (f"search/{name}/{seed}/{method}", search, (name, method, given.budget, seed))
            for seed in given.seeds
            for name in given.sets
            for method in given.methods
        ]
    for key, function, arguments in jobs:
        if key in (json.loads(given.results.read_text()) if given.results.exists() else {}):
            continue
        result = function(*arguments)
        results = json.loads(given.results.read_text()) if given.results.exists() else {}
        results[key] = result
        given.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(key, json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
