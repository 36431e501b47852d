"""What checking a file of users remembers: all that is wrong, and all names, in little memory."""

import hashlib
import re
import struct
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from app.domain.user_imports import MOST_FAULTS, Fault, Field, Reason

BUCKETS: Final = 64  # of ten million names each has some 160,000, which are in memory at a time
FLUSH_BYTES: Final = 65_536
NAMES_TOLD: Final = 20

_FIELDS: Final = tuple(Field)
_REASONS: Final = tuple(Reason)
_RECORD: Final = struct.Struct(">16sQ")  # digest of a name, line
_TELLABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]{0,39}")


class FaultLog:
    """What is wrong with a file: sixteen bytes a fault, and none beyond `MOST_FAULTS` but by its number."""

    def __init__(self) -> None:
        self._places = array("Q")
        self._first_lines = array("Q")
        self._lines: int = 0
        self._last = 0
        self.not_told = 0
        self.unknown: list[str] = []

    def __len__(self) -> int:
        return len(self._places) + self.not_told

    @property
    def lines(self) -> int:
        """How many lines are faulty; one may be counted twice that is a duplicate and wrong besides."""
        return self._lines

    def add(self, line: int, field: Field, reason: Reason, first_line: int = 0) -> None:
        if line != self._last:
            self._lines += 1
            self._last = line
        if len(self._places) == MOST_FAULTS:
            self.not_told += 1
            return
        self._places.append(line << 16 | _FIELDS.index(field) << 8 | _REASONS.index(reason))
        self._first_lines.append(first_line)

    def add_unknown(self, names: Sequence[str]) -> None:
        """Names of columns that are not known; of a file without a heading they are data, which are not repeated."""
        for name in names:
            told = name if _TELLABLE.fullmatch(name) else "?"
            if told not in self.unknown and len(self.unknown) < NAMES_TOLD:
                self.unknown.append(told)

    def __iter__(self) -> Iterator[Fault]:
        """In the order of the lines."""
        for index in sorted(range(len(self._places)), key=self._places.__getitem__):
            place, first_line = self._places[index], self._first_lines[index]
            yield Fault(place >> 16, _FIELDS[place >> 8 & 255], _REASONS[place & 255], first_line or None)


class NameSpill:
    """
    Finds names that are in a file twice: digests of 128 bits, in files without a name once they are many.

    Two names with one digest are not to be expected in any file that there could be.
    """

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(BUCKETS)]
        self._files: list[BinaryIO | None] = [None] * BUCKETS

    def add(self, key: str, line: int) -> None:
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        bucket = digest[0] % BUCKETS
        buffer = self._buffers[bucket]
        buffer += _RECORD.pack(digest, line)
        if len(buffer) >= FLUSH_BYTES:
            file = self._files[bucket]
            if file is None:
                file = self._files[bucket] = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed in `close`
            file.write(buffer)
            buffer.clear()

    def duplicates(self) -> Iterator[tuple[int, int]]:
        """Each line whose name stands in a line before it, and that line."""
        for bucket in range(BUCKETS):
            first: dict[bytes, int] = {}
            for digest, line in self._records(bucket):
                found = first.setdefault(digest, line)
                if found != line:
                    yield line, found

    def close(self) -> None:
        for file in self._files:
            if file is not None:
                file.close()

    def _records(self, bucket: int) -> Iterator[tuple[bytes, int]]:
        file = self._files[bucket]
        if file is not None:
            file.seek(0)
            while piece := file.read(_RECORD.size * 4096):
                yield from _RECORD.iter_unpack(piece)
        yield from _RECORD.iter_unpack(bytes(self._buffers[bucket]))
