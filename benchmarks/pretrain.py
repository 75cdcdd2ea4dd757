"""Make the models that come with Diabolo, from openly licensed photographs.

    python benchmarks/pretrain.py [--models compressor denoiser denoiser_grey] [--minutes 60]
                                  [--photos FOLDER] [--device auto] [--batch 128] [--target FOLDER]

Needs Debian's apt-get and dpkg to fetch the photographs: those of the packages mate-backgrounds, lomiri-wallpapers-16.04,
lomiri-wallpapers-20.04, palapeli-data and plasma-workspace-wallpapers (their copyright files name the authors; CC BY, CC BY-SA,
CC0 and GPL), of scikit-image (public domain and CC0) and of scikit-learn (CC BY). They are halved in size or more, so that no
traces of their own compression are left, and the larger ones once more. --photos uses a folder of your own instead, and halves
nothing.

Each model learns for --minutes; a first short fit tells how many steps there is time for. They go to src/diabolo/pretrained
(or --target). Those that are there learned at the same time, on a GPU (H200) that some twenty other processes shared: the
compressor 6,100 steps of 128 patches in 366 seconds; the denoisers some 26,000 and 25,000 steps of 32 patches, before they were
interrupted, and then 591 and 742 more on a processor while the learning rate fell to 0.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from diabolo import Compressor, Denoiser

PATCHES = 12_800
TARGET = Path(__file__).parent.parent / "src" / "diabolo" / "pretrained"
PLASMA = "Autumn BytheWater ColdRipple ColorfulCups EveningGlow FallenLeaf Grey Kite OneStandsOut Path summer_1am"
WANTED = {
    "mate-backgrounds": ["usr/share/backgrounds/mate/nature/*.jpg"],
    "lomiri-wallpapers-16.04": ["usr/share/backgrounds/*.jpg"],
    "lomiri-wallpapers-20.04": ["usr/share/backgrounds/Kleiber*.jpg", "usr/share/backgrounds/Painting*.jpg"],
    "palapeli-data": ["usr/share/palapeli/collection/*.jpg"],
    "plasma-workspace-wallpapers": [
        f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg" for name in PLASMA.split()
    ],
}
SKIMAGE = ("astronaut", "motorcycle_left", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "ihc")


def smaller(image):
    """Return a photograph at 1.6 million pixels or fewer, and at a quarter of these where that is not small."""
    width, height = image.size
    factor = max(2.0, (width * height / 1.6e6) ** 0.5) if width * height > 2.2e6 else 1.5
    image = image.resize((round(width / factor), round(height / factor)), Image.Resampling.LANCZOS)
    found = [image]
    if min(image.size) > 900:
        found.append(image.resize((image.size[0] // 2, image.size[1] // 2), Image.Resampling.LANCZOS))
    return found


def photographs():
    """Fetch and return the photographs."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for package, patterns in WANTED.items():
            subprocess.run(["apt-get", "download", "-q", package], cwd=root, check=True)
            subprocess.run(["dpkg", "-x", str(next(root.glob(f"{package}_*.deb"))), str(root / package)], check=True)
            for pattern in patterns:
                for path in sorted((root / package).glob(pattern)):
                    if not path.is_symlink():
                        found += smaller(Image.open(path).convert("RGB"))
        subprocess.run(["pip", "download", "-q", "--no-deps", "scikit-image", "-d", folder], check=True)
        with zipfile.ZipFile(next(root.glob("scikit_image*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.startswith("skimage/data/") and Path(name).stem in SKIMAGE and not name.endswith(".npz"):
                    found.append(Image.open(io.BytesIO(wheel.read(name))).convert("RGB"))
    return [np.asarray(image) for image in found] + list(load_sample_images().images)


def compressor(images, steps, shared, batch=128):
    """Return the compressor, fitted."""
    return Compressor(patches=PATCHES, batch_size=batch, max_steps=steps, **shared).fit(images)


def denoiser(images, steps, shared):
    """Return the denoiser of colour photographs, fitted."""
    return Denoiser(level=(0.0, 50.0), width=64, max_steps=steps, **shared).fit(images)


def denoiser_grey(images, steps, shared):
    """Return the denoiser of grey photographs, fitted."""
    return denoiser([np.asarray(Image.fromarray(image).convert("L")) for image in images], steps, shared)


def main():
    """Learn and save."""
    makers = {f.__name__: f for f in (compressor, denoiser, denoiser_grey)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=makers, default=list(makers))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=128, help="patches of a step of the compressor")
    parser.add_argument("--target", type=Path, default=TARGET)
    args = parser.parse_args()
    if args.photos is None:
        images = photographs()
    else:
        images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(args.photos.iterdir())]
    shared = {"device": args.device, "random_state": 0}
    for name in args.models:
        make = partial(compressor, batch=args.batch) if name == "compressor" else makers[name]
        make(images[:4], 10, shared)
        began, tried = time.perf_counter(), 200
        make(images[:4], tried, shared)
        steps = int(tried * args.minutes * 60 / (time.perf_counter() - began))
        print(f"{name}: {len(images)} photographs, {steps} steps", flush=True)
        make(images, steps, {**shared, "verbose": 1}).save(args.target / f"photo_{name}")


if __name__ == "__main__":
    main()
