"""Whole numbers <-> bytes, under tables of counts, by range coding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MalformedError", "SymbolReader", "SymbolWriter", "cost"]

Counts = NDArray[np.int64]
BEYOND = 2**23  # the largest number outside a table, either way
WORD = "<u4"


class MalformedError(ValueError):
    """Bytes that no writer made."""


class SymbolWriter:
    """Collects numbers; :meth:`bytes` are as many as their tables say, up to a word of 4 bytes."""

    def __init__(self) -> None:
        self._stream = _constriction().stream
        self._coder = self._stream.queue.RangeEncoder()

    def put(self, numbers: NDArray[Any], first: int, counts: Counts) -> None:
        """Write numbers of one table.

        Parameters
        ----------
        numbers : ndarray of int
            Any; those outside the table cost three bytes more.
        first : int
            The number that the first count stands for.
        counts : ndarray of int64
            How often each number comes, and at the end all others together.
        """
        if not len(numbers):
            return
        symbols, outside = _symbols(numbers, first, counts)
        self._coder.encode(symbols.astype(np.int32), self._stream.model.Categorical(_shares(counts), perfect=False))
        if outside.any():
            beyond = np.clip(numbers[outside].astype(np.int64), -BEYOND, BEYOND - 1) + BEYOND
            self._coder.encode(beyond.astype(np.int32), self._stream.model.Uniform(2 * BEYOND))

    def put_all(self, symbols: NDArray[Any], counts: Counts | int) -> None:
        """Write symbols from 0 on, all under one row of counts ``(K,)``, or each of ``counts`` alike where it is a number."""
        if len(symbols):
            self._coder.encode(symbols.astype(np.int32), _table(self._stream, counts))

    def put_each(self, symbols: NDArray[Any], counts: Counts) -> None:
        """Write symbols from 0 on, each under a row of counts of its own ``(n, K)``."""
        family = self._stream.model.Categorical(perfect=False)
        self._coder.encode(symbols.astype(np.int32), family, _shares(counts))

    def bytes(self) -> bytes:
        """Return all that was written."""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype(WORD).tobytes()


class SymbolReader:
    """Gives back what a :class:`SymbolWriter` collected, in the same order.

    Raises
    ------
    MalformedError
        For bytes that no writer made, as far as that shows.
    """

    def __init__(self, data: bytes):
        if len(data) % 4:
            raise MalformedError("it does not end with a word")
        self._stream = _constriction().stream
        self._coder = self._stream.queue.RangeDecoder(np.frombuffer(data, dtype=WORD).astype(np.uint32))

    def get(self, n: int, first: int, counts: Counts) -> NDArray[np.int64]:
        """Read ``n`` numbers of one table."""
        if not n:
            return np.zeros(0, dtype=np.int64)
        model = self._stream.model.Categorical(_shares(counts), perfect=False)
        numbers = self._decoded(model, n) + first
        outside = numbers == first + len(counts) - 1
        if outside.any():
            numbers[outside] = self._decoded(self._stream.model.Uniform(2 * BEYOND), int(outside.sum())) - BEYOND
        return numbers

    def get_all(self, n: int, counts: Counts | int) -> NDArray[np.int64]:
        """Read ``n`` symbols that :meth:`SymbolWriter.put_all` wrote."""
        return self._decoded(_table(self._stream, counts), n) if n else np.zeros(0, dtype=np.int64)

    def get_each(self, counts: Counts) -> NDArray[np.int64]:
        """Read one symbol for each row of counts ``(n, K)``."""
        return self._decoded(self._stream.model.Categorical(perfect=False), _shares(counts))

    def _decoded(self, *how: Any) -> NDArray[np.int64]:
        try:
            return np.asarray(self._coder.decode(*how)).astype(np.int64)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise MalformedError(str(error)) from None


def cost(numbers: NDArray[Any], first: int, counts: Counts) -> float:
    """Return how many bits :meth:`SymbolWriter.put` takes for numbers of one table."""
    symbols, outside = _symbols(numbers, first, counts)
    return float(-np.log2(_shares(counts))[symbols].sum() + math.log2(2 * BEYOND) * outside.sum())


def _symbols(numbers: NDArray[Any], first: int, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the places of numbers in a table, and which of them are outside it, for which the last place stands."""
    symbols = numbers.astype(np.int64) - first
    outside = (symbols < 0) | (symbols >= len(counts) - 1)
    symbols[outside] = len(counts) - 1
    return symbols, outside


def _table(stream: Any, counts: Counts | int) -> Any:
    if isinstance(counts, int):
        return stream.model.Uniform(counts)
    return stream.model.Categorical(_shares(counts), perfect=False)


def _shares(counts: Counts) -> NDArray[np.float64]:
    """Return counts as probabilities: quotients of whole numbers, which every machine rounds alike."""
    return np.ascontiguousarray(counts / counts.sum(axis=-1, keepdims=True), dtype=np.float64)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError:
        raise ImportError("compression needs an entropy coder: pip install 'diabolo[compress]'") from None
    return constriction
