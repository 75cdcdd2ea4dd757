"""MNIST tutorial: the classic first autoencoder, 784-64-784, in one call.

The encoder is one linear layer and ReLU, the decoder one linear layer and a sigmoid; the loss is the squared error. Nothing of
this is hidden: ``hidden=()`` leaves single layers, ``code_activation`` is the function of the code, and the sigmoid with squared
errors is ``likelihood="sigmoid_gaussian"``. The layers start at the principal components of the pixels, and SOAP takes so few
steps that one pass over the images is enough. Writes a picture with originals above and reconstructions below.

    python examples/mnist_tutorial.py --data mnist.npz

Without --data, MNIST is fetched from OpenML by scikit-learn, which needs a network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diabolo import Autoencoder, datasets
from diabolo.report.png import encode_png

LATENT_DIM = 64
EPOCHS = 1
BATCH_SIZE = 256
LEARNING_RATE = 0.015
TEST_ROWS = 10_000  # the last rows are the test set, as in the original split
SHOWN = 12  # images in the picture


def picture(originals: NDArray[np.floating], rebuilt: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Set images ``(n, 784)`` of values in [0, 1] side by side, originals above."""
    rows = [np.hstack(list(images.reshape(-1, 28, 28))) for images in (originals, rebuilt)]
    return np.asarray(np.rint(np.vstack(rows) * 255), dtype=np.uint8)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="The classic autoencoder on MNIST.")
    parser.add_argument("--data", type=Path, help="mnist.npz; without it, OpenML")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS, help="rows at the end kept for the test")
    parser.add_argument("--output", type=Path, default=Path("mnist.png"), help="PNG to write")
    options = parser.parse_args(arguments)

    images = datasets.load("mnist", path=options.data).X
    X = images.reshape(len(images), -1).astype(np.float32) / 255
    train, test = X[: -options.test_rows], X[-options.test_rows :]

    model = Autoencoder(
        LATENT_DIM,
        hidden=(),
        code_activation="relu",
        likelihood="sigmoid_gaussian",
        scale=None,  # pixels are in [0, 1] already
        validation_fraction=0,  # a fixed number of epochs on all training rows, as tutorials do
        max_epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        optimizer="soap",
        weight_decay=0,
        random_state=0,
    )
    began = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - began

    rebuilt = model.reconstruct(test)
    mse = float(((rebuilt - test) ** 2).mean())
    options.output.write_bytes(encode_png(picture(test[:SHOWN], rebuilt[:SHOWN])))
    print(f"test MSE {mse:.5f} after {options.epochs} epoch(s) in {seconds:.1f} s; wrote {options.output}")
    return {"mse": mse, "seconds": seconds}


if __name__ == "__main__":
    main()
