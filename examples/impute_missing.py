"""Missing cells: fill holes in a table from the cells that are there.

NaN marks a missing cell. It is left out of the loss in training, and ``reconstruct`` returns a value for every cell.
"""

from __future__ import annotations

import argparse

import numpy as np

from diabolo import Autoencoder, datasets

MISSING = 0.1
EPOCHS = 100


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Holes in a table of measurements.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    X = datasets.load("breast_cancer").X
    hidden = np.random.default_rng(0).random(X.shape) < MISSING
    holes = np.where(hidden, np.nan, X)

    model = Autoencoder(6, max_epochs=options.epochs, random_state=0).fit(holes)
    filled = np.where(hidden, model.reconstruct(holes), holes)  # observed cells stay as they are

    # Columns have different units: errors are measured in standard deviations of their column.
    spread = X.std(axis=0)
    by_mean = np.where(hidden, np.nanmean(holes, axis=0), holes)
    results = {
        "mean_error": float(np.sqrt((((by_mean - X) / spread)[hidden] ** 2).mean())),
        "model_error": float(np.sqrt((((filled - X) / spread)[hidden] ** 2).mean())),
    }
    print(f"{hidden.sum()} of {X.size} cells hidden; root mean squared error in standard deviations of the column:")
    print(f"column mean {results['mean_error']:.2f}, autoencoder {results['model_error']:.2f}")
    return results


if __name__ == "__main__":
    main()
