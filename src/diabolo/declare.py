"""How estimators are declared: parameters from dataclass fields, a registry, and advice for names that do not exist."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

from diabolo.checks import did_you_mean, parameter_fields

__all__ = ["ADVICE", "REGISTRY", "refuse_unknown", "register", "spec"]

REGISTRY: dict[str, type[Any]] = {}
"""Every public model and task by class name."""

ADVICE = {
    "mse": "squared error is likelihood='gaussian'; the history shows mse in the units of the data.",
    "l2": "squared error is likelihood='gaussian'.",
    "bce": "binary cross-entropy is likelihood='bernoulli'.",
    "cross_entropy": "binary cross-entropy is likelihood='bernoulli'.",
    "mae": "absolute error is likelihood='laplace'.",
    "l1": "absolute error is likelihood='laplace'; a sparse code is SparseAutoencoder.",
    "linear": "a network without non-linearity is hidden=(), or activation='identity'.",
    "gpu": "a GPU is device='cuda'.",
    "none": "write None without quotes.",
}

ADVICE_ARGUMENTS = {
    "loss": "the loss is set by likelihood=: 'gaussian' is MSE, 'bernoulli' is binary cross-entropy, 'laplace' is MAE",
    "epochs": "the number of epochs is max_epochs",
    "lr": "the learning rate is learning_rate",
    "n_components": "the size of the code is latent_dim",
    "hidden_layer_sizes": "the widths of the hidden layers are hidden",
    "seed": "the seed is random_state",
}

Cls = TypeVar("Cls", bound=type)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def spec(cls: Cls) -> Cls:
    """Make an estimator class a dataclass of keyword parameters whose constructor explains a misspelt name."""
    made: Any = dataclass(kw_only=True, eq=False, repr=False)(cls)
    init = made.__init__
    names = [f.name for f in parameter_fields(made)]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **parameters: Any) -> None:
        refuse_unknown(made.__name__, parameters, names)
        init(self, *args, **parameters)

    made.__init__ = checked
    return made  # type: ignore[no-any-return]


def refuse_unknown(owner: str, parameters: dict[str, Any], names: list[str]) -> None:
    """Raise for a parameter that does not exist, naming the one that was meant."""
    for name in parameters:
        if name not in names:
            advice = ADVICE_ARGUMENTS.get(name)
            meant = f" ({advice})." if advice else f".{did_you_mean(name, names)}"
            raise TypeError(f"{owner} has no parameter {name!r}{meant} It has: {', '.join(names)}.")


def register(cls: Cls) -> Cls:
    """Add a model or a task to the registry, and write its parameters into its docstring."""
    lines = ["Parameters", "----------"]
    for f in parameter_fields(cls):
        lines += [f"{f.name} : {f.kind}, default={f.default!r}", f"    {f.doc[:1].upper()}{f.doc[1:]}."]
    block = ("\n" + " " * 4).join(lines)
    cls.__doc__ = (cls.__doc__ or "").replace("{parameters}", block)
    REGISTRY[cls.__name__] = cls
    return cls
