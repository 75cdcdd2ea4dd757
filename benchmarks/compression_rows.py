"""Tables and small images without loss, in bytes of files.

    python benchmarks/compression_rows.py [--parts adult credit binarised grey colour] [--seconds 300] [--render]

A ``Compressor`` learns from the rows that it compresses (tables: Adult's training rows, which then serve for its test
rows too, and credit card clients) or from others (MNIST: all training images; the 10,000 test images are compressed
together; the first 3,500 of 4,000 images of CIFAR-10, and the last 500), for at most ``--seconds`` each. Adult's test
rows are compressed as they are, too: their labels end in a full stop, which no label of fit does. Bytes are those of
the file; those of the model folder, which a reader needs once, stand beside them. In the same run: xz, bz2, zstd and
Parquet of the same rows, and for images bz2, xz, zstd and one sheet of WebP. Each file is read back and compared with
what went in. Data are read from the folder named by DIABOLO_BENCH_DATA (default ../shared/data). Results go to
benchmarks/results/compression_rows.json, and with ``--render`` from there to docs/compression.md.
"""

from __future__ import annotations

import argparse
import bz2
import io
import json
import lzma
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from diabolo import Compressor

DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "compression_rows.json"
PAGE = Path(__file__).parent.parent / "docs" / "compression.md"
NAMES = {
    "adult": "Adult, the table that was learned",
    "credit": "Credit card clients, the table that was learned",
    "binarised": "MNIST in black and white",
    "grey": "MNIST in grey",
    "colour": "CIFAR-10",
}


def adult(part="train", *, raw=False):
    frame = pd.read_csv(DATA / f"tables/adult-{part}.csv.gz", header=None, skipinitialspace=True, na_values="?")
    if not raw:
        frame[14] = frame[14].str.rstrip(".")  # which labels of the test rows alone end with
    return frame.rename(columns="c{}".format)


def credit():
    return pd.read_csv(DATA / "tables/credit_default.csv.gz")


def table_peers(frame):
    text = frame.to_csv(index=False).encode()
    sizes = {"CSV": len(text), "xz of CSV": len(lzma.compress(text, preset=9)), "bz2 of CSV": len(bz2.compress(text))}
    sizes["zstd 19 of CSV"] = pa.Codec("zstd", 19).compress(text).size
    for codec, level in (("zstd", 19), ("snappy", None)):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(frame), file, compression=codec, compression_level=level)
        sizes[f"Parquet, {codec}"] = file.tell()
    return sizes


def image_peers(images):
    packed = np.packbits(images, axis=None).tobytes() if images.max() == 1 else images.tobytes()
    side, rest = images.shape[1], images.shape[3:]
    sizes = {"bz2": len(bz2.compress(packed)), "xz": len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))}
    sizes["zstd 19"] = pa.Codec("zstd", 19).compress(packed).size
    sheet = images.reshape(-1, 100, side, side, *rest).swapaxes(1, 2).reshape(-1, 100 * side, *rest)
    file = io.BytesIO()
    Image.fromarray(sheet * (255 if images.max() == 1 else 1)).save(file, "webp", lossless=True, quality=100, method=6)
    sizes["one WebP sheet"] = file.tell()
    return {name: {"bytes": size, "bits per pixel": size * 8 / images.size} for name, size in sizes.items()}


def measured(model, learned, rows, same):
    began = time.perf_counter()
    model.fit(learned)
    fit = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.dbl"
        began = time.perf_counter()
        size = model.compress(rows, path)
        written = time.perf_counter() - began
        began = time.perf_counter()
        back = model.decompress(path)
        read = time.perf_counter() - began
        model.save(Path(folder) / "model")
        folder_size = sum(f.stat().st_size for f in (Path(folder) / "model").rglob("*") if f.is_file())
    if not same(back, rows):
        raise SystemExit("what came back is not what went in")
    out = {"bytes": size, "model folder": folder_size, "fit": fit, "compress": written, "decompress": read}
    return out | {"stopped": model.history_.stop_reason, "epochs": len(model.history_)}


def len_of(model, rows):
    with tempfile.TemporaryDirectory() as folder:
        size = model.compress(rows, Path(folder) / "rows.dbl")
        if not model.decompress(Path(folder) / "rows.dbl").equals(rows):
            raise SystemExit("what came back is not what went in")
    return size


def pictures(part):
    """Return images to learn from, and others to compress."""
    if part == "colour":
        with np.load(DATA / "images/cifar10_first4000.npz") as file:
            return file["images"][:3500], file["images"][3500:]
    if part == "binarised":
        with np.load(DATA / "images/binarized_mnist.npz") as file:
            parts = {k: np.unpackbits(file[k], axis=1)[:, :784].reshape(-1, 28, 28) for k in file.files}
        test = parts.pop("test")
        return np.concatenate(list(parts.values())), test
    with np.load(DATA / "images/mnist.npz") as file:
        return file["x_train"], file["x_test"]


def run(part, seconds):
    options = {"max_time": seconds, "random_state": 0}
    if part in ("adult", "credit"):
        frame = {"adult": adult, "credit": credit}[part]()
        model = Compressor(**options)
        ours = measured(model, frame, frame, lambda a, b: a.equals(b))
        found = {"rows": len(frame), "columns": frame.shape[1], "peers": table_peers(frame), "Compressor": ours}
        if part == "adult":
            new = adult("test")
            found["new rows"] = {"rows": len(new), "peers": table_peers(new), "Compressor": len_of(model, new)}
            raw = adult("test", raw=True)
            found["labels spelt otherwise"] = {"peers": table_peers(raw), "Compressor": len_of(model, raw)}
        return found
    learned, test = pictures(part)
    steps = {"binarised": 2.5, "grey": 1.6, "colour": 4}[part] * seconds
    options |= {"lossless": True, "max_steps": max(100, int(steps)), "batch_size": 128}
    ours = measured(Compressor(**options), learned, test, np.array_equal)
    return {"peers": image_peers(test), "Compressor": ours | {"bits per pixel": ours["bytes"] * 8 / test.size}}


def page(results):
    """Return the page of the results."""
    parts = [
        "# Tables and small images without loss",
        "Written by `python benchmarks/compression_rows.py --render` from "
        "[compression_rows.json](../benchmarks/results/compression_rows.json); the script says what is measured, and how. Bytes "
        "are those of files. A file of `Compressor` needs the model folder that wrote it, whose bytes stand beside: they count "
        "once, for all files of the model.",
    ]
    for part, found in results.items():
        ours, rows = found["Compressor"], []
        name = f"**`Compressor`**, at most {found['seconds allowed']:g} seconds of learning"
        pixels = "bits per pixel" in ours
        if pixels:
            rows.append([name, f"{ours['bytes']:,}", f"{ours['bits per pixel']:.3f}", f"{ours['model folder']:,}"])
            rows += [[k, f"{v['bytes']:,}", f"{v['bits per pixel']:.3f}", ""] for k, v in found["peers"].items()]
        else:
            together = ours["bytes"] + ours["model folder"]
            rows.append([name, f"{ours['bytes']:,}", f"{ours['model folder']:,}", f"{together:,}"])
            rows += [[k, f"{v:,}", "", f"{v:,}"] for k, v in found["peers"].items()]
        head = ["", "file", "bits per number", "model"] if pixels else ["", "file", "model", "together"]
        parts += [f"## {NAMES[part]}", table(head, rows)]
        parts.append(
            f"Learned in {ours['fit']:.0f} seconds, written in {ours['compress']:.1f}, read in {ours['decompress']:.1f}."
        )
        for what in ("new rows", "labels spelt otherwise"):
            if what in found:
                more = found[what]
                peers = ", ".join(f"{k} {v:,}" for k, v in more["peers"].items() if k != "CSV")
                parts.append(f"16,281 rows that it did not see, {what}: {more['Compressor']:,} bytes; {peers}.")
    return "\n\n".join(parts) + "\n"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--render", action="store_true", help="write the page and measure nothing")
    arguments = parser.parse_args()
    for name in [] if arguments.render else arguments.parts:
        found = run(name, arguments.seconds) | {"seconds allowed": arguments.seconds}
        results = (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {name: found}
        print(name, json.dumps(results[name], indent=1))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.render:
        PAGE.write_text(page(json.loads(RESULTS.read_text())))
