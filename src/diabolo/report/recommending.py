"""The page about a recommender: what it finds of what was hidden, which items it shows, and lists of some users."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.report.draw import Point, compact, number, percent, point_chart
from diabolo.tasks.ranking import best_items, fold, in_blocks, measure_ranking
from diabolo.tasks.recommendation import Recommender

__all__ = ["recommender_page"]

Array = NDArray[Any]
LENGTHS = (1, 3, 5, 10, 20, 50, 100)  # of lists, as far as there are items
LISTED = 10  # items of the lists whose items are counted and shown
MOST_USERS = 5000  # who are judged
EXAMPLES = 6
POINTS = 400  # items that are drawn at most


def recommender_page(model: Recommender, X: Any) -> dict[str, Any]:
    """Return what the page shows of a recommender on users of ``X``, of each of whom a fifth is hidden."""
    rows, rng = model._read(X, model._warm).matrix, np.random.default_rng(model.seed_)
    rows = rows[np.sort(rng.permutation(rows.shape[0])[:MOST_USERS])]
    shown, hidden = fold(rows, 0.2, rng)
    n_items = model.n_features_in_
    ks = tuple(k for k in LENGTHS if k <= n_items)

    def scores(histories: Any) -> Array:
        return model._scores(histories)[:, :n_items]  # of items that were chosen in fit

    found = measure_ranking(lambda h, _: scores(h), shown, hidden, model.popularity_, ks)
    k = min(LISTED, n_items)
    lists = np.full((rows.shape[0], k), -1, dtype=np.int64)
    for block in in_blocks(rows.shape[0], n_items):
        part = scores(shown[block])
        part[shown[block].nonzero()] = -np.inf
        lists[block], _ = best_items(part, k)
    listed = np.bincount(lists[lists >= 0], minlength=n_items)
    names = [str(v) for v in model.items_.values[:n_items]]
    return {
        "users": number(rows.shape[0]),
        "catalogue": number(n_items),
        "choices": number(model.histories_.nnz),
        "judged": number(float((np.diff(hidden.indptr) > 0).sum())),
        "models": [
            (type(m).__name__, percent(w), number(model.quality_.get(type(m).__name__), 3))
            for m, w in zip(model.models_, model.weights_, strict=True)
        ],
        "k": k,
        "ndcg": number(found[f"ndcg@{k}"], 3),
        "recall": percent(found[f"recall@{k}"]),
        "coverage": percent(found[f"coverage@{k}"]),
        "novelty": compact(found[f"novelty@{k}"]),
        "popularity": compact(found[f"popularity@{k}"]),
        "never": number(float((listed == 0).sum())),
        "curves": [
            (title, _curve(ks, [found[f"{name}@{length}"] for length in ks], title))
            for name, title in (("recall", "recall"), ("ndcg", "NDCG"), ("coverage", "coverage"))
        ],
        "frequency": _frequency(model.popularity_, listed),
        "top": [
            (names[i], number(float(listed[i])), number(float(model.popularity_[i])))
            for i in np.argsort(-listed, kind="stable")[:LISTED]
        ],
        "header": ["list", *(f"{name}" for name in ("NDCG", "recall", "precision", "MAP", "coverage", "novelty"))],
        "rows": [
            [str(length)]
            + [number(found[f"{name}@{length}"], 3) for name in ("ndcg", "recall", "precision", "map", "coverage")]
            + [compact(found[f"novelty@{length}"])]
            for length in ks
        ],
        "examples": _examples(shown, hidden, lists, names),
    }


def _curve(ks: tuple[int, ...], values: list[float], label: str) -> Any:
    points = [Point(float(np.log10(k)), value) for k, value in zip(ks, values, strict=True)]
    return point_chart(
        points, f"{label} by length of list", x_label="length of the list", line=[(p.x, p.y) for p in points], log=True
    )


def _frequency(popularity: Array, listed: Array) -> Any:
    """Draw how often items are listed by how often they were chosen, both one more and logarithmic."""
    chosen = np.flatnonzero(popularity > 0)
    step = max(1, len(chosen) // POINTS)
    some = chosen[np.argsort(-popularity[chosen], kind="stable")][::step]
    points = [Point(float(np.log10(popularity[i])), float(np.log10(1 + listed[i]))) for i in some]
    return point_chart(points, "how often items are listed, by popularity", x_label="times chosen in fit", log=True)


def _examples(shown: Any, hidden: Any, lists: Array, names: list[str]) -> list[dict[str, Any]]:
    """Return what some users chose, what they are shown, and which of that they had chosen."""
    able = np.flatnonzero((np.diff(hidden.indptr) > 0) & (np.diff(shown.indptr) > 0))
    found = []
    for user in able[np.linspace(0, len(able) - 1, min(EXAMPLES, len(able))).round().astype(int)]:
        past = shown.indices[shown.indptr[user] : shown.indptr[user + 1]]
        wanted = set(hidden.indices[hidden.indptr[user] : hidden.indptr[user + 1]].tolist())
        top = [int(i) for i in lists[user] if i >= 0]
        found.append(
            {
                "past": [names[i] for i in past[:LISTED]],
                "more": max(0, len(past) - LISTED),
                "list": [(names[i], i in wanted) for i in top],
                "hits": sum(i in wanted for i in top),
                "hidden": len(wanted),
            }
        )
    return found
