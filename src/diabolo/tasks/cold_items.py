"""Items that nobody chose yet, scored by what is known of them."""

from __future__ import annotations

from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from diabolo.checks import did_you_mean
from diabolo.data.arrays import ArrayCodec
from diabolo.data.interactions import Ids
from diabolo.data.tables import is_frame, read_frame

__all__ = ["ColdItems"]

NEIGHBOURS = 10


class ColdItems:
    """Scores a cold item as the items on the mean whose features are nearest.

    Parameters
    ----------
    ids : list
        The cold items.
    mixing : csr_array of shape (n_cold, n_items)
        The share of each item in the score of a cold one.
    """

    def __init__(self, ids: list[Any], mixing: Any):
        self.ids, self.mixing = ids, mixing

    @classmethod
    def learn(cls, features: Any, item: str, known: Ids) -> Self:
        """Find the neighbours of each item that is in ``features`` and not ``known``.

        Raises
        ------
        ValueError
            When there is no column of ids, an item has two rows, or no item of fit has features.
        """
        if not is_frame(features):
            raise TypeError(f"item_features: expected a frame with a column {item!r}, got {type(features).__name__}")
        frame = nw.from_native(features, eager_only=True)
        if item not in frame.columns:
            raise ValueError(f"item_features has no column {item!r}.{did_you_mean(item, map(str, frame.columns))}")
        ids = frame.get_column(item).to_list()
        if len(set(ids)) < len(ids):
            twice = next(v for i, v in enumerate(ids) if v in ids[:i])
            raise ValueError(f"item_features has more than one row for item {twice!r}")
        if len(frame.columns) == 1:
            raise ValueError(f"item_features has no column but {item!r}; add what is known of the items")
        raw = read_frame(frame.drop(item).to_native(), learn=True)
        codec = ArrayCodec.fit(raw, "standard")
        x = codec.encode(raw).x.numpy()
        warm = np.array([v in known.places for v in ids])
        if not warm.any():
            raise ValueError("item_features tells nothing of any item of fit; are its ids of another type?")
        places = known.locate([v for v, w in zip(ids, warm, strict=True) if w])
        cold = [v for v, w in zip(ids, warm, strict=True) if not w]
        if not cold:
            return cls([], sparse.csr_array((0, len(known)), dtype=np.float32))
        k = min(NEIGHBOURS, int(warm.sum()))
        near = NearestNeighbors(n_neighbors=k).fit(x[warm]).kneighbors(x[~warm], return_distance=False)
        share = np.full(near.size, 1 / k, dtype=np.float32)
        cells = (share, places[near].ravel(), np.arange(len(cold) + 1) * k)
        return cls(cold, sparse.csr_array(cells, shape=(len(cold), len(known))))

    def append(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the scores of cold items behind those of items ``(n, n_items)``."""
        return np.hstack([scores, np.asarray((self.mixing @ scores.T).T, dtype=np.float32)])

    def tensors(self) -> dict[str, Tensor]:
        """Return the shares as tensors by name."""
        return {f"cold.{k}": torch.from_numpy(getattr(self.mixing, k)) for k in ("data", "indices", "indptr")}

    @classmethod
    def from_tensors(cls, ids: list[Any], tensors: dict[str, Tensor], n_items: int) -> Self:
        """Build from ids and what ``tensors`` returned."""
        parts = tuple(tensors[f"cold.{k}"].numpy() for k in ("data", "indices", "indptr"))
        return cls(ids, sparse.csr_array(parts, shape=(len(ids), n_items)))
