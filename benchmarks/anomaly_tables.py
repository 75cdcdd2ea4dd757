"""Anomalies in tables: our detector beside neighbours, isolation forest, principal components and PyOD's autoencoders.

    python benchmarks/anomaly_tables.py [--protocols clean unsupervised dte dte-unsupervised] [--seeds 0 1 2] [--methods diabolo]
                                        [--sets 20_letter] [--render]

27 sets of ADBench and ODDS (DIABOLO_BENCH_DATA, default ../shared/data, folder tabular_ad), at most 10,000 rows of each; AUROC.

``clean``         normal rows shuffled, half of them to learn from, all others to judge. The one to believe.
``unsupervised``  all rows to learn from, without labels, and the same rows to judge.
``dte``           the published protocol of Livernoche et al. (ICLR 2024), one-class: sets of less than 1,000 rows are drawn up to
                  1,000 with replacement before the split (so that copies of a row lie on both sides), at most 50,000 rows, the
                  first half of the normal rows in the order of the file to learn from.
``dte-unsupervised`` the same with a bootstrap of the rows to learn from and all rows to judge.

"kNN" is the mean distance to five neighbours on standardised columns (unsupervised: to 32), "IForest" and "PCA" (reconstruction
error from half of the columns) are scikit-learn's, "AutoEncoder" and "VAE" PyOD's, with their defaults, run through
DIABOLO_PEERS as $DIABOLO_PEERS/pyod/bin/python. Ours is ``AnomalyDetector()``, unsupervised with ``training="contaminated"``:
one default for all sets. What was chosen by labels (the kind of model, the number of steps, the noise, the share that is left
out) was chosen on seven sets: Hepatitis, Lymphography, annthyroid, WBC, Wilt, yeast and cardio; the page has the mean over all
sets and over the other 20. Held-out normal rows also say whether the stated rate of false alarms holds. One thread for
everybody; CPU seconds. Results are kept in benchmarks/results/anomaly_tables.json; --render writes docs/anomalies.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from diabolo import AnomalyDetector

torch.set_num_threads(1)
DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "anomaly_tables.json"
PAGE = Path(__file__).parents[1] / "docs" / "anomalies.md"
CHOSEN_ON = {
    "15_Hepatitis",
    "21_Lymphography",
    "2_annthyroid",
    "42_WBC",
    "44_Wilt",
    "47_yeast",
    "6_cardio",
}
PROTOCOLS = ("clean", "unsupervised", "dte", "dte-unsupervised")
METHODS = ("diabolo", "kNN", "IForest", "PCA", "PyOD AutoEncoder", "PyOD VAE")
RATES = (0.01, 0.05)


def split(name, protocol, seed):
    """Return rows to learn from, rows to judge, and which of these are anomalies."""
    data = np.load(DATA / "tabular_ad" / f"{name}.npz")
    X, y = data["X"].astype(float), data["y"].ravel().astype(int)
    rng = np.random.default_rng(seed)
    published = protocol.startswith("dte")
    if published and len(X) < 1000:
        drawn = rng.choice(len(X), 1000)
        X, y = X[drawn], y[drawn]
    most = 50_000 if published else 10_000
    if len(X) > most:
        drawn = rng.permutation(len(X))[:most]
        X, y = X[drawn], y[drawn]
    if protocol.endswith("unsupervised"):
        return (X[rng.choice(len(X), len(X))] if published else X), X, y
    normal = np.flatnonzero(y == 0)
    normal = normal if published else rng.permutation(normal)
    half = len(normal) // 2
    rest = np.concatenate([normal[half:], np.flatnonzero(y == 1)])
    return X[normal[:half]], X[rest], y[rest]


def diabolo(train, test, protocol, seed):
    training = "contaminated" if protocol.endswith("unsupervised") else "clean"
    detector = AnomalyDetector(training=training, random_state=seed).fit(train)
    return -detector.score_samples(test), detector


def classical(method, train, test, protocol, seed):
    scaler = StandardScaler().fit(train)
    A, B = scaler.transform(train), scaler.transform(test)
    if method == "IForest":
        return -IsolationForest(random_state=seed).fit(A).score_samples(B)
    if method == "PCA":
        pca = PCA(max(1, min(A.shape[1] // 2, len(A) - 1)), random_state=seed).fit(A)
        return np.square(B - pca.inverse_transform(pca.transform(B))).sum(1)
    if protocol == "unsupervised":  # a row is none of its own neighbours
        k = min(32, len(A) - 1)
        return NearestNeighbors(n_neighbors=k).fit(A).kneighbors()[0].mean(1)
    k = min(32 if protocol.endswith("unsupervised") else 5, len(A))
    return NearestNeighbors(n_neighbors=k).fit(A).kneighbors(B)[0].mean(1)


def pyod(method, train, test, seed):
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.npz", Path(folder) / "out.npz"
        scaler = StandardScaler().fit(train)
        np.savez(rows, train=scaler.transform(train), test=scaler.transform(test))
        script = Path(__file__).parent / "peers" / "pyod_models.py"
        call = [PEERS / "pyod" / "bin" / "python", script, method.removeprefix("PyOD "), rows, out, seed]
        subprocess.run([str(c) for c in call], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = np.load(out)
        return found["scores"], float(found["seconds"])


def alarms(detector, normal):
    """For each stated rate: the realised one on rows that nobody saw, and whether it lies in its binomial 95 % band."""
    p = detector.p_values(normal)
    m, n = len(normal), len(detector.calibration_scores_)
    row = {}
    for rate in RATES:
        flagged = int((p <= rate).sum())
        k = int(np.floor(rate * (n + 1)))  # the rate of future rows below the k-th of n scores is a beta variable
        band = stats.betabinom(m, k, n + 1 - k).ppf([0.025, 0.975]) if k else (0, 0)
        row[f"alarms at {rate}"] = flagged / m
        row[f"in band at {rate}"] = bool(band[0] <= flagged <= band[1])
        low, high = stats.binom(m, rate).ppf([0.025, 0.975])
        row[f"in binomial band at {rate}"] = bool(low <= flagged <= high)
    return row


def published(protocol, names):
    """Mean AUROC of the published detectors over sets, best first; none where the table is not at hand."""
    path = DATA.parent / "references" / "adbench_dte_auroc.json"
    if not path.exists():
        return {}
    table = json.loads(path.read_text())["tables"]["unsup" if protocol.endswith("unsupervised") else "semi"]
    rows = [table[n.split("_", 1)[1].lower()] for n in names]
    means = {m: float(np.mean([r[m] for r in rows])) for m in rows[0] if all(m in r for r in rows)}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def render(results):
    groups: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {}
    for key, row in results.items():
        protocol, name, method, _ = key.split(" | ")
        groups.setdefault(protocol, {}).setdefault(name, {}).setdefault(method, []).append(row)
    lines = [
        "# Anomalies in tables",
        "",
        "Written by `python benchmarks/anomaly_tables.py --render`; the script says what is measured, and how. AUROC in",
        "hundredths, means over seeds; CPU seconds of fit and scores on one thread. `diabolo` is `AnomalyDetector()`.",
        "",
    ]
    titles = {
        "clean": "Learned from clean rows",
        "unsupervised": "Learned from the rows to be judged, without labels",
        "dte": "The published one-class protocol (DTE)",
        "dte-unsupervised": "The published unsupervised protocol (DTE)",
    }
    for protocol in PROTOCOLS:
        sets = groups.get(protocol, {})
        if not sets:
            continue
        methods = [m for m in METHODS if all(m in rows for rows in sets.values())]
        lines += [f"## {titles[protocol]}", "", "| | " + " | ".join(methods) + " |", "|" + "---|" * (len(methods) + 1)]
        auc = {n: {m: 100 * np.mean([r["auroc"] for r in rows[m]]) for m in methods} for n, rows in sets.items()}
        for name in sorted(sets, key=lambda n: n.split("_")[1].lower()):
            best = max(auc[name].values())
            shown = (f"**{v:.1f}**" if v == best else f"{v:.1f}" for v in auc[name].values())
            lines.append(f"| {name.split('_', 1)[1]} | " + " | ".join(shown) + " |")
        others = [n for n in sets if n not in CHOSEN_ON]
        known = [n for n in sets if n.split("_")[0].isdigit()]
        for title, names in (
            ("mean", list(sets)),
            ("mean of ADBench's", known),
            ("mean of sets without choices", others),
        ):
            shown = (f"{np.mean([auc[n][m] for n in names]):.2f}" for m in methods)
            lines.append(f"| {title} ({len(names)}) | " + " | ".join(shown) + " |")
        seconds = (f"{np.mean([r['seconds'] for rows in sets.values() for r in rows[m]]):.1f}" for m in methods)
        lines += ["| seconds | " + " | ".join(seconds) + " |", ""]
        if protocol.startswith("dte"):
            means = published(protocol, known)
            if means:
                told = ", ".join(f"{m} {v:.2f}" for m, v in means.items())
                lines += [
                    f"Published means over the same {len(known)} sets of ADBench (Livernoche et al., 2024): {told}.",
                    "",
                ]
        rows = [r for found in sets.values() for r in found["diabolo"] if "alarms at 0.01" in r]
        if rows and protocol == "clean":
            for rate in RATES:
                real = np.mean([r[f"alarms at {rate}"] for r in rows])
                inside, plain = (
                    np.mean([r[f"in {band} at {rate}"] for r in rows]) for band in ("band", "binomial band")
                )
                lines.append(
                    f"Stated rate of false alarms {rate:.0%}: {real:.2%} of held-out normal rows on the mean; within the 95 % "
                    f"band of a threshold set by as many rows on {inside:.0%} of sets and seeds, within the binomial band, "
                    f"which knows nothing of the threshold's own spread, on {plain:.0%}."
                )
                lines.append("")
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--protocols", nargs="*", default=["clean", "unsupervised"], choices=PROTOCOLS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        render(results)
        return
    names = options.sets or [
        p.stem for p in sorted((DATA / "tabular_ad").glob("*.npz"), key=lambda p: p.stat().st_size)
    ]
    for protocol in options.protocols:
        for seed in options.seeds:
            for name in names:
                for method in options.methods:
                    key = f"{protocol} | {name} | {method} | {seed}"
                    if key in results:
                        continue
                    train, test, y = split(name, protocol, seed)
                    began, row = time.process_time(), {}
                    if method == "diabolo":
                        scores, detector = diabolo(train, test, protocol, seed)
                        row["seconds"] = time.process_time() - began
                        row |= alarms(detector, test[y == 0]) if protocol == "clean" else {}
                    elif method.startswith("PyOD"):
                        scores, row["seconds"] = pyod(method, train, test, seed)
                    else:
                        scores = classical(method, train, test, protocol, seed)
                        row["seconds"] = time.process_time() - began
                    row["auroc"] = float(roc_auc_score(y, scores))
                    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                    results[key] = row
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                    print(f"{key:60s} {row['auroc']:.4f} {row['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
