"""Generate: draw digits that nobody wrote from a variational autoencoder, and print some of them.

A classifier trained on real digits then says which digits they are, and how sure it is.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from diabolo import VAE, datasets

EPOCHS = 40
SHADES = " .:-=+*#%@"


def draw(images: NDArray[np.floating]) -> str:
    """Write images ``(n, height, width)`` of values 0 to 16 side by side."""
    level = np.clip(images / 16 * (len(SHADES) - 1), 0, len(SHADES) - 1).round().astype(int)
    return "\n".join(
        "  ".join("".join(SHADES[v] * 2 for v in line) for line in lines) for lines in level.swapaxes(0, 1)
    )


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="New handwritten digits.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    digits = datasets.load("digits")
    vae = VAE(8, max_epochs=options.epochs, random_state=0).fit(digits.X)
    drawn = vae.sample(300, random_state=0)
    print(draw(drawn[:6]))

    judge = LogisticRegression(max_iter=1000).fit(digits.X.reshape(len(digits.X), -1) / 16, digits.y)
    sure = judge.predict_proba(drawn.reshape(len(drawn), -1) / 16)
    results = {"kinds": float(len(np.unique(sure.argmax(axis=1)))), "confidence": float(sure.max(axis=1).mean())}
    print(f"{results['kinds']:.0f} kinds of digit in {len(drawn)} draws; mean confidence {results['confidence']:.0%}")
    return results


if __name__ == "__main__":
    main()
