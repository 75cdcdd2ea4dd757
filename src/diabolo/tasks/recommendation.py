"""Recommendation: who may like what, by what they and others chose."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.checks import Ge, Le, ParameterError, check_parameters
from diabolo.data.interactions import Events, Ids, Interactions, as_rows, read_interactions
from diabolo.data.sparse import is_sparse
from diabolo.data.tables import is_frame
from diabolo.declare import register, spec
from diabolo.notices import warn
from diabolo.saving import Saved
from diabolo.seeding import draw_seed
from diabolo.tasks.blends import blended, fit_blend, fit_scorer, usual_models
from diabolo.tasks.cold_items import ColdItems
from diabolo.tasks.ranking import best_items, fold, in_blocks, measure_ranking, split_rows

__all__ = ["Recommender"]

Array = NDArray[Any]


@register
@spec
class Recommender(Saved, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Recommends items by what users chose, also to users whom it has never seen.

    It learns from a frame of events, one choice a row, or from a sparse matrix of users by items. New users need no second fit:
    their choices are all that it takes. Ids come back as they were given.

    Users who chose nothing are shown what is most popular. A saved recommender holds what users chose, so that they can be
    served by their ids.

    {parameters}

    Attributes
    ----------
    models_ : list of estimators
        The fitted models.
    weights_ : list of float
        Their shares in the scores, once each model's are standardised over items.
    quality_ : dict of str to float
        Where models were weighed: NDCG@100 of each, and of the blend, on users who were held out.
    users_, items_ : Ids
        The ids of fit, ``items_.values`` in the order of columns.
    histories_ : csr_array of shape (n_users, n_items)
        What users chose, as the models see it.

    References
    ----------
    Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, arXiv:1905.03375.

    Liang et al., Variational autoencoders for collaborative filtering, WWW 2018, arXiv:1802.05814.

    Examples
    --------
    >>> import pandas as pd
    >>> from diabolo import EASE, Recommender
    >>> events = pd.DataFrame(
    ...     {"user": [1, 1, 2, 2, 3, 3, 4], "item": ["tea", "cup", "tea", "cup", "jam", "bread", "jam"]}
    ... )
    >>> shop = Recommender(EASE(l2=1.0)).fit(events)
    >>> shop.recommend(4, 1)["item"].tolist()
    ['bread']
    >>> shop.recommend(history=["cup"], k=1)["item"].tolist()
    ['tea']
    """

    model: Annotated[
        BaseEstimator | tuple[BaseEstimator, ...] | None,
        "the model, or several that are blended: EASE(), GraphFilter(), ItemPopularity(), MultVAE() or another autoencoder; "
        "None is EASE with a MultDAE where they help each other, and for more than 12,000 items GraphFilter",
    ] = field(default=None, kw_only=False)
    user: Annotated[str, "column of events with the user"] = "user"
    item: Annotated[str, "column of events with the item"] = "item"
    rating: Annotated[str | None, "column of events with a rating, a count or another weight"] = None
    time: Annotated[str | None, "column of events with the date, or a number that rises with time"] = None
    min_rating: Annotated[float | None, Ge(0), "ratings below are not taken for a choice"] = None
    values: Annotated[
        Literal["binary", "log", "raw"],
        "what models see of a choice: a one, the logarithm of one more than its weight, or the weight; of several events of one "
        "pair weights add up, but with 'raw' the last one counts, as ratings need it",
    ] = "binary"
    weights: Annotated[
        tuple[float, ...] | None,
        Ge(0),
        "shares of several models in the scores; None weighs them by users who are held out",
    ] = None
    random_state: Annotated[
        int | np.random.RandomState | None, "seed of the models and of held-out users; None takes fresh entropy"
    ] = None
    verbose: Annotated[int, Ge(0), Le(2), "what networks show while they learn, as for Autoencoder"] = 0

    def fit(self, X: Any, y: Any = None, *, item_features: Any = None) -> Self:
        """Learn who chooses what.

        Parameters
        ----------
        X : frame, sparse matrix or array
            Events, one a row, of pandas, polars or pyarrow; or users by items, where 0 or nothing stored is no choice.
        y : None
            Ignored.
        item_features : frame, optional
            What is known of items: a column named as ``item``, and columns of any kind. Items that nobody chose yet are
            recommended by it: a cold item is scored as the ten items are on the mean whose features are nearest.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        ValueError
            For missing or mixed ids, ratings that are negative or missing, or when nothing was chosen; the message says where.
        """
        check_parameters(self)
        return self._learn(self._read(X), item_features)

    def _read(self, X: Any, items: Ids | None = None) -> Interactions:
        layout = Events(self.user, self.item, self.rating, self.time)
        raw = self.values == "raw"
        found, unseen = read_interactions(X, layout, min_rating=self.min_rating, latest=raw, items=items)
        if unseen:
            listed = ", ".join(map(repr, unseen[:5]))
            warn(f"{len(unseen)} item(s) were not in fit, and what was said of them is left out: {listed}")
        if self.values == "binary":
            found.matrix.data[:] = 1
        elif self.values == "log":
            found.matrix.data[:] = np.log1p(found.matrix.data)
        return found

    def _learn(self, found: Interactions, item_features: Any = None) -> Self:
        rows, seed = found.matrix, draw_seed(self.random_state)
        if not rows.nnz:
            raise ValueError("nothing was chosen: every cell is 0, or below min_rating")
        models = (self.model,) if isinstance(self.model, BaseEstimator) else self.model or usual_models(rows)
        weights = None if self.weights is None else list(self.weights)
        if weights is not None and (len(weights) != len(models) or not sum(weights)):
            raise ParameterError(f"weights={self.weights!r}: expected {len(models)} numbers, of which one is above 0")
        self.quality_: dict[str, float] = {}
        if len(models) > 1 and weights is None:
            self.models_, self.weights_, self.quality_ = fit_blend(models, rows, seed, self.verbose)
        else:
            self.models_ = [fit_scorer(model, rows, seed, self.verbose) for model in models]
            self.weights_ = weights or [1.0]
        self.n_features_in_, self.seed_ = rows.shape[1], seed
        self.users_, self.items_, self.events_, self.histories_ = found.users, found.items, found.events, rows
        self.popularity_ = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float64)
        self.cold_ = None
        if item_features is not None:
            self.cold_ = ColdItems.learn(item_features, self.item, self.items_)
            self.items_ = Ids([*self.items_.values, *self.cold_.ids], "item")
        return self

    # use --------------------------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        history: Any = None,
        exclude_seen: bool = True,
        filter_items: Any = (),
    ) -> Any:
        """Return the best items for users, best first.

        Parameters
        ----------
        users : id, sequence of ids, frame, sparse matrix or array
            Known users by their ids; or new ones by what they chose, as events or as rows of all items. By default all users
            of fit.
        k : int
            How many items for each.
        history : sequence of ids, optional
            The items that a single new user chose, instead of ``users``.
        exclude_seen : bool
            Whether items that the user has are left out.
        filter_items : sequence of ids
            Items that nobody is to be shown.

        Returns
        -------
        frame, or two arrays
            After a fit to events a frame of the same library: user (unless ``history`` tells it), item and score. After a fit
            to a matrix, items and scores ``(n_users, k)``, for a single user ``(k,)``. A user for whom fewer than ``k`` items
            are left gets fewer, in arrays -1 and minus infinity.

        Raises
        ------
        KeyError
            For users or items that were not in fit.
        ValueError
            When ``k`` is larger than the catalogue, or rows have another number of items.
        """
        check_is_fitted(self, "models_")
        rows, names, single = self._who(users, history)
        n_items = len(self.items_)
        if not 1 <= k <= n_items:
            raise ValueError(f"k={k}: expected 1 to {n_items}, the number of items")
        barred = self.items_.locate(_listed(filter_items))
        items, scores = np.empty((rows.shape[0], k), dtype=np.int64), np.empty((rows.shape[0], k), dtype=np.float32)
        for block in in_blocks(rows.shape[0], n_items):
            part = rows[block]
            found = self._scores(part)
            if exclude_seen:
                found[part.nonzero()] = -np.inf
            found[:, barred] = -np.inf
            items[block], scores[block] = best_items(found, k)
        short = int((items[:, -1] < 0).sum())
        if short:
            warn(f"{short} user(s) have fewer than {k} items left that they do not have and that are not filtered out")
        return self._present(names, items, scores, single)

    def score_items(self, users: Any = None, items: Any = None, *, history: Any = None) -> Any:
        """Score items for users: the higher, the better; of models of ratings, the rating that is expected.

        Parameters
        ----------
        users, history
            As in :meth:`recommend`.
        items : sequence of ids, optional
            The items to score; all by default.

        Returns
        -------
        ndarray of shape (n_users, n_items)
            float32; scores of several users do not compare.
        """
        check_is_fitted(self, "models_")
        rows, _, _ = self._who(users, history)
        chosen = np.arange(len(self.items_)) if items is None else self.items_.locate(_listed(items))
        out = np.empty((rows.shape[0], len(chosen)), dtype=np.float32)
        for block in in_blocks(rows.shape[0], len(self.items_)):
            out[block] = self._scores(rows[block])[:, chosen]
        return out

    def similar_items(self, item: Any, k: int = 10) -> Any:
        """Return the items whose scores rise most when a user has this one.

        Parameters
        ----------
        item : id
            An item of fit.
        k : int
            How many.

        Returns
        -------
        frame, or two arrays
            Items and what the item adds to their scores, most first.
        """
        check_is_fitted(self, "models_")
        place = int(self.items_.locate([item])[0])
        if place >= self.n_features_in_:
            raise ValueError(f"nobody has chosen item {item!r} yet")
        if not 1 <= k < len(self.items_):
            raise ValueError(f"k={k}: expected 1 to {len(self.items_) - 1}, the number of other items")
        pair = sparse.csr_array(([1.0], ([0], [place])), shape=(2, self.n_features_in_), dtype=np.float32)
        scores = self._model_scores(pair)
        gain = scores[:1] - scores[1:]
        gain[0, place] = -np.inf
        items, gains = best_items(gain, k)
        return self._present(None, items, gains, single=True)

    def explain(self, user: Any = None, item: Any = None, k: int = 5, *, history: Any = None) -> Any:
        """Say which past choices of a user drive the score of an item.

        Parameters
        ----------
        user, history
            A user by id, or the items that a new one chose.
        item : id
            The item in question.
        k : int
            How many past choices at most.

        Returns
        -------
        frame, or two arrays
            Past items, and by how much the score would fall without each of them, most first. Of a model in closed form these
            numbers add up to the score.
        """
        check_is_fitted(self, "models_")
        rows, _, single = self._who(user, history)
        if not single:
            raise ValueError("explain is about one user: give one id, or a history")
        target = int(self.items_.locate([item])[0])
        own = rows.indices
        if not len(own):
            raise ValueError("the user chose nothing, and is shown what is most popular")
        copies = rows[np.zeros(len(own) + 1, dtype=int)].tolil()
        for i, past in enumerate(own):
            copies[i + 1, past] = 0
        copies = sparse.csr_array(copies)
        copies.eliminate_zeros()
        scores = self._model_scores(copies)[:, target]
        drop = scores[0] - scores[1:]
        order = np.argsort(-drop, kind="stable")[:k]
        return self._present(None, own[order][None].astype(np.int64), drop[order][None], single=True)

    def score(self, X: Any, y: Any = None) -> float:
        """Hide a fifth of what each user of ``X`` chose, and look for it among all items.

        Parameters
        ----------
        X : frame, sparse matrix or array
            Users who were not in ``fit``, else the score flatters.
        y : None
            Ignored.

        Returns
        -------
        float
            NDCG@100, or of all items where there are fewer: 1 is perfect.
        """
        check_is_fitted(self, "models_")
        rows = self._read(X, self._warm).matrix
        shown, hidden = fold(rows, 0.2, np.random.default_rng(self.seed_))
        k = min(100, rows.shape[1])
        return measure_ranking(lambda h, _: self._model_scores(h), shown, hidden, self.popularity_, (k,))[f"ndcg@{k}"]

    def evaluate(
        self,
        X: Any,
        *,
        split: Literal["strong", "weak", "time"] = "strong",
        k: tuple[int, ...] = (10, 20, 50, 100),
        share: float = 0.2,
        n_users: int | None = None,
        random_state: Any = 0,
    ) -> dict[str, float]:
        """Fit copies of this recommender to a part of the data, and measure how well they find the rest among all items.

        Parameters
        ----------
        X : frame, sparse matrix or array
            As for ``fit``.
        split : {"strong", "weak", "time"}
            ``"strong"``: users are held out; what is left of each once ``share`` of it is hidden is all that is known of them.
            ``"weak"``: ``share`` of what each user chose is hidden. ``"time"``: the last ``share`` of all choices is hidden, so
            that nothing is learned from what came later; what users do who were not there before is left out.
        k : tuple of int
            Lengths of the list; those beyond the number of items are left out.
        share : float
            What is hidden.
        n_users : int, optional
            Users held out by ``"strong"``; a tenth by default.
        random_state : int or RandomState
            Seed of the split.

        Returns
        -------
        dict of str to float
            ``ndcg@k``, ``recall@k``, ``capped_recall@k`` (divided by ``k`` where more is relevant), ``precision@k``, ``map@k``
            (as in trec_eval), and of the lists ``coverage@k`` (share of all items), ``novelty@k`` (bits) and ``popularity@k``
            (relative to what was hidden); ``n_users``, who were judged.
        """
        check_parameters(self)
        if split not in ("strong", "weak", "time"):
            raise ValueError(f"split={split!r}: expected 'strong', 'weak' or 'time'")
        if not 0 < share < 1:
            raise ValueError(f"share={share!r}: expected a number between 0 and 1")
        found = self._read(X)
        ks = tuple(length for length in k if length <= found.matrix.shape[1])
        if not ks:
            raise ValueError(f"k={k!r}: there are {found.matrix.shape[1]} items")
        train, shown, hidden = split_rows(found, split, share, n_users, draw_seed(random_state))
        model = clone(self)._learn(Interactions(train, Ids(range(train.shape[0]), "user"), found.items))
        result = measure_ranking(lambda h, _: model._scores(h), shown, hidden, model.popularity_, ks)
        return result | {"n_users": float((np.diff(hidden.indptr) > 0).sum())}

    # inside -----------------------------------------------------------------------------------------------------------------

    @property
    def _warm(self) -> Ids:
        return Ids(self.items_.values[: self.n_features_in_], "item")

    def _who(self, users: Any, history: Any) -> tuple[Any, Ids | None, bool]:
        """Return rows of users, their ids (none for a history), and whether it is a single one."""
        if history is not None:
            if users is not None:
                raise ValueError("give users or a history, not both")
            places = self.items_.locate(_listed(history))
            places = np.unique(places[places < self.n_features_in_])
            data = (np.ones(len(places), dtype=np.float32), (np.zeros_like(places), places))
            return sparse.csr_array(data, shape=(1, self.n_features_in_)), None, True
        if users is None:
            return self.histories_, self.users_, False
        if is_sparse(users) or (hasattr(users, "ndim") and users.ndim == 2 and not is_frame(users)):
            rows = as_rows(users, self.n_features_in_)
            return self._read(rows).matrix, Ids(range(rows.shape[0]), "user"), False
        if is_frame(users):
            found = self._read(users, self._warm)
            return found.matrix, found.users, False
        single = isinstance(users, str) or not hasattr(users, "__len__")
        asked = [users] if single else _listed(users)
        if asked and isinstance(asked[0], list | tuple):
            rows = as_rows(np.asarray(asked), self.n_features_in_)
            return self._read(rows).matrix, Ids(range(rows.shape[0]), "user"), False
        places = self.users_.locate(asked)
        return self.histories_[places], Ids([self.users_.values[p] for p in places], "user"), single

    def _model_scores(self, rows: Any) -> NDArray[np.float32]:
        """Return the scores that the models give, of all items ``(n, len(items_))``."""
        scores = blended(self.models_, self.weights_, rows)  # an array of its own
        return scores if self.cold_ is None else self.cold_.append(scores)

    def _scores(self, rows: Any) -> NDArray[np.float32]:
        """Return the scores of the models, and for users who chose nothing the popularity of items."""
        scores = self._model_scores(rows)
        nothing = np.diff(rows.indptr) == 0
        if nothing.any():
            usual = self.popularity_[None].astype(np.float32)
            scores[nothing] = usual if self.cold_ is None else self.cold_.append(usual)
        return scores

    def _present(self, users: Ids | None, items: Array, scores: Array, single: bool) -> Any:
        if self.events_ is None:
            return (items[0], scores[0]) if single else (items, scores)
        there = items >= 0
        columns: dict[str, Any] = {}
        if users is not None:
            columns[self.user] = users.array()[np.repeat(np.arange(len(items)), there.sum(axis=1))]
        columns[self.item] = self.items_.array()[items[there]]
        return self.events_.frame(columns | {"score": scores[there]})

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        events = self.events_
        meta = {
            "weights": self.weights_,
            "quality": self.quality_,
            "seed": self.seed_,
            "n_items": self.n_features_in_,
            "users": self.users_.to_json(),
            "items": self.items_.to_json(),
            "events": None if events is None else events.to_json(),
        }
        tensors = {k: torch.from_numpy(getattr(self.histories_, k)) for k in ("data", "indices", "indptr")}
        return meta, tensors | ({} if self.cold_ is None else self.cold_.tensors())

    def _set_state(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.weights_, self.quality_, self.seed_ = meta["weights"], meta["quality"], meta["seed"]
        self.users_, self.items_ = Ids.from_json(meta["users"], "user"), Ids.from_json(meta["items"], "item")
        self.events_ = None if meta["events"] is None else Events(**meta["events"])
        self.n_features_in_ = meta["n_items"]
        parts = tuple(tensors[k].numpy() for k in ("data", "indices", "indptr"))
        self.histories_ = sparse.csr_array(parts, shape=(len(self.users_), self.n_features_in_))
        self.popularity_ = np.bincount(parts[1], minlength=self.n_features_in_).astype(np.float64)
        cold = self.items_.values[self.n_features_in_ :]
        self.cold_ = ColdItems.from_tensors(cold, tensors, self.n_features_in_) if "cold.data" in tensors else None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.positive_only = True
        return tags


def _listed(values: Any) -> list[Any]:
    if isinstance(values, str):
        return [values]
    found: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    return found
