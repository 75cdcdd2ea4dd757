"""Images from pythae's models through its samplers; the job is that of ``pythae_models``, and names ``samplers``.

    $DIABOLO_PEERS/pythae/bin/python benchmarks/peers/pythae_samplers.py JOB

Samplers have pythae's defaults; those that are trained are trained on the rows that the model was trained on.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pythae import samplers
from pythae.trainers import BaseTrainerConfig
from pythae_models import train_model

NAMES = {
    "normal": "NormalSampler",
    "mixture": "GaussianMixtureSampler",
    "maf": "MAFSampler",
    "two_stage": "TwoStageVAESampler",
    "vamp": "VAMPSampler",
}


def main():
    torch.set_num_threads(1)
    job = json.loads(Path(sys.argv[1]).read_text())
    data = {k: torch.from_numpy(v) for k, v in np.load(job["rows"]).items()}
    train = data["train"]
    cut = len(train) - len(train) // 10
    began = time.process_time()
    model = train_model(job, train[:cut], train[cut:])
    out = {"seconds": time.process_time() - began}
    for name in job["samplers"]:
        began = time.process_time()
        sampler = getattr(samplers, NAMES[name])(model)
        options = {}
        if name in ("maf", "two_stage"):
            options = {
                "eval_data": train[cut:],
                "training_config": BaseTrainerConfig(output_dir="out", num_epochs=job["epochs"], no_cuda=True),
            }
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if name in ("mixture", "maf", "two_stage"):
                sampler.fit(train[:cut], **options)
            torch.manual_seed(job["seed"])
            with torch.no_grad():
                drawn = sampler.sample(num_samples=job["n"], batch_size=500, return_gen=True)
        out[f"images_{name}"] = drawn.cpu().flatten(1).numpy()
        out[f"seconds_{name}"] = time.process_time() - began
    np.savez(job["out"], **out)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
