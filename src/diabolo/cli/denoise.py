"""The command that takes noise out of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diabolo.cli.pictures import PictureFile

__all__ = ["denoise"]


def denoise(
    source: Annotated[
        Path, Parameter(help="Folder of a denoiser that --save wrote; or an image, or a folder of images, to clean.")
    ],
    images: Annotated[
        Path | None, Parameter(help="The image or folder to clean, after a denoiser.", show_default=False)
    ] = None,
    /,
    *,
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="The image to write, or the folder where a folder is cleaned.")
    ],
    clean: Annotated[
        Path | None,
        Parameter(help="Folder of clean images to learn from, instead of the noisy ones.", show_default=False),
    ] = None,
    noise: Annotated[
        Literal["gaussian", "poisson", "salt_and_pepper"],
        Parameter(help="What is put on clean images to learn from."),
    ] = "gaussian",
    level: Annotated[
        float | None,
        Parameter(
            help="How much, in units of the pixels or as a share of them; a range of levels by default.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, Parameter(help="Steps of learning.")] = 2000,
    seed: Annotated[int | None, Parameter(help="Seed.", show_default=False)] = None,
    save: Annotated[
        Path | None, Parameter(help="Folder to keep the denoiser in, for other images.", show_default=False)
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Take noise out of images.

    Without --clean the denoiser learns from the noisy images themselves, which works where the noise of neighbouring pixels is
    independent: not after JPEG. Images keep size, type and transparency. Files of a folder that cannot be read are named, and
    the others are cleaned.
    """
    import diabolo
    from diabolo.cli.data import say
    from diabolo.cli.output import check_place
    from diabolo.cli.pictures import list_pictures, write_picture

    given = images if images is not None else source
    files = list_pictures(given)
    many = given.is_dir()
    if many and output.is_file():
        raise UsageError(f"--output {output} is a file; expected a folder for the images of {given}")
    check_place(output)
    read, failed = _read(files, alone=not many)
    if images is not None:
        if clean is not None or save is not None:
            raise UsageError(f"{source} is used as it was fitted; leave out --clean and --save")
        denoiser = diabolo.load(source)
        if not hasattr(denoiser, "module_"):
            raise UsageError(f"{source} holds no denoiser of images; diabolo denoise --save makes one")
    else:
        if (source / "config.json").exists():
            raise UsageError(f"{source} is a model: name the image or folder to clean after it")
        learned = _read(list_pictures(clean), alone=False)[0] if clean is not None else read
        denoiser = diabolo.Denoiser(
            noise=noise,
            level="auto" if level is None else level,
            learn_from="noisy" if clean is None else "clean",
            max_steps=steps,
            random_state=seed,
            verbose=0 if quiet else 1,
        )
        denoiser.fit(_alike([file.pixels for file in learned]))
        denoiser.set_params(verbose=0)
        if save is not None:
            denoiser.save(save)
    if many:
        output.mkdir(parents=True, exist_ok=True)
    for file in read:
        write_picture(output / file.path.name if many else output, _cleaned(denoiser, file.pixels), file.alpha)
    if not quiet:
        say(f"cleaned {len(read)} image(s)" + (f"; {failed} could not be read" if failed else ""))
    return 1 if failed else 0


def _read(files: list[Path], *, alone: bool) -> tuple[list[PictureFile], int]:
    """Read image files; of many those that cannot be read are named and counted."""
    from diabolo.cli.data import say
    from diabolo.cli.pictures import read_picture

    read, failed = [], 0
    for path in files:
        try:
            read.append(read_picture(path))
        except ValueError as error:
            if alone:
                raise
            say(f"error: {error}")
            failed += 1
    if not read:
        raise ValueError(f"none of {failed} images could be read")
    return read, failed


def _alike(pictures: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return images in one mode: in colour where any is, in 8 bits unless all have 16."""
    import numpy as np

    colour = any(p.ndim == 3 for p in pictures)
    deep = all(p.dtype == np.uint16 for p in pictures)
    eight = [p if deep or p.dtype == np.uint8 else (p >> 8).astype(np.uint8) for p in pictures]
    return [np.repeat(p[..., None], 3, axis=2) if colour and p.ndim == 2 else p for p in eight]


def _cleaned(denoiser: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Clean an image, plane by plane where the denoiser knows one channel, as grey colour where it knows three."""
    import numpy as np

    if denoiser.channels_ == 1 and pixels.ndim == 3:
        return np.stack(denoiser.transform([pixels[..., c] for c in range(pixels.shape[2])]), axis=2)
    if denoiser.channels_ == 3 and pixels.ndim == 2:
        coloured = denoiser.transform([np.repeat(pixels[..., None], 3, axis=2)])[0]
        return np.asarray(np.rint(coloured.mean(axis=2)).astype(pixels.dtype))
    return np.asarray(denoiser.transform([pixels])[0])
