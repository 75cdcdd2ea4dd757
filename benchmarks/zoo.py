"""Every model on the same images: what is rebuilt, what the code is worth, how long it takes.

    python benchmarks/zoo.py [--data digits mnist] [--rows 5000] [--seeds 3] [--only VAE WAE]

``digits`` comes with scikit-learn; ``mnist`` and ``fashion`` are read from the folder named by DIABOLO_BENCH_DATA (default
../shared/data), and skipped with a word where they are not there. All parameters by default but the size of the code: 16 numbers
where a code is short, 256 units for sparse dictionaries. Results go to benchmarks/results/zoo.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import diabolo.tasks
import diabolo.zoo  # noqa: F401 - registers the models
from diabolo.declare import REGISTRY
from diabolo.estimator import BaseAutoencoder
from diabolo.zoo.dictionary import DictionaryModel

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "zoo.json"
LEFT_OUT = {"CustomAutoencoder"}  # has no network of its own


def load(name, rows, seed):
    """Return training and test rows and labels, or None where the data are not there."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return train_test_split(X, y, test_size=0.25, random_state=seed)
    file = DATA / "images" / {"mnist": "mnist.npz", "fashion": "fashion_mnist_20k.npz"}[name]
    if not file.exists():
        return None
    data = np.load(file)
    chosen = np.random.default_rng(seed).permutation(len(data["x_train"]))[:rows]
    A, B = (data[k].reshape(-1, 784).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    return A[chosen], B, data["y_train"][chosen], data["y_test"]


def measure(cls, split, seed):
    A, B, a, b = split
    width = 256 if issubclass(cls, DictionaryModel) else 16
    began = time.perf_counter()
    model = cls(width, random_state=seed).fit(A)
    seconds = time.perf_counter() - began
    code_a, code_b = model.transform(A), model.transform(B)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return {
        "mse": float(np.mean((model.reconstruct(B) - B) ** 2)),
        "nats": model.score(B),
        "knn": float(KNeighborsClassifier(1).fit(code_a, a).score(code_b, b)),
        "linear": float(linear.fit(code_a, a).score(code_b, b)),
        "active": int((code_b.var(axis=0) > 0.01 * code_b.var(axis=0).max()).sum()),
        "epochs": len(model.history_),
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = {k: v for k, v in sorted(REGISTRY.items()) if issubclass(v, BaseAutoencoder) and k not in LEFT_OUT}
    parser.add_argument("--data", nargs="+", choices=("digits", "mnist", "fashion"), default=["digits", "mnist"])
    parser.add_argument("--rows", type=int, default=5000, help="training rows of mnist and fashion")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=models, default=list(models))
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    for data in options.data:
        if load(data, 1, 0) is None:
            print(f"{data}: skipped, not in {DATA}")
            continue
        kept = results.setdefault(data, {})
        print(
            f"{data:24s} {'MSE':>9s} {'nats':>9s} {'1-NN':>6s} {'linear':>6s} {'active':>6s} {'epochs':>6s} {'s':>6s}"
        )
        for name in options.only:
            runs = [measure(models[name], load(data, options.rows, seed), seed) for seed in range(options.seeds)]
            middle = {k: float(np.median([r[k] for r in runs])) for k in runs[0]}
            kept[name] = {"median": middle, "seeds": options.seeds, "runs": runs}
            m = middle
            print(
                f"{name:24s} {m['mse']:9.5f} {m['nats']:9.2f} {m['knn']:6.3f} {m['linear']:6.3f} "
                f"{m['active']:6.0f} {m['epochs']:6.0f} {m['seconds']:6.1f}",
                flush=True,
            )
            results["machine"] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": options.rows}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
