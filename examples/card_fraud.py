"""Fraud: payments as they come, some of them fraudulent and nobody knows which; rank them, and choose few false alarms.

The rows to learn from are the rows to judge. ``training="contaminated"`` leaves the most suspicious ones out of the fit.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from diabolo import AnomalyDetector


def payments(n: int, share: float, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Payments, and which are fraudulent."""
    shop = rng.choice(["grocery", "fuel", "travel", "electronics", "online"], n, p=[0.4, 0.2, 0.1, 0.1, 0.2])
    level = (
        pd.Series(shop).map({"grocery": 3.5, "fuel": 3.8, "travel": 6.0, "electronics": 5.5, "online": 4.0}).to_numpy()
    )
    hour = np.clip(rng.normal(14, 3.5, n), 0, 23.99)
    frame = pd.DataFrame(
        {
            "time": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 90, n) * 24 + hour, unit="h"),
            "hour": hour.round(1),
            "amount": np.exp(level + 0.5 * rng.normal(size=n)).round(2),
            "shop": shop,
            "country": rng.choice(["home", "abroad"], n, p=[0.95, 0.05]),
            "card_present": (shop != "online") & (rng.random(n) < 0.9),
        }
    )
    fraud = rng.random(n) < share
    many = int(fraud.sum())
    frame.loc[fraud, "hour"] = rng.uniform(0, 5, many).round(1)
    frame.loc[fraud, "card_present"] = rng.random(many) < 0.1
    frame.loc[fraud, "country"] = rng.choice(["home", "abroad"], many, p=[0.4, 0.6])
    frame.loc[fraud, "amount"] *= np.exp(rng.normal(1.0, 0.5, many))
    frame.loc[rng.random(n) < 0.03, "country"] = None  # holes are as usual
    return frame, fraud


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Fraud among payments.")
    parser.add_argument("--rows", type=int, default=5000)
    options = parser.parse_args(arguments)

    frame, fraud = payments(options.rows, 0.02, np.random.default_rng(0))
    detector = AnomalyDetector(training="contaminated", contamination=0.02, random_state=0).fit(frame)
    scores = detector.score_samples(frame)
    flagged = detector.predict(frame) == -1
    results = {
        "average_precision": float(average_precision_score(fraud, -scores)),
        "flagged": float(flagged.mean()),
        "right": float(fraud[flagged].mean()),
    }
    print(f"flagged {flagged.sum()} of {len(frame)} payments, {results['right']:.0%} of them fraud; {fraud.sum()} are")
    worst = frame.iloc[np.argsort(scores)[:3]]
    for label, reasons in zip(worst.index, detector.reasons(worst), strict=True):
        print(f"payment {label}: {'; '.join(map(str, reasons))}")
    return results


if __name__ == "__main__":
    main()
