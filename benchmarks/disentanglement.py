"""Whether units of a code stand for single factors: sprites whose factors are known, beside pythae on the same net.

    python benchmarks/disentanglement.py [--seeds 2] [--only BetaTCVAE] [--libraries diabolo pythae]
    python benchmarks/disentanglement.py --render

The sprites are made here, after dSprites: a square, an ellipse or a heart in 4 sizes, 8 angles (of a quarter turn) and 8 x 8
places, 6,144 grey images of 16 x 16 pixels, each rendered at four times the size. Everybody trains 256-200-200-6-200-200-256 with
ReLU and a Bernoulli likelihood on all of them, a tenth for validation, 60 epochs in batches of 64; weights of terms as named,
optimiser and learning rate each package's own (pythae 1e-3). Measures are those of ``diabolo.latent`` for everybody, on the
centres of codes of all images: MIG, the score of FactorVAE, DCI disentanglement and SAP; higher is better. Results are kept in
benchmarks/results/disentanglement.json; --render writes docs/disentanglement.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

import diabolo
from diabolo.latent import dci, factor_vae_score, mutual_information_gap, separated_attribute_predictability

PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "disentanglement.json"
PAGE = Path(__file__).parents[1] / "docs" / "disentanglement.md"
LATENT, HIDDEN, EPOCHS, BATCH, SIDE, FINE = 6, (200, 200), 60, 64, 16, 4
MODELS = {  # our class and options, pythae's class and options
    "VAE": ("VAE", {}, "VAE", {}),
    "BetaVAE, beta 4": ("BetaVAE", {"beta": 4.0}, "BetaVAE", {"beta": 4.0}),
    "BetaTCVAE, 6": ("BetaTCVAE", {"tc_weight": 6.0}, "BetaTCVAE", {"alpha": 1.0, "beta": 6.0, "gamma": 1.0}),
    "FactorVAE, 10": ("FactorVAE", {"tc_weight": 10.0}, "FactorVAE", {"gamma": 10.0}),
}


def sprites():
    """Return images ``(6144, 256)`` in [0, 1] and the positions of their factors ``(6144, 5)``."""
    axis = (np.arange(SIDE * FINE) + 0.5) / (SIDE * FINE) * 2 - 1
    x, y = np.meshgrid(axis, axis)
    images, factors = [], []
    for shape, size, angle, across, down in product(range(3), range(4), range(8), range(8), range(8)):
        scale, turn = 0.26 + 0.08 * size, angle / 8 * np.pi / 2
        u, v = x - (across - 3.5) / 3.5 * 0.45, y - (down - 3.5) / 3.5 * 0.45
        u, v = (u * np.cos(turn) + v * np.sin(turn)) / scale, (v * np.cos(turn) - u * np.sin(turn)) / scale
        if shape == 0:
            inside = np.maximum(abs(u), abs(v)) < 0.85
        elif shape == 1:
            inside = u**2 + (v / 0.6) ** 2 < 1
        else:
            inside = (u**2 + v**2 - 0.7) ** 3 + 1.2 * u**2 * v**3 < 0
        images.append(inside.reshape(SIDE, FINE, SIDE, FINE).mean(axis=(1, 3)).ravel())
        factors.append((shape, size, angle, across, down))
    return np.array(images, dtype=np.float32), np.array(factors)


def ours(model, images, seed):
    cls, options, _, _ = MODELS[model]
    net = {"network": "mlp", "hidden": HIDDEN, "activation": "relu", "likelihood": "bernoulli", "device": "cpu"}
    budget = {"batch_size": BATCH, "max_epochs": EPOCHS, "patience": None}
    fitted = getattr(diabolo, cls)(LATENT, random_state=seed, **net, **budget, **options).fit(images)
    return fitted.transform(images), float(np.square(fitted.reconstruct(images) - images).mean())


def theirs(model, images, seed):
    _, _, name, options = MODELS[model]
    with tempfile.TemporaryDirectory() as folder:
        rows, out, job = (Path(folder) / f for f in ("rows.npz", "out.npz", "job.json"))
        np.savez(rows, train=images, test=images)
        budget = {"epochs": EPOCHS, "batch": BATCH, "learning_rate": 1e-3, "seed": seed, "draws": 2}
        what = {
            "model": name,
            "rows": str(rows),
            "out": str(out),
            "latent_dim": LATENT,
            "hidden": HIDDEN,
            "options": options | {"reconstruction_loss": "bce"},
        }
        job.write_text(json.dumps(what | budget))
        call = [str(PEERS / "pythae" / "bin" / "python"), str(Path(__file__).parent / "peers" / "pythae_models.py")]
        done = subprocess.run(call, input=f"{job}\n", text=True, capture_output=True, check=True)
        if done.stdout.strip():
            raise ValueError(done.stdout.strip())
        found = dict(np.load(out))
    return found["code_test"], float(np.square(found["rebuilt"] - images).mean())


def render(results):
    lines = [
        "# Units and factors",
        "",
        "Made by `benchmarks/disentanglement.py`, which says how: 6,144 sprites with five factors, one net for everybody; higher",
        "is better but for the error of reconstruction. Means over seeds.",
        "",
        "| model | library | seeds | MIG | FactorVAE score | DCI | SAP | MSE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for key, found in results.items():
        model, library, _ = key.split(" | ")
        groups.setdefault((model, library), []).append(found)
    for model, library in product(MODELS, ("diabolo", "pythae")):
        found = groups.get((model, library), [])
        if found:
            cells = [f"{np.mean([r[k] for r in found]):.3f}" for k in ("mig", "factor", "dci", "sap")]
            mse = np.mean([r["mse"] for r in found])
            lines.append(f"| {model} | {library} | {len(found)} | {' | '.join(cells)} | {mse:.4f} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    parser.add_argument("--libraries", nargs="*", default=["diabolo", "pythae"])
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        render(results)
        return
    images, factors = sprites()
    order = np.random.default_rng(0).permutation(len(images))
    images, factors = images[order], factors[order]
    for seed in range(options.seeds):
        for model in options.only:
            for library, run in (("diabolo", ours), ("pythae", theirs)):
                key = f"{model} | {library} | {seed}"
                if key in results or library not in options.libraries:
                    continue
                codes, mse = run(model, images, seed)
                found = {
                    "mig": mutual_information_gap(codes, factors),
                    "factor": factor_vae_score(codes, factors, n_votes=4000),
                    "dci": dci(codes, factors, n_trees=20)["disentanglement"],
                    "sap": separated_attribute_predictability(codes, factors),
                    "mse": mse,
                }
                results.update(json.loads(RESULTS.read_text()) if RESULTS.exists() else {})
                results[key] = found
                print(key, json.dumps(found), flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
