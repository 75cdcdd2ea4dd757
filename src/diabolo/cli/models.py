"""What the commands that use a fitted model share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = [
    "STDIN",
    "DataFile",
    "Exclude",
    "Key",
    "ModelFolder",
    "Output",
    "autoencoder_of",
    "feature_names",
    "load_model",
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


def load_model(folder: Path) -> Any:
    """Load a fitted model or detector, set to hand back rows in a kind that is here, whatever it was fitted with."""
    from diabolo.cli.data import frame_library
    from diabolo.persistence import load

    model = load(folder)
    named = hasattr(autoencoder_of(model), "feature_names_in_")
    autoencoder_of(model).codec_.container = (frame_library() if named else None) or "numpy"
    return model


def autoencoder_of(model: Any) -> Any:
    """Return the autoencoder inside a detector, or the model itself."""
    return getattr(model, "autoencoder_", model)


def feature_names(model: Any) -> list[str]:
    """Name the features of a row: the columns, ``x0``, ``x1``, ... where there were no names, or pixels."""
    import numpy as np

    model = autoencoder_of(model)
    if hasattr(model, "feature_names_in_"):
        return [str(name) for name in model.feature_names_in_]
    if model.schema_.kind == "vector":
        return [f"x{j}" for j in range(model.schema_.size)]
    shape = model.schema_.shape[1:] if model.codec_.drop_channel else model.schema_.shape
    return ["pixel_" + "_".join(map(str, position)) for position in np.ndindex(*shape)]
