"""What the commands that use a fitted model share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diabolo.cli.catalog import UsageError

if TYPE_CHECKING:
    from diabolo.cli.data import Data

__all__ = [
    "STDIN",
    "DataFile",
    "Exclude",
    "Key",
    "Labels",
    "ModelFolder",
    "Output",
    "autoencoder_of",
    "feature_names",
    "load_model",
    "parse_condition",
    "refuse_flags",
    "rows_for",
]

STDIN = Path("standard input")
"""What ``-`` on the command line becomes: a lone hyphen would be taken for a flag."""

ModelFolder = Annotated[Path, Parameter(help="Folder that `diabolo fit` wrote.")]
DataFile = Annotated[Path, Parameter(help="CSV, Parquet, NPY or NPZ file; - reads CSV from standard input.")]
Output = Annotated[
    Path | None,
    Parameter(
        name=["--output", "-o"],
        help="File to write: .csv, .parquet, .npy or .npz. Without it, CSV goes to standard output.",
        show_default=False,
    ),
]
Exclude = Annotated[
    str, Parameter(help="Columns to leave out, separated by commas.", metavar="COLUMN,...", show_default=False)
]
Key = Annotated[
    str | None, Parameter(help="Which array of an NPZ file holds the rows.", metavar="NAME", show_default=False)
]

Labels = Annotated[
    str | None,
    Parameter(
        help="Column (or array of an NPZ file) with the condition of each row, for a conditional-vae fitted with --labels.",
        metavar="COLUMN",
        show_default=False,
    ),
]


def load_model(folder: Path, *, lines: bool = False) -> Any:
    """Load a fitted model or detector, set to hand back rows in a kind that is here, whatever it was fitted with.

    A model of sequences is refused unless the command works with ``lines`` of text.
    """
    from diabolo.cli.data import frame_library
    from diabolo.cli.lines import holds_sequences
    from diabolo.persistence import load

    model = load(folder)
    if hasattr(model, "items_"):
        raise UsageError(f"{folder} holds a recommender; use it with diabolo recommend {folder}")
    if hasattr(model, "bins_"):
        raise UsageError(f"{folder} holds a synthesizer of tables; use it by diabolo synthesize {folder}")
    if holds_sequences(model):
        if lines:
            return model
        raise UsageError(
            f"{folder} holds a model of sequences, which this command does not take; see docs/sequences.md"
        )
    if not hasattr(autoencoder_of(model), "codec_"):
        raise UsageError(f"{folder} holds a {type(model).__name__} alone, which this command cannot use")
    named = hasattr(autoencoder_of(model), "feature_names_in_")
    for part in getattr(model, "models_", [autoencoder_of(model)]):
        part.codec_.container = (frame_library() if named else None) or "numpy"
    return model


def autoencoder_of(model: Any) -> Any:
    """Return the autoencoder inside a detector, the first inside an imputer, or the model itself."""
    return model.models_[0] if hasattr(model, "models_") else getattr(model, "autoencoder_", model)


def feature_names(model: Any) -> list[str]:
    """Name the features of a row: the columns, ``x0``, ``x1``, ... where there were no names, pixels, or steps in order."""
    import numpy as np

    model = autoencoder_of(model)
    if hasattr(model, "feature_names_in_"):
        return [str(name) for name in model.feature_names_in_]
    if model.schema_.kind == "vector":
        return [f"x{j}" for j in range(model.n_features_in_)]
    if model.schema_.kind == "series":  # time first, so that those of shorter series come first
        channels, steps = model.schema_.shape
        several = [f"_channel_{c}" for c in range(channels)] if channels > 1 else [""]
        return [f"step_{t}{channel}" for t in range(steps) for channel in several]
    shape = model.schema_.shape[1:] if model.codec_.drop_channel else model.schema_.shape
    return ["pixel_" + "_".join(map(str, position)) for position in np.ndindex(*shape)]


def refuse_flags(source: Path, model: str | None, parameters: dict[str, Any]) -> None:
    """Refuse flags that shape a model where a fitted one is used."""
    given = ["model"] * (model is not None) + list(parameters)
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{source} is used as it was fitted; leave out {flags}")


def parse_condition(model: Any, text: str) -> Any:
    """Turn ``setosa``, ``40,1`` or ``age=40,sex=1`` into a condition of a fitted model."""
    conditions = model.codec_.conditions
    if conditions is None:
        raise UsageError(f"{type(model).__name__} was fitted without a condition; leave --condition out")
    if len(conditions.variables) == 1:
        only = conditions.variables[0]
        if "=" in text and only.parse(text) == text:  # any name will do: of labels the model keeps none
            text = text.split("=", 1)[1]
        return only.parse(text)
    parts = [part.strip() for part in text.split(",")]
    known = {v.name: v for v in conditions.variables}
    if all("=" in part for part in parts):
        named = dict(part.split("=", 1) for part in parts)
        told = {name: known[name].parse(value) if name in known else value for name, value in named.items()}
        return dict.fromkeys(known) | told
    if len(parts) != len(known):
        raise UsageError(f"--condition {text}: expected {len(known)} values, for {', '.join(known)}")
    return {name: variable.parse(part) for (name, variable), part in zip(known.items(), parts, strict=True)}


def rows_for(model: Any, rows: Data, labels: str | None, *, needed: bool = True) -> tuple[Any, dict[str, Any]]:
    """Return rows in the columns that a fitted model knows, and their ``condition=`` where the labels are it.

    Unless ``needed``, labels that are no condition are fine.
    """
    conditions = autoencoder_of(model).codec_.conditions
    told = conditions is not None and not conditions.places
    if labels is not None and needed and not told:
        raise UsageError("--labels is for a conditional-vae fitted with --labels; leave it out")
    if labels is not None and labels in rows.columns and labels not in getattr(model, "feature_names_in_", ()):
        rows = rows.without([labels])
    return rows.for_model(model), {"condition": rows.known_labels()} if told and labels is not None else {}
