"""Recommend: learn from events who chooses what, and serve people whom the model has never seen.

The events are made up: each person likes one of four kinds of films, and hits more than others.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from diabolo import ItemPopularity, Recommender

KINDS = ("comedy", "drama", "horror", "western")


def watch(n_people: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return who saw which of 80 films."""
    taste = rng.integers(0, 4, n_people)
    liked = np.arange(80) % 4 == taste[:, None]
    fame = 1.5 / np.sqrt(1 + np.arange(80) // 4)
    who, what = np.nonzero(rng.random((n_people, 80)) < fame * np.where(liked, 0.5, 0.05))
    names = np.array([f"{KINDS[i % 4]} {i // 4}" for i in range(80)])
    return pd.DataFrame({"user": [f"person {u}" for u in who], "item": names[what]})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Films for people.")
    parser.add_argument("--people", type=int, default=800)
    options = parser.parse_args(arguments)
    events = watch(options.people, np.random.default_rng(0))

    # How good would it be? Users are held out, and all films are ranked for each of them.
    results = {
        name: model.evaluate(events, k=(10,))["ndcg@10"]
        for name, model in (
            ("recommender", Recommender(random_state=0)),
            ("popularity", Recommender(ItemPopularity())),
        )
    }
    print(f"NDCG@10 of new users: {results['recommender']:.3f}; {results['popularity']:.3f} for what is popular")

    model = Recommender(random_state=0).fit(events)
    print(model.recommend(history=["horror 3", "horror 7"], k=3))
    print(model.explain(history=["horror 3", "horror 7"], item="horror 0"))
    return results


if __name__ == "__main__":
    main()
