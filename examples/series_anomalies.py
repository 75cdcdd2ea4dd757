"""A pump watched minute by minute: what it does when all is well is learned, the next day is judged, with a page to look at."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from diabolo import SeriesAnomalyDetector
from diabolo.report import write_report


def readings(minutes: int, rng: np.random.Generator) -> pd.DataFrame:
    steps = np.arange(minutes)
    return pd.DataFrame(
        {
            "pressure": 4 + np.sin(steps / 15) + rng.normal(0, 0.1, minutes),
            "flow": 20 + 3 * np.cos(steps / 15) + rng.normal(0, 0.3, minutes),
            "temperature": 60 + 5 * np.sin(steps / 400) + rng.normal(0, 0.2, minutes),
        },
        index=pd.date_range("2026-05-01", periods=minutes, freq="min"),
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description="A pump that stands still, takes a blow, and is not recorded for a while."
    )
    parser.add_argument("--minutes", type=int, default=2880)
    parser.add_argument("--report", default="pump.html")
    options = parser.parse_args(arguments)
    pump = readings(options.minutes, np.random.default_rng(0))
    good, today = pump[: -options.minutes // 3], pump[-options.minutes // 3 :].copy()
    today.iloc[300:340, 1] = 21.0  # the flow stands still
    today.iloc[700:704, 0] += 2.5  # a blow
    today = today.drop(index=today.index[500:520])  # and twenty minutes were not recorded

    detector = SeriesAnomalyDetector(random_state=0).fit(good)
    print(f"windows of {detector.window_} minutes; the pump repeats itself every {detector.period_}")
    events = detector.events(today)
    for event in events:
        print(event)
    print("report:", write_report(detector, today, options.report))
    return {"events": len(events), "channels": [next(iter(event.channels)) for event in events]}


if __name__ == "__main__":
    main()
