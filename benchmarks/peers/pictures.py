"""Denoising and inpainting without learning, by other packages: python pictures.py METHOD GIVEN.npz OUT.npz SIGMA

GIVEN has images ``0``, ``1``, ... ``(height, width)`` from 0 to 1 and, to be filled, their masks ``mask0``, ``mask1``, ...; OUT
has the images without noise of standard deviation SIGMA, or with what the masks hide filled, and the seconds for all. Non-local
means and wavelets are scikit-image's with the settings of its own gallery, and know SIGMA as bm3d does. METHOD similarity writes
the mean SSIM of the images ``clean`` and ``other`` ``(n, height, width)``.
"""

import sys
import time

import numpy as np


def bm3d(noisy, sigma):
    import bm3d as package

    return package.bm3d(noisy, sigma)


def nonlocal_means(noisy, sigma):
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(noisy, h=0.6 * sigma, sigma=sigma, patch_size=5, patch_distance=6, fast_mode=False)


def wavelets(noisy, sigma):
    from skimage.restoration import denoise_wavelet

    return denoise_wavelet(noisy, sigma=sigma, method="BayesShrink", mode="soft", rescale_sigma=True)


def median(noisy, sigma):
    from skimage.filters import median as smoothed
    from skimage.morphology import footprint_rectangle

    return smoothed(noisy, footprint_rectangle((3, 3)))


def biharmonic(image, mask):
    from skimage.restoration import inpaint_biharmonic

    return inpaint_biharmonic(np.where(mask, 0, image), mask)


def similarity(given, out):
    from skimage.metrics import structural_similarity

    pairs = zip(given["clean"], given["other"], strict=True)
    np.savez(out, mean=np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]))


def main():
    if sys.argv[1] == "similarity":
        similarity(np.load(sys.argv[2]), sys.argv[3])
        return
    method, given, out, sigma = globals()[sys.argv[1]], np.load(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    images = [given[str(i)] for i in range(sum(name.isdigit() for name in given.files))]
    masks = [given[f"mask{i}"] for i in range(len(images))] if "mask0" in given.files else None
    began = time.perf_counter()
    if masks is None:
        done = [method(image, sigma) for image in images]
    else:
        done = [method(image, mask) for image, mask in zip(images, masks, strict=True)]
    seconds = time.perf_counter() - began
    np.savez(out, seconds=seconds, **{str(i): image.astype(np.float32) for i, image in enumerate(done)})


if __name__ == "__main__":
    main()
