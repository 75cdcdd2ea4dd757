"""The latent space of digits: ways between digits, what single units do, a map, and one digit made of another.

Figures go into a folder: ways.svg, units.svg, map.svg and samples.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from diabolo import Autoencoder, datasets
from diabolo.latent import concept_vectors, diagnose, interpolate, latent_map, traverse
from diabolo.report import write_grid, write_map

EPOCHS = 60


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="What lies between handwritten digits.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, default=Path("latent"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)

    digits = datasets.load("digits")
    images, labels = digits.X.reshape(-1, 8, 8), digits.y
    model = Autoencoder(10, max_epochs=options.epochs, random_state=0).fit(images)

    first = np.array([np.flatnonzero(labels == digit)[0] for digit in range(10)])
    start, end = first[:5], first[5:]
    ways = interpolate(model, images[start], images[end], n=9)
    names = [f"{labels[a]} to {labels[b]}" for a, b in zip(start, end, strict=True)]
    write_grid(model, ways, options.folder / "ways.svg", names=names, width=9)
    found = traverse(model, images, n=9)
    write_grid(model, found.rows, options.folder / "units.svg", names=[f"unit {u}" for u in found.units], width=9)
    write_map(
        latent_map(model, images, "pca"), options.folder / "map.svg", labels=labels, title="Digits by their codes"
    )

    model.fit_prior(images, random_state=0)  # a plain autoencoder has no prior; now it has
    drawn = model.sample(200, random_state=0)
    write_grid(model, drawn[:60], options.folder / "samples.png", width=12)
    print(diagnose(model, images, random_state=0))
    print({name: round(nats, 2) for name, nats in model.prior_scores_.items()}, "->", model.prior_.method_)

    judge = LogisticRegression(max_iter=1000).fit(images.reshape(len(images), -1) / 16, labels)
    directions = concept_vectors(model, images, labels)
    threes = images[labels == 3]
    eights = model.inverse_transform(model.transform(threes) + directions[8] - directions[3])
    turned = float((judge.predict(eights.reshape(len(eights), -1) / 16) == 8).mean())
    sure = judge.predict_proba(drawn.reshape(len(drawn), -1) / 16).max(axis=1)
    print(f"{turned:.0%} of the threes are read as eights after a step from three to eight")
    print(f"mean confidence of a classifier in what was drawn: {sure.mean():.0%}")
    return {"turned": turned, "confidence": float(sure.mean())}


if __name__ == "__main__":
    main()
