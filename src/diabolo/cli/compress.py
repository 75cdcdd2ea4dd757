"""The commands that compress image files, and bring them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Quiet

__all__ = ["compress", "decompress"]

SUFFIX = ".dbl"

Output = Annotated[
    Path, Parameter(name=["--output", "-o"], help="The file to write, or the folder where a folder is worked through.")
]
Model = Annotated[
    Path | None,
    Parameter(
        help="Folder of a compressor; by default the one of photographs that comes with Diabolo.", show_default=False
    ),
]


def compress(
    source: Annotated[Path, Parameter(help="An image, or a folder of images.")],
    /,
    *,
    output: Output,
    quality: Annotated[int, Parameter(help="From 0 to 100.")] = 50,
    bits_per_pixel: Annotated[
        float | None, Parameter(help="Instead of a quality: what an image may cost.", show_default=False)
    ] = None,
    model: Model = None,
    learn_from: Annotated[
        Path | None,
        Parameter(help="Folder of images to learn from; the compressor goes to --save.", show_default=False),
    ] = None,
    save: Annotated[Path | None, Parameter(help="Folder to keep that compressor in.", show_default=False)] = None,
    steps: Annotated[int, Parameter(help="Steps of learning.")] = 3000,
    seed: Annotated[int | None, Parameter(help="Seed of learning.", show_default=False)] = None,
    quiet: Quiet = False,
) -> int:
    """Compress images to files, one for each.

    Files of a folder that cannot be read are named, and the others are compressed.
    """
    import diabolo
    from diabolo.cli.data import say
    from diabolo.cli.pictures import list_pictures, read_picture

    if (learn_from is None) != (save is None):
        raise UsageError("--learn-from and --save go together: files can be read by the model alone that wrote them")
    if learn_from is not None and model is not None:
        raise UsageError("--model is used as it was fitted; leave out --learn-from and --save")
    files = list_pictures(source)
    targets = _targets(source, files, output, SUFFIX)
    if learn_from is not None and save is not None:
        learned = [_colour(read_picture(path).pixels) for path in list_pictures(learn_from)]
        compressor = diabolo.Compressor(max_steps=steps, random_state=seed, verbose=0 if quiet else 1).fit(learned)
        compressor.save(save)
    else:
        compressor = _model(model)
    pixels = size = 0

    def work(path: Path, target: Path) -> None:
        nonlocal pixels, size
        file = read_picture(path)
        if file.alpha is not None:
            raise ValueError(
                f"{path} is partly transparent, which a compressed file cannot hold; save it without first"
            )
        size += compressor.compress([file.pixels], target, quality=quality, bits_per_pixel=bits_per_pixel)
        pixels += file.pixels.shape[0] * file.pixels.shape[1]

    failed = _each(files, targets, work)
    if not quiet and pixels:
        say(f"{len(files) - failed} image(s), {size:,} bytes, {8 * size / pixels:.3f} bits per pixel")
    return 1 if failed else 0


def decompress(
    source: Annotated[Path, Parameter(help="A compressed file, or a folder of them.")],
    /,
    *,
    output: Output,
    model: Model = None,
    quiet: Quiet = False,
) -> int:
    """Bring images back from compressed files.

    Files of a folder that cannot be read are named, and the others are brought back, as PNG.
    """
    from diabolo.cli.data import say
    from diabolo.cli.pictures import write_picture

    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    files = sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else [source]
    if not files:
        raise ValueError(f"{source} has no compressed file; expected names ending in {SUFFIX}")
    targets = _targets(source, files, output, ".png")
    compressor = _model(model)

    def work(path: Path, target: Path) -> None:
        images = compressor.decompress(path)
        if len(images) != 1:
            raise ValueError(f"{path} holds {len(images)} images; decompress it in Python")
        write_picture(target, images[0], None)

    failed = _each(files, targets, work)
    if not quiet:
        say(f"{len(files) - failed} image(s)")
    return 1 if failed else 0


def _model(folder: Path | None) -> Any:
    import diabolo
    from diabolo.pretrained import photo_compressor

    if folder is None:
        return photo_compressor()
    found = diabolo.load(folder)
    if not isinstance(found, diabolo.Compressor):
        raise UsageError(f"{folder} holds {type(found).__name__}; expected a Compressor")
    if not hasattr(found, "channels_"):
        raise UsageError(f"{folder} holds a Compressor of rows without loss; use it in Python")
    return found


def _targets(source: Path, files: list[Path], output: Path, suffix: str) -> list[Path]:
    """Return where each result goes."""
    from diabolo.cli.output import check_place

    if not source.is_dir():
        check_place(output)
        return [output]
    if output.is_file():
        raise UsageError(f"--output {output} is a file; expected a folder for the files of {source}")
    check_place(output)
    output.mkdir(parents=True, exist_ok=True)
    targets = [output / (path.stem + suffix) for path in files]
    twice = sorted({t.name for t in targets if targets.count(t) > 1})
    if twice:
        raise ValueError(f"several files of {source} would become {twice[0]}; rename them")
    return targets


def _each(files: list[Path], targets: list[Path], work: Callable[[Path, Path], None]) -> int:
    """Work on each file; of several, name those that fail and go on. Return how many failed."""
    from diabolo.cli.data import say

    failed = 0
    for path, target in zip(files, targets, strict=True):
        try:
            work(path, target)
        except ValueError as error:
            if len(files) == 1:
                raise
            say(f"error: {error}")
            failed += 1
    return failed


def _colour(pixels: Any) -> Any:
    import numpy as np

    eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2) if eight.ndim == 2 else eight
