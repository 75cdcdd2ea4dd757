"""How fast Diabolo trains, infers and starts, beside hand-written loops and other packages; all in one run, taking turns.

    python benchmarks/speed.py [--only overhead profile peers quality roofline inference memory start] [--repeats 5] [--render]

MNIST is read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data); peers are found through DIABOLO_PEERS, a
folder of virtual environments, as $DIABOLO_PEERS/NAME/bin/python, and left out with a word where they are missing. Seconds are
those of the clock, with torch's own number of threads; ratios are of medians, with the smallest and the largest of each run.
Results go to benchmarks/results/speed.json; ``--render`` writes docs/speed.md from that file alone.

- overhead: `fit` against a loop by hand over the same tensors, network, loss and optimiser. ``loop`` is the time of the epochs
  alone, ``fit`` that of everything, from reading the rows to the fitted model.
- profile: microseconds of a training step, by what they are spent on.
- peers: the same network, batch size and epochs in other packages, as their documentation has it; Adam, 784-64-784.
- quality: seconds from `fit()` to a mean squared error of 0.0040 on MNIST's test rows with 784-64-784, ReLU and sigmoid, beside
  the recipe of tutorials (Adam, 1e-3, batches of 32) for up to 12 epochs; and for other networks the time to what a loop by hand
  reaches in some epochs. Our optimiser, learning rate, batch and epochs were chosen on 10,000 of the training rows.
- roofline: floating-point operations a second of `fit` over those of the bare matrix products, 784-1024-1024-64, batches of 512.
- inference: rows a second of `transform`, `reconstruct` and `score_samples` over those of the bare module.
- memory: peak memory of processes that fit, less one that only holds the rows.
- start: seconds to import, to show help, and to a first fit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import diabolo
from diabolo import VAE, Autoencoder, AutoencoderModule, CustomAutoencoder
from diabolo.objectives import elbo
from diabolo.parts.bottlenecks import Identity
from diabolo.parts.likelihoods import Gaussian
from diabolo.records import Batch
from diabolo.training.optimizer import Optimizer

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "speed.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
FIT = Path(__file__).parent / "peers" / "speed_fit.py"
PACKAGES = ("keras", "pythae", "pyod", "skorch", "lightning", "sklearn", "loader")
OWN = ("sklearn", "loader")  # run in this environment
QUALITY = {"optimizer": "soap", "batch_size": 256, "max_epochs": 1, "learning_rate": 0.015}


def mnist():
    """Return training and test rows, pixels in [0, 1]."""
    data = np.load(DATA / "images" / "mnist.npz")
    return tuple(data[k].reshape(-1, 784).astype(np.float32) / 255 for k in ("x_train", "x_test"))


def spread(values):
    """Median, least and most."""
    return {"median": float(np.median(values)), "min": float(np.min(values)), "max": float(np.max(values))}


def ratio(above, below):
    """Ratio of medians, and the extremes of the ratios of pairs."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": float(np.median(above) / np.median(below)), "min": min(pairs), "max": max(pairs)}


def clock(work):
    """Return the seconds of ``work()`` and what it returned."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def halves(widths, last=None):
    """Return an encoder and a decoder of linear layers with ReLU between them."""

    def stack(ws):
        layers = [layer for a, b in pairwise(ws) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    return stack(widths), stack(widths[::-1])


# a loop by hand ---------------------------------------------------------------------------------------------------------


def by_hand(X, net, batch, epochs, loss=F.mse_loss, lr=2e-3, each=None, autocast=False):
    """Train ``net`` on a resident tensor, as short as it goes; ``each(net)`` is asked after every epoch and not timed."""
    x = torch.from_numpy(X)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    seconds, began = 0.0, time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(batch):
            rows = x[index]
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                value = loss(net(rows), rows)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        if each is not None:
            seconds += time.perf_counter() - began
            if each(net):
                return seconds
            began = time.perf_counter()
    return seconds + time.perf_counter() - began


def ours(widths, **how):
    """Return an estimator of the same network as :func:`halves`, under squared error."""

    def build(schema):
        encoder, decoder = halves(widths)
        parts = {"encoder": encoder, "decoder": decoder, "bottleneck": Identity(widths[-1]), "likelihood": Gaussian()}
        return AutoencoderModule(schema, **parts)

    plain = {"scale": None, "validation_fraction": 0, "schedule": "constant", "random_state": 0}
    return CustomAutoencoder(build=build, **plain | how)


# the parts --------------------------------------------------------------------------------------------------------------


def overhead(repeats):
    """Steps a second of fit over those of a loop by hand."""
    cases = {
        "784-64-784, batch 32": ((784, 64), 32, 8000, 4),
        "784-64-784, batch 256": ((784, 64), 256, 24_000, 4),
        "784-512-256-32, batch 256": ((784, 512, 256, 32), 256, 12_000, 3),
        "table of 30 columns, 64-8, batch 256": ((30, 64, 8), 256, 60_000, 5),
    }
    found = {}
    for name, (widths, batch, n, epochs) in cases.items():
        X = np.random.default_rng(0).random((n, widths[0]), dtype=np.float32)
        model = ours(widths, batch_size=batch, max_epochs=epochs)
        loops, fits, hands = [], [], []
        for i in range(repeats + 1):  # the first is not counted
            fit, _ = clock(lambda model=model, X=X: model.fit(X))
            hand = by_hand(X, nn.Sequential(*halves(widths)), batch, epochs)
            if i:
                fits.append(fit), loops.append(model.history_["seconds"][-1]), hands.append(hand)
        steps = epochs * -(-n // batch)
        found[name] = {
            "steps per second": steps / float(np.median(loops)),
            "loop": ratio(hands, loops),
            "fit": ratio(hands, fits),
            "passes over the rows": epochs,
        }
        print(
            f"  {name}: loop {found[name]['loop']['median']:.2f}, fit {found[name]['fit']['median']:.2f} of a loop by hand"
        )
    return found


def profile(repeats):
    """Microseconds of a step of the loop, by what they are spent on."""
    found = {}
    for name, (widths, batch, steps) in {
        "784-64-784, batch 32": ((784, 64), 32, 400),
        "784-64-784, batch 256": ((784, 64), 256, 150),
        "784-512-256-32, batch 256": ((784, 512, 256, 32), 256, 60),
    }.items():
        X = torch.rand(steps * batch, widths[0])
        module = ours(widths, max_epochs=1).fit(X[:100].numpy()).module_.train()
        optimizer = Optimizer(module.parameters(), lr=1e-3, weight_decay=1e-4, widest=0)
        spent = {"gathering rows": [], "forward and loss": [], "backward": [], "optimiser": [], "whole steps": []}
        for i in range(repeats + 1):  # the first is not counted
            order, sums = torch.randperm(len(X)), dict.fromkeys(spent, 0.0)
            began = time.perf_counter()
            for index in order.split(batch):
                marks = [time.perf_counter()]
                rows = Batch(X.index_select(0, index))
                marks.append(time.perf_counter())
                loss = elbo(module, rows, 0.5).total
                marks.append(time.perf_counter())
                loss.backward()
                marks.append(time.perf_counter())
                optimizer.step()
                optimizer.zero_grad()
                marks.append(time.perf_counter())
                for key, (a, b) in zip(sums, pairwise(marks), strict=False):
                    sums[key] += b - a
            sums["whole steps"] = time.perf_counter() - began
            for key, seconds in sums.items():
                if i:
                    spent[key].append(1e6 * seconds / steps)
        found[name] = {key: spread(values) for key, values in spent.items()}
        print(
            f"  profile {name}: " + ", ".join(f"{k} {v['median']:.0f} us" for k, v in found[name].items()), flush=True
        )
    return found


def run_package(name, rows, test, batch, epochs, target=0.0):
    """Return what the script of a package says, or None where it is missing."""
    python = sys.executable if name in OWN else PEERS / name / "bin" / "python"
    if not Path(python).exists():
        return None
    command = [python, FIT, name, rows, test, str(batch), str(epochs), str(target)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    if run.returncode:
        raise RuntimeError(f"{name}: {run.stderr[-800:]}")
    return json.loads(run.stdout.splitlines()[-1])


def peers(repeats):
    """Seconds of other packages over ours at the same network, batch and epochs."""
    A, B = mnist()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test.npy"
        np.save(test, B)
        for batch, n, epochs in ((32, 10_000, 2), (256, 30_000, 2)):
            rows = Path(folder) / "rows.npy"
            np.save(rows, A[:n])
            model = Autoencoder(
                64, hidden=(), network="mlp", code_activation="relu", likelihood="sigmoid_gaussian", scale=None,
                validation_fraction=0, batch_size=batch, max_epochs=epochs, learning_rate=1e-3, random_state=0,
            )  # fmt: skip
            model.fit(A[: 4 * batch])
            mine, theirs = [], {name: [] for name in PACKAGES}
            for _ in range(repeats):
                mine.append(clock(lambda model=model, n=n: model.fit(A[:n]))[0])
                for name, times in theirs.items():
                    told = run_package(name, rows, test, batch, epochs)
                    if told is not None:
                        times.append(told["seconds"])
            case = found[f"batch {batch}"] = {
                "rows": n,
                "epochs": epochs,
                "ours, seconds": spread(mine),
                "times ours": {},
            }
            for name, times in theirs.items():
                if times:
                    case["times ours"][name] = ratio(times, mine)
                    print(f"  batch {batch}: {name} takes {case['times ours'][name]['median']:.1f} times as long")
    return found


def quality(repeats):
    """Seconds to a quality."""
    A, B = mnist()
    mine, errors = [], []
    for seed in range(repeats + 1):
        model = Autoencoder(
            64, hidden=(), code_activation="relu", likelihood="sigmoid_gaussian", scale=None, weight_decay=0,
            validation_fraction=0, random_state=seed, **QUALITY,
        )  # fmt: skip
        seconds, _ = clock(lambda model=model: model.fit(A))
        if seed:
            mine.append(seconds)
            errors.append(float(np.mean((model.reconstruct(B) - B) ** 2)))
    found = {"784-64-784 to 0.0040": {"ours": {"seconds": spread(mine), "mse": spread(errors)}}}
    print(
        f"  784-64-784: {np.median(mine):.2f} s, test MSE {np.median(errors):.5f} (worst {max(errors):.5f})", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        rows, test = Path(folder) / "rows.npy", Path(folder) / "test.npy"
        np.save(rows, A), np.save(test, B)
        for name in ("loader", "keras"):
            told = run_package(name, rows, test, 32, 12, 0.0040)
            if told is not None:
                told["times ours"] = told["seconds"] / float(np.median(mine))
                found["784-64-784 to 0.0040"][name] = told
                print(f"  {name}: {told}", flush=True)
    for name, case in CASES.items():
        found[name] = case(A, B, min(3, repeats))
        print(f"  {name}: {found[name]}", flush=True)
    return found


def race(A, B, repeats, net, epochs, model, loss, judge_net, judge_model, batch=128, shape=None):
    """Seconds of ours until it is as good on test rows as a loop by hand after some epochs, and how good both are."""
    hand, us, values, targets = [], [], [], []
    X, T = (A, B) if shape is None else (A.reshape(shape), B.reshape(shape))
    for seed in range(repeats):
        torch.manual_seed(seed)
        made = net()
        hand.append(by_hand(X, made, batch, epochs, loss, lr=1e-3))
        targets.append(judge_net(made, T))
        model.set_params(random_state=seed)
        us.append(clock(lambda: model.fit(X))[0])
        values.append(judge_model(model, T))
    return {
        "by hand": {"seconds": spread(hand), "value": spread(targets), "epochs": epochs},
        "ours": {"seconds": spread(us), "value": spread(values), "epochs": model.get_params()["max_epochs"]},
        "reached": bool(np.median(values) <= np.median(targets)),
        "by hand over ours": ratio(hand, us),
    }


@torch.no_grad()
def error_of(net, T):
    return float(F.mse_loss(net(torch.from_numpy(T)), torch.from_numpy(T)))


def deep(A, B, repeats):
    """784-512-256-32 under squared error."""
    model = Autoencoder(
        32, hidden=(512, 256), activation="relu", scale=None, likelihood="gaussian", validation_fraction=0,
        max_epochs=4, batch_size=256,
    )  # fmt: skip

    def error(m, T):
        return float(np.mean((m.reconstruct(T) - T) ** 2))

    return race(
        A, B, repeats, lambda: nn.Sequential(*halves((784, 512, 256, 32))), 10, model, F.mse_loss, error_of, error
    )


class HandVAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 40))
        self.decode = nn.Sequential(nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 784))

    def forward(self, x):
        mu, logvar = self.encode(x).chunk(2, 1)
        return self.decode(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


def hand_bound(out, x):
    """Negative evidence lower bound of a batch, nats per row."""
    raw, mu, logvar = out
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()
    return F.binary_cross_entropy_with_logits(raw, x, reduction="sum") / len(x) + kl


def vae(A, B, repeats):
    """784-200-20 under cross-entropy, grey pixels as probabilities."""
    model = VAE(
        20,
        hidden=(200,),
        activation="relu",
        likelihood="bernoulli",
        validation_fraction=0,
        max_epochs=4,
        batch_size=128,
    )

    @torch.no_grad()
    def judge(net, T):
        torch.manual_seed(0)
        return float(np.mean([float(hand_bound(net(torch.from_numpy(T)), torch.from_numpy(T))) for _ in range(8)]))

    def bound(m, T):
        return -float(m.score_samples(T, n_samples=8, random_state=0).mean())

    return race(A, B, repeats, HandVAE, 10, model, hand_bound, judge, bound)


class HandConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1568, 32),
        )
        self.decode = nn.Sequential(
            nn.Linear(32, 1568), nn.ReLU(), nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x):
        return self.decode(self.encode(x))


def conv(A, B, repeats):
    """Two stages of 16 and 32 channels and a code of 32, 10,000 images; ours with its own stages."""
    model = Autoencoder(
        32, hidden=(16, 32), network="shortcut_conv", scale=None, likelihood="gaussian", validation_fraction=0,
        max_epochs=2, batch_size=64,
    )  # fmt: skip

    def error(m, T):
        return float(np.mean((m.reconstruct(T) - T) ** 2))

    return race(
        A[:10_000], B, repeats, HandConv, 5, model, F.mse_loss, error_of, error, batch=64, shape=(-1, 1, 28, 28)
    )


CASES = {"784-512-256-32": deep, "VAE 784-200-20": vae, "convolutions 16-32, code 32": conv}


def roofline(repeats):
    """Share of the speed of bare matrix products that fit reaches."""
    widths, batch, n = (784, 1024, 1024, 64), 512, 512 * 24
    X = np.random.default_rng(0).random((n, widths[0]), dtype=np.float32)
    pairs = [*pairwise(widths), *pairwise(widths[::-1])]
    operations = sum(2 * batch * a * b * (3 - (i == 0)) for i, (a, b) in enumerate(pairs))  # no gradient of the rows
    found = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        products = []
        for i, (a, b) in enumerate(pairs):
            x, w, g = (torch.rand(s).to(dtype) for s in ((batch, a), (b, a), (batch, b)))
            products += [(x, w.T), (g.T, x), *([(g, w)] if i else [])]
        model = ours(widths, batch_size=batch, max_epochs=1, precision=precision)
        model.fit(X)
        bare, fits, hands = [], [], []
        for _ in range(repeats):
            best = 0.0
            for a, b in products:
                a @ b
                best += min(clock(lambda a=a, b=b: a @ b)[0] for _ in range(12))
            bare.append(best)
            model.fit(X)
            fits.append(model.history_["seconds"][-1] * batch / n)
            net = nn.Sequential(*halves(widths))
            hands.append(by_hand(X, net, batch, 1, autocast=precision == "bfloat16") * batch / n)
        found[precision] = {
            "products, GFLOP/s": spread([operations / t / 1e9 for t in bare]),
            "fit, GFLOP/s": spread([operations / t / 1e9 for t in fits]),
            "fit over products": ratio(bare, fits),
            "loop by hand over products": ratio(bare, hands),
        }
        print(f"  {precision}: {found[precision]}", flush=True)
    return found


def inference(repeats):
    """Rows a second over those of the bare module, and memory against the number of rows."""
    found = {}
    for name, (widths, n) in {"784-64-784": ((784, 64), 60_000), "table of 30 columns": ((30, 64, 8), 400_000)}.items():
        X = np.random.default_rng(0).random((n, widths[0]), dtype=np.float32)
        model = ours(widths, batch_size=256, max_epochs=1).fit(X[:2000])
        module, x = model.module_.eval(), torch.from_numpy(X)
        step = max(1, 2**21 // widths[0])

        def bare(what, module=module, x=x, step=step):
            with torch.inference_mode():
                return torch.cat([what(module, part) for part in x.split(step)]).numpy()

        def encode(m, p):
            return m.bottleneck(m.encoder(p), sample=False).z

        def decode(m, p):
            return m.decoder(encode(m, p))

        def density(m, p):
            return -0.5 * ((decode(m, p) - p).square().sum(1) + 0.919 * 2 * p.shape[1])

        pairs = {"transform": encode, "reconstruct": decode, "score_samples": density}
        case = found[name] = {}
        for method, what in pairs.items():
            us, raw = [], []
            for i in range(repeats + 1):
                a, _ = clock(lambda method=method, model=model, X=X: getattr(model, method)(X))
                b, _ = clock(lambda what=what, bare=bare: bare(what))
                if i:
                    us.append(a), raw.append(b)
            case[method] = {"rows per second": n / float(np.median(us)), "of the bare module": ratio(raw, us)}
            print(f"  {name}, {method}: {case[method]['of the bare module']['median']:.2f}", flush=True)
    return found


MEMORY = """
import sys, numpy as np
n, how = int(sys.argv[1]), sys.argv[2]
import torch, diabolo
from diabolo import Autoencoder
small = Autoencoder(64, hidden=(), max_epochs=1, random_state=0, scale=None, likelihood="gaussian").fit(
    np.random.default_rng(0).random((500, 784), dtype=np.float32))
X = np.empty((n, 784), dtype=np.float32)
for part in np.array_split(X, 50):
    part[:] = np.random.default_rng(len(part)).random(part.shape, dtype=np.float32)
if how == "fit":
    Autoencoder(64, hidden=(), max_epochs=1, random_state=0, scale=None, likelihood="gaussian").fit(X)
elif how == "scaled":
    Autoencoder(64, hidden=(), max_epochs=1, random_state=0, likelihood="gaussian").fit(X)
elif how == "score":
    small.score_samples(X)
print(next(int(s.split()[1]) for s in open("/proc/self/status") if s.startswith("VmHWM")) / 1024)
"""


def memory(repeats):
    """Peak memory in MiB beyond a process that holds the rows."""
    found = {}
    for n in (25_000, 100_000):
        peak = {}
        for how in ("hold", "fit", "scaled", "score"):
            run = subprocess.run(
                [sys.executable, "-c", MEMORY, str(n), how], capture_output=True, text=True, check=True
            )
            peak[how] = float(run.stdout)
        rows = n * 784 * 4 / 2**20
        found[f"{n} rows of 784"] = {"rows, MiB": rows} | {
            f"{how}, MiB beyond the rows": peak[how] - peak["hold"] for how in ("fit", "scaled", "score")
        }
        print(f"  {n}: {found[f'{n} rows of 784']}", flush=True)
    return found


def start(repeats):
    """Seconds of fresh processes."""
    first = (
        "import torch, time, numpy as np; began = time.perf_counter(); from diabolo import Autoencoder; "
        "Autoencoder(random_state=0).fit(np.random.default_rng(0).normal(size=(1000, 30))); "
        "print(time.perf_counter() - began)"
    )
    alone = "import time; began = time.perf_counter(); import diabolo; print(time.perf_counter() - began)"
    cases = {
        "import diabolo": [sys.executable, "-c", alone],
        "diabolo --help, whole process": [sys.executable, "-m", "diabolo", "--help"],
        "first fit of 1,000 x 30 after torch": [sys.executable, "-c", first],
    }
    found = {}
    for name, command in cases.items():
        times = []
        for _ in range(repeats):
            seconds, run = clock(
                lambda command=command: subprocess.run(command, capture_output=True, text=True, check=True)
            )
            times.append(seconds if "process" in name else float(run.stdout))
        found[name] = spread(times)
        print(f"  {name}: {found[name]['median']:.3f} s", flush=True)
    return found


def machine():
    """What the figures were taken on, and with."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return {
        "processor": next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown processor"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "diabolo": diabolo.__version__,
    }


PARTS = {f.__name__: f for f in (overhead, profile, peers, quality, roofline, inference, memory, start)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--render", action="store_true", help="write the page from the results, and run nothing")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.render:
        from speed_page import render

        PAGE.write_text(render(results))
        return
    for name in options.only:
        print(f"{name}:", flush=True)
        results[name] = PARTS[name](options.repeats)
        results["machine"] = machine()
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
