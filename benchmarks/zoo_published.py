"""Figures that papers report for plain models on MNIST, beside ours under the paper's protocol: `zoo.py --published`.

Only figures whose protocol can be kept are here: the same rows, the same measure, the same size of the code. Nets and training
are ours where the table says so.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from diabolo import VAE, Autoencoder

UMAP = "Sainburg et al., Parametric UMAP, 2021, arXiv:2009.12981, notebooks of timsainb/ParametricUMAP_paper"
PYTHAE = "reproducibility README of pythae, after arXiv:1805.11908"
CASES = {
    "Autoencoder(64), MNIST, 1-NN accuracy": {
        "published": 0.9748,
        "source": UMAP,
        "protocol": "60,000 training rows, 10,000 test rows; their net is convolutional, trained for 50 epochs, ours the default",
    },
    "VAE(64), MNIST, 1-NN accuracy": {
        "published": 0.9785,
        "source": UMAP,
        "protocol": "60,000 training rows, 10,000 test rows; their net is convolutional, trained for 50 epochs, ours the default",
    },
    "VAE 784-400-40, binarised MNIST, NLL in nats": {
        "published": 89.78,
        "source": PYTHAE,
        "protocol": "fixed binarisation, 50,000 training rows, 10,000 test rows, 200 draws; 500 epochs there, our default here",
    },
}


def nearest(cls, folder, seed):
    """1-NN accuracy of the test rows on 64 numbers a digit."""
    data = np.load(folder / "mnist.npz")
    A, B = (data[k].reshape(-1, 784).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    model = cls(64, random_state=seed).fit(A)
    judge = KNeighborsClassifier(1, algorithm="brute").fit(model.transform(A), data["y_train"])
    return float(judge.score(model.transform(B), data["y_test"])), len(model.history_)


def binarised(folder, seed, draws=200):
    """Importance-sampled negative log-likelihood of the test rows, in nats."""
    data = np.load(folder / "binarized_mnist.npz")
    A, B = (np.unpackbits(data[k], axis=1)[:, :784].astype(np.float32) for k in ("train", "test"))
    model = VAE(40, hidden=(400,), network="mlp", random_state=seed).fit(A)

    def weight(module, batch):
        trace = module.trace(batch, sample=True)
        return module.log_prob(trace.raw, batch) - module.bottleneck.log_ratio(trace.code)

    torch.manual_seed(seed)
    raw = model._read(B, reset=False)
    total = np.full(len(B), -np.inf)
    for _ in range(draws):
        total = np.logaddexp(total, model._apply(raw, weight).astype(np.float64))
    return float(-(total - np.log(draws)).mean()), len(model.history_)


def run(folder, seed=0):
    """Yield the name of each case and what came of it."""
    runs = (
        lambda: nearest(Autoencoder, folder, seed),
        lambda: nearest(VAE, folder, seed),
        lambda: binarised(folder, seed),
    )
    for (name, told), case in zip(CASES.items(), runs, strict=True):
        began = time.process_time()
        ours, epochs = case()
        yield name, told | {"ours": ours, "epochs": epochs, "seconds": time.process_time() - began}
