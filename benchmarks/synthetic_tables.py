"""Synthetic tables: a classifier that learns from them, tested on real rows; detection and privacy; beside ctgan's models.

    python benchmarks/synthetic_tables.py [--data adult credit] [--methods diabolo TVAE CTGAN copula real] [--epochs 300]
    python benchmarks/synthetic_tables.py --render

Adult (32,561 rows to learn from, its own test set of 16,281) and default of credit cards (a tenth of 30,000 rows for the test)
are read from the folder named by DIABOLO_BENCH_DATA. Everybody makes as many rows as it learned from. Gradient boosting of
scikit-learn with its defaults learns to predict the class from these rows, and is judged on the real test rows: AUC, macro F1.
Then ``compare_tables`` judges synthetic against real rows: columns, pairs, detection, distances, membership, the test set being
the rows held out. "real" is the same with the real rows of training; its detection and privacy are those of their one half beside
the other. "copula" is a Gaussian copula of ranks. ctgan's models have their defaults and the epochs named (300 is their default).
One thread each; seconds of fit and sample are of the processor (of our rows from all of Adult those that passed on a GPU).
Nothing was chosen by test rows: our defaults were chosen by held-out training rows. Results are kept in
benchmarks/results/synthetic_tables.json; --render writes docs/synthetic_tables.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score, roc_auc_score

from diabolo import TableSynthesizer, compare_tables

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data")) / "tables"
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "synthetic_tables.json"
PAGE = Path(__file__).parents[1] / "docs" / "synthetic_tables.md"
# fmt: off
ADULT = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
)
# fmt: on
TARGET = {"adult": "income", "credit": "class"}
METHODS = ("real", "diabolo", "TVAE", "CTGAN", "copula")


def load(name):
    """Return rows of training and of test, and the columns of labels."""
    if name == "adult":
        options = {"header": None, "names": list(ADULT), "skipinitialspace": True, "na_values": "?"}
        train, test = (pd.read_csv(DATA / f"adult-{part}.csv.gz", **options) for part in ("train", "test"))
        train, test = (part[part["income"].notna()].reset_index(drop=True) for part in (train, test))
        test["income"] = test["income"].str.rstrip(".")
        for part in (train, test):
            for column in ADULT:
                if not pd.api.types.is_numeric_dtype(part[column]):
                    part[column] = part[column].fillna("?")  # a label, as ctgan takes no missing cells
        labels = [c for c in ADULT if not pd.api.types.is_numeric_dtype(train[c])]
        whole = {c: "int64" for c in ADULT if c not in labels}
        return train.astype(whole), test.astype(whole), labels
    rows = pd.read_csv(DATA / "credit_default.csv.gz").drop(columns="ID")
    labels = [
        "SEX",
        "EDUCATION",
        "MARRIAGE",
        *(c for c in rows if c.startswith("PAY_") and "AMT" not in c),
        TARGET[name],
    ]
    rows[labels] = rows[labels].astype(int).astype(str)
    order = np.random.default_rng(0).permutation(len(rows))
    cut = len(rows) // 10
    return rows.iloc[order[cut:]].reset_index(drop=True), rows.iloc[order[:cut]].reset_index(drop=True), labels


def diabolo_rows(train, labels, epochs, seed):
    began = time.process_time()
    synthesizer = TableSynthesizer(random_state=seed).fit(train)
    fit = time.process_time() - began
    began = time.process_time()
    made = synthesizer.sample(len(train), random_state=seed)
    return made, {"fit": fit, "sample": time.process_time() - began}


def ctgan_rows(model):
    def run(train, labels, epochs, seed):
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: str(Path(folder) / name) for name in ("rows", "out", "times", "job")}
            train.to_csv(paths["rows"], index=False)
            job = {**paths, "model": model, "labels": labels, "epochs": epochs, "seed": seed, "n": len(train)}
            Path(paths["job"]).write_text(json.dumps(job))
            script = Path(__file__).parent / "peers" / "ctgan_tables.py"
            call = [PEERS / "ctgan" / "bin" / "python", script, paths["job"]]
            subprocess.run([str(c) for c in call], check=True, stderr=subprocess.DEVNULL)
            made = pd.read_csv(paths["out"], keep_default_na=False, dtype=dict.fromkeys(labels, str))
            return made, json.loads(Path(paths["times"]).read_text())

    return run


def copula_rows(train, labels, epochs, seed):
    """Draw from a Gaussian copula: ranks of numbers, and of labels as they are numbered, are those of a normal vector."""
    rng, began = np.random.default_rng(seed), time.process_time()
    numbers = np.column_stack([pd.factorize(train[c], sort=True)[0] if c in labels else train[c] for c in train])
    jittered = numbers + rng.random(numbers.shape) * 1e-6
    normal = norm.ppf((np.apply_along_axis(rankdata, 0, jittered) - 0.5) / len(train))
    drawn = norm.cdf(rng.multivariate_normal(np.zeros(numbers.shape[1]), np.corrcoef(normal.T), len(train)))
    made = {}
    for j, c in enumerate(train):
        cells = np.quantile(numbers[:, j], drawn[:, j], method="nearest")
        made[c] = np.sort(train[c].unique())[cells.astype(int)] if c in labels else cells.astype(train[c].dtype)
    return pd.DataFrame(made), {"fit": time.process_time() - began, "sample": 0.0}


def judge(name, train, test, made, labels, held_out, seed):
    """Return what the synthetic rows are worth."""
    target = TARGET[name]
    positive = sorted(train[target].unique())[1]
    levels = {c: {v: i for i, v in enumerate(sorted(set(train[c]) | set(test[c])))} for c in labels}

    def features(frame):
        coded = {c: frame[c].map(levels[c]) if c in labels else frame[c] for c in train if c != target}
        return pd.DataFrame(coded).astype(float)

    categorical = [c for c in labels if c != target]
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed)
    if made[target].nunique() < 2:
        auc, f1 = 0.5, 0.0
    else:
        chance = model.fit(features(made), made[target] == positive).predict_proba(features(test))[:, 1]
        auc = roc_auc_score(test[target] == positive, chance)
        f1 = f1_score(test[target] == positive, chance > 0.5, average="macro")
    found = compare_tables(train, made, held_out, random_state=seed)
    measures = {
        k: getattr(found, k) for k in ("pairs", "detection", "closest", "closest_held_out", "copies", "membership")
    }
    return {"auc": auc, "f1": f1, "marginals": float(np.mean(list(found.marginals.values()))), **measures}


def run(name, method, epochs, seed, rows):
    train, test, labels = load(name)
    if rows:
        train = train.sample(rows, random_state=seed).reset_index(drop=True)
    if method == "real":
        half = len(train) // 2
        order = np.random.default_rng(seed).permutation(len(train))
        one, two = (train.iloc[order[part]].reset_index(drop=True) for part in (slice(half), slice(half, None)))
        found = judge(name, one, test, two, labels, test, seed)
        whole = judge(name, train, test, train, labels, test, seed)
        return found | {"auc": whole["auc"], "f1": whole["f1"], "fit": 0.0, "sample": 0.0}
    make = {"diabolo": diabolo_rows, "copula": copula_rows}.get(method) or ctgan_rows(method)
    made, seconds = make(train, labels, epochs, seed)
    return judge(name, train, test, made, labels, test, seed) | seconds


def render(results):
    lines = [
        "# Synthetic tables",
        "",
        "Made by `benchmarks/synthetic_tables.py`, which says how. AUC and macro F1 are of gradient boosting that learned from",
        "the synthetic rows, on real test rows. Columns and pairs say how far distributions are off, detection how well they are",
        "told from real ones (0.5 is chance). Closest is the median distance to the closest row of training, in parentheses",
        "that of real test rows; membership tells rows of training from test rows by the closest synthetic row (0.5 is chance).",
        "Means over seeds. Seconds of fit and sample are of one thread of the processor; of our rows from all of Adult they are",
        "those that passed on an H200, which some 25 other processes shared.",
    ]
    for name in sorted({key.split(" | ")[0] for key in results}):
        rows = {k: v for k, v in results.items() if k.startswith(f"{name} | ")}
        if not rows:
            continue
        head = "| rows from | seeds | AUC | macro F1 | columns | pairs | detection | closest | copies | membership | seconds |"
        lines += ["", f"## {name}", "", head, "|---|---|---|---|---|---|---|---|---|---|---|"]
        groups: dict[str, list[dict[str, float]]] = {}
        for key, found in rows.items():
            _, method, epochs, _ = key.split(" | ")
            groups.setdefault(method + (f", {epochs} epochs" if method in ("TVAE", "CTGAN") else ""), []).append(found)
        for method in sorted(groups, key=lambda m: METHODS.index(m.split(",")[0])):
            found = groups[method]
            mean = {k: np.mean([r[k] for r in found]) for k in found[0]}
            cells = [f"{mean[k]:.3f}" for k in ("auc", "f1", "marginals", "pairs", "detection")]
            cells += [f"{mean['closest']:.2f} ({mean['closest_held_out']:.2f})", f"{100 * mean['copies']:.1f} %"]
            cells += [f"{mean['membership']:.3f}", f"{mean['fit']:.0f} + {mean['sample']:.0f}"]
            lines.append(f"| {method} | {len(found)} | {' | '.join(cells)} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", choices=tuple(TARGET), default=list(TARGET))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=300, help="of TVAE and CTGAN")
    parser.add_argument("--rows", type=int, default=0, help="learn from so many rows of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        render(results)
        return
    for name in options.data:
        for seed in options.seeds:
            for method in options.methods:
                epochs = options.epochs if method in ("TVAE", "CTGAN") else 0
                key = f"{name}{f', {options.rows} rows' if options.rows else ''} | {method} | {epochs} | {seed}"
                if key in results:
                    continue
                found = run(name, method, epochs, seed, options.rows)
                results = (
                    json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                )  # several runs may go side by side
                results[key] = found
                print(key, json.dumps(found), flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
