"""Memory and time for very large photographs: python benchmarks/large_pictures.py [--sides 3000 6000 20000] [--threads 1]

A photograph of scikit-learn, repeated to so many pixels a side in colour, is compressed by ``photo_compressor()`` and brought
back, and cleaned by a ``Denoiser``, each in a process of its own. Peak memory is what the process needs beside its start and the
arrays that go in and come out. Results go to benchmarks/results/large_pictures.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_image

from diabolo import Denoiser
from diabolo.pretrained import photo_compressor

RESULTS = Path(__file__).parent / "results" / "large_pictures.json"
MIB = 2**20


def photograph(side):
    photo = load_sample_image("china.jpg")
    out = np.empty((side, side, 3), dtype=np.uint8)
    for top in range(0, side, len(photo)):
        for left in range(0, side, photo.shape[1]):
            part = out[top : top + len(photo), left : left + photo.shape[1]]
            part[:] = photo[: part.shape[0], : part.shape[1]]
    return out


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(job, side, path):
    """Do one job, and say what it took, in MiB and seconds."""
    small = photograph(300)
    if job == "denoise":
        model = Denoiser(max_steps=2, random_state=0).fit([small])
        model.transform([small])
    else:
        model = photo_compressor()
        model.compress([small], path.with_suffix(".small"))
        model.decompress(path.with_suffix(".small"))
    image = photograph(side) if job != "decompress" else None
    before, began, held = peak(), time.perf_counter(), 0
    if job == "compress":
        model.compress([image], path)
    else:
        (done,) = model.decompress(path) if job == "decompress" else model.transform([image])
        held = done.nbytes / MIB
    return {"MiB": max(0.0, peak() - before - held), "seconds": time.perf_counter() - began}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[3000, 6000])
    parser.add_argument("--jobs", nargs="+", default=["compress", "decompress", "denoise"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        job, side, path = args.one
        print(json.dumps(work(job, int(side), Path(path))))
        return
    for side in args.sides:
        with tempfile.TemporaryDirectory() as folder:
            for job in args.jobs:
                call = [
                    sys.executable,
                    __file__,
                    "--threads",
                    str(args.threads),
                    "--one",
                    job,
                    str(side),
                    f"{folder}/a.dbl",
                ]
                done = subprocess.run(call, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout.splitlines()[-1]) | {"threads": args.threads}
                print(side, job, row, flush=True)
                kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                kept[f"{side} | {job}"] = row
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
