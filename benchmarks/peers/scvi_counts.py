"""scvi-tools on counts: python scvi_counts.py ROWS.npz OUT.npz LIKELIHOOD EPOCHS SEED

ROWS has ``train`` and ``test`` as parts of sparse matrices. OUT has the codes of the rows of both, the mean evidence lower
bound of test rows (nats, ten draws), and the seconds of training.
"""

import contextlib
import logging
import os
import sys
import time
import warnings

import anndata
import numpy as np
import scvi
import torch
from scipy import sparse

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
rows, out, likelihood, epochs, seed = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:6])
torch.set_num_threads(2)
data = np.load(rows)


def part(name):
    cells = (data[f"{name}_data"].astype(np.float32), data[f"{name}_indices"], data[f"{name}_indptr"])
    found = anndata.AnnData(sparse.csr_matrix(cells, shape=tuple(data[f"{name}_shape"])))
    scvi.model.SCVI.setup_anndata(found)
    return found


with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    scvi.settings.seed = seed
    train, test = part("train"), part("test")
    model = scvi.model.SCVI(train, n_latent=10, n_hidden=128, n_layers=1, gene_likelihood=likelihood)
    began = time.perf_counter()
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, train_size=0.9)
    seconds = time.perf_counter() - began
    codes = np.concatenate([model.get_latent_representation(train), model.get_latent_representation(test)])
    bound = float(np.mean([model.get_elbo(test, return_mean=True) for _ in range(10)]))
np.savez(out, codes=codes, bound=bound, seconds=seconds)
