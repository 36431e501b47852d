"""
JSON with exactly one spelling, and a reader that refuses what is ambiguous.

Written: RFC 8785 (JCS) restricted to strings, booleans, null, integers within 2^53, arrays and objects; floats are
refused. Read: duplicate members, `NaN`, `Infinity`, numbers that become one of them, integers longer than any of ours,
and deep nesting are refused.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

JsonValue = None | bool | int | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

_INTEGER_LIMIT: Final = 2**53
_DEPTH_LIMIT: Final = 16
READ_DEPTH: Final = 32
MEMBERS: Final = 1000  # of one object, read or written; nothing of ours has fifty
READ_DIGITS: Final = 20  # of an integer, with its sign

# A string that nobody closes goes to the end, so that a text is walked once, whatever it is.
_BRACKETS: Final = re.compile(r'[\[\]{}]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def encode(value: JsonValue) -> str:
    """
    The one spelling of a value.

    Raises:
        ValueError: a float, an integer beyond 2^53, a member name that is no string, a lone surrogate, more than
            1,000 members, or nesting deeper than 16.
    """
    text = json.dumps(_checked(value, _DEPTH_LIMIT), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text.encode()  # a lone surrogate fails here, as ValueError
    return text


def _checked(value: JsonValue, depth: int) -> JsonValue:
    if depth == 0:
        raise ValueError("nested too deeply")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if abs(value) > _INTEGER_LIMIT:
            raise ValueError("an integer beyond 2^53")
        return value
    if isinstance(value, Mapping):
        if len(value) > MEMBERS:
            raise ValueError("too many members")
        if not all(isinstance(name, str) for name in value):
            raise ValueError("a member name that is no string")
        # RFC 8785 section 3.2.3 sorts by UTF-16 code units.
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: _checked(value[name], depth - 1) for name in names}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_checked(item, depth - 1) for item in value]
    raise ValueError(f"{type(value).__name__} has no canonical form")


def parse_strict(raw: bytes) -> object:
    """
    Read JSON that must mean the same to every reader.

    Raises:
        ValueError: not UTF-8, not JSON, a duplicate member, more than `MEMBERS`, nesting deeper than `READ_DEPTH`,
            a number that no binary64 holds, an integer of more than `READ_DIGITS` digits.
    """
    text = raw.decode("utf-8")
    # Few texts have so many brackets at all; of those that do, the depth is counted before anything recurses.
    if raw.count(b"[") + raw.count(b"{") > READ_DEPTH and _is_deep(text):
        raise ValueError("nested too deeply")
    return _READER.decode(text)


def _is_deep(text: str) -> bool:
    """Whether brackets are nested deeper than `READ_DEPTH`; those within strings do not count."""
    depth = 0
    for token in _BRACKETS.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > READ_DEPTH:
                return True
        elif token[0] in "]}":
            depth -= 1
    return False


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    if len(pairs) > MEMBERS:
        raise ValueError("too many members")
    return members


def _read_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number beyond what is representable")
    return value


def _read_integer(text: str) -> int:
    if len(text) > READ_DIGITS:
        raise ValueError("an integer with too many digits")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_READER: Final = json.JSONDecoder(  # built once: json.loads builds one a call
    object_pairs_hook=_unique,
    parse_constant=_refuse_constant,
    parse_float=_read_float,
    parse_int=_read_integer,
)
