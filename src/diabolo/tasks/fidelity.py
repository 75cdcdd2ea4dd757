"""How like a table another one is, and how much it gives away: marginals, pairs, detection, distances, membership."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from diabolo.data.columns import Columns
from diabolo.data.tables import is_frame
from diabolo.records import Column
from diabolo.tasks.bins import Bins

__all__ = ["TableComparison", "compare_tables"]

Array = NDArray[np.float64]
COARSE = 10  # bins of a number for pairs
MOST_ROWS = 20_000  # rows of each table that are looked at
NEAR_ROWS = 5000  # rows whose nearest ones are searched for


@dataclass(frozen=True)
class TableComparison:
    """A synthetic table beside the real one.

    Attributes
    ----------
    marginals : dict of str to float
        Distance of each column: of numbers that of Kolmogorov and Smirnov, of labels total variation, missing cells being a
        label; 0 is alike, 1 has nothing in common.
    pairs : float
        Mean over pairs of columns of the total variation between their tables of counts, numbers in ten bins.
    detection : float
        Area under the curve of a classifier (gradient boosting, three folds) that tells synthetic rows from real ones: 0.5 cannot
        tell, 1 always can.
    closest : float
        Median distance of synthetic rows to the closest real row. Distances are Euclidean over columns: numbers in standard
        deviations, labels that differ count 1.
    closest_held_out : float or None
        The same of real rows that the synthesizer has not seen: synthetic rows that are much closer are copies.
    copies : float
        Share of the synthetic rows that are a real row.
    membership : float or None
        Area under the curve of telling rows that the synthesizer learned from others by how close the closest synthetic row is:
        0.5 gives nothing away. None without held-out rows.
    """

    marginals: dict[str, float]
    pairs: float
    detection: float
    closest: float
    closest_held_out: float | None
    copies: float
    membership: float | None

    def __str__(self) -> str:
        worst = max(self.marginals, key=lambda name: self.marginals[name])
        said = [
            f"columns: {np.mean(list(self.marginals.values())):.3f} off on average, {worst!r} {self.marginals[worst]:.3f}",
            f"pairs of columns: {self.pairs:.3f} off",
            f"told from real rows with an AUC of {self.detection:.3f} (0.5 is chance)",
            f"closest real row at {self.closest:.3f}"
            + ("" if self.closest_held_out is None else f", of unseen real rows at {self.closest_held_out:.3f}"),
            f"copies of real rows: {100 * self.copies:.2f} %",
        ]
        if self.membership is not None:
            said.append(f"rows of fit told from others with an AUC of {self.membership:.3f} (0.5 is chance)")
        return "\n".join(said)


def compare_tables(
    real: Any, synthetic: Any, held_out: Any = None, *, columns: dict[str, str] | None = None, random_state: int = 0
) -> TableComparison:
    """Compare a synthetic table with the real one that it was learned from.

    Parameters
    ----------
    real : frame or array
        The rows that were learned from; up to 20,000 are looked at.
    synthetic : frame or array
        Rows of the same columns.
    held_out : frame or array, optional
        Real rows that were not learned from: with them it is told how much the synthetic rows give away.
    columns : dict, optional
        Kinds of columns by name, as in :class:`~diabolo.TableSynthesizer`.
    random_state : int
        Seed.

    Returns
    -------
    TableComparison
        Printed, it is a short report.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import compare_tables
    >>> rows = np.random.default_rng(0).normal(size=(600, 3))
    >>> found = compare_tables(rows[:200], rows[200:400], rows[400:])
    >>> found.detection < 0.65, found.copies
    (True, 0.0)
    """
    rng = np.random.default_rng(random_state)
    described, tables = _read([real, synthetic] + ([] if held_out is None else [held_out]), columns)
    tables = [t[rng.permutation(len(t))[:MOST_ROWS]] for t in tables]
    a, b = tables[:2]
    labelled = np.array([c.kind in ("category", "ordinal", "boolean") for c in described])
    marginals = {c.name: _marginal(a[:, j], b[:, j], bool(labelled[j])) for j, c in enumerate(described)}
    width = np.where(labelled, 1.0, np.maximum(np.nanstd(a, axis=0), 1e-12))
    places = [_place(t, labelled, width, described) for t in tables]
    some = [p[:NEAR_ROWS] for p in places]
    closest = _nearest(places[0], some[1])
    held = _nearest(places[0], some[2]) if held_out is not None else None
    membership = None
    if held_out is not None:
        n = min(len(some[0]), len(some[2]))
        off = np.concatenate([_nearest(places[1], some[0][:n]), _nearest(places[1], some[2][:n])])
        membership = float(roc_auc_score(np.repeat([1, 0], n), -off))
    return TableComparison(
        marginals,
        _pairs(a, b, described),
        _detection(a, b, labelled, random_state),
        float(np.median(closest)),
        None if held is None else float(np.median(held)),
        float((closest < 1e-9).mean()),
        membership,
    )


def _read(given: list[Any], kinds: dict[str, str] | None) -> tuple[list[Column], list[Array]]:
    """Return what columns are, and the cells of each table as numbers; labels that the first one lacks are missing cells."""
    if not is_frame(given[0]):
        tables = [np.asarray(t, dtype=np.float64) for t in given]
        if any(t.ndim != 2 or t.shape[1] != tables[0].shape[1] for t in tables):
            raise ValueError(
                f"expected tables of the same columns, got shapes {', '.join(str(t.shape) for t in tables)}"
            )
        return [Column(str(j), 0.0, 1.0) for j in range(tables[0].shape[1])], tables
    frames = [nw.from_native(t, eager_only=True) for t in given]
    table = Columns.learn(frames[0], kinds)
    return list(table.columns), [table.read(frame)[0] for frame in frames]


def _marginal(a: Array, b: Array, labelled: bool) -> float:
    if labelled:
        values = np.unique(np.concatenate([a, b])[~np.isnan(np.concatenate([a, b]))])
        shares = [np.append([(x == v).mean() for v in values], np.isnan(x).mean()) for x in (a, b)]
        return float(0.5 * np.abs(shares[0] - shares[1]).sum())
    gone = abs(float(np.isnan(a).mean() - np.isnan(b).mean()))
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return 1.0
    every = np.concatenate([a, b])
    steps = [np.searchsorted(x, every, side="right") / len(x) for x in (a, b)]
    return max(gone, float(np.abs(steps[0] - steps[1]).max()))


def _pairs(a: Array, b: Array, described: list[Column]) -> float:
    """Mean total variation between the tables of counts of pairs of columns."""
    if len(described) < 2:
        return 0.0
    bins = [Bins.learn(c, x, COARSE) for c, x in zip(described, a.T, strict=True)]
    codes = [np.column_stack([q.encode(x) + 1 for q, x in zip(bins, t.T, strict=True)]) for t in (a, b)]
    sizes = [len(q.knots) + 1 for q in bins]
    off = []
    for i in range(len(bins)):
        for j in range(i):
            n = sizes[i] * sizes[j]
            shares = [np.bincount(c[:, i] * sizes[j] + c[:, j], minlength=n) / len(c) for c in codes]
            off.append(0.5 * np.abs(shares[0] - shares[1]).sum())
    return float(np.mean(off))


def _detection(a: Array, b: Array, labelled: NDArray[np.bool_], seed: int) -> float:
    n = min(len(a), len(b))
    rows = np.concatenate([a[:n], b[:n]])
    few = np.array([bool(labelled[j]) and np.nanmax(rows[:, j], initial=0) < 250 for j in range(rows.shape[1])])
    y = np.repeat([0, 1], n)
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    judge = HistGradientBoostingClassifier(categorical_features=few, random_state=seed)
    chance = cross_val_predict(judge, rows, y, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(y, chance))


def _place(table: Array, labelled: NDArray[np.bool_], width: Array, described: list[Column]) -> NDArray[np.float32]:
    """Place rows so that Euclidean distances are those of the comparison; a missing cell differs by 1 from all others."""
    parts = []
    for j, column in enumerate(described):
        x = table[:, j]
        if labelled[j]:
            codes = np.nan_to_num(x, nan=-1).astype(np.int64) + 1
            parts.append(np.sqrt(0.5) * np.eye(max(len(column.categories), 2) + 1)[codes])
        else:
            parts.append(np.column_stack([np.nan_to_num(x) / width[j], np.isnan(x)]))
    return np.asarray(np.concatenate(parts, axis=1), dtype=np.float32)


def _nearest(points: NDArray[np.float32], queries: NDArray[np.float32]) -> Array:
    distance = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points).kneighbors(queries)[0][:, 0]
    # brute force takes differences of squares, in which small distances drown
    return np.where(distance < 1e-3, 0.0, distance)
