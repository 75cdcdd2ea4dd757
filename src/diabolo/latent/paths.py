"""Ways through the latent space: between rows, along units, along concepts; and what lies near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from diabolo.generation import Generation

__all__ = ["Traversal", "concept_vector", "concept_vectors", "interpolate", "nearest", "slerp", "traverse"]

Array = NDArray[np.float64]


def slerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> Array:
    r"""Spherical linear interpolation: along the arc between two directions, at lengths between theirs.

    .. math:: \frac{\sin((1-t)\,\omega)}{\sin \omega}\,\hat a + \frac{\sin(t\,\omega)}{\sin \omega}\,\hat b, \qquad
              \cos \omega = \hat a \cdot \hat b

    times :math:`(1-t)\,|a| + t\,|b|`. Half-way between two draws of a standard normal a straight line is shorter than any draw
    would be; an arc is not.

    Parameters
    ----------
    a, b : array-like of shape (D,)
        Codes, not 0. Of opposite directions the arc is not defined; a straight line is taken.
    t : array-like of shape (n,)
        Places from 0 to 1.

    Returns
    -------
    ndarray of shape (n, D)
        Codes.

    References
    ----------
    White, Sampling generative networks, 2016, arXiv:1609.04468.

    Examples
    --------
    >>> from diabolo.latent import slerp
    >>> slerp([1.0, 0.0], [0.0, 1.0], [0.5]).round(4)
    array([[0.7071, 0.7071]])
    """
    a, b, t = (np.asarray(v, dtype=np.float64) for v in (a, b, t))
    t = t.reshape(-1, 1)
    size_a, size_b = np.linalg.norm(a), np.linalg.norm(b)
    if size_a == 0 or size_b == 0:
        return np.asarray((1 - t) * a + t * b)
    one, two = a / size_a, b / size_b
    angle = np.arccos(np.clip(one @ two, -1.0, 1.0))
    sine = np.sin(angle)
    if sine < 1e-6:
        return np.asarray((1 - t) * a + t * b)
    direction = (np.sin((1 - t) * angle) * one + np.sin(t * angle) * two) / sine
    return np.asarray(direction * ((1 - t) * size_a + t * size_b))


def interpolate(
    model: Any,
    start: Any,
    end: Any,
    n: int = 9,
    *,
    method: Literal["linear", "spherical"] = "linear",
    condition: Any = None,
) -> Any:
    """Rows between rows, through their codes.

    Parameters
    ----------
    model : estimator
        Fitted.
    start, end : array, frame or tensor
        As many rows each, as in ``fit``: a way leads from each row of ``start`` to that of ``end``.
    n : int
        Rows on each way, both ends included, at least 2.
    method : {"linear", "spherical"}
        Straight through the codes, or along arcs (:func:`slerp`), which stay where codes of a standard normal prior are.
    condition : value, optional
        For a model with a condition: one for all rows.

    Returns
    -------
    array, frame or tensor
        One way after the other, ``n`` rows each, as the model decodes them: the ends are its reconstructions.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> from diabolo.latent import interpolate
    >>> X = load_iris().data
    >>> model = Autoencoder(2, max_epochs=5, random_state=0).fit(X)
    >>> interpolate(model, X[:1], X[100:101], 5).shape
    (5, 4)
    """
    if n < 2:
        raise ValueError(f"n={n}: expected at least 2, the two ends")
    if method not in ("linear", "spherical"):
        raise ValueError(f"method={method!r}: expected 'linear' or 'spherical'")
    a, b = (np.asarray(model.transform(rows, condition=condition), dtype=np.float64) for rows in (start, end))
    if len(a) != len(b):
        raise ValueError(f"start has {len(a)} row(s) and end has {len(b)}; expected as many of each")
    t = np.linspace(0, 1, n)
    if method == "spherical":
        ways = [slerp(one, two, t) for one, two in zip(a, b, strict=True)]
    else:
        ways = [(1 - t[:, None]) * one + t[:, None] * two for one, two in zip(a, b, strict=True)]
    return _decode(model, np.concatenate(ways), condition)


@dataclass(frozen=True)
class Traversal:
    """Rows along units of a code.

    Attributes
    ----------
    units : ndarray of shape (U,)
        Which units, those that vary most over rows first.
    values : ndarray of shape (U, n)
        What each takes.
    rows : array, frame or tensor
        ``U * n`` decoded rows, one unit after the other.
    """

    units: NDArray[np.int64]
    values: Array
    rows: Any


def traverse(
    model: Any,
    X: Any,
    *,
    base: Any = None,
    units: ArrayLike | None = None,
    n: int = 9,
    share: float = 0.95,
    condition: Any = None,
) -> Traversal:
    """Vary one unit of a code at a time, all others staying as they are.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : array, frame or tensor
        Rows that say how far units go.
    base : array, frame or tensor, optional
        One row whose code is varied; the mean code of ``X`` by default.
    units : array-like of int, optional
        Units to vary; by default up to ten that vary most.
    n : int
        Steps along each.
    share : float
        Middle part of the values over ``X`` that a unit goes through.
    condition : value, optional
        For a model with a condition: one for all rows.

    Returns
    -------
    Traversal
        Units, values and rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import VAE
    >>> from diabolo.latent import traverse
    >>> X = load_iris().data
    >>> traverse(VAE(2, max_epochs=5, random_state=0).fit(X), X, n=3).rows.shape
    (6, 4)
    """
    if n < 2 or not 0 < share <= 1:
        raise ValueError(f"n={n}, share={share}: expected at least 2 steps, and a share above 0 and up to 1")
    Z = np.asarray(model.transform(X, condition=condition), dtype=np.float64)
    centre = (
        Z.mean(axis=0) if base is None else np.asarray(model.transform(base, condition=condition), dtype=np.float64)[0]
    )
    order = (
        np.argsort(-Z.var(axis=0), kind="stable")[:10] if units is None else np.asarray(units, dtype=np.int64).ravel()
    )
    wrong = [int(u) for u in order if not 0 <= u < Z.shape[1]]
    if wrong:
        raise ValueError(f"units names {wrong[0]}; the code has units 0 to {Z.shape[1] - 1}")
    low, high = np.quantile(Z[:, order], [(1 - share) / 2, (1 + share) / 2], axis=0)
    values = np.linspace(low, high, n, axis=1)  # (U, n)
    codes = np.tile(centre, (len(order), n, 1))
    for i, unit in enumerate(order):
        codes[i, :, unit] = values[i]
    return Traversal(order, values, _decode(model, codes.reshape(-1, Z.shape[1]), condition))


def concept_vector(model: Any, positive: Any, negative: Any, *, condition: Any = None) -> Array:
    """Direction of a concept: the mean code of rows that have it, less that of rows that do not.

    Add it to codes and decode, ``model.inverse_transform(model.transform(X) + v)``, to give rows the concept; subtract it to take
    it away; add up vectors for several.

    Parameters
    ----------
    model : estimator
        Fitted.
    positive, negative : array, frame or tensor
        Rows as in ``fit``, with and without.
    condition : value, optional
        For a model with a condition.

    Returns
    -------
    ndarray of shape (latent_dim,)
        The direction.

    References
    ----------
    Larsen et al., Autoencoding beyond pixels using a learned similarity metric, 2016, arXiv:1512.09300.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> from diabolo.latent import concept_vector
    >>> X, y = load_iris(return_X_y=True)
    >>> model = Autoencoder(2, max_epochs=5, random_state=0).fit(X)
    >>> concept_vector(model, X[y == 2], X[y == 0]).shape
    (2,)
    """
    a, b = (np.asarray(model.transform(rows, condition=condition), dtype=np.float64) for rows in (positive, negative))
    return np.asarray(a.mean(axis=0) - b.mean(axis=0))


def concept_vectors(model: Any, X: Any, labels: Any, *, condition: Any = None) -> dict[Any, Array]:
    """Direction of each label: the mean code of its rows, less the mean over labels of such means.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : array, frame or tensor
        Rows as in ``fit``.
    labels : array-like of shape (n,)
        A label for each row, of at least two kinds.
    condition : value, optional
        For a model with a condition.

    Returns
    -------
    dict
        From labels to directions ``(latent_dim,)``. The vector from one label to another is the difference of theirs.
    """
    labels = np.asarray(labels)
    Z = np.asarray(model.transform(X, condition=condition), dtype=np.float64)
    if labels.shape != (len(Z),):
        raise ValueError(f"labels has shape {labels.shape}; expected one label for each of {len(Z)} rows")
    kinds = np.unique(labels)
    if len(kinds) < 2:
        raise ValueError(f"labels has {len(kinds)} kind(s); a direction needs at least 2")
    means = np.stack([Z[labels == kind].mean(axis=0) for kind in kinds])
    return dict(zip(kinds.tolist(), means - means.mean(axis=0), strict=True))


def nearest(model: Any, X: Any, queries: Any, k: int = 5, *, condition: Any = None) -> tuple[NDArray[np.int64], Array]:
    """Rows whose codes are nearest.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : array, frame or tensor
        Rows to search.
    queries : array, frame or tensor
        Rows to search for.
    k : int
        How many for each.
    condition : value, optional
        For a model with a condition.

    Returns
    -------
    index : ndarray of shape (n_queries, k)
        Positions in ``X``, the nearest first.
    distance : ndarray of shape (n_queries, k)
        Euclidean distances of codes.
    """
    Z, Q = (model.transform(rows, condition=condition) for rows in (X, queries))
    if not 1 <= k <= len(Z):
        raise ValueError(f"k={k}: expected 1 to {len(Z)}, the rows of X")
    distance, index = NearestNeighbors(n_neighbors=k).fit(Z).kneighbors(Q)
    return index, distance


def _decode(model: Generation, Z: Array, condition: Any) -> Any:
    """Decode codes, brought to where codes of this model may lie."""
    check_is_fitted(model)
    Z = check_array(Z, dtype=np.float64)
    module = model.module_
    like = next(module.bottleneck.parameters(), next(module.parameters()))
    with torch.no_grad():
        codes = module.bottleneck.project(torch.from_numpy(Z).to(like).view(-1, *module.code_shape))
    return model.inverse_transform(codes.flatten(1).double().cpu().numpy(), condition=condition)
