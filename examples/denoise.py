"""Denoise: take noise out of images with a model that never saw these images clean or noisy.

A DenoisingAutoencoder is trained to rebuild the clean row from a damaged copy. It adds its own noise in training; the noise
here is about as strong, so that it meets what it was trained for.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.model_selection import train_test_split

from diabolo import DenoisingAutoencoder, datasets

NOISE = 4.0  # standard deviation, in the unit of the pixels: 0 to 16
EPOCHS = 40


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Noise out of handwritten digits.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    train, test = train_test_split(datasets.load("digits").X, random_state=0)
    noisy = test + NOISE * np.random.default_rng(0).normal(size=test.shape).astype(test.dtype)

    # ``level`` is in units of the scaled data. Pixels are divided by one common width, the root of their mean variance.
    level = NOISE / float(np.sqrt(train.var()))
    model = DenoisingAutoencoder(32, noise="gaussian", level=level, max_epochs=options.epochs, random_state=0)
    clean = model.fit(train).reconstruct(noisy)

    results = {"noisy_mse": float(((noisy - test) ** 2).mean()), "denoised_mse": float(((clean - test) ** 2).mean())}
    print(f"squared error of a pixel: {results['noisy_mse']:.2f} noisy, {results['denoised_mse']:.2f} denoised")
    return results


if __name__ == "__main__":
    main()
