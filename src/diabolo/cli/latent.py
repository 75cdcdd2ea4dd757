"""The commands that look into the latent space of a model: interpolate, and `diabolo latent` with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.lines import check_lines, holds_sequences, rows_or_lines, write_lines
from diabolo.cli.models import (
    DataFile,
    Exclude,
    Key,
    Labels,
    ModelFolder,
    Output,
    autoencoder_of,
    feature_names,
    load_model,
    rows_for,
)

__all__ = ["interpolate", "latent"]

Seed = Annotated[int | None, Parameter(help="Seed.", show_default=False)]
Steps = Annotated[int, Parameter(name=["--steps", "-n"], help="Rows on each way, both ends included.")]
Figure = Annotated[
    Path, Parameter(name=["--output", "-o"], help="File to write: .svg, and for traversals of images .png.")
]


def interpolate(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    rows: Annotated[
        str, Parameter(help="Rows to go between, numbered from 0: 3,8 or several ways 3,8,1,5.", metavar="ROW,ROW,...")
    ] = "0,1",
    steps: Steps = 9,
    method: Annotated[
        Literal["linear", "spherical"], Parameter(help="Straight through the codes, or along arcs.")
    ] = "linear",
    output: Output = None,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
) -> int:
    """Write rows between rows of a file, through their codes; with -o ways.svg (images also .png) as a figure.

    Of a model of sequences the file has one sequence a line, and -o ways.txt takes those between.
    """
    from diabolo.cli.output import check_output, check_place, write_rows
    from diabolo.latent import interpolate as go

    fitted = autoencoder_of(load_model(model, lines=True))
    sequences = holds_sequences(fitted)
    figure = output is not None and output.suffix.lower() in (".svg", ".png") and not sequences
    if sequences:
        check_lines(output)
    elif figure and output is not None:
        check_place(output)
    else:
        check_output(output)
    try:
        chosen = [int(part) for part in rows.split(",")]
    except ValueError:
        raise UsageError(f"--rows {rows}: expected numbers of rows such as 3,8") from None
    if len(chosen) < 2 or len(chosen) % 2:
        raise UsageError(f"--rows {rows}: expected pairs of rows, the start and the end of each way")
    X, told = rows_or_lines(fitted, data, key=key, exclude=exclude, labels=labels)
    n = len(X)
    wrong = [row for row in chosen if not 0 <= row < n]
    if wrong:
        raise UsageError(f"--rows {rows}: {data} has rows 0 to {n - 1}, and no row {wrong[0]}")
    if told:
        raise UsageError("interpolate takes no condition of each row; use interpolate of diabolo.latent in Python")
    ways = go(fitted, _take(X, chosen[::2]), _take(X, chosen[1::2]), steps, method=method)
    if sequences:
        write_lines(output, [ways])
    elif figure and output is not None:
        from diabolo.report import write_grid

        names = [f"{a} to {b}" for a, b in zip(chosen[::2], chosen[1::2], strict=True)]
        write_grid(fitted, ways, output, names=names, width=steps)
    else:
        write_rows(output, ways, feature_names(fitted))
    return 0


def latent_map(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    output: Figure = Path("map.svg"),
    method: Annotated[
        Literal["pca", "tsne", "umap"],
        Parameter(help="How codes are brought to two numbers; umap needs diabolo[maps]."),
    ] = "tsne",
    labels: Annotated[
        str | None,
        Parameter(help="Column (or array of an NPZ file) to colour by.", metavar="COLUMN", show_default=False),
    ] = None,
    seed: Seed = 0,
    exclude: Exclude = "",
    key: Key = None,
) -> int:
    """Draw a map of rows by their codes; -o map.csv writes the places instead."""
    from diabolo.cli.data import read_data, say
    from diabolo.cli.output import check_place, write_matrix
    from diabolo.latent import latent_map as place_rows
    from diabolo.report import write_map

    check_place(output)
    found = read_data(data, key=key, exclude=exclude, labels=labels)
    fitted = autoencoder_of(load_model(model))
    X, told = rows_for(fitted, found, labels, needed=False)
    place = place_rows(fitted, X, method, random_state=seed, **told)
    if output.suffix.lower() in (".csv", ".parquet", ".npy", ".npz"):
        write_matrix(output, place, ["x", "y"])
    else:
        write_map(place, output, labels=found.labels)
    say(f"wrote {output}")
    return 0


def traverse(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    output: Figure = Path("units.svg"),
    units: Annotated[
        str, Parameter(help="Units to vary; by default those that vary most.", metavar="UNIT,...", show_default=False)
    ] = "",
    steps: Steps = 9,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
) -> int:
    """Draw what single units of the code do, all others staying as they are on average."""
    from diabolo.cli.data import read_data, say
    from diabolo.cli.output import check_place
    from diabolo.latent import traverse as go
    from diabolo.report import write_grid

    check_place(output)
    try:
        chosen = [int(part) for part in units.split(",")] if units else None
    except ValueError:
        raise UsageError(f"--units {units}: expected numbers of units such as 0,3") from None
    fitted = autoencoder_of(load_model(model))
    X, told = rows_for(fitted, read_data(data, key=key, exclude=exclude, labels=labels), labels)
    if told:
        raise UsageError("latent traverse takes no condition of each row; use traverse of diabolo.latent in Python")
    found = go(fitted, X, units=chosen, n=steps)
    write_grid(fitted, found.rows, output, names=[f"unit {unit}" for unit in found.units], width=steps)
    say(f"wrote {output}")
    return 0


def prior(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    method: Annotated[
        Literal["auto", "normal", "mixture", "kernel", "flow", "two_stage"],
        Parameter(help="Which distribution; auto keeps the one that held-out codes speak for."),
    ] = "auto",
    seed: Seed = None,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
) -> int:
    """Learn where the codes of rows are, and keep it in the model's folder: `diabolo sample` then draws from there."""
    from diabolo.cli.data import say
    from diabolo.persistence import load

    fitted = load(model)
    if not hasattr(fitted, "fit_prior"):
        raise UsageError(f"{model} holds {type(fitted).__name__}, not a model with a code")
    X, told = rows_or_lines(fitted, data, key=key, exclude=exclude, labels=labels)
    fitted.fit_prior(X, method, random_state=seed, **told)
    fitted.save(model)
    for name, nats in sorted(fitted.prior_scores_.items(), key=lambda item: -item[1]):
        say(f"{name:10} {nats:10.3f} nats a held-out code")
    kept = "the model's own prior is the best, and stays" if fitted.prior_ is None else f"kept {fitted.prior_.method_}"
    say(f"{model}: {kept}")
    return 0


def diagnose(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    seed: Seed = 0,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
) -> int:
    """Say how rows use the latent space: units in use, distance from the prior, holes, unused symbols."""
    from diabolo.latent import diagnose as look

    fitted = autoencoder_of(load_model(model, lines=True))
    X, told = rows_or_lines(fitted, data, key=key, exclude=exclude, labels=labels)
    for part in str(look(fitted, X, random_state=seed, **told)).split("; "):
        print(part)
    return 0


def latent(sort_key: int) -> App:
    """Make the group of commands, which stands after ``sort_key`` others."""
    app = App(name="latent", help="Look into the latent space of a model.", help_format="plaintext", sort_key=sort_key)
    for name, function in (
        ("map", latent_map),
        ("traverse", traverse),
        ("prior", prior),
        ("diagnose", diagnose),
    ):
        app.command(function, name=name)
    return app


def _take(X: Any, index: list[int]) -> Any:
    """Return some rows of an array or of a frame."""
    import narwhals.stable.v2 as nw
    import numpy as np

    if isinstance(X, list):
        return [X[i] for i in index]
    if isinstance(X, np.ndarray):
        return X[index]
    return nw.from_native(X, eager_only=True)[index].to_native()
