"""Models that score items in closed form: popularity, and a linear autoencoder of items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from diabolo.checks import Ge, Gt, Le, ParameterError, check_parameters
from diabolo.data.interactions import as_rows
from diabolo.declare import refuse_unknown, register, spec
from diabolo.saving import Saved
from diabolo.seeding import draw_seed
from diabolo.tasks.ranking import fold, measure_ranking

__all__ = ["EASE", "ClosedForm", "GraphFilter", "ItemPopularity"]

Array = NDArray[Any]
JUDGED = 500  # users by whom l2="auto" is chosen at most
FIRST, FACTOR, TRIALS = (
    400.0,
    2.0,
    12,
)  # the l2 that is tried first, the step to the next, and how many are tried at most
ITEMS_AT_A_TIME = 1000  # whose neighbours are looked for
MOST_ITEMS = 20_000  # whose weights, items by items, still fit into usual memory


@spec
class ClosedForm(Saved, BaseEstimator, ABC):  # type: ignore[misc]
    """A model of users' rows of items that is fitted without training a network."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from what users chose.

        Parameters
        ----------
        X : sparse matrix or array of shape (n_users, n_items)
            0 where nothing was chosen, else 1, a count or a weight.
        y : None
            Ignored.

        Returns
        -------
        self
            Fitted.
        """
        check_parameters(self)
        rows = self._rows(X, reset=True)
        self.popularity_ = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float64)
        self._learn(rows)
        return self

    @abstractmethod
    def _learn(self, rows: Any) -> None:
        """Fit to a sparse matrix of float32."""

    @abstractmethod
    def _scores(self, rows: Any) -> Array:
        """Return the score of each item for each row."""

    def score_items(self, X: Any) -> Array:
        """Score all items for rows of users, who need not have been in ``fit``.

        Parameters
        ----------
        X : sparse matrix or array of shape (n_users, n_items)
            What they chose.

        Returns
        -------
        ndarray of shape (n_users, n_items)
            float32, the higher the better.
        """
        check_is_fitted(self)
        return self._scores(self._rows(X, reset=False))

    def _rows(self, X: Any, *, reset: bool) -> Any:
        if not hasattr(X, "tocsr"):
            X = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite=True)
        else:
            validate_data(self, X, reset=reset, skip_check_array=True)
        return as_rows(X, None if reset else self.n_features_in_)

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters by name; an unknown name is an error that says which was meant."""
        refuse_unknown(type(self).__name__, params, self._get_param_names())
        super().set_params(**params)
        return self

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = getattr(self, "feature_names_in_", None)
        meta = {"n_features_in": self.n_features_in_, "feature_names_in": None if names is None else list(names)}
        return meta, {"popularity": torch.from_numpy(self.popularity_)}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.n_features_in_, self.popularity_ = meta["n_features_in"], tensors["popularity"].numpy()
        if meta["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.positive_only = True
        return tags


@register
@spec
class ItemPopularity(ClosedForm):
    """Scores items by how many users chose them, the same for everybody: what any recommender must beat.

    {parameters}

    Attributes
    ----------
    popularity_ : ndarray of shape (n_items,)
        How many users chose each item.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import ItemPopularity
    >>> ItemPopularity().fit(np.array([[1, 0, 1], [1, 0, 0]])).score_items([[0, 1, 0]]).tolist()
    [[2.0, 0.0, 1.0]]
    """

    weighted: Annotated[bool, "whether to add up counts and ratings instead of counting users"] = False

    def _learn(self, rows: Any) -> None:
        total = np.asarray(rows.sum(axis=0)).ravel() if self.weighted else self.popularity_
        self.strength_ = total.astype(np.float32)

    def _scores(self, rows: Any) -> Array:
        return np.repeat(self.strength_[None], rows.shape[0], axis=0)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta, tensors = super()._get_state()
        return meta, tensors | {"strength": torch.from_numpy(self.strength_)}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(meta, tensors)
        self.strength_ = tensors["strength"].numpy()


@register
@spec
class EASE(ClosedForm):
    r"""The linear autoencoder of items in closed form: no item may explain itself.

    .. math:: \min_B \|X - XB\|_F^2 + \lambda \|B\|_F^2 \quad \text{with } B_{jj} = 0, \qquad
              B_{ij} = -\frac{P_{ij}}{P_{jj}} \ (i \ne j), \quad P = (X^\top X + \lambda I)^{-1}

    With ``user_power`` :math:`p` and ``item_power`` :math:`q` the row of a user of :math:`n` items weighs :math:`n^{-p}`, and
    columns are divided by :math:`c^q`, where :math:`c` is how often the item was chosen: so that neither busy users nor popular
    items have all the say. :math:`X^\top X` is then brought to the mean of its diagonal without, so that :math:`\lambda` means
    the same.

    It is hard to beat on what users chose, and takes seconds for some thousands of items. Memory grows with the square of the
    number of items, time with its cube.

    {parameters}

    Attributes
    ----------
    weights_ : ndarray of shape (n_items, n_items)
        :math:`B`, float32: ``weights_[i, j]`` is what having item ``i`` adds to the score of item ``j``.
    l2_ : float
        The :math:`\lambda` in use.
    candidates_ : dict of float to float
        With ``l2="auto"``, NDCG@100 of held-out users for each value that was tried.

    References
    ----------
    Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, arXiv:1905.03375.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import EASE
    >>> X = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
    >>> scores = EASE(l2=1.0).fit(X).score_items([[1, 0, 0, 0]])
    >>> int(scores.argmax())
    1
    """

    l2: Annotated[
        float | Literal["auto"],
        Gt(0),
        "weight of the squared weights; 'auto' chooses it by NDCG on up to 500 users who are held out, and then learns from all",
    ] = "auto"
    user_power: Annotated[float, Ge(0), "power of the number of a user's items by which the user's row weighs less"] = (
        0.0
    )
    item_power: Annotated[float, Ge(0), "power of an item's popularity by which its column is divided"] = 0.0
    random_state: Annotated[
        int | np.random.RandomState | None, "seed of the users who are held out; None takes fresh entropy"
    ] = None

    def _learn(self, rows: Any) -> None:
        n_items = rows.shape[1]
        if n_items > MOST_ITEMS:
            raise ParameterError(
                f"EASE needs a weight for each pair of items, and X has {n_items}: {n_items**2 * 4 / 1e9:.0f} GB. Use "
                "GraphFilter for catalogues of this size, or leave out rare items"
            )
        self.candidates_: dict[float, float] = {}
        self.l2_ = self._choose(rows) if self.l2 == "auto" else float(self.l2)
        self.weights_ = self._solve(*self._gram(rows), self.l2_)

    def _choose(self, rows: Any) -> float:
        """Try values, each twice the one before, until held-out users are served worse."""
        rng = np.random.default_rng(draw_seed(self.random_state))
        able = rng.permutation(np.flatnonzero(np.diff(rows.indptr) > 1))
        held = able[: min(JUDGED, len(able) // 5)]
        if not len(held):
            return FIRST
        kept = np.setdiff1d(np.arange(rows.shape[0]), held)
        shown, hidden = fold(rows[held], 0.2, rng)
        gram, width = self._gram(rows[kept])
        k = min(100, rows.shape[1])

        def quality(l2: float) -> float:
            if l2 not in self.candidates_:
                weights = self._solve(gram, width, l2)
                found = measure_ranking(lambda h, _: h @ weights, shown, hidden, self.popularity_, (k,))
                self.candidates_[l2] = found[f"ndcg@{k}"]
            return self.candidates_[l2]

        l2, step = FIRST, FACTOR
        if quality(l2 * step) <= quality(l2):
            step = 1 / FACTOR
        while len(self.candidates_) < TRIALS and quality(l2 * step) > quality(l2):
            l2 *= step
        return l2

    def _gram(self, rows: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what items have in common ``(n_items, n_items)``, and what columns were divided by ``(n_items,)``."""
        taken = np.maximum(np.diff(rows.indptr), 1.0) ** (-self.user_power / 2)
        chosen = np.maximum(np.bincount(rows.indices, minlength=rows.shape[1]), 1.0)
        width = chosen**self.item_power
        scaled = sparse.csr_array(sparse.diags_array(taken) @ rows.astype(np.float64) @ sparse.diags_array(1 / width))
        gram = np.asarray((scaled.T @ scaled).toarray())
        usual, found = float(np.square(rows.data, dtype=np.float64).sum()), float(np.trace(gram))
        return gram * (usual / found if found > 0 else 1.0), width

    def _solve(self, gram: NDArray[np.float64], width: NDArray[np.float64], l2: float) -> NDArray[np.float32]:
        """Return the weights, by the inverse of a positive definite matrix."""
        ridge = torch.from_numpy(gram).clone()
        ridge.diagonal().add_(l2)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ridge))
        weights = inverse.div_(-inverse.diagonal().clone())
        weights.fill_diagonal_(0.0)
        if self.item_power > 0:
            by = torch.from_numpy(width)
            weights.mul_(by).div_(by[:, None])
        return np.asarray(weights.float().numpy())

    def _scores(self, rows: Any) -> Array:
        return np.asarray(rows @ self.weights_)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta, tensors = super()._get_state()
        tried = [[l2, quality] for l2, quality in self.candidates_.items()]
        return meta | {"l2": self.l2_, "candidates": tried}, tensors | {"weights": torch.from_numpy(self.weights_)}

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(meta, tensors)
        self.l2_, self.candidates_ = meta["l2"], {l2: quality for l2, quality in meta["candidates"]}  # noqa: C416
        self.weights_ = tensors["weights"].numpy()


@register
@spec
class GraphFilter(ClosedForm):
    r"""A linear autoencoder of items for large catalogues: what is two steps away in the graph of users and items.

    .. math:: B = D_I^{-a} X^\top D_U^{-b} X D_I^{-c}, \qquad B_{jj} = 0

    with :math:`D_U` and :math:`D_I` the numbers of a user's items and of an item's users. Of each row of :math:`B` the largest
    ``n_neighbors`` are kept, so that memory grows with the number of items, and a user is scored in microseconds for each item
    of the history.

    :math:`B` is a symmetric matrix between powers of :math:`D_I`, and its largest eigenvalues :math:`\lambda_1, \dots,
    \lambda_K` belong to what nearly everybody likes. They become :math:`\lambda_K (\lambda / \lambda_K)^p`, which leaves more
    room for what is special to a user.

    {parameters}

    Attributes
    ----------
    weights_ : csr_array of shape (n_items, n_items)
        What is kept of :math:`B`, float32; on its diagonal is what ``factors_`` would have items say of themselves.
    factors_ : tuple of two ndarrays of shape (n_items, n_damped)
        Their product, the first by the transposed second, is what damping takes from :math:`B`.

    References
    ----------
    Shen et al., How powerful is graph convolution for recommendation?, CIKM 2021, arXiv:2108.07567.

    Fu et al., Revisiting neighborhood-based link prediction for collaborative filtering, 2022, arXiv:2203.15789.

    Choi et al., Blurring-sharpening process models for collaborative filtering, SIGIR 2023, arXiv:2211.09324 (that smooth
    scores are to be made sharper again).

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import GraphFilter
    >>> X = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
    >>> int(GraphFilter().fit(X).score_items([[1, 0, 0, 0]]).argmax())
    1
    """

    from_power: Annotated[float, Ge(0), "power a: how much less the popular items of a history say"] = 0.5
    user_power: Annotated[float, Ge(0), "power b: how much less busy users say"] = 0.5
    to_power: Annotated[float, Ge(0), "power c: how much less popular items are recommended"] = 0.1
    n_neighbors: Annotated[int, Ge(1), "weights that are kept of each item"] = 400
    n_damped: Annotated[
        int, Ge(0), "largest eigenvalues that are damped, K; at most a tenth of the users and of the items"
    ] = 80
    damping: Annotated[float, Ge(0), Le(1), "power p that they are left with; 1 leaves them as they are"] = 0.3

    def _learn(self, rows: Any) -> None:
        n_items = rows.shape[1]
        taken = np.maximum(np.diff(rows.indptr), 1.0) ** -self.user_power
        chosen = np.maximum(self.popularity_, 1.0)
        there = sparse.csr_array(sparse.diags_array(chosen**-self.from_power) @ rows.T @ sparse.diags_array(taken))
        back = sparse.csr_array(rows @ sparse.diags_array(chosen**-self.to_power))
        self.factors_ = self._damped(rows, taken, chosen)
        itself = -np.einsum("ij,ij->i", *self.factors_)
        values, places, lengths = [], [], [0]
        for start in range(0, n_items, ITEMS_AT_A_TIME):
            part = sparse.csr_array(there[start : start + ITEMS_AT_A_TIME] @ back)
            for i, (first, last) in enumerate(zip(part.indptr[:-1], part.indptr[1:], strict=True), start):
                near, weight = part.indices[first:last], part.data[first:last]
                near, weight = near[near != i], weight[near != i]
                if len(near) > self.n_neighbors:
                    kept = np.argpartition(-weight, self.n_neighbors)[: self.n_neighbors]
                    near, weight = near[kept], weight[kept]
                places.append(np.append(near, i))
                values.append(np.append(weight, itself[i]).astype(np.float32))
                lengths.append(len(near) + 1)
        cells = (np.concatenate(values), np.concatenate(places), np.cumsum(lengths))
        self.weights_ = sparse.csr_array(cells, shape=(n_items, n_items))

    def _damped(self, rows: Any, taken: Array, chosen: Array) -> tuple[Array, Array]:
        """Return two matrices ``(n_items, k)``, whose product is to be added to the weights."""
        k = min(self.n_damped, min(rows.shape) // 10)
        if k == 0 or self.damping == 1 or not rows.nnz:
            return np.zeros((rows.shape[1], 0), np.float32), np.zeros((rows.shape[1], 0), np.float32)
        both, apart = (self.from_power + self.to_power) / 2, (self.from_power - self.to_power) / 2
        root = sparse.csr_array(sparse.diags_array(np.sqrt(taken)) @ rows @ sparse.diags_array(chosen**-both))
        _, spread, directions = randomized_svd(root, k, n_iter=4, random_state=0)
        values = np.square(spread, dtype=np.float64)
        least = max(values[-1], np.finfo(np.float32).tiny)
        change = least * (values / least) ** self.damping - values
        one = directions.T * chosen[:, None] ** -apart
        return one.astype(np.float32), (directions.T * change * chosen[:, None] ** apart).astype(np.float32)

    def _scores(self, rows: Any) -> Array:
        found = np.asarray((rows @ self.weights_).toarray())
        if self.factors_[0].shape[1]:
            told, by = (torch.from_numpy(np.ascontiguousarray(x)) for x in (rows @ self.factors_[0], self.factors_[1]))
            torch.from_numpy(found).addmm_(told, by.T)
        return found

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta, tensors = super()._get_state()
        parts = {f"weights.{k}": torch.from_numpy(getattr(self.weights_, k)) for k in ("data", "indices", "indptr")}
        factors = {f"factors.{i}": torch.from_numpy(part) for i, part in enumerate(self.factors_)}
        return meta, tensors | parts | factors

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._set_state(meta, tensors)
        parts = tuple(tensors[f"weights.{k}"].numpy() for k in ("data", "indices", "indptr"))
        self.weights_ = sparse.csr_array(parts, shape=(self.n_features_in_, self.n_features_in_))
        self.factors_ = (tensors["factors.0"].numpy(), tensors["factors.1"].numpy())
