"""Writes docs/pictures.md from the results of denoise.py and restore.py: python benchmarks/pictures_page.py."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "pictures.md"
NAMES = {
    "clean": "`Denoiser(level=sigma / 255)`",
    "range": "`Denoiser(level=(0, 55 / 255))`",
    "shipped": "`photo_denoiser(channels=1)`, 8 bits, any level up to 50",
    "noisy": '`Denoiser(learn_from="noisy")`',
    "bm3d": "bm3d",
    "nonlocal_means": "non-local means",
    "wavelets": "wavelets",
    "median": "median filter",
}
PUBLISHED = {
    "DnCNN, published": {"BSD68": (31.73, 29.23, 26.23), "Set12": (32.86, 30.44, 27.18)},
    "BM3D, published": {"BSD68": (31.07, 28.57, 25.62), "Set12": (32.37, 29.97, 26.72)},
    "Noise2Void (noisy images alone), published": {"BSD68": (None, 27.71, None)},
}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def figure(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def denoising(kept):
    """Return the rows of one table: methods by sets and levels."""
    found = {}
    for key, row in kept.items():
        method, *rest = key.split(" | ")
        if not rest or not rest[0].startswith("sigma"):
            continue
        learned = f", {row['minutes']:g} minutes on {row['threads']} thread(s)" if "minutes" in row else ""
        if row.get("device", "auto") == "cuda":
            learned = f", {row['minutes']:g} minutes on a GPU"
        own = found.setdefault(NAMES[method] + learned, {})
        own[rest[0].removeprefix("sigma ")] = row
    rows = [
        [name, *(figure(own.get(s, {}).get(which)) for which in ("BSD68", "Set12") for s in ("15", "25", "50"))]
        for name, own in found.items()
    ]
    for name, sets in PUBLISHED.items():
        rows.append([name, *(figure(v) for which in ("BSD68", "Set12") for v in sets.get(which, (None,) * 3))])
    return table(["", *(f"{which}, {s}" for which in ("BSD68", "Set12") for s in (15, 25, 50))], rows)


def curves(kept):
    """Return the rows of PSNR by time."""
    rows = []
    for key, row in kept.items():
        for seconds, value in row.get("curve", []):
            rows.append([key.split(" minutes")[0].replace(" | ", ", "), f"{seconds:.0f}", figure(value)])
    return table(["run, minutes", "seconds", "PSNR of held-out patches"], rows) if rows else ""


def digits(kept):
    for key, row in kept.items():
        if key.startswith("MNIST"):
            names = [name.removesuffix(" PSNR") for name in row if name.endswith(" PSNR")]
            rows = [[name, figure(row[f"{name} PSNR"]), figure(row[f"{name} SSIM"], 3)] for name in names]
            yield f"{row['minutes']:g} minute(s) of learning for each, one thread:\n\n" + table(
                ["", "PSNR", "SSIM"], rows
            )


def estimated(row):
    errors = ", ".join(f"{sigma}: {value:.2f}" for sigma, value in row.items())
    return f"## The level of noise\n\nRoot mean square error of `Denoiser.estimate_noise` on BSD68, by level: {errors}."


def holes(kept):
    names = ["half of the pixels", "lines", "squares"]
    rows = [[key, *(figure(row.get(name)) for name in names)] for key, row in kept.items()]
    text = table(["", *names], rows)
    for key, row in kept.items():
        if "white lines found" in row:
            text += (
                f"\n\nWithout a mask, `{key}` finds {row['white lines found']:.0%} of the pixels of white lines and "
                f"{row['black lines found']:.0%} of those of black ones; of what it finds, {row['white right']:.0%} and "
                f"{row['black right']:.0%} are on a line or beside one."
            )
    return text


def main():
    """Write the page."""
    kept = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("denoise", "restore")}
    parts = [
        "# Pictures cleaned and restored",
        "Written by `python benchmarks/pictures_page.py` from [denoise.json](../benchmarks/results/denoise.json) and "
        "[restore.json](../benchmarks/results/restore.json); `benchmarks/denoise.py` and `benchmarks/restore.py` say what is "
        "measured, and how. Empty cells were not measured.",
        "## Noise in grey photographs\n\nMean PSNR by set and standard deviation of the noise. The others are told it; ours "
        "learned it, or a range.",
        denoising(kept["denoise"]),
        curves(kept["denoise"]),
        *(f"## Digits with noise of 0.5\n\n{text}" for text in digits(kept["denoise"])),
        estimated(kept["denoise"].get("estimated level", {})),
        "## Holes\n\nPSNR of the pixels in holes alone, mean over Set12.",
        holes(kept["restore"]),
    ]
    PAGE.write_text("\n\n".join(part for part in parts if part) + "\n")


if __name__ == "__main__":
    main()
