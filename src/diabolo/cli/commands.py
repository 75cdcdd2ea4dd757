"""The commands that use a fitted model: embed, reconstruct, score, sample, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.folders import Keep, Memory, is_folder, score_folder
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
    parse_condition,
    rows_for,
)

__all__ = ["embed", "reconstruct", "report", "sample", "score"]


def embed(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    output: Output = None,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
    keep: Keep = "",
    memory: Memory = None,
) -> int:
    """Write the code of each row.

    Parquet files that do not fit into memory go into a folder, -o codes/, part by part; the same call goes on where it stopped.
    """
    from diabolo.cli.output import check_output, write_matrix

    if is_folder(output, keep, memory) and output is not None:
        return score_folder(load_model(model), data, output, "embed", keep, memory)
    check_output(output)
    fitted = load_model(model, lines=True)
    X, told = rows_or_lines(fitted, data, key=key, exclude=exclude, labels=labels)
    autoencoder = autoencoder_of(fitted)
    codes = autoencoder.transform(X, **told)
    write_matrix(output, codes, [str(name) for name in autoencoder.get_feature_names_out()])
    return 0


def reconstruct(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    output: Output = None,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
    keep: Keep = "",
    memory: Memory = None,
) -> int:
    """Write each row as the model rebuilds it, in the columns of the model; missing cells come back filled."""
    from diabolo.cli.data import read_data
    from diabolo.cli.output import check_output, write_rows

    if is_folder(output, keep, memory) and output is not None:
        return score_folder(load_model(model), data, output, "reconstruct", keep, memory)
    check_output(output)
    rows = read_data(data, key=key, exclude=exclude, labels=labels)
    fitted = load_model(model)
    X, told = rows_for(fitted, rows, labels)
    rebuilt = autoencoder_of(fitted).reconstruct(X, **told)
    write_rows(output, rebuilt, feature_names(fitted))
    return 0


def score(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    output: Output = None,
    exclude: Exclude = "",
    key: Key = None,
    labels: Labels = None,
    keep: Keep = "",
    memory: Memory = None,
) -> int:
    """Write how well the model explains each row, in nats: higher is better.

    Rows are numbered from 0. A .npy file holds the scores alone.
    """
    import numpy as np

    from diabolo.cli.output import check_output, write_columns, write_matrix

    if is_folder(output, keep, memory) and output is not None:
        return score_folder(load_model(model), data, output, "score", keep, memory)
    check_output(output)
    fitted = load_model(model, lines=True)
    X, told = rows_or_lines(fitted, data, key=key, exclude=exclude, labels=labels)
    judge = fitted if hasattr(fitted, "score_samples") else autoencoder_of(fitted)
    scores = judge.score_samples(X, **told)
    if output is not None and output.suffix.lower() == ".npy":
        write_matrix(output, scores, ["score"])
    else:
        write_columns(output, {"row": np.arange(len(scores)), "score": scores})
    return 0


def sample(
    model: ModelFolder,
    /,
    *,
    n: Annotated[int, Parameter(name=["--n", "-n"], help="How many rows.")] = 10,
    seed: Annotated[
        int | None, Parameter(help="Seed; without it every call draws other rows.", show_default=False)
    ] = None,
    condition: Annotated[
        str | None,
        Parameter(
            help="What all rows are generated for, such as setosa, or age=40,sex=1; what is not named is drawn from the rows "
            "that the model saw.",
            metavar="VALUE|NAME=VALUE,...",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        bool,
        Parameter(
            help="Draw each value from its distribution instead of taking its mean.", negative="", show_default=False
        ),
    ] = False,
    prior: Annotated[
        Literal["auto", "own", "fitted"],
        Parameter(help="Draw codes from the model's own prior, or from the one that `diabolo latent prior` learned."),
    ] = "auto",
    temperature: Annotated[
        float, Parameter(help="Below 1 rows are more typical and less varied, above 1 the other way round.")
    ] = 1.0,
    output: Output = None,
) -> int:
    """Generate new rows from a model that has a prior, such as vae, or that learned one by `diabolo latent prior`.

    Any number of rows goes into a .csv or .parquet file, block by block; sequences go into a .txt file, one a line.
    """
    from diabolo.cli.output import check_output, write_blocks

    fitted = autoencoder_of(load_model(model, lines=True))
    if holds_sequences(fitted):
        check_lines(output)
        if noise:
            raise UsageError(
                "--noise is for rows of numbers; tokens are drawn anyway, the bolder the higher --temperature"
            )
        write_lines(
            output,
            fitted.sample_blocks(n, random_state=seed, prior=prior, temperature=temperature, condition=condition),
        )
        return 0
    check_output(output)
    told = None if condition is None else parse_condition(fitted, condition)
    options = {"condition": told, "noise": noise, "prior": prior, "temperature": temperature}
    blocks = fitted.sample_blocks(n, random_state=seed, **options)
    write_blocks(output, blocks, feature_names(fitted))
    return 0


def report(
    model: ModelFolder,
    data: DataFile,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="HTML file to write.")] = Path("report.html"),
    labels: Annotated[
        str | None,
        Parameter(
            help="Column (or array of an NPZ file) with a label for each row, to colour by; for a conditional-vae fitted with "
            "--labels also its condition.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[str | None, Parameter(help="Title of the page.", show_default=False)] = None,
    exclude: Exclude = "",
    key: Key = None,
) -> int:
    """Write an HTML page that shows what a model learned of the data; it needs no network to open."""
    from diabolo.cli.data import read_data, say
    from diabolo.cli.output import check_place
    from diabolo.cli.recommend import load_recommender, read_events
    from diabolo.report import write_report

    check_place(output)
    recommender = load_recommender(model)
    if recommender is not None:
        write_report(recommender, read_events(data), output, title=title)
        say(f"wrote {output}")
        return 0
    fitted = load_model(model)
    rows = read_data(data, key=key, exclude=exclude, labels=labels)
    X, told = rows_for(fitted, rows, labels, needed=False)
    shown = autoencoder_of(fitted) if hasattr(fitted, "heads_") else fitted  # of what predicts, the model inside
    write_report(shown, X, output, labels=rows.labels, title=title, **told)
    say(f"wrote {output}")
    return 0
