"""A machine: learn what it does when all is well, at every load and in every mode, and see a bearing fail days before it stops.

Each reading alone stays within its range. Vibration that is too strong for the load is what gives the fault away.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from diabolo import AnomalyDetector


def readings(days: int, rng: np.random.Generator, worn: np.ndarray | None = None) -> pd.DataFrame:
    """Hourly readings; ``worn`` says how far a bearing is gone, from 0 to 1."""
    n = 24 * days
    worn = np.zeros(n) if worn is None else worn
    mode = rng.choice(["idle", "run", "boost"], n, p=[0.2, 0.6, 0.2])
    load = pd.Series(mode).map({"idle": 0.1, "run": 0.6, "boost": 0.95}).to_numpy() + 0.05 * rng.normal(size=n)
    speed = 900 + 1400 * load + 20 * rng.normal(size=n)
    return pd.DataFrame(
        {
            "time": pd.date_range("2026-01-01", periods=n, freq="h"),
            "mode": pd.Categorical(mode, ["idle", "run", "boost"], ordered=True),
            "load": load,
            "speed": speed,
            "vibration": 0.2 + 0.8 * load**2 + 0.03 * rng.normal(size=n) + 0.3 * worn,
            "temperature": 30 + 35 * load + 1.5 * rng.normal(size=n) + 8 * worn,
            "current": np.where(rng.random(n) < 0.02, np.nan, 4 + 11 * load + 0.3 * rng.normal(size=n)),
        }
    )


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="A bearing that wears out.")
    parser.add_argument("--days", type=int, default=60)
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    healthy = readings(options.days, rng).drop(columns="time")  # when it was is no sign of health
    detector = AnomalyDetector(contamination=0.01, random_state=0).fit(healthy)

    worn = np.clip((np.arange(24 * 20) - 24 * 10) / (24 * 10), 0, 1)  # from day 10 to day 20
    coming = readings(20, rng, worn)
    p = detector.p_values(coming.drop(columns="time"))
    daily = pd.Series(p <= 0.01, index=coming["time"]).resample("D").mean()
    warned = daily.to_numpy() > 0.2
    first = int(np.flatnonzero(warned)[0]) if warned.any() else -1
    results = {"false_alarms": float(daily[:10].mean()), "day": float(first), "last_day": float(daily.iloc[-1])}
    print(
        f"alarms while all is well: {results['false_alarms']:.1%} of the hours; the bearing is noticed on day {first}"
    )
    last = coming.drop(columns="time").iloc[[-1]]
    print(f"at the end: {'; '.join(map(str, detector.reasons(last)[0]))}")
    return results


if __name__ == "__main__":
    main()
