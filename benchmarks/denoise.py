"""Noise in grey photographs: how well our Denoiser takes it out after so many minutes of learning, beside methods without learning.

    python benchmarks/denoise.py [--methods clean noisy range bm3d nonlocal_means wavelets] [--sigma 15 25 50] [--minutes 10]
                                 [--threads 2] [--device cpu] [--stop 600]
    python benchmarks/denoise.py --render

Learned from train400 (200 photographs of 180 x 180; DIABOLO_BENCH_DATA, default ../shared/data, folder denoise), judged on
BSD68 and Set12 with normal noise of standard deviation ``sigma`` on pixels from 0 to 255, not clipped, one draw: mean PSNR over
the images. "clean" learns from clean photographs at this level, "range" at all levels up to 55, "noisy" from photographs with
that noise alone; a first fit of 400 steps tells how many there is time for. While "clean" learns, Set12 is judged at times, which
is the curve: nothing is chosen by it. The others are those of $DIABOLO_PEERS/bm3d and $DIABOLO_PEERS/skimage, in one process; they
go on where they were after --stop seconds. Published, BSD68 at 15, 25, 50: BM3D 31.07, 28.57, 25.62, DnCNN 31.73, 29.23, 26.23; Set12:
32.37, 29.97, 26.72 and 32.86, 30.44, 27.18; from noisy images alone, BSD68 at 25, Noise2Void 27.71. Seconds by the clock. Results go to
benchmarks/results/denoise.json, --render writes docs/denoising.md of them. Pillow, which the extra "image" installs, reads the images.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diabolo import Denoiser
from diabolo.metrics import psnr

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data")) / "denoise"
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "denoise.json"
HOMES = {"bm3d": "bm3d", "nonlocal_means": "skimage", "wavelets": "skimage"}
SETS = ("BSD68", "Set12")


def photographs():
    """Return images to learn from."""
    with zipfile.ZipFile(DATA / "train400_even200.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        return [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L")) for name in names]


def judged(name, sigma):
    """Return the names of the images of a set, the images, and the same with noise, in units of 255."""
    paths = sorted((DATA / name).iterdir())
    clean = [np.asarray(Image.open(path).convert("L")) for path in paths]
    rng = np.random.default_rng(1)
    noisy = [(image + rng.normal(0, sigma, image.shape)).astype(np.float32) / 255 for image in clean]
    return [path.name for path in paths], clean, noisy


def distance(clean, restored):
    return float(psnr(clean, np.clip(restored, 0, 1) * 255, 255))


def keep(key, row):
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[key] = row
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    shown = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
    print(key, json.dumps(shown), flush=True)


def untrained(method, sigma, until):
    """Judge a method that does not learn, image by image, as far as there is time."""
    key = f"{method} | sigma {sigma:g}"
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    row = kept.get(key, {"threads": 1, "images": {}})
    for name in reversed(SETS):
        for file, clean, noisy in zip(*judged(name, sigma), strict=True):
            if f"{name}/{file}" in row["images"]:
                continue
            if time.perf_counter() > until:
                return
            with tempfile.TemporaryDirectory() as folder:
                given, out = Path(folder) / "given.npz", Path(folder) / "out.npz"
                np.savez(given, **{"0": noisy.astype(np.float64)})
                script = Path(__file__).parent / "peers" / "pictures.py"
                call = [PEERS / HOMES[method] / "bin" / "python", script, method, given, out, sigma / 255]
                subprocess.run([str(c) for c in call], check=True, stdout=subprocess.DEVNULL)
                found = np.load(out)
                row["images"][f"{name}/{file}"] = [distance(clean, found["0"]), float(found["seconds"])]
            done = [row["images"][k] for k in row["images"] if k.startswith(name)]
            if len(done) == len(list((DATA / name).iterdir())):
                row[name], row[f"{name} seconds"] = float(np.mean([d[0] for d in done])), sum(d[1] for d in done)
            keep(key, row)


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sigma", type=float, nargs="+", default=[15, 25, 50])
    parser.add_argument("--methods", nargs="+", default=["clean", "noisy", "range", *HOMES])
    parser.add_argument("--stop", type=float, default=float("inf"))
    args = parser.parse_args()
    until = time.perf_counter() + args.stop
    for method in args.methods:
        for sigma in args.sigma:
            if method in HOMES:
                untrained(method, sigma, until)


if __name__ == "__main__":
    main()
