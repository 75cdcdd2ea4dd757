"""Anomaly detection: sign, threshold, explanation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from diabolo import VAE, AnomalyDetector, Autoencoder, load
from diabolo.seeding import draw_seed
from diabolo.tasks.neighbours import Neighbours
from diabolo.tasks.pyod import PyODDetector


def normal(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ np.array([[1, 2, 3, 0, 1], [0, 1, -1, 2, -2]]) + 0.1 * rng.normal(size=(n, 5))


X, NEW = normal(600, 0), normal(1000, 1)
MODEL = Autoencoder(2, hidden=(16,), max_epochs=40)


@pytest.fixture(scope="module")
def detector():
    return AnomalyDetector(MODEL, contamination=0.05, random_state=0).fit(X)


def test_scores_and_signs(detector):
    odd = NEW[:50].copy()
    odd[:, 2] += 3
    assert detector.score_samples(odd).max() < np.median(detector.score_samples(NEW))
    np.testing.assert_allclose(detector.decision_function(NEW), detector.score_samples(NEW) - detector.offset_)
    assert set(detector.predict(NEW)) == {-1, 1}
    assert (detector.predict(odd) == -1).mean() > 0.95


def test_the_rate_on_new_rows_is_the_one_asked_for(detector):
    flagged = (detector.predict(NEW) == -1).mean()
    # 120 calibration rows: the rate above their 5 % quantile has a standard deviation near 2 %
    assert abs(flagged - 0.05) < 0.06


def test_the_threshold_moves_without_fitting_again(detector):
    rates = []
    for contamination in (0.0, 0.01, 0.1, 0.3, "auto"):
        detector.set_params(contamination=contamination)
        rates.append((detector.predict(NEW) == -1).mean())
    detector.set_params(contamination=0.05)
    assert rates[0] <= rates[1] <= rates[2] <= rates[3]
    assert abs(rates[3] - 0.3) < 0.12  # three standard deviations of a 30 % quantile of 120 rows
    assert rates[4] < 0.03  # clean data: hardly any


def test_auto_finds_planted_anomalies():
    rng = np.random.default_rng(0)
    rows = normal(600, 2)
    planted = rng.choice(600, 18, replace=False)
    rows[planted, 1] += rng.choice([-4, 4], 18)
    predicted = AnomalyDetector(MODEL, random_state=0).fit(rows).predict(rows) == -1
    assert predicted[planted].mean() > 0.9
    assert np.delete(predicted, planted).mean() < 0.05


def test_explain_blames_the_changed_feature_and_adds_up(detector):
    odd = NEW[:40].copy()
    odd[:, 3] += 5
    shares = detector.explain(odd)
    assert shares.shape == odd.shape
    assert (shares.argmax(axis=1) == 3).mean() > 0.6
    model = detector.autoencoder_
    lack = detector.typical_.sum() - model.score_features(odd).sum(axis=1)
    np.testing.assert_allclose(shares.sum(axis=1), lack, rtol=1e-9)
    difference = model.score_samples(odd) - (model.score_features(odd).sum(axis=1))
    np.testing.assert_allclose(difference, difference[0], rtol=1e-9)  # the scores differ by the unit of the data alone


def test_frames_keep_names_and_index():
    frame = pd.DataFrame(X, columns=list("abcde"), index=[f"r{i}" for i in range(len(X))])
    detector = AnomalyDetector(VAE(2, hidden=(8,), max_epochs=3), random_state=0).fit(frame)
    explained = detector.explain(frame[:7])
    assert list(explained.columns) == list("abcde")
    assert list(explained.index) == [f"r{i}" for i in range(7)]
    assert list(detector.feature_names_in_) == list("abcde")


def test_missing_cells_carry_no_blame(detector):
    rows = NEW[:5].copy()
    rows[0, 1] = np.nan
    assert detector.explain(rows)[0, 1] == 0
    assert np.isfinite(detector.score_samples(rows)).all()


def test_images_and_tiny_data():
    images = np.random.default_rng(0).random((30, 6, 6))
    detector = AnomalyDetector(MODEL, random_state=0).fit(images)
    assert detector.explain(images).shape == (30, 6, 6)
    for n in (1, 2, 5):
        assert AnomalyDetector(MODEL, random_state=0).fit(X[:n]).predict(X[:n]).shape == (n,)


@pytest.mark.parametrize(("value", "message"), [(0.7, "<= 0.5"), (-0.1, ">= 0"), ("autp", "Did you mean 'auto'")])
def test_impossible_contamination(value, message):
    with pytest.raises(ValueError, match=message):
        AnomalyDetector(contamination=value).fit(X)


def test_a_code_as_wide_as_the_row_is_questioned():
    with pytest.warns(UserWarning, match=r"the code \(5 numbers\) is as wide as a row \(5\)"):
        AnomalyDetector(Autoencoder(5, max_epochs=2), random_state=0).fit(X)
    default = AnomalyDetector(random_state=0).fit(X[:50])
    assert type(default.autoencoder_).__name__ == "DenoisingAutoencoder"  # which may have a code as wide as it likes


def test_the_model_given_is_not_touched():
    model = Autoencoder(2, max_epochs=2)
    AnomalyDetector(model, random_state=0).fit(X)
    assert not hasattr(model, "module_")
    assert model.random_state is None


# neighbours -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def near():
    return AnomalyDetector(contamination=0.05, random_state=0).fit(X)


def test_scores_are_mean_distances_to_neighbours(near):
    model, kept = near.autoencoder_, near._near[0]
    error = NEW - model.reconstruct(NEW)
    learned = np.sort(np.random.default_rng(draw_seed(0)).permutation(600)[120:])  # all but a fifth
    spread = X[learned].std(0)
    off = np.sqrt(np.square(X - model.reconstruct(X))[learned].mean(0)) / 0.7
    rows = np.hstack([X / spread, (X - model.reconstruct(X)) / off])
    far = NearestNeighbors(n_neighbors=5).fit(rows).kneighbors(np.hstack([NEW / spread, error / off]))[0].mean(1)
    np.testing.assert_allclose(near.score_samples(NEW), -np.log(far), atol=2e-3)  # distances are in float32
    assert kept.rows.shape == (600, 10)


def test_a_row_of_fit_is_none_of_its_own_neighbours(near):
    kept = near._near[0]
    far = kept.distances(near.autoencoder_, near.autoencoder_._read(X, reset=False))
    alone = NearestNeighbors(n_neighbors=5).fit(kept.rows).kneighbors()[0].mean(1)
    np.testing.assert_allclose(far, alone, rtol=1e-4)


def test_what_does_not_go_together_is_odd():
    rng = np.random.default_rng(0)
    z = rng.uniform(-2, 2, (800, 1))
    curve = np.hstack([z, np.sin(2 * z), np.cos(z)]) + 0.02 * rng.normal(size=(800, 3))
    odd = curve[:200].copy()
    odd[:, 1] = rng.permutation(odd[:, 1])  # each cell is usual, and the row is not
    apart = np.abs(odd[:, 1] - curve[:200, 1]) > 0.2
    detector = AnomalyDetector(random_state=0).fit(curve[200:])
    truth = np.r_[np.zeros(200), np.ones(apart.sum())]
    assert roc_auc_score(truth, -detector.score_samples(np.vstack([curve[:200], odd[apart]]))) > 0.98
    blamed = detector.explain(odd[apart]).argmax(axis=1)
    assert (blamed != 2).mean() > 0.8
    reasons = detector.reasons(odd[apart], n=1)
    assert all(r[0].kind in ("higher than expected", "lower than expected", "too high", "too low") for r in reasons)


def test_reasons_have_a_direction_and_what_was_expected(near):
    rows = NEW[:60].copy()
    rows[:, 2] += 30
    for reasons, row in zip(near.reasons(rows, n=1), rows, strict=True):
        assert reasons[0].feature == "2"
        assert reasons[0].kind == "too high"
        assert reasons[0].value == row[2]
        assert reasons[0].expected < row[2] - 10
        assert str(reasons[0]).startswith("2: ")
    assert all(len(r) <= 3 for r in near.reasons(NEW[:10]))


def test_reasons_of_labels_and_dates():
    rng = np.random.default_rng(0)
    z = rng.normal(size=400)
    frame = pd.DataFrame({"size": z, "kind": np.where(z > 0, "big", "small"), "day": pd.Timestamp("2024-01-01")})
    frame["day"] += pd.to_timedelta((z * 30).round(), unit="D")
    detector = AnomalyDetector(random_state=0).fit(frame)
    odd = frame[:200].copy()
    odd["kind"] = np.where(odd["kind"] == "big", "small", "big")
    clear = np.abs(odd["size"]) > 1.3  # nearer, another size would do as well
    found = detector.reasons(odd[clear], n=1)
    assert np.mean([r[0].feature == "kind" and r[0].kind == "unexpected" for r in found]) > 0.9
    right = [r[0].expected == was for r, was in zip(found, frame["kind"][:200][clear], strict=True)]
    assert np.mean(right) > 0.9
    late = frame[:1].assign(day=pd.Timestamp("2034-05-06"))
    reason = detector.reasons(late, n=1)[0][0]
    assert (reason.feature, reason.kind, reason.value) == ("day", "too high", "2034-05-06")


def test_contaminated_rows_are_left_out():
    rng = np.random.default_rng(0)
    rows, odd = normal(600, 3), np.repeat([[4.0, -4, 4, 4, 4], [-4, 4, 4, 4, 4]], 30, axis=0)  # two clumps
    both, truth = np.vstack([rows, odd + 0.1 * rng.normal(size=odd.shape)]), np.r_[np.zeros(600), np.ones(60)]
    clean, dirty = (
        roc_auc_score(truth, -AnomalyDetector(training=t, random_state=0).fit(both).score_samples(both))
        for t in ("clean", "contaminated")
    )
    assert dirty > 0.93
    assert dirty > clean + 0.03


def test_an_average_of_models_is_one():
    three = AnomalyDetector(n_models=3, random_state=0).fit(X)
    raw = three.autoencoder_._read(NEW, reset=False)
    each = [n.distances(m, raw) for n, m in zip(three._near, [three.autoencoder_, *three.others_], strict=True)]
    np.testing.assert_allclose(three.score_samples(NEW), -np.log(each).mean(0))
    assert not np.allclose(each[0], each[1])


@pytest.mark.parametrize("score", ["neighbours", "likelihood"])
@pytest.mark.parametrize("n_models", [1, 2])
def test_detectors_are_saved_whole(score, n_models, tmp_path):
    fitted = AnomalyDetector(MODEL, method=score, n_models=n_models, random_state=0).fit(X)
    fitted.save(tmp_path / "d")
    back = load(tmp_path / "d")
    for ask in ("score_samples", "predict", "explain", "p_values", "discoveries"):
        np.testing.assert_array_equal(getattr(back, ask)(NEW), getattr(fitted, ask)(NEW))
    assert back.reasons(NEW[:5]) == fitted.reasons(NEW[:5])


def test_missing_cells_and_sparse_rows_have_neighbours():
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    detector = AnomalyDetector(random_state=0).fit(holes)
    assert np.isfinite(detector.score_samples(holes)).all()
    assert (detector.explain(holes)[np.isnan(holes)] == 0).all()
    lean = AnomalyDetector(random_state=0).fit(sparse.csr_array(X.astype(np.float32)))
    full = AnomalyDetector(random_state=0).fit(X.astype(np.float32))
    np.testing.assert_array_equal(lean.score_samples(NEW), full.score_samples(NEW))


def test_many_rows_are_compared_with_some(monkeypatch):
    monkeypatch.setattr("diabolo.tasks.neighbours.MOST_ROWS", 100)
    detector = AnomalyDetector(random_state=0).fit(X)
    assert len(detector._near[0].rows) == 100
    assert isinstance(detector._near[0], Neighbours)
    np.testing.assert_array_equal(
        AnomalyDetector(random_state=0).fit(X).score_samples(NEW), detector.score_samples(NEW)
    )


def test_equal_rows_are_no_anomalies():
    rows = np.ones((50, 3))
    detector = AnomalyDetector(random_state=0).fit(rows)
    assert (detector.predict(rows) == 1).all()
    assert detector.predict(rows + 5)[0] == -1


# what is promised of rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["neighbours", "likelihood"])
def test_false_alarms_come_at_the_stated_rate(score):
    detector = AnomalyDetector(MODEL, method=score, calibration_fraction=0.5, random_state=0).fit(normal(2000, 5))
    new = normal(4000, 6)
    for rate in (0.01, 0.05, 0.2):
        detector.set_params(contamination=rate)
        flagged = detector.predict(new) == -1
        np.testing.assert_array_equal(flagged, detector.p_values(new) <= rate)
        # the rate of new rows below the k-th of 1000 scores is a beta variable, their number a beta-binomial one
        k = int(rate * 1001)
        low, high = stats.betabinom(4000, k, 1001 - k).ppf([1e-4, 1 - 1e-4])
        assert low <= flagged.sum() <= high


def test_few_discoveries_are_false():
    detector = AnomalyDetector(calibration_fraction=0.5, random_state=0).fit(normal(4000, 7))
    false, found = [], []
    for seed in range(10):
        odd = normal(30, 100 + seed)
        odd[:, 1] += 4
        chosen = detector.discoveries(np.vstack([normal(300, 200 + seed), odd]), rate=0.2)
        false.append(chosen[:300].sum() / max(1, chosen.sum()))
        found.append(chosen[300:].mean())
    assert np.mean(found) > 0.9
    assert np.mean(false) < 0.3  # 0.2 and three standard errors of ten batches
    assert not detector.discoveries(normal(50, 1), rate=1e-6).any()
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        detector.discoveries(NEW, rate=0)


def test_pyod_conventions():
    rows = X.copy()
    rows[:20, 1] += 6
    model = PyODDetector(contamination=20 / 600).fit(rows)
    assert model.labels_.sum() == 20
    assert model.labels_[:20].mean() > 0.8
    np.testing.assert_array_equal(model.predict(rows), model.labels_)
    np.testing.assert_array_equal(model.decision_function(rows), model.decision_scores_)
    chances = model.predict_proba(rows)
    np.testing.assert_allclose(chances.sum(1), 1)
    assert chances[:20, 1].mean() > chances[20:, 1].mean() + 0.2
    assert model.fit_predict(rows).shape == (600,)
    inside = PyODDetector(AnomalyDetector(MODEL, random_state=0)).fit(rows)
    assert inside.detector_.autoencoder_.choices_["latent_dim"] == 2
    with pytest.raises(ValueError, match=r"expected a share in \(0, 0.5\]"):
        PyODDetector(contamination=0.9).fit(rows)


def test_two_rows_in_five_may_be_anomalies():
    rows, odd = normal(600, 8), np.random.default_rng(9).uniform(-6, 6, (400, 5))
    both, truth = np.vstack([rows, odd]), np.r_[np.zeros(600), np.ones(400)]
    detector = AnomalyDetector(training="contaminated", random_state=0).fit(both)
    assert roc_auc_score(truth, -detector.score_samples(both)) > 0.95
    assert (detector.predict(both) == -1).mean() <= 0.15  # "auto" flags no more than a tenth of such rows


@pytest.mark.parametrize("training", ["clean", "contaminated"])
def test_ten_rows_will_do(training):
    detector = AnomalyDetector(training=training, random_state=0).fit(X[:10])
    assert np.isfinite(detector.score_samples(NEW)).all()
    assert detector.p_values(NEW).min() == pytest.approx(1 / 3)  # two rows were held out
    assert not detector.discoveries(NEW, rate=0.1).any()


def test_constant_columns_and_labels_never_seen():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=200), "kind": rng.choice(["a", "b"], 200), "same": 1.0})
    detector = AnomalyDetector(random_state=0).fit(frame)
    usual = detector.score_samples(frame)
    moved = detector.score_samples(frame[:1].assign(same=2.0))
    assert moved[0] < usual.min()
    assert detector.reasons(frame[:1].assign(same=2.0), n=1)[0][0].feature == "same"
    with pytest.warns(UserWarning, match="'c', not seen in fit"):
        assert np.isfinite(detector.score_samples(frame[:1].assign(kind="c"))).all()


def test_a_heat_map_says_where_an_image_is_odd():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300, 1, 1)) * np.outer(np.linspace(-1, 1, 8), np.ones(8)) + 0.1 * rng.normal(
        size=(300, 8, 8)
    )
    detector = AnomalyDetector(Autoencoder(2, max_epochs=30), random_state=0).fit(images)
    odd = images[:20].copy()
    odd[:, 2:4, 5:7] += 2
    heat = detector.explain(odd)
    assert heat.shape == odd.shape
    assert (heat[:, 2:4, 5:7].mean((1, 2)) > 5 * np.abs(heat).mean((1, 2))).mean() > 0.9
    assert detector.reasons(odd, n=1)[0][0].feature.startswith("pixel")


@pytest.mark.parametrize("method", ["neighbours", "likelihood"])
@pytest.mark.filterwarnings("ignore:column 'tool' has")
def test_labels_that_were_never_seen_are_odd(method):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=300), "tool": rng.choice(["saw", "drill"], 300)})
    detector = AnomalyDetector(MODEL, method=method, random_state=0).fit(frame)
    usual = pd.DataFrame({"size": [0.0], "tool": ["saw"]})
    new, gone = usual.assign(tool="axe"), usual.assign(tool=None)
    score = {name: detector.score_samples(rows)[0] for name, rows in (("new", new), ("gone", gone))}
    held = detector.calibration_scores_
    assert score["new"] < held[int(0.1 * len(held))]
    assert score["new"] < score["gone"]
    (reasons,) = detector.reasons(new, 2)
    told = {reason.feature: reason for reason in reasons}["tool"]
    assert told.kind == "never seen"
    assert str(told).startswith("tool: ?, expected ")
    price = 2 if method == "neighbours" else np.log(len(frame) * 0.8 + 1)
    blame = detector.explain(new)["tool"].iloc[0] - detector.explain(gone)["tool"].iloc[0]
    assert blame == pytest.approx(price, rel=1e-6)  # float32 network
