"""Noise in grey photographs: how well our Denoiser takes it out after so many minutes of learning.

    python benchmarks/denoise.py [--minutes 10] [--sigma 25] [--methods clean noisy range] [--threads 2]

Learned from train400 (200 photographs of 180 x 180; DIABOLO_BENCH_DATA, default ../shared/data, folder denoise), judged on
BSD68 and Set12 with normal noise of standard deviation ``sigma`` on pixels from 0 to 255, not clipped, one draw: mean PSNR over
the images. "clean" learns from clean photographs at this level, "range" at all levels up to 55, "noisy" from photographs with
that noise alone. A first fit of 400 steps tells how many there is time for. Published at 25, BSD68 and Set12: BM3D 28.57 and
29.97, DnCNN 29.23 and 30.44; learned from noisy images alone, Noise2Void 27.71. Wall seconds. Results go to
benchmarks/results/denoise.json. Pillow, which the extra "image" installs, reads the images.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diabolo import Denoiser
from diabolo.metrics import psnr

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data")) / "denoise"
RESULTS = Path(__file__).parent / "results" / "denoise.json"


def photographs():
    """Return images to learn from."""
    with zipfile.ZipFile(DATA / "train400_even200.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        return [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L")) for name in names]


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--methods", nargs="+", default=["clean", "noisy", "range"])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = [image.astype(np.float32) / 255 for image in photographs()]
    sigma = args.sigma / 255
    began = time.perf_counter()
    Denoiser(level=sigma, max_steps=400, random_state=0).fit(images)
    steps = int(400 * 60 * args.minutes / (time.perf_counter() - began))
    for method in args.methods:
        shared = {"max_steps": steps, "random_state": 0}
        rng = np.random.default_rng(0)
        if method == "noisy":
            denoiser = Denoiser(learn_from="noisy", **shared)
            learned = [image + rng.normal(0, sigma, image.shape).astype(np.float32) for image in images]
        else:
            denoiser = Denoiser(level=sigma if method == "clean" else (0.0, 55 / 255), **shared)
            learned = images
        began = time.perf_counter()
        denoiser.fit(learned)
        row = {"minutes": args.minutes, "threads": args.threads, "fit seconds": time.perf_counter() - began}
        row["steps"] = len(denoiser.history_) * 400
        for name in ("BSD68", "Set12"):
            clean = [np.asarray(Image.open(path).convert("L")) for path in sorted((DATA / name).iterdir())]
            rng = np.random.default_rng(1)
            noisy = [(image + rng.normal(0, args.sigma, image.shape)).astype(np.float32) / 255 for image in clean]
            began = time.perf_counter()
            restored = denoiser.transform(noisy)
            row[f"{name} seconds"] = time.perf_counter() - began
            row[name] = float(
                np.mean([psnr(a, np.clip(b, 0, 1) * 255, 255) for a, b in zip(clean, restored, strict=True)])
            )
            row[f"{name} noisy"] = float(np.mean([psnr(a, b * 255, 255) for a, b in zip(clean, noisy, strict=True)]))
        print(method, args.sigma, json.dumps(row), flush=True)
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept[f"{method} | sigma {args.sigma:g} | {args.minutes:g} minutes"] = row
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
