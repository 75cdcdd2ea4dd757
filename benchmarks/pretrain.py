"""Make the models that come with Diabolo, from openly licensed photographs.

    python benchmarks/pretrain.py [--minutes 60] [--photos FOLDER]

Needs Debian's apt-get and dpkg to fetch the photographs: those of the packages mate-backgrounds, lomiri-wallpapers-16.04,
lomiri-wallpapers-20.04, palapeli-data and plasma-workspace-wallpapers (their copyright files name the authors; CC BY, CC BY-SA,
CC0 and GPL), of scikit-image (public domain and CC0) and of scikit-learn (CC BY). They are halved in size or more, so that no
traces of their own compression are left, and the larger ones once more. --photos uses a folder of your own instead.

The models go to src/diabolo/pretrained. The one that is there was learned in 6,163 steps of 32 patches, 210 seconds on a GPU
(H100) that two other jobs shared; without a GPU as many steps take hours.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from diabolo import Compressor

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


def main():
    """Learn and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--photos", type=Path)
    args = parser.parse_args()
    if args.photos is None:
        images = photographs()
    else:
        images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(args.photos.iterdir())]
    shared = {"batch_size": 32, "random_state": 0, "verbose": 1}
    began = time.perf_counter()
    Compressor(patches=1024, max_steps=32, **shared).fit(images)
    began, steps = time.perf_counter(), 64
    Compressor(patches=1024, max_steps=steps, **shared).fit(images)
    steps = int(steps * args.minutes * 60 / (time.perf_counter() - began))
    print(f"{len(images)} photographs, {steps} steps")
    Compressor(patches=12_800, max_steps=steps, **shared).fit(images).save(TARGET / "photo_compressor")


if __name__ == "__main__":
    main()
