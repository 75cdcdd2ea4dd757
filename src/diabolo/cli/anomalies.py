"""The command that finds anomalies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError
from diabolo.cli.fit import Contamination, Order, Quiet, Series, Steps, Time, Training, fit_model, make_estimator
from diabolo.cli.folders import Keep, Memory, is_folder, score_folder
from diabolo.cli.models import Exclude, Key, Output, autoencoder_of, feature_names, load_model, refuse_flags

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["anomalies"]

BLAMED = 3
REASONED = 1000  # rows whose reasons are written at most: the oddest
LEAST = 20  # and at least, flagged or not


def anomalies(
    source: Annotated[
        Path, Parameter(help="Folder of a fitted detector or model; or a data file to learn from and to judge.")
    ],
    data: Annotated[Path | None, Parameter(help="The data file to judge, after a folder.", show_default=False)] = None,
    /,
    *,
    output: Output = None,
    model: Annotated[
        str | None,
        Parameter(
            help="Which model to fit to a data file (the detector's own choice by default).",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    contamination: Contamination = None,
    training: Training = None,
    time: Time = None,
    series: Series = None,
    steps: Steps = False,
    exclude: Exclude = "",
    key: Key = None,
    quiet: Quiet = False,
    keep: Keep = "",
    memory: Memory = None,
    **parameters: Any,
) -> int:
    """Rank rows from the most to the least anomalous, and name the features to blame.

    Columns written: row (numbered from 0), score (lower is more anomalous), anomaly (1 where flagged), the three features that
    are oddest, and for the oddest thousand rows (of a detector) the reasons: value, what was expected, direction. With a data
    file alone, a detector is fitted first, by default one that expects anomalies among the rows (--training contaminated); to
    keep one for new data, use diabolo fit --detector. The flags that shape a model only work with a data file alone.

    With --time, --series or --steps rows are steps of time: all are written in their order, 1 where they lie in an event,
    with the channels that are oddest, and the events are listed on standard error.

    Parquet files that do not fit into memory are judged by a fitted detector into a folder, -o judged/, in their own order: score
    and anomaly of each row.
    """
    from diabolo.cli.data import read_data
    from diabolo.cli.output import check_output

    into = output if is_folder(output, keep, memory) else None
    if into is None:
        check_output(output, npy=False)
    elif data is None:
        raise UsageError(f"--output {into}: a folder is for a fitted detector and the files to judge")
    code, order = 0, Order(time, series, steps)
    if data is not None:
        refuse_flags(source, model, parameters)
        if training is not None or order:
            flag = "--training" if training is not None else "--time, --series and --steps"
            raise UsageError(f"{flag}: for a data file alone, to which a detector is fitted")
        fitted = load_model(source)
        if hasattr(fitted, "heads_"):
            fitted = autoencoder_of(fitted)  # what predicts has no threshold; the model inside ranks rows
        _set_contamination(fitted, contamination, source)
        if into is not None:
            return score_folder(fitted, data, into, "anomalies", keep, memory)
        rows = read_data(data, key=key, exclude=exclude)
        X = rows.for_model(fitted)
    else:
        if source.is_dir():
            raise UsageError(f"{source} is a folder: name the data file to judge after it")
        rows = read_data(source, key=key, exclude=exclude)
        X = rows.for_fit(parameters.get("kind", "auto"))
        fitted = make_estimator(
            model,
            parameters,
            quiet=quiet,
            task="detector",
            contamination=contamination,
            training=training or "contaminated",
            order=order,
        )
        code = fit_model(fitted, X)
    if hasattr(fitted, "events"):
        _write_steps(fitted, X, output)
    else:
        _write(fitted, X, output)
    return code


def _set_contamination(fitted: Any, contamination: str | None, source: Path) -> None:
    from diabolo.checks import check_parameters, parameter_fields
    from diabolo.cli.flags import parse

    if contamination is None:
        return
    if fitted is autoencoder_of(fitted):
        raise UsageError(
            f"--contamination sets the threshold of a detector; {source} holds none: diabolo fit --detector"
        )
    hint = next(f.hint for f in parameter_fields(type(fitted)) if f.name == "contamination")
    fitted.set_params(contamination=parse(contamination, hint))
    check_parameters(fitted)


def _write(fitted: Any, X: Any, output: Path | None) -> None:
    import numpy as np

    from diabolo.cli.data import say
    from diabolo.cli.output import write_columns

    scores = fitted.score_samples(X)
    if fitted is autoencoder_of(fitted):
        say("note: this model has no calibrated threshold, so that no row is flagged; diabolo fit --detector makes one")
        flagged = np.zeros(len(scores), dtype=np.int64)
    else:
        flagged = (scores < fitted.offset_).astype(np.int64)
        say(f"flagged {flagged.sum()} of {len(scores)} rows (score below {fitted.offset_:.4g})")
    order = np.argsort(scores, kind="stable")
    blamed = _blame(fitted, X)[order]
    columns: dict[str, NDArray[Any]] = {"row": order, "score": scores[order], "anomaly": flagged[order]}
    columns |= {f"feature_{j + 1}": blamed[:, j] for j in range(blamed.shape[1])}
    if fitted is not autoencoder_of(fitted):
        columns |= _reasons(
            fitted, X, order[: min(len(order), max(LEAST, min(REASONED, int(flagged.sum()))))], len(order)
        )
    write_columns(output, columns)


def _write_steps(fitted: Any, X: Any, output: Path | None) -> None:
    """Write the rows of series in their order, and say which stretches are flagged."""
    import numpy as np

    from diabolo.cli.data import say, to_columns
    from diabolo.cli.output import write_columns

    tracks = fitted._read(X)
    judged = [fitted._judge(track) for track in tracks.tracks]
    scores, blame = (tracks.give([one[k] for one in judged]) for k in range(2))
    inside = [np.zeros(len(one.scores), dtype=np.int64) for one in judged]
    for own, one in zip(inside, judged, strict=True):
        for event in one.events:
            own[event.first : event.last + 1] = 1
    flagged = tracks.give(inside)
    events = sorted((event for one in judged for event in one.events), key=lambda event: event.score)
    columns = to_columns(X) if hasattr(X, "columns") else {}
    say(
        f"found {len(events)} event(s) in {len(scores)} rows, judged by windows of {fitted.window_} steps (score below "
        f"{fitted.offset_:.4g}); {flagged.sum()} rows lie in them"
    )
    for event in events[:LEAST]:
        say(f"  {event}")
    if len(events) > LEAST:
        say(f"  and {len(events) - LEAST} more")
    told = {name: columns[name] for name in (fitted.series, fitted.time) if name is not None}
    names = np.array(fitted.channel_names_)[np.argsort(-blame, axis=1, kind="stable")[:, :BLAMED]]
    written = {"row": np.arange(len(scores)), **told, "score": scores, "anomaly": flagged}
    write_columns(output, written | {f"channel_{j + 1}": names[:, j] for j in range(names.shape[1])})


def _reasons(fitted: Any, X: Any, rows: NDArray[Any], n: int) -> dict[str, NDArray[Any]]:
    """Write the reasons of some rows in words, and nothing for those after them."""
    import numpy as np

    written = np.full((n, BLAMED), "", dtype=object)
    raw = fitted.autoencoder_._read(X, reset=False).take(rows)
    for i, reasons in enumerate(fitted.reasons_among(raw, BLAMED)):
        written[i, : len(reasons)] = [str(reason) for reason in reasons]
    return {f"reason_{j + 1}": written[:, j].astype(str) for j in range(BLAMED)}


def _blame(fitted: Any, X: Any) -> NDArray[Any]:
    """Name, for each row, the features that are explained worst beside what is usual for them."""
    import numpy as np

    from diabolo.cli.data import to_array

    if fitted is autoencoder_of(fitted):
        explained = fitted.score_features(X)
        if fitted.schema_.kind == "series":
            explained = explained.swapaxes(1, 2)  # time first, as the names are
        lack = explained.mean(axis=0) - explained
    else:
        lack = to_array(fitted.explain(X))
    flat = lack.reshape(len(lack), -1)
    names = np.array(feature_names(fitted))[: flat.shape[1]]
    return np.asarray(names[np.argsort(-flat, axis=1, kind="stable")[:, :BLAMED]])
