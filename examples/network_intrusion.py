"""Network intrusion: learn from ordinary connections, find attacks of kinds that nobody has seen, and say what gives them away.

Connections are made up here: protocol, service and flag are labels, durations and bytes have heavy tails. An attack has no column
of its own that is out of range; what it has does not go together.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from diabolo import AnomalyDetector


def ordinary(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Connections of a working day."""
    service = rng.choice(["http", "smtp", "dns", "ssh"], n, p=[0.55, 0.15, 0.25, 0.05])
    size = pd.Series(service).map({"http": 6.0, "smtp": 7.0, "dns": 3.5, "ssh": 8.0}).to_numpy()
    sent = np.exp(size + 0.6 * rng.normal(size=n))
    received = sent * np.exp(np.where(service == "http", 2.0, -0.5) + 0.4 * rng.normal(size=n))
    return pd.DataFrame(
        {
            "protocol": np.where(service == "dns", "udp", "tcp"),
            "service": service,
            "flag": np.where(rng.random(n) < 0.97, "SF", "REJ"),
            "duration": np.where(service == "ssh", 300.0, 2.0) * rng.gamma(2.0, 0.5, n),
            "bytes_sent": sent.round(),
            "bytes_received": received.round(),
            "same_host": rng.poisson(4, n),
            "logged_in": (service == "ssh") | (rng.random(n) < 0.3),
        }
    )


def attacks(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Scans, data carried out by name service, and long quiet logins."""
    found = ordinary(3 * n, rng)
    scan, tunnel, login = (slice(i * n, (i + 1) * n - 1) for i in range(3))
    found.loc[scan, ["flag", "bytes_received", "same_host"]] = ["REJ", 0.0, 14]
    found.loc[tunnel, ["protocol", "service", "bytes_sent"]] = ["udp", "dns", 4000.0]
    found.loc[login, ["service", "protocol", "duration", "bytes_sent"]] = ["ssh", "tcp", 900.0, 60.0]
    return found


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Attacks among connections.")
    parser.add_argument("--rows", type=int, default=4000)
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    detector = AnomalyDetector(contamination=0.01, random_state=0).fit(ordinary(options.rows, rng))
    normal, odd = ordinary(1000, rng), attacks(100, rng)
    scores = np.concatenate([detector.score_samples(normal), detector.score_samples(odd)])
    results = {
        "roc_auc": float(roc_auc_score(np.repeat([0, 1], [len(normal), len(odd)]), -scores)),
        "false_alarms": float((detector.predict(normal) == -1).mean()),
        "found": float((detector.predict(odd) == -1).mean()),
    }
    print(f"found {results['found']:.0%} of the attacks with {results['false_alarms']:.1%} false alarms")
    for kind, row in (("scan", 5), ("tunnel", 105), ("login", 205)):
        print(f"{kind}: {'; '.join(map(str, detector.reasons(odd.iloc[[row]], n=2)[0]))}")
    return results


if __name__ == "__main__":
    main()
