"""Features: describe each image of a digit by 8 numbers, and see what the numbers keep.

Compares an autoencoder with principal components of the same size on images that neither has seen: the squared error of the
rebuilt pixel, and how many digits a nearest-neighbour classifier recognises from the 8 numbers.
"""

from __future__ import annotations

import argparse

from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from diabolo import Autoencoder, datasets

LATENT_DIM = 8
EPOCHS = 40  # the default, max_epochs="auto", plans for more


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Features of handwritten digits.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    digits = datasets.load("digits")
    X = digits.X.reshape(len(digits.X), -1)
    train, test, y_train, y_test = train_test_split(X, digits.y, random_state=0, stratify=digits.y)

    results = {}
    pca = PCA(LATENT_DIM).fit(train)
    autoencoder = Autoencoder(LATENT_DIM, max_epochs=options.epochs, random_state=0).fit(train)
    for name, model in {"pca": pca, "autoencoder": autoencoder}.items():
        codes = model.transform(test)
        rebuilt = model.inverse_transform(codes)
        neighbours = KNeighborsClassifier(1).fit(model.transform(train), y_train)
        results[f"{name}_mse"] = float(((rebuilt - test) ** 2).mean())
        results[f"{name}_accuracy"] = float(neighbours.score(codes, y_test))
        print(
            f"{name:11}  {LATENT_DIM} numbers an image  squared error {results[f'{name}_mse']:5.2f}  "
            f"recognised {results[f'{name}_accuracy']:.1%}"
        )
    return results


if __name__ == "__main__":
    main()
