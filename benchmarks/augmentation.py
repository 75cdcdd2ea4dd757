"""What changes of training images are worth where images are few: squared error of the digits that no model saw.

    python benchmarks/augmentation.py [--rows 100 400] [--seeds 3] [--networks mlp conv auto]

A code of 16 numbers, 500 epochs, and the best of them by a tenth of the rows; 500 test digits (pixels 0 to 16). Results go to
benchmarks/results/augmentation.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from diabolo import Autoencoder

RESULTS = Path(__file__).parent / "results" / "augmentation.json"
CHANGES = ((), ("shift",), ("rotate",), ("crop",), ("noise",), ("shift", "noise"))


def measure(images, n, network, augment, seed):
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = images[order[:n]], images[order[-500:]]
    hidden = (16, 32) if network == "conv" else "auto"
    model = Autoencoder(
        16, network=network, hidden=hidden, augment=augment, max_epochs=500, patience=None, random_state=seed
    )
    return float(np.mean((model.fit(train).reconstruct(test) - test) ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["mlp", "conv", "auto"])
    options = parser.parse_args()
    images = load_digits().images
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    for network in options.networks:
        for n in options.rows:
            for augment in CHANGES:
                errors = [measure(images, n, network, augment, seed) for seed in range(options.seeds)]
                name = " ".join(augment) or "none"
                results.setdefault(network, {}).setdefault(str(n), {})[name] = errors
                print(f"{network:6s} {n:5d} images  {name:12s} {np.median(errors):.2f}", flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
