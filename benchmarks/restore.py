"""Holes in grey photographs: how well our Restorer fills them, beside methods that do not learn.

    python benchmarks/restore.py [--methods diabolo membrane biharmonic mean] [--minutes 8] [--steps 400] [--threads 1]
                                 [--device auto]

Learned from train400 (200 photographs of 180 x 180; DIABOLO_BENCH_DATA, default ../shared/data, folder denoise), judged on Set12,
the same holes for all: half of the pixels, twelve lines of three pixels, and sixteen squares of 24 pixels. PSNR of the pixels in
holes alone, mean over images. "membrane" is the smooth surface that the network starts from, "biharmonic" scikit-image's, of
$DIABOLO_PEERS/skimage, "mean" that of the known pixels. It also says which share of white and black lines is found without a
mask, and of what is found how much is a line or beside one. A first fit of 100 steps tells how many there is time for. Seconds by
the clock. Results go to benchmarks/results/restore.json. Pillow, which the extra "image" installs, reads the images.
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

from diabolo import Restorer
from diabolo.tasks.membrane import membrane

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data")) / "denoise"
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "restore.json"


def photographs():
    """Return images to learn from."""
    with zipfile.ZipFile(DATA / "train400_even200.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        return [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L")) for name in names]


def judged():
    return [np.asarray(Image.open(path).convert("L")) for path in sorted((DATA / "Set12").iterdir())]


def pixels(shape, rng):
    return rng.random(shape) < 0.5


def lines(shape, rng):
    """Return slanted lines, of three pixels across."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=bool)
    for _ in range(12):
        angle = rng.uniform(0, np.pi)
        across = (y - rng.uniform(0, shape[0])) * np.cos(angle) - (x - rng.uniform(0, shape[1])) * np.sin(angle)
        mask |= np.abs(across) < 1.5
    return mask


def squares(shape, rng):
    mask = np.zeros(shape, dtype=bool)
    for _ in range(16):
        top, left = (int(rng.integers(0, length - 24)) for length in shape)
        mask[top : top + 24, left : left + 24] = True
    return mask


HOLES = {"half of the pixels": pixels, "lines": lines, "squares": squares}


def learned(args):
    """Fit our model; return how it fills, and what is to be said of it."""
    shared = {"random_state": 0, "device": args.device}
    images = photographs()
    steps = args.steps
    if steps is None:
        began = time.perf_counter()
        Restorer(max_steps=100, **shared).fit(images)
        steps = int(100 * 60 * args.minutes / (time.perf_counter() - began))
    began = time.perf_counter()
    restorer = Restorer(max_steps=steps, max_time=60 * args.minutes, **shared).fit(images)
    row = {"minutes": args.minutes, "threads": args.threads, "device": args.device, "steps": steps}
    return restorer, row | {"fit seconds": time.perf_counter() - began}


def smooth(images, masks):
    for image, mask in zip(images, masks, strict=True):
        x, seen = (torch.from_numpy(a[None, None].astype(np.float32)) for a in (image, ~mask))
        yield membrane(x, seen)[0, 0].numpy()


def mean(images, masks):
    for image, mask in zip(images, masks, strict=True):
        yield np.where(mask, image[~mask].mean(), image)


def biharmonic(images, masks):
    for image, mask in zip(images, masks, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            given, out = Path(folder) / "given.npz", Path(folder) / "out.npz"
            np.savez(given, **{"0": image.astype(np.float64) / 255, "mask0": mask})
            script = Path(__file__).parent / "peers" / "pictures.py"
            call = [PEERS / "skimage" / "bin" / "python", script, "biharmonic", given, out, 0]
            subprocess.run([str(c) for c in call], check=True, stdout=subprocess.DEVNULL)
            yield np.load(out)["0"] * 255


def within(image, filled, mask):
    """Return the PSNR of the pixels in holes."""
    off = np.square(np.clip(filled[mask], 0, 255).astype(float) - image[mask]).mean()
    return float(10 * np.log10(255**2 / off))


def found(restorer):
    """Return which share of lines is found, and of what is found how much is a line or beside one."""
    shares = {}
    for name, value in (("white", 245), ("black", 10)):
        hits, right = [], []
        for i, image in enumerate(judged()):
            mask = lines(image.shape, np.random.default_rng(i))
            (guess,) = restorer.find_damage([np.where(mask, value, image).astype(np.uint8)])
            x = torch.from_numpy(mask[None, None].astype(np.float32))
            near = torch.nn.functional.max_pool2d(x, 5, 1, 2)[0, 0].numpy() > 0
            hits.append(guess[mask].mean())
            right.append(near[guess].mean() if guess.any() else 0.0)
        shares |= {f"{name} lines found": float(np.mean(hits)), f"{name} right": float(np.mean(right))}
    return shares


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["diabolo", "membrane", "biharmonic", "mean"])
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--steps", type=int, help="of learning, where they are not to be found out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = judged()
    for method in args.methods:
        if method == "diabolo":
            restorer, row = learned(args)

            def fill(images, masks, restorer=restorer):
                return restorer.transform(images, mask=masks)

            row |= found(restorer)
        else:
            fill, row = {"membrane": smooth, "biharmonic": biharmonic, "mean": mean}[method], {}
        for name, holes in HOLES.items():
            masks = [holes(image.shape, np.random.default_rng(i)) for i, image in enumerate(images)]
            began = time.perf_counter()
            done = list(fill(images, masks))
            row[f"{name} seconds"] = time.perf_counter() - began
            row[name] = float(np.mean([within(*triple) for triple in zip(images, done, masks, strict=True)]))
            print(method, name, row[name], flush=True)
            kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            kept[method if method != "diabolo" else f"diabolo, {row['steps']} steps"] = row
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
