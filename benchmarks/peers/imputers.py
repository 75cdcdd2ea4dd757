"""Imputers of other packages: python imputers.py PLUGIN ROWS.npz OUT.npz SEED SAME

``train`` and ``test`` of ROWS have NaN in missing cells; with SAME = 1 the rows of fit are filled. OUT has the filled rows of
``test`` and
the CPU seconds. Rows are standardised for everybody, as the packages do not all do it themselves.
"""

import contextlib
import os
import sys
import time
import warnings

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
plugin, rows, out, seed, same = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "1"
data = np.load(rows)
train, test = data["train"], data["test"]
center, width = np.nanmean(train, 0), np.nanstd(train, 0)
width[width == 0] = 1
names = [f"x{j}" for j in range(train.shape[1])]
A, B = (pd.DataFrame((t - center) / width, columns=names) for t in (train, test))
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    if plugin == "midas":
        import torch
        from midas2 import MIDAS

        torch.manual_seed(seed)
        began = time.process_time()
        model = MIDAS()
        model.fit(A, epochs=100)
        filled = np.mean([np.asarray(x, dtype=float) for x in model.transform(m=20)], 0)
    else:
        import torch
        from hyperimpute.plugins.imputers import Imputers

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the package draws from it
        options = {"latent_size": max(2, A.shape[1] // 2), "n_hidden": 128} if plugin == "miwae" else {}
        began = time.process_time()
        model = Imputers().get(plugin, **({"random_state": seed} | options))
        if same:
            filled = np.asarray(model.fit_transform(A.copy()), dtype=float)
        else:
            model.fit(A.copy())
            filled = np.asarray(model.transform(B.copy()), dtype=float)
seconds = time.process_time() - began
if not same and plugin == "midas":
    raise RuntimeError("it fills the rows of fit only")
np.savez(out, filled=filled * width + center, seconds=seconds)
