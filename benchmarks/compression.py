"""Photographs in files: bytes and errors of our compressor beside JPEG, WebP, JPEG 2000 and AVIF.

    python benchmarks/compression.py [--images 24] [--model LABEL FOLDER]... [--compressai FOLDER]

The 24 photographs of Kodak (DIABOLO_BENCH_DATA, default ../shared/data, folder denoise/kodak), 768 x 512 in colour, a file
each, all of its bytes counted. Mean bits per pixel and mean PSNR over colours at several settings of each codec; the rate
against JPEG is the mean difference of the logarithm of the rate at equal PSNR (Bjontegaard), by monotone cubics through the
means, over what both reach. Pillow's codecs: JPEG with optimised tables, WebP with method 6, JPEG 2000 with the 9/7 wavelet and
the transform of colours, AVIF at speed 6. "photo_compressor" is what comes with Diabolo; --model
judges another (``benchmarks/pretrain.py --target`` makes it). --compressai is a folder of weights of CompressAI's factorised
model, learned by ``benchmarks/peers/compressai_codec.py`` for several weights of the error; the peer's own range coder writes
($DIABOLO_PEERS/compressai). Wall seconds on two threads. Results go to benchmarks/results/compression.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator

import diabolo
from diabolo.metrics import psnr
from diabolo.pretrained import photo_compressor

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data")) / "denoise" / "kodak"
OTHERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "compression.json"
PEERS = {
    "JPEG": [{"format": "JPEG", "quality": q, "optimize": True} for q in (5, 8, 12, 20, 30, 45, 60, 75, 85, 90)],
    "WebP": [{"format": "WEBP", "quality": q, "method": 6} for q in (2, 10, 25, 45, 65, 80, 90)],
    "JPEG 2000": [
        {"format": "JPEG2000", "irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": [r]}
        for r in (200, 120, 70, 40, 25, 16)
    ],
    "AVIF": [{"format": "AVIF", "quality": q, "speed": 6} for q in (5, 20, 35, 50, 65, 80)],
}


def by_pillow(images, options):
    """Return bits per pixel and PSNR of each image, and seconds to write and to read."""
    rows = []
    for image in images:
        buffer, began = io.BytesIO(), time.perf_counter()
        Image.fromarray(image).save(buffer, **options)
        written = time.perf_counter()
        back = np.asarray(Image.open(buffer).convert("RGB"))
        rows.append((len(buffer.getvalue()), psnr(image, back, 255), written - began, time.perf_counter() - written))
    return rows


def by_compressor(compressor, images, quality):
    """Return the same of ours."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.dbl"
        for image in images:
            began = time.perf_counter()
            size = compressor.compress([image], path, quality=quality)
            written = time.perf_counter()
            (back,) = compressor.decompress(path)
            rows.append((size, psnr(image, back, 255), written - began, time.perf_counter() - written))
    return rows


def by_compressai(weights):
    """Return the same of CompressAI's factorised model."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        python = OTHERS / "compressai" / "bin" / "python"
        script = Path(__file__).parent / "peers" / "compressai_codec.py"
        subprocess.run([python, script, "judge", weights, DATA, out], check=True)
        return json.loads(out.read_text())


def point(images, rows):
    """Return means over the images."""
    rates = [8 * row[0] / image[..., 0].size for image, row in zip(images, rows, strict=True)]
    return {
        "bits per pixel": float(np.mean(rates)),
        "PSNR": float(np.mean([row[1] for row in rows])),
        "seconds to write": float(np.median([row[2] for row in rows])),
        "seconds to read": float(np.median([row[3] for row in rows])),
    }


def difference(curve, other):
    """Return the mean relative difference of the rate of a curve from another's at equal PSNR; of one point that of it."""
    found = []
    for points in (curve, other):
        points = sorted(points, key=lambda p: p["PSNR"])
        found.append(([p["PSNR"] for p in points], [np.log(p["bits per pixel"]) for p in points]))
    (x, ours), (there, theirs) = found
    reference = PchipInterpolator(there, theirs)
    if len(x) == 1:
        return float(np.exp(ours[0] - reference(x[0])) - 1)
    grid = np.linspace(max(x[0], there[0]), min(x[-1], there[-1]), 500)
    return float(np.exp(np.mean(PchipInterpolator(x, ours)(grid) - reference(grid))) - 1)


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--model", nargs=2, action="append", default=[], metavar=("LABEL", "FOLDER"))
    parser.add_argument("--compressai", type=Path)
    args = parser.parse_args()
    paths = sorted(DATA.glob("*.png"))[: args.images]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    results = {name: [point(images, by_pillow(images, o)) for o in options] for name, options in PEERS.items()}
    models = {"photo_compressor": photo_compressor()}
    models |= {label: diabolo.load(folder) for label, folder in args.model}
    for name, model in models.items():
        results[name] = [point(images, by_compressor(model, images, q)) for q in (0, 20, 40, 60, 80, 100)]
    if args.compressai is not None:
        weights = sorted(args.compressai.glob("*.pt"))
        results["CompressAI, factorised"] = [point(images, by_compressai(path)) for path in weights]
    summary = {name: difference(curve, results["JPEG"]) for name, curve in results.items()}
    for name, value in summary.items():
        last = results[name][len(results[name]) // 2]
        print(
            f"{name:24s} rate against JPEG {value:+.1%}   {last['seconds to write']:.2f} s, {last['seconds to read']:.2f} s"
        )
    RESULTS.write_text(
        json.dumps({"images": len(images), "rate against JPEG": summary, "curves": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
