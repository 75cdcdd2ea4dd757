"""The commands that take noise out of image files, and that fill what is missing in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diabolo.cli.pictures import PictureFile

__all__ = ["denoise", "restore"]

SHOWN = 8  # images of a report
ESTIMATED = 20  # images that the level of noise is taken from

Output = Annotated[
    Path, Parameter(name=["--output", "-o"], help="The image to write, or the folder where a folder is worked through.")
]
Clean = Annotated[
    Path | None, Parameter(help="Folder of clean images to learn from, instead of the given ones.", show_default=False)
]
Images = Annotated[Path | None, Parameter(help="The image or folder, after a model.", show_default=False)]
Steps = Annotated[int, Parameter(help="Steps of learning.")]
Seed = Annotated[int | None, Parameter(help="Seed.", show_default=False)]
Save = Annotated[Path | None, Parameter(help="Folder to keep the model in, for other images.", show_default=False)]
Report = Annotated[Path | None, Parameter(help="HTML page to write, with images before and after.", show_default=False)]


def denoise(
    source: Annotated[
        Path, Parameter(help="Folder of a denoiser that --save wrote; or an image, or a folder of images, to clean.")
    ],
    images: Images = None,
    /,
    *,
    output: Output,
    learn: Annotated[
        bool,
        Parameter(
            help="Learn from the noisy images themselves, for what is unlike photographs.",
            negative=(),
            show_default=False,
        ),
    ] = False,
    clean: Clean = None,
    noise: Annotated[
        str | None,
        Parameter(
            help="What is put on clean images to learn from: gaussian, poisson, salt_and_pepper, jpeg, blur, scratches, dust, or "
            "several, separated by commas.",
            metavar="KIND,...",
            show_default="gaussian",
        ),
    ] = None,
    level: Annotated[
        float | None,
        Parameter(
            help="How much, of one kind: see the kinds of Denoiser. By default about as much normal noise as the images seem to "
            "have, and a range from little to much of other kinds.",
            show_default=False,
        ),
    ] = None,
    steps: Steps = 2000,
    seed: Seed = None,
    save: Save = None,
    report: Report = None,
    quiet: Quiet = False,
) -> int:
    """Take noise out of images.

    Without a model, a denoiser that comes with Diabolo is used: it knows photographs with normal noise up to a standard deviation
    of 50 of 255. With --learn one learns from the noisy images themselves, which works where the noise of neighbouring pixels
    is independent: not after JPEG. Images keep size, type and transparency. Files of a folder that cannot be read are named, and
    the others are cleaned.
    """
    import diabolo
    from diabolo.cli.data import say
    from diabolo.cli.pictures import read_alike
    from diabolo.pretrained import photo_denoiser

    given, files = _given(source, images, output, clean, save)
    if clean is None and (noise is not None or level is not None):
        raise UsageError("--noise and --level say what is put on --clean images; name a folder of them")
    if images is not None and learn:
        raise UsageError("the model is used as it was fitted; leave out --learn")
    if clean is not None and learn:
        raise UsageError("--learn learns from the given images, --clean from others; leave out one of them")
    if save is not None and clean is None and not learn:
        raise UsageError("--save keeps what was learned; add --learn or --clean")
    run: Callable[[NDArray[Any]], NDArray[Any]]
    if images is not None:
        run = partial(_by, _loaded(source, diabolo.Denoiser))
    elif clean is None and not learn:
        run = partial(_by_photographs, cache(photo_denoiser))
    else:
        kinds = (noise or "gaussian").split(",")
        learned, _ = read_alike(files if clean is None else _pictures(clean))
        levels: Any = "auto" if level is None else level
        if clean is not None and level is None and kinds == ["gaussian"]:
            levels = _estimated(files, learned[0].dtype)
            if not quiet:
                say(f"noise of a standard deviation from {levels[0]:.3g} to {levels[1]:.3g} is put on clean images")
        denoiser = diabolo.Denoiser(
            noise=kinds[0] if len(kinds) == 1 else tuple(kinds),  # type: ignore[arg-type]  # checked in fit
            level=levels,
            learn_from="noisy" if clean is None else "clean",
            max_steps=steps,
            random_state=seed,
            verbose=0 if quiet else 1,
        ).fit(learned)
        if save is not None:
            denoiser.save(save)
        run = partial(_by, denoiser)

    def work(file: PictureFile) -> tuple[NDArray[Any], None]:
        return run(file.pixels), None

    return _all(files, output, work, many=given.is_dir(), quiet=quiet, report=report, what="cleaned")


def _by(denoiser: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    from diabolo.cli.pictures import by_channels

    return by_channels(denoiser.channels_, pixels, denoiser.transform)


def _by_photographs(load: Callable[[Literal[1, 3]], Any], pixels: NDArray[Any]) -> NDArray[Any]:
    """Clean an image by the denoiser of grey or of coloured photographs; colours that are all grey are one plane."""
    import numpy as np

    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.repeat(_by_photographs(load, pixels[..., 0])[..., None], pixels.shape[2], axis=2)
    denoiser = load(1 if pixels.ndim == 2 else 3)
    if pixels.dtype == np.uint8:
        return _by(denoiser, pixels)
    spread = np.iinfo(pixels.dtype).max
    cleaned = _by(denoiser, (pixels * (255 / spread)).astype(np.float32))  # it learned from 8 bits
    return np.asarray(np.rint(np.clip(cleaned, 0, 255) * (spread / 255)).astype(pixels.dtype))


def restore(
    source: Annotated[
        Path, Parameter(help="Folder of a restorer that --save wrote; or an image, or a folder of images, to restore.")
    ],
    images: Images = None,
    /,
    *,
    output: Output,
    mask: Annotated[
        Path | None,
        Parameter(
            help="Image that is not black where pixels are to be filled; for a folder, a folder with a mask of each name.",
            show_default=False,
        ),
    ] = None,
    missing_value: Annotated[
        int | None, Parameter(help="The value that pixels to be filled have in all channels.", show_default=False)
    ] = None,
    clean: Clean = None,
    steps: Steps = 2000,
    seed: Seed = None,
    save: Save = None,
    report: Report = None,
    quiet: Quiet = False,
) -> int:
    """Fill what is missing in images, or covered by scratches and dust.

    All other pixels stay as they are. Without --mask and --missing-value, damage is found by itself, which needs a model, or
    --clean images to learn from. Without those, a model learns from what the given images show outside the holes. Files of a
    folder that cannot be read are named, and the others are restored.
    """
    import numpy as np

    import diabolo
    from diabolo.cli.pictures import by_channels, read_alike, read_picture

    given, files = _given(source, images, output, clean, save)
    if mask is not None and missing_value is not None:
        raise UsageError("--mask and --missing-value say the same; leave one of them out")
    if mask is not None and mask.is_dir() != given.is_dir():
        raise UsageError(f"--mask {mask}: expected a mask for an image, or a folder of masks for a folder")

    def holes(file: PictureFile) -> NDArray[Any] | None:
        pixels = file.pixels
        if missing_value is not None:
            return np.asarray(pixels == missing_value if pixels.ndim == 2 else (pixels == missing_value).all(axis=2))
        if mask is None:
            return None
        drawn = read_picture(mask / file.path.name if mask.is_dir() else mask).pixels
        found = drawn if drawn.ndim == 2 else drawn.max(axis=2)
        if found.shape != pixels.shape[:2]:
            raise ValueError(
                f"the mask of {file.path} has {found.shape[1]} x {found.shape[0]} pixels, the image "
                f"{pixels.shape[1]} x {pixels.shape[0]}"
            )
        return np.asarray(found > 0)

    if images is not None:
        restorer = _loaded(source, diabolo.Restorer)
    else:
        if clean is None and mask is None and missing_value is None:
            raise UsageError(
                "name the holes with --mask or --missing-value, or --clean images to learn from what damage is"
            )
        learned, kept = read_alike(files if clean is None else _pictures(clean))
        known = None if clean is not None else [holes(read_picture(path)) for path in kept]
        restorer = diabolo.Restorer(max_steps=steps, random_state=seed, verbose=0 if quiet else 1).fit(
            learned, mask=known
        )
        if save is not None:
            restorer.save(save)

    def work(file: PictureFile) -> tuple[NDArray[Any], NDArray[Any]]:
        hole = holes(file)
        if hole is None:
            seen: list[NDArray[Any]] = []

            def find(planes: list[NDArray[Any]]) -> list[NDArray[Any]]:
                seen.extend(restorer.find_damage(planes))
                return planes

            by_channels(restorer.channels_, file.pixels, find)
            hole = np.logical_or.reduce(seen)
        filled = by_channels(
            restorer.channels_, file.pixels, lambda planes: restorer.transform(planes, mask=[hole] * len(planes))
        )
        return filled, hole

    return _all(files, output, work, many=given.is_dir(), quiet=quiet, report=report, what="restored")


def _given(
    source: Path, images: Path | None, output: Path, clean: Path | None, save: Path | None
) -> tuple[Path, list[Path]]:
    """Return what is worked on, and its files; refuse what cannot be meant before any long work."""
    from diabolo.cli.output import check_place

    if images is not None and (clean is not None or save is not None):
        raise UsageError(f"{source} is used as it was fitted; leave out --clean and --save")
    if images is None and (source / "config.json").exists():
        raise UsageError(f"{source} is a model: name the image or folder to work on after it")
    given = images if images is not None else source
    files = _pictures(given)
    if given.is_dir() and output.is_file():
        raise UsageError(f"--output {output} is a file; expected a folder for the images of {given}")
    check_place(output)
    return given, files


def _pictures(path: Path) -> list[Path]:
    from diabolo.cli.pictures import list_pictures

    return list_pictures(path)


def _loaded(folder: Path, kind: type[Any]) -> Any:
    import diabolo

    model = diabolo.load(folder)
    if not isinstance(model, kind) or not hasattr(model, "module_"):
        command = {"Denoiser": "denoise", "Restorer": "restore"}[kind.__name__]
        raise UsageError(f"{folder} holds no {kind.__name__} of images; diabolo {command} --save makes one")
    return model


def _estimated(files: list[Path], dtype: Any) -> tuple[float, float]:
    """Return a range of levels around those that images seem to have, in units of the pixels that are learned."""
    import numpy as np

    import diabolo
    from diabolo.cli.pictures import read_picture

    levels = []
    for path in files[:: max(1, len(files) // ESTIMATED)]:
        try:
            pixels = read_picture(path).pixels
            (level,) = diabolo.Denoiser.estimate_noise([pixels])
        except ValueError:
            continue  # what cannot be read is named when it is its turn; what is too small tells nothing
        levels.append(level * np.iinfo(dtype).max / np.iinfo(pixels.dtype).max)
    if not levels:
        raise ValueError("the images are too small to tell how much noise they have; say it with --level")
    return 0.8 * min(levels), 1.2 * max(levels)


def _all(files: list[Path], output: Path, work: Any, *, many: bool, quiet: bool, report: Path | None, what: str) -> int:
    """Work through files, and write the page about some of them."""
    from diabolo.cli.data import say
    from diabolo.cli.pictures import work_through

    shown: list[tuple[str, Any, Any, Any]] = []

    def watched(file: PictureFile) -> NDArray[Any]:
        after, mask = work(file)
        if report is not None and len(shown) < SHOWN:
            shown.append((file.path.name, file.pixels, after, mask))
        return after  # type: ignore[no-any-return]

    done, failed = work_through(files, output, watched, many=many, quiet=quiet)
    if report is not None:
        from diabolo.report import write_picture_report

        names, before, after, masks = zip(*shown, strict=True)
        title = f"{done} image{'s' if done != 1 else ''} {what}"
        write_picture_report(before, after, report, masks=None if masks[0] is None else masks, names=names, title=title)
    if not quiet:
        say(f"{what} {done} image(s)" + (f"; {failed} could not be read" if failed else ""))
    return 1 if failed else 0
