"""Assembles the page."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup
from sklearn.utils.validation import check_is_fitted

import diabolo
from diabolo.files import make_folder, write_atomic
from diabolo.report import sections
from diabolo.report.advice import advise
from diabolo.report.colours import read_labels
from diabolo.report.facts import gather
from diabolo.report.recommending import recommender_page
from diabolo.report.timeline import events_page
from diabolo.report.trials import search_page
from diabolo.tasks.recommendation import Recommender
from diabolo.tasks.series import SeriesAnomalyDetector
from diabolo.tuning.search import Tuned

__all__ = ["build_report", "render_page", "write_page", "write_report", "write_search"]


def build_report(model: Any, X: Any, *, labels: Any = None, condition: Any = None, title: str | None = None) -> str:
    """Describe a fitted model and how it does on rows, as one HTML page that needs nothing else.

    The page is the same at every call. Rows beyond some 20,000 (fewer, where they are wide) are scored, and all else is
    measured on a fixed sample of them; the page says so.

    Parameters
    ----------
    model : BaseAutoencoder, AnomalyDetector, SeriesAnomalyDetector or Recommender
        Fitted; it is not changed. The last two have pages of their own: events over time, and what users are shown.
    X : array, frame or tensor
        Rows as in ``fit``: the training rows, or better rows that the model has not seen.
    labels : array-like of shape (n,), optional
        Something known of each row, to colour the map of the code by: categories or numbers. The model does not see it.
    condition : value, sequence, array, mapping or frame, optional
        For a model with a condition, as in its ``transform``.
    title : str, optional
        Heading of the page.

    Returns
    -------
    str
        An HTML document.

    Raises
    ------
    NotFittedError
        When the model is not fitted.
    TypeError
        When it is not an estimator of this library.
    ValueError
        When ``X`` is not of the kind seen in ``fit``, or ``labels`` does not have one entry for each row.
    """
    if isinstance(model, SeriesAnomalyDetector | Recommender):
        return _task_report(model, X, labels, condition, title)
    facts = gather(model, X, condition)
    known = read_labels(labels, facts.n)
    summary = sections.summary(facts)
    script = _part("map.js")
    return render_page(
        "template.html",
        title=title if title is not None else f"{summary['kind']} on {summary['given']}",
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        summary=summary,
        headline=sections.headline(facts),
        advice=advise(facts),
        training=sections.training(facts),
        pairs=sections.pairs(facts, known),
        map=sections.latent_map(facts, known),
        errors=sections.errors(facts),
        units=sections.units(facts),
        anomalies=sections.anomalies(facts, known),
        samples=sections.samples(facts),
    )


def _task_report(
    model: SeriesAnomalyDetector | Recommender, X: Any, labels: Any, condition: Any, title: str | None
) -> str:
    if labels is not None or condition is not None:
        raise TypeError(f"the page about a {type(model).__name__} has no labels and no condition; leave them out")
    check_is_fitted(model)
    if isinstance(model, Recommender):
        page, template = recommender_page(model, X), "recommending.html"
        usual = f"Recommendations from {page['catalogue']} items"
    else:
        page, template = events_page(model, X), "events.html"
        usual = f"Anomalies in series: {page['events']} events in {page['rows']} rows"
    return render_page(template, title=usual if title is None else title, page=page)


def write_report(
    model: Any,
    X: Any,
    path: str | Path,
    *,
    labels: Any = None,
    condition: Any = None,
    title: str | None = None,
) -> Path:
    """Write the page of :func:`build_report` to a file; the folder is made where there is none.

    Parameters
    ----------
    model, X, labels, condition, title
        As for :func:`build_report`.
    path : str or Path
        Where to; what is there is replaced once the new page is whole.

    Returns
    -------
    Path
        The file.
    """
    return write_page(path, build_report(model, X, labels=labels, condition=condition, title=title))


def write_search(found: Tuned, path: str | Path, *, title: str | None = None) -> Path:
    """Write an HTML page about a search: its course, what each parameter gave, and all trials.

    Parameters
    ----------
    found : Tuned
        What :func:`diabolo.tune` returned.
    path : str or Path
        Where to; what is there is replaced once the new page is whole.
    title : str, optional
        Heading of the page.

    Returns
    -------
    Path
        The file.
    """
    title = title if title is not None else f"Search for the parameters of {type(found.estimator).__name__}"
    return write_page(path, render_page("search.html", title=title, page=search_page(found)))


def render_page(template: str, **values: Any) -> str:
    """Return a page made from a template of this package, with the style that all pages share."""
    return _template(template).render(version=diabolo.__version__, style=Markup(_part("style.css")), **values)


def write_page(path: str | Path, page: str) -> Path:
    """Write a page to a file, whole; the folder is made where there is none."""
    path = Path(path)
    make_folder(path.parent)
    write_atomic(path, page.encode())
    return path


def _part(name: str) -> str:
    """Return a file of this package."""
    return files("diabolo.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _template(name: str) -> Template:
    """Return a page, with every value escaped that goes into it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, lstrip_blocks=True, loader=FunctionLoader(_part)
    )
    return environment.get_template(name)
