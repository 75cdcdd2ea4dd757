"""What layer-wise pre-training is worth: deep networks on the digits, from a random start and from pre-trained layers.

    python benchmarks/layerwise.py [--seeds 3]

Five hidden layers (60, 50, 40, 30, 20), a code of 10, 1000 training digits; with pre-training 30 epochs for each of the six
layers and 60 for the whole, without it 60, and 240 as an answer to the question what the same number of steps does. Results go to
benchmarks/results/layerwise.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from diabolo import Autoencoder

RESULTS = Path(__file__).parent / "results" / "layerwise.json"
COMMON = {"hidden": (60, 50, 40, 30, 20), "network": "mlp", "batch_size": 64, "learning_rate": 1e-2, "patience": None}
PLANS = {
    "60 epochs": {"max_epochs": 60},
    "240 epochs": {"max_epochs": 240},
    "pre-trained, 60 epochs": {"max_epochs": 60, "pretrain": "layerwise", "pretrain_epochs": 30},
}


def measure(images, activation, plan, seed):
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = images[order[:1000]], images[order[-400:]]
    model = Autoencoder(10, activation=activation, random_state=seed, **COMMON, **plan).fit(train)
    return float(np.mean((model.reconstruct(test) - test) ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    images = load_digits().data
    results = {}
    for activation in ("sigmoid", "tanh", "silu"):
        for name, plan in PLANS.items():
            errors = [measure(images, activation, plan, seed) for seed in range(options.seeds)]
            results.setdefault(activation, {})[name] = errors
            print(f"{activation:8s} {name:24s} {np.median(errors):.2f}", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
