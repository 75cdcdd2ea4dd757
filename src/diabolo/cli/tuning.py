"""The commands that advise and that search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Model, Quiet, make_estimator
from diabolo.cli.models import DataFile, Exclude, Key

__all__ = ["advise", "tune"]


def advise(data: DataFile, /, *, exclude: Exclude = "", key: Key = None) -> int:
    """Look at a data file, and say which model to start with, why, and what to run.

    Nothing is trained.
    """
    from diabolo.cli.catalog import cards
    from diabolo.cli.data import read_data
    from diabolo.tuning.advice import advise as look_at

    rows = read_data(data, key=key, exclude=exclude)
    found = look_at(rows.for_fit())
    for name, value in found.facts.items():
        shown = ", ".join(f"{n} {kind}" for kind, n in value.items()) if isinstance(value, dict) else value
        print(f"{name}: {shown}")
    print(f"\nstart with {found.model}" + "".join(f", {k}={v!r}" for k, v in found.parameters.items()))
    for reason in found.reasons:
        print(f"  - {reason}")
    flags = "".join(f" --{k.replace('_', '-')} {v}" for k, v in found.parameters.items())
    skipped = f" --exclude {exclude}" if exclude else ""
    named = "" if found.model == "Autoencoder" else f" --model {cards()[found.model].command}"
    print(f"\ndiabolo fit {data} -o model{named}{flags}{skipped}")
    for other in found.also:
        print(f"  {other} {data}{skipped}")
    return 0


def tune(
    data: DataFile,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder for the best model.")],
    model: Model = None,
    budget: Annotated[str, Parameter(help="How long to search, such as 90s, 10min or 2h.", metavar="TIME")] = "10 min",
    objective: Annotated[
        Literal["auto", "bound", "masked", "downstream", "stability", "anomaly"],
        Parameter(help="What models are judged by on held-out rows; downstream takes --labels."),
    ] = "auto",
    trials: Annotated[int | None, Parameter(help="Trials at most.", show_default=False)] = None,
    storage: Annotated[
        str | None,
        Parameter(
            help="File or URL of a database in which trials are kept: the same command goes on where it ended, and several share "
            "the work.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None, Parameter(help="CSV file for all trials, best first.", metavar="FILE", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        Parameter(
            help="HTML page with the course of the search and what each parameter gave.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        Parameter(help="Column with a class or number for each row, for --objective downstream.", metavar="COLUMN"),
    ] = None,
    exclude: Exclude = "",
    key: Key = None,
    force: Annotated[
        bool, Parameter(help="Replace a model that is already there.", negative="", show_default=False)
    ] = False,
    quiet: Quiet = False,
    **parameters: Any,
) -> int:
    """Search for the hyperparameters of a model, and save the best one, fitted to all rows.

    Flags that shape the model hold for all trials; all other parameters are searched for. The model as it is by default comes
    first. Ctrl-C ends the search and keeps the best so far.
    """
    import diabolo
    from diabolo.cli.data import read_data, say
    from diabolo.cli.fit import check_folder
    from diabolo.cli.output import check_output, check_place, write_columns
    from diabolo.report import write_search

    check_folder(output, force)
    check_output(table, npy=False)
    if report is not None:
        check_place(report)
    if objective == "downstream" and labels is None:
        raise UsageError("--objective downstream needs --labels")
    rows = read_data(data, key=key, exclude=exclude, labels=labels)
    if labels in rows.columns:
        rows = rows.without([labels])
    estimator = make_estimator(model, parameters, quiet=True, task=None)
    found = diabolo.tune(
        estimator,
        rows.for_fit(parameters.get("kind", "auto")),
        rows.known_labels(),
        objective=objective,
        budget=budget,
        n_trials=trials,
        storage=storage,
        random_state=estimator.random_state,
        verbose=0 if quiet else 1,
    )
    found.estimator.set_params(verbose=0, max_time=None, callbacks=()).save(output)
    if table is not None:
        write_columns(table, _columns(found.table()))
    if report is not None:
        write_search(found, report)
    if not quiet:
        chosen = ", ".join(f"{k}={v!r}" for k, v in found.params.items()) or "the model as it was given"
        say(f"best of {len(found.trials)} trials: {found.objective} {found.value:.5g} with {chosen}")
        say(f"saved {type(found.estimator).__name__} to {output}  ({found.seconds:.0f} s)")
    return 0


def _columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn records into columns, numbers where all are."""
    import numpy as np

    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {}
    for name in names:
        cells = [record.get(name) for record in records]
        if all(c is None or (isinstance(c, int | float) and not isinstance(c, bool)) for c in cells):
            columns[name] = np.array([np.nan if c is None else c for c in cells], dtype=float)
        else:
            columns[name] = np.array([None if c is None else str(c) for c in cells], dtype=object)
    return columns
