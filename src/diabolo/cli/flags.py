"""Flags of the command line, made from the declarations of a model's parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Group, Parameter

from diabolo.checks import Field
from diabolo.cli.catalog import Card

__all__ = ["offered", "parse", "with_flags"]

NOT_OFFERED = ("callbacks", "build")  # Python objects
FIRST_OF_TRAINING = "max_epochs"  # BaseAutoencoder declares the network first, training from here on
DEFAULTS = {"verbose": 1}  # where the command line differs from the library
ALIASES = {"random_state": "--seed", "max_epochs": "--epochs"}


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _inside(hint: Any) -> Any:
    """Return what a tuple of this type holds, or ``None`` where no tuple is expected."""
    return next((get_args(o)[0] for o in _options(hint) if get_origin(o) is tuple), None)


def parse(text: str, hint: Any) -> Any:
    """Turn the text of a flag into a value of the declared type.

    Text that fits no type comes back as it is: the check of parameters, which knows what was meant, refuses it.
    """
    options = _options(hint)
    choices = [c for o in options if get_origin(o) is Literal for c in get_args(o)]
    if text in choices:
        return text
    pairs = next((o for o in options if get_origin(o) is dict), None)
    if pairs is not None and text.lower() != "none":
        split = [part.partition("=") for part in text.split(",") if part.strip()]
        return {name.strip(): value.strip() for name, _, value in split} if all(s for _, s, _ in split) else text
    inner = _inside(hint)
    if inner is not None:
        parts = text.strip("()[] ").split(",") if text.lower() != "none" else []
        values = [parse(part.strip(), inner) for part in parts if part.strip()]
        names = get_origin(inner) is Literal or str in _options(inner)  # the check of parameters, or fit, knows them
        return tuple(values) if names or not any(isinstance(v, str) for v in values) else text
    if NoneType in options and text.lower() == "none":
        return None
    if bool in options and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in options:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _placeholder(hint: Any) -> str:
    """Name the values of a flag in its help line, such as ``INT|auto``."""
    words = []
    for option in _options(hint):
        if get_origin(option) is Literal:
            choices = get_args(option)
            words.append(str(choices[0]) if len(choices) == 1 else "CHOICE")
        elif get_origin(option) is tuple:
            inner = get_args(option)[0]
            named = get_origin(inner) is Literal or str in _options(inner)
            words.append("NAME,NAME,..." if named else "INT,INT,...")
        elif get_origin(option) is dict:
            words.append("NAME=KIND,...")
        elif option is NoneType:
            words.append("none")
        elif option in (int, float, str, bool):
            words.append({int: "INT", float: "NUMBER", str: "TEXT", bool: "true|false"}[option])
    return "|".join(words)


def _help(field: Field) -> str:
    choices = [str(c) for o in _options(field.hint) if get_origin(o) is Literal for c in get_args(o)]
    notes = [str(c) for c in field.constraints]
    names = get_args(_inside(field.hint)) if get_origin(_inside(field.hint)) is Literal else ()
    if names:
        notes.insert(0, "any of " + ", ".join(map(str, names)))
    if len(choices) > 1:
        notes.insert(0, "one of " + ", ".join(choices) + (", none" if NoneType in _options(field.hint) else ""))
    if _inside(field.hint) is not None and str not in _options(_inside(field.hint)):
        notes.append("write none for ()")
    return field.doc[:1].upper() + field.doc[1:] + (f" ({'; '.join(notes)})" if notes else "")


def _show(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(str(v) for v in default) or "none"
    return "none" if default is None else str(default)


def offered(card: Card) -> tuple[Field, ...]:
    """Return the parameters of a model that make sense on a command line."""
    return tuple(f for f in card.fields if f.name not in NOT_OFFERED)


def _parameters(card: Card) -> list[inspect.Parameter]:
    own = Group.create_ordered(f"Parameters of {card.command}")
    model, training = Group.create_ordered("Network and data"), Group.create_ordered("Training")
    parameters = []
    group = model
    for field in offered(card):
        group = training if field.name == FIRST_OF_TRAINING else group
        flag = "--" + field.name.replace("_", "-")
        names = [flag, ALIASES[field.name]] if field.name in ALIASES else [flag]
        annotation = Annotated[
            str,
            Parameter(
                name=names,
                help=_help(field),
                group=own if field.name in card.own else group,
                metavar=_placeholder(field.hint),
                show_default=_show,
            ),
        ]
        default = DEFAULTS.get(field.name, field.default)
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return parameters


def with_flags(function: Callable[..., int], card: Card) -> Callable[..., int]:
    """Give a command that takes ``**parameters`` one flag for each parameter of the model.

    The command gets the parameters that the user set, as values of their declared types.
    """
    hints = {f.name: f.hint for f in offered(card)}

    @functools.wraps(function)
    def command(*args: Any, **given: Any) -> int:
        return function(*args, **{k: parse(v, hints[k]) if k in hints else v for k, v in given.items()})

    signature = inspect.signature(function, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    signature = signature.replace(parameters=[*fixed, *_parameters(card)])
    command.__dict__["__signature__"] = signature
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    del command.__dict__["__wrapped__"]  # the flags of the wrapped function are not all
    return command
