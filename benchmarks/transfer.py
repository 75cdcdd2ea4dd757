"""What an autoencoder is worth where few rows have a label.

    python benchmarks/transfer.py [--only images tables classic] [--seeds 0 1 2] [--sets mnist fashion adult ...]
                                  [--labels 100 1000 1 0.01 0.1] [--methods ...] [--results FILE]

``images``    MNIST and Fashion-MNIST: 20,000 training images, of which 100 or 1,000, as many of each class, or all have
              labels; accuracy on the 10,000 test images.
``tables``    five tables with two classes: 1 % and 10 % of the training rows have labels; accuracy, log-loss and AUROC on a
              quarter of the rows (Adult: on its test file). Bank goes without the length of the call, known only after it.
``classic``   all 60,000 images of MNIST with their labels, fine-tuned after layer-wise denoising of three layers of 1,000 units
              (Vincent et al., JMLR 2010: 1.28 %), and after a contractive layer of 1,000 sigmoid units (Rifai et al., ICML 2011:
              1.14 %): test error. Fine-tuning keeps the weights that are best on a tenth of the training images.

Beside AutoencoderClassifier, by default but for its seed, and with ``method="m2"``, on the same labels and by scikit-learn's
defaults: logistic regression, gradient boosting, a network trained from scratch (MLPClassifier), and label spreading (7
neighbours, up to 20,000 rows). For them numbers are standardised, and labels of columns made to columns of zeros and ones.

Data are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). Each result is written as soon as it is
there, and what is there is not computed again. Results go to benchmarks/results/transfer.json, and from there to
docs/transfer.md (transfer_page.py). Several processes need a file of results each.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import LabelSpreading

from diabolo import AutoencoderClassifier, ContractiveAutoencoder, DenoisingAutoencoder

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "transfer.json"
POOL = 20_000
IMAGES = {"mnist": "mnist.npz", "fashion": "fashion_mnist_20k.npz"}
TABLES = ("adult", "bank", "credit", "magic", "spam")
ADULT = [
    "age",
    "work",
    "weight",
    "education",
    "years",
    "marital",
    "job",
    "relation",
    "race",
    "sex",
    "gain",
    "loss",
    "hours",
]
ADULT += ["country", "y"]


def images(name):
    """Return training and test images with their labels."""
    data = np.load(DATA / "images" / IMAGES[name])
    return data["x_train"], data["y_train"].astype(int), data["x_test"], data["y_test"].astype(int)


def table(name):
    """Return training and test rows with their labels."""
    if name == "adult":
        parts = []
        for part in ("train", "test"):
            file = DATA / "tables" / f"adult-{part}.csv.gz"
            rows = pd.read_csv(file, header=None, names=ADULT, skipinitialspace=True, na_values="?").dropna(how="all")
            y = rows.pop("y").astype(str).str.startswith(">").astype(int).to_numpy()
            parts += [rows.reset_index(drop=True), y]
        return parts
    if name == "bank":
        rows = pd.read_csv(DATA / "tables" / "bank_full.csv.gz", sep=";").drop(columns="duration")
        y = (rows.pop("y") == "yes").astype(int).to_numpy()
    elif name == "credit":
        rows = pd.read_csv(DATA / "tables" / "credit_default.csv.gz").drop(columns="ID")
        y = rows.pop(rows.columns[-1]).to_numpy()
    else:
        data = np.load(DATA / "tabular_ad" / {"magic": "22_magic.gamma.npz", "spam": "35_SpamBase.npz"}[name])
        rows, y = pd.DataFrame(data["X"].astype(float)).add_prefix("c"), data["y"].astype(int)
    A, B, a, b = train_test_split(rows, y, test_size=0.25, random_state=1, stratify=y)
    return A.reset_index(drop=True), a, B.reset_index(drop=True), b


def flat(A, B):
    """Return rows of numbers for scikit-learn: standardised, images and labels as columns."""
    if isinstance(A, np.ndarray):
        return A.reshape(len(A), -1) / np.float32(255), B.reshape(len(B), -1) / np.float32(255)
    numbers = [c for c in A if A[c].dtype.kind in "iuf"]
    made = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), [c for c in A if c not in numbers]),
    )
    return made.fit_transform(A).astype(np.float32), made.transform(B).astype(np.float32)


def some(y, share, seed):
    """Choose labelled rows: so many of each class, all, or a share with the proportions of all."""
    if share == 1:
        return np.arange(len(y))
    if share > 1:
        order = np.random.default_rng(seed).permutation(len(y))
        return np.concatenate([order[y[order] == c][: share // 10] for c in np.unique(y)])
    return train_test_split(np.arange(len(y)), test_size=share, random_state=seed, stratify=y)[1]


def chances(method, A, few, B, seed):
    """Return the probabilities of classes for test rows."""
    if method in OURS:
        return AutoencoderClassifier(random_state=seed, **OURS[method]).fit(A, few).predict_proba(B)
    FA, FB = flat(A, B)
    known = few >= 0
    if method == "label spreading":
        keep = np.flatnonzero(known)
        rest = np.random.default_rng(seed).permutation(np.flatnonzero(~known))[: max(0, POOL - len(keep))]
        rows = np.concatenate([keep, rest])
        model = LabelSpreading(kernel="knn").fit(FA[rows], few[rows])
        found = model.predict_proba(FB)
        return np.where(found.sum(1, keepdims=True) > 0, found, 1 / found.shape[1])
    model = {
        "logistic regression": LogisticRegression(max_iter=1000),
        "gradient boosting": HistGradientBoostingClassifier(random_state=seed),
        "network from scratch": MLPClassifier(random_state=seed),
    }[method]
    return model.fit(FA[known], few[known]).predict_proba(FB)


OURS = {"AutoencoderClassifier": {}, "the same, method='m2'": {"method": "m2"}}
METHODS = (
    *OURS,
    "logistic regression",
    "gradient boosting",
    "network from scratch",
    "label spreading",
)


def measure(kind, name, share, seed, method):
    A, a, B, b = images(name) if kind == "images" else table(name)
    if kind == "images":
        pool = np.random.default_rng(seed).permutation(len(A))[:POOL]
        A, a = A[pool], a[pool]
    labelled = some(a, share, seed)
    few = np.full(len(a), -1)
    few[labelled] = a[labelled]
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = chances(method, A, few, B, seed)
    seconds = time.perf_counter() - began
    p = np.clip(np.nan_to_num(p, nan=1 / p.shape[1]), 1e-9, 1)
    p /= p.sum(1, keepdims=True)
    found = {"accuracy": float((p.argmax(1) == b).mean()), "log_loss": float(log_loss(b, p)), "seconds": seconds}
    if p.shape[1] == 2:
        found["auroc"] = float(roc_auc_score(b, p[:, 1]))
    return found | {"labels": len(labelled), "rows": len(a)}


CLASSIC = {
    "stacked denoising": DenoisingAutoencoder(
        1000,
        hidden=(1000, 1000),
        network="mlp",
        noise="masking",
        level=0.25,
        likelihood="bernoulli",
        pretrain="layerwise",
        pretrain_epochs=10,
        max_epochs=10,
        batch_size=256,
        learning_rate=1e-3,
    ),
    "contractive": ContractiveAutoencoder(
        1000,
        hidden=(),
        network="mlp",
        code_activation="sigmoid",
        likelihood="bernoulli",
        max_epochs=15,
        batch_size=256,
        learning_rate=1e-3,
    ),
}


def classic(name, seed):
    """Fine-tune 1,000-unit layers on all labels."""
    A, a, B, b = images("mnist")
    A, B = A / np.float32(255), B / np.float32(255)
    began = time.perf_counter()
    model = AutoencoderClassifier(CLASSIC[name], n_models=1, dropout=0.5, max_steps=15_000, random_state=seed).fit(A, a)
    error = 100 * float((model.predict(B) != b).mean())
    return {"error_percent": error, "seconds": time.perf_counter() - began}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=["images", "tables", "classic"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=[*IMAGES, *TABLES, *CLASSIC])
    parser.add_argument("--labels", nargs="+", type=float, default=[100, 1000, 1, 0.01, 0.1])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    jobs = [
        (f"{kind}/{name}/{share}/{seed}/{method}", measure, (kind, name, share, seed, method))
        for seed in given.seeds
        for kind, names, shares in (("images", IMAGES, (100, 1000, 1)), ("tables", TABLES, (0.01, 0.1)))
        if kind in given.only
        for name in names
        if name in given.sets
        for share in shares
        if share in given.labels
        for method in given.methods
    ]
    if "classic" in given.only:
        jobs += [
            (f"classic/{name}/all/{seed}", classic, (name, seed))
            for seed in given.seeds
            for name in CLASSIC
            if name in given.sets
        ]
    for key, function, arguments in jobs:
        if key in (json.loads(given.results.read_text()) if given.results.exists() else {}):
            continue
        found = function(*arguments)
        results = json.loads(given.results.read_text()) if given.results.exists() else {}
        results[key] = found
        given.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(key, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
