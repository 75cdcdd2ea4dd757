"""Parameter constraints, read from ``Annotated`` hints, and the wording of errors.

A hyperparameter is declared once, as a dataclass field::

    dropout: Annotated[float, Ge(0), Lt(1), "fraction of hidden units dropped in training"] = 0.0

The hint says its type, the constraints its range, the string its documentation.
"""

from __future__ import annotations

import collections.abc
import difflib
import numbers
import operator
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

__all__ = ["Field", "Ge", "Gt", "Le", "Lt", "ParameterError", "check_parameters", "describe", "did_you_mean"]
__all__ += ["parameter_fields"]


class ParameterError(ValueError, TypeError):
    """A hyperparameter has an impossible value. Lists every problem found, not only the first."""


@dataclass(frozen=True)
class Bound:
    """A limit on a number; its subclasses say on which side."""

    bound: float
    symbol: ClassVar[str]
    compare: ClassVar[Callable[[float, float], bool]]

    def holds(self, value: float) -> bool:
        """Tell whether ``value`` obeys."""
        return type(self).compare(value, self.bound)

    def __str__(self) -> str:
        return f"{self.symbol} {self.bound:g}"


class Ge(Bound):
    """Greater than or equal to."""

    symbol, compare = ">=", operator.ge


class Gt(Bound):
    """Greater than."""

    symbol, compare = ">", operator.gt


class Le(Bound):
    """Less than or equal to."""

    symbol, compare = "<=", operator.le


class Lt(Bound):
    """Less than."""

    symbol, compare = "<", operator.lt


@dataclass(frozen=True)
class Field:
    """A hyperparameter as declared: name, type hint, constraints, documentation, default."""

    name: str
    hint: Any
    constraints: tuple[Any, ...]
    doc: str
    default: Any

    @property
    def kind(self) -> str:
        """The type and range in words, as numpydoc writes them."""
        limits = [str(c) for c in self.constraints]
        return describe(self.hint) + (" " + " and ".join(limits) if limits else "")


def make_field(name: str, annotation: Any, default: Any) -> Field:
    """Read one ``Annotated`` hint."""
    if get_origin(annotation) is not Annotated:
        return Field(name, annotation, (), "", default)
    hint, *extra = get_args(annotation)
    constraints = tuple(e for e in extra if isinstance(e, Bound))
    return Field(name, hint, constraints, " ".join(e for e in extra if isinstance(e, str)), default)


def parameter_fields(cls: type) -> tuple[Field, ...]:
    """Return the hyperparameters of an estimator class, in order of declaration."""
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(make_field(f.name, hints[f.name], f.default) for f in fields(cls) if f.init)


def describe(hint: Any) -> str:
    """Name a type in words."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return "None"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is Literal:
        return "{" + ", ".join(repr(a) for a in args) + "}"
    if origin is tuple:
        return f"tuple of {describe(args[0])}"
    if origin is dict:
        return f"dict of {describe(args[0])} to {describe(args[1])}"
    if origin is collections.abc.Callable or hint is collections.abc.Callable:
        return "callable"
    return getattr(hint, "__name__", str(hint))


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _matches(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_matches(value, a) for a in args)
    if origin is Literal:
        return any((type(value) is type(a) or isinstance(value, str)) and value == a for a in args)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_matches(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_matches(k, args[0]) and _matches(v, args[1]) for k, v in value.items())
    if origin is collections.abc.Callable or hint is collections.abc.Callable:
        return callable(value)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return _is_number(value, numbers.Integral)
    if hint is float:
        return _is_number(value, numbers.Real) and value == value
    return isinstance(value, hint)


def _numbers(value: Any) -> Iterable[float]:
    if _is_number(value, numbers.Real):
        yield float(value)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from _numbers(v)


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [a for a in get_args(hint) if isinstance(a, str)]
    return [c for a in get_args(hint) for c in _choices(a)] if get_origin(hint) in (Union, types.UnionType) else []


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` when a known name is close, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_parameters(estimator: Any, advice: dict[str, str] | None = None) -> None:
    """Check every hyperparameter of ``estimator`` against its declaration.

    Parameters
    ----------
    estimator : object
        A dataclass whose fields carry ``Annotated`` hints.
    advice : dict of str to str, optional
        What to say when a text parameter has this (wrong) value, such as ``{"mse": "use likelihood='gaussian'"}``.

    Raises
    ------
    ParameterError
        With one line for each problem.
    """
    problems = []
    for f in parameter_fields(type(estimator)):
        value = getattr(estimator, f.name)
        if not _matches(value, f.hint) or not all(c.holds(v) for c in f.constraints for v in _numbers(value)):
            hint = ""
            if isinstance(value, str):
                hint = (advice or {}).get(value, "") or did_you_mean(value, _choices(f.hint))
                hint = hint if not hint or hint.startswith(" ") else " " + hint
            problems.append(f"{f.name}={value!r}: expected {f.kind}.{hint}")
    if problems:
        name = type(estimator).__name__
        raise ParameterError(f"{name} cannot be fitted:\n  " + "\n  ".join(problems))
