"""Missing cells filled: our imputer beside means, neighbours, chained equations, trees, and the imputers of other packages.

    python benchmarks/imputation.py [--only uci gain real mixed fidelity] [--seeds 1] [--sets boston] [--methods diabolo]
                                    [--ways MCAR MAR MNAR new] [--render]

``uci``    small tables, half of the cells missing at random (MCAR, the protocol of MIWAE: filled rows are those of fit, mean
           squared error of hidden cells on standardised columns); the same with 30 % missing depending on columns that are
           always there (MAR) or on the cell itself (MNAR), by a logistic model; and 30 % of the rows, not there in fit (``new``).
``gain``   letter and spam, 20 % MCAR, root mean squared error on columns scaled to [0, 1] (the protocol of GAIN).
``real``   California housing and Beijing air, which have holes of their own; 20 % of the other cells are hidden on top.
``mixed``  Adult, bank marketing and credit default, 5,000 rows each, labels and numbers, 30 % MCAR: accuracy of labels, error of
           numbers, and gradient boosting trained on the filled rows and judged by 5,000 whole ones (area under the curve).
``fidelity`` the same tables, 10,000 rows to learn from and 5,000 to judge by: how much of labels and numbers our default VAE and
           autoencoder rebuild, beside as many principal components of one-hot labels and standardised numbers, and whether
           columns come back with their names, order, types and categories.

Every set has one seed for masks and methods unless --seeds says more; seeds count from 1, because the settings of our models were
chosen by the error of the small tables' cells under the masks of seed 0. "trees" is scikit-learn's IterativeImputer with 100
extremely randomised trees, ten rounds, what others call missForest. One thread for everybody; seconds are CPU seconds of fit and
filling; columns are standardised for those that do not do it themselves. Peers are found through DIABOLO_PEERS, a folder of
virtual environments, as $DIABOLO_PEERS/NAME/bin/python, data through DIABOLO_BENCH_DATA (default ../shared/data). Each result is
kept in benchmarks/results/imputation.json as soon as it is there, and is not made again. --render writes docs/imputation.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, HistGradientBoostingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from diabolo import VAE, Autoencoder, Imputer
from diabolo.tasks.fillers import usual_models

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "imputation.json"
PAGE = Path(__file__).parents[1] / "docs" / "imputation.md"
DRAWS = 100


# data -------------------------------------------------------------------------------------------------------------------------


def uci():
    """Small tables by name, features and target side by side."""
    found = {"breast": load_breast_cancer().data}
    for name, file in (("boston", "bostonHousing"), ("concrete", "concrete"), ("energy", "energy")):
        data = np.load(DATA / "tables" / f"uci_{file}.npz")
        found[name] = np.column_stack([data["X"], data["y"]]).astype(float)
    with gzip.open(DATA / "tables" / "winequality-red.csv.gz", "rt") as file:
        found["red wine"] = pd.read_csv(file, sep=None, engine="python").select_dtypes("number").to_numpy(float)
    found["yeast"] = np.load(DATA / "tabular_ad" / "47_yeast.npz")["X"].astype(float)
    return found


def hide(X, how, share, rng):
    """Draw which cells are missing; no row loses all."""
    if how == "MCAR":
        gone = rng.random(X.shape) < share
    else:
        Z = (X - X.mean(0)) / X.std(0)
        if how == "MAR":  # a third of the columns is always there and says what else is
            kept = rng.permutation(X.shape[1])[: max(1, X.shape[1] // 3)]
            drive = Z[:, kept] @ rng.normal(size=(len(kept), X.shape[1])) / np.sqrt(len(kept))
        else:
            kept, drive = np.zeros(0, int), Z * rng.choice([-1, 1], X.shape[1])
        low, high = np.full(X.shape[1], -20.0), np.full(X.shape[1], 20.0)
        for _ in range(50):  # the intercept at which the share is as asked for
            middle = (low + high) / 2
            above = (1 / (1 + np.exp(-(2 * drive + middle)))).mean(0) > share
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        gone = rng.random(X.shape) < 1 / (1 + np.exp(-(2 * drive + middle)))
        gone[:, kept] = False
    bare = gone.all(1)
    gone[bare, rng.integers(X.shape[1], size=bare.sum())] = False
    return gone


# methods ----------------------------------------------------------------------------------------------------------------------


def sklearn_methods(seed):
    """Fill with scikit-learn: imputers by name."""
    trees = ExtraTreesRegressor(100, random_state=seed, n_jobs=1)
    return {
        "mean": SimpleImputer(),
        "kNN": KNNImputer(),
        "MICE (ridge)": IterativeImputer(BayesianRidge(), max_iter=10, random_state=seed),
        "trees": IterativeImputer(trees, max_iter=10, random_state=seed),
    }


def our_methods(seed, n, width):
    """Fill with our imputers, by name: the usual one, and each of the two models that it averages."""
    models = usual_models("vector", n, width)
    return {
        "diabolo": Imputer(random_state=seed),
        "diabolo, masked": Imputer(models[0], random_state=seed),
        "diabolo, IWAE": Imputer(models[1], random_state=seed),
    }


METHODS = ("diabolo", "diabolo, masked", "diabolo, IWAE", "mean", "kNN", "MICE (ridge)", "trees")
PEER_METHODS = {
    "hyperimpute": ("hyperimpute", "hyperimpute"),
    "hyperimpute MIWAE": ("hyperimpute", "miwae"),
    "hyperimpute GAIN": ("hyperimpute", "gain"),
    "MIDAS": ("midas", "midas"),
}


def fill(method, train, test, seed):
    """Return the filled rows, CPU seconds, and of ours the imputer; the rows of fit are filled where ``test`` is None."""
    if method in PEER_METHODS:
        name, plugin = PEER_METHODS[method]
        python = PEERS / name / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError(f"{python} is not there")
        with tempfile.TemporaryDirectory() as folder:
            rows, out = Path(folder) / "rows.npz", Path(folder) / "out.npz"
            np.savez(rows, train=train, test=train if test is None else test)
            script = Path(__file__).parent / "peers" / "imputers.py"
            command = [python, script, plugin, rows, out, str(seed), str(int(test is None))]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
            run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500, check=False)
            if run.returncode:
                raise RuntimeError(run.stderr.strip().splitlines()[-1][:200] if run.stderr else "failed")
            found = np.load(out)
            return found["filled"], float(found["seconds"]), None
    model = (our_methods(seed, *train.shape) | sklearn_methods(seed))[method]
    ours = isinstance(model, Imputer)
    center, width = np.nanmean(train, 0), np.nanstd(train, 0)
    center, width = (0.0, 1.0) if ours else (center, np.where(width > 0, width, 1.0))  # ours scales by itself
    began = time.process_time()
    model.fit((train - center) / width)
    filled = np.asarray(model.transform(((train if test is None else test) - center) / width)) * width + center
    return filled, time.process_time() - began, model if ours else None


def coverage(imputer, holes, truth, gone):
    """Share of the hidden cells within the middle 90 % of the draws."""
    draws = np.stack(imputer.draw(holes, DRAWS, random_state=0))
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return float(((low <= truth) & (truth <= high))[gone].mean())


# parts ------------------------------------------------------------------------------------------------------------------------


def numeric(store, options, name, X, how, share, scale):
    """Fill a table of numbers in one way of missing, by every method."""
    for seed in range(1, 1 + options.seeds):
        rng = np.random.default_rng(seed)
        whole = ~np.isnan(X)
        gone = hide(np.where(whole, X, np.nanmean(X, 0)), "MCAR" if how == "new" else how, share, rng) & whole
        holes = np.where(gone, np.nan, X)
        train, test = holes, None
        if how == "new":
            order = rng.permutation(len(X))
            held = order[: int(0.3 * len(X))]
            train, test = holes[order[len(held) :]], holes[held]
            gone, truth = gone[held], X[held]
        else:
            truth = X
        width = np.nanstd(X, 0) if scale == "standard" else np.nanmax(X, 0) - np.nanmin(X, 0)
        for method in (*METHODS, *PEER_METHODS):
            if options.methods and method not in options.methods:
                continue
            key = f"{name} | {how} {share:.0%} | {method} | {seed}"
            if key in store:
                continue
            try:
                filled, seconds, ours = fill(method, train, test, seed)
                error = float(np.mean(np.square((filled - truth) / width)[gone]))
                row = {"mse": error, "rmse": error**0.5, "seconds": seconds}
                if ours is not None:
                    row["coverage of 90 %"] = coverage(ours, train if test is None else test, truth, gone)
            except (RuntimeError, ValueError, FileNotFoundError, subprocess.TimeoutExpired) as problem:
                row = {"error": f"{type(problem).__name__}: {problem}"[:200]}
            keep(store, key, row)


def uci_part(store, options):
    """Small tables."""
    for name, X in uci().items():
        if options.sets and name not in options.sets:
            continue
        for how, share in (("MCAR", 0.5), ("MAR", 0.3), ("MNAR", 0.3), ("new", 0.3)):
            if options.ways and how not in options.ways:
                continue
            numeric(store, options, name, X, how, share, "standard")


def gain_part(store, options):
    """Letter and spam, as GAIN has them."""
    for name in ("letter", "spam"):
        if options.sets and name not in options.sets:
            continue
        numeric(
            store,
            options,
            name,
            np.load(DATA / "tables" / f"gain_{name}.npz")["X"].astype(float),
            "MCAR",
            0.2,
            "minmax",
        )


def real_part(store, options):
    """Tables with holes of their own."""
    files = {"california": "california_housing.csv.gz", "beijing": "beijing_pm25.csv.gz"}
    for name, file in files.items():
        if options.sets and name not in options.sets:
            continue
        frame = pd.read_csv(DATA / "tables" / file).select_dtypes("number")
        X = frame.drop(columns=[c for c in ("No",) if c in frame]).to_numpy(float)
        X = X[np.random.default_rng(0).permutation(len(X))[:5000]]
        numeric(store, options, name, X, "MCAR", 0.2, "standard")


TARGETS = {"adult": "income", "bank": "y", "credit": "class"}


def mixed_table(name, n, seed):
    """``n`` rows of a table with labels and numbers, and 5,000 others to judge by."""
    if name == "adult":
        names = "age workclass fnlwgt education education_num marital occupation relationship race sex gain loss hours country"
        columns = [*names.split(), "income"]
        frame = pd.read_csv(
            DATA / "tables" / "adult-train.csv.gz", names=columns, skipinitialspace=True, na_values="?"
        ).dropna()
    elif name == "bank":
        frame = pd.read_csv(DATA / "tables" / "bank_full.csv.gz", sep=";")
    else:
        frame = pd.read_csv(DATA / "tables" / "credit_default.csv.gz").drop(columns="ID")
        coded = ["SEX", "EDUCATION", "MARRIAGE", "class"]
        frame[coded] = frame[coded].astype(str)
    frame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    return frame[:n], frame[n : n + 5000]


def forest_fill(holes, labels, seed):
    """Fill a mixed table by trees, column by column, three rounds: missForest."""
    codes = pd.DataFrame({c: pd.Categorical(holes[c]).codes if c in labels else holes[c] for c in holes})
    gone = holes.isna().to_numpy()
    values = codes.to_numpy(float)
    for j, c in enumerate(holes):
        seen = values[~gone[:, j], j]
        values[gone[:, j], j] = np.bincount(seen.astype(int)).argmax() if c in labels else seen.mean()
    for _ in range(3):
        for j, c in enumerate(holes):
            if not gone[:, j].any():
                continue
            rest = np.delete(values, j, 1)
            model = (ExtraTreesClassifier if c in labels else ExtraTreesRegressor)(50, random_state=seed, n_jobs=1)
            model.fit(rest[~gone[:, j]], values[~gone[:, j], j])
            values[gone[:, j], j] = model.predict(rest[gone[:, j]])
    out = holes.copy()
    for j, c in enumerate(holes):
        column = (
            np.asarray(pd.Categorical(holes[c]).categories)[values[:, j].astype(int)] if c in labels else values[:, j]
        )
        out[c] = np.where(gone[:, j], column, holes[c])
    return out


def mixed_part(store, options):
    """Labels and numbers."""
    for name, seed in [(name, seed) for name in TARGETS for seed in range(1, 1 + options.seeds)]:
        if options.sets and name not in options.sets:
            continue
        frame, judge = mixed_table(name, 5000, seed)
        target = TARGETS[name]
        labels = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
        numbers = [c for c in frame if c not in labels]
        rng = np.random.default_rng(seed)
        gone = rng.random(frame.shape) < 0.3
        gone[:, -1] = False  # what the classifier is to say
        holes = frame.mask(gone)
        for method in ("whole", "diabolo", "diabolo, average with an IWAE", "mode and mean", "trees"):
            key = f"{name} | MCAR 30% | {method} | {seed}"
            if key in store or (options.methods and method not in options.methods):
                continue
            began = time.process_time()
            if method == "whole":
                full = frame
            elif method == "mode and mean":
                full = holes.fillna({c: holes[c].mode()[0] if c in labels else holes[c].mean() for c in holes})
            elif method == "trees":
                full = forest_fill(holes, labels, seed)
            else:
                average = None if method == "diabolo" else tuple(usual_models("vector", *holes.shape))
                full = Imputer(average, random_state=seed).fit(holes).transform(holes)
            row = {"seconds": time.process_time() - began}
            hidden = {c: gone[:, j] for j, c in enumerate(frame)}
            asked = [c for c in labels if c != target]
            row["accuracy"] = float(np.mean(np.concatenate([(full[c] == frame[c])[hidden[c]] for c in asked])))
            off = [(((full[c].astype(float) - frame[c]) / frame[c].std()) ** 2)[hidden[c]] for c in numbers]
            row["mse"] = float(np.mean(np.concatenate(off)))
            both = pd.concat([full, judge])
            for c in labels:
                both[c] = pd.Categorical(both[c]).codes
            X, y = both.drop(columns=target).to_numpy(float), both[target].to_numpy()
            trained = HistGradientBoostingClassifier(random_state=0).fit(X[: len(full)], y[: len(full)])
            row["auc of a classifier"] = float(
                roc_auc_score(y[len(full) :], trained.predict_proba(X[len(full) :])[:, 1])
            )
            keep(store, key, row)


def components(frame, judge, labels, numbers, k):
    """Rebuild rows from ``k`` principal components of one-hot labels and standardised numbers."""
    scaler, coder = StandardScaler().fit(frame[numbers]), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    coder.fit(frame[labels])
    features = [np.hstack([scaler.transform(f[numbers]), coder.transform(f[labels])]) for f in (frame, judge)]
    pca = PCA(k, random_state=0).fit(features[0])
    back = pca.inverse_transform(pca.transform(features[1]))
    out = pd.DataFrame(scaler.inverse_transform(back[:, : len(numbers)]), columns=numbers)
    start = len(numbers)
    for c, categories in zip(labels, coder.categories_, strict=True):
        out[c] = categories[back[:, start : start + len(categories)].argmax(1)]
        start += len(categories)
    return out


def fidelity_part(store, options):
    """How much of a mixed table a code keeps."""
    for name, seed in [(name, seed) for name in TARGETS for seed in range(1, 1 + options.seeds)]:
        if options.sets and name not in options.sets:
            continue
        frame, judge = (f.reset_index(drop=True) for f in mixed_table(name, 10_000, seed))
        labels = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
        numbers = [c for c in frame if c not in labels]
        for method in ("VAE", "Autoencoder", "principal components"):
            key = f"{name} | fidelity | {method} | {seed}"
            if key in store:
                continue
            began = time.process_time()
            if method == "principal components":
                k = VAE()._code_width(VAE(max_epochs=1).fit(frame[:500]).schema_)
                back = components(frame, judge, labels, numbers, k)
            else:
                back = {"VAE": VAE, "Autoencoder": Autoencoder}[method](random_state=seed).fit(frame).reconstruct(judge)
            row = {"seconds": time.process_time() - began}
            row["labels"] = float(np.mean([(back[c] == judge[c]).mean() for c in labels]))
            row["labels, mode"] = float(np.mean([(judge[c] == frame[c].mode()[0]).mean() for c in labels]))
            row["numbers, R2"] = float(np.mean([r2_score(judge[c], back[c]) for c in numbers]))
            row["types"] = list(back.columns) == list(judge.columns) and back.dtypes.equals(judge.dtypes)
            keep(store, key, row)


def keep(store, key, row):
    """Keep a result, and say it."""
    if RESULTS.exists():  # another process may be at work on other methods
        store |= json.loads(RESULTS.read_text())
    store[key] = row
    shown = "  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(f"  {key:60s} {shown}", flush=True)
    RESULTS.write_text(json.dumps(store, indent=1) + "\n")


PARTS = {"uci": uci_part, "gain": gain_part, "real": real_part, "mixed": mixed_part, "fidelity": fidelity_part}


def render(store):
    """Return a page of the results."""
    titles = {
        "MCAR 50%": "Half of the cells missing at random (MCAR)",
        "MAR 30%": "30 % missing, depending on columns that are there (MAR)",
        "MNAR 30%": "30 % missing, depending on the cells themselves (MNAR)",
        "new 30%": "Rows that were not there in fit, 30 % of their cells missing",
    }
    groups = {title: {} for title in titles.values()}
    for key, row in store.items():
        name, how, method, _ = key.split(" | ")
        title = titles.get(how, "Holes of their own, 20 % of the other cells hidden on top")
        if name in ("letter", "spam"):
            title = "20 % missing at random, root mean squared error on [0, 1]"
        title = ("fidelity" if how == "fidelity" else "mixed") if name in TARGETS else title
        groups.setdefault(title, {}).setdefault(name, {}).setdefault(method, []).append(row)
    lines = [
        "# Missing cells filled",
        "",
        "Written by `python benchmarks/imputation.py --render` from",
        "[benchmarks/results/imputation.json](../benchmarks/results/imputation.json); the script says what is measured, and how.",
        "Mean squared errors of hidden cells on standardised columns unless said otherwise, CPU seconds on one thread, one",
        "seed that served for no choice. `diabolo` is `Imputer()`: of numbers the average of a masked autoencoder and an IWAE,",
        "which have rows of their own, of tables with labels the former alone. The last column is the share of hidden cells",
        "within the middle 90 % of 100 draws. Where what is",
        "missing depends on the missing value itself, no method that learns from observed cells knows how far off it is.",
        "",
    ]
    for how, sets in groups.items():
        measure = "rmse" if set(sets) <= {"letter", "spam"} else "mse"
        if not sets:
            continue
        order = (*METHODS, *PEER_METHODS)
        methods = list(dict.fromkeys(m for rows in sets.values() for m in rows))
        methods.sort(key=lambda m: order.index(m) if m in order else -1)
        if how in ("mixed", "fidelity"):
            filled = how == "mixed"
            title = "Labels and numbers, 30 % missing at random" if filled else "How much of a mixed table a code keeps"
            names = (
                ("accuracy", "mse", "auc of a classifier", "seconds")
                if filled
                else ("labels", "numbers, R2", "seconds")
            )
            lines += [f"## {title}", "", "| | " + " | ".join(f"{n}: {m}" for n in sets for m in names) + " |"]
            lines.append("|" + "---|" * (len(sets) * len(names) + 1))
            for method in methods:
                cells = [np.mean([r[m] for r in sets[n][method]]) for n in sets for m in names]
                lines.append(f"| {method} | " + " | ".join(f"{c:.3f}" if c < 10 else f"{c:.0f}" for c in cells) + " |")
            if not filled:
                mode = ", ".join(f"{np.mean([r['labels, mode'] for r in rows['VAE']]):.3f}" for rows in sets.values())
                kept = all(r["types"] for rows in sets.values() for m in ("VAE", "Autoencoder") for r in rows[m])
                lines += [
                    "",
                    f"The most frequent label is right for {mode}. Names, order, types and categories of columns come",
                ]
                lines.append(f"back {'in all of ours' if kept else 'NOT in all of ours'}.")
            lines.append("")
            continue
        lines += [
            f"## {how}",
            "",
            "| | " + " | ".join(sets) + " | mean | seconds | coverage of 90 % |",
            "|" + "---|" * (len(sets) + 4),
        ]
        for method in methods:
            cells, seconds, covered = [], [], []
            for rows in (sets[name].get(method, []) for name in sets):
                good = [r for r in rows if "error" not in r]
                cells.append(np.mean([r[measure] for r in good]) if good else np.nan)
                seconds += [r["seconds"] for r in good]
                covered += [r["coverage of 90 %"] for r in good if "coverage of 90 %" in r]
            shown = " | ".join("failed" if np.isnan(c) else f"{c:.3f}" for c in cells)
            mean = f"{np.mean(cells):.3f}" if not np.isnan(cells).any() else ""
            said = f"{np.mean(covered):.2f}" if covered else ""
            lines.append(f"| {method} | {shown} | {mean} | {np.mean(seconds) if seconds else np.nan:.1f} | {said} |")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--ways", nargs="+", choices=("MCAR", "MAR", "MNAR", "new"), help="of uci")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    store = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        PAGE.write_text(render(store))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in options.only:
        PARTS[name](store, options)


if __name__ == "__main__":
    sys.exit(main())
