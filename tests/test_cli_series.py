"""The command line and the page about anomalies in series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diabolo import SeriesAnomalyDetector
from diabolo.cli.app import main
from diabolo.report import build_report
from test_report import Page

FAST = ["--max-epochs", "15", "--hidden", "32", "--latent-dim", "4", "--seed", "0", "--device", "cpu", "--quiet"]


def pump(n, seed=0):
    t = np.arange(n)
    noise = 0.1 * np.random.default_rng(seed).normal(size=(n, 2))
    frame = pd.DataFrame({"flow <l/s>": np.sin(t / 8), "pressure": np.cos(t / 8)}) + noise
    frame.insert(0, "when", pd.date_range("2024-01-01", periods=n, freq="h"))
    return frame


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pump(1200).to_csv("pump.csv", index=False)
    odd = pump(800, seed=1)
    odd.loc[400:439, "pressure"] = 1.5
    odd.drop(index=range(100, 120)).to_csv("odd.csv", index=False)
    return odd


def test_learned_judged_and_reported(files, capsys):
    assert main(["fit", "pump.csv", "--detector", "--time", "when", "-o", "m", *FAST]) == 0
    capsys.readouterr()
    assert main(["anomalies", "m", "odd.csv", "-o", "out.csv"]) == 0
    said = capsys.readouterr().err
    assert "found 1 event(s) in 780 rows" in said
    assert "pressure" in said
    out = pd.read_csv("out.csv")
    assert list(out.columns) == ["row", "when", "score", "anomaly", "channel_1", "channel_2"]
    inside = out[out.anomaly == 1]
    assert abs(len(inside) - 40) <= 4
    assert (inside.channel_1 == "pressure").all()
    assert pd.Timestamp(inside.when.iloc[0]) == pytest.approx(files.when[400], abs=pd.Timedelta("4h"))
    assert main(["score", "m", "odd.csv", "-o", "s.csv"]) == 0
    np.testing.assert_allclose(pd.read_csv("s.csv").score, out.score)
    assert main(["report", "m", "odd.csv", "-o", "r.html"]) == 0
    assert "1 events in 780 rows" in Path("r.html").read_text()
    assert main(["info", "m"]) == 0


def test_judged_without_a_model_and_many_series(files, capsys):
    both = pd.concat([pump(600, seed=2).assign(who="a"), files.assign(who="b")])
    both.to_csv("both.csv", index=False)
    assert main(["anomalies", "both.csv", "--time", "when", "--series", "who", "-o", "o.csv", *FAST]) == 0
    assert "series b, " in capsys.readouterr().err
    out = pd.read_csv("o.csv")
    assert set(out[out.anomaly == 1].who) == {"b"}
    assert out.row.tolist() == list(range(1400))
    files.drop(columns="when").to_csv("bare.csv", index=False)
    assert main(["anomalies", "bare.csv", "--steps", "-o", "o.csv", *FAST]) == 0
    assert list(pd.read_csv("o.csv").columns) == ["row", "score", "anomaly", "channel_1", "channel_2"]


def test_flags_that_do_not_fit(files, capsys):
    assert main(["fit", "pump.csv", "--time", "when", "-o", "m"]) == 2
    assert "add --detector" in capsys.readouterr().err
    assert main(["anomalies", "pump.csv", "--time", "then"]) == 1
    assert "time='then' is not a column; the frame has when, flow <l/s>, pressure" in capsys.readouterr().err
    assert main(["fit", "pump.csv", "--detector", "--steps", "-o", "m", *FAST]) == 1
    assert "'when'" in capsys.readouterr().err


def test_the_page_shows_events_and_escapes_names(files):
    detector = SeriesAnomalyDetector(time="when", random_state=0).fit(pump(1200))
    page = Page(build_report(detector, files))
    assert "1 events in 800 rows" in page.words
    assert "flow &lt;l/s&gt;" in build_report(detector, files)
    assert build_report(detector, files) == build_report(detector, files)
    quiet = Page(build_report(detector, pump(800, seed=3)))
    assert "No row scores below the threshold." in quiet.words
    with pytest.raises(TypeError, match="no labels"):
        build_report(detector, files, labels=[0] * 800)
    bare = SeriesAnomalyDetector(random_state=0).fit([x := np.sin(np.arange(900) / 8), x])
    assert "1,800 rows of 2 series" in Page(build_report(bare, [x, x])).words
