"""The command that predicts classes and numbers."""

from __future__ import annotations

from diabolo.cli.catalog import UsageError
from diabolo.cli.models import DataFile, Exclude, Key, ModelFolder, Output, load_model

__all__ = ["predict"]


def predict(
    model: ModelFolder, data: DataFile, /, *, output: Output = None, exclude: Exclude = "", key: Key = None
) -> int:
    """Write the class of each row and how likely each class is, or its number.

    The model is one of diabolo fit --classifier or --regressor. Rows are numbered from 0.
    """
    import numpy as np

    from diabolo.cli.data import read_data
    from diabolo.cli.output import check_output, write_columns

    check_output(output, npy=False)
    rows = read_data(data, key=key, exclude=exclude)
    fitted = load_model(model)
    if not hasattr(fitted, "heads_"):
        raise UsageError(
            f"{model} holds no classifier and no regressor; diabolo fit --classifier --labels COLUMN makes one"
        )
    X = rows.for_model(fitted)
    if not hasattr(fitted, "predict_proba"):
        found = fitted.predict(X)
        write_columns(output, {"row": np.arange(len(found)), "prediction": found})
        return 0
    chances = fitted.predict_proba(X)
    best = fitted.classes_[chances.argmax(axis=1)]
    columns = {"row": np.arange(len(best)), "prediction": best if best.dtype.kind in "iufb" else best.astype(object)}
    columns |= {f"p({label})": chances[:, k] for k, label in enumerate(fitted.classes_)}
    write_columns(output, columns)
    return 0
