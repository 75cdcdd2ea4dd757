"""A synthetic table: rows of tumours that no patient has, for a classifier to learn from.

How good are they? A classifier that has only seen synthetic rows is tested on real ones, and a comparison of the tables says how
far columns are off and what the rows give away.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from diabolo import TableSynthesizer, compare_tables

EPOCHS = 40


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Tumours that nobody has.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(arguments)

    cancer = load_breast_cancer(as_frame=True)
    table = cancer.data.iloc[:, :10].assign(kind=np.where(cancer.target == 1, "benign", "malignant"))
    train, test = train_test_split(table, random_state=0, stratify=table["kind"])
    synthesizer = TableSynthesizer(max_epochs=options.epochs, random_state=0).fit(train)
    made = synthesizer.sample(len(train), random_state=0)

    results = {}
    for name, rows in (("real", train), ("synthetic", made)):
        judge = HistGradientBoostingClassifier(random_state=0).fit(
            rows.drop(columns="kind"), rows["kind"] == "malignant"
        )
        chance = judge.predict_proba(test.drop(columns="kind"))[:, 1]
        results[name] = float(roc_auc_score(test["kind"] == "malignant", chance))
        print(f"learned from {name} rows: AUC {results[name]:.3f} on real test rows")
    found = compare_tables(train, made, test)
    print(found)
    large = synthesizer.sample(
        5, condition={"kind": "benign"}, bounds={"mean radius": (15, None)}, random_state=0
    )  # rare, but possible
    print(large.round(2).to_string(index=False))
    return results | {"membership": float(found.membership or 0.5), "smallest": float(large["mean radius"].min())}


if __name__ == "__main__":
    main()
