"""What models there are and what parameters they have, read from the source without importing torch.

A help page must come at once, and importing a model takes seconds. The declarations are plain text, so they are read with
``ast``; a test holds the result against the real classes.
"""

from __future__ import annotations

import ast
import collections.abc
import functools
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diabolo import checks
from diabolo.checks import Field, did_you_mean, make_field

__all__ = ["SEQUENCES", "Card", "UsageError", "cards", "find_card", "sequence_card"]

BASE = "BaseAutoencoder"
SEQUENCES = "sequence-vae"  # learns lines of text, not rows


class UsageError(ValueError):
    """The command line cannot be understood."""


@dataclass(frozen=True)
class Card:
    """A model as declared.

    Attributes
    ----------
    name : str
        The class.
    summary : str
        First sentence of its documentation.
    fields : tuple of Field
        Its hyperparameters, in order.
    own : frozenset of str
        Those that not every model has.
    """

    name: str
    summary: str
    fields: tuple[Field, ...]
    own: frozenset[str]

    @property
    def command(self) -> str:
        """The name on the command line: ``BetaVAE`` is ``beta-vae``."""
        name = self.name.replace("ReLU", "Relu")  # one word
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


class _Unknown(type):
    """Stands in for a name that is not needed here, such as ``np.random.RandomState``."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unknown(name, (), {})


class _Names(dict[str, Any]):
    """The names that annotations are written in."""

    def __missing__(self, name: str) -> Any:
        return _Unknown(name, (), {})


def _names() -> _Names:
    names = _Names({k: getattr(typing, k) for k in typing.__all__})
    names.update({k: getattr(checks, k) for k in checks.__all__}, Path=Path, Callable=collections.abc.Callable)
    names.update({t.__name__: t for t in (int, float, str, bool, tuple, list, dict)})
    return names


def _evaluate(node: ast.expr) -> Any:
    # The text evaluated is this package's own source.
    return eval(compile(ast.Expression(node), "<declaration>", "eval"), {"__builtins__": {}}, _names())


def _default(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field":
        node = next((k.value for k in node.keywords if k.arg == "default"), None)
    return None if node is None else ast.literal_eval(node)


def _own_fields(node: ast.ClassDef) -> dict[str, Field]:
    found = {}
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            name = line.target.id
            found[name] = make_field(name, _evaluate(line.annotation), _default(line.value))
    return found


def _all_fields(name: str, classes: dict[str, ast.ClassDef]) -> dict[str, Field]:
    """Return the fields of a class and its bases in the order that a dataclass gives them."""
    if name not in classes:
        return {}
    fields: dict[str, Field] = {}
    for base in reversed(classes[name].bases):
        if isinstance(base, ast.Name):
            fields |= _all_fields(base.id, classes)
    return fields | _own_fields(classes[name])


def _summary(node: ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).replace("``", "")


@functools.cache
def sequence_card() -> Card:
    """Return the model of sequences, which learns lines of text."""
    path = Path(__file__).parent.parent / "tasks" / "sequences.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef))
    fields = _own_fields(node)
    return Card(node.name, _summary(node), tuple(fields.values()), frozenset(fields))


@functools.cache
def cards() -> dict[str, Card]:
    """Return every registered model by class name: the plain one first, the others by the alphabet."""
    home = Path(__file__).parent.parent
    classes: dict[str, ast.ClassDef] = {}
    for path in (home / "parameters.py", home / "estimator.py", *sorted((home / "zoo").glob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    shared = _all_fields(BASE, classes)
    found = {}
    for name, node in classes.items():
        if any(isinstance(d, ast.Name) and d.id == "register" for d in node.decorator_list):
            fields = _all_fields(name, classes)
            found[name] = Card(name, _summary(node), tuple(fields.values()), frozenset(fields.keys() - shared.keys()))
    return dict(sorted(found.items(), key=lambda item: (item[0] != "Autoencoder", item[0].lower())))


def find_card(name: str, *, lines: bool = False) -> Card:
    """Return the model that a user named: ``beta-vae``, ``BetaVAE`` and ``beta_vae`` are one.

    The model of sequences is only found where ``lines`` of text are what is learned.

    Raises
    ------
    UsageError
        When there is none; the message suggests a spelling.
    """
    # A CustomAutoencoder needs a function, which no command line can give.
    known = {card.command: card for card in cards().values() if "build" not in card.own}
    asked = re.sub(r"[-_]", "", name).lower()
    if asked == SEQUENCES.replace("-", ""):
        if lines:
            return sequence_card()
        raise UsageError(f"{SEQUENCES} learns lines of text; only `diabolo fit` takes it")
    for command, card in known.items():
        if command.replace("-", "") == asked:
            return card
    meant = did_you_mean(name.lower(), known)
    raise UsageError(f"there is no model {name!r}.{meant} There are: {', '.join(known)}.")
