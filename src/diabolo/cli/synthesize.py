"""The command that makes synthetic tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Quiet
from diabolo.cli.models import Exclude, Key, Output

if TYPE_CHECKING:
    from diabolo.tasks.synthesis import TableSynthesizer

__all__ = ["synthesize"]


def synthesize(
    source: Annotated[
        Path, Parameter(help="A data file to learn from, or the folder of a synthesizer that --save wrote.")
    ],
    /,
    *,
    n: Annotated[
        int | None,
        Parameter(
            name=["--n", "-n"], help="How many rows; by default as many as were learned from.", show_default=False
        ),
    ] = None,
    condition: Annotated[
        str,
        Parameter(help="What all rows have, such as sex=f,age=40.", metavar="COLUMN=VALUE,...", show_default=False),
    ] = "",
    bounds: Annotated[
        str,
        Parameter(
            help="What numbers lie between, such as age=18:65,pay=0: (an open side is left empty).",
            metavar="COLUMN=LOW:HIGH,...",
            show_default=False,
        ),
    ] = "",
    balance: Annotated[
        str | None,
        Parameter(
            help="Write the rows of the data file, and new ones until all labels of this column are as frequent.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, Parameter(help="Below 1 likely cells become likelier.")] = 1.0,
    save: Annotated[Path | None, Parameter(help="Folder to keep the synthesizer in.", show_default=False)] = None,
    report: Annotated[
        bool,
        Parameter(help="Say how like the rows are, and what they give away.", negative="", show_default=False),
    ] = False,
    seed: Annotated[int | None, Parameter(help="Seed.", show_default=False)] = None,
    output: Output = None,
    exclude: Exclude = "",
    key: Key = None,
    quiet: Quiet = False,
) -> int:
    """Make new rows of a table that are like its own: numbers, labels, dates and missing cells.

    For --report a fifth of the rows is not learned from.
    """
    import diabolo
    from diabolo.cli.data import read_data, say
    from diabolo.cli.output import check_output, write_blocks

    check_output(output, npy=False)
    held_out = None
    if source.is_dir():
        if save is not None or report or balance is not None:
            raise UsageError(f"{source} is a folder: --save, --report and --balance need the data file")
        fitted = _load(source)
        n = 10 if n is None else n
    else:
        X = read_data(source, key=key, exclude=exclude).for_fit()
        n = len(X) if n is None else n
        fitted = diabolo.TableSynthesizer(random_state=seed, verbose=0 if quiet else 1)
        if report:
            X, held_out = _split(X)
        fitted.fit(X)
        if save is not None:
            fitted.save(save)
    if balance is not None:
        write_blocks(output, iter([fitted.balance(X, balance, random_state=seed)]), _names(fitted))
        return 0
    told = {name: _value(fitted, name, text) for name, text in _pairs(condition, "--condition")}
    limits = {name: _range(text) for name, text in _pairs(bounds, "--bounds")}
    options: dict[str, Any] = {"condition": told, "bounds": limits, "temperature": temperature}
    write_blocks(output, fitted.sample_blocks(n, random_state=seed, **options), _names(fitted))
    if report:
        made = fitted.sample(min(len(X), 20_000), random_state=seed)
        say(str(diabolo.compare_tables(X, made, held_out)))
    return 0


def _load(folder: Path) -> TableSynthesizer:
    """Load a synthesizer, set to hand back rows in a kind of frame that is here."""
    import diabolo
    from diabolo.cli.data import frame_library

    fitted = diabolo.load(folder)
    if not isinstance(fitted, diabolo.TableSynthesizer):
        raise UsageError(f"{folder} holds {type(fitted).__name__}, not a synthesizer; see diabolo sample")
    if fitted._table is not None:
        fitted._container = frame_library() or fitted._container
    return fitted


def _names(fitted: TableSynthesizer) -> list[str]:
    return [str(name) for name in getattr(fitted, "feature_names_in_", [f"x{j}" for j in range(fitted.n_features_in_)])]


def _split(X: Any) -> tuple[Any, Any]:
    import narwhals.stable.v2 as nw
    import numpy as np

    held = np.arange(len(X)) % 5 == 4
    if isinstance(X, np.ndarray):
        return X[~held], X[held]
    frame = nw.from_native(X, eager_only=True)
    return frame[np.flatnonzero(~held).tolist()].to_native(), frame[np.flatnonzero(held).tolist()].to_native()


def _pairs(text: str, flag: str) -> list[tuple[str, str]]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if "=" not in part]
    if wrong:
        raise UsageError(f"{flag} {wrong[0]}: expected COLUMN=VALUE")
    return [(name.strip(), value.strip()) for name, value in (part.split("=", 1) for part in parts)]


def _value(fitted: TableSynthesizer, name: str, text: str) -> Any:
    """Return the label or the number that a text stands for; empty text is a missing cell."""
    if not text:
        return None
    labels = next((b.labels for b in fitted.bins_ if b.name == name), None)
    if labels is None:
        return _number(text)
    return next((label for label in labels if str(label).lower() == text.lower()), text)


def _range(text: str) -> tuple[Any, Any]:
    low, colon, high = text.partition(":")
    if not colon:
        raise UsageError(f"--bounds {text}: expected LOW:HIGH")
    return (_number(low) if low else None), (_number(high) if high else None)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
