"""How near filled cells come to the best guess there is: a table of known distribution, and digits with patches cut out.

    python benchmarks/filling.py [--seeds 3]

The table has 3000 rows of 10 columns and rank 2 with noise of 0.3, and 30 % of its cells are missing at random; the best guess is
the conditional expectation under the true distribution. The digits are 8 x 8, 2 x 2 patches are missing from 400 that no
model saw. Networks have one hidden layer of 64 (table) or 128 units (digits). Results go to benchmarks/results/filling.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from diabolo import Autoencoder, DenoisingAutoencoder, MaskedAutoencoder

RESULTS = Path(__file__).parent / "results" / "filling.json"
TABLE = {"hidden": (64,), "max_epochs": 40, "batch_size": 100, "learning_rate": 5e-3, "patience": None}
IMAGES = {"hidden": (128,), "max_epochs": 60, "patience": None}


def conditional_mean(holes, mean, covariance):
    filled = holes.copy()
    for row in filled:
        gone = np.isnan(row)
        known = ~gone
        row[gone] = mean[gone]
        if known.any() and gone.any():
            gain = covariance[np.ix_(gone, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
            row[gone] += gain @ (row[known] - mean[known])
    return filled


def table(seed):
    rng = np.random.default_rng(seed)
    W, mean = rng.normal(size=(2, 10)), rng.normal(size=10)
    rows = rng.normal(size=(3000, 2)) @ W + 0.3 * rng.normal(size=(3000, 10)) + mean
    gone = rng.random(rows.shape) < 0.3
    holes = np.where(gone, np.nan, rows)
    models = {
        "Autoencoder, code 2": Autoencoder(2, **TABLE),
        "Autoencoder, code 3": Autoencoder(3, **TABLE),
        "DenoisingAutoencoder, masking": DenoisingAutoencoder(noise="masking", **TABLE),
        "MaskedAutoencoder": MaskedAutoencoder(**TABLE),
    }
    fills = {
        "conditional expectation": conditional_mean(holes, mean, W.T @ W + 0.09 * np.eye(10)),
        "column means": np.broadcast_to(np.nanmean(holes, axis=0), rows.shape),
    }
    fills |= {name: m.set_params(random_state=seed).fit(holes).reconstruct(holes) for name, m in models.items()}
    return {name: float(np.sqrt(np.mean((f - rows)[gone] ** 2))) for name, f in fills.items()}


def neighbours(holes):
    """Fill each missing pixel with the mean of the nearest observed ones."""
    filled = holes.copy()
    for image, given in zip(filled, holes, strict=True):
        for i, j in zip(*np.nonzero(np.isnan(given)), strict=True):
            windows = (given[max(0, i - w) : i + w + 1, max(0, j - w) : j + w + 1] for w in range(1, 9))
            image[i, j] = next((np.nanmean(v) for v in windows if np.isfinite(v).any()), np.nanmean(holes))
    return filled


def digits(seed):
    images = load_digits().images
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    train, test = images[order[:1200]], images[order[-400:]]
    models = {
        "Autoencoder, code 16": Autoencoder(16, **IMAGES),
        "DenoisingAutoencoder, occlusion": DenoisingAutoencoder(noise="occlusion", **IMAGES),
        "MaskedAutoencoder": MaskedAutoencoder(**IMAGES),
    }
    for model in models.values():
        model.set_params(random_state=seed).fit(train)
    found = {}
    for share in (0.25, 0.5, 0.75):
        gone = (rng.random((400, 4, 4)) < share).repeat(2, axis=1).repeat(2, axis=2)
        holes = np.where(gone, np.nan, test)
        fills = {"mean of neighbours": neighbours(holes), "mean image": np.broadcast_to(train.mean(0), test.shape)}
        fills |= {name: model.reconstruct(holes) for name, model in models.items()}
        found[str(share)] = {name: float(np.mean((f - test)[gone] ** 2)) for name, f in fills.items()}
    found["0"] = {name: float(np.mean((m.reconstruct(test) - test) ** 2)) for name, m in models.items()}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    results = {"table": [table(seed) for seed in seeds], "digits": [digits(seed) for seed in seeds]}
    for name in results["table"][0]:
        print(f"table  {name:34s} RMSE {np.median([r[name] for r in results['table']]):.3f}")
    for share in results["digits"][0]:
        for name in results["digits"][0][share]:
            print(f"digits {share:5s} {name:34s} MSE {np.median([r[share][name] for r in results['digits']]):.2f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
