"""Tree heads and proofs as text: C2SP tlog-checkpoint, tlog-proof. `security/notes.py` signs them."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from app.domain.merkle import HASH_BYTES

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ORIGIN: Final = re.compile(r"[^\s+]{1,200}")


class Malformed(ValueError):
    """A text that is not what it should be. The message says what was expected."""


def encode_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def decode_base64(text: str) -> bytes:
    """
    RFC 4648 section 4, in its only spelling: Python's own decoder ignores the unused bits at the end.

    Raises:
        Malformed: anything else.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("not base64") from None
    if encode_base64(raw) != text:
        raise Malformed("not base64 in its only spelling")
    return raw


def decode_hash(text: str) -> bytes:
    raw = decode_base64(text)
    if len(raw) != HASH_BYTES:
        raise Malformed("not a hash")
    return raw


def parse_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise Malformed("not a number")
    return int(text)


def is_origin(text: str) -> bool:
    """Whether a text may name a log, and the key that signs for it: no spaces, no plus (C2SP signed-note)."""
    return _ORIGIN.fullmatch(text) is not None


def epoch_origin(first_origin: str, epoch: int) -> str:
    """The name of a log's n-th incarnation."""
    return first_origin if epoch == 1 else f"{first_origin}/epoch-{epoch}"


def previous_origin(origin: str) -> str | None:
    """The name of the incarnation before this one; `None`: this is the first."""
    first, found, number = origin.rpartition("/epoch-")
    if not found or not number.isdigit() or int(number) <= 1:
        return None
    return epoch_origin(first, int(number) - 1)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree head."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed (C2SP tlog-checkpoint); ends with a newline."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        From a note's text.

        Raises:
            Malformed: not three lines of origin, size and root. We sign no extensions, and accept none.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:  # noqa: PLR2004 - three lines, each ended
            raise Malformed("a checkpoint has three lines")
        if not is_origin(lines[0]):
            raise Malformed("not an origin")
        return cls(lines[0], parse_number(lines[1]), decode_hash(lines[2]))


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is in a log: C2SP tlog-proof. `extra` is not authenticated; ours is the entry itself."""

    index: int
    hashes: Sequence[bytes]
    note: str
    extra: bytes | None = None

    def text(self) -> str:
        lines = [PROOF_HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines += [f"index {self.index}", *map(encode_base64, self.hashes), ""]
        return "\n".join(lines) + "\n" + self.note

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        From a file's text.

        Raises:
            Malformed: not a proof of this format.
        """
        head, found, note = text.partition("\n\n")
        lines = head.split("\n")
        if not found or lines.pop(0) != PROOF_HEADER or not lines:
            raise Malformed(f"not a {PROOF_HEADER}")
        extra = decode_base64(lines.pop(0).removeprefix("extra ")) if lines[0].startswith("extra ") else None
        if not lines or not lines[0].startswith("index "):
            raise Malformed("no index")
        index = parse_number(lines.pop(0).removeprefix("index "))
        return cls(index, [decode_hash(line) for line in lines], note, extra)
