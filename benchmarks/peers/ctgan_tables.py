"""Synthetic rows of ctgan's TVAE or CTGAN: the job is a JSON file with paths, labels, epochs and a seed.

    $DIABOLO_PEERS/ctgan/bin/python benchmarks/peers/ctgan_tables.py JOB

Its own defaults but for the epochs. It takes no missing cells: those of labels are a label of their own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ctgan
import numpy as np
import pandas as pd
import torch


def main():
    torch.set_num_threads(1)
    job = json.loads(Path(sys.argv[1]).read_text())
    frame = pd.read_csv(job["rows"], keep_default_na=False)
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # noqa: NPY002 - it draws from the global stream
    model = getattr(ctgan, job["model"])(epochs=job["epochs"])
    began = time.process_time()
    model.fit(frame, discrete_columns=job["labels"])
    fit = time.process_time() - began
    began = time.process_time()
    model.sample(job["n"]).to_csv(job["out"], index=False)
    Path(job["times"]).write_text(json.dumps({"fit": fit, "sample": time.process_time() - began}))


if __name__ == "__main__":
    main()
