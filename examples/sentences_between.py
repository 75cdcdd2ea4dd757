"""Sentences: what lies between two sentences, and new ones.

Sentences are read from a text file, one a line. Without a file, they are put together from a small grammar.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from diabolo import SequenceVAE
from diabolo.latent import interpolate

EPOCHS = 40
WHO = ("the cat", "the old man", "a child", "my sister", "the dog", "a sailor")
DOES = ("sees", "likes", "paints", "follows", "hears", "forgets")
WHAT = ("the sea", "a red boat", "the moon", "an old song", "the garden", "a white bird")
WHEN = ("in the morning", "at night", "every day", "in the rain", "now")


def read(path: Path | None) -> list[str]:
    """Return sentences."""
    if path is not None:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rng = np.random.default_rng(0)
    return [" ".join(str(rng.choice(part)) for part in (WHO, DOES, WHAT, WHEN)) for _ in range(1500)]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Between sentences.")
    parser.add_argument("--data", type=Path, help="text, one sentence a line")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    rows = read(options.data)
    train, held_out = rows[:-200], rows[-200:]
    model = SequenceVAE(32, tokens="words", width=128, max_epochs=options.epochs, random_state=0).fit(train)

    way = interpolate(model, held_out[:1], held_out[1:2], n=7)
    made = model.sample(200, random_state=0)
    print("\n".join(["between two sentences:", *way, "", "new sentences:", *made[:8]]))

    known = {word for row in train for word in row.split()}
    pairs = {pair for row in train for words in [row.split()] for pair in pairwise(words)}
    drawn = [pair for row in made for words in [row.split()] for pair in pairwise(words)]
    return {
        "rebuilt": float(np.mean([a == b for a, b in zip(model.reconstruct(held_out), held_out, strict=True)])),
        "known_words": float(np.mean([word in known for row in made for word in row.split()])),
        "known_pairs": float(np.mean([pair in pairs for pair in drawn])),
        "different": len(set(made)) / len(made),
        "bound": float(model.score_samples(held_out).mean()),
    }


if __name__ == "__main__":
    main()
