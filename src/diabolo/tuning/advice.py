"""What data look like, and which model, network and likelihood that speaks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.data.arrays import ArrayCodec
from diabolo.data.raw import Raw
from diabolo.data.sparse import as_sparse
from diabolo.zoo.vanilla import Autoencoder

__all__ = ["Advice", "advise"]

LOOKED_AT = 2000  # rows whose principal components are taken
MOST_FEATURES = 4000  # up to which they are
EXPLAINED = 0.9  # of the variance
FAR = 10.0  # robust standard deviations beyond which a value is gross
MANY_IMAGES = 4000  # from which on convolutions paid
WIDE = 100  # columns of counts from which on totals are taken as known


@dataclass
class Advice:
    """A model to start with.

    Attributes
    ----------
    model : str
        Name of the class.
    parameters : dict
        What should differ from its defaults.
    facts : dict
        What was seen: rows, features, missing cells, kinds of columns, components of 90 % of the variance.
    reasons : list of str
        Why.
    also : list of str
        What else these data are for.
    """

    model: str
    parameters: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)


def advise(X: Any) -> Advice:
    """Look at data, and recommend a model.

    Parameters
    ----------
    X : array, frame, sparse matrix, tensor, images or list of series
        Rows, as for ``fit``.

    Returns
    -------
    Advice
        Nothing is trained.

    Raises
    ------
    ValueError
        When no model could be fitted to ``X``; the message is that of ``fit``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo.tuning.advice import advise
    >>> found = advise(load_iris().data)
    >>> found.model, found.facts["rows"]
    ('Autoencoder', 150)
    """
    raw = Autoencoder()._read(X, reset=True)
    codec = ArrayCodec.fit(raw, "auto")
    schema, n = codec.schema, len(raw.values)
    some = raw.take(np.sort(np.random.default_rng(0).permutation(n)[:LOOKED_AT]))
    values = np.asarray(some.values[:], dtype=np.float64)
    missing = float(np.isnan(values).mean())
    facts: dict[str, Any] = {"rows": n, "kind": schema.kind, "features": schema.size}
    if schema.mixed:
        kinds = [c.kind for c in schema.columns]
        facts["columns"] = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    facts["missing cells"] = round(missing, 4)
    found = Advice("Autoencoder", {}, facts)
    components = _components(codec, some)
    if components is not None:
        facts["components of 90 % of the variance"] = components
    _choose(found, raw, schema, values, missing)
    if components is not None and found.model == "Autoencoder" and schema.size > 3:
        width = max(1, min(components, schema.size - 1, 64))
        found.parameters["latent_dim"] = width
        found.reasons.append(
            f"{components} principal component(s) hold 90 % of the variance, so a code of {width} has room for most of what the "
            "rows share; latent_dim='search' measures it"
        )
    if n < 200:
        found.reasons.append(
            f"{n} rows are few: networks start at principal components and stay there where nothing is better"
        )
    if missing and schema.kind != "series":
        found.also.append("fill the missing cells: diabolo impute")
    if schema.kind == "vector":
        found.also.append("find odd rows: diabolo anomalies")
    found.also.append("search for hyperparameters: diabolo tune")
    return found


def _choose(found: Advice, raw: Raw, schema: Any, values: NDArray[np.float64], missing: float) -> None:
    observed = values[~np.isnan(values)]
    n = found.facts["rows"]
    if schema.kind == "series":
        found.parameters["kind"] = "series"
        found.reasons.append(
            "rows are series: full connections rebuilt series better than recurrent cells in the same time"
        )
    elif schema.kind == "image":
        if n >= MANY_IMAGES:
            found.parameters["network"] = "shortcut_conv"
            found.reasons.append(f"{n} images are enough for convolutions, which start at principal components here")
        else:
            found.reasons.append(
                f"{n} images are few for convolutions: full connections that start at principal components"
            )
    elif missing > 0.05:
        found.model = "MaskedAutoencoder"
        found.reasons.append(
            f"{missing:.0%} of the cells are missing: this model learns to say what a cell is from the others"
        )
    elif schema.mixed:
        found.model = "VAE"
        found.reasons.append(
            "columns are of several kinds: each has its own likelihood, and the code a prior to sample from"
        )
    elif _is_counts(observed, as_sparse(raw.values) is not None):
        found.model = "VAE"
        found.parameters["likelihood"] = "negative_binomial"
        found.reasons.append(
            f"whole numbers from 0 on, {float((observed == 0).mean()):.0%} of them 0: counts, whose spread grows with the mean"
            + ("; totals of rows are taken as known" if schema.size >= WIDE else "")
        )
    elif schema.values == "binary":
        found.reasons.append("all values are 0 or 1: the likelihood is 'bernoulli' by itself")
    else:
        gross = _gross(values)
        if gross > 0.001:
            found.model = "RobustAutoencoder"
            found.reasons.append(
                f"{gross:.1%} of the cells lie more than {FAR:g} robust standard deviations out: they should not bend the model"
            )
        else:
            found.reasons.append("numbers without gross outliers: squared error, after scaling each column")


def _is_counts(observed: NDArray[np.float64], sparse: bool) -> bool:
    if not len(observed) or observed.min() < 0 or not (observed % 1 == 0).all():
        return False
    return observed.max() > 2 and (sparse or float((observed == 0).mean()) > 0.3)


def _gross(values: NDArray[np.float64]) -> float:
    """Return the share of cells that lie far out in their column."""
    with np.errstate(invalid="ignore"):
        middle = np.nanmedian(values, axis=0)
        off = np.abs(values - middle)
        width = 1.4826 * np.nanmedian(off, axis=0)
    usable = width > 0
    return float(np.nanmean(off[:, usable] > FAR * width[usable])) if usable.any() else 0.0


def _components(codec: ArrayCodec, some: Raw) -> int | None:
    """Return how many principal components of the scaled rows hold 90 % of their variance."""
    if codec.schema.size > MOST_FEATURES or len(some.values) < 3:
        return None
    x = codec.encode(some).x.numpy().reshape(len(some.values), -1).astype(np.float64)
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    total = variances.sum()
    return int(np.searchsorted(np.cumsum(variances) / total, EXPLAINED) + 1) if total > 0 else None
