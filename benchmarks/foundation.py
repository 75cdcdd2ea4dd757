"""The main job measured: codes and reconstructions beside PCA, and the defaults of peers.

    python benchmarks/foundation.py [--only digits tables peers] [--seeds 5]

Data are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data); a set that is not there is skipped and
said to be. Peers are found through DIABOLO_PEERS, a folder of virtual environments, as $DIABOLO_PEERS/NAME/bin/python.
Results go to benchmarks/results/foundation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import diabolo
from diabolo import VAE, Autoencoder

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers"))
RESULTS = Path(__file__).parent / "results" / "foundation.json"


def mse(model, X):
    return float(np.mean((model.reconstruct(X) - X) ** 2))


def spread(values):
    return {"median": float(np.median(values)), "min": float(np.min(values)), "max": float(np.max(values))}


def digits(seeds):
    """Test error and 1-NN accuracy of 16 numbers a digit; everything by default but the size of the code."""
    X, y = load_digits(return_X_y=True)
    rows = {name: {"mse": [], "knn": [], "seconds": []} for name in ("pixels", "PCA", "Autoencoder", "VAE")}
    for seed in range(seeds):
        A, B, a, b = train_test_split(X, y, test_size=0.25, random_state=seed)
        for name in rows:
            began = time.perf_counter()
            if name == "pixels":
                code, error = (lambda Z: Z), 0.0
            elif name == "PCA":
                pca = PCA(16).fit(A)
                code, error = pca.transform, float(np.mean((pca.inverse_transform(pca.transform(B)) - B) ** 2))
            else:
                model = {"Autoencoder": Autoencoder, "VAE": VAE}[name](16, random_state=seed).fit(A)
                code, error = model.transform, mse(model, B)
            rows[name]["seconds"].append(time.perf_counter() - began)
            rows[name]["mse"].append(error)
            rows[name]["knn"].append(KNeighborsClassifier(1).fit(code(A), a).score(code(B), b))
    best = np.array(rows["Autoencoder"]["mse"]) / np.array(rows["PCA"]["mse"])
    return {k: {m: spread(v) for m, v in r.items()} for k, r in rows.items()} | {"below_pca": spread(1 - best)}


def tables(seeds):
    """Test error of a default Autoencoder over that of PCA of equal size, on standardised tables."""
    sets = {"breast_cancer": load_breast_cancer().data, "wine": load_wine().data, "digits": load_digits().data}
    for file in sorted((DATA / "tabular_ad").glob("*.npz")):
        X = np.load(file)["X"]
        if 100 <= len(X) <= 60_000 and 5 <= X.shape[1] <= 300:
            sets[file.stem] = X[np.random.default_rng(0).permutation(len(X))[:8000]].astype(np.float64)
    found = {}
    for name, X in sets.items():
        k = max(1, min(32, X.shape[1] // 2, round(2 * np.sqrt(X.shape[1]))))
        ratios, seconds = [], []
        for seed in range(seeds):
            A, B = train_test_split(X, test_size=0.25, random_state=seed)
            width = A.std(0)
            width[width == 0] = 1
            A, B = (A - A.mean(0)) / width, (B - A.mean(0)) / width
            pca = PCA(k).fit(A)
            linear = float(np.mean((pca.inverse_transform(pca.transform(B)) - B) ** 2))
            began = time.perf_counter()
            model = Autoencoder(k, scale=None, random_state=seed).fit(A)
            seconds.append(time.perf_counter() - began)
            ratios.append(mse(model, B) / linear)
        found[name] = {"rows": len(X), "columns": X.shape[1], "code": k, "ratio": spread(ratios), "s": spread(seconds)}
        print(f"  {name:24s} {X.shape}  code {k:2d}  error / PCA error {np.median(ratios):.3f}", flush=True)
    ratios = [f["ratio"]["median"] for f in found.values()]
    return {"sets": found, "geometric_mean": float(np.exp(np.mean(np.log(ratios)))), "worst": max(ratios)}


RANK_FOUR = """
import json, sys, numpy as np
rng = np.random.default_rng(0)
X = (rng.normal(size=(1000, 4)) @ rng.normal(size=(4, 50)) + rng.normal(size=50)).astype("float32")
A, B = X[:800], X[800:]
share = lambda R: float(1 - np.mean((R - B) ** 2) / B.var(0).mean())
"""

PEER_SCRIPTS = {
    "pythae": """
import contextlib, glob, io, logging, os, tempfile, torch
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainerConfig
from pythae.pipelines import TrainingPipeline
os.chdir(tempfile.mkdtemp())
S = (X - X.mean(0)) / X.std(0)
m = VAE(VAEConfig(input_dim=(50,), latent_dim=8))
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    TrainingPipeline(model=m, training_config=BaseTrainerConfig(output_dir="o"))(
        train_data=S[:800], eval_data=S[700:800])
m.eval(); m.cpu()
R = m.reconstruct(torch.from_numpy(S[800:])).detach().numpy() * X.std(0) + X.mean(0)
print(json.dumps({"variance_explained": share(R)}))
""",
    "pyod": """
from pyod.models.vae import VAE
scores = []
for beta in (1.0, 1000.0):
    scores.append(VAE(latent_dim=8, beta=beta, epoch_num=20, random_state=0, verbose=0).fit(A).decision_scores_)
print(json.dumps({"beta_1_and_1000_equal": bool(np.array_equal(*scores))}))
""",
}


def peers(seeds):
    """A table of 50 columns and rank 4: variance explained by a default VAE(8), and whether beta does anything."""
    scope = {}
    exec(RANK_FOUR, scope)  # the very rows that the peers get
    A, B, share = scope["A"], scope["B"], scope["share"]
    few = [VAE(8, beta=b, max_epochs=20, random_state=0).fit(A) for b in (1.0, 1000.0)]
    default = VAE(8, random_state=0).fit(A)
    found = {
        "diabolo": {
            "variance_explained": share(default.reconstruct(B)),
            "beta_1_and_1000_equal": bool(np.array_equal(*(m.score_samples(A) for m in few))),
        }
    }
    for name, script in PEER_SCRIPTS.items():
        python = PEERS / name / "bin" / "python"
        if not python.exists():
            found[name] = {"skipped": f"{python} is not there"}
            continue
        run = subprocess.run([python, "-c", RANK_FOUR + script], capture_output=True, text=True, check=False)
        found[name] = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else {"failed": run.stderr[-500:]}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {f.__name__: f for f in (digits, tables, peers)}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "diabolo": diabolo.__version__,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    for name in options.only:
        print(f"{name}: {parts[name].__doc__.splitlines()[0]}", flush=True)
        results[name] = parts[name](options.seeds)
        print(json.dumps(results[name], indent=1)[:3000], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")  # each part is kept, whatever happens to the next
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
