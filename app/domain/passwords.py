"""Which passwords may be set, and the one form in which they are hashed."""

import unicodedata
from typing import Final

from app.domain.errors import PasswordRefused

MINIMUM_CHARACTERS: Final = 8
MAXIMUM_BYTES: Final = 1024


def canonical_password(password: str) -> str:
    """NFC, so that a keyboard that decomposes letters signs in alike; never cut, no case change (RFC 8265, 4.2)."""
    return unicodedata.normalize("NFC", password)


def check_new_password(password: str) -> str:
    """
    The canonical form of a password that may be set.

    Length is counted in code points of the canonical form; there are no composition rules.

    Raises:
        PasswordRefused: shorter than `MINIMUM_CHARACTERS`, longer than `MAXIMUM_BYTES` of UTF-8, or with a NUL or a
            code point that Unicode has not assigned (a later Unicode version could normalise it otherwise).
    Source: NIST SP 800-63B-4 section 3.1.1.2.
    """
    canonical = canonical_password(password)
    if len(canonical) < MINIMUM_CHARACTERS:
        raise PasswordRefused(f"A password has at least {MINIMUM_CHARACTERS} characters.")
    if len(canonical.encode()) > MAXIMUM_BYTES:
        raise PasswordRefused(f"A password has at most {MAXIMUM_BYTES} bytes.")
    if any(character == "\0" or unicodedata.category(character) == "Cn" for character in canonical):
        raise PasswordRefused("A password has no NUL and no unassigned characters.")
    return canonical
