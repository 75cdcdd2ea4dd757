"""How far single units of a code stand for single factors of the data, where the factors are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import mutual_info_score

__all__ = ["dci", "factor_vae_score", "mutual_information_gap", "separated_attribute_predictability"]

Array = NDArray[np.float64]
BINS = 20


def mutual_information_gap(codes: ArrayLike, factors: ArrayLike) -> float:
    r"""Mutual information gap (MIG): whether each factor is known to one unit much better than to any other.

    .. math:: \frac1K \sum_k \frac{I(z_{j(k)}; v_k) - \max_{j \ne j(k)} I(z_j; v_k)}{H(v_k)}, \qquad
              j(k) = \arg\max_j I(z_j; v_k)

    with units in 20 bins of equal width.

    Parameters
    ----------
    codes : array-like of shape (n, D)
        Codes, of at least two units.
    factors : array-like of shape (n, K)
        Classes or levels of each factor, each of at least two values.

    Returns
    -------
    float
        From 0 to 1, where 1 is best.

    References
    ----------
    Chen et al., Isolating sources of disentanglement in variational autoencoders, 2018, arXiv:1802.04942.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo.latent import mutual_information_gap
    >>> v = np.random.default_rng(0).integers(4, size=(2000, 2))
    >>> round(mutual_information_gap(v + 0.0, v), 1), round(mutual_information_gap(v @ [[1.0, 1], [1, -1]], v), 1)
    (1.0, 0.0)
    """
    Z, V = _read(codes, factors)
    binned = np.stack([np.digitize(z, np.histogram_bin_edges(z, BINS)[1:-1]) for z in Z.T], axis=1)
    gaps = []
    for v in V.T:
        shared = np.sort([mutual_info_score(v, z) for z in binned.T])
        gaps.append((shared[-1] - shared[-2]) / mutual_info_score(v, v))
    return float(np.mean(gaps))


def factor_vae_score(
    codes: ArrayLike, factors: ArrayLike, *, n_votes: int = 800, n_rows: int = 64, random_state: int = 0
) -> float:
    """Score of the paper of FactorVAE: whether the unit that varies least tells which factor is held.

    Groups of rows that have one value of one factor vote: the vote is the unit with the least variance in the group, over its
    variance in all rows. The score is the accuracy of the majority vote that maps units to factors, on votes of its own.

    Parameters
    ----------
    codes : array-like of shape (n, D)
        Codes.
    factors : array-like of shape (n, K)
        Classes or levels of each factor.
    n_votes : int
        Votes to learn from; half as many judge.
    n_rows : int
        Rows of a group, drawn with replacement.
    random_state : int
        Seed.

    Returns
    -------
    float
        From about ``1 / K`` to 1. Units whose variance is below a twentieth of the largest do not vote.

    References
    ----------
    Kim and Mnih, Disentangling by factorising, 2018, arXiv:1802.05983.
    """
    Z, V = _read(codes, factors)
    rng = np.random.default_rng(random_state)
    spread = Z.var(axis=0)
    alive = np.flatnonzero(spread > spread.max() / 20)
    if not len(alive):
        return 0.0
    Z = Z[:, alive] / np.sqrt(spread[alive])
    groups = [[np.flatnonzero(v == value) for value in np.unique(v)] for v in V.T]
    votes = np.zeros((2, len(alive), V.shape[1]))
    for i in range(n_votes + n_votes // 2):
        k = int(rng.integers(V.shape[1]))
        rows = rng.choice(groups[k][rng.integers(len(groups[k]))], n_rows)
        votes[int(i >= n_votes), Z[rows].var(axis=0).argmin(), k] += 1
    chosen = votes[0].argmax(axis=1)
    return float(votes[1][np.arange(len(alive)), chosen].sum() / votes[1].sum())


def separated_attribute_predictability(codes: ArrayLike, factors: ArrayLike) -> float:
    """Separated attribute predictability (SAP): how much better the best unit alone predicts a factor than the second best.

    Parameters
    ----------
    codes : array-like of shape (n, D)
        Codes, of at least two units.
    factors : array-like of shape (n, K)
        Classes or levels of each factor.

    Returns
    -------
    float
        Mean over factors of the difference of accuracies, of small trees on half of the rows, judged on the other.

    References
    ----------
    Kumar et al., Variational inference of disentangled latent concepts, 2018, arXiv:1711.00848.
    """
    Z, V = _read(codes, factors)
    half = len(Z) // 2
    gaps = []
    for v in V.T:
        found = []
        for z in Z.T:
            tree = HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=16, early_stopping=False, random_state=0)
            found.append(float(tree.fit(z[:half, None], v[:half]).score(z[half:, None], v[half:])))
        first, second = sorted(found, reverse=True)[:2]
        gaps.append(first - second)
    return float(np.mean(gaps))


def dci(codes: ArrayLike, factors: ArrayLike, *, n_trees: int = 50, random_state: int = 0) -> dict[str, float]:
    """Disentanglement, completeness and informativeness, from the importances of units in forests that predict factors.

    Parameters
    ----------
    codes : array-like of shape (n, D)
        Codes, of at least two units.
    factors : array-like of shape (n, K)
        Classes or levels of each factor, at least two factors.
    n_trees : int
        Trees of a forest.
    random_state : int
        Seed.

    Returns
    -------
    dict
        ``"disentanglement"``: 1 where each unit serves one factor; ``"completeness"``: 1 where each factor is served by one
        unit; both are 1 less an entropy over its largest value. ``"informativeness"``: mean accuracy on held-out rows.

    References
    ----------
    Eastwood and Williams, A framework for the quantitative evaluation of disentangled representations, ICLR 2018.
    """
    Z, V = _read(codes, factors)
    half = len(Z) // 2
    importance, right = [], []
    for v in V.T:
        forest = RandomForestClassifier(n_trees, min_samples_leaf=5, max_features=None, random_state=random_state).fit(
            Z[:half], v[:half]
        )
        importance.append(forest.feature_importances_)
        right.append(float(forest.score(Z[half:], v[half:])))
    R = np.array(importance).T  # (D, K)
    weight = R.sum(axis=1) / R.sum()
    return {
        "disentanglement": float((weight * (1 - _entropy(R))).sum()),
        "completeness": float((1 - _entropy(R.T)).mean()),
        "informativeness": float(np.mean(right)),
    }


def _entropy(weights: Array) -> Array:
    """Entropy of each row as a distribution, over the largest that there is."""
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    logs = np.log(np.maximum(share, 1e-12))
    return np.asarray(-(share * logs).sum(axis=1) / np.log(max(2, share.shape[1])))


def _read(codes: ArrayLike, factors: ArrayLike) -> tuple[Array, NDArray[Any]]:
    Z, V = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    V = V[:, None] if V.ndim == 1 else V
    if Z.ndim != 2 or V.ndim != 2 or len(Z) != len(V):
        raise ValueError(f"expected codes (n, D) and factors (n, K), got shapes {Z.shape} and {V.shape}")
    if Z.shape[1] < 2:
        raise ValueError("the code has one unit; whether units are apart needs at least 2")
    flat = [k for k, v in enumerate(V.T) if len(np.unique(v)) < 2]
    if flat:
        raise ValueError(f"factor {flat[0]} has one value in all rows; expected at least 2")
    return Z, V
