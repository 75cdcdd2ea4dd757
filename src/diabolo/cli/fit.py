"""The command that fits a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from diabolo.cli.catalog import SEQUENCES, UsageError, find_card
from diabolo.cli.models import DataFile, Exclude, Key, autoencoder_of
from diabolo.launch import launched

__all__ = ["INTERRUPTED", "Contamination", "Model", "Order", "Quiet", "Series", "Steps", "Time", "Training"]
__all__ += ["check_folder", "default_model", "fit", "fit_model", "make_estimator"]

INTERRUPTED = 130

Task = Literal["detector", "imputer", "classifier", "regressor"] | None
OF_ANY = {"random_state", "verbose"}  # parameters that leave it to a detector which model it takes
Training = Annotated[
    Literal["clean", "contaminated"] | None,
    Parameter(
        help="What the rows are that a detector learns from: clean ones are normal but for a few, of contaminated ones many may "
        "be anomalies.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    Parameter(
        help="Which model; see `diabolo models`. With --help, shows that model's flags. By default autoencoder, with --imputer "
        "masked-autoencoder.",
        metavar="NAME",
        show_default=False,
    ),
]
Contamination = Annotated[
    str | None,
    Parameter(
        help="Share of ordinary rows to flag as anomalies, from 0 to 0.5; auto flags only what lies far out.",
        metavar="NUMBER|auto",
        show_default=False,
    ),
]
Time = Annotated[
    str | None,
    Parameter(
        help="Column that says when each row was: rows are steps of one or more series, in which a detector looks for anomalies.",
        metavar="COLUMN",
        show_default=False,
    ),
]
Series = Annotated[
    str | None,
    Parameter(
        help="Column that says which series each row belongs to; its rows are steps of time, in order.",
        metavar="COLUMN",
        show_default=False,
    ),
]
Steps = Annotated[
    bool, Parameter(help="Rows are steps of time of one series, in order.", negative="", show_default=False)
]
Quiet = Annotated[bool, Parameter(help="Show no progress.", negative="", show_default=False)]


@dataclass(frozen=True)
class Order:
    """What the flags say of the rows of a series."""

    time: str | None = None
    series: str | None = None
    steps: bool = False

    def __bool__(self) -> bool:
        return bool(self.time or self.series or self.steps)


def fit(
    data: DataFile,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder for the fitted model.")],
    model: Model = None,
    exclude: Exclude = "",
    key: Key = None,
    labels: Annotated[
        str | None,
        Parameter(
            help="Column (or array of an NPZ file) with a class or a number for each row: what --classifier and --regressor "
            "learn, or the condition of conditional-vae.",
            metavar="COLUMN",
            show_default=False,
        ),
    ] = None,
    detector: Annotated[
        bool,
        Parameter(
            help="Fit an anomaly detector: the model and a threshold from held-out rows.",
            negative="",
            show_default=False,
        ),
    ] = False,
    contamination: Contamination = None,
    training: Training = None,
    time: Time = None,
    series: Series = None,
    steps: Steps = False,
    imputer: Annotated[
        bool,
        Parameter(
            help="Fit an imputer, for diabolo impute: models that fill missing cells, and how sure they are.",
            negative="",
            show_default=False,
        ),
    ] = False,
    classifier: Annotated[
        bool,
        Parameter(
            help="Fit a classifier, for diabolo predict: a model learns from all rows, classes from those whose cell of --labels "
            "is not empty.",
            negative="",
            show_default=False,
        ),
    ] = False,
    regressor: Annotated[
        bool,
        Parameter(help="The same for numbers.", negative="", show_default=False),
    ] = False,
    force: Annotated[
        bool, Parameter(help="Replace a model that is already there.", negative="", show_default=False)
    ] = False,
    quiet: Quiet = False,
    **parameters: Any,
) -> int:
    """Fit a model to a data file and save it in a folder.

    Ctrl-C ends training early and saves the best model so far. Several processes train one model with
    torchrun --nproc-per-node=2 -m diabolo fit ... Other models have other flags:
    diabolo fit --model vae --help
    """
    from diabolo.cli.data import read_data, say

    kinds = {"detector": detector, "imputer": imputer, "classifier": classifier, "regressor": regressor}
    chosen = [name for name, wanted in kinds.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} are {len(chosen)} things; fit {len(chosen)} models")
    predicts = classifier or regressor
    if predicts and labels is None:
        raise UsageError(f"--{chosen[0]} learns from a column of the file: name it with --labels COLUMN")
    if contamination is not None and not detector:
        raise UsageError("--contamination sets the threshold of a detector; add --detector")
    if training is not None and not detector:
        raise UsageError("--training says what the rows of a detector are; add --detector")
    order = Order(time, series, steps)
    if order and not detector:
        raise UsageError("--time, --series and --steps are for a detector of anomalies in series; add --detector")
    check_folder(output, force)
    if model is not None and find_card(model, lines=True).command == SEQUENCES:
        if chosen or exclude or key is not None or labels is not None:
            raise UsageError(f"{SEQUENCES} learns lines of text alone; leave out flags of tables and tasks")
        return _fit_lines(data, output, parameters, quiet)
    rows = read_data(data, key=key, exclude=exclude, labels=labels)
    task: Task = chosen[0] if chosen else None  # type: ignore[assignment]  # the names are those of tasks
    table = rows.table_shape if parameters.get("kind", "auto") != "series" else None
    estimator = make_estimator(
        model,
        parameters,
        quiet=quiet,
        task=task,
        contamination=contamination,
        training=training,
        table=table,
        mixed=rows.mixed,
        order=order,
    )
    if not predicts:
        _check_labels(getattr(estimator, "autoencoder", estimator) if task != "imputer" else None, labels)
    if labels in rows.columns:
        rows = rows.without([labels])
    code = fit_model(estimator, rows.for_fit(parameters.get("kind", "auto")), rows.known_labels())
    autoencoder = autoencoder_of(estimator)
    if launched()[0] > 0:
        return code  # the first process saves what all have learned
    if not len(autoencoder.history_):
        say("interrupted before the first epoch was over; nothing is saved")
        return code
    estimator.save(output)
    if not quiet:
        name = type(estimator if predicts else autoencoder).__name__
        say(f"saved {name} to {output}  ({_summary(autoencoder)})")
    return code


def _fit_lines(data: Path, output: Path, parameters: dict[str, Any], quiet: bool) -> int:
    """Fit a model of sequences to lines of text."""
    from diabolo.cli.data import say
    from diabolo.cli.lines import read_lines

    estimator = make_estimator(SEQUENCES, parameters, quiet=quiet, task=None)
    code = fit_model(estimator, read_lines(data))
    estimator.save(output)
    if not quiet:
        say(f"saved {type(estimator).__name__} to {output}  ({_summary(estimator)})")
    return code


def default_model(task: Task) -> str:
    """Return the model that a task takes when none is named."""
    return "masked-autoencoder" if task == "imputer" else "autoencoder"


def _check_labels(autoencoder: Any, labels: str | None) -> None:
    needed = autoencoder is not None and autoencoder.__sklearn_tags__().target_tags.required
    if labels is not None and not needed:
        raise UsageError(
            "--labels is the condition of conditional-vae, where --condition names no columns; leave it out"
        )
    if needed and labels is None:
        raise UsageError(
            "this model is told something of each row: name it with --labels COLUMN or --condition COLUMN,..."
        )


def check_folder(output: Path, force: bool) -> None:
    """Refuse, before any long work, a folder that cannot be written or holds a model."""
    from diabolo.cli.output import check_place

    if output.is_file():
        raise FileExistsError(f"--output {output} is a file; expected a folder for the model")
    if (output / "config.json").exists() and not force:
        raise FileExistsError(f"{output} already holds a model; add --force to replace it, or choose another folder")
    check_place(output)


def make_estimator(
    model: str | None,
    parameters: dict[str, Any],
    *,
    quiet: bool,
    task: Task,
    contamination: str | None = None,
    training: str | None = None,
    table: tuple[int, int] | None = None,
    mixed: bool = False,
    order: Order | None = None,
) -> Any:
    """Make an unfitted model or task, its parameters checked before any data are read into it.

    Without a name the model is an autoencoder, and for an imputer a masked one, beside which a ``table`` of so many rows and
    columns of numbers gets an IWAE. A detector chooses its own where nothing is said of the model.
    """
    import diabolo
    from diabolo.checks import check_parameters, parameter_fields
    from diabolo.cli.flags import parse
    from diabolo.declare import ADVICE
    from diabolo.tasks.fillers import usual_models

    parameters = {"verbose": 1, **parameters} | ({"verbose": 0} if quiet else {})
    if task == "imputer" and model is None:
        parameters = {"likelihood": "learned_gaussian", **parameters}
    autoencoder = getattr(diabolo, find_card(model or default_model(task), lines=task is None).name)(**parameters)
    check_parameters(autoencoder, ADVICE)
    if task is None:
        return autoencoder
    if task == "imputer":
        kind = "image" if table is None else "vector"
        models = (
            [autoencoder] if model is not None else usual_models(kind, *(table or (0, 0)), mixed=mixed, **parameters)
        )
        made = diabolo.Imputer(tuple(models), random_state=autoencoder.random_state)
        check_parameters(made)
        return made
    free = model is None and parameters.keys() <= OF_ANY
    if task in ("classifier", "regressor"):
        predictor = diabolo.AutoencoderClassifier if task == "classifier" else diabolo.AutoencoderRegressor
        return predictor(
            None if free else autoencoder, random_state=autoencoder.random_state, verbose=autoencoder.verbose
        )
    hint = next(f.hint for f in parameter_fields(diabolo.AnomalyDetector) if f.name == "contamination")
    shared = {
        "autoencoder": None if free else autoencoder,
        "contamination": "auto" if contamination is None else parse(contamination, hint),
        "training": "contaminated" if training == "contaminated" else "clean",
        "random_state": autoencoder.random_state,
    }
    if order:
        detector: Any = diabolo.SeriesAnomalyDetector(time=order.time, series=order.series, **shared)
    else:
        detector = diabolo.AnomalyDetector(**shared)
    check_parameters(detector)
    return detector


def fit_model(estimator: Any, X: Any, y: Any = None) -> int:
    """Fit, and return the exit code: 0, or 130 when training was interrupted."""
    estimator.fit(X, y)
    autoencoder = autoencoder_of(estimator)
    parts = getattr(estimator, "models_", [autoencoder])
    given = getattr(estimator, "autoencoder", autoencoder)
    for shown in (estimator, *parts, *(given if isinstance(given, tuple) else (given,))):
        if shown is not None and "verbose" in shown.get_params(deep=False):
            shown.set_params(verbose=0)  # a progress bar belongs to this session, not to the model
    return INTERRUPTED if autoencoder.history_.stop_reason == "interrupted" else 0


def _summary(autoencoder: Any) -> str:
    history = autoencoder.history_
    if not history.best_epoch:
        return f"epoch 0 of {len(history)}: the start, which no epoch bettered"
    best = history.rows[history.best_epoch - 1]
    shown = [f"{name} {best[name]:.4g}" for name in ("val_loss", "val_mse", "loss", "mse") if name in best][:2]
    return f"epoch {history.best_epoch} of {len(history)}: {', '.join(shown)}"
