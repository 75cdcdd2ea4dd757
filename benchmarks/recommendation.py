"""Recommendation: our recommender beside its parts, item neighbours, popularity, cornac and RecBole.

    python benchmarks/recommendation.py [--sets ml100k ml1m gowalla] [--seeds 0 1 2] [--methods Recommender EASE] [--speed]
                                        [--lists] [--render]

Every method ranks all items (no sampled candidates) and leaves out what a user has; the same measures for all.

``ml100k``   MovieLens-100k in the protocol of Microsoft Recommenders: all ratings are choices, a quarter of each user's is hidden
             at random; lists of 10.
``ml1m``     MovieLens-1M, pairs only: 500 users are held out (strong generalisation); a fifth of what each has is to be found
             by the rest. Recall is divided by ``min(k, relevant)``, as in Liang et al. (2018).
``gowalla``  the split of LightGCN; recall by the number of relevant items, as there.

"Recommender" is ``Recommender()``: what users get who name no model. "EASE 300" is the bar, EASE with the l2 that the measured
figures of others take. "item neighbours" is the cosine of columns, the 100 nearest of each. Defaults were chosen
by what was held out from training: choices on MovieLens-100k and Gowalla, on MovieLens-1M 500 users who are no test users of the
first split. Peers run through DIABOLO_PEERS (cornac, recbole), VAEs on the net 200-600 with the paper's beta and learning rate,
BPR and BiVAE as in cornac's own examples. ``--speed`` measures an epoch of a VAE (600-200-600, batches of 100) beside them,
``--lists`` ``recommend`` for 10,000 users of 100,000 items. Results are kept in benchmarks/results/recommendation.json; --render
writes docs/recommendation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy import sparse

from diabolo import CDAE, EASE, GraphFilter, ItemPopularity, MultDAE, MultVAE, Recommender, RecVAE
from diabolo.tasks.ranking import fold, measure_ranking

warnings.simplefilter("ignore")  # unused units of codes
DATA = Path(os.environ.get("DIABOLO_BENCH_DATA", "../shared/data")) / "recsys"
PEERS = Path(os.environ.get("DIABOLO_PEERS", "peers")).absolute()
RESULTS = Path(__file__).parent / "results" / "recommendation.json"
PAGE = Path(__file__).parents[1] / "docs" / "recommendation.md"
OURS = {
    "Recommender": lambda: None,
    "EASE": lambda: EASE(),
    "EASE 300": lambda: EASE(l2=300.0),
    "GraphFilter": lambda: GraphFilter(),
    "MultVAE": lambda: MultVAE(),
    "MultDAE": lambda: MultDAE(),
    "RecVAE": lambda: RecVAE(max_epochs=100),
    "CDAE": lambda: CDAE(max_epochs=90),
    "popularity": lambda: ItemPopularity(),
}
THEIRS = {
    "cornac VAECF": ("cornac", 100),
    "cornac BiVAE": ("cornac", 500),
    "cornac BPR": ("cornac", 100),
    "RecBole MultiVAE": ("recbole", 150),
    "RecBole RecVAE": ("recbole", 60),
}
SETS = {
    "ml100k": [
        "Recommender", "EASE", "EASE 300", "GraphFilter", "MultVAE", "MultDAE", "RecVAE", "CDAE", "item neighbours", "popularity",
        *THEIRS,
    ],
    "ml1m": [
        "Recommender", "EASE", "EASE 300", "GraphFilter", "MultVAE", "MultDAE", "RecVAE", "CDAE", "item neighbours", "popularity",
        "RecBole MultiVAE", "RecBole RecVAE",
    ],
    "gowalla": ["Recommender", "GraphFilter", "item neighbours", "popularity"],
}  # fmt: skip
SHOWN = {
    "ml100k": ("ndcg@10", "map@10", "precision@10", "recall@10", "coverage@10", "novelty@10"),
    "ml1m": ("ndcg@100", "capped_recall@20", "capped_recall@50", "coverage@20", "novelty@20"),
    "gowalla": ("recall@20", "ndcg@20", "coverage@20", "novelty@20"),
}


def pairs(users, items):
    _, users = np.unique(users, return_inverse=True)
    _, items = np.unique(items, return_inverse=True)
    return sparse.csr_array((np.ones(len(users), np.float32), (users, items)))


def split(name, seed):
    """Return rows to learn from, histories of those who are judged, and what they are to be shown."""
    rng = np.random.default_rng(seed)
    if name == "gowalla":
        data = np.load(DATA / "gowalla_lightgcn.npz")
        n_items = int(max(data["train_item"].max(), data["test_item"].max())) + 1
        train, test = (
            sparse.csr_array(
                (np.ones(len(data[f"{k}_item"]), np.float32), data[f"{k}_item"].astype(np.int64), data[f"{k}_indptr"]),
                shape=(len(data["train_indptr"]) - 1, n_items),
            )
            for k in ("train", "test")
        )
        return train, train, test
    if name == "ml100k":
        data = np.load(DATA / "movielens_100k.npz")
        shown, hidden = fold(pairs(data["user"], data["item"]), 0.25, rng)
        return shown, shown, hidden
    data = np.load(DATA / "movielens_1m_implicit_order.npz")
    rows = pairs(data["user"], data["item"])
    order = rng.permutation(rows.shape[0])
    return (rows[np.sort(order[500:])], *fold(rows[np.sort(order[:500])], 0.2, rng))


def neighbours(train):
    length = np.sqrt(np.maximum(np.asarray(train.sum(axis=0)), 1.0))
    scaled = sparse.csr_array(train @ sparse.diags_array(1 / length))
    found = []
    for start in range(0, train.shape[1], 1000):
        part = (scaled[:, start : start + 1000].T @ scaled).toarray()
        part[np.arange(len(part)), np.arange(start, start + len(part))] = 0
        if part.shape[1] > 100:
            part[part < np.partition(part, -100, axis=1)[:, [-100]]] = 0
        found.append(sparse.csr_array(part))
    return sparse.csr_array(sparse.vstack(found).T)


def peer(method, train, histories, seed, epochs):
    library = THEIRS[method][0]
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.npz", Path(folder) / "out.npz"
        (users, items), (who, places) = train.nonzero(), histories.nonzero()
        shape = histories.shape
        np.savez(rows, users=users, items=items, histories=who, places=places, shape=shape)
        script = Path(__file__).parent / "peers" / f"{library}_models.py"
        call = [PEERS / library / "bin" / "python", script, method.split()[1], rows, out, seed, epochs]
        subprocess.run([str(c) for c in call], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        found = np.load(out)
        return found["scores"], float(found["seconds"]), float(found["epoch"])


def run(name, method, seed):
    train, histories, hidden = split(name, seed)
    began = time.process_time()
    if method in OURS:
        model = Recommender(OURS[method](), random_state=seed).fit(train)
        row = {"seconds": time.process_time() - began}
        row |= {f"held-out {k}": v for k, v in model.quality_.items()}
        if model.quality_:
            row |= {f"share of {type(m).__name__}": w for m, w in zip(model.models_, model.weights_, strict=True)}

        def scorer(h, _):
            return model.score_items(h)

    elif method == "item neighbours":
        weights = neighbours(train)
        row = {"seconds": time.process_time() - began}

        def scorer(h, _):
            return (h @ weights).toarray()

    else:
        scores, seconds, epoch = peer(method, train, histories, seed, THEIRS[method][1])
        row = {"seconds": seconds, "epoch": epoch}

        def scorer(_, users):
            return scores[users]

    popularity = np.bincount(train.indices, minlength=train.shape[1]).astype(float)
    return row | measure_ranking(scorer, histories, hidden, popularity, (10, 20, 50, 100))


def speed():
    """Seconds of an epoch of the same net on MovieLens-1M, in turns."""
    train, _, _ = split("ml1m", 0)
    torch.set_num_threads(1)
    epochs = 4
    times = {"diabolo": [], "cornac VAECF": [], "RecBole MultiVAE": []}
    ends = []

    def note(run):
        ends.append(time.process_time())

    for _ in range(3):
        model = MultVAE(
            200, hidden=(600,), activation="tanh", network="mlp", batch_size=100, max_epochs=epochs, random_state=0
        )
        model.set_params(validation_fraction=0, patience=None, callbacks=(note,))
        ends.clear()
        model.fit(train)
        times["diabolo"].append(float(np.median(np.diff(ends))))
        for method in ("cornac VAECF", "RecBole MultiVAE"):
            times[method].append(peer(method, train, train, 0, epochs)[2])  # who is scored does not count here
    return {name: float(np.median(values)) for name, values in times.items()} | {"rounds": times}


def lists():
    """Seconds and memory of 10,000 lists of 100 out of 100,000 items."""
    rng = np.random.default_rng(0)
    n_users, n_items = 10_000, 100_000
    chance = 1 / np.arange(1, n_items + 1) ** 0.8
    items = rng.choice(n_items, size=n_users * 50, p=chance / chance.sum())
    rows = sparse.csr_array(
        (np.ones(len(items), np.float32), (np.repeat(np.arange(n_users), 50), items)), (n_users, n_items)
    )
    rows.data[:] = 1
    torch.set_num_threads(2)
    found = {}
    for name, model in (("recommend", GraphFilter()), ("recommend, nothing damped", GraphFilter(n_damped=0))):
        fitted = Recommender(model).fit(rows)
        before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
        for _ in range(3):
            began = time.perf_counter()
            fitted.recommend(k=100)
            times.append(time.perf_counter() - began)
        found[name] = float(np.median(times))
        found[f"{name}: more memory, MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found


def render(results):
    lines = [
        "# Recommendation",
        "",
        "Written by `python benchmarks/recommendation.py --render`; the script says what is measured, and how. All items are",
        "ranked; means over seeds. `Recommender` is `Recommender()`, without any choice by the user.",
        "",
    ]
    titles = {
        "ml100k": "MovieLens-100k, a quarter of each user's choices hidden",
        "ml1m": "MovieLens-1M, users held out",
        "gowalla": "Gowalla, the split of LightGCN",
    }
    published = {
        "ml100k": "Published in this protocol (Microsoft Recommenders), nDCG@10, MAP, precision, recall: "
        "BiVAE .475, .146, .412, .219; "
        "BPR .442, .132, .388, .213; LightGCN .420, .089, .380, .144; SAR .382, .111, .331, .176.",
        "ml1m": "",
        "gowalla": "Published: LightGCN, recall@20 .183, NDCG@20 .155.",
    }
    for name, title in titles.items():
        rows = {}
        for key, row in results.items():
            parts = key.split(" | ")
            if parts[0] == name:
                rows.setdefault(parts[1], []).append(row)
        if not rows:
            continue
        shown = SHOWN[name]
        lines += [f"## {title}", "", f"| | seeds | {' | '.join(shown)} | CPU s |", "|" + "---|" * (len(shown) + 3)]
        means = {m: {k: np.mean([r[k] for r in found]) for k in shown} for m, found in rows.items()}
        for method in sorted(means, key=lambda m: -means[m][shown[0]]):
            cells = []
            for k in shown:
                best = k.split("@")[0] not in ("coverage", "novelty") and means[method][k] == max(
                    m[k] for m in means.values()
                )
                text = f"{means[method][k]:.3f}"
                cells.append(f"**{text}**" if best else text)
            seconds = np.mean([r["seconds"] for r in rows[method]])
            lines.append(f"| {method} | {len(rows[method])} | {' | '.join(cells)} | {seconds:.0f} |")
        told = [r for r in rows.get("Recommender", []) if any(k.startswith("share of") for k in r)]
        if told:
            shares = {k: np.mean([r[k] for r in told]) for k in told[0] if k.startswith("share of")}
            lines += [
                "",
                "What `Recommender()` made of it: " + ", ".join(f"{k} {v:.2f}" for k, v in shares.items()) + ".",
            ]
        lines += ["", published[name], ""] if published[name] else [""]
    found = results.get("speed")
    if found:
        lines += [
            "## Speed",
            "",
            f"An epoch of a VAE 600-200-600 on 5,540 users of MovieLens-1M, batches of 100, one thread, seconds of the "
            f"processor, median of three turns: {found['diabolo']:.2f} s; RecBole's MultiVAE {found['RecBole MultiVAE']:.2f} s "
            f"({found['RecBole MultiVAE'] / found['diabolo']:.1f} times as long); cornac's VAECF "
            f"{found['cornac VAECF']:.2f} s ({found['cornac VAECF'] / found['diabolo']:.1f} times).",
            "",
        ]
    found = results.get("lists")
    if found:
        lines += [
            f"Lists of 100 out of 100,000 items for 10,000 users by a `GraphFilter`, two threads, median of three: "
            f"{found['recommend']:.1f} s, and {found['recommend: more memory, MB']:.0f} MB of memory on top of the fitted "
            f"model; with `n_damped=0` {found['recommend, nothing damped']:.1f} s.",
            "",
        ]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def keep(key, row):
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[key] = row
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--lists", action="store_true")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.render:
        render(json.loads(RESULTS.read_text()))
        return
    if options.speed:
        keep("speed", speed())
    if options.lists:
        keep("lists", lists())
    if options.speed or options.lists:
        return
    for name in options.sets:
        for method in options.methods or SETS[name]:
            for seed in options.seeds if name != "gowalla" else [0]:
                key = f"{name} | {method} | {seed}"
                results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                if key not in results and method in SETS[name]:
                    row = run(name, method, seed)
                    keep(key, row)
                    print(f"{key:45s} {row[SHOWN[name][0]]:.4f} {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
