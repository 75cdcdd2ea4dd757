"""New images: models and samplers beside those of pythae, on the same net, rows and epochs, judged by a classifier's features.

    python benchmarks/generation.py [--data mnist fashion] [--seeds 1] [--only VAE] [--libraries diabolo pythae]
    python benchmarks/generation.py --render

``mnist`` and ``fashion`` are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). Everybody trains
784-200-200-16-200-200-784 with ReLU on the same 10,000 rows in [0, 1], a tenth of them for validation, 30 epochs in batches of
100; optimiser, learning rate, likelihood and weights of terms are each package's own (pythae with the learning rate of its
README, 1e-3), but that all deterministic models end in a sigmoid. Samplers are fitted to the codes of the rows of training, with
their package's defaults, and draw 5,000 images.

Judge: a small convolutional classifier, trained here on all training images of the set. In its 64 features: the Frechet distance
of 5,000 images from 5,000 test images (lower is better; that of 5,000 training images is "real rows"), and precision, recall,
density and coverage with the 5 nearest neighbours (Naeem et al., 2020, arXiv:2002.09797). Results are kept in
benchmarks/results/generation.json as they come, and a run goes on where the last one stopped; --render writes docs/generation.md.
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
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

import diabolo

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "generation.json"
PAGE = Path(__file__).parents[1] / "docs" / "generation.md"
FILES = {"mnist": "mnist.npz", "fashion": "fashion_mnist_20k.npz"}
ROWS, DRAWN, EPOCHS, BATCH, LATENT, HIDDEN = 10_000, 5000, 30, 100, 16, (200, 200)
NET = {"network": "mlp", "hidden": HIDDEN, "activation": "relu", "device": "cpu"}
BUDGET = {"batch_size": BATCH, "max_epochs": EPOCHS, "patience": None}
SIGMOID = {"likelihood": "sigmoid_gaussian"}  # pythae's decoders end in one
OURS = {  # our class, what makes it this model, and its samplers; "auto" tries normal, mixture, kernel, flow, and the own prior
    "VAE": ("VAE", {}, ("own", "normal", "mixture", "kernel", "flow", "two_stage", "auto")),
    "AE": ("Autoencoder", SIGMOID, ("normal", "mixture", "kernel", "auto")),
    "RAE": ("RegularizedAutoencoder", SIGMOID, ("normal", "mixture", "auto")),
    "WAE": ("WAE", SIGMOID, ("own", "normal", "mixture", "auto")),
    "BetaVAE": ("BetaVAE", {"beta": 2.0}, ("own", "normal", "mixture", "auto")),
    "VampPriorVAE": ("VampPriorVAE", {}, ("own", "mixture", "auto")),
}
THEIRS = {
    "AE": ("AE", {}, ("normal", "mixture", "maf")),  # its two-stage sampler wants a posterior
    "RAE": ("RAE_L2", {}, ("normal", "mixture", "maf")),
    "WAE": ("WAE_MMD", {}, ("normal", "mixture", "maf")),
    "VAE": ("VAE", {}, ("normal", "mixture", "maf", "two_stage")),
    "BetaVAE": ("BetaVAE", {"beta": 2.0}, ("normal", "mixture")),
    "VampPriorVAE": ("VAMP", {}, ("vamp", "mixture")),
}


def load(name, seed):
    """Return 10,000 training rows, the classifier's images and labels, and 5,000 test images."""
    data = np.load(DATA / "images" / FILES[name])
    x, y = data["x_train"].astype(np.float32) / 255, data["y_train"].astype(np.int64)
    test = data["x_test"].astype(np.float32) / 255
    rng = np.random.default_rng(seed)
    rows, judged = rng.permutation(len(x))[:ROWS], rng.permutation(len(test))[:DRAWN]
    return x[rows].reshape(ROWS, -1), x, y, test[judged].reshape(DRAWN, -1)


class Judge(nn.Module):
    """A classifier whose last hidden layer is the space in which images are compared."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)

    @torch.no_grad()
    def features(self, images):
        x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).view(-1, 1, 28, 28)
        return torch.cat([self.body(part) for part in x.split(500)]).double().numpy()


def judge(name, x, y):
    """Train the classifier, or read it where a run has left it."""
    file = Path(tempfile.gettempdir()) / f"diabolo_judge_{name}.npz"
    torch.manual_seed(0)
    model = Judge()
    if file.exists():
        model.load_state_dict({k: torch.from_numpy(v) for k, v in np.load(file).items()})
        return model.eval()
    images, labels = torch.from_numpy(x)[:, None], torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3 if len(x) > 30_000 else 6):
        for batch in torch.randperm(len(x)).split(100):
            loss = nn.functional.cross_entropy(model.head(model.body(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    np.savez(file, **{k: v.numpy() for k, v in model.state_dict().items()})
    return model.eval()


def frechet(a, b):
    """Frechet distance between Gaussians fitted to two sets of features."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.maximum(np.linalg.eigvals(cov_a @ cov_b).real, 0)).sum()  # the trace of the root of their product
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def compare(real, made, k=5):
    """Return the measures of made features beside real ones."""

    def reach(points):
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, k]

    def inside(queries, points, radii):  # how many balls around ``points`` each query lies in, and which balls are hit
        count, hit = np.zeros(len(queries)), np.zeros(len(points), bool)
        square = np.square(points).sum(1)
        for start in range(0, len(queries), 500):
            q = queries[start : start + 500]
            within = np.square(q).sum(1)[:, None] + square - 2 * q @ points.T <= np.square(radii)
            count[start : start + 500] = within.sum(1)
            hit |= within.any(0)
        return count, hit

    near_real, near_made = reach(real), reach(made)
    count, hit = inside(made, real, near_real)
    return {
        "frechet": frechet(real, made),
        "precision": float((count > 0).mean()),
        "recall": float((inside(real, made, near_made)[0] > 0).mean()),
        "density": float(count.mean() / k),
        "coverage": float(hit.mean()),
    }


def ours(model, train, seed, samplers):
    """Yield a name, images and seconds for each sampler."""
    cls, options, _ = OURS[model]
    fitted = getattr(diabolo, cls)(LATENT, random_state=seed, **NET, **BUDGET, **options)
    began = time.process_time()
    fitted.fit(train)
    fit_seconds = time.process_time() - began
    for sampler in samplers:
        began = time.process_time()
        extra = {}
        if sampler == "own":
            images = fitted.sample(DRAWN, prior="own", random_state=seed)
        else:
            fitted.fit_prior(train, sampler, random_state=seed)
            images = fitted.sample(DRAWN, random_state=seed)
            extra = {"nats": fitted.prior_scores_}
            extra["chosen"] = "own" if fitted.prior_ is None else fitted.prior_.method_
        yield (
            sampler,
            np.clip(images, 0, 1),
            {"seconds": time.process_time() - began, "fit_seconds": fit_seconds, **extra},
        )


def theirs(model, train, seed, samplers):
    """The same, from pythae in its own environment."""
    name, options, _ = THEIRS[model]
    with tempfile.TemporaryDirectory() as folder:
        rows, out, job = (Path(folder) / f for f in ("rows.npz", "out.npz", "job.json"))
        np.savez(rows, train=train)
        budget = {"epochs": EPOCHS, "batch": BATCH, "learning_rate": 1e-3, "seed": seed, "n": DRAWN}
        net = {"latent_dim": LATENT, "hidden": HIDDEN, "options": options}
        what = {"model": name, "samplers": samplers, "rows": str(rows), "out": str(out)}
        job.write_text(json.dumps(what | budget | net))
        script = Path(__file__).parent / "peers" / "pythae_samplers.py"
        call = [PEERS / "pythae" / "bin" / "python", script, job]
        subprocess.run([str(c) for c in call], check=True, stderr=subprocess.DEVNULL)
        found = dict(np.load(out))
    for sampler in samplers:
        seconds = {"seconds": float(found[f"seconds_{sampler}"]), "fit_seconds": float(found["seconds"])}
        yield sampler, found[f"images_{sampler}"], seconds


MEASURES = ("frechet", "precision", "recall", "density", "coverage", "seconds")
INTRO = """# New images

![fourteen test digits, and as many new ones of four models](images/new_digits.svg)

Each line is the first fourteen draws of a model that 10,000 digits taught, none chosen. A VAE's own prior (fifth line) draws
codes where no digit has its code; a mixture of Gaussians fitted to the codes (`fit_prior(X, "mixture")`, last line) mends
that, and makes a generator of a plain autoencoder too.

Lower is better: the Frechet distance of 5,000 new images from 5,000 test images, in the features of a classifier; for each
library the best of its samplers.
"""
CLASSES = """
## Of a class, and between two

`fit_prior(X, labels=y)` learns where each class has its codes; `sample(n, condition=7)` draws from there. The model saw no
label.

![digits by class](images/digits_by_class.svg)

`interpolate` goes between test digits, `concept_vector` adds to a 1 what sevens have and ones have not, `traverse` varies one
unit of a test digit's code.

![ways through the codes](images/ways.svg)

`latent_map` places 1,500 test digits by their codes (t-SNE), coloured by their class.

![map of the codes](images/map.svg)

## All samplers

Made by `benchmarks/generation.py`, which says how: one net and budget for everybody; on the mean over seeds. Of precision,
recall, density and coverage higher is better. Seconds are of the sampler alone, on one thread; `auto` names what it chose.
Figures are those of `benchmarks/generation_pictures.py`.
"""


def render(results):
    groups: dict[tuple[str, str, str, str], list] = {}
    for key, found in results.items():
        data, library, model, sampler, _ = key.split(" | ")
        groups.setdefault((data, model, library, sampler), []).append(found)
    mean = {k: {m: float(np.mean([r[m] for r in v])) for m in MEASURES} for k, v in groups.items()}
    sets = [data for data in FILES if any(k[0] == data for k in mean)]
    lines = [*INTRO.splitlines(), "", "| | " + " | ".join(OURS) + " |", "|---|" + "---|" * len(OURS)]
    for data in sets:
        best = {
            (library, model): min(
                [v["frechet"] for k, v in mean.items() if k[:3] == (data, model, library)], default=None
            )
            for library in ("diabolo", "pythae")
            for model in OURS
        }
        for library in ("diabolo", "pythae"):
            cells = []
            for model in OURS:
                mine, other = best[library, model], best["pythae" if library == "diabolo" else "diabolo", model]
                text = "" if mine is None else f"{mine:.1f}"
                cells.append(f"**{text}**" if text and other is not None and mine < other else text)
            if any(cells):
                lines.append(f"| {data}, {library} | " + " | ".join(cells) + " |")
    lines += CLASSES.splitlines()
    for data in sets:
        lines += ["", f"### {data}", "", "| model | sampler | library | Frechet | " + " | ".join(MEASURES[1:]) + " |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        rows = [k for k in mean if k[0] == data]
        for key in sorted(rows, key=lambda k: (["real rows", *OURS].index(k[1]), k[2])):
            _, model, library, sampler = key
            name = f"auto ({groups[key][0]['chosen']})" if sampler == "auto" else sampler.replace("_", " ")
            rest = " | ".join(f"{mean[key][m]:.3f}" for m in MEASURES[1:-1])
            lines.append(
                f"| {model} | {name} | {library} | {mean[key]['frechet']:.2f} | {rest} | {mean[key]['seconds']:.0f} |"
            )
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", choices=tuple(FILES), default=list(FILES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(OURS))
    parser.add_argument("--libraries", nargs="*", default=["diabolo", "pythae"])
    parser.add_argument("--samplers", nargs="*", help="only these")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        render(results)
        return

    def keep(key, found):
        results.update(json.loads(RESULTS.read_text()) if RESULTS.exists() else {})  # several runs may go side by side
        results[key] = found
        print(key, json.dumps(found), flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")

    for data in options.data:
        for seed in range(options.seeds):
            train, x, y, test = load(data, seed)
            critic = judge(data, x, y)
            real = critic.features(test)
            if f"{data} | - | real rows | - | {seed}" not in results:
                found = compare(real, critic.features(train[:DRAWN]))
                keep(f"{data} | - | real rows | - | {seed}", {**found, "seconds": 0.0, "fit_seconds": 0.0})
            for model in options.only:
                for library, run, table in (("diabolo", ours, OURS), ("pythae", theirs, THEIRS)):
                    if library not in options.libraries:
                        continue
                    wanted = [s for s in table[model][2] if options.samplers is None or s in options.samplers]
                    wanted = [s for s in wanted if f"{data} | {library} | {model} | {s} | {seed}" not in results]
                    for sampler, images, extra in run(model, train, seed, wanted) if wanted else ():
                        found = compare(real, critic.features(images))
                        keep(f"{data} | {library} | {model} | {sampler} | {seed}", found | extra)


if __name__ == "__main__":
    main()
