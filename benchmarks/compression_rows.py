"""Tables and small images without loss, in bytes of files.

    python benchmarks/compression_rows.py [--parts adult credit binarised grey] [--seconds 300]

A ``Compressor`` learns from the rows that it compresses (tables: Adult's training rows, which then serve for its test
rows too, and credit card clients) or from others (MNIST: all training images; the 10,000 test images are compressed
together), for at most ``--seconds`` each. Bytes are those of the file; those of the model folder, which a reader needs
once, stand beside them. In the same run: xz, bz2, zstd and Parquet of the same rows, and for images bz2, xz, zstd and
one sheet of WebP. Each file is read back and compared with what went in. Data are read from the folder named by
DIABOLO_BENCH_DATA (default ../shared/data). Results go to benchmarks/results/compression_rows.json.
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


def adult(part="train"):
    frame = pd.read_csv(DATA / f"tables/adult-{part}.csv.gz", header=None, skipinitialspace=True, na_values="?")
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
    sizes = {"bz2": len(bz2.compress(packed)), "xz": len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))}
    sizes["zstd 19"] = pa.Codec("zstd", 19).compress(packed).size
    sheet = images.reshape(100, 100, 28, 28).transpose(0, 2, 1, 3).reshape(2800, 2800)
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


def digits(binary):
    if binary:
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
        return found
    learned, test = digits(part == "binarised")
    options |= {"lossless": True, "max_steps": max(100, int(seconds * (2.5 if part == "binarised" else 1.6)))}
    options |= {"batch_size": 128, "learning_rate": 3e-3}
    ours = measured(Compressor(**options), learned, test, np.array_equal)
    return {"peers": image_peers(test), "Compressor": ours | {"bits per pixel": ours["bytes"] * 8 / test.size}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["adult", "credit", "binarised", "grey"])
    parser.add_argument("--seconds", type=float, default=300)
    arguments = parser.parse_args()
    for name in arguments.parts:
        found = run(name, arguments.seconds) | {"seconds allowed": arguments.seconds}
        results = (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {name: found}
        print(name, json.dumps(results[name], indent=1))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
