"""Save and load: a fitted model becomes a folder of JSON and safetensors, and the folder becomes the model again.

No pickle is involved: loading a folder runs no code from it. Training data are not needed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import diabolo
from diabolo import AnomalyDetector, Autoencoder, datasets

EPOCHS = 10


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="A model on disk.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, help="where to save; a temporary folder by default")
    options = parser.parse_args(arguments)

    X = datasets.load("wine").X
    fitted = AnomalyDetector(Autoencoder(3, max_epochs=options.epochs), random_state=0).fit(X)

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "wine-detector"
        fitted.save(folder)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        again = diabolo.load(folder)

    difference = float(np.abs(again.score_samples(X) - fitted.score_samples(X)).max())
    for name, size in sizes.items():
        print(f"{name}: {size} bytes")
    print(f"largest difference between the scores of both: {difference:g}")
    return {"files": float(len(sizes)), "difference": difference}


if __name__ == "__main__":
    main()
