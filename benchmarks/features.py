"""What codes are worth to a classifier and to the eye, by the protocols of the papers, on MNIST.

    python benchmarks/features.py [--only contractive ksparse neighbours plane] [--seeds 1]

``contractive``   1,000 sigmoid units pre-trained with the contractive penalty, then fine-tuned with the labels: test error in
                  percent (Rifai et al., Contractive auto-encoders, ICML 2011).
``ksparse``       1,000 k-sparse units learned without labels, k=25; a softmax regression on their codes: test error in percent.
                  After training alpha k units are active; alpha and the strength of the regression's L2 penalty are chosen on
                  the last 10,000 training rows (Makhzani and Frey, k-Sparse autoencoders, 2013, arXiv:1312.5663).
``neighbours``    codes of 64 numbers: accuracy of the nearest neighbour among the training rows.
``plane``         codes of 2 numbers: trustworthiness of the first 10,000 points, and 1-NN and 5-NN accuracy. Both by the
                  protocol of Sainburg et al., Parametric UMAP embeddings for representation and semisupervised learning, 2021.

MNIST is read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). All training rows are used, and the test rows
once, at the end; settings were chosen on the last 10,000 training rows. Results go to benchmarks/results/features.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.nn import functional as F

from diabolo import VAE, Autoencoder, ContractiveAutoencoder, KSparseAutoencoder

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "features.json"
PUBLISHED = {
    "neighbours": {
        "source": "github.com/timsainb/ParametricUMAP_paper, notebook table-knn-results",
        "Autoencoder": {"knn1": 0.9748, "knn5": 0.9758},
        "VAE": {"knn1": 0.9785, "knn5": 0.9791},
    },
    "plane": {
        "source": "github.com/timsainb/ParametricUMAP_paper, notebooks make-table and table-knn-results",
        "Autoencoder": {"trustworthiness": 0.9663, "knn1": 0.7647, "knn5": 0.7926},
        "VAE": {"trustworthiness": 0.9513, "knn1": 0.7241, "knn5": 0.7649},
    },
}


def load():
    data = np.load(DATA / "images" / "mnist.npz")
    A, B = (data[k].reshape(-1, 784).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    return A, B, data["y_train"].astype(np.int64), data["y_test"].astype(np.int64)


def contractive(split, seed, epochs=30, batch=100, learning_rate=2e-3):
    """Pre-train on all training rows without labels, then train the unit weights and a softmax with them."""
    A, B, a, b = split
    began = time.perf_counter()
    model = ContractiveAutoencoder(
        1000,
        hidden=(),
        network="mlp",
        code_activation="sigmoid",
        likelihood="bernoulli",
        contraction=0.1,
        probes=1,
        max_epochs=4,
        batch_size=128,
        learning_rate=1e-3,
        random_state=seed,
    ).fit(A)
    pretraining = time.perf_counter() - began
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Dropout(0.2), model.module_.encoder.train(), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(1000, 10)
    )
    rows, labels = torch.from_numpy(A), torch.from_numpy(a)
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, epochs * -(-len(A) // batch), pct_start=0.1
    )
    for _ in range(epochs):
        for index in torch.randperm(len(rows)).split(batch):
            F.cross_entropy(net(rows[index]), labels[index]).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    with torch.no_grad():
        wrong = net.eval()(torch.from_numpy(B)).argmax(1).numpy() != b
    return {
        "ContractiveAutoencoder": {
            "error_percent": 100 * float(wrong.mean()),
            "seconds_pretraining": pretraining,
            "seconds": time.perf_counter() - began,
        }
    }


def ksparse(split, seed, epochs=30):
    """Learn the units from all training rows without labels, then a softmax regression on their codes."""
    A, B, a, b = split
    began = time.perf_counter()
    model = KSparseAutoencoder(
        1000, k=25, max_epochs=epochs, batch_size=256, validation_fraction=0, random_state=seed
    ).fit(A)
    pretraining = time.perf_counter() - began
    first, labels = slice(0, 50_000), torch.from_numpy(a)
    tried = {}
    for alpha in (1, 2, 3, 4):
        codes = _active(model, A, alpha)
        for strength in (1e-5, 1e-4):
            found = _softmax_regression(codes[first], labels[first], strength, seed)
            tried[alpha, strength] = float((found(codes[50_000:]).argmax(1) != labels[50_000:]).double().mean())
    alpha, strength = min(tried, key=tried.get)
    found = _softmax_regression(_active(model, A, alpha), labels, strength, seed)
    wrong = found(_active(model, B, alpha)).argmax(1).numpy() != b
    return {
        "KSparseAutoencoder": {
            "error_percent": 100 * float(wrong.mean()),
            "validation_error_percent": 100 * tried[alpha, strength],
            "alpha": alpha,
            "strength": strength,
            "never_active": len(model.dead_units_),
            "seconds_pretraining": pretraining,
            "seconds": time.perf_counter() - began,
        }
    }


def _active(model, X, alpha):
    """Return codes of which the ``alpha * k`` largest units are active, in units of their standard size."""
    model.module_.bottleneck.k_inference = alpha * model.k
    return torch.from_numpy(model.transform(X)) / np.sqrt(model.k)


def _softmax_regression(codes, labels, strength, seed, epochs=15, batch=256, learning_rate=3e-3):
    torch.manual_seed(seed)
    linear = nn.Linear(codes.shape[1], 10)
    optimiser = torch.optim.Adam(linear.parameters(), lr=learning_rate, fused=True)
    steps = epochs * -(-len(codes) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps, pct_start=0.1)
    for _ in range(epochs):
        for index in torch.randperm(len(codes)).split(batch):
            penalty = strength * linear.weight.square().sum()
            (F.cross_entropy(linear(codes[index]), labels[index]) + penalty).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    return linear.requires_grad_(False)


def neighbours(split, seed):
    models = {
        "Autoencoder": Autoencoder(64, random_state=seed),
        "VAE": VAE(64, random_state=seed),
        "VAE, bernoulli": VAE(64, likelihood="bernoulli", random_state=seed),
    }
    return {name: _code(model, split) for name, model in models.items()}


def plane(split, seed):
    found = {}
    for cls in (Autoencoder, VAE):
        model = cls(2, random_state=seed)
        row = _code(model, split)
        some = split[0][:10_000]
        found[cls.__name__] = {"trustworthiness": float(trustworthiness(some, model.transform(some)))} | row
    return found


def _code(model, split):
    A, B, a, b = split
    began = time.perf_counter()
    model.fit(A)
    seconds = time.perf_counter() - began
    Z, Y = model.transform(A), model.transform(B)
    row = {f"knn{k}": float(KNeighborsClassifier(k).fit(Z, a).score(Y, b)) for k in (1, 5)}
    return row | {"mse": float(np.mean((model.reconstruct(B) - B) ** 2)), "seconds": seconds}


PARTS = {"contractive": contractive, "ksparse": ksparse, "neighbours": neighbours, "plane": plane}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    split = load()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    for name in options.only:
        runs = [PARTS[name](split, seed) for seed in range(options.seeds)]
        median = {
            model: {k: float(np.median([run[model][k] for run in runs])) for k in row} for model, row in runs[0].items()
        }
        results[name] = {"median": median, "runs": runs, "published": PUBLISHED.get(name)}
        results["machine"] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        for model, row in median.items():
            print(f"{name:12s} {model:24s} " + "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
