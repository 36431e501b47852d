"""Scopes: what a session may be used for."""

import re
from typing import Final

SCOPE_CHARACTERS: Final = 512

_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+(?: [\x21\x23-\x5B\x5D-\x7E]+)*", re.ASCII)


def canonical_scope(scope: str) -> str | None:
    """
    The scope with each token once, in the order given; `None` if it is none by RFC 6749 section 3.3.

    The empty scope is one: RFC 6749 section 3.2 treats a parameter without a value as omitted.
    """
    if not scope:
        return ""
    if len(scope) > SCOPE_CHARACTERS or not _SCOPE.fullmatch(scope):
        return None
    return " ".join(dict.fromkeys(scope.split(" ")))
