"""Anomaly detection: sign, threshold, explanation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diabolo import VAE, AnomalyDetector, Autoencoder


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
    assert default.autoencoder_.choices_["latent_dim"] == 2


def test_the_model_given_is_not_touched():
    model = Autoencoder(2, max_epochs=2)
    AnomalyDetector(model, random_state=0).fit(X)
    assert not hasattr(model, "module_")
    assert model.random_state is None
