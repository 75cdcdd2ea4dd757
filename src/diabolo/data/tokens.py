"""Sequences of tokens: strings, lists of items, rows and grids of symbols -> whole numbers, and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.checks import ParameterError

__all__ = ["END", "UNKNOWN", "TokenCodec"]

END, UNKNOWN, FIRST = 0, 1, 2  # numbers of the end, of tokens that fit did not see, and of the first that it did
CUTS = {"characters": r"[\s\S]", "words": r"\S+"}
EXPECTED = "expected a list of strings, a list of sequences of items, or an array (n, length) or (n, height, width)"
PLAIN = (str, int, bool)


@dataclass(frozen=True)
class TokenCodec:
    """How sequences become rows of whole numbers.

    Attributes
    ----------
    kind : str
        What a sequence is: ``"text"``, ``"items"`` or ``"array"``.
    cut : str
        Of text ``"characters"``, ``"words"`` or a regular expression that matches a token.
    vocabulary : tuple
        The tokens, the most frequent first.
    shape : tuple of int
        Of arrays the shape of one; empty where lengths differ.
    longest : int
        Tokens of the longest sequence of ``fit``.
    dtype : str
        Of arrays the type of the items.
    """

    kind: str
    cut: str
    vocabulary: tuple[Hashable, ...]
    shape: tuple[int, ...]
    longest: int
    dtype: str = ""

    @classmethod
    def learn(cls, X: Any, tokens: str, most: int) -> tuple[TokenCodec, NDArray[np.int32]]:
        """Learn the tokens of ``X``; return the codec and ``X`` as numbers."""
        kind, cut, rows, shape = _read(X, tokens)
        if kind != "text" and tokens not in ("auto", "items"):
            raise ParameterError(f"tokens={tokens!r} is for strings; the items of lists and arrays are their tokens")
        counts: Counter[Hashable] = Counter(token for row in rows for token in row)
        if not counts:
            raise ValueError("all sequences are empty; there is nothing to learn")
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
        kept = tuple(token for token, _ in ranked[:most])
        dtype = X.dtype.str if kind == "array" else ""
        codec = cls(kind, cut, kept, shape, max(map(len, rows)), dtype)
        return codec, codec._numbered(rows)

    @property
    def size(self) -> int:
        """Numbers that a token may have."""
        return FIRST + len(self.vocabulary)

    def encode(self, X: Any) -> NDArray[np.int32]:
        """Return sequences as numbers ``(n, steps)``, each followed by ``END``; new tokens are ``UNKNOWN``."""
        kind, _, rows, shape = _read(X, self.cut)
        if kind != self.kind or shape != self.shape:
            raise ValueError(f"X holds {_named(kind, shape)}; expected {_named(self.kind, self.shape)} as in fit")
        return self._numbered(rows)

    def steps(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return how many steps of each row count: its tokens, and its end where lengths differ."""
        if self.shape:
            return np.full(len(numbers), numbers.shape[1], dtype=np.int64)
        return np.asarray((numbers != END).sum(axis=1) + 1, dtype=np.int64)

    def decode(self, numbers: NDArray[np.integer[Any]]) -> Any:
        """Return what rows of numbers stand for, up to the first ``END``, as ``fit`` was given it."""
        if self.kind == "array":
            known = np.array(self.vocabulary, dtype=self.dtype)
            return known[np.asarray(numbers)[:, : self.longest] - FIRST].reshape(-1, *self.shape)
        found: list[Any] = []
        for row in numbers:
            ends = np.flatnonzero(row == END)
            tokens = [self.vocabulary[i - FIRST] for i in row[: ends[0] if len(ends) else len(row)]]
            found.append((" " if self.cut == "words" else "").join(map(str, tokens)) if self.kind == "text" else tokens)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "kind": self.kind,
            "cut": self.cut,
            "vocabulary": list(self.vocabulary),
            "shape": list(self.shape),
            "longest": self.longest,
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TokenCodec:
        """Build a codec from what ``to_json`` returned."""
        vocabulary = tuple(map(_hashable, data["vocabulary"]))
        return cls(data["kind"], data["cut"], vocabulary, tuple(data["shape"]), data["longest"], data["dtype"])

    def _numbered(self, rows: list[list[Hashable]]) -> NDArray[np.int32]:
        place = {token: i for i, token in enumerate(self.vocabulary, start=FIRST)}
        found = np.full((len(rows), max(map(len, rows)) + (not self.shape)), END, dtype=np.int32)
        for target, row in zip(found, rows, strict=True):
            target[: len(row)] = [place.get(token, UNKNOWN) for token in row]
        return found


def _read(X: Any, tokens: str) -> tuple[str, str, list[list[Hashable]], tuple[int, ...]]:
    """Return the kind of sequences, how text is cut, tokens, and the shape of arrays."""
    if isinstance(X, str):
        raise ValueError(f"{EXPECTED}; a single sequence is a list of one: [X]")
    if isinstance(X, np.ndarray) and X.dtype != object and X.dtype.kind in "biuU" and X.ndim > 1:
        if 0 in X.shape:
            raise ValueError(f"X has shape {X.shape}; {EXPECTED}")
        return "array", "items", X.reshape(len(X), -1).tolist(), X.shape[1:]
    if not isinstance(X, Iterable) or isinstance(X, dict) or hasattr(X, "columns"):
        raise ValueError(f"{EXPECTED}; got a {type(X).__name__}")
    rows = list(X)
    if not rows:
        raise ValueError(
            f"Found array with 0 sample(s) while a minimum of 1 is required: {EXPECTED}; the list is empty"
        )
    texts = [isinstance(row, str) for row in rows]
    if any(texts):
        if not all(texts):
            raise ValueError(f"X holds {sum(texts)} strings and {len(rows) - sum(texts)} others; {EXPECTED}")
        cut = tokens if tokens not in ("auto", "items") else _auto(rows)
        return "text", cut, _cut(rows, cut), ()
    return "items", "items", [_items(row, i) for i, row in enumerate(rows)], ()


def _auto(rows: list[str]) -> str:
    """Take words where most strings have several."""
    return "words" if sum(len(row.split()) > 2 for row in rows) > len(rows) / 2 else "characters"


def _cut(rows: list[str], cut: str) -> list[list[Hashable]]:
    try:
        pattern = re.compile(CUTS.get(cut, cut))
    except re.error as error:
        raise ParameterError(
            f"tokens={cut!r} is none of 'auto', 'characters', 'words', 'items', and no regular expression: {error}"
        ) from None
    if pattern.groups:
        raise ParameterError(f"tokens={cut!r} has groups; write (?:...) instead of (...)")
    found: list[list[Hashable]] = [pattern.findall(row) for row in rows]
    if cut not in CUTS:
        for row, cells in zip(rows, found, strict=True):
            if "".join(map(str, cells)) != row:
                raise ValueError(f"tokens={cut!r} does not match all of {row[:80]!r}; add |. to take what is left")
    return found


def _items(row: Any, i: int) -> list[Hashable]:
    try:
        found = [_hashable(item.item() if isinstance(item, np.generic) else item) for item in row]
    except TypeError:
        raise ValueError(f"sequence {i} is a {type(row).__name__}; {EXPECTED}") from None
    wrong = next((item for item in found if not _is_plain(item)), None)
    if wrong is not None:
        raise ValueError(f"sequence {i} holds {wrong!r}; expected strings, whole numbers, or tuples of these")
    return found


def _is_plain(item: Any) -> bool:
    return all(map(_is_plain, item)) if isinstance(item, tuple) else isinstance(item, PLAIN)


def _hashable(item: Any) -> Hashable:
    return tuple(map(_hashable, item)) if isinstance(item, list | tuple) else item


def _named(kind: str, shape: tuple[int, ...]) -> str:
    return {"text": "strings", "items": "sequences of items", "array": f"arrays of shape {shape}"}[kind]
