"""Anomalies in series: where scores go, times and gaps, streams, thresholds, odd input."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from diabolo import Autoencoder, SeriesAnomalyDetector, load
from diabolo.metrics import vus_pr, vus_roc
from diabolo.tasks.alarms import departures, once
from diabolo.tasks.windows import choose_window, cover, find_period, scoring_windows

QUICK = Autoencoder(4, hidden=(32,), max_epochs=15, random_state=0)


def wave(n, seed=0, channels=1):
    t = np.arange(n)
    x = np.stack([np.sin(t / 8 + c) for c in range(channels)], axis=1)
    return x + 0.1 * np.random.default_rng(seed).normal(size=x.shape)


def detector(**params):
    return SeriesAnomalyDetector(QUICK, **({"window": 40, "random_state": 0} | params))


@pytest.fixture(scope="module")
def fitted():
    return detector().fit(wave(1500, channels=2))


@pytest.fixture(scope="module")
def causal():
    return detector(causal=True).fit(wave(1500, channels=2))


def broken(n=600, channels=2):
    x = wave(n, seed=1, channels=channels)
    x[300:340, 1] = 1.5
    return x


def test_events_have_start_end_and_channel(fitted):
    events = fitted.events(broken())
    assert len(events) == 1
    event = events[0]
    # the rows next to the break are odd, too: a window of 40 sees them
    assert abs(event.first - 300) <= 5
    assert abs(event.last - 339) <= 5
    assert next(iter(event.channels)) == "1"
    assert event.channels["1"] > 0.7
    assert fitted.events(wave(600, seed=2, channels=2)) == []
    assert str(event).startswith(f"{event.first} to {event.last}")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("steps", [3, 5, 12])
def test_windows_cover_steps_exactly(causal, steps):
    window, x = 5, np.arange(float(steps))[:, None]
    sums = scoring_windows(x, window)[:, :, 0].sum(axis=1, keepdims=True)
    told = cover(sums, window, steps, causal)[:, 0]
    if steps < window:
        expected = np.full(steps, 0.0 if causal else sums[0, 0])
    else:
        starts = {t: [t - 4] if causal else range(max(0, t - 4), min(t, steps - 5) + 1) for t in range(steps)}
        expected = [sum(sums[s, 0] for s in starts[t] if s >= 0) for t in range(steps)]
    # sums of whole numbers are exact
    np.testing.assert_array_equal(told, expected)


def test_score_is_that_of_the_formula():
    """A model that says nothing (a code that is not used) leaves the squared distance from its constant answer."""
    X = wave(400, channels=2)
    found = detector(window=10).fit(X)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, 10, axis=0).swapaxes(1, 2).astype(np.float32)
    squares = (windows - found.autoencoder_.reconstruct(windows)) ** 2
    each = squares.mean(axis=1)  # of each window and channel
    expected = [-np.log1p(each[max(0, t - 9) : t + 1].mean(axis=0)).mean() for t in range(400)]
    # float32 network
    np.testing.assert_allclose(found.score_samples(X), expected, rtol=1e-4)


def test_period_and_window():
    x = wave(1000)
    assert abs(find_period([x]) - 2 * np.pi * 8) <= 1
    assert find_period([np.random.default_rng(0).normal(size=(1000, 1))]) is None
    assert find_period([np.zeros((100, 3))]) is None
    assert choose_window(10_000, 1, None) == 256
    assert choose_window(10_000, 1, 50) == 250
    assert choose_window(10_000, 38, None) == 26
    assert choose_window(100, 1, None) == 25
    assert choose_window(4, 1, None) == 1


def test_times_put_rows_on_a_grid(fitted):
    X = broken()
    frame = pd.DataFrame(X, columns=["a", "b"])
    frame["when"] = pd.date_range("2024-01-01", periods=len(X), freq="min")
    known = pd.DataFrame(wave(1500, channels=2), columns=["a", "b"])
    known.insert(0, "when", pd.date_range("2023-01-01", periods=1500, freq="min"))
    timed = detector(time="when").fit(known)
    assert timed.step_ == 60e9
    np.testing.assert_allclose(timed.score_samples(frame), fitted.score_samples(X), rtol=1e-4)
    event = timed.events(frame)[0]
    assert event.start == np.datetime64("2024-01-01T00:00") + np.timedelta64(event.first, "m")
    # an index of dates says the same
    indexed = detector().fit(known.set_index("when"))
    np.testing.assert_array_equal(
        indexed.score_samples(frame.set_index("when")), timed.score_samples(frame[["when", "a", "b"]])
    )
    # text and polars, too
    text = pl.from_pandas(frame[["when", "a", "b"]]).with_columns(pl.col("when").dt.strftime("%Y-%m-%d %H:%M"))
    np.testing.assert_allclose(timed.score_samples(text), timed.score_samples(frame), rtol=1e-6)
    # short gaps keep the event where it is; after long ones a series begins anew
    holes = frame.drop(index=[100, 101, 102, 310, *range(400, 480)])
    found = timed.events(holes)
    assert len(found) == 1
    assert found[0].start == event.start
    assert len(timed.score_samples(holes)) == len(holes)


def test_many_series_in_one_model():
    frame = pd.DataFrame(
        {
            "who": ["a"] * 700 + ["b"] * 600,
            "x": np.concatenate([wave(700)[:, 0], wave(600, seed=3)[:, 0]]),
        }
    )
    order = np.argsort(
        np.concatenate([np.arange(700), np.arange(600)]), kind="stable"
    )  # rows of both, one after the other
    woven = frame.iloc[order].reset_index(drop=True)
    named = detector(series="who").fit(frame)
    listed = detector().fit([frame.x.to_numpy()[:700], frame.x.to_numpy()[700:]])
    scores = listed.score_samples([frame.x.to_numpy()[:700], frame.x.to_numpy()[700:]])
    np.testing.assert_allclose(named.score_samples(frame), np.concatenate(scores), rtol=1e-5)
    np.testing.assert_allclose(named.score_samples(woven), named.score_samples(frame)[order], rtol=1e-5)
    assert [len(p) for p in listed.predict([wave(50), wave(60)])] == [50, 60]
    odd = frame.copy()
    odd.loc[900:940, "x"] = 3
    assert [e.series for e in named.events(odd)] == ["b"]
    assert list(named.explain(odd).columns) == ["x"]


def test_stream_agrees_with_batch(causal):
    X = broken()
    X[100:103, 0] = np.nan
    # float32, in batches of other sizes
    np.testing.assert_allclose(list(causal.score_stream(X)), causal.score_samples(X), rtol=1e-4, atol=1e-6)
    with_past = list(causal.score_stream(X[200:], history=X[:200]))
    np.testing.assert_allclose(with_past, causal.score_samples(X)[200:], rtol=1e-4, atol=1e-6)
    stream = causal.score_stream(iter(X))
    assert next(stream) == np.median(causal.calibration_scores_)  # asked for one row, took one
    event = causal.events(X)[0]
    assert 300 <= event.first <= 320


def test_one_alarm_for_each_event(causal):
    X = np.concatenate([broken(), wave(400, seed=4, channels=2), broken()])
    raised = np.flatnonzero(list(causal.alarms(X)))
    assert len(raised) == 2
    assert 300 <= raised[0] <= 320
    assert 1300 <= raised[1] <= 1320
    with pytest.raises(ValueError, match="hold=0"):
        next(causal.alarms(X, hold=0))


def test_departures_are_of_all_that_came_before():
    rng = np.random.default_rng(0)
    known, scores = -rng.gamma(2, size=50), -rng.gamma(2, size=30)
    logs = np.log(np.expm1(-np.concatenate([known, scores])) + 1e-6)
    expected = [(logs[i] - logs[:i].mean()) / np.sqrt(logs[:i].var() + 0.01) for i in range(50, 80)]
    # sums in another order
    np.testing.assert_allclose(list(departures(scores, known)), expected, rtol=1e-9)
    assert list(once([True, True, False, False, True, False, True], 2)) == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_causal_scores_know_nothing_of_what_comes(causal):
    X = broken()
    changed = X.copy()
    changed[350:] = 7
    np.testing.assert_array_equal(causal.score_samples(X)[:350], causal.score_samples(changed)[:350])


def test_threshold_moves_and_rates_hold():
    X = np.random.default_rng(0).normal(size=(4000, 2))  # no memory: rows of held-out windows are like those to come
    found = detector(window=5, contamination=0.05).fit(X)
    new = np.random.default_rng(1).normal(size=(4000, 2))
    # some 1300 held-out rows in windows of 5: about 260 independent ones, a standard deviation of 0.0135 of the rate
    assert (found.predict(new) == -1).mean() == pytest.approx(0.05, abs=0.04)
    assert (found.p_values(new) <= 0.05).mean() == pytest.approx((found.predict(new) == -1).mean(), abs=0.01)
    before = found.offset_
    found.set_params(contamination=0.01)
    assert found.offset_ < before


def test_contaminated_rows_do_not_hide_themselves():
    X = wave(1500, channels=2)
    for start in (200, 700, 1300):
        X[start : start + 40, 1] = 1.5
    found = detector(training="contaminated").fit(X)
    events = found.events(X)
    assert [round(e.first, -2) for e in events] == [200, 700, 1300]
    assert len(found.calibration_scores_) == 1500
    assert (found.predict(X) == -1).mean() < 0.3


def test_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    again = load(tmp_path / "m")
    X = broken()
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    assert again.events(X) == fitted.events(X)
    assert again.n_features_in_ == 2


def test_reconstruct_and_explain_come_in_kind(fitted):
    X = broken()
    rebuilt = fitted.reconstruct(X)
    assert rebuilt.shape == X.shape
    # a wave with noise of 0.1: what is rebuilt is near the wave
    assert np.abs(rebuilt[50:250] - X[50:250]).mean() < 0.15
    blame = fitted.explain(X)
    assert blame[310:330, 1].mean() > 2 * abs(blame[310:330, 0].mean())


def test_gaps_are_left_out(fitted):
    X = wave(600, seed=2, channels=2)
    X[200:230, 0] = np.nan
    X[400:] = np.nan
    scores = fitted.score_samples(X)
    assert np.isfinite(scores).all()
    assert scores[-1] == np.median(fitted.calibration_scores_)
    assert fitted.events(X) == []


def test_constant_channels_and_equal_rows():
    X = np.column_stack([wave(600)[:, 0], np.full(600, 7.0)])
    found = detector().fit(X)
    changed = X.copy()
    changed[300:310, 1] = 9
    event = found.events(changed)[0]
    assert 295 <= event.first <= 300 <= 309 <= event.last <= 315
    assert next(iter(event.channels)) == "1"
    still = detector().fit(np.ones((200, 2)))
    assert (still.predict(np.ones((100, 2))) == 1).all()


def test_short_series():
    found = detector(window="auto").fit(wave(30))
    assert found.window_ == 7
    assert len(found.score_samples(wave(3))) == 3
    assert len(found.score_samples(wave(1))) == 1
    with pytest.raises(ValueError, match="at least 4 rows, got n_samples=3"):
        detector().fit(wave(3))
    with pytest.raises(ValueError, match=r"window=500 is longer than what is learned.* 200 of 300 rows"):
        detector(window=500).fit(wave(300))


def test_bad_times():
    frame = pd.DataFrame({"t": [0, 1, 2, 2, 4, 5.0], "x": np.arange(6.0)})
    with pytest.raises(ValueError, match=r"t has the time of row 3 twice.*series="):
        detector(time="t").fit(frame)
    frame.loc[3, "t"] = 1.5
    with pytest.raises(ValueError, match="t is out of order: row 3 is earlier"):
        detector(time="t").fit(frame)
    frame.loc[3, "t"] = np.nan
    with pytest.raises(ValueError, match="t has no time in row 3"):
        detector(time="t").fit(frame)
    with pytest.raises(ValueError, match="time='when' is not a column; the frame has t, x"):
        detector(time="when").fit(frame)
    with pytest.raises(ValueError, match="names a column of a frame; got a ndarray"):
        detector(time="t").fit(wave(100))
    with pytest.raises(ValueError, match="cannot be read as times"):
        detector(time="t").fit(pd.DataFrame({"t": ["no", "time"], "x": [1.0, 2.0]}))


def test_bad_input(fitted, causal):
    with pytest.raises(ValueError, match="series 1: X has 1 features"):
        fitted.score_samples([wave(50, channels=2), wave(50)])
    with pytest.raises(ValueError, match="infinity"):
        fitted.score_samples(np.full((50, 2), np.inf))
    with pytest.raises(ValueError, match="no observed value"):
        detector().fit(np.column_stack([wave(100)[:, 0], np.full(100, np.nan)]))
    with pytest.raises(ValueError, match="causal=True"):
        next(fitted.score_stream(wave(50, channels=2)))
    with pytest.raises(ValueError, match=r"rows of 2 number\(s\), got 3"):
        next(causal.score_stream([[1, 2, 3]]))
    with pytest.raises(ValueError, match="are not: 'label'"):
        detector().fit(pd.DataFrame({"x": np.arange(50.0), "label": ["a"] * 50}))


def naive_volume(y, score, window):
    """What the paper says, threshold by threshold."""
    n, areas = len(y), []
    runs = [r for r in np.split(np.flatnonzero(y), np.flatnonzero(np.diff(np.flatnonzero(y)) > 1) + 1) if len(r)]
    for w in range(window + 1):
        soft = y.astype(float)
        for run in runs:
            for d in range(1, w // 2 + 1):
                for at in (run[0] - d, run[-1] + d):
                    if 0 <= at < n:
                        soft[at] = min(1, soft[at] + np.sqrt(1 - d / w))
        touched = np.zeros(n, dtype=bool)
        for run in runs:
            touched[max(0, run[0] - w // 2) : run[-1] + w // 2 + 1] = True
        places = np.flatnonzero(touched)
        joined = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        before, area = 0.0, 0.0
        for i in np.linspace(0, n - 1, 250).astype(int):
            flag = score >= np.sort(score)[::-1][i]
            hit = (soft * flag).sum()
            total = (y.sum() + np.where(y == 1, 1, soft * flag).sum()) / 2
            recall = min(hit / total, 1) * np.mean([flag[run].any() for run in joined])
            area += (recall - before) * hit / flag.sum()
            before = recall
        areas.append(area)
    return np.mean(areas)


def test_volumes_under_surfaces():
    rng = np.random.default_rng(0)
    for _ in range(5):
        y = np.zeros(300, dtype=int)
        for start in (20, 120, 230):
            y[start : start + rng.integers(1, 30)] = 1
        score = rng.normal(size=300) + y
        # the order of sums alone differs
        assert vus_pr(y, score, 12) == pytest.approx(naive_volume(y, score, 12), abs=1e-9)
    assert vus_pr(y, y, 0) == vus_roc(y, y, 0) == 1
    for bad in ([0, 0, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match="labels"):
            vus_pr(bad, [1.0, 2.0, 3.0], 3)
    with pytest.raises(ValueError, match="finite"):
        vus_roc([0, 1], [0, np.nan], 1)
    with pytest.raises(ValueError, match="one length"):
        vus_roc([0, 1], [0.0], 1)
