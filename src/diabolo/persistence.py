"""Fitted estimators on disk: a folder of JSON and safetensors, whole or as it was before, with no pickle anywhere.

``config.json`` describes the estimator and names the weights file by its content, so that replacing this one small file
replaces the model: a crash at any moment leaves the old model or the new one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import torch as safetensors
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

import diabolo
import diabolo.latent  # registers the priors of codes
import diabolo.tasks  # registers the tasks
import diabolo.zoo  # registers the models
from diabolo.checks import did_you_mean, parameter_fields
from diabolo.declare import REGISTRY
from diabolo.files import make_folder, write_atomic

__all__ = ["FORMAT_VERSION", "ModelFileError", "load", "save"]

FORMAT_VERSION = 1
CONFIG = "config.json"


class ModelFileError(ValueError):
    """A model folder is damaged, foreign or too new; the message says which part."""


def save(estimator: Any, path: str | Path) -> None:
    """Write a fitted estimator to a folder.

    Parameters
    ----------
    estimator : BaseAutoencoder or task
        Fitted.
    path : str or Path
        The folder; made where it is missing. A model already there is replaced, other files are left alone.

    Raises
    ------
    OSError
        When the folder cannot be written.
    ModelFileError
        When the folder holds a ``config.json`` that is not Diabolo's.
    """
    check_is_fitted(estimator)
    folder = make_folder(Path(path))
    old = None
    if (folder / CONFIG).exists():
        old = _weights_name(_read_json(folder / CONFIG), folder)  # refuses a foreign folder
    tensors: dict[str, Tensor] = {}
    tree = _describe(estimator, "", tensors)
    data = safetensors.save({k: v.contiguous().clone() for k, v in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    name = f"weights-{digest[:12]}.safetensors"
    config = {
        "format": "diabolo",
        "format_version": FORMAT_VERSION,
        "weights": {"file": name, "sha256": digest},
        "estimator": tree,
        "versions": {
            "diabolo": diabolo.__version__,
            "python": platform.python_version(),
            **{k: importlib.metadata.version(k) for k in ("torch", "numpy", "scikit-learn", "safetensors")},
        },
    }
    config["sha256"] = _digest(config)
    write_atomic(folder / name, data)
    write_atomic(folder / CONFIG, json.dumps(config, indent=1).encode())
    if old is not None and old != name:
        (folder / old).unlink(missing_ok=True)


def load(path: str | Path, *, build: Callable[..., Any] | None = None) -> Any:
    """Read a fitted estimator from a folder, on any machine, without its training data.

    Parameters
    ----------
    path : str or Path
        The folder that ``save`` wrote.
    build : callable, optional
        The function of a ``CustomAutoencoder``; code is never loaded from a file.

    Returns
    -------
    BaseAutoencoder or task
        Fitted, on the CPU until it is used.

    Raises
    ------
    FileNotFoundError
        When there is no such folder or it holds no model.
    ModelFileError
        When a part of it is damaged, foreign or of a newer format.
    """
    folder = Path(path)
    config_path = folder / CONFIG
    if not config_path.is_file():
        what = "there is no such folder" if not folder.exists() else f"it has no {CONFIG}"
        raise FileNotFoundError(f"{folder} is not a Diabolo model: {what}")
    config = _read_json(config_path)
    weights_path = folder / _weights_name(config, folder)
    if config.get("sha256") != _digest(config):
        raise ModelFileError(f"{config_path} is damaged: its contents do not match its checksum")
    if not weights_path.is_file():
        raise ModelFileError(f"{folder} is incomplete: {weights_path.name} is missing")
    data = weights_path.read_bytes()
    if hashlib.sha256(data).hexdigest() != config["weights"]["sha256"]:
        raise ModelFileError(f"{weights_path} is damaged: its contents do not match the checksum in {CONFIG}")
    try:
        tensors = safetensors.load(data)
    except SafetensorError as error:
        raise ModelFileError(f"{weights_path} is not a safetensors file: {error}") from None
    return _restore(config["estimator"], "", tensors, build)


def _describe(estimator: Any, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe an estimator and the fitted ones inside it; collect their tensors under ``prefix``."""
    meta, own = estimator._get_state()
    tensors |= {prefix + k: v for k, v in own.items()}
    children: dict[str, Any] = {}
    for k, v in vars(estimator).items():
        if k.endswith("_") and isinstance(v, BaseEstimator):
            children[k] = v
        elif k.endswith("_") and isinstance(v, list) and v and isinstance(v[0], BaseEstimator):
            children |= {f"{k}.{i}": part for i, part in enumerate(v)}
    return {
        **_describe_parameters(estimator),
        "fitted": meta,
        "children": {k: _describe(v, f"{prefix}{k}.", tensors) for k, v in children.items()},
    }


def _describe_parameters(estimator: Any) -> dict[str, Any]:
    parameters = {f.name: _to_json(getattr(estimator, f.name)) for f in parameter_fields(type(estimator))}
    if not isinstance(getattr(estimator, "init_from", None), str | Path | None):
        del parameters["init_from"]  # another fitted model, which is not part of this one
    return {"class": type(estimator).__name__, "parameters": {k: v for k, v in parameters.items() if v is not ...}}


def _to_json(value: Any) -> Any:
    """Return a hyperparameter in JSON types, or ``...`` for code and generators, which stay behind."""
    if isinstance(value, BaseEstimator):
        return {"estimator": _describe_parameters(value)}
    if isinstance(value, tuple | list):
        found = [_to_json(v) for v in value]
        return ... if ... in found else found
    if isinstance(value, dict):
        return {"entries": {str(k): _to_json(v) for k, v in value.items()}}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, str | int | float | None) else ...


def _restore(
    tree: dict[str, Any], prefix: str, tensors: dict[str, Tensor], build: Callable[..., Any] | None
) -> BaseEstimator:
    estimator = _make(tree, build)
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    for name, child in tree["children"].items():
        restored, (owner, _, place) = _restore(child, f"{prefix}{name}.", tensors, build), name.partition(".")
        setattr(estimator, owner, [*getattr(estimator, owner, []), restored] if place else restored)
    try:
        estimator._set_state(tree["fitted"], own)
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"the model cannot be rebuilt: {error}") from error
    return estimator


def _make(tree: dict[str, Any], build: Callable[..., Any] | None) -> Any:
    """Build an unfitted estimator from its class name and parameters."""
    name = tree["class"]
    if name not in REGISTRY:
        raise ModelFileError(f"this version has no model {name!r}.{did_you_mean(name, REGISTRY)}")
    cls = REGISTRY[name]
    known = {f.name for f in parameter_fields(cls)}
    parameters = {k: _from_json(v, build) for k, v in tree["parameters"].items()}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise ModelFileError(f"{name} of this version has no parameter {unknown[0]!r}")
    if "build" in known:
        if build is None:
            raise ModelFileError(f"{name} needs its build function again: diabolo.load(path, build=...)")
        parameters["build"] = build
    return cls(**parameters)


def _from_json(value: Any, build: Callable[..., Any] | None) -> Any:
    if isinstance(value, dict) and "entries" in value:
        return {k: _from_json(v, build) for k, v in value["entries"].items()}
    if isinstance(value, dict):
        return _make(value["estimator"], build)
    return tuple(_from_json(v, build) for v in value) if isinstance(value, list) else value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict) or config.get("format") != "diabolo":
        raise ModelFileError(f"{path} was not written by Diabolo")
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version!r}; this Diabolo reads up to {FORMAT_VERSION}: upgrade it"
        )
    return config


def _weights_name(config: dict[str, Any], folder: Path) -> str:
    weights = config.get("weights")
    name = weights.get("file") if isinstance(weights, dict) else None
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise ModelFileError(f"{folder / CONFIG} is damaged: it names no weights file")
    return name


def _digest(config: dict[str, Any]) -> str:
    rest = {k: v for k, v in config.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
