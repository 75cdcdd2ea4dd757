"""Faces: what lies between two people, and faces of nobody.

The Olivetti faces, 400 photographs of 40 people, come from scikit-learn, which fetches them once from the web; or from a file:

    python examples/faces.py --data olivetti.npz    # images (n, 64, 64) and subject (n,)

Ways between people and new faces go to ways.png and samples.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_olivetti_faces

from diabolo import VAE
from diabolo.latent import interpolate
from diabolo.report import write_grid

EPOCHS, STEPS = 150, 8


def read(path: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return images from 0 to 1, and who is on them."""
    if path is None:
        found = fetch_olivetti_faces()
        return found.images.astype(np.float32), found.target
    with np.load(path) as found:
        images = found["images"].astype(np.float32)
        return images / (255 if images.max() > 1 else 1), found["subject"]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Between faces.")
    parser.add_argument("--data", type=Path, help="an npz file with images and subject")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, default=Path("faces"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)

    images, people = read(options.data)
    last = np.array([np.flatnonzero(people == p)[-1] for p in np.unique(people)])  # one picture of each is held out
    train = np.delete(images, last, axis=0)
    model = VAE(32, max_epochs=options.epochs, random_state=0).fit(train)

    start, end = images[last[:6]], images[last[6:12]]
    ways = interpolate(model, start, end, n=STEPS)
    write_grid(model, ways, options.folder / "ways.png", width=STEPS)
    model.fit_prior(train, random_state=0)
    made = model.sample(24, random_state=0)
    write_grid(model, made, options.folder / "samples.png", width=8)

    rebuilt = model.reconstruct(images[last])
    results = {
        "mse": float(np.square(rebuilt - images[last]).mean()),
        "mean_face_mse": float(np.square(train.mean(0) - images[last]).mean()),
    }
    print(
        f"squared error of a pixel of faces held out: {results['mse']:.4f}; of the mean face {results['mean_face_mse']:.4f}"
    )
    return results


if __name__ == "__main__":
    main()
