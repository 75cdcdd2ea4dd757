"""Real data sets by name. All but ``mnist`` come with scikit-learn and need no network."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.checks import did_you_mean

__all__ = ["Dataset", "available", "load"]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Rows, a label for each, and what they are.

    Attributes
    ----------
    X : ndarray
        Rows ``(n, features)`` in float64, or images ``(n, height, width)``.
    y : ndarray of shape (n,)
        Labels, counted from 0.
    names : tuple of str
        Names of the columns; empty for images.
    classes : tuple of str
        What each label means.
    description : str
        One sentence.
    """

    X: NDArray[Any]
    y: NDArray[np.int64]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    description: str

    def __repr__(self) -> str:
        return f"Dataset(X={self.X.shape} {self.X.dtype}, classes={len(self.classes)}: {self.description})"


DIGITS = tuple(str(digit) for digit in range(10))


def _digits(path: Path | None) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.float32)
    return Dataset(
        images, bunch.target.astype(np.int64), (), DIGITS, "8 x 8 images of handwritten digits, values 0 to 16"
    )


def _table(name: str, description: str) -> Callable[[Path | None], Dataset]:
    def load_table(path: Path | None) -> Dataset:
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{name}")()
        names, classes = tuple(map(str, bunch.feature_names)), tuple(map(str, bunch.target_names))
        return Dataset(bunch.data, bunch.target.astype(np.int64), names, classes, description)

    return load_table


def _mnist(path: Path | None) -> Dataset:
    description = "28 x 28 images of handwritten digits, values 0 to 255; the last 10 000 rows are the test rows"
    if path is None:
        from sklearn.datasets import fetch_openml

        # Without pandas, scikit-learn has a slower parser.
        parser = "pandas" if importlib.util.find_spec("pandas") is not None else "liac-arff"
        X, y = fetch_openml("mnist_784", version=1, as_frame=False, parser=parser, return_X_y=True)
    else:
        try:
            with path.open("rb") as file:  # numpy leaves the file open when it is damaged
                arrays = np.load(file, allow_pickle=False)
                X = np.concatenate([arrays["x_train"], arrays["x_test"]])
                y = np.concatenate([arrays["y_train"], arrays["y_test"]])
        except (ValueError, EOFError, LookupError, zipfile.BadZipFile) as error:
            wanted = "an NPZ file with the arrays x_train, y_train, x_test and y_test"
            raise ValueError(f"{path}: expected {wanted} ({error})") from None
    return Dataset(X.reshape(-1, 28, 28).astype(np.uint8), y.astype(np.int64), (), DIGITS, description)


_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "breast_cancer": _table("breast_cancer", "30 measurements of cell nuclei in breast tumours"),
    "digits": _digits,
    "iris": _table("iris", "4 measurements of iris flowers of three species"),
    "mnist": _mnist,
    "wine": _table("wine", "13 chemical measurements of wines of three growers"),
}


def available() -> list[str]:
    """Return the names that :func:`load` knows.

    Examples
    --------
    >>> from diabolo import datasets
    >>> datasets.available()
    ['breast_cancer', 'digits', 'iris', 'mnist', 'wine']
    """
    return sorted(_LOADERS)


def load(name: str, *, path: str | Path | None = None) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str
        One of :func:`available`.
    path : str or Path, optional
        For ``"mnist"``, a local ``mnist.npz``; without it the data are fetched from OpenML, which needs a network.

    Returns
    -------
    Dataset
        The rows, their labels and their names.

    Raises
    ------
    ValueError
        When there is no such data set, or the file is not one.

    Examples
    --------
    >>> from diabolo import datasets
    >>> digits = datasets.load("digits")
    >>> digits.X.shape, digits.X.dtype
    ((1797, 8, 8), dtype('float32'))
    """
    if name not in _LOADERS:
        raise ValueError(
            f"there is no data set {name!r}.{did_you_mean(name, _LOADERS)} There are: {', '.join(available())}."
        )
    if path is not None and name != "mnist":
        raise ValueError(f"path= is for 'mnist'; {name!r} comes with scikit-learn")
    return _LOADERS[name](None if path is None else Path(path))
