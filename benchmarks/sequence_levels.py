"""Levels of Super Mario Bros.: windows of tiles, models of n-grams, and what new windows are judged by."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from mario_levels import playable  # what a level is tested by

GAME, WIDTH, STRIDE = "Super Mario Bros", 16, 1
HELD_OUT = ("mario-3-1", "mario-5-3", "mario-7-1")  # one of each sort that the game has: land, sky, land with cannons
OUTSIDE = "#"  # beyond the edge of a window


def load(data):
    """Return the windows of the levels of training and of those held out, each of 14 strings of 16 tiles."""
    levels = json.loads(gzip.decompress((data / "levels" / "vglc_levels.json.gz").read_bytes()))["levels"][GAME]

    def windows(names):
        cut = [
            [row[x : x + WIDTH] for row in levels[name]]
            for name in names
            for x in range(0, len(levels[name][0]) - WIDTH + 1, STRIDE)
        ]
        return np.array([[list(row) for row in rows] for rows in cut])  # (n, 14, 16) of single characters

    return windows([name for name in levels if name not in HELD_OUT]), windows(HELD_OUT)


def rows_of(window):
    return ["".join(row) for row in window]


class ColumnGrams:
    """The next column, of 14 tiles, by those before it; contexts that were not seen are shortened."""

    def __init__(self, n=3):
        self.n, self.counts = n, {}

    def fit(self, windows):
        for window in windows:
            columns = [None] * (self.n - 1) + ["".join(c) for c in window.T]
            for i in range(self.n - 1, len(columns)):
                for k in range(self.n):
                    self.counts.setdefault(tuple(columns[i - k : i]), Counter())[columns[i]] += 1
        return self

    def sample(self, n, seed):
        rng, made = np.random.default_rng(seed), []
        for _ in range(n):
            columns = [None] * (self.n - 1)
            for _ in range(WIDTH):
                context = tuple(columns[len(columns) - self.n + 1 :])
                while context not in self.counts:
                    context = context[1:]
                seen = self.counts[context]
                columns.append(str(rng.choice(list(seen), p=np.array(list(seen.values())) / seen.total())))
            made.append(np.array([list(c) for c in columns[self.n - 1 :]]).T)
        return np.array(made)


class TileGrams:
    """A tile by its neighbours below, left and left below and its row, column by column from the ground up.

    The chances of a context are drawn towards those of a shorter one, with the weight of ``prior`` tiles seen.
    """

    def __init__(self, prior=0.1):
        self.prior = prior

    @staticmethod
    def _contexts(padded, y, x):
        below, left, corner = padded[y + 1, x + 1], padded[y, x], padded[y + 1, x]
        return (), (y,), (y, below), (y, below, left), (y, below, left, corner)

    def fit(self, windows):
        self.tiles, self.shape = sorted(set(windows.ravel().tolist())), windows.shape[1:]
        self.counts, place = {}, {tile: i for i, tile in enumerate(self.tiles)}
        for window in windows:
            padded = np.pad(window, ((0, 1), (1, 0)), constant_values=OUTSIDE)
            for y, x in np.ndindex(self.shape):
                for context in self._contexts(padded, y, x):
                    self.counts.setdefault(context, np.zeros(len(self.tiles)))[place[window[y, x]]] += 1
        return self

    def chances(self, padded, y, x):
        p = np.full(len(self.tiles), 1 / len(self.tiles))
        for context in self._contexts(padded, y, x):
            seen = self.counts.get(context, 0)
            p = (seen + self.prior * p) / (np.sum(seen) + self.prior)
        return p

    def log_prob(self, windows):
        place, total = {tile: i for i, tile in enumerate(self.tiles)}, np.zeros(len(windows))
        for i, window in enumerate(windows):
            padded = np.pad(window, ((0, 1), (1, 0)), constant_values=OUTSIDE)
            total[i] = sum(np.log(self.chances(padded, y, x)[place[window[y, x]]]) for y, x in np.ndindex(self.shape))
        return total

    def sample(self, n, seed):
        rng = np.random.default_rng(seed)
        made = np.full((n, self.shape[0] + 1, self.shape[1] + 1), OUTSIDE)
        for window in made:
            for x in range(self.shape[1]):
                for y in reversed(range(self.shape[0])):
                    window[y, x + 1] = rng.choice(self.tiles, p=self.chances(window, y, x))
        return made[:, :-1, 1:]


def patterns(windows, size):
    """Return how often each pattern of ``size`` by ``size`` tiles occurs."""
    views = np.lib.stride_tricks.sliding_window_view(windows, (size, size), axis=(1, 2))
    return Counter(map(bytes, np.ascontiguousarray(views.reshape(-1, size * size))))


def pattern_divergence(p, q, epsilon=1e-5):
    """Kullback-Leibler divergence of tile patterns (Lucas and Volz, 2019, arXiv:1905.05077), in nats."""
    n_p, n_q = p.total(), q.total()

    def smooth(count, total):
        return (count + epsilon) / ((total + epsilon) * (1 + epsilon))

    return float(
        sum(smooth(c, n_p) * np.log(smooth(c, n_p) / smooth(q.get(pattern, 0), n_q)) for pattern, c in p.items())
    )


def judge(made, held_out, train):
    """Return the measures of made windows beside held-out ones."""
    known = {window.tobytes() for window in train}
    found = {"playable": float(np.mean([playable(rows_of(w)) for w in made]))}
    found["copied"] = float(np.mean([w.tobytes() in known for w in made]))
    found["different"] = len({w.tobytes() for w in made}) / len(made)
    for size in (2, 3, 4):
        a, b = patterns(made, size), patterns(held_out, size)
        found[f"new_from_real_{size}"] = pattern_divergence(a, b)
        found[f"real_from_new_{size}"] = pattern_divergence(b, a)
    return found
