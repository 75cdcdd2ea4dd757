"""Labels spread from rows that have one to rows that have none, along a graph of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

__all__ = ["Graph"]

NEIGHBOURS = 10
POWER = 3  # of the cosine between neighbours
KEPT = 0.99  # of what a row hears from its neighbours, against what it was told
ROUNDS = 60


class Graph:
    r"""A graph of nearest neighbours among codes.

    Two codes of which one is among the ten nearest of the other are joined by an edge of weight
    :math:`W_{ij} = \cos(z_i, z_j)^3`. Labels :math:`Y` spread by :math:`F \leftarrow \alpha S F + (1 - \alpha) Y`, with
    :math:`S = D^{-1/2} W D^{-1/2}` (Zhou et al., Learning with local and global consistency, NIPS 2003). Then each class gets
    the share of all rows that it has of the labelled ones (class mass normalisation: Zhu, Ghahramani and Lafferty, ICML 2003).

    Parameters
    ----------
    codes : ndarray of shape (n, d)
        One for each row.
    """

    def __init__(self, codes: NDArray[Any]):
        lengths = np.linalg.norm(codes, axis=1, keepdims=True)
        unit = np.ascontiguousarray(codes / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
        n, k = len(unit), min(NEIGHBOURS + 1, len(unit))
        far, which = NearestNeighbors(n_neighbors=k).fit(unit).kneighbors(unit)
        cosine = np.clip(1 - np.square(far) / 2, 0, 1)
        weights = sparse.csr_array((cosine.ravel() ** POWER, (np.repeat(np.arange(n), k), which.ravel())), shape=(n, n))
        weights = weights + weights.T
        weights.setdiag(0)
        degree = np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-12)
        scale = sparse.diags_array(1 / np.sqrt(degree))
        self.matrix = sparse.csr_array(scale @ weights @ scale).astype(np.float32)

    def spread(self, codes: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the chance of each class ``(n, n_classes)``.

        Parameters
        ----------
        codes : ndarray of int64 of shape (n,)
            The class of each row, -1 where it is not known.
        shares : ndarray of shape (n_classes,)
            Share of each class in all rows.
        """
        known = np.flatnonzero(codes >= 0)
        told = np.zeros((len(codes), len(shares)), dtype=np.float32)
        told[known, codes[known]] = 1
        heard = told
        for _ in range(ROUNDS):
            heard = KEPT * (self.matrix @ heard) + (1 - KEPT) * told
        mass = heard.astype(np.float64)
        mass *= shares / np.maximum(mass.sum(axis=0), 1e-300)
        total = mass.sum(axis=1, keepdims=True)
        return np.where(total > 0, mass / np.where(total > 0, total, 1.0), shares)
