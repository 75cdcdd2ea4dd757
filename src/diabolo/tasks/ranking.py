"""Rankings of items: the best of many scores, how good a ranking is, and rows that are split for the purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from diabolo.data.interactions import Interactions

__all__ = ["best_items", "fold", "in_blocks", "measure_ranking", "split_rows"]

Array = NDArray[Any]
BLOCK = 2**22  # scores held at a time


def in_blocks(n_rows: int, n_items: int) -> Iterator[slice]:
    """Cut users into blocks whose scores take little memory."""
    size = max(1, BLOCK // max(1, n_items))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def best_items(scores: Array, k: int) -> tuple[NDArray[np.int64], Array]:
    """Return the ``k`` best items of each row and their scores ``(n, k)``, best first; -1 where a score is minus infinity."""
    top, places = torch.from_numpy(scores).topk(k, dim=1)
    found = places.numpy()
    return np.where(np.isneginf(top.numpy()), -1, found), top.numpy()


def select_cells(matrix: Any, keep: NDArray[np.bool_]) -> Any:
    """Return the stored cells of a matrix that are kept, in a matrix of the same shape."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[keep]
    indptr = np.searchsorted(rows, np.arange(matrix.shape[0] + 1))
    return sparse.csr_array((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)


def fold(matrix: Any, share: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Split what each user chose at random: a history to show, and the rest, ``share`` of it, to find.

    Users of a single item keep it in their history.
    """
    order = rng.random(matrix.nnz)
    lengths = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.empty(matrix.nnz, dtype=np.int64)
    rank[np.lexsort((order, rows))] = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    hidden = np.minimum(np.maximum(np.round(lengths * share), 1), lengths - 1).clip(0)
    late = rank >= np.repeat(lengths - hidden, lengths)
    return select_cells(matrix, ~late), select_cells(matrix, late)


def split_rows(found: Interactions, split: str, share: float, n_users: int | None, seed: int) -> tuple[Any, Any, Any]:
    """Split who chose what for an evaluation; see :meth:`diabolo.Recommender.evaluate`.

    Returns
    -------
    train, shown, hidden : csr_array
        Rows to learn from; and of the users who are judged their histories, and what is to be found.
    """
    rows, rng = found.matrix, np.random.default_rng(seed)
    if split == "strong":
        order = rng.permutation(rows.shape[0])
        held = max(1, round(0.1 * len(order))) if n_users is None else n_users
        if not 0 < held < len(order):
            raise ValueError(f"n_users={n_users!r}: expected 1 to {len(order) - 1} of {len(order)} users")
        return (rows[np.sort(order[held:])], *fold(rows[np.sort(order[:held])], share, rng))
    if n_users is not None:
        raise ValueError(f"n_users={n_users} is for split='strong'; split={split!r} judges all users")
    if split == "weak":
        shown, hidden = fold(rows, share, rng)
        return shown, shown, hidden
    if found.time is None:
        raise ValueError("split='time' needs events with a column of times; say which one with time=")
    late = found.time >= np.quantile(found.time, 1 - share)
    shown, hidden = select_cells(rows, ~late), select_cells(rows, late)
    there = np.flatnonzero(np.diff(shown.indptr))
    return shown, shown[there], hidden[there]


def measure_ranking(
    scorer: Callable[[Any, NDArray[np.int64]], Array],
    histories: Any,
    relevant: Any,
    popularity: NDArray[np.float64],
    ks: tuple[int, ...],
) -> dict[str, float]:
    r"""Rank all items for each user, but for those of the history, and compare with what is relevant.

    Parameters
    ----------
    scorer : callable
        ``(histories, users) -> scores`` ``(n, n_items)``, the higher the better.
    histories, relevant : csr_array of shape (n_users, n_items)
        What a user is known to have chosen, and what is to be found. Users without anything to find are left out.
    popularity : ndarray of shape (n_items,)
        In how many histories of training an item was.
    ks : tuple of int
        Lengths of the list.

    Returns
    -------
    dict of str to float
        Means over users. ``ndcg@k`` with gain 1 for a relevant item; ``recall@k``, the share of the relevant items that are
        in the list; ``capped_recall@k``, the same divided by ``min(k, relevant)``, as Liang et al. (2018) have it;
        ``precision@k``; ``map@k``, average precision divided by the number of relevant items as in trec_eval; and of the lists
        together ``coverage@k``, the share of all items that are in any of them, ``novelty@k``, the mean of
        :math:`-\log_2` of the share of all choices that fell on the item, in bits, and ``popularity@k``, how many times as
        popular the listed items are as the relevant ones.
    """
    users = np.flatnonzero(np.diff(relevant.indptr))
    if not len(users):
        raise ValueError("there is nothing to find: no user has two items or more")
    n_items, most = histories.shape[1], max(ks)
    if most > n_items:
        raise ValueError(f"k={most}: there are {n_items} items")
    discount = 1 / np.log2(np.arange(2, most + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    share = (popularity + 1) / (popularity.sum() + n_items)
    sums: dict[str, float] = {}
    listed = {k: np.zeros(n_items, dtype=bool) for k in ks}
    for block in in_blocks(len(users), n_items):
        rows = users[block]
        seen, wanted = histories[rows], relevant[rows]
        scores = np.array(scorer(seen, rows), dtype=np.float32)
        scores[seen.nonzero()] = -np.inf
        top, _ = best_items(scores, most)
        there = top >= 0
        hit = np.take_along_axis(wanted.toarray() > 0, np.maximum(top, 0), axis=1) & there
        n = np.diff(wanted.indptr)
        target = np.repeat(1 / n, n) @ popularity[wanted.indices]
        for k in ks:
            h = hit[:, :k]
            found = h.sum(axis=1)
            precision = np.cumsum(h, axis=1) / np.arange(1, k + 1)
            items = top[:, :k][there[:, :k]]
            listed[k][items] = True
            length = np.maximum(there[:, :k].sum(axis=1), 1)
            each = np.where(there[:, :k], popularity[np.maximum(top[:, :k], 0)], 0).sum(axis=1) / length
            news = np.where(there[:, :k], -np.log2(share[np.maximum(top[:, :k], 0)]), 0).sum(axis=1) / length
            parts = {
                f"ndcg@{k}": (h * discount[:k]).sum(axis=1) / ideal[np.minimum(n, k)],
                f"recall@{k}": found / n,
                f"capped_recall@{k}": found / np.minimum(n, k),
                f"precision@{k}": found / k,
                f"map@{k}": (precision * h).sum(axis=1) / n,
                f"novelty@{k}": news,
                f"popularity@{k}": each,
            }
            for name, values in parts.items():
                sums[name] = sums.get(name, 0.0) + float(values.sum())
        sums["target"] = sums.get("target", 0.0) + float(target)
    target = sums.pop("target")
    means = {name: total / len(users) for name, total in sums.items()}
    for k in ks:
        means[f"popularity@{k}"] = sums[f"popularity@{k}"] / target if target > 0 else float("nan")
        means[f"coverage@{k}"] = float(listed[k].mean())
    return means
