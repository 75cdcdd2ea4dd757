"""Every model on the same images, beside the same models of other packages: one table for each set of data.

    python benchmarks/zoo.py [--data digits mnist fashion] [--rows 10000] [--seeds 1] [--only VAE WAE] [--libraries ...]
    python benchmarks/zoo.py --render

``digits`` comes with scikit-learn; ``mnist`` and ``fashion`` are read from the folder named by DIABOLO_BENCH_DATA (default
../shared/data), and skipped with a word where they are not there. Peers are found through DIABOLO_PEERS, a folder of virtual
environments, as $DIABOLO_PEERS/NAME/bin/python; their side is in benchmarks/peers. Pixels are in [0, 1] for everybody.

Each row is kept in benchmarks/results/zoo.json as soon as it is there, and a run goes on where the last one stopped: what has
its seeds is not run again, unless ``--only`` names it. ``--render`` writes docs/benchmarks.md from that file alone.

``diabolo``, ``pythae`` and ``autoencoders`` train the same net, 784-200-200-16-200-200-784 with ReLU, on the same rows for the
same epochs in batches of 100, a tenth of the rows for validation; optimiser, learning rate, likelihood and weights of terms are
each package's own. ``pythae`` takes the learning rate of its README, 1e-3; ``pythae defaults`` its default of 1e-4. ``diabolo
defaults`` has every parameter at its default but the size of the code. Models that no peer has are in the table too, and
dictionaries (one wide layer of 256 sparse units) keep their own net.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import trustworthiness
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

import diabolo
import diabolo.tasks
import diabolo.zoo
from diabolo.declare import REGISTRY
from diabolo.estimator import BaseAutoencoder
from diabolo.parts.bottlenecks import Bottleneck
from diabolo.zoo.dictionary import DictionaryModel

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "zoo.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
LIBRARIES = ("diabolo", "diabolo defaults", "pythae", "pythae defaults", "autoencoders")
LATENT, HIDDEN, EPOCHS, BATCH, DRAWS = 16, (200, 200), 30, 100, 100
NET = {"network": "mlp", "hidden": HIDDEN, "activation": "relu"}
BUDGET = {"batch_size": BATCH, "max_epochs": EPOCHS, "patience": None}
LEFT_OUT = {"CustomAutoencoder"}  # has no network of its own


class Model(NamedTuple):
    """A line of the table: our class, what makes it this variant, what gives all packages codes of one size, and their names."""

    ours: str
    variant: dict = {}
    sized: dict = {}
    pythae: str | None = None
    autoencoders: str | None = None
    options: dict = {}  # of autoencoders


SHARED = {
    "Autoencoder": Model("Autoencoder", pythae="AE", autoencoders="AE"),
    "DenoisingAutoencoder": Model("DenoisingAutoencoder", autoencoders="DAE"),
    "ContractiveAutoencoder": Model("ContractiveAutoencoder", autoencoders="CAE"),
    "SparseAutoencoder": Model("SparseAutoencoder", autoencoders="SAE"),
    "SparseAutoencoder, KL": Model("SparseAutoencoder", {"sparsity": "kl"}, autoencoders="KLSAE"),
    "KSparseAutoencoder": Model(
        "KSparseAutoencoder", sized={"k": 4} | NET, autoencoders="TopKSAE", options={"topk": 4}
    ),
    "RegularizedAutoencoder": Model("RegularizedAutoencoder", pythae="RAE_L2"),
    "RegularizedAutoencoder, gradient": Model("RegularizedAutoencoder", {"decoder_penalty": "gp"}, pythae="RAE_GP"),
    "WAE": Model("WAE", pythae="WAE_MMD", autoencoders="WAE"),
    "AdversarialAutoencoder": Model("AdversarialAutoencoder", pythae="Adversarial_AE", autoencoders="AAE"),
    "VAE": Model("VAE", pythae="VAE", autoencoders="VAE"),
    "BetaVAE": Model("BetaVAE", pythae="BetaVAE", autoencoders="BetaVAE"),
    "BetaTCVAE": Model("BetaTCVAE", pythae="BetaTCVAE", autoencoders="BetaTCVAE"),
    "FactorVAE": Model("FactorVAE", pythae="FactorVAE", autoencoders="FactorVAE"),
    "DIPVAE": Model("DIPVAE", autoencoders="DIPVAE"),
    "InfoVAE": Model("InfoVAE", pythae="INFOVAE_MMD", autoencoders="InfoVAE"),
    "CapacityVAE": Model("CapacityVAE", pythae="DisentangledBetaVAE"),
    "IWAE": Model("IWAE", pythae="IWAE"),
    "LadderVAE": Model("LadderVAE", autoencoders="HVAE"),
    "FlowPosteriorVAE": Model("FlowPosteriorVAE", pythae="VAE_IAF"),
    "VampPriorVAE": Model("VampPriorVAE", pythae="VAMP", autoencoders="VampPriorVAE"),
    "HypersphericalVAE": Model("HypersphericalVAE", pythae="SVAE"),
    "VQVAE": Model(
        "VQVAE", sized={"code_dim": 16}, pythae="VQVAE", autoencoders="VQVAE", options={"codebook_size": 512}
    ),
    "ResidualVQVAE": Model(
        "ResidualVQVAE", sized={"code_dim": 16, "n_codes": 256, "n_codebooks": 2}, autoencoders="RQVAE"
    ),
    "FSQAutoencoder": Model("FSQAutoencoder", sized={"levels": (8, 8, 8, 8)}, autoencoders="FSQ"),
}


def lines():
    """All lines of the table: the shared models, then the registered ones that no peer has."""
    shared = {name: model for name, model in SHARED.items() if model.ours in REGISTRY}
    ours = {k for k, v in REGISTRY.items() if issubclass(v, BaseAutoencoder)} - LEFT_OUT
    return shared | {name: Model(name) for name in sorted(ours - {m.ours for m in SHARED.values()})}


def load(name, rows, seed):
    """Return training and test rows and labels, or None where the data are not there."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return train_test_split((X / 16).astype(np.float32), y, test_size=0.25, random_state=seed)
    file = DATA / "images" / {"mnist": "mnist.npz", "fashion": "fashion_mnist_20k.npz"}[name]
    if not file.exists():
        return None
    data = np.load(file)
    chosen = np.random.default_rng(seed).permutation(len(data["x_train"]))[:rows]
    A, B = (data[k].reshape(-1, 784).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    return A[chosen], B, data["y_train"][chosen], data["y_test"]


# what a model made of the rows, as arrays -----------------------------------------------------------------------------


def diabolo_model(model, library, split, seed):
    """Fit ours and return the arrays that a peer's script writes."""
    A, B, a, _ = split
    cls = REGISTRY[model.ours]
    dictionary = issubclass(cls, DictionaryModel)
    width, params = (256 if dictionary and not model.sized else LATENT), dict(model.variant)
    if library == "diabolo":
        params |= BUDGET | ({} if dictionary else NET) | model.sized
    elif dictionary:
        width = 256
    estimator = cls(width, random_state=seed, **params)
    given = {"y": a} if get_tags(estimator).target_tags.required else {}  # the digit, where a condition is asked for
    began = time.process_time()
    estimator.fit(A, **given)
    found = {"seconds": time.process_time() - began, "epochs": len(estimator.history_)}
    found |= {"code_train": estimator.transform(A), "code_test": estimator.transform(B)}
    found["rebuilt"] = estimator.reconstruct(B)
    bottleneck = estimator.module_.bottleneck
    if bottleneck.stochastic and type(bottleneck).log_ratio is not Bottleneck.log_ratio:
        for name, rows, draws in (("train", A[:500], 50), ("test", B[:1000], DRAWS)):
            found |= {f"{k}_{name}": v for k, v in posterior_draws(estimator, rows, draws, seed).items()}
    if hasattr(estimator, "encode_codes"):
        found |= {"symbols": estimator.encode_codes(A), "n_codes": estimator._quantiser.n_codes}
    return found


def posterior_draws(estimator, rows, draws, seed):
    """Squared error and log q - log p of each row and draw, and the variance of each unit over the draws of a row."""

    def draw(module, batch):
        trace = module.trace(batch, sample=True)
        ratio = module.bottleneck.log_ratio(trace.code)[:, None]
        return torch.cat([module.likelihood.mean(trace.raw).flatten(1), trace.code.z.flatten(1), ratio], 1)

    torch.manual_seed(seed)
    raw, size = estimator._read(rows, reset=False), rows.shape[1]
    errors, ratios, total, square = [], [], 0.0, 0.0
    for _ in range(draws):
        out = estimator._apply(raw, draw)
        errors.append(np.square(estimator.codec_.decode(out[:, :size]) - rows).sum(1))
        ratios.append(out[:, -1])
        z = out[:, size:-1].astype(np.float64)
        total, square = total + z, square + z**2
    noise = (square - total**2 / draws).mean(0) / (draws - 1)
    return {"sse": np.stack(errors, 1), "ratio": np.stack(ratios, 1), "noise": noise}


class PeerError(Exception):
    """A peer's own error, which becomes its result."""


class Peer:
    """A peer's script at work in its own environment; started at the first job, because its imports take seconds."""

    def __init__(self, name):
        self.name, self.process = name, None

    def start(self):
        script = Path(__file__).parent / "peers" / f"{self.name}_models.py"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        python = PEERS / self.name / "bin" / "python"
        self.process = subprocess.Popen([python, script], text=True, env=environment, **pipes)

    def __call__(self, model, library, split, seed):
        """Fit a model and return its arrays."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        with tempfile.TemporaryDirectory() as folder:
            rows, out, job = (Path(folder) / f for f in ("rows.npz", "out.npz", "job.json"))
            np.savez(rows, train=split[0], test=split[1])
            rate = 1e-3 if library == "pythae" else None  # the README of pythae; else the package's default
            options = model.options if self.name == "autoencoders" else {}
            described = {"model": getattr(model, self.name), "options": options, "learning_rate": rate, "seed": seed}
            described |= {"hidden": HIDDEN, "latent_dim": LATENT, "epochs": EPOCHS, "batch": BATCH}
            job.write_text(json.dumps(described | {"draws": DRAWS, "rows": str(rows), "out": str(out)}))
            self.process.stdin.write(f"{job}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            if not answer.endswith("\n"):
                raise PeerError(f"the process ended, exit status {self.process.wait()}")
            if answer.strip():
                raise PeerError(answer.strip())
            return dict(np.load(out)) | {"epochs": EPOCHS}


WORKERS = {"pythae": Peer("pythae"), "autoencoders": Peer("autoencoders")}


# what the arrays are worth --------------------------------------------------------------------------------------------


def log_bound(sse, ratio, size, log_variance):
    """Importance-weighted bound of each row, in nats, under a Gaussian of one variance for all pixels."""
    log_prob = -0.5 * (sse * np.exp(-log_variance) + size * (log_variance + np.log(2 * np.pi)))
    weights = log_prob.astype(np.float64) - ratio
    return np.logaddexp.reduce(weights, axis=1) - np.log(weights.shape[1])


def judge(found, split):
    """Measure a model's arrays, the same way for every package."""
    _, B, a, b = split
    code_a, code_b = (np.asarray(found[k]).reshape(len(found[k]), -1) for k in ("code_train", "code_test"))
    variance = code_b.var(axis=0, dtype=np.float64)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear.fit(code_a, a)
    result = {
        "mse": float(np.mean((found["rebuilt"] - B) ** 2)),
        "linear": float(linear.score(code_b, b)),
        "knn": float(KNeighborsClassifier(1, algorithm="brute").fit(code_a, a).score(code_b, b)),
        "trust": float(trustworthiness(B[:1000], code_b[:1000], n_neighbors=5)),
        "active": int((variance > 0.01 * variance.max()).sum()),
        "width": int(code_b.shape[1]),
        "epochs": int(found["epochs"]),
        "seconds": float(found["seconds"]),
    }
    if "sse_test" in found:
        # one variance for all pixels, chosen on training rows by the same bound: no package's own scale helps or hurts it
        grid = np.linspace(np.log(1e-3), 0.0, 70)
        size = B.shape[1]
        chosen = max(grid, key=lambda v: log_bound(found["sse_train"], found["ratio_train"], size, v).mean())
        result["nll"] = float(-log_bound(found["sse_test"], found["ratio_test"], size, chosen).mean())
        result["sigma"] = float(np.exp(chosen / 2))
        # the share of a unit's variance that comes from the row (Burda et al., 2016, for variances of about 1)
        result["active"] = int((variance > 0.01 * (variance + found["noise_test"])).sum())
    if "symbols" in found:
        symbols, n_codes = np.asarray(found["symbols"]), int(found["n_codes"])
        result["bits"] = float(symbols.shape[1] * np.log2(n_codes))
        result["usage"] = usage(symbols, n_codes)
    return result


def usage(symbols, n_codes):
    """Share of the codes that occur: in any place where one codebook serves all, else the mean over places is no larger."""
    return float(len(np.unique(symbols)) / n_codes)


# the run --------------------------------------------------------------------------------------------------------------


def wanted(model, library):
    """Whether a package has the model; ``diabolo defaults`` is for all."""
    return library.startswith("diabolo") or getattr(model, library.split()[0]) is not None


def run_one(model, library, split, seed):
    """Return the measures of one fit; an error, ours or a peer's, is a result too."""
    make = diabolo_model if library.startswith("diabolo") else WORKERS[library.split()[0]]
    try:
        return judge(make(model, library, split, seed), split)
    except (PeerError, TypeError, ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}".removeprefix("PeerError: ").splitlines()[0][:300]}


def middle(runs):
    """Medians over seeds of what all of them have."""
    keys = set.intersection(*(set(r) for r in runs))
    return {k: float(np.median([r[k] for r in runs])) for k in runs[0] if k in keys}


def show(name, library, run):
    """One line on the terminal."""
    if "error" in run:
        return f"{name:32s} {library:17s} {run['error']}"
    text = f"{name:32s} {library:17s} mse {run['mse']:.5f}  nll {run.get('nll', np.nan):8.1f}  active {run['active']:3.0f}  "
    text += f"linear {run['linear']:.3f}  1-NN {run['knn']:.3f}  trust {run['trust']:.3f}  {run['seconds']:6.1f} s"
    return text + (f"  {run['usage']:.0%} of codes, {run['bits']:.0f} bits" if "usage" in run else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=("digits", "mnist", "fashion"), default=["digits"])
    parser.add_argument("--rows", type=int, default=10_000, help="training rows of mnist and fashion")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=lines(), help="run these again")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--shared", action="store_true", help="only the models that a peer has too")
    parser.add_argument("--render", action="store_true", help="write the page from the results, and run nothing")
    parser.add_argument(
        "--published", action="store_true", help="published figures beside ours (minutes), and no table"
    )
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        from zoo_page import render

        PAGE.write_text(render(results))
        return
    torch.set_num_threads(1)
    if options.published:
        from zoo_published import run

        for name, told in run(DATA / "images"):
            results.setdefault("published", {})[name] = told
            print(f"{name}: {told['ours']:.4f}, published {told['published']}", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        return
    absent = {p for p in ("pythae", "autoencoders") if not (PEERS / p / "bin" / "python").exists()}
    for name in sorted(absent):
        print(f"{name}: skipped, {PEERS / name / 'bin' / 'python'} is not there")
    libraries = [p for p in options.libraries if p.split()[0] not in absent]
    chosen = {k: m for k, m in lines().items() if not options.shared or k in SHARED}
    redo = set()
    if options.only:
        chosen = {k: chosen[k] for k in options.only}
        redo = {(d, k, p) for d in options.data for k in chosen for p in libraries}
    for data in options.data:
        if load(data, 1, 0) is None:
            print(f"{data}: skipped, not in {DATA}")
            continue
        print(f"{data}:")
        told = results.setdefault(data, {"rows": {}})
        kept = told["rows"]
        for seed in range(options.seeds):  # seeds outside, packages inside: their times alternate
            split = load(data, options.rows, seed)
            if told.get("train", len(split[0])) != len(split[0]):
                parser.error(
                    f"the results of {data} are of {told['train']} training rows, not {len(split[0])}: "
                    f"use --rows {told['train']}, or take {data!r} out of {RESULTS}"
                )
            told |= {"train": len(split[0]), "test": len(split[1])}
            for name, model in chosen.items():
                for library in libraries:
                    if not wanted(model, library):
                        continue
                    row = kept.setdefault(name, {}).setdefault(library, {"runs": []})
                    if (data, name, library) in redo:
                        redo.discard((data, name, library))
                        row["runs"] = []
                    if len(row["runs"]) > seed:
                        continue
                    row["runs"].append(run_one(model, library, split, seed))
                    row["median"] = middle([r for r in row["runs"] if "error" not in r] or [{}])
                    print("  " + show(name, library, row["runs"][-1]), flush=True)
                    results["machine"] = machine()
                    RESULTS.parent.mkdir(exist_ok=True)
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def machine():
    """What the figures were taken on, and with."""
    widths = ["pixels", *HIDDEN, LATENT, *HIDDEN[::-1], "pixels"]
    return {
        "net": "-".join(str(w) for w in widths) + " with ReLU",
        "epochs": EPOCHS,
        "batch": BATCH,
        "draws": DRAWS,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "diabolo": diabolo.__version__,
    }


if __name__ == "__main__":
    main()
