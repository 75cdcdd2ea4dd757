"""Training on Parquet files larger than memory, and what it costs that rows are shuffled by blocks.

    python benchmarks/streaming.py [--gigabytes 5] [--memory 500MB] [--only size shuffling]

``size``       a folder of Parquet files of about so many gigabytes, 32 columns of float32, is made in a temporary folder; a fresh
               process fits an Autoencoder on it for one epoch. Peak memory of that process (VmHWM), seconds, rows a second.
``shuffling``  held-out squared error of fits in memory, on a stream of the rows in random order, and on a stream of the rows
               sorted by their first principal component, with memory for a fraction of the rows. Three seeds.

Results go to benchmarks/results/streaming.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from diabolo import Autoencoder, Stream

RESULTS = Path(__file__).parent / "results" / "streaming.json"
COLUMNS, GROUP = 32, 200_000

FIT = """
import json, sys, time
from diabolo import Autoencoder, Stream
began = time.perf_counter()
stream = Stream(sys.argv[1], memory=sys.argv[2])
model = Autoencoder(8, hidden=(64,), max_epochs=1, batch_size=4096, random_state=0).fit(stream)
peak = next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmHWM")) / 1024
print(json.dumps({"peak, MiB": peak, "seconds": time.perf_counter() - began, "rows": model.schema_.n_rows,
                  "seconds of the epoch": model.history_["seconds"][-1], "val_mse": model.history_["val_mse"][-1]}))
"""


def size(options):
    """Fit a set of files that does not fit into the memory it may take."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, COLUMNS)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        written, n = 0, 0
        while written < options.gigabytes * 1e9:
            path = Path(folder) / f"{n:04}.parquet"
            rows = rng.normal(size=(4 * GROUP, 8)).astype(np.float32) @ mixing
            rows += 0.1 * rng.normal(size=rows.shape).astype(np.float32)
            table = pa.table({f"column_{j}": rows[:, j] for j in range(COLUMNS)})
            parquet.write_table(table, path, row_group_size=GROUP, compression="none", use_dictionary=False)
            written, n = written + path.stat().st_size, n + 1
        began = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", FIT, folder, options.memory], capture_output=True, text=True, check=True
        )
        told = json.loads(run.stdout) | {"whole process, seconds": time.perf_counter() - began}
    told |= {"files, GB": written / 1e9, "memory": options.memory}
    told["rows per second of the epoch"] = told["rows"] / told["seconds of the epoch"]
    return told


def shuffling(_):
    """Held-out error, by how the rows come."""
    X = load_digits().data
    X = X[np.random.default_rng(0).permutation(len(X))]
    train, test = X[:1400], X[1400:]
    centred = train - train.mean(0)
    by = np.argsort(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
    cases = {
        "in memory": train,
        "stream, random order": Stream(np.array_split(train, 28), memory="2MB"),
        "stream, sorted": Stream(np.array_split(train[by], 28), memory="2MB"),
    }
    found = {}
    for name, rows in cases.items():
        errors = []
        for seed in range(3):
            how = {"max_epochs": 60, "patience": None, "random_state": seed, "hidden": (128,)}
            if isinstance(rows, Stream):
                rows.memory = 200 * 64 * 16  # windows of some 200 rows, a seventh of all
            errors.append(float(np.mean((Autoencoder(16, **how).fit(rows).reconstruct(test) - test) ** 2)))
        found[name] = {"median": float(np.median(errors)), "min": min(errors), "max": max(errors)}
        print(f"  {name}: {found[name]}", flush=True)
    return found


PARTS = {"size": size, "shuffling": shuffling}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--memory", default="500MB")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only:
        results[name] = PARTS[name](options)
        print(name, results[name], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
