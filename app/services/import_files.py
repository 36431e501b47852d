"""Reading a file of users: line by line in bounded memory, as often as needed, and the same bytes each time."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from app.domain.errors import InputInvalid
from app.domain.import_lines import LineFaulty, read_heading
from app.domain.user_imports import LINE_BYTES, Field, ImportFormat, Reason

BUFFER_BYTES: Final = 1024 * 1024
_PIECE: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"
_SUFFIXES: Final = {
    ".csv": ImportFormat.CSV,
    ".ndjson": ImportFormat.NDJSON,
    ".jsonl": ImportFormat.NDJSON,
    ".json": ImportFormat.NDJSON,
}


@dataclass(frozen=True, slots=True)
class RawBatch:
    """
    Lines by number, `None` for one that is too long; and what tells whether they are those that were checked.

    Args:
        last: The number of the last line that was read for it.
        digest: SHA-256 of the file from its beginning to the end of this batch.
        position: Bytes read by then.
    """

    lines: Sequence[tuple[int, bytes | None]]
    last: int
    digest: bytes
    position: int


class ImportFile:
    """
    An open file of users.

    Raises:
        InputInvalid: from the beginning, what cannot be read twice (a pipe, a terminal), or at all.
    """

    def __init__(self, path: Path, form: ImportFormat | None = None) -> None:
        told = form or _SUFFIXES.get(path.suffix.lower())
        if told is None:
            raise InputInvalid("The file's name does not say its format: add --format csv or --format ndjson.")
        try:
            # Not waiting: a pipe that nobody writes to would never be opened.
            self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", BUFFER_BYTES)
        except OSError as error:
            raise InputInvalid(f"The file cannot be read: {error.strerror}.") from None
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode):
            self._file.close()
            raise InputInvalid("This is not a regular file; it is read more than once, so a pipe will not do.")
        self.form: ImportFormat = told
        self.heading = 0  # the line that `columns` found it in
        self.size = found.st_size
        self.place = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).digest()

    def digest(self) -> bytes:
        """SHA-256 of all of it. From then on its size is what was read: it may have grown since it was opened."""
        self._file.seek(0)
        read, self.size = hashlib.sha256(), 0
        while piece := self._file.read(BUFFER_BYTES):
            read.update(piece)
            self.size += len(piece)
        return read.digest()

    def columns(self) -> tuple[str, ...]:
        """
        What the heading of a CSV file says, its first line that is not empty; of NDJSON nothing.

        Raises:
            LineFaulty: it cannot be taken.
        """
        if self.form is ImportFormat.NDJSON:
            return ()
        self._file.seek(0)
        line, self.heading = self._file.readline(LINE_BYTES + 1).removeprefix(_BOM), 1
        while line and not _bare(line):
            line, self.heading = self._file.readline(LINE_BYTES + 1), self.heading + 1
        if not line:
            self.heading = 1
        if len(line) > LINE_BYTES:
            raise LineFaulty((Field.LINE, Reason.LINE_TOO_LONG))
        return read_heading(decoded(_bare(line)))

    def batches(self, *, after: int, size: int) -> Iterator[RawBatch]:
        """
        All lines but the heading and empty ones, so many at a time.

        Args:
            after: Lines up to this number are read, and left out.
        """
        self._file.seek(0)
        read = hashlib.sha256()
        lines: list[tuple[int, bytes | None]] = []
        number, position, told = 0, 0, -1
        while line := self._file.readline(LINE_BYTES + 2):
            number += 1
            read.update(line)
            position += len(line)
            whole: bytes | None = line
            if len(line) > LINE_BYTES and not line.endswith(b"\n"):
                whole = None
                while line and not line.endswith(b"\n"):
                    line = self._file.readline(_PIECE)
                    read.update(line)
                    position += len(line)
            if number == 1 and whole is not None:
                whole = whole.removeprefix(_BOM)
            whole = None if whole is None else _bare(whole)
            if number > max(after, self.heading) and whole != b"":
                lines.append((number, whole))
            if len(lines) == size:
                yield RawBatch(lines, number, read.digest(), position)
                lines, told = [], position
        if position > told:
            yield RawBatch(lines, number, read.digest(), position)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def decoded(line: bytes) -> str:
    """
    A line's text.

    Raises:
        LineFaulty: it is not UTF-8, or has a NUL.
    """
    if b"\0" in line:
        raise LineFaulty((Field.LINE, Reason.NUL))
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise LineFaulty((Field.LINE, Reason.NOT_UTF8)) from None


def _bare(line: bytes) -> bytes:
    """Without its end, LF or CRLF."""
    return line.removesuffix(b"\n").removesuffix(b"\r")
