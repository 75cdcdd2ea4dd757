"""Files of compressed data: pieces of bytes, each with a checksum, under a header that names the model."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from diabolo.files import replacing

__all__ = ["CompressedFileError", "ContainerReader", "ContainerWriter", "Varints", "varint"]

MAGIC = b"\x89DBL"
VERSION = 1
HEAD = struct.Struct("<4sBB8s")  # magic number, version, kind, fingerprint of the model
PIECE = struct.Struct("<II")  # length and checksum of what follows
LONGEST = 2**30  # bytes of a piece


class CompressedFileError(ValueError):
    """A compressed file is damaged, foreign, too new, or of another model; the message says which."""


class ContainerWriter:
    """Writes a file piece by piece; it is there, whole, once the writer is closed without an error.

    Parameters
    ----------
    path : Path
        The file.
    kind : int
        What the pieces hold.
    fingerprint : bytes
        Of the model, 8 of them.
    """

    def __init__(self, path: Path, kind: int, fingerprint: bytes):
        self.path, self.size, self.pieces = path, 0, 0
        self._head = HEAD.pack(MAGIC, VERSION, kind, fingerprint)

    def __enter__(self) -> Self:
        self._opened = replacing(self.path)
        self._file: IO[bytes] = self._opened.__enter__()
        self._out(self._head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._out(PIECE.pack(0, _checksum(b"", self.pieces)))
        self._opened.__exit__(kind, error, trace)

    def write(self, data: bytes) -> None:
        """Append a piece, of at least one byte."""
        self._out(PIECE.pack(len(data), _checksum(data, self.pieces)) + data)
        self.pieces += 1

    def _out(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)


@dataclass(frozen=True)
class Piece:
    """Where a piece lies."""

    number: int
    place: int
    length: int
    checksum: int


class ContainerReader:
    """Reads a file that :class:`ContainerWriter` wrote; pieces are found without reading those before them.

    Raises
    ------
    CompressedFileError
        When the file is damaged or foreign.
    FileNotFoundError
        When there is none.
    """

    def __init__(self, path: Path):
        self.path = path
        with contextlib.ExitStack() as opened:  # closed again where the file is refused
            self._file = opened.enter_context(path.open("rb"))
            self._size = path.stat().st_size
            head = self._file.read(HEAD.size)
            if len(head) < HEAD.size or head[:4] != MAGIC:
                raise CompressedFileError(f"{path} is no file that a Compressor wrote")
            _, version, self.kind, self.fingerprint = HEAD.unpack(head)
            if version != VERSION:
                raise CompressedFileError(
                    f"{path} has version {version} of the format; this Diabolo reads version {VERSION}"
                )
            self.pieces = list(self._find())
            opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, number: int) -> bytes:
        """Return a piece."""
        piece = self.pieces[number]
        self._file.seek(piece.place)
        data = self._file.read(piece.length)
        if _checksum(data, number) != piece.checksum:
            raise self.damaged(f"piece {number} does not match its checksum")
        return data

    def head(self, number: int, length: int) -> bytes:
        """Return the first bytes of a piece, which are not checked until all of it is read."""
        piece = self.pieces[number]
        self._file.seek(piece.place)
        return self._file.read(min(length, piece.length))

    def damaged(self, why: str) -> CompressedFileError:
        """Return the error that says that the file cannot be read."""
        return CompressedFileError(f"{self.path} is damaged: {why}")

    def _find(self) -> Iterator[Piece]:
        place, number = HEAD.size, 0
        while True:
            head = self._file.read(PIECE.size)
            if len(head) < PIECE.size:
                raise self.damaged("it ends too early")
            length, checksum = PIECE.unpack(head)
            place += PIECE.size
            if length == 0:
                if checksum != _checksum(b"", number) or place != self._size:
                    raise self.damaged("it does not end where its last piece ends")
                return
            if length > min(LONGEST, self._size - place):
                raise self.damaged("it ends too early")
            yield Piece(number, place, length, checksum)
            place, number = place + length, number + 1
            self._file.seek(place)


def _checksum(data: bytes, number: int) -> int:
    """Return the checksum of a piece, which knows its place."""
    return zlib.crc32(data, number & 0xFFFFFFFF)


def varint(*values: int) -> bytes:
    """Return numbers of at least 0, 7 bits a byte."""
    out = bytearray()
    for value in values:
        while value >= 128:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


class Varints:
    """Reads what :func:`varint` wrote at the head of bytes; :attr:`rest` follows it."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def next(self) -> int:
        """Return the next number."""
        value = shift = 0
        while True:
            if self.place >= len(self.data) or shift > 56:
                raise ValueError("a number is cut short")
            byte = self.data[self.place]
            self.place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    @property
    def rest(self) -> bytes:
        """All that was not read yet."""
        return self.data[self.place :]
