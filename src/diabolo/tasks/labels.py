"""Labels and target numbers beside rows, of which some, or most, are not known."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

__all__ = ["read_classes", "read_numbers"]

MARKS = "NaN or None, of whole numbers -1, marks a row without a label"


def read_classes(y: Any, n: int, owner: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Read labels.

    Parameters
    ----------
    y : array-like of shape (n,)
        A label for each row; NaN, None or another missing value of its library, and of numbers -1, where it is not known. With no
        other numbers than -1 and 1 both are classes, since one class alone is nothing to learn.
    n : int
        Rows.
    owner : str
        Who asks, for errors.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        In ascending order.
    codes : ndarray of int64 of shape (n,)
        Position of each label in ``classes``, -1 where it is not known.

    Raises
    ------
    ValueError
        When labels are none, of one class only, or numbers that are no labels.
    """
    values = _column(y, n, owner)
    known = ~_missing(values)
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise ValueError(f"Input y contains infinity: row {int(np.flatnonzero(np.isinf(values))[0])}")
    if values.dtype.kind in "iuf" and not np.isin(values[known], (-1, 1)).all():
        known &= values != -1
    if not known.any():
        raise ValueError(f"{owner} needs labels for some rows, and y has none: {MARKS}")
    found = values[known]
    if found.dtype.kind == "O":
        kinds = sorted({type(v).__name__ for v in found.tolist()})
        if len(kinds) > 1:
            raise ValueError(f"y mixes labels of type {' and '.join(kinds)}; give labels of one type")
        found = np.array(found.tolist())
    if found.dtype.kind == "f" and (found % 1 == 0).all():
        check_classification_targets(found.astype(np.int64))
    else:
        check_classification_targets(found)
    classes, places = np.unique(found, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{owner} needs labels of at least two classes, and y has one class, {classes.tolist()[0]!r}; {MARKS}. To find rows "
            "that are unlike all others use AnomalyDetector."
        )
    codes = np.full(n, -1, dtype=np.int64)
    codes[known] = places
    return classes, codes


def read_numbers(y: Any, n: int, owner: str) -> NDArray[np.float64]:
    """Read numbers to predict ``(n,)``, NaN where they are not known.

    Raises
    ------
    ValueError
        When fewer than two are known, or some are infinite or no numbers.
    """
    values = _column(y, n, owner)
    if values.dtype.kind not in "iufbO":
        raise ValueError(f"{owner} predicts numbers; y holds {values.dtype}. For labels use AutoencoderClassifier.")
    values = np.where(_missing(values), np.nan, values).astype(np.float64)
    if np.isinf(values).any():
        raise ValueError(f"Input y contains infinity: row {int(np.flatnonzero(np.isinf(values))[0])}")
    if (~np.isnan(values)).sum() < 2:
        raise ValueError(
            f"{owner} needs numbers in y for at least two rows, one sample is not enough; NaN or None marks a row without one"
        )
    return values


def _column(y: Any, n: int, owner: str) -> NDArray[Any]:
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None; {MARKS}")
    if hasattr(y, "to_frame") or hasattr(y, "__narwhals_series__") or type(y).__name__ == "ChunkedArray":
        y = nw.from_native(y, series_only=True, allow_series=True).to_numpy()
    values = np.asarray(y)
    if values.dtype.kind in "US":
        values = values.astype(object)
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported in y")
    values = column_or_1d(values, warn=True)
    if len(values) != n:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n} rows, y has {len(values)}"
        )
    return np.asarray(values)


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "O":
        return np.array([_is_missing(v) for v in values.tolist()], dtype=bool)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)


def _is_missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
