"""Chosen classes: draw digits of each kind from a conditional autoencoder, and read digits with it.

The model is told which digit each image shows. It then writes any digit that is asked for, and the digit under which an image
is likeliest is a reading of it, though no classifier was ever trained. What is drawn goes to chosen_class.png, a line a digit.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from diabolo import ConditionalVAE, datasets
from diabolo.report import write_grid

EPOCHS = 40


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Handwritten digits of a chosen kind.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    digits = datasets.load("digits")
    train, test, y_train, y_test = train_test_split(digits.X, digits.y, random_state=0)
    vae = ConditionalVAE(8, max_epochs=options.epochs, random_state=0).fit(train, y_train)

    asked = np.repeat(np.arange(10), 30)
    drawn = vae.sample(len(asked), condition=asked, random_state=0)
    write_grid(vae, drawn, "chosen_class.png", width=30)
    judge = LogisticRegression(max_iter=1000).fit(train.reshape(len(train), -1) / 16, y_train)
    as_asked = judge.predict(drawn.reshape(len(drawn), -1) / 16) == asked

    scores = [vae.score_samples(test, condition=digit) for digit in range(10)]
    read = np.argmax(scores, axis=0) == y_test

    results = {"as_asked": float(as_asked.mean()), "read": float(read.mean())}
    print(f"{results['as_asked']:.0%} of the drawn digits are taken for what was asked for")
    print(f"{results['read']:.0%} of the test images are read rightly")
    return results


if __name__ == "__main__":
    main()
