"""The figures of docs/generation.md: new digits, digits of a class, ways between digits, what units do, and a map.

    python benchmarks/generation_pictures.py [--png FOLDER]

MNIST as in ``generation.py``, the same net and budget, one seed; nothing is chosen by hand: the first draws, the first test rows.
With --png the grids are written there as PNG too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from generation import BUDGET, DATA, DRAWN, FILES, LATENT, NET, OURS, load

import diabolo
from diabolo.latent import concept_vector, interpolate, latent_map, traverse
from diabolo.report import write_grid, write_map

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDE = 14
SHOWN = {"AE": "mixture", "RAE": "mixture", "WAE": "mixture", "VAE": "mixture"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()

    def keep(model, rows, name, names, width):
        rows = np.clip(np.concatenate([np.reshape(r, (-1, 28, 28)) for r in rows]), 0, 1)
        write_grid(model, rows, IMAGES / f"{name}.svg", names=names, width=width)
        if options.png:
            write_grid(model, rows, options.png / f"{name}.png", names=names, width=width)

    train, _, _, test = (part.reshape(-1, 28, 28) if part.ndim == 2 else part for part in load("mnist", 0))
    fitted, lines, names = {}, [test[:WIDE]], ["test digits"]
    for model, prior in SHOWN.items():
        cls, own, _ = OURS[model]
        found = getattr(diabolo, cls)(LATENT, random_state=0, **NET, **BUDGET, **own).fit(train)
        fitted[model] = found
        if model == "VAE":
            lines.append(found.sample(WIDE, prior="own", random_state=0))
            names.append("VAE, own")
        lines.append(found.fit_prior(train, prior, random_state=0).sample(WIDE, random_state=0))
        names.append(f"{model}, {prior}")
    keep(fitted["AE"], lines, "new_digits", names, WIDE)

    labels = np.load(DATA / "images" / FILES["mnist"])["y_train"]
    labels = labels[np.random.default_rng(0).permutation(len(labels))[: len(train)]]  # those of ``load``
    plain = fitted["AE"].fit_prior(train, labels=labels, random_state=0)
    by_class = [plain.sample(WIDE, condition=digit, random_state=0) for digit in range(10)]
    keep(plain, by_class, "digits_by_class", [f"a {digit}" for digit in range(10)], WIDE)

    smooth = fitted["RAE"]
    ways = interpolate(smooth, test[:3], test[3:6], 11)
    to_seven = concept_vector(smooth, train[labels == 7], train[labels == 1])
    codes = smooth.transform(train[labels == 1][:1]) + np.linspace(0, 1, 11)[:, None] * to_seven
    units = traverse(smooth, train, base=test[:1], n=11, units=range(2))
    names = [*(f"way {k + 1}" for k in range(3)), "1 plus 7 - 1", "unit 0", "unit 1"]
    keep(smooth, [ways, smooth.inverse_transform(codes), units.rows], "ways", names, 11)

    place = latent_map(smooth, test[:1500], "tsne", random_state=0)
    classes = np.load(DATA / "images" / FILES["mnist"])["y_test"]
    rng = np.random.default_rng(0)
    rng.permutation(len(np.load(DATA / "images" / FILES["mnist"])["y_train"]))  # as ``load`` does
    write_map(place, IMAGES / "map.svg", labels=classes[rng.permutation(len(classes))[:DRAWN]][:1500])


if __name__ == "__main__":
    main()
