"""Sentences, molecules and chorales: autoencoders of tokens beside a language model of about the same size."""

from __future__ import annotations

import lzma
import time
from collections import Counter

import language_model as lm
import numpy as np

from diabolo.latent.fitting import moments_of

RARE, UNKNOWN = 3, "<unk>"  # words that occur less often are one word
SMILES = r"Cl|Br|\[.*?\]|."  # an atom is one token
STEP = "|"  # ends each step of a chorale


def sentences(data, n=None, seed=0):
    """Return sentences to learn from, all 9,662 or ``n``, and 1,000 held out, as lists of words; rare words are one word."""
    text = b"".join(lzma.decompress((data / "text" / f"rt-polarity.{s}.txt.xz").read_bytes()) for s in ("pos", "neg"))
    rows = [line.split() for line in text.decode().split("\n") if line.strip()]
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    train, held_out = rows[1000:][:n], rows[:1000]
    count = Counter(word for row in train for word in row)
    known = {word for word, n in count.items() if n >= RARE}
    return tuple([[w if w in known else UNKNOWN for w in row] for row in part] for part in (train, held_out))


def molecules(data, n=None):
    """Return SMILES to learn from, and the first 5,000, which are held out as in the paper on grammars."""
    rows = lzma.decompress((data / "molecules" / "zinc250k.smi.xz").read_bytes()).decode().split()
    return rows[5000:][:n], rows[:5000]


def events(frames, shift=0):
    """Return a piano roll (steps, 88) as tokens: the keys that sound from the lowest up, then the end of the step."""
    return [t for frame in frames for t in (*(f"{21 + k + shift}" for k in np.flatnonzero(frame)), STEP)]


def chorales(data, shifts=(0,)):
    """Return the chorales of each part, those to learn from in several keys, and the steps of each part."""
    rolls = np.load(data / "music" / "pianoroll88_jsb_chorales.npz")
    parts, steps = {}, {}
    for part in ("train", "valid", "test"):
        pieces = np.split(np.unpackbits(rolls[part], axis=1)[:, :88], np.cumsum(rolls[f"{part}_len"])[:-1])
        parts[part] = [events(p, shift) for p in pieces for shift in (shifts if part == "train" else (0,))]
        steps[part] = int(rolls[f"{part}_len"].sum())
    return parts, steps


def information(model, rows, seed=0):
    """Return the mean divergence of the code from its prior, its mutual information with rows, and its units in use.

    Mutual information as in He et al. (2019, arXiv:1901.05534): the divergence less that of the mean posterior of these rows
    from the prior, one draw of the code for each row.
    """
    centre, noise, kl = moments_of(model, model._read(rows, reset=False))
    z = centre + np.sqrt(noise) * np.random.default_rng(seed).normal(size=centre.shape)
    # log q(z_i | x_j) for all pairs
    pairs = np.stack([-0.5 * (np.square(row - centre) / noise + np.log(2 * np.pi * noise)).sum(1) for row in z])
    mean_posterior = np.logaddexp.reduce(pairs, axis=1) - np.log(len(rows))
    return {
        "kl": float(kl.sum(1).mean()),
        "mutual_information": float((np.diag(pairs) - mean_posterior).mean()),
        "active_units": int((centre.var(0) > 0.01).sum()),
        "latent_dim": centre.shape[1],
    }


def numbered(train, *others):
    """Return sequences as whole numbers from 1 in place of tokens, and the tokens."""
    tokens = sorted({t for row in train for t in row})
    place = {t: i for i, t in enumerate(tokens, start=1)}
    return [[[place[t] for t in row if t in place] for row in rows] for rows in (train, *others)], tokens


def language(train, held_out, judged=None, *, hidden, width, batch, seconds, epochs, device, dropout, seed=0):
    """Fit a language model; return it, its tokens, its nats of each row held out, and how it was fitted.

    It stops by the rows of ``judged``, or by a tenth of those of training.
    """
    if judged is None:
        order = np.random.default_rng(seed).permutation(len(train))
        few = len(train) // 10
        train, judged = [train[i] for i in order[few:]], [train[i] for i in order[:few]]
    (rows, test, judged), tokens = numbered(train, held_out, judged)
    model = lm.LanguageModel(len(tokens), width, hidden, dropout)
    began = time.monotonic()
    model, ran = lm.train(
        model,
        rows,
        judged,
        epochs=epochs,
        batch=batch,
        seconds=seconds,
        device=device,
        seed=seed,
    )
    seconds = time.monotonic() - began
    about = {"epochs": ran, "seconds": seconds, "parameters": lm.size_of(model)}
    return model, tokens, lm.nats(model, test, device), about


def judge_molecules(made, known):
    """Return shares of valid, unique and new molecules among made SMILES, and the logarithm of their octanol share."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    read = [Chem.MolFromSmiles(s) if s else None for s in made]
    right = [Chem.MolToSmiles(m) for m in read if m is not None and m.GetNumAtoms()]
    different = set(right)
    canonical = {Chem.MolToSmiles(m) for m in map(Chem.MolFromSmiles, known) if m is not None}
    return {
        "valid": len(right) / len(made),
        "unique": len(different) / max(1, len(right)),
        "new": len(different - canonical) / max(1, len(different)),
        "made": len(made),
    }
