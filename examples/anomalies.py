"""Anomalies: learn what benign tumours look like, then find malignant ones, and say by which measurements.

The detector sees no malignant tumour in training. Its threshold is set so that about one benign tumour in twenty is flagged.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from diabolo import AnomalyDetector, Autoencoder, datasets

EPOCHS = 60


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Malignant among benign tumours.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    data = datasets.load("breast_cancer")
    X = pd.DataFrame(data.X, columns=list(data.names))
    benign, malignant = X[data.y == data.classes.index("benign")], X[data.y == data.classes.index("malignant")]
    train, unseen = train_test_split(benign, test_size=0.3, random_state=0)

    model = Autoencoder(6, max_epochs=options.epochs)
    detector = AnomalyDetector(model, contamination=0.05, random_state=0).fit(train)

    scores = np.concatenate([detector.score_samples(unseen), detector.score_samples(malignant)])
    results = {
        "flagged_benign": float((detector.predict(unseen) == -1).mean()),
        "flagged_malignant": float((detector.predict(malignant) == -1).mean()),
        # a higher score is more normal, hence the sign
        "roc_auc": float(roc_auc_score(np.repeat([0, 1], [len(unseen), len(malignant)]), -scores)),
    }
    print(f"flagged: {results['flagged_benign']:.0%} of unseen benign, {results['flagged_malignant']:.0%} of malignant")
    print(f"area under the ROC curve: {results['roc_auc']:.3f}")

    worst = malignant.iloc[[int(np.argmin(detector.score_samples(malignant)))]]
    blame = detector.explain(worst).iloc[0].sort_values(ascending=False)
    print(f"row {worst.index[0]} is the least normal, for:")
    for name, nats in blame.head(3).items():
        print(f"  {name}: {nats:.0f} nats")
    return results


if __name__ == "__main__":
    main()
