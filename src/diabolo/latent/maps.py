"""Maps of codes in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from diabolo.seeding import draw_seed

__all__ = ["latent_map"]


def latent_map(
    model: Any, X: Any, method: Any = "pca", *, condition: Any = None, random_state: Any = None
) -> NDArray[np.float64]:
    """Place rows on a map by their codes.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : array, frame or tensor
        Rows as in ``fit``.
    method : {"pca", "tsne", "umap"} or object with fit_transform
        Principal components, which keep distances between groups; t-SNE, which keeps neighbours, in about a second for every
        three hundred rows; UMAP (extra ``maps``: the package umap-learn). Or any estimator that maps to two numbers.
    condition : value, optional
        For a model with a condition.
    random_state : int, RandomState or None
        Seed.

    Returns
    -------
    ndarray of shape (n, 2)
        Places. A code of one unit gets 0 for its second place, and one of two units with ``"pca"`` is only turned.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> from diabolo.latent import latent_map
    >>> X = load_iris().data
    >>> latent_map(Autoencoder(3, max_epochs=5, random_state=0).fit(X), X).shape
    (150, 2)
    """
    Z = np.asarray(model.transform(X, condition=condition), dtype=np.float64)
    if Z.shape[1] == 1 or len(Z) < 3:
        return np.column_stack([Z[:, 0], Z[:, 1] if Z.shape[1] > 1 else np.zeros(len(Z))])
    seed = draw_seed(random_state)
    if hasattr(method, "fit_transform"):
        place = np.asarray(clone(method).fit_transform(Z), dtype=np.float64)
        if place.shape != (len(Z), 2):
            raise ValueError(
                f"{type(method).__name__} returned shape {place.shape}; expected two numbers a row, {(len(Z), 2)}"
            )
        return place
    if method == "pca":
        made: Any = PCA(2, random_state=seed)
    elif method == "tsne":
        made = TSNE(2, init="pca", perplexity=min(30.0, (len(Z) - 1) / 3), random_state=seed)
    elif method == "umap":
        made = _umap(seed, len(Z))
    else:
        raise ValueError(f"method={method!r}: expected 'pca', 'tsne', 'umap', or an object with fit_transform")
    return np.asarray(made.fit_transform(Z), dtype=np.float64)


def _umap(seed: int, n: int) -> Any:
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError("method='umap' needs the package umap-learn: pip install 'diabolo[maps]'") from error
    return UMAP(n_neighbors=min(15, n - 1), random_state=seed, n_jobs=1)
