"""How long a detector takes: 10,000 rows of 30 columns to learn from and to judge, beside PyOD's AutoEncoder; and rows a second.

    python benchmarks/anomaly_speed.py [--rounds 3]

Rows lie near a curved surface of four dimensions, two in a hundred of those to judge have cells of other rows. Two threads
for both, on an otherwise idle machine, turn by turn; medians of seconds by the clock, of fit and scores together. Rows a
second are of a fitted detector on 200,000 rows. PyOD is found as $DIABOLO_PEERS/pyod/bin/python. Results go to
benchmarks/results/anomaly_speed.json.
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
from sklearn.metrics import roc_auc_score

from diabolo import AnomalyDetector, Autoencoder

PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "anomaly_speed.json"


def rows(n, seed, odd=0.0):
    """Return rows, and which have cells of others."""
    rng = np.random.default_rng(seed)
    surface = np.random.default_rng(99)
    z = rng.normal(size=(n, 4))
    X = np.tanh(z @ surface.normal(size=(4, 60))) @ surface.normal(size=(60, 30)) / 8 + 0.05 * rng.normal(size=(n, 30))
    y = rng.random(n) < odd
    swapped = y[:, None] & (rng.random(X.shape) < 0.2)
    return np.where(swapped, X[rng.permutation(n)], X).astype(np.float32), y


def ours(train, test, y):
    began = time.perf_counter()
    scores = -AnomalyDetector(random_state=0).fit(train).score_samples(test)
    return {"seconds": time.perf_counter() - began, "auroc": float(roc_auc_score(y, scores))}


def pyod(train, test, y):
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "rows.npz", Path(folder) / "out.npz"
        np.savez(given, train=train, test=test)
        script = Path(__file__).parent / "peers" / "pyod_models.py"
        call = [PEERS / "pyod" / "bin" / "python", script, "AutoEncoder", given, out, 0, 2]
        subprocess.run([str(c) for c in call], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = np.load(out)
        return {"seconds": float(found["wall"]), "auroc": float(roc_auc_score(y, found["scores"]))}


def pace(detector, X):
    detector.score_samples(X[:1000])
    began = time.perf_counter()
    detector.score_samples(X)
    return len(X) / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    (train, _), (test, y) = rows(10_000, 0), rows(10_000, 1, 0.02)
    found = {"diabolo": [], "PyOD AutoEncoder": []}
    for _ in range(options.rounds):
        found["diabolo"].append(ours(train, test, y))
        found["PyOD AutoEncoder"].append(pyod(train, test, y))
    results = {k: {name: float(np.median([r[name] for r in v])) for name in v[0]} for k, v in found.items()}
    many = rows(200_000, 2)[0]
    usual = AnomalyDetector(random_state=0).fit(train)
    plain = AnomalyDetector(Autoencoder(max_epochs=5), random_state=0).fit(train)
    results["rows a second"] = {"neighbours": pace(usual, many[:20_000]), "likelihood": pace(plain, many)}
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
