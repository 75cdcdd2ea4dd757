"""Weights of a fitted model as the start of another: what is taken, and what columns have come and gone."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diabolo.checks import did_you_mean
from diabolo.data.raw import Raw
from diabolo.inference import check_support
from diabolo.module import AutoencoderModule
from diabolo.parts.networks.mlp import FullyConnected, Shortcut
from diabolo.records import Batch, Loss, Schema
from diabolo.seeding import seeded
from diabolo.training.device import resolve_device
from diabolo.training.loop import train
from diabolo.training.rows import Selection

__all__ = ["Taken", "go_on", "same_features", "take_weights"]

GENTLE = 0.1  # share of the learning rate at which more rows are learned


class Taken(NamedTuple):
    """What a model took of another.

    Attributes
    ----------
    layers : tuple of str
        Parameters that were taken.
    started : tuple of str
        Parameters that were not, because they have no counterpart of their shape.
    added, dropped : tuple of str
        Columns, or labels of columns, that only this model has, and that only the other has.
    """

    layers: tuple[str, ...]
    started: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"took {len(self.layers)} of {len(self.layers) + len(self.started)} tensors"]
        for word, names in (("not", self.started), ("new columns:", self.added), ("columns gone:", self.dropped)):
            if names:
                parts.append(
                    f"{word} {', '.join(names[:6])}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")
                )
        return "; ".join(parts)


def same_features(schema: Schema, other: Schema) -> bool:
    """Tell whether rows of two models look alike to a network."""
    if schema.kind != other.kind or schema.shape != other.shape or schema.context != other.context:
        return False
    return _features(schema) == _features(other)


def take_weights(module: AutoencoderModule, schema: Schema, source: AutoencoderModule, other: Schema) -> Taken:
    """Copy what fits from ``source`` to ``module``.

    Where tables share some of their features, weights of these are taken; what is new has no influence on the code at first, and
    is expected at its mean.

    Raises
    ------
    ValueError
        When rows are of another kind or shape, tables share no column, or no layer fits.
    """
    features = _check(schema, other)
    theirs, ours = source.state_dict(), module.state_dict()
    ends = _ends(module) if not same_features(schema, other) else {}
    layers: list[str] = []
    started: list[str] = []
    with torch.no_grad():
        for name, mine in ours.items():
            found = None if name.startswith(module.of_rows) else theirs.get(name)
            if name in ends and found is not None:
                fits = _join(mine, found, ends[name], features, schema.size, other.size)
            else:
                fits = found is not None and found.shape == mine.shape
                if fits and found is not None:
                    mine.copy_(found)
            (layers if fits else started).append(name)
        module.load_state_dict(ours)
    if not any(name.startswith("encoder") for name in layers):
        raise ValueError(
            "init_from: no layer of the encoder has the shape of its counterpart. Give the network, hidden and latent_dim of the "
            "other model (its choices_ say what 'auto' became)."
        )
    keys, known = _features(schema), set(_features(other))
    added = tuple(dict.fromkeys(_word(key) for key in keys if key not in known))
    dropped = tuple(dict.fromkeys(_word(key) for key in _features(other) if key not in set(keys)))
    return Taken(tuple(layers), tuple(started), added, dropped)


def _features(schema: Schema) -> list[tuple[str, Any]]:
    """Return what tells features of a table apart: the column, and the label of a category."""
    return [
        (column.name, column.categories[place] if column.kind == "category" else column.kind)
        for column, place in schema.owners()
    ]


def _word(key: tuple[str, Any]) -> str:
    name, rest = key
    return name if rest in ("number", "count", "boolean", "ordinal", "date") else f"{name}={rest}"


def _check(schema: Schema, other: Schema) -> list[tuple[int, int]]:
    """Return positions of the features that both have; refuse rows that have nothing in common."""
    if (
        schema.kind != other.kind
        or schema.context != other.context
        or (not schema.columns and schema.shape != other.shape)
    ):
        raise ValueError(
            f"init_from: that model learned {other.kind} rows of shape {other.shape}"
            f"{f' and a condition of width {other.context}' if other.context else ''}; X has {schema.kind} rows of shape "
            f"{schema.shape}"
        )
    places = {key: j for j, key in enumerate(_features(other))}
    shared = [(i, places[key]) for i, key in enumerate(_features(schema)) if key in places]
    if schema.columns and not shared:
        mine, theirs = ([c.name for c in s.columns] for s in (schema, other))
        near = next((d for d in (did_you_mean(name, theirs) for name in mine) if d), "")
        raise ValueError(
            f"init_from: X and that model share no column. X has {', '.join(mine[:8])}; the model has "
            f"{', '.join(theirs[:8])}.{near}"
        )
    return shared


def _ends(module: AutoencoderModule) -> dict[str, int]:
    """Return the parameters that have an axis of features, and which; of fully connected networks."""
    found: dict[str, int] = {}
    for half, inner in (("encoder", module.encoder), ("decoder", module.decoder)):
        body: nn.Module | None = inner
        prefix = half
        if isinstance(inner, Shortcut):
            found |= (
                {f"{half}.shortcut.weight": 1}
                if half == "encoder"
                else {f"{half}.shortcut.{k}": 0 for k in ("weight", "bias")}
            )
            body, prefix = inner.body, f"{half}.body"
        if body is None:
            continue
        if not isinstance(body, FullyConnected) or not isinstance(body.body[-1], nn.Linear):
            raise ValueError(
                "init_from: columns differ, and only networks of full connections can take that; the "
                f"{half} is {type(inner).__name__}"
            )
        last = len(body.body) - 1
        found |= (
            {f"{prefix}.body.0.weight": 1}
            if half == "encoder"
            else {f"{prefix}.body.{last}.{k}": 0 for k in ("weight", "bias")}
        )
    return found


def _join(mine: Tensor, found: Tensor, axis: int, features: list[tuple[int, int]], size: int, other: int) -> bool:
    """Copy weights of shared features; those of new ones become 0. Tell whether the rest of the shape fits."""
    copies, theirs = mine.shape[axis] // size, found.shape[axis] // other  # numbers of a likelihood for each feature
    rest = [n for a, n in enumerate(mine.shape) if a != axis] == [n for a, n in enumerate(found.shape) if a != axis]
    if not rest or copies != theirs or mine.shape[axis] % size or found.shape[axis] % other:
        return False
    mine.zero_()
    into = torch.tensor([c * size + i for c in range(copies) for i, _ in features])
    out_of = torch.tensor([c * other + j for c in range(copies) for _, j in features])
    mine.index_copy_(axis, into, found.index_select(axis, out_of))
    return True


def go_on(model: Any, raw: Raw) -> None:
    """Let a fitted model learn from more rows: one pass over them."""
    device = resolve_device(model.device)
    table = model.codec_.table_of(raw)
    settings = model._settings(len(table), device, model.schema_.size)
    settings = dataclasses.replace(
        settings,
        max_epochs=1,
        schedule="constant",
        learning_rate=GENTLE * settings.learning_rate,
        patience=None,
        checkpoint=None,
    )
    objective = model._objective()

    def loss(module: AutoencoderModule, batch: Batch, progress: float) -> Loss:
        found: Loss = objective(module, batch, 1.0)  # what changes over training has changed
        return found

    with seeded(model.seed_ + model.n_iter_, device):
        module = copy.deepcopy(model.module_).to(device)  # a failure leaves the model as it was
        for part in table.parts(everything=module.likelihood.bounds is not None):
            check_support(module.likelihood, part, model.codec_)
        table = table.to(device)
        every = torch.arange(len(table), device=device)
        history = train(
            module,
            Selection(table, every),
            Selection(table, every[:0]),
            loss,
            settings,
            model.callbacks,
            augment=model._augmentation(model.schema_),
        )
    model.module_ = module
    rows = [row | {"epoch": model.n_iter_ + row["epoch"]} for row in history.rows]
    model.history_.rows += rows
    model.history_.events += [*history.events, f"epoch {model.n_iter_ + 1}: learned from {len(table)} more rows"]
    model.history_.best_epoch = len(model.history_)
    model.n_iter_ = len(model.history_)
