"""Grid search: choose the size of the code by how well a classifier does on it.

An autoencoder is a scikit-learn transformer: it stands in a pipeline, and its parameters are searched like any other's.
"""

from __future__ import annotations

import argparse

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from diabolo import Autoencoder, datasets

EPOCHS = 8
SIZES = [1, 4, 16]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="The size of the code by cross-validation.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    digits = datasets.load("digits")
    pipeline = Pipeline(
        [
            ("code", Autoencoder(max_epochs=options.epochs, random_state=0)),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(max_iter=1000)),
        ]
    )
    search = GridSearchCV(pipeline, {"code__latent_dim": SIZES}, cv=2)
    search.fit(digits.X.reshape(len(digits.X), -1), digits.y)

    accuracies = search.cv_results_["mean_test_score"]
    for size, accuracy in zip(SIZES, accuracies, strict=True):
        print(f"latent_dim={size:2}: {accuracy:.1%} of unseen digits recognised")
    return {"best": float(search.best_params_["code__latent_dim"]), "accuracy": float(search.best_score_)}


if __name__ == "__main__":
    main()
