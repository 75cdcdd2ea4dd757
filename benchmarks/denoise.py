"""Noise in grey photographs: how well our Denoiser takes it out after minutes of learning, beside methods that learn nothing.

    python benchmarks/denoise.py [--methods clean noisy range shipped bm3d nonlocal_means wavelets] [--sigma 15 25 50]
                                 [--minutes 10] [--width 48] [--steps 2000] [--threads 2] [--device auto] [--stop 600]
    python benchmarks/denoise.py --mnist [--minutes 3]
    python benchmarks/denoise.py --levels

Learned from train400 (200 photographs of 180 x 180; DIABOLO_BENCH_DATA, default ../shared/data, folder denoise), judged on
BSD68 and Set12 with normal noise of standard deviation ``sigma`` on pixels from 0 to 255, not clipped, one draw: mean PSNR over
the images. "clean" learns from clean photographs at this level, "range" at all levels up to 55, "noisy" from photographs with
that noise alone; "shipped" is the grey ``photo_denoiser``, rounded and clipped to 8 bits as in files; a first fit of 100 steps
tells how many there is time for. "curve" has seconds and the PSNR of patches of twenty photographs held out of those to learn
from. The others are of $DIABOLO_PEERS/bm3d and $DIABOLO_PEERS/skimage, told the level; after --stop seconds they end, and the
next call goes on. Published, BSD68 at 15, 25, 50: BM3D 31.07, 28.57, 25.62, DnCNN 31.73, 29.23, 26.23; Set12: 32.37, 29.97,
26.72 and 32.86, 30.44, 27.18; from noisy images alone, BSD68 at 25, Noise2Void 27.71.

--mnist is the set-up of the Keras tutorial: digits with noise of 0.5, clipped; 60,000 to learn from, 10,000 to judge. Its own
net ($DIABOLO_PEERS/keras) learns for as long; PSNR and SSIM (scikit-image's), means over the images. --levels is the error of
``Denoiser.estimate_noise`` on BSD68, root mean square over the images. Seconds by the clock. Results go to
benchmarks/results/denoise.json. Pillow, which the extra "image" installs, reads the images.
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
from diabolo.pretrained import photo_denoiser
from diabolo.tasks.denoising import SIDE
from diabolo.tasks.picture_models import SPREAD

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
                run_peer(HOMES[method], "pictures.py", method, given, out, sigma / 255)
                found = np.load(out)
                row["images"][f"{name}/{file}"] = [distance(clean, found["0"]), float(found["seconds"])]
            keep(key, row)
            done = [row["images"][k] for k in row["images"] if k.startswith(name)]
            if len(done) == len(list((DATA / name).iterdir())):
                row[name], row[f"{name} seconds"] = float(np.mean([d[0] for d in done])), sum(d[1] for d in done)
                keep(key, row)


def steps_for(images, shared, args):
    """Return how many steps there is time for."""
    if args.steps is not None:
        return args.steps
    began = time.perf_counter()
    Denoiser(max_steps=100, **shared).fit(images)
    return int(100 * 60 * args.minutes / (time.perf_counter() - began))


def learned(method, sigma, args):
    """Fit our denoiser, and judge it."""
    images = [image.astype(np.float32) / 255 for image in photographs()]
    rng = np.random.default_rng(0)
    level = (0.0, 55 / 255) if method == "range" else sigma / 255
    shared = {"level": level, "width": args.width, "device": args.device, "random_state": 0}
    if method == "noisy":
        shared |= {"learn_from": "noisy"}
        images = [image + rng.normal(0, sigma / 255, image.shape).astype(np.float32) for image in images]
    steps = steps_for(images, shared, args)
    began = time.perf_counter()
    denoiser = Denoiser(max_steps=steps, max_time=60 * args.minutes, **shared).fit(images)
    row = {"minutes": args.minutes, "threads": args.threads, "device": args.device, "steps": steps, "width": args.width}
    row["fit seconds"] = time.perf_counter() - began
    clock = np.cumsum([epoch["seconds"] for epoch in denoiser.history_.rows])
    errors = [epoch["val_squared error"] * 2 * SPREAD**2 / SIDE**2 for epoch in denoiser.history_.rows]
    row["curve"] = [[float(t), float(-10 * np.log10(e))] for t, e in zip(clock, errors, strict=True)]
    for name in SETS:
        _, clean, noisy = judged(name, sigma)
        began = time.perf_counter()
        restored = denoiser.transform(noisy)
        row[f"{name} seconds"] = time.perf_counter() - began
        row[name] = float(np.mean([distance(a, b) for a, b in zip(clean, restored, strict=True)]))
        row[f"{name} noisy"] = float(np.mean([psnr(a, b * 255, 255) for a, b in zip(clean, noisy, strict=True)]))
    where = "" if args.device in ("auto", "cpu") else f" on {args.device}"
    keep(f"{method} | sigma {sigma:g} | {args.minutes:g} minutes{where}", row)


def shipped(sigma, args):
    """Judge the denoisers that come with Diabolo: of grey photographs, and of colours on Kodak's."""
    row = {"threads": args.threads}
    for name in SETS:
        _, clean, noisy = judged(name, sigma)
        row[name] = by_shipped(1, clean, [image * 255 for image in noisy])
    clean = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((DATA / "kodak").glob("*.png"))]
    rng = np.random.default_rng(1)
    row["Kodak, colour"] = by_shipped(3, clean, [image + rng.normal(0, sigma, image.shape) for image in clean])
    keep(f"shipped | sigma {sigma:g}", row)


def by_shipped(channels, clean, noisy):
    pixels = [np.rint(image.clip(0, 255)).astype(np.uint8) for image in noisy]
    restored = photo_denoiser(channels).transform(pixels)
    return float(np.mean([psnr(a, b, 255) for a, b in zip(clean, restored, strict=True)]))


def run_peer(home, script, *arguments):
    call = [PEERS / home / "bin" / "python", Path(__file__).parent / "peers" / script, *arguments]
    subprocess.run([str(c) for c in call], check=True, stdout=subprocess.DEVNULL)


def mnist(args):
    """Digits with noise of 0.5: ours, a median filter, and the tutorial's net."""
    with np.load(DATA.parent / "images" / "mnist.npz") as data:
        train, test = data["x_train"], data["x_test"]
    rng = np.random.default_rng(0)

    def noisy(images):
        return np.clip(images / 255 + 0.5 * rng.normal(size=images.shape), 0, 1).astype(np.float32)

    damaged_train, damaged = noisy(train), noisy(test)
    whole = (damaged * 255).round().astype(np.uint8)
    shared = {"level": 127.5, "device": args.device, "random_state": 0}
    steps = steps_for(train, shared, args)
    began = time.perf_counter()
    denoiser = Denoiser(max_steps=steps, max_time=60 * args.minutes, **shared).fit(train)
    fitted = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "given.npz", Path(folder) / "out.npz"
        np.savez(
            given,
            clean=(train / 255).astype(np.float32)[..., None],
            noisy=damaged_train[..., None],
            test=damaged[..., None],
        )
        run_peer("keras", "keras_denoiser.py", given, out, 60 * args.minutes)
        tutorial = dict(np.load(out))
        found = {
            "noisy": damaged,
            "median filter": None,
            "Keras tutorial": tutorial["restored"],
            "diabolo": denoiser.transform(whole).astype(np.float32) / 255,
        }
        np.savez(given, **{str(i): image for i, image in enumerate(damaged)})
        run_peer("skimage", "pictures.py", "median", given, out, 0)
        with np.load(out) as filtered:
            found["median filter"] = np.stack([filtered[str(i)] for i in range(len(damaged))])
        row = {"minutes": args.minutes, "threads": args.threads, "device": args.device, "fit seconds": fitted}
        row |= {"Keras seconds": float(tutorial["seconds"]), "Keras steps": int(tutorial["steps"]), "steps": steps}
        clean = (test / 255).astype(np.float32)
        for name, images in found.items():
            np.savez(given, clean=clean, other=images)
            run_peer("skimage", "pictures.py", "similarity", given, out, 0)
            row[f"{name} SSIM"] = float(np.load(out)["mean"])
            row[f"{name} PSNR"] = float(np.mean([psnr(a, b, 1) for a, b in zip(clean, images, strict=True)]))
    keep(f"MNIST | {args.minutes:g} minutes", row)


def levels():
    """Return the error of the estimated level of noise."""
    row = {}
    for sigma in (0, 5, 15, 25, 50):
        _, _, noisy = judged("BSD68", sigma)
        off = Denoiser.estimate_noise([image * 255 for image in noisy]) - sigma
        row[f"{sigma}"] = float(np.sqrt(np.square(off).mean()))
    keep("estimated level", row)


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sigma", type=float, nargs="+", default=[15, 25, 50])
    parser.add_argument("--methods", nargs="+", default=["clean", "noisy", "range", "shipped", *HOMES])
    parser.add_argument("--steps", type=int, help="of learning, where they are not to be found out")
    parser.add_argument("--width", type=int, default=48, help="channels of our network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--stop", type=float, default=float("inf"))
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--levels", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.mnist:
        mnist(args)
    if args.levels:
        levels()
    if args.mnist or args.levels:
        return
    until = time.perf_counter() + args.stop
    for method in args.methods:
        for sigma in args.sigma:
            if method in HOMES:
                untrained(method, sigma, until)
            elif method == "shipped":
                shipped(sigma, args)
            else:
                learned(method, sigma, args)


if __name__ == "__main__":
    main()
