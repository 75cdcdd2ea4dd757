"""The commands that compress image files and tables, and bring them back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Quiet

__all__ = ["compress", "decompress"]

SUFFIX, MODEL = ".dbl", ".model"
LEARNED = 1_000_000  # rows that are learned from at most
SMALL = 200_000_000  # bytes for which it is said what bz2 makes of them

Output = Annotated[
    Path, Parameter(name=["--output", "-o"], help="The file to write, or the folder where a folder is worked through.")
]
Model = Annotated[
    Path | None,
    Parameter(help="Folder of a compressor; of images by default the one that comes with Diabolo.", show_default=False),
]


def compress(
    source: Annotated[
        Path,
        Parameter(
            help="An image or a folder of images; a table (.csv, .tsv, .parquet, .npy) or a folder of its parts."
        ),
    ],
    /,
    *,
    output: Output,
    quality: Annotated[
        int | None, Parameter(help="Of images, from 0 to 100. [default: 50]", show_default=False)
    ] = None,
    bits_per_pixel: Annotated[
        float | None, Parameter(help="Instead of a quality: what an image may cost.", show_default=False)
    ] = None,
    model: Model = None,
    learn_from: Annotated[
        Path | None,
        Parameter(help="Images or rows to learn from; the compressor goes to --save.", show_default=False),
    ] = None,
    save: Annotated[Path | None, Parameter(help="Folder to keep that compressor in.", show_default=False)] = None,
    max_error: Annotated[
        float | None, Parameter(help="How far floating-point numbers of tables may be off.", show_default=False)
    ] = None,
    steps: Annotated[int, Parameter(help="Steps of learning.")] = 3000,
    seed: Annotated[int | None, Parameter(help="Seed of learning.", show_default=False)] = None,
    quiet: Quiet = False,
) -> int:
    """Compress images to files, one for each; or a table to one file, without loss.

    Without --model and --learn-from a table is learned from itself, and the compressor, which is needed to read the file, goes to
    --save, or beside the file. Files of a folder of images that cannot be read are named, and the others are compressed.
    """
    from diabolo.cli.rows import list_tables

    if learn_from is not None and (save is None or model is not None):
        raise UsageError(
            "--learn-from and --save go together, without --model: files can be read by the model alone that wrote them"
        )
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    files = list_tables(source)
    learning = {"max_steps": steps, "random_state": seed, "verbose": 0 if quiet else 1}
    if files:
        if quality is not None or bits_per_pixel is not None:
            raise UsageError("--quality and --bits-per-pixel are for images; a table loses nothing, or --max-error")
        _compress_rows(files, output, model, learn_from, save, {"max_error": max_error, **learning}, quiet)
        return 0
    if max_error is not None:
        raise UsageError("--max-error is for tables; images have --quality or --bits-per-pixel")
    return _compress_images(source, output, quality, bits_per_pixel, model, learn_from, save, learning, quiet)


def _compress_images(
    source: Path,
    output: Path,
    quality: int | None,
    bits_per_pixel: float | None,
    model: Path | None,
    learn_from: Path | None,
    save: Path | None,
    learning: dict[str, Any],
    quiet: bool,
) -> int:
    import diabolo
    from diabolo.cli.data import say
    from diabolo.cli.pictures import each, list_pictures, read_alike, read_picture

    if save is not None and learn_from is None:
        raise UsageError("--save keeps what was learned of images; say from which with --learn-from")
    files = list_pictures(source)
    targets = _targets(source, files, output, SUFFIX)
    if learn_from is not None and save is not None:
        learned, _ = read_alike(list_pictures(learn_from))
        compressor = diabolo.Compressor(**learning).fit([_colour(image) for image in learned])
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

    failed = each(files, targets, work, quiet=quiet)
    if not quiet and pixels:
        say(f"{len(files) - failed} image(s), {size:,} bytes, {8 * size / pixels:.3f} bits per pixel")
    return 1 if failed else 0


def _compress_rows(
    files: list[Path],
    output: Path,
    model: Path | None,
    learn_from: Path | None,
    save: Path | None,
    learning: dict[str, Any],
    quiet: bool,
) -> None:
    import diabolo
    from diabolo.cli.data import say
    from diabolo.cli.output import check_place
    from diabolo.cli.rows import SUFFIXES, blocks_of, list_tables, sample_of

    check_place(output)
    beside = output.with_suffix(MODEL)
    if model is not None and model.exists():
        if save is not None:
            raise UsageError("--model is used as it was fitted; leave out --save")
        compressor, folder = _model(model, rows=True), model
    else:
        folder = save or model or beside
        known = files if learn_from is None else list_tables(learn_from)
        if not known:
            raise ValueError(f"{learn_from} is no table; expected {', '.join(SUFFIXES)}")
        rows = sample_of(known, LEARNED)
        if not quiet:
            say(f"learning from {len(rows):,} rows")
        compressor = diabolo.Compressor(lossless=getattr(rows, "ndim", 2) == 3, **learning).fit(rows)
        compressor.save(folder)
    size = compressor.compress(blocks_of(files), output)
    if quiet:
        return
    of_model = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    before = sum(path.stat().st_size for path in files)
    told = f"{size:,} bytes, and {of_model:,} of the model in {folder}, which is needed to read it: {size + of_model:,} together"
    say(f"{told}; before {before:,}" + (f", bz2 makes {_by_bz2(files):,} of them" if before <= SMALL else ""))


def _by_bz2(files: list[Path]) -> int:
    import bz2

    return sum(len(bz2.compress(path.read_bytes())) for path in files)


def decompress(
    source: Annotated[Path, Parameter(help="A compressed file, or a folder of them.")],
    /,
    *,
    output: Output,
    model: Model = None,
    rows: Annotated[
        str | None,
        Parameter(help="Of a table: which rows, as 7, 100:200 or -5:, counted from 0.", show_default=False),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Bring images or tables back from compressed files.

    A table goes to .csv, .parquet or .npy; its compressor is taken from beside the file where --model says nothing. Files of a
    folder that cannot be read are named, and the others are brought back, as PNG.
    """
    from diabolo.cli.data import say
    from diabolo.cli.pictures import each, write_picture

    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    files = sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else [source]
    if not files:
        raise ValueError(f"{source} has no compressed file; expected names ending in {SUFFIX}")
    if len(files) == 1 and _holds_rows(files[0]):
        n = _decompress_rows(files[0], output, model, rows)
        if not quiet:
            say(f"{n:,} row(s)")
        return 0
    if rows is not None:
        raise UsageError(f"--rows is for a file of a table; {source} holds images")
    targets = _targets(source, files, output, ".png")
    compressor = _model(model)

    def work(path: Path, target: Path) -> None:
        if _holds_rows(path):
            raise ValueError(f"{path} holds a table; decompress it by itself")
        images = compressor.decompress(path)
        if len(images) != 1:
            raise ValueError(f"{path} holds {len(images)} images; decompress it in Python")
        write_picture(target, images[0], None)

    failed = each(files, targets, work, quiet=quiet)
    if not quiet:
        say(f"{len(files) - failed} image(s)")
    return 1 if failed else 0


def _holds_rows(path: Path) -> bool:
    from diabolo.tasks.container import ContainerReader
    from diabolo.tasks.row_codes import KINDS

    with ContainerReader(path) as file:
        return file.kind in KINDS


def _decompress_rows(source: Path, output: Path, model: Path | None, rows: str | None) -> int:
    from diabolo.cli.output import check_place
    from diabolo.cli.rows import BLOCK, check_rows_output, write_rows_of

    check_rows_output(output)
    check_place(output)
    folder = model or source.with_suffix(MODEL)
    if not folder.exists():
        raise UsageError(f"{source} holds a table; say with --model where the compressor is that wrote it")
    compressor = _model(folder, rows=True)
    wanted = _chosen(rows)

    def blocks() -> Iterator[Any]:
        if wanted is not None:
            yield compressor.decompress(source, items=wanted)
            return
        start = 0
        while len(block := compressor.decompress(source, items=slice(start, start + BLOCK))) or not start:
            yield block
            start += BLOCK

    return write_rows_of(output, blocks())


def _chosen(rows: str | None) -> slice | None:
    """Return which rows ``7``, ``100:200`` or ``-5:`` say."""
    if rows is None:
        return None
    first, colon, last = (part.strip() for part in rows.partition(":"))
    try:
        start = int(first) if first or not colon else None
        stop = int(last) if last else None
    except ValueError:
        raise UsageError(
            f"--rows {rows}: expected a number, or two with a colon between them, such as 100:200"
        ) from None
    if colon or start is None:
        return slice(start, stop)
    return slice(start, start + 1 or None)


def _model(folder: Path | None, *, rows: bool = False) -> Any:
    import diabolo
    from diabolo.pretrained import photo_compressor

    if folder is None:
        return photo_compressor()
    found = diabolo.load(folder)
    if not isinstance(found, diabolo.Compressor):
        raise UsageError(f"{folder} holds {type(found).__name__}; expected a Compressor")
    if hasattr(found, "channels_") == rows:
        what = ("images", "rows") if rows else ("rows without loss", "images")
        raise UsageError(f"{folder} holds a Compressor of {what[0]}; expected one of {what[1]}")
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


def _colour(pixels: Any) -> Any:
    import numpy as np

    eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2) if eight.ndim == 2 else eight
