"""Memory of a recommender: it grows with what was chosen and with a batch, not with users times items."""

from __future__ import annotations

import subprocess
import sys

import pytest

N, CHOSEN = 24_000, 10  # users, as many items, and what each user chose
DENSE = N * N * 4 / 2**20  # MiB of all cells, were they ever there at once

SCRIPT = """
import resource, sys, warnings
import numpy as np
from scipy import sparse
import diabolo
from diabolo import GraphFilter, MultVAE, Recommender

warnings.simplefilter("ignore")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform != "darwin" else 2**20)
def rows(n):
    items = np.random.default_rng(0).integers(0, n, n * {chosen})
    made = sparse.csr_array((np.ones(len(items), np.float32), (np.repeat(np.arange(n), {chosen}), items)), (n, n))
    made.data[:] = 1
    return made
def use(n):
    model = {{
        "GraphFilter": GraphFilter(),
        "MultVAE": MultVAE(8, hidden=(16,), network="mlp", max_epochs=1, batch_size=100),
    }}["{model}"]
    fitted = Recommender(model, random_state=0).fit(rows(n))
    fitted.recommend(np.arange(2000) if n > 2000 else None, k=10)
use(500)  # what is loaded at first use
before = peak()
use({n})
print(peak() - before)
"""


@pytest.mark.parametrize("model", ["GraphFilter", "MultVAE"])
def test_memory_grows_with_what_was_chosen_and_a_batch(model):
    pytest.importorskip("resource", reason="peak memory is read from the resource module")
    script = SCRIPT.format(model=model, n=N, chosen=CHOSEN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    grown = float(done.stdout.split()[-1])
    # a batch of training is 9 MiB and one of judging more, some copies of each; weights of 16 units, with Adam's moments, 12 MiB
    assert grown < DENSE / 6, f"{grown:.0f} MiB of {DENSE:.0f} MiB for all cells"
