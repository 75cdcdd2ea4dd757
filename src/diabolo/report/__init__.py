"""A fitted model as one self-contained HTML page: how it trained, what it keeps, what it misses, and what to try next.

Needs no network to make or to read. A report reads the fitted attributes of a model; it trains nothing and changes nothing.

Examples
--------
>>> from sklearn.datasets import load_iris
>>> from diabolo import Autoencoder
>>> from diabolo.report import build_report
>>> X = load_iris().data
>>> html = build_report(Autoencoder(2, max_epochs=5, random_state=0).fit(X), X, title="Iris")
>>> html[:15], "<title>Iris</title>" in html
('<!doctype html>', True)
"""

from __future__ import annotations

from diabolo.report.build import build_report, write_report, write_search
from diabolo.report.card import build_card, write_card
from diabolo.report.figures import write_grid, write_map
from diabolo.report.pictures import write_picture_report

__all__ = ["build_card", "build_report", "write_card", "write_grid", "write_map", "write_picture_report"]
__all__ += ["write_report", "write_search"]
