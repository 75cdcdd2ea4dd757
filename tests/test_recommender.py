"""Recommendation: closed forms against what they minimise, events in and ids out, splits that do not leak, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.metrics import average_precision_score, ndcg_score
from sklearn.preprocessing import StandardScaler

import diabolo
from diabolo import EASE, GraphFilter, ItemPopularity, Recommender
from diabolo.checks import ParameterError
from diabolo.data.interactions import Ids, Interactions
from diabolo.report import build_report, write_report
from diabolo.report.draw import number, percent
from diabolo.report.recommending import recommender_page
from diabolo.tasks.ranking import best_items, fold, measure_ranking, split_rows

RNG = np.random.default_rng(0)


def taste(n_users=200, n_items=30, seed=0):
    """Users of three tastes, who choose six items each, mostly of their own third of the catalogue."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n_users)
    chance = np.where(np.arange(n_items) % 3 == kind[:, None], 20.0, 1.0)
    chance /= np.sqrt(1 + np.arange(n_items) // 3)  # some are popular
    noise = -np.log(rng.random((n_users, n_items))) / chance
    X = np.zeros((n_users, n_items), dtype=int)
    np.put_along_axis(X, noise.argsort(axis=1)[:, :6], 1, axis=1)
    return X, kind


X, KIND = taste()
S = sparse.csr_array(X)


def events(X=X, library=pd.DataFrame):
    rows, columns = np.nonzero(X)
    when = np.random.default_rng(1).integers(0, 1000, len(rows))
    return library(
        {
            "user": [f"u{r}" for r in rows],
            "item": (columns + 100).tolist(),
            "stars": X[rows, columns],
            "when": when.tolist(),
        }
    )


# closed forms -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("powers", [(0.0, 0.0), (0.5, 0.25)])
def test_ease_solves_each_column_as_a_ridge_regression_on_all_others(powers):
    p, q = powers
    weights = EASE(l2=3.0, user_power=p, item_power=q).fit(S).weights_
    width = X.sum(0) ** q
    A = X.sum(1)[:, None] ** (-p / 2) * X / width
    A = A * np.sqrt((X**2).sum() / (A**2).sum())
    for j in range(X.shape[1]):
        others = np.delete(np.arange(X.shape[1]), j)
        B = np.linalg.solve(A[:, others].T @ A[:, others] + 3.0 * np.eye(len(others)), A[:, others].T @ A[:, j])
        # float32 weights
        np.testing.assert_allclose(weights[others, j], B * width[j] / width[others], atol=1e-6)
    assert (np.diag(weights) == 0).all()


def test_ease_chooses_its_weight_by_users_who_are_held_out():
    model = EASE(random_state=0).fit(S)
    tried = model.candidates_
    assert len(tried) >= 3
    assert tried[model.l2_] == max(tried.values())
    assert model.l2_ == EASE(random_state=0).fit(S).l2_


def test_ease_refuses_a_catalogue_that_does_not_fit_into_memory():
    many = sparse.csr_array(([1.0], ([0], [0])), shape=(2, 100_000))
    with pytest.raises(ParameterError, match=r"X has 100000: 40 GB. Use GraphFilter"):
        EASE().fit(many)


def test_a_graph_filter_is_a_product_of_three_matrices():
    powers = {"from_power": 0.4, "user_power": 0.7, "to_power": 0.2, "n_damped": 0}
    model = GraphFilter(n_neighbors=30, **powers).fit(S)
    users, items = X.sum(1), X.sum(0)
    wanted = np.diag(items**-0.4) @ X.T @ np.diag(users**-0.7) @ X @ np.diag(items**-0.2)
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(model.weights_.toarray(), wanted, rtol=1e-5)  # float32
    few = GraphFilter(n_neighbors=3, **powers).fit(S).weights_
    assert (np.diff(few.indptr) == 4).all()  # with the diagonal
    np.testing.assert_allclose(few.toarray().sum(1), np.sort(wanted, axis=1)[:, -3:].sum(1), rtol=1e-5)


def test_a_graph_filter_damps_what_everybody_likes(tmp_path):
    a, b, c, p, k = 0.4, 0.7, 0.2, 0.5, 3
    model = GraphFilter(from_power=a, user_power=b, to_power=c, n_neighbors=30, damping=p).fit(S)
    users, items = X.sum(1), X.sum(0).astype(float)
    assert model.factors_[0].shape == (30, k)  # a tenth of the items
    root = np.diag(users ** (-b / 2)) @ X @ np.diag(items ** (-(a + c) / 2))
    values, vectors = np.linalg.eigh(root.T @ root)
    values[-k:] = values[-k] * (values[-k:] / values[-k]) ** p
    wanted = np.diag(items ** ((c - a) / 2)) @ (vectors * values) @ vectors.T @ np.diag(items ** ((a - c) / 2))
    np.fill_diagonal(wanted, 0)
    # the largest eigenvectors are found by iteration, in single precision
    np.testing.assert_allclose(model.score_items(np.eye(30)), wanted, rtol=2e-3, atol=2e-3 * wanted.max())
    model.save(tmp_path / "filter")
    np.testing.assert_array_equal(diabolo.load(tmp_path / "filter").score_items(S), model.score_items(S))
    plain = GraphFilter(from_power=a, user_power=b, to_power=c, n_damped=0).fit(S)
    np.testing.assert_array_equal(
        GraphFilter(from_power=a, user_power=b, to_power=c, damping=1).fit(S).score_items(S), plain.score_items(S)
    )


# rankings -----------------------------------------------------------------------------------------------------------------------


def test_measures_agree_with_scikit_learn():
    scores = RNG.normal(size=(50, 12)).astype(np.float32)
    relevant = (RNG.random((50, 12)) < 0.3).astype(int)
    relevant[0] = 0  # nothing to find: left out
    empty = sparse.csr_array((50, 12), dtype=np.float32)
    popularity = np.arange(1.0, 13.0)
    found = measure_ranking(lambda _, users: scores[users], empty, sparse.csr_array(relevant), popularity, (5, 12))
    rows = relevant.any(1)
    assert found["ndcg@5"] == pytest.approx(ndcg_score(relevant[rows], scores[rows], k=5))
    assert found["ndcg@12"] == pytest.approx(ndcg_score(relevant[rows], scores[rows]))
    wanted = [average_precision_score(r, s) for r, s in zip(relevant[rows], scores[rows], strict=True)]
    assert found["map@12"] == pytest.approx(np.mean(wanted))
    top = np.argsort(-scores[rows], axis=1)[:, :5]
    hits = np.take_along_axis(relevant[rows], top, axis=1).sum(1)
    assert found["recall@5"] == pytest.approx((hits / relevant[rows].sum(1)).mean())
    assert found["capped_recall@5"] == pytest.approx((hits / np.minimum(relevant[rows].sum(1), 5)).mean())
    assert found["precision@5"] == pytest.approx((hits / 5).mean())
    assert found["recall@12"] == found["coverage@12"] == 1.0
    assert found["novelty@5"] == pytest.approx(-np.log2((popularity[top] + 1) / (popularity.sum() + 12)).mean())
    each = [popularity[r > 0].mean() for r in relevant[rows]]
    assert found["popularity@5"] == pytest.approx(popularity[top].mean() / np.mean(each))


def test_what_a_user_has_is_not_ranked():
    seen = sparse.csr_array(np.array([[1, 0, 0]], dtype=np.float32))
    wanted = sparse.csr_array(np.array([[0, 0, 1]]))
    found = measure_ranking(lambda _, u: np.array([[9.0, 1.0, 5.0]])[u], seen, wanted, np.ones(3), (1,))
    assert found["ndcg@1"] == 1.0


def test_the_best_items_come_in_order_and_barred_ones_as_minus_one():
    items, scores = best_items(np.array([[1.0, 3.0, -np.inf, 2.0]]), 4)
    assert items.tolist() == [[1, 3, 0, -1]]
    assert scores[0, 3] == -np.inf


def test_a_fold_parts_what_each_user_chose():
    shown, hidden = fold(S, 0.3, np.random.default_rng(0))
    assert ((shown + hidden).toarray() == X).all()
    assert (hidden.sum(axis=1) == 2).all()  # 30 % of 6
    alone, nothing = fold(sparse.csr_array(np.eye(3)), 0.3, np.random.default_rng(0))
    assert alone.nnz == 3
    assert nothing.nnz == 0


@pytest.mark.parametrize("split", ["strong", "weak", "time"])
def test_splits_do_not_leak(split):
    time = np.random.default_rng(0).random(S.nnz)
    found = Interactions(S, Ids(range(200), "user"), Ids(range(30), "item"), time)
    train, shown, hidden = split_rows(found, split, 0.2, None, 0)
    assert shown.shape == hidden.shape
    assert shown.multiply(hidden).nnz == 0
    if split == "strong":
        assert train.shape[0] + shown.shape[0] == 200
        assert train.nnz + shown.nnz + hidden.nnz == S.nnz
    else:
        assert train.nnz + hidden.nnz == S.nnz
    if split == "time":
        matrix = sparse.csr_array((time, S.indices, S.indptr), shape=S.shape)
        assert matrix.toarray()[train.toarray() > 0].max() < matrix.toarray()[hidden.toarray() > 0].min()


# the task -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop():
    return Recommender(EASE(l2=20.0), rating="stars", time="when").fit(events())


def test_users_are_shown_items_of_their_own_taste():
    model = Recommender(EASE(), random_state=0).fit(S)
    items, scores = model.recommend(k=5)
    assert items.shape == scores.shape == (200, 5)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (np.take_along_axis(X, items, axis=1) == 0).all()  # nothing that they have
    assert (items[:, 0] % 3 == KIND).mean() > 0.7  # a third by chance
    found = model.evaluate(S, k=(10,))
    assert found["ndcg@10"] > 1.3 * Recommender(ItemPopularity()).evaluate(S, k=(10,))["ndcg@10"]
    assert found["n_users"] == 20


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pl.DataFrame.to_arrow])
def test_frames_come_back_in_kind_with_ids_as_given(library, shop):
    frame = events(library=pl.DataFrame)
    frame = library(frame) if library is pl.DataFrame.to_arrow else library(frame.to_dict(as_series=False))
    model = Recommender(EASE(l2=20.0), rating="stars", time="when").fit(frame)
    found = model.recommend(["u7", "u3"], 4)
    assert type(found).__module__.split(".")[0] == type(frame).__module__.split(".")[0]
    columns = pl.DataFrame(found.to_pandas() if hasattr(found, "to_pandas") else found).to_dict(as_series=False)
    assert columns["user"] == ["u7"] * 4 + ["u3"] * 4
    assert columns == shop.recommend(["u7", "u3"], 4).to_dict(orient="list")
    assert all(type(i) is int and 100 <= i < 130 for i in columns["item"])


def test_a_new_user_with_the_same_history_gets_the_same(shop):
    known = shop.recommend("u7", 6)
    history = (np.flatnonzero(X[7]) + 100).tolist()
    new = shop.recommend(history=history, k=6)
    assert list(new.columns) == ["item", "score"]
    assert new["item"].tolist() == known["item"].tolist()
    frame = events()
    again = shop.recommend(frame[frame.user == "u7"].assign(user="somebody"), 6)
    assert again["item"].tolist() == known["item"].tolist()
    assert set(again["user"]) == {"somebody"}
    matrix = Recommender(EASE(l2=20.0)).fit(S)
    items, scores = matrix.recommend(7, 6)
    assert (items + 100).tolist() == known["item"].tolist()
    np.testing.assert_array_equal(matrix.recommend(S[[7]], 6)[0][0], items)
    np.testing.assert_array_equal(matrix.recommend(X[7:8], 6)[1][0], scores)
    np.testing.assert_allclose(matrix.score_items([7], items[:2])[0], scores[:2])


def test_filters(shop):
    first = shop.recommend("u7", 3)["item"].tolist()
    assert first[0] not in shop.recommend("u7", 3, filter_items=first[:1])["item"].tolist()
    everything = shop.recommend("u7", 30, exclude_seen=False)
    assert sorted(everything["item"]) == list(range(100, 130))
    with pytest.warns(UserWarning, match=r"1 user\(s\) have fewer than 30 items left"):
        rest = shop.recommend("u7", 30)
    assert len(rest) == 30 - X[7].sum()


def test_similar_items_are_of_the_same_kind_and_explanations_add_up(shop):
    similar = shop.similar_items(103, 3)
    assert all(i % 3 == 103 % 3 for i in similar["item"])
    item = shop.recommend("u7", 1)["item"][0]
    why = shop.explain("u7", item, 30)
    assert set(why["item"]) == set(np.flatnonzero(X[7]) + 100)
    score = shop.recommend("u7", 1)["score"][0]
    assert why["score"].sum() == pytest.approx(score, abs=1e-5)
    assert shop.explain(history=[103, 106], item=109)["item"].tolist() != []


def test_ratings_counts_and_repeated_events():
    frame = pd.DataFrame(
        {"who": [1, 1, 1, 2, 2], "what": [5, 5, 6, 5, 7], "stars": [2.0, 4.0, 1.0, 3.0, 5.0], "when": [9, 3, 1, 1, 1]}
    )
    names = {"user": "who", "item": "what", "rating": "stars"}

    def cells(**more):
        return Recommender(ItemPopularity(), **names, **more).fit(frame).histories_.toarray().tolist()

    assert cells() == [[1, 1, 0], [1, 0, 1]]
    assert cells(min_rating=3.0) == [[1, 0, 0], [1, 0, 1]]
    np.testing.assert_allclose(cells(values="log"), np.log1p([[6, 1, 0], [3, 0, 5]]), rtol=1e-6)
    assert cells(values="raw", time="when") == [[2, 1, 0], [3, 0, 5]]  # the last of two ratings
    assert cells(values="raw") == [[4, 1, 0], [3, 0, 5]]


def test_without_a_model_a_network_is_blended_with_a_linear_one():
    many, _ = taste(210)
    model = Recommender(random_state=0).fit(many)
    assert [type(m).__name__ for m in model.models_] == ["EASE", "MultDAE"]
    assert model.quality_["blend"] >= max(model.quality_["EASE"], model.quality_["MultDAE"])
    few = Recommender(random_state=0).fit(many[:50])
    assert [type(m).__name__ for m in few.models_] == ["EASE"]
    wide = sparse.csr_array((np.ones(4), ([0, 0, 1, 1], [0, 1, 1, 19_999])), shape=(2, 20_000))
    assert [type(m).__name__ for m in Recommender().fit(wide).models_] == ["GraphFilter"]


def test_two_models_are_weighed_by_users_who_are_held_out(tmp_path):
    model = Recommender((ItemPopularity(), EASE(l2=20.0)), random_state=0).fit(S)
    assert set(model.quality_) == {"ItemPopularity", "EASE", "blend"}
    assert model.quality_["blend"] >= max(model.quality_["EASE"], model.quality_["ItemPopularity"])
    assert sum(model.weights_) == pytest.approx(1)
    half = Recommender((ItemPopularity(), EASE(l2=20.0)), weights=(0.5, 0.5)).fit(S)
    a, b = (np.asarray(m.score_items(S[:2])) for m in half.models_)
    standard = [(v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True) for v in (a, b)]
    np.testing.assert_allclose(half.score_items(S[:2]), (standard[0] + standard[1]) / 2, atol=1e-5)  # float32
    half.save(tmp_path / "m")
    np.testing.assert_array_equal(diabolo.load(tmp_path / "m").score_items(S), half.score_items(S))


def test_cold_items_are_scored_as_items_of_their_kind(tmp_path):
    known = [{"item": j + 100, "shelf": "abc"[j % 3], "price": float(j)} for j in range(30)]
    new = [{"item": 900 + j, "shelf": "abc"[j], "price": 10.0} for j in range(3)]
    model = Recommender(EASE(l2=20.0)).fit(events(), item_features=pd.DataFrame(known + new))
    scores = model.score_items([f"u{i}" for i in range(200)], [900, 901, 902])
    assert (scores.argmax(axis=1) == KIND).mean() > 0.8
    model.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    assert again.recommend("u3", 32, exclude_seen=False).equals(model.recommend("u3", 32, exclude_seen=False))
    with pytest.raises(ValueError, match="nobody has chosen item 900 yet"):
        model.similar_items(900)
    with pytest.raises(ValueError, match=r"no column 'item'. Did you mean 'itm'"):
        Recommender(EASE(l2=20.0)).fit(events(), item_features=pd.DataFrame({"itm": [1], "a": [2]}))


def test_users_without_a_history_are_shown_what_is_popular():
    rows = X.copy()
    rows[0] = 0
    items, _ = Recommender(EASE(l2=20.0)).fit(rows).recommend(0, 5)
    assert items.tolist() == np.argsort(-rows.sum(0), kind="stable")[:5].tolist()


def test_a_saved_recommender_opens_without_the_data(shop, tmp_path):
    shop.save(tmp_path / "m")
    again = diabolo.load(tmp_path / "m")
    assert again.recommend(k=3).equals(shop.recommend(k=3))
    assert again.explain("u3", 104).equals(shop.explain("u3", 104))
    dated = Recommender(ItemPopularity()).fit(pd.DataFrame({"user": [1, 2], "item": [(1, 2), (3, 4)]}))
    with pytest.raises(TypeError, match=r"items such as \(1, 2\) cannot be saved"):
        dated.save(tmp_path / "n")


def test_the_matrix_of_the_caller_stays_as_it_is():
    rows = sparse.csr_matrix(
        ([1.0, 0.0, 2.0, 1.0], [2, 0, 1, 1], [0, 2, 4]), shape=(2, 3)
    )  # unsorted, twice, a stored 0
    before = [a.copy() for a in (rows.data, rows.indices, rows.indptr)]
    model = Recommender(ItemPopularity(), values="raw").fit(rows)
    assert all((a == b).all() for a, b in zip(before, (rows.data, rows.indices, rows.indptr), strict=True))
    assert model.histories_.toarray().tolist() == [[0, 0, 1], [0, 3, 0]]


def test_evaluate_by_time_and_score(shop):
    found = shop.evaluate(events(), split="time", k=(10, 500))
    assert 0 < found["ndcg@10"] < 1
    assert "ndcg@500" not in found  # there are 30 items
    assert 0.5 < Recommender(EASE(l2=20.0)).fit(S[:150]).score(S[150:]) < 1


# bad input ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": ["a", None, "b"]}, "column 'user' has no id in row 1"),
        ({"item": [1.0, float("nan"), 2.0]}, "column 'item' has no id in row 1"),
        ({"item": [1, "1", 2]}, "column 'item' mixes text and other ids, such as '1' and 1"),
        ({"stars": [1.0, -2.0, 3.0]}, "column 'stars' has -2 in row 1"),
        ({"stars": [1.0, float("nan"), 3.0]}, "column 'stars' has nan in row 1; expected a rating"),
        ({"stars": ["a", "b", "c"]}, "column 'stars' holds String; expected a rating or count"),
        ({"stars": [0, 0, 0]}, "nothing was chosen"),
    ],
)
def test_events_that_cannot_be_learned_from(change, message):
    frame = pd.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 1], "stars": [1, 2, 3]} | change)
    with pytest.raises(ValueError, match=message):
        Recommender(ItemPopularity(), rating="stars").fit(frame)


def test_columns_that_are_not_there():
    frame = pd.DataFrame({"usr": [1], "item": [2]})
    with pytest.raises(
        ValueError, match=r"no column 'user'. Did you mean 'usr'\? .* Say which one holds the user with user="
    ):
        Recommender().fit(frame)
    with pytest.raises(ValueError, match="min_rating=3 needs ratings"):
        Recommender(min_rating=3).fit(frame.rename(columns={"usr": "user"}))


@pytest.mark.parametrize("form", [sparse.csr_array, np.array])
@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "Negative values .* user 1, item 2"), (np.nan, "NaN .* user 1, item 2")]
)
def test_cells_that_are_no_choice(form, value, message):
    rows = np.eye(3)
    rows[1, 2] = value
    with pytest.raises(ValueError, match=message):
        Recommender(ItemPopularity()).fit(form(rows))


def test_questions_that_have_no_answer(shop):
    with pytest.raises(KeyError, match=r"1 user\(s\) were not in fit: 'u7000'. Did you mean 'u"):
        shop.recommend("u7000")
    with pytest.raises(KeyError, match="The ids of fit are of type int, '103' is str"):
        shop.recommend(history=["103"])
    with pytest.raises(ValueError, match="k=31: expected 1 to 30, the number of items"):
        shop.recommend("u7", 31)
    with pytest.raises(ValueError, match="X has 12 features, but Recommender is expecting 30"):
        shop.recommend(np.ones((2, 12)))
    with pytest.raises(ValueError, match="give users or a history, not both"):
        shop.recommend("u7", history=[103])
    with pytest.raises(ValueError, match="explain is about one user"):
        shop.explain(["u7", "u8"], 103)
    with pytest.raises(ValueError, match="needs events with a column of times"):
        Recommender().evaluate(S, split="time")
    with pytest.raises(ValueError, match="split='cold'"):
        shop.evaluate(events(), split="cold")
    with pytest.raises(TypeError, match="model=StandardScaler: expected an autoencoder"):
        Recommender(StandardScaler()).fit(S)
    with pytest.raises(ParameterError, match="expected 2 numbers"):
        Recommender((EASE(), ItemPopularity()), weights=(1.0,)).fit(S)


def test_unknown_items_of_new_users_are_left_out_with_a_warning(shop):
    new = pd.DataFrame({"user": ["x", "x"], "item": [103, 777], "stars": [1, 1], "when": [1, 2]})
    with pytest.warns(UserWarning, match=r"1 item\(s\) were not in fit.* 777"):
        found = shop.recommend(new, 2)
    assert found["item"].tolist() == shop.recommend(history=[103], k=2)["item"].tolist()


# the page ---------------------------------------------------------------------------------------------------------------------


def test_the_page_shows_figures_lists_and_names(tmp_path):
    train, test = events(X[:150]), events(X[150:])
    train["item"] = "<b>" + train["item"].astype(str)
    test["item"] = "<b>" + test["item"].astype(str)
    model = Recommender((EASE(), ItemPopularity()), random_state=0).fit(train)
    page = write_report(model, test, tmp_path / "page.html").read_text()
    facts = recommender_page(model, test)
    rows = model._read(test, model.items_).matrix
    rng = np.random.default_rng(model.seed_)
    shown, hidden = fold(rows[np.sort(rng.permutation(50)[:50])], 0.2, rng)
    scores = model.score_items(shown)
    found = measure_ranking(lambda _, users: scores[users], shown, hidden, model.popularity_, (10,))
    assert facts["ndcg"] == number(found["ndcg@10"], 3)
    assert facts["coverage"] == percent(found["coverage@10"])
    counts = model.recommend(shown, 10)["item"].value_counts()
    name, listed, chosen = facts["top"][0]
    assert listed == str(counts.max())
    assert counts[name] == counts.max()
    assert chosen == str((train["item"] == name).sum())
    assert sum(user["hits"] for user in facts["examples"]) == page.count("<strong>")
    assert "&lt;b&gt;10" in page
    assert "<b>10" not in page
    assert "among 30 items" in page
    assert page == build_report(model, test)  # the same at every call
    with pytest.raises(TypeError, match="a Recommender has no labels"):
        build_report(model, test, labels=[1])
    assert "Learned from" in build_report(Recommender(ItemPopularity()).fit(S), S)
