"""Sequences: game levels, chorales, molecules and sentences from a SequenceVAE, beside models of n-grams and language models.

    python benchmarks/sequences.py levels chorales molecules text [--size full] [--device cuda] [--into FOLDER]
    python benchmarks/sequences.py --score FOLDER     # molecules that a run has left there; needs rdkit
    python benchmarks/sequences.py --render

Data are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). ``--size small`` takes some minutes on one
core of a CPU, ``full`` is for a GPU; results of both are kept apart. All language models are an LSTM that predicts each token
from those before it, as wide as the autoencoder, learned from the same rows by Adam.

levels: windows of 14 by 16 tiles of the 15 levels of Super Mario Bros. in the Video Game Level Corpus, one at each column of 12
levels (small: at each fourth); held out are the windows of 3-1, 5-3 and 7-1. Windows are drawn and judged: playable is the share
whose right edge can be reached from the left one (examples/mario_levels.py); the divergence of tile patterns (Lucas and Volz,
2019, arXiv:1905.05077) is between windows drawn and held out, both ways. Nats are of a window, by importance sampling.

chorales: the piano rolls of 88 keys in eighths of Boulanger-Lewandowski et al. (2012), 229 pieces to learn from (full: each in
twelve keys), 76 by which language models stop, 77 to test. A step becomes the keys that sound, from the lowest up, and a mark:
one order for each set of keys, so that the chance of the tokens is a lower bound of the chance of the keys given all steps
before, which is what has been published. Nats of all tokens of a piece, its end included, over all steps of all pieces.

molecules: SMILES of ZINC, an atom a token (small: 4,000 of them); the first 5,000 are held out. Rebuilt: greedy decoding of the
centre of the code gives the very letters. Codes are drawn from a mixture of normals fitted to those of the rows of training.

In small runs a fifth of the tokens is hidden from the decoder in training unless a setting says none; of chorales always a tenth.

text: sentences of film reviews (Pang and Lee, 2005; small: 3,000 of them), words that occur less than 3 times as one word; nats
of a sentence, its end included, by importance sampling. Mutual information and units in use as in He et al. (2019).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import sequence_levels as tiles
import sequence_texts as texts
import torch
from sequence_page import render

from diabolo import SequenceVAE

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "sequences.json"
PLANS = {
    "full": {
        "levels": {
            "every": 1,
            "made": 1000,
            "models": {
                "recurrent": {"max_epochs": 40},
                "convolutional": {"width": 128, "layers": 2, "max_epochs": 40},
                "attention": {"width": 128, "layers": 4, "max_epochs": 40},
            },
        },
        "chorales": {
            "shifts": range(-6, 6),
            "models": {
                "recurrent": {"width": 384, "layers": 2, "dropout": 0.4, "max_epochs": 40},
                "attention": {"width": 256, "layers": 4, "dropout": 0.3, "max_epochs": 40},
            },
            "lstm": {"hidden": 512, "width": 128, "batch": 32, "epochs": 100, "dropout": 0.5},
        },
        "molecules": {
            "rows": None,
            "held_out": 1000,
            "made": 10_000,
            "models": {
                "beta 1": {"beta": 1.0, "width": 512, "batch_size": 512, "max_epochs": 14},
                "beta 0.1": {"beta": 0.1, "width": 512, "batch_size": 512, "max_epochs": 14},
            },
            "lstm": {"hidden": 512, "width": 128, "batch": 512, "epochs": 100, "dropout": 0.1},
        },
        "text": {
            "rows": None,
            "held_out": 1000,
            "draws": 100,
            "models": {"recurrent": {"width": 512, "dropout": 0.5}},
            "lstm": {"hidden": 512, "width": 512, "batch": 32, "epochs": 60, "dropout": 0.5},
        },
    },
    "small": {
        "levels": {
            "every": 4,
            "made": 300,
            "models": {"recurrent": {"word_dropout": 0.2, "width": 96, "batch_size": 32, "max_epochs": 60}},
        },
        "chorales": {
            "shifts": (0,),
            "models": {"recurrent": {"width": 128, "dropout": 0.2, "batch_size": 16, "max_epochs": 60}},
            "lstm": {"hidden": 128, "width": 128, "batch": 16, "epochs": 60, "dropout": 0.5},
        },
        "molecules": {
            "rows": 4000,
            "held_out": 300,
            "made": 1000,
            "models": {
                "beta 1": {"beta": 1.0, "word_dropout": 0.2, "width": 128, "batch_size": 32, "max_epochs": 12},
                "beta 1, none hidden": {"beta": 1.0, "width": 128, "batch_size": 32, "max_epochs": 12},
                "beta 0.1": {"beta": 0.1, "word_dropout": 0.2, "width": 128, "batch_size": 32, "max_epochs": 12},
            },
            "lstm": {"hidden": 128, "width": 128, "batch": 32, "epochs": 12, "dropout": 0.1},
        },
        "text": {
            "rows": 3000,
            "held_out": 300,
            "draws": 20,
            "models": {
                "recurrent": {
                    "word_dropout": 0.2,
                    "width": 128,
                    "dropout": 0.3,
                    "batch_size": 32,
                    "max_epochs": 12,
                },
                "recurrent, none hidden": {"width": 128, "dropout": 0.3, "batch_size": 32, "max_epochs": 12},
            },
            "lstm": {"hidden": 128, "width": 128, "batch": 32, "epochs": 20, "dropout": 0.3},
        },
    },
}


def fit(rows, options, latent_dim, **settings):
    model = SequenceVAE(
        latent_dim, random_state=0, device=options.device, max_time=options.seconds, verbose=2, **settings
    )
    began = time.monotonic()
    model.fit(rows)
    parameters = sum(p.numel() for p in model.module_.parameters())
    return model, {"seconds": time.monotonic() - began, "epochs": len(model.history_), "parameters": parameters}


def nats(model, rows, n_samples):
    """Return the nats of each row, by importance sampling."""
    return -model.log_likelihood(rows, n_samples=n_samples, random_state=0)


def language(plan, options, train, held_out, judged=None):
    return texts.language(train, held_out, judged, seconds=options.seconds, device=options.device, **plan["lstm"])


def levels(plan, options, keep):
    train, held_out = tiles.load(DATA)
    train, n = train[:: plan["every"]], plan["made"]
    some = train[np.random.default_rng(0).permutation(len(train))[:n]]
    keep("real | other levels", tiles.judge(some, held_out, train[:0]))
    grams = tiles.TileGrams().fit(train)
    found = tiles.judge(grams.sample(n, 0), held_out, train)
    keep("n-grams | tile by its neighbours", found | {"nll": -float(grams.log_prob(held_out).mean())})
    columns = tiles.ColumnGrams(3).fit(train)
    keep("n-grams | column by the two before", tiles.judge(columns.sample(n, 0), held_out, train))
    turned = held_out.transpose(0, 2, 1)
    for network, settings in plan["models"].items():
        model, about = fit(train.transpose(0, 2, 1), options, 32, network=network, dropout=0.2, **settings)
        about |= texts.information(model, turned) | {"nll": float(nats(model, turned, 20).mean())}
        about["rebuilt"] = float(np.mean(model.reconstruct(turned) == turned))
        for temperature in (1.0, 0.8):
            made = model.sample(n, temperature=temperature, random_state=0)
            made = np.ascontiguousarray(made.transpose(0, 2, 1))
            name = f"{network}, temperature {temperature}"
            keep(f"diabolo | {name}", about | tiles.judge(made, held_out, train))
            leave(options, f"levels, {name}.txt", ["\n".join(tiles.rows_of(w)) + "\n" for w in made[:50]])


def chorales(plan, options, keep):
    parts, steps = texts.chorales(DATA, plan["shifts"])
    for network, settings in plan["models"].items():
        how = {"network": network, "tokens": "items", "validation_fraction": 0.0, "word_dropout": 0.1}
        model, about = fit(parts["train"], options, 32, **how, **settings)
        about |= texts.information(model, parts["test"])
        for part, name in (("valid", "nll_valid"), ("test", "nll")):
            about[name] = float(nats(model, parts[part], 10).sum() / steps[part])
        keep(f"diabolo | {network}", about)
        made = model.sample(20, temperature=0.9, random_state=0)
        leave(options, f"chorales, {network}.txt", [" ".join(piece) for piece in made])
    if options.only:
        return
    _, _, found, about = language(plan, options, parts["train"], parts["test"], parts["valid"])
    keep("language model | LSTM", about | {"nll": float(found.sum() / steps["test"])})


def molecules(plan, options, keep):
    train, held_out = texts.molecules(DATA, plan["rows"])
    n, held_out = plan["made"], held_out[: plan["held_out"]]
    for name, settings in plan["models"].items():
        model, about = fit(train, options, 56, tokens=texts.SMILES, **settings)
        about |= texts.information(model, held_out) | {"nll": float(nats(model, held_out, 50).mean())}
        rebuilt = model.reconstruct(held_out)
        about["rebuilt"] = float(np.mean([a == b for a, b in zip(rebuilt, held_out, strict=True)]))
        model.fit_prior(train[:20_000], "mixture", random_state=0)
        for decoding in ("sample", "greedy"):
            made = model.sample(n, decoding=decoding, random_state=0)
            keep(f"diabolo | {name}, {decoding}", about)
            leave(options, f"molecules | diabolo | {name}, {decoding}.smi", made)
    if options.only:
        return
    cut = re.compile(texts.SMILES).findall
    model, tokens, found, about = language(plan, options, [cut(s) for s in train], [cut(s) for s in held_out])
    keep("language model | LSTM", about | {"nll": float(found.mean())})
    generator, made = torch.Generator(options.device).manual_seed(0), []
    while len(made) < n:
        made += ["".join(tokens[t - 1] for t in row) for row in model.sample(1000, 150, generator, options.device)]
    leave(options, "molecules | language model | LSTM.smi", made)


def text(plan, options, keep):
    train, held_out = texts.sentences(DATA, plan["rows"])
    held_out = held_out[: plan["held_out"]]
    for name, settings in plan["models"].items():
        model, about = fit(train, options, 32, network=name.split(",")[0], tokens="items", **settings)
        about |= texts.information(model, held_out) | {"nll": float(nats(model, held_out, plan["draws"]).mean())}
        keep(f"diabolo | {name}", about)
        ways = [model.inverse_transform(way, decoding="beam") for way in between(model.transform(held_out[:6]))]
        made = model.sample(20, temperature=0.7, random_state=0)
        leave(options, f"text, {name}.txt", [" ".join(row) for way in [*ways, made] for row in (*way, [])])
    if options.only:
        return
    _, _, found, about = language(plan, options, train, held_out)
    keep("language model | LSTM", about | {"nll": float(found.mean())})


def between(codes, n=5):
    """Yield the codes on the straight ways from the first to the second, the third to the fourth, and so on."""
    for a, b in zip(codes[::2], codes[1::2], strict=True):
        yield a + np.linspace(0, 1, n)[:, None] * (b - a)


def leave(options, name, lines):
    if options.into:
        (options.into / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


JOBS = {"levels": levels, "chorales": chorales, "molecules": molecules, "text": text}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", nargs="*", default=None, metavar="|".join(JOBS))
    parser.add_argument("--size", choices=tuple(PLANS), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=600, help="of training at most, for each model")
    parser.add_argument("--into", type=Path, help="folder for what is made")
    parser.add_argument("--score", type=Path, help="folder of molecules to be judged")
    parser.add_argument("--only", nargs="*", help="settings of the autoencoder, without the models beside it")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.only:
        for job in PLANS[options.size].values():
            job["models"] = {name: settings for name, settings in job["models"].items() if name in options.only}
    wrong = [job for job in options.jobs or () if job not in JOBS]
    if wrong:
        parser.error(f"unknown: {', '.join(wrong)}; expected {', '.join(JOBS)}")
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)

    def kept():
        return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def keep(key, found):  # several runs may go side by side
        print(key, json.dumps(found), flush=True)
        RESULTS.write_text(json.dumps(kept() | {key: kept().get(key, {}) | found}, indent=1) + "\n")

    for job in options.jobs or ():
        JOBS[job](
            PLANS[options.size][job],
            options,
            lambda key, found, job=job: keep(f"{options.size} | {job} | {key}", found),
        )
    if options.score:
        train, held_out = texts.molecules(DATA, PLANS[options.size]["molecules"]["rows"])
        keep(f"{options.size} | molecules | real | held out", texts.judge_molecules(held_out, train))
        for file in sorted(options.score.glob("*.smi")):
            made = file.read_text(encoding="utf-8").split("\n")[:-1]
            keep(f"{options.size} | {file.stem}", texts.judge_molecules(made, train))
    if options.render:
        render(kept())


if __name__ == "__main__":
    main()
