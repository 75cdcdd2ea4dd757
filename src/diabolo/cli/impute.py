"""The command that fills missing cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Quiet, fit_model, make_estimator
from diabolo.cli.models import Exclude, Key, Output, autoencoder_of, feature_names, load_model, refuse_flags

__all__ = ["impute"]


def impute(
    source: Annotated[
        Path, Parameter(help="Folder of a fitted imputer or model; or a data file to learn from and to fill.")
    ],
    data: Annotated[Path | None, Parameter(help="The data file to fill, after a folder.", show_default=False)] = None,
    /,
    *,
    output: Output = None,
    draws: Annotated[
        int | None,
        Parameter(
            help="Write so many completed files, full_1.csv, full_2.csv, ..., each filled with draws of what cells may be.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        Parameter(
            help="Which model to fit to a data file (masked-autoencoder by default).",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    exclude: Exclude = "",
    key: Key = None,
    quiet: Quiet = False,
    **parameters: Any,
) -> int:
    """Fill missing cells; observed ones come back as they are.

    With a data file alone, an imputer is fitted to it first; to keep one for new data, use diabolo fit --imputer. The flags that
    shape a model only work with a data file alone. Cells that hold nothing, NA, null or ? are missing.
    """
    from diabolo.cli.data import read_data, say
    from diabolo.cli.output import check_output, write_rows

    check_output(output)
    if draws is not None and draws < 1:
        raise UsageError(f"--draws {draws}: expected at least 1")
    if draws is not None and output is None:
        raise UsageError("--draws writes several files; name them with --output full.csv")
    code = 0
    if data is not None:
        refuse_flags(source, model, parameters)
        fitted = load_model(source)
        fitted = autoencoder_of(fitted) if hasattr(fitted, "heads_") else fitted
        rows = read_data(data, key=key, exclude=exclude)
        X = rows.for_model(fitted)
    else:
        if source.is_dir():
            raise UsageError(f"{source} is a folder: name the data file to fill after it")
        rows = read_data(source, key=key, exclude=exclude)
        X = rows.for_fit(parameters.get("kind", "auto"))
        table = rows.table_shape if parameters.get("kind", "auto") != "series" else None
        fitted = make_estimator(model, parameters, quiet=quiet, task="imputer", table=table)
        code = fit_model(fitted, X)
    names = feature_names(fitted)
    if not hasattr(fitted, "models_"):
        if fitted is not autoencoder_of(fitted) or draws is not None:
            what = "a detector" if fitted is not autoencoder_of(fitted) else "a model that does not know how sure it is"
            raise UsageError(f"{source} holds {what}; fit an imputer: diabolo fit --imputer")
        fitted = _around(fitted)
    elif not quiet:
        say(f"error on hidden cells: {fitted.error_:.3g} of their variance; wrong labels count 1")
    if draws is None or output is None:
        write_rows(output, fitted.transform(X), names)
        return code
    for i, full in enumerate(fitted.draw(X, draws), 1):
        write_rows(output.with_name(f"{output.stem}_{i}{output.suffix}"), full, names)
    return code


def _around(model: Any) -> Any:
    """Fill cells with what a fitted model alone makes of the others."""
    import diabolo

    return diabolo.Imputer.around(model)
