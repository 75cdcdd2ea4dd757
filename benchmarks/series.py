"""Networks on series: held-out error after the same CPU time. Needs the ECG5000 and SKAB files in a folder given by name.

Run as ``python benchmarks/series.py FOLDER [SECONDS]`` on one thread (``OMP_NUM_THREADS=1``).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from diabolo import Autoencoder

NETWORKS = ("shortcut_mlp", "mlp", "shortcut_conv", "conv", "attention", "gru", "lstm")
RESULTS = Path(__file__).parent / "results" / "series.json"
Rows = list[Any]


def sines(n: int, rng: np.random.Generator) -> Rows:
    """Noisy sines of random frequency, phase, height and length."""
    rows = []
    for _ in range(n):
        t = np.arange(rng.integers(30, 101))
        wave = np.sin(2 * np.pi * (rng.uniform(0.01, 0.04) * t + rng.uniform()))
        rows.append(rng.uniform(0.5, 1.5) * wave + rng.normal(0, 0.1, len(t)))
    return rows


def cut(rows: Any, rng: np.random.Generator) -> Rows:
    """Cut a window of random place and length, from 60 steps up, out of each."""
    out = []
    for row in rows:
        steps = rng.integers(60, len(row) + 1)
        start = rng.integers(0, len(row) - steps + 1)
        out.append(row[start : start + steps])
    return out


def data(folder: Path) -> dict[str, tuple[Any, Any, int]]:
    """Return training rows, test rows and the size of the code, by name."""
    rng = np.random.default_rng(0)
    ecg = np.load(folder / "ecg5000.npz")
    train, test = ecg["x_train"].squeeze(), ecg["x_test"].squeeze()[:500]
    return {
        "ECG5000, 140 steps": (train, test, 8),
        "ECG5000, windows of 60 to 140 steps": (cut(train, rng), cut(test, rng), 8),
        "sines, 30 to 100 steps": (sines(1000, rng), sines(500, rng), 8),
    }


def measure(network: str, train: Any, test: Any, code: int, seconds: float) -> dict[str, float]:
    """Fit for about so many CPU seconds; return the test error over that of the mean, and the seconds."""
    settings: dict[str, Any] = {"network": network, "kind": "series", "random_state": 0, "patience": None}
    ends: list[float] = []
    watch = (lambda run: ends.append(time.process_time()),)
    Autoencoder(code, max_epochs=4, callbacks=watch, **settings).fit(train)
    epochs = max(2, min(1000, round(seconds / float(np.median(np.diff(ends))))))
    began = time.process_time()
    model = Autoencoder(code, max_epochs=epochs, **settings).fit(train)
    spent = time.process_time() - began
    rebuilt = model.reconstruct(test)
    error = sum(float(np.square(a - b).sum()) for a, b in zip(rebuilt, test, strict=True))
    mean = float(model.codec_.scaling.center.item())
    total = sum(float(np.square(b - mean).sum()) for b in test)
    weights = sum(p.numel() for p in model.module_.parameters())
    return {"error": error / total, "cpu_seconds": spent, "epochs": len(model.history_), "weights": weights}


def main() -> None:
    """Measure, and write the results after each network."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, (train, test, code) in data(folder).items():
        results[name] = {}
        for network in NETWORKS:
            results[name][network] = measure(network, train, test, code, seconds)
            print(name, network, results[name][network], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
