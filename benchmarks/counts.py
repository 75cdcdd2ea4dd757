"""Counts: a matrix of single cells by genes, beside scvi-tools and principal components.

    python benchmarks/counts.py [--seeds 3] [--epochs 20] [--only diabolo scvi pca] [--render]

4,186 neurons of the worm, 13,488 genes, ten kinds of cells (Cao et al., 2017; 1.4 % of the cells of the matrix are not 0). A
tenth of the rows is held out, another tenth of the rest is for stopping early. Codes of ten units, one hidden layer of 128 for
everybody (and once our defaults); the same number of epochs at most. Reported are the evidence lower bound of held-out rows
(ten draws), mean over rows in nats, and how well k-means with ten centres in the codes of all rows finds the kinds (adjusted
Rand index and normalised mutual information, mean over three starts of k-means). "pca" is what is usual without a model: counts
divided by the row's total, logarithms, ten principal components. Two threads, one method at a time. Results are kept in
benchmarks/results/counts.json; --render writes docs/counts.md.
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
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from diabolo import VAE

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "counts.json"
PAGE = Path(__file__).parents[1] / "docs" / "counts.md"
OURS = {
    "diabolo, negative binomial": {"likelihood": "negative_binomial", "hidden": (128,)},
    "diabolo, zero-inflated": {"likelihood": "zero_inflated_negative_binomial", "hidden": (128,)},
    "diabolo, Poisson": {"likelihood": "poisson", "hidden": (128,)},
    "diabolo, default network": {"likelihood": "negative_binomial"},
}
THEIRS = {"scvi-tools, negative binomial": "nb", "scvi-tools, zero-inflated": "zinb"}


def neurons(seed):
    """Return the rows of training and those held out, and the kinds of both."""
    data = np.load(DATA / "singlecell" / "worm_neuron_counts.npz")
    X = sparse.csr_array((data["count"].astype(np.float32), data["index"], data["indptr"]), shape=tuple(data["shape"]))
    order = np.random.default_rng(seed).permutation(X.shape[0])
    held = len(order) // 10
    return X[order[held:]], X[order[:held]], np.concatenate([data["y"][order[held:]], data["y"][order[:held]]])


def clusters(codes, kinds):
    """How well k-means finds the kinds."""
    found = [KMeans(10, n_init=10, random_state=i).fit_predict(codes) for i in range(3)]
    rand = np.mean([adjusted_rand_score(kinds, f) for f in found])
    return {"ari": float(rand), "nmi": float(np.mean([normalized_mutual_info_score(kinds, f) for f in found]))}


def ours(options, epochs, seed):
    train, test, kinds = neurons(seed)
    model = VAE(latent_dim=10, max_epochs=epochs, random_state=seed, **options)
    began = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - began
    codes = np.concatenate([model.transform(train), model.transform(test)])
    bound = float(model.score_samples(test, n_samples=10, random_state=0).mean())
    ran = {"epochs": len(model.history_), "seconds": seconds}
    return {"bound": bound, **ran, **clusters(codes, kinds)}


def theirs(likelihood, epochs, seed):
    train, test, kinds = neurons(seed)
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.npz", Path(folder) / "out.npz"
        parts = {"train": train, "test": test}
        arrays = {f"{n}_{k}": getattr(X, k) for n, X in parts.items() for k in ("data", "indices", "indptr", "shape")}
        np.savez(rows, **arrays)
        script = Path(__file__).parent / "peers" / "scvi_counts.py"
        python = PEERS / "scvi" / "bin" / "python"
        call = [python, script, rows, out, likelihood, epochs, seed]
        subprocess.run([str(c) for c in call], check=True, stderr=subprocess.DEVNULL)
        found = dict(np.load(out))
    codes = found.pop("codes")
    return {**{k: float(v) for k, v in found.items()}, "epochs": epochs, **clusters(codes, kinds)}


def components(seed):
    train, test, kinds = neurons(seed)
    X = sparse.vstack([train, test]).toarray()
    total = X.sum(1, keepdims=True)
    began = time.perf_counter()
    codes = PCA(10, random_state=seed).fit_transform(np.log1p(X / total * np.median(total)))
    return {"seconds": time.perf_counter() - began, **clusters(codes, kinds)}


def render(results):
    lines = [
        "# Counts: single cells by genes",
        "",
        "Made by `benchmarks/counts.py`, which says how. 4,186 neurons of the worm by 13,488 genes, ten kinds of cells; codes of",
        "ten units; means over seeds. The bound is of held-out rows, in nats per row, higher is better; ARI and NMI say how well",
        "k-means in the codes finds the kinds.",
        "",
        "| method | epochs at most | seeds | bound | ARI | NMI | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for key, found in results.items():
        method, epochs, _ = key.split(" | ")
        groups.setdefault((epochs, method), []).append(found)
    for (epochs, method), rows in sorted(groups.items(), key=lambda item: (int(item[0][0]), item[0][1])):

        def mean(name, digits, rows=rows):
            return f"{np.mean([r[name] for r in rows]):.{digits}f}" if name in rows[0] else "-"

        cells = [mean("bound", 1), mean("ari", 3), mean("nmi", 3), mean("seconds", 0)]
        lines.append(f"| {method} | {epochs if int(epochs) else '-'} | {len(rows)} | {' | '.join(cells)} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=["diabolo", "scvi", "pca"])
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        render(results)
        return
    jobs = {name: (lambda seed, o=o: ours(o, options.epochs, seed)) for name, o in OURS.items()}
    jobs |= {name: (lambda seed, k=k: theirs(k, options.epochs, seed)) for name, k in THEIRS.items()}
    for seed in range(options.seeds):
        for name, job in [*jobs.items(), ("pca", components)]:
            key = f"{name} | {options.epochs if name != 'pca' else 0} | {seed}"
            if key in results or not name.startswith(tuple(options.only)):
                continue
            results[key] = job(seed)
            print(key, json.dumps(results[key]), flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
