"""Known features found again: our dictionary learners beside those of sae-lens and dictionary-learning, on the same rows.

    python benchmarks/dictionaries.py [--seeds 0 1 2] [--only "TopK" "sae-lens TopK"] [--speed] [--again]

The rows: 256 features are random directions of length 1 in 64 dimensions. Feature j is active with probability p_j,
in proportion to j^-1/2 in random order, so that 5 are active in a row on average. They are active together by a
Gaussian copula: of the variance of each feature's normal variable 0.3 comes from 8 shared factors with random
loadings. An active feature has the amount 0.5 plus the absolute value of a standard normal. Normal noise of 0.02 is
added to each dimension. 100,000 rows are for training, 10,000 are held out. Every model has 256 units and k=5, and
takes the same number of steps of 256 rows on one thread; ours hold a tenth of the training rows out to judge epochs,
the peers train on all of them.

What is measured, on held-out rows:

- MCC: columns of the dictionary and features are paired one to one so that the sum of |cosine| is highest; its mean
  over features.
- F1: a column has found its partner where |cosine| >= 0.9; the harmonic mean of the shares of columns and of
  features.
- firing: each unit as a detector of the feature nearest to its column; the F1 score of "active", averaged over units.
- FVU: squared error divided by that of the mean row.
- L0: active units of a row. The floors are for codes that know the true dictionary: the true code, its 5 largest
  amounts, and five steps of orthogonal matching pursuit with amounts of at least 0.

Our learning rate, weight decay and refinements were chosen on seeds 10 and 11, the table is of other seeds. Peers
have the learning rate that they set by themselves (sae-lens sets none: that of its function for toy data) and,
marked, ours; the best settings of ours were searched for and those of the peers were not. Peers are found through
DIABOLO_PEERS, a folder of virtual environments, as $DIABOLO_PEERS/NAME/bin/python, and are left out with a word where
they are missing. --speed times fits of some hundred steps, all in turns. Runs that are in
benchmarks/results/dictionaries.json already are not made again without --again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "dictionaries.json"
FEATURES, DIMENSIONS, ACTIVE, TRAIN, HELD = 256, 64, 5, 100_000, 10_000
BATCH, EPOCHS = 256, 23
STEPS = EPOCHS * -(-int(0.9 * TRAIN) // BATCH)
MATCH = 0.9
OURS_RATE = 5e-3
SPEED_STEPS = 352

# model -> class and parameters
OURS = {
    "KSparse": ("KSparseAutoencoder", {"k": ACTIVE}),
    "TopK": ("TopKAutoencoder", {"k": ACTIVE}),
    "BatchTopK": ("BatchTopKAutoencoder", {"k": ACTIVE}),
    "KSparse, 2 refinements": ("KSparseAutoencoder", {"k": ACTIVE, "refinements": 2}),
    "TopK, 2 refinements": ("TopKAutoencoder", {"k": ACTIVE, "refinements": 2}),
    "BatchTopK, 2 refinements": ("BatchTopKAutoencoder", {"k": ACTIVE, "refinements": 2}),
    "Matryoshka": ("MatryoshkaAutoencoder", {"k": ACTIVE}),
    "JumpReLU": ("JumpReLUAutoencoder", {}),
    "Gated": ("GatedAutoencoder", {}),
}
# row of the table -> environment, model, learning rate (None: the peer's own)
THEIRS = {
    "sae-lens TopK": ("sae", "TopK", None),
    "sae-lens BatchTopK": ("sae", "BatchTopK", None),
    "sae-lens MatchingPursuit": ("sae", "MatchingPursuit", None),
    "sae-lens TopK, our rate": ("sae", "TopK", OURS_RATE),
    "sae-lens BatchTopK, our rate": ("sae", "BatchTopK", OURS_RATE),
    "sae-lens MatchingPursuit, our rate": ("sae", "MatchingPursuit", OURS_RATE),
    "dictionary-learning TopK": ("dictionary_learning", "TopK", None),
    "dictionary-learning BatchTopK": ("dictionary_learning", "BatchTopK", None),
    "dictionary-learning TopK, our rate": ("dictionary_learning", "TopK", OURS_RATE),
    "dictionary-learning BatchTopK, our rate": ("dictionary_learning", "BatchTopK", OURS_RATE),
    "sae-lens Matryoshka": ("sae", "Matryoshka", None),
    "dictionary-learning Matryoshka": ("dictionary_learning", "Matryoshka", None),
}


def draw(seed):
    """Return training rows, held-out rows, the true directions (256, 64) and the amounts behind the held-out rows."""
    from scipy.stats import norm

    rng = np.random.default_rng([seed, 2024])
    directions = rng.normal(size=(FEATURES, DIMENSIONS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    p = rng.permutation((1 + np.arange(FEATURES)) ** -0.5)
    cut = norm.isf(p * ACTIVE / p.sum())
    loadings = rng.normal(size=(FEATURES, 8))
    loadings *= np.sqrt(0.3) / np.linalg.norm(loadings, axis=1, keepdims=True)
    amounts = np.empty((TRAIN + HELD, FEATURES), np.float32)
    for part in np.array_split(np.arange(len(amounts)), 11):
        factors = rng.normal(size=(len(part), 8)) @ loadings.T
        on = factors + np.sqrt(0.7) * rng.normal(size=(len(part), FEATURES)) > cut
        amounts[part] = on * (0.5 + np.abs(rng.normal(size=(len(part), FEATURES))))
    rows = amounts @ directions.astype(np.float32)
    rows += 0.02 * rng.normal(size=rows.shape).astype(np.float32)
    return rows[:TRAIN], rows[TRAIN:], directions, amounts[TRAIN:]


def unexplained(rows, rebuilt):
    return float(np.square(rebuilt - rows).sum() / np.square(rows - rows.mean(axis=0)).sum())


def judge(columns, code, rebuilt, held, directions, amounts):
    from scipy.optimize import linear_sum_assignment

    unit = columns / np.maximum(np.linalg.norm(columns, axis=1, keepdims=True), 1e-12)
    cosine = np.abs(unit @ directions.T)
    i, j = linear_sum_assignment(-cosine)
    found = int((cosine[i, j] >= MATCH).sum())
    fires, truth = code != 0, amounts[:, cosine.argmax(axis=1)] > 0
    counts = np.maximum(fires.sum(axis=0) + truth.sum(axis=0), 1)
    return {
        "mcc": float(cosine[i, j].mean()),
        "f1": 2 * found / (len(columns) + len(directions)),
        "firing": float((2 * (fires & truth).sum(axis=0) / counts).mean()),
        "fvu": unexplained(held, rebuilt),
        "l0": float(fires.sum(axis=1).mean()),
        "never": int((~fires.any(axis=0)).sum()),
    }


def floors(held, directions, amounts, n=2000):
    """Return what is left unexplained by codes that know the true dictionary."""
    from scipy.optimize import nnls

    largest = np.where(amounts >= -np.sort(-amounts, axis=1)[:, [ACTIVE - 1]], amounts, 0)
    pursuit = np.zeros((n, DIMENSIONS))
    for row, out in zip(held[:n], pursuit, strict=True):
        chosen, left = [], row
        for _ in range(ACTIVE):
            gain = directions @ left
            gain[chosen] = -np.inf
            chosen.append(int(gain.argmax()))
            out[:] = nnls(directions[chosen].T, row)[0] @ directions[chosen]
            left = row - out
    return {
        "true code": unexplained(held, amounts @ directions),
        "true code, 5 largest": unexplained(held, largest @ directions),
        "matching pursuit, 5 steps": unexplained(held[:n], pursuit),
        "active": float((amounts > 0).sum(axis=1).mean()),
    }


def fit_ours(name, train, seed, epochs=EPOCHS, **more):
    import torch

    import diabolo

    torch.set_num_threads(1)
    cls, parameters = OURS[name]
    parameters = {"max_epochs": epochs, "batch_size": BATCH, "random_state": seed, "device": "cpu"} | parameters | more
    model = getattr(diabolo, cls)(FEATURES, **parameters)
    began = time.perf_counter()
    model.fit(train)
    return model, time.perf_counter() - began


# in the environment of a peer -----------------------------------------------------------------------------------------------


def batches(train, steps, seed):
    """Yield batches of rows, each pass in a new order."""
    import torch

    rows, order = torch.from_numpy(train), torch.Generator().manual_seed(seed)
    while steps > 0:
        for index in torch.split(torch.randperm(len(rows), generator=order), BATCH)[:steps]:
            yield rows[index]
        steps -= -(-len(rows) // BATCH)


def fit_sae(kind, train, steps, seed, rate):
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    name = {"Matryoshka": "MatryoshkaBatchTopK"}.get(kind, kind)
    extra = {
        "MatchingPursuit": {"max_iterations": ACTIVE, "decoder_init_norm": 1.0},
        "Matryoshka": {"k": ACTIVE, "matryoshka_widths": [16, 32, 64, 128, 256]},
    }.get(kind, {"k": ACTIVE})
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=DIMENSIONS, d_sae=FEATURES, device="cpu", **extra)
    sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
    rate = rate or 3e-4  # that of sae_lens.synthetic.train_toy_sae, as is all below
    settings = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * BATCH,
        device="cpu",
        autocast=False,
        lr=rate,
        lr_end=rate,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=0,
        n_restart_cycles=1,
        train_batch_size_samples=BATCH,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
        n_batches_for_norm_estimate=1000,
    )
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=whole(train, steps, seed))
    began = time.perf_counter()
    trainer.fit()
    return sae, sae.W_dec, time.perf_counter() - began


def whole(train, steps, seed):
    """Yield full batches: sae-lens counts rows, not steps."""
    return (b for b in batches(train, 2 * steps, seed) if len(b) == BATCH)


def fit_dictionary_learning(kind, train, steps, seed, rate):
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = {"TopK": TopKTrainer, "BatchTopK": BatchTopKTrainer, "Matryoshka": MatryoshkaBatchTopKTrainer}[kind](
        steps=steps,
        activation_dim=DIMENSIONS,
        dict_size=FEATURES,
        k=ACTIVE,
        layer=0,
        lm_name="none",
        lr=rate,
        warmup_steps=steps // 20,  # their 1,000 belong to far longer runs
        threshold_start_step=steps // 2,
        decay_start=int(0.8 * steps),  # as their own script for demonstrations has it
        device="cpu",
        seed=seed,
        **({"group_fractions": [1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]} if kind == "Matryoshka" else {}),
    )
    began = time.perf_counter()
    for step, rows in enumerate(batches(train, steps, seed)):
        trainer.update(step, rows)
    seconds = time.perf_counter() - began
    columns = trainer.ae.W_dec if hasattr(trainer.ae, "W_dec") else trainer.ae.decoder.weight.T
    return trainer.ae, columns, seconds


def run_as_peer(folder):
    """Fit what ``folder/task.json`` asks for, in the interpreter of the peer."""
    import torch

    torch.set_num_threads(1)
    task = json.loads((folder / "task.json").read_text())
    data = np.load(folder / "rows.npz")
    torch.manual_seed(task["seed"])
    fit = {"sae": fit_sae, "dictionary_learning": fit_dictionary_learning}[task["peer"]]
    model, columns, seconds = fit(task["kind"], data["train"], task["steps"], task["seed"], task["rate"])
    with torch.no_grad():
        code = model.encode(
            torch.from_numpy(data["held"])
        )  # sae-lens takes the k largest over all held-out rows at once
        out = {"code": code.numpy(), "rebuilt": model.decode(code).numpy(), "columns": columns.detach().numpy()}
    np.savez(folder / "out.npz", seconds=seconds, **out)


def fit_theirs(name, train, held, seed, steps=STEPS):
    """Return columns, codes, reconstructions and seconds of the fit alone, or None where the peer is not installed."""
    peer, kind, rate = THEIRS[name]
    python = PEERS / peer / "bin" / "python"
    if not python.exists():
        print(f"{name}: left out, no {python}")
        return None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.savez(folder / "rows.npz", train=train, held=held)
        task = {"peer": peer, "kind": kind, "rate": rate, "seed": seed, "steps": steps}
        (folder / "task.json").write_text(json.dumps(task))
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        command = [python, __file__, "--as-peer", str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        if run.returncode:
            raise SystemExit(f"{name} failed:\n{run.stderr[-3000:]}")
        out = np.load(folder / "out.npz")
        return out["columns"], out["code"], out["rebuilt"], float(out["seconds"])


# the tables -----------------------------------------------------------------------------------------------------------------


def measure(name, seed, data):
    train, held, directions, amounts = data
    if name in OURS:
        model, seconds = fit_ours(name, train, seed)
        columns, code, rebuilt = model.dictionary_, model.transform(held), model.reconstruct(held)
    else:
        found = fit_theirs(name, train, held, seed)
        if found is None:
            return None
        columns, code, rebuilt, seconds = found
    return judge(columns, code, rebuilt, held, directions, amounts) | {"seconds": seconds}


def recovery(results, names, seeds, again):
    head = ("mcc", "f1", "firing", "fvu", "l0", "never", "seconds")
    print(f"{'':42s}" + "".join(f"{h:>9s}" for h in ("seed", *head)))
    for seed in seeds:
        data = None
        for name in names:
            kept = results.setdefault("models", {}).setdefault(name, {})
            if str(seed) not in kept or again:
                data = data or draw(seed)
                results.setdefault("floors", {}).setdefault(str(seed), floors(*data[1:]))
                row = measure(name, seed, data)
                if row is None:
                    continue
                kept[str(seed)] = row
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            row = kept[str(seed)]
            print(f"{name:42s}{seed:9d}" + "".join(f"{row[h]:9.3f}" for h in head), flush=True)
    print("\nmean over seeds")
    for name, kept in results["models"].items():
        if kept:
            mean = [np.mean([row[h] for row in kept.values()]) for h in head]
            print(f"{name:42s}{len(kept):9d}" + "".join(f"{m:9.3f}" for m in mean))
    for seed, floor in results.get("floors", {}).items():
        print(f"FVU with the true dictionary, seed {seed}: " + ", ".join(f"{k} {v:.4f}" for k, v in floor.items()))


def speed(results, rounds=3):
    """Time fits of one pass, ours and the peers' in turns, and write down the medians and our ratio to each peer."""
    train, held = draw(0)[:2]
    some = train[: SPEED_STEPS * BATCH]
    pairs = {"TopK": ("sae-lens TopK", "dictionary-learning TopK")}
    pairs["BatchTopK"] = ("sae-lens BatchTopK", "dictionary-learning BatchTopK")
    seconds = {}
    for _ in range(rounds):
        for ours, peers in pairs.items():
            taken = fit_ours(ours, some, 0, epochs=1, validation_fraction=0.0)[1]
            seconds.setdefault(ours, []).append(taken)
            for peer in peers:
                found = fit_theirs(peer, some, held[:256], 0, steps=SPEED_STEPS)
                if found is not None:
                    seconds.setdefault(peer, []).append(found[-1])
    rate = {k: SPEED_STEPS * BATCH / float(np.median(v)) for k, v in seconds.items()}
    ratio = {p: rate[ours] / rate[p] for ours, peers in pairs.items() for p in peers if p in rate}
    results["speed"] = {"rows a second": rate, "ours to theirs": ratio, "seconds": seconds}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for name, r in rate.items():
        print(
            f"{name:42s}{r:9.0f} rows a second" + (f", ours {ratio[name]:.2f} times as fast" if name in ratio else "")
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS])
    parser.add_argument("--speed", action="store_true", help="time fits instead")
    parser.add_argument("--again", action="store_true", help="make runs again that are in the file")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        return run_as_peer(options.as_peer)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    return speed(results) if options.speed else recovery(results, options.only, options.seeds, options.again)


if __name__ == "__main__":
    sys.exit(main())
