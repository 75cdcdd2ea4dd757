"""Sequences: game levels, chorales, molecules and sentences from a SequenceVAE, beside models of n-grams and language models.

    python benchmarks/sequences.py levels chorales chorales_lstm molecules molecules_lstm text text_lstm
        [--device cuda] [--seconds 400] [--into FOLDER]
    python benchmarks/sequences.py --score FOLDER     # molecules that a run has left there; needs rdkit
    python benchmarks/sequences.py --render

Data are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). Each job trains for at most ``--seconds``.

levels: windows of 14 by 16 tiles of the 15 levels of Super Mario Bros. in the Video Game Level Corpus, one at each column of 12
levels; held out are the windows of 3-1, 5-3 and 7-1. 1,000 windows are drawn and judged: playable is the share whose right edge
can be reached from the left one (examples/mario_levels.py); the divergence of tile patterns (Lucas and Volz, 2019) is between
the windows drawn and those held out, both ways.

chorales: the piano rolls of 88 keys in eighths of Boulanger-Lewandowski et al. (2012), 229 + 76 pieces to learn from in twelve
keys, 77 to test. A step becomes the keys that sound, from the lowest up, and a mark: one order for each set of keys, so that the
chance of the tokens is a lower bound of the chance of the keys given all steps before. Nats of all tokens of a piece, its end
included, over all steps of all pieces.

molecules: SMILES of ZINC, letter by letter; the first 5,000 are held out, 10,000 are drawn. molecules_lstm is an LSTM that
predicts the next letter. Rebuilt: greedy decoding of the centre of the code gives the very letters, of 1,000 held out.

text: sentences of film reviews (Pang and Lee, 2005), words that occur less than 3 times as one word; nats of a sentence, its end
included, of 1,000 sentences held out, by importance sampling with 100 draws, beside an LSTM that predicts the next word.
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

from diabolo import SequenceVAE

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "sequences.json"
PAGE = Path(__file__).parents[1] / "docs" / "worked.md"
LEVELS = {"recurrent": {}, "convolutional": {"width": 128, "layers": 2}, "attention": {"width": 128, "layers": 4}}
CHORALES = {
    "recurrent": {"width": 384, "layers": 2, "dropout": 0.4, "word_dropout": 0.1},
    "attention": {"width": 256, "layers": 4, "dropout": 0.3, "word_dropout": 0.1},
}


def fit(rows, options, **settings):
    if options.quick:
        settings |= {"width": 16, "layers": 1, "max_epochs": 1}
    model = SequenceVAE(random_state=0, device=options.device, max_time=options.seconds, verbose=2, **settings)
    began = time.monotonic()
    model.fit(rows)
    about = {"seconds": time.monotonic() - began, "epochs": len(model.history_), "parameters": texts.parameters(model)}
    return model, about


def levels(options, keep):
    train, held_out = tiles.load(DATA)
    train = train[:: 40 if options.quick else 4 if options.small else 1]
    rng, n = np.random.default_rng(0), 20 if options.quick else 300 if options.small else 1000
    keep("levels | real | other levels", tiles.judge(train[rng.permutation(len(train))[:n]], held_out, train[:0]))
    grams = tiles.TileGrams().fit(train)
    found = tiles.judge(grams.sample(n, 0), held_out, train)
    keep("levels | n-grams | tile by its neighbours", found | {"nll": -float(grams.log_prob(held_out).mean())})
    columns = tiles.ColumnGrams(3).fit(train)
    keep("levels | n-grams | column by the two before", tiles.judge(columns.sample(n, 0), held_out, train))
    for network in options.networks or (["recurrent"] if options.small else LEVELS):
        settings = {"latent_dim": 32, "dropout": 0.2, "max_epochs": 40, **LEVELS[network]}
        settings |= {"width": 96, "max_epochs": 12, "batch_size": 32} if options.small else {}
        model, about = fit(train.transpose(0, 2, 1), options, network=network, **settings)  # column by column
        turned = held_out.transpose(0, 2, 1)
        about |= texts.information(model, turned)
        about["nll"] = -float(
            np.mean(model.log_likelihood(turned, n_samples=20 if not options.quick else 1, random_state=0))
        )
        about["rebuilt"] = float(np.mean(model.reconstruct(turned) == turned))
        for name, draw in (("", {}), (", temperature 0.8", {"temperature": 0.8})):
            made = np.ascontiguousarray(model.sample(n, random_state=0, **draw).transpose(0, 2, 1))
            keep(f"levels | diabolo | {network}{name}", about | tiles.judge(made, held_out, train))
            leave(
                options,
                f"levels_{network}{name[-3:].strip()}.txt",
                ["\n".join(tiles.rows_of(w)) + "\n" for w in made[:50]],
            )
        save(options, model, f"levels_{network}")


def chorales(options, keep):
    parts, steps = texts.chorales(DATA, (0,) if options.quick or options.small else range(-6, 6))
    for network in options.networks or (["recurrent"] if options.small else CHORALES):
        settings = {"latent_dim": 32, "validation_fraction": 0.0, "max_epochs": 40, **CHORALES[network]}
        settings |= {"width": 128, "layers": 1, "dropout": 0.2, "batch_size": 16} if options.small else {}
        model, about = fit(parts["train"], options, network=network, tokens="items", **settings)
        about |= texts.information(model, parts["test"])
        for part, name in (("valid", "nll_valid"), ("test", "nll")):
            nats = model.log_likelihood(parts[part], n_samples=10 if not options.quick else 1, random_state=0)
            about[name] = -float(np.sum(nats) / steps[part])
        keep(f"chorales | diabolo | {network}", about)
        save(options, model, f"chorales_{network}")
        made = model.sample(20, temperature=0.9, random_state=0)
        leave(options, f"chorales_{network}.txt", [" ".join(map(str, piece)) for piece in made])


def chorales_lstm(options, keep):
    parts, steps = texts.chorales(DATA, (0,) if options.quick or options.small else range(-6, 6))
    size = {"hidden": 128, "width": 128, "batch": 16, "epochs": 40} if options.small else {}
    settings = {"hidden": 512, "width": 128, "batch": 32, "epochs": 100, "device": options.device, "seed": 0} | size
    found = texts.language(parts["train"], parts["test"], parts["valid"], seconds=options.seconds, **settings)
    keep("chorales | language model | LSTM", found[3] | {"nll": float(found[2].sum() / steps["test"])})


def molecules(options, keep):
    train, held_out = texts.molecules(DATA, 300 if options.quick else 6000 if options.small else None)
    n = 100 if options.quick else 1000 if options.small else 10_000
    for beta in options.betas or ((0.1,) if options.small else (1.0, 0.1)):
        settings = {"latent_dim": 56, "width": 512, "batch_size": 512, "max_epochs": 14}
        settings |= {"width": 128, "batch_size": 32, "max_epochs": 15} if options.small else {}
        model, about = fit(train, options, tokens=texts.SMILES, beta=beta, **settings)
        some = held_out[: 100 if options.quick else 300 if options.small else 1000]
        about |= texts.information(model, some)
        about["nll"] = -float(
            np.mean(model.log_likelihood(some, n_samples=50 if not options.quick else 1, random_state=0))
        )
        rebuilt = model.reconstruct(some)
        about["rebuilt"] = float(np.mean([a == b for a, b in zip(rebuilt, some, strict=True)]))
        keep(f"molecules | diabolo | beta {beta:g}", about)
        save(options, model, f"molecules_{beta:g}")
        model.fit_prior(train[:20_000], "mixture", random_state=0)
        for name, draw in (("", {"decoding": "sample"}), (", greedy", {"decoding": "greedy"})):
            began = time.monotonic()
            made = model.sample(n, random_state=0, **draw)
            found = about | {"sample_seconds": time.monotonic() - began}
            keep(f"molecules | diabolo | beta {beta:g}{name}", found)
            leave(options, f"molecules | diabolo | beta {beta:g}{name}.smi", made)


def molecules_lstm(options, keep):
    train, held_out = texts.molecules(DATA, 300 if options.quick else 6000 if options.small else None)
    size = {"hidden": 128, "width": 128, "batch": 32, "epochs": 15} if options.small else {}
    settings = {"hidden": 512, "width": 128, "batch": 512, "epochs": 100, "device": options.device, "seed": 0} | size
    cut = re.compile(texts.SMILES).findall
    model, tokens, nats, about = texts.language(
        [cut(s) for s in train],
        [cut(s) for s in held_out[: 300 if options.small else 1000]],
        seconds=options.seconds,
        dropout=0.1,
        **settings,
    )
    keep("molecules | language model | LSTM", about | {"nll": float(nats.mean())})
    began, made = time.monotonic(), []
    generator = torch.Generator(options.device).manual_seed(0)
    while len(made) < (1000 if options.quick or options.small else 10_000):
        made += ["".join(tokens[t - 1] for t in row) for row in model.sample(1000, 150, generator, options.device)]
    keep(
        "molecules | language model | LSTM",
        about | {"nll": float(nats.mean()), "sample_seconds": time.monotonic() - began},
    )
    leave(options, "molecules | language model | LSTM.smi", made)


def sentences(options):
    train, held_out = texts.sentences(DATA, 150 if options.quick else 4000 if options.small else None)
    return train, held_out[: 300 if options.quick or options.small else 1000]


def text(options, keep):
    train, held_out = sentences(options)
    for network in options.networks or ("recurrent",):
        settings = {"latent_dim": 32, "width": 512, "dropout": 0.5}
        settings |= {"width": 128, "dropout": 0.3, "batch_size": 32, "max_epochs": 12} if options.small else {}
        model, about = fit(train, options, network=network, tokens="items", **settings)
        about |= texts.information(model, held_out)
        about["bound"] = -float(
            np.mean(model.score_samples(held_out, n_samples=10 if not options.quick else 1, random_state=0))
        )
        about["nll"] = -float(
            np.mean(
                model.log_likelihood(
                    held_out, n_samples=20 if options.small else 100 if not options.quick else 1, random_state=0
                )
            )
        )
        keep(f"text | diabolo | {network}", about)
        save(options, model, f"text_{network}")
        ways = [model.inverse_transform(way, decoding="beam") for way in between(model.transform(held_out[:6]))]
        made = model.sample(20, temperature=0.7, random_state=0)
        leave(options, f"text_{network}.txt", [" ".join(row) for way in [*ways, made] for row in (*way, [""])])


def text_lstm(options, keep):
    train, held_out = sentences(options)
    size = {"hidden": 128, "width": 128, "epochs": 20, "dropout": 0.3} if options.small else {}
    settings = {"hidden": 512, "width": 512, "batch": 32, "epochs": 60, "device": options.device, "seed": 0} | size
    _, _, nats, about = texts.language(train, held_out, seconds=options.seconds, **settings)
    keep("text | language model | LSTM", about | {"nll": float(nats.mean())})


def between(codes, n=5):
    """Yield the codes on the straight ways from the first to the second, the third to the fourth, and so on."""
    for a, b in zip(codes[::2], codes[1::2], strict=True):
        yield a + np.linspace(0, 1, n)[:, None] * (b - a)


def leave(options, name, lines):
    if options.into:
        (options.into / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def save(options, model, name):
    if options.into:
        model.save(options.into / name)


JOBS = {"levels": levels, "chorales": chorales, "molecules": molecules, "text": text}
JOBS |= {"chorales_lstm": chorales_lstm, "molecules_lstm": molecules_lstm, "text_lstm": text_lstm}


def score(folder, keep, results):
    """Judge the molecules that a run has left in a folder."""
    train, held_out = texts.molecules(DATA)
    keep("molecules | real | held out", texts.judge_molecules(held_out, train))
    for file in sorted(folder.glob("molecules*.smi")):
        keep(file.stem, results[file.stem] | texts.judge_molecules(file.read_text().split("\n")[:-1], train))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", nargs="*", choices=tuple(JOBS), metavar="|".join(JOBS))
    parser.add_argument("--networks", nargs="*", help="instead of the default of each job")
    parser.add_argument("--betas", nargs="*", type=float, help="weights of the divergence, for molecules")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=400, help="of training at most, for each model")
    parser.add_argument("--into", type=Path, help="folder for what is made, and for models")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--small", action="store_true", help="sizes for minutes on one core of a CPU")
    parser.add_argument("--quick", action="store_true", help="see that it runs")
    parser.add_argument("--score", type=Path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}

    def keep(key, found):
        results.update(json.loads(options.results.read_text()) if options.results.exists() else {})
        results[key] = found
        print(key, json.dumps(found), flush=True)
        options.results.write_text(json.dumps(results, indent=1) + "\n")

    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
    for job in options.jobs:
        JOBS[job](options, keep)
    if options.score:
        score(options.score, keep, results)
    if options.render:
        render(results)


if __name__ == "__main__":
    main()
