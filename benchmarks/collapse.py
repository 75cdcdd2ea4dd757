"""Is the code of a variational model in use where the decoder is strong? And what do other priors and posteriors bring?

    python benchmarks/collapse.py [--seeds 1] [--parts collapse families]

Part "collapse": a default VAE of 16 units with deep, wide and convolutional decoders, on digits and on windows of text (one-hot
letters), beside no warm-up, free bits and beta=4: active units (more than 1% of the variance comes from the row), KL in nats,
the bound on held-out rows, and whether the user was warned. Part "families": VAEs with other priors and posteriors of the same
size on digits: the bound on held-out rows from draws, and the energy distance of samples from them.

Text is read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data), and a made-up language stands in where it is
not there. Each result is kept in benchmarks/results/collapse.json as soon as it is there; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits

from diabolo import (
    VAE,
    BetaVAE,
    FlowPosteriorVAE,
    FlowPriorVAE,
    LadderVAE,
    MixturePriorVAE,
    PosteriorCollapseWarning,
    TwoStageVAE,
)

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "collapse.json"
WINDOW, WINDOWS, LATENT, EPOCHS, DRAWS, SAMPLES = 32, 4000, 16, 30, 20, 2000

NETWORKS = {
    "default": {},
    "deep": {"network": "mlp", "hidden": (256, 256, 256, 256)},
    "residual": {"network": "residual_mlp", "hidden": (512, 512)},
    "convolutions": {"network": "conv"},
}
VARIANTS = {
    "VAE": VAE(LATENT),
    "VAE, no warm-up": VAE(LATENT, kl_warmup=0.0),
    "VAE, free_bits=0.1": VAE(LATENT, free_bits=0.1),
    "BetaVAE, beta=4": BetaVAE(LATENT),
}
FAMILIES = {
    "VAE": VAE(LATENT),
    "LadderVAE": LadderVAE(LATENT),
    "MixturePriorVAE": MixturePriorVAE(LATENT),
    "FlowPriorVAE": FlowPriorVAE(LATENT),
    "FlowPosteriorVAE": FlowPosteriorVAE(LATENT),
    "TwoStageVAE": TwoStageVAE(LATENT),
}


def text() -> tuple[str, np.ndarray]:
    """Return windows of text as one-hot letters, and where it is from."""
    path = DATA / "text" / "tinyshakespeare.txt.xz"
    if not path.exists():
        rng = np.random.default_rng(0)
        following, letters = rng.dirichlet(np.full(26, 0.1), size=26).cumsum(axis=1), [0]
        for dice in rng.random(WINDOW * WINDOWS - 1):
            letters.append(min(25, int(np.searchsorted(following[letters[-1]], dice))))
        return "made-up text", np.eye(26, dtype=np.float32)[np.array(letters)].reshape(WINDOWS, -1)
    with lzma.open(path, "rt", encoding="utf-8") as file:
        letters = file.read(WINDOW * WINDOWS).lower()
    known = sorted(set(letters))
    index = np.array([known.index(c) for c in letters])
    return "shakespeare", np.eye(len(known), dtype=np.float32)[index].reshape(WINDOWS, -1)


def split(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(X))
    return X[order[len(X) // 5 :]], X[order[: len(X) // 5]]


def energy_distance(A: np.ndarray, B: np.ndarray) -> float:
    """Estimate the energy distance of two samples without bias: 0 where they are from one distribution, give or take."""

    def distances(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
        square = np.square(P).sum(1)[:, None] + np.square(Q).sum(1) - 2 * P @ Q.T
        return np.sqrt(np.maximum(square, 0))

    def within(P: np.ndarray) -> float:
        found = distances(P, P)
        return float((found.sum() - found.trace()) / (len(P) * (len(P) - 1)))

    return 2 * float(distances(A, B).mean()) - within(A) - within(B)


def measure(model: VAE, X: np.ndarray, seed: int) -> dict[str, object]:
    """Fit, and say how much of the code is in use and how good the model is."""
    fit, held_out = split(X)
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.set_params(max_epochs=EPOCHS, random_state=seed).fit(fit)
    seconds = time.monotonic() - began
    activity = model.activity(held_out)
    return {
        "active": activity.n_active,
        "kl": None if activity.kl is None else round(float(activity.kl.sum()), 3),
        "warned": any(w.category is PosteriorCollapseWarning for w in caught),
        "bound": round(float(model.score_samples(held_out, n_samples=DRAWS, random_state=0).mean()), 3),
        "seconds": round(seconds, 1),
    }


def distance_of_samples(model: VAE, X: np.ndarray) -> dict[str, float]:
    """Say how far samples are from held-out rows."""
    samples = np.asarray(model.sample(SAMPLES, noise=True, random_state=0)).reshape(SAMPLES, -1)
    return {"energy_distance": round(energy_distance(samples, split(X)[1]), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=["collapse", "families"])
    asked = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    done = {(r["part"], r["data"], r["network"], r["model"], r["seed"]) for r in kept}
    name, windows = text()
    digits = load_digits()
    sets = {"digits": digits.images, name: windows}
    jobs = [
        ("collapse", data, network, model)
        for data in sets
        for network in NETWORKS
        for model in VARIANTS
        if not (network == "convolutions" and data != "digits")
        and (model == "VAE" or network in ("deep", "convolutions"))
    ]
    jobs += [("families", "digits", "default", model) for model in FAMILIES]
    for seed in range(asked.seeds):
        for part, data, network, model in jobs:
            key = (part, data, network, model, seed)
            if key in done or part not in asked.parts:
                continue
            estimator = clone((VARIANTS if part == "collapse" else FAMILIES)[model]).set_params(**NETWORKS[network])
            if part == "families":
                result = measure(estimator, digits.data, seed) | distance_of_samples(estimator, digits.data)
            else:
                result = measure(estimator, sets[data], seed)
            kept.append(dict(zip(("part", "data", "network", "model", "seed"), key, strict=True)) | result)
            print(kept[-1], flush=True)
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
