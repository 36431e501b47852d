"""
The kinds of hashes: how each begins, and how passlib spells it.

What passlib does not know under the spelling of another library is written in its own, where that is exact.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from passlib.registry import get_crypt_handler

from app.domain.user_imports import Reason


class HashRefused(Exception):
    """A text is no hash that may be stored; `reason` says why, and nothing repeats the text."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KnownHash:
    """A hash that can be verified: by which of passlib's handlers, and in its spelling."""

    scheme: str
    text: str

    @property
    def handler(self) -> Any:
        return get_crypt_handler(self.scheme)


def spelt(text: str) -> KnownHash:
    """
    What kind of hash a text says that it is, and it in passlib's spelling; it may be malformed all the same.

    Raises:
        HashRefused: none, or one that must not be stored.
    """
    if text.startswith("{") and (found := _BRACES.match(text)):
        return _in_braces(found.group(1).upper(), text[found.end() :])
    for beginning, scheme in _BEGINNINGS:
        if text.startswith(beginning):
            return KnownHash(scheme, text)
    for beginning, rewrite in _REWRITTEN:
        if text.startswith(beginning):
            return rewrite(text)
    raise HashRefused(_why_not(text))


def _in_braces(kind: str, rest: str) -> KnownHash:
    """As directories (RFC 2307) and Spring write it."""
    if kind in _LDAP:
        return KnownHash(_LDAP[kind], f"{{{kind}}}{rest}")
    if kind in _WRAPPED and rest.startswith(_WRAPPED[kind]):
        return spelt(rest)
    if kind in _LDAP_PBKDF2:
        scheme = _LDAP_PBKDF2[kind]
        return KnownHash(scheme, f"{_PBKDF2_IDENTS[scheme]}{rest}")
    raise HashRefused(Reason.HASH_UNSAFE if kind in _UNSAFE_BRACES or kind == "CRYPT" else Reason.HASH_UNKNOWN)


def _bcrypt(text: str) -> KnownHash:
    """Padding bits that some libraries leave at random mean nothing, and are set to zero as passlib has them."""
    found = _BCRYPT.fullmatch(text)
    if found is None:
        raise HashRefused(Reason.HASH_MALFORMED)
    start, salt_end, digest_end = found.group(1, 3, 5)
    salt_end = _BCRYPT_64[_BCRYPT_64.index(salt_end) & 0x30]
    digest_end = _BCRYPT_64[_BCRYPT_64.index(digest_end) & 0x3C]
    return KnownHash("bcrypt", f"{start}{found.group(2)}{salt_end}{found.group(4)}{digest_end}")


def _django_bcrypt(text: str) -> KnownHash:
    return _bcrypt(text.removeprefix("bcrypt$"))


def _django_argon2(text: str) -> KnownHash:
    return KnownHash("argon2", text.removeprefix("argon2"))


def _django_pbkdf2(text: str) -> KnownHash:
    """`pbkdf2_sha256$rounds$salt$base64`: the same function as passlib's own kind, which takes any salt."""
    kind, _, rest = text.partition("$")
    found = _DJANGO_PBKDF2.fullmatch(rest)
    if found is None:
        raise HashRefused(Reason.HASH_MALFORMED)
    rounds, salt, digest = found.groups()
    return _pbkdf2(kind, rounds, salt, _decoded(digest))


def _django_scrypt(text: str) -> KnownHash:
    """`scrypt$N$salt$r$p$base64`."""
    found = _DJANGO_SCRYPT.fullmatch(text)
    if found is None:
        raise HashRefused(Reason.HASH_MALFORMED)
    n, salt, r, p, digest = found.groups()
    return _scrypt(n, r, p, salt, _decoded(digest))


def _werkzeug_scrypt(text: str) -> KnownHash:
    """`scrypt:N:r:p$salt$hex`."""
    found = _WERKZEUG_SCRYPT.fullmatch(text)
    if found is None:
        raise HashRefused(Reason.HASH_MALFORMED)
    n, r, p, salt, digest = found.groups()
    return _scrypt(n, r, p, salt, bytes.fromhex(digest))


def _werkzeug_pbkdf2(text: str) -> KnownHash:
    """`pbkdf2:sha256:rounds$salt$hex`. Without rounds they are those of an unknown release."""
    found = _WERKZEUG_PBKDF2.fullmatch(text)
    if found is None:
        raise HashRefused(Reason.HASH_MALFORMED)
    digest_name, rounds, salt, digest = found.groups()
    if rounds is None:
        raise HashRefused(Reason.HASH_AMBIGUOUS)
    return _pbkdf2(f"pbkdf2_{digest_name}", rounds, salt, bytes.fromhex(digest))


def _pbkdf2(scheme: str, rounds: str, salt: str, digest: bytes) -> KnownHash:
    written = (_adapted(salt.encode()), _adapted(digest))
    return KnownHash(scheme, f"{_PBKDF2_IDENTS[scheme]}{rounds}${written[0]}${written[1]}")


def _scrypt(n: str, r: str, p: str, salt: str, digest: bytes) -> KnownHash:
    """Its 64 bytes begin with the 32 that passlib compares: scrypt's last step makes them block by block."""
    cost = int(n)
    if cost < 2 or cost & (cost - 1) or len(digest) not in {32, 64}:  # noqa: PLR2004 - a power of two
        raise HashRefused(Reason.HASH_MALFORMED)
    digest = digest[:32]
    ln = cost.bit_length() - 1
    return KnownHash("scrypt", f"$scrypt$ln={ln},r={int(r)},p={int(p)}${_b64(salt.encode())}${_b64(digest)}")


def _p5k2(text: str) -> KnownHash:
    """Two kinds share a beginning; one has digests of 20 bytes, padded, the other of 24, which need none."""
    padded = text.endswith("=") and len(text.rpartition("$")[2]) == 28  # noqa: PLR2004 - base64 of 20 bytes
    return KnownHash("cta_pbkdf2_sha1" if padded else "dlitz_pbkdf2_sha1", text)


def _mssql(text: str) -> KnownHash:
    """The kind of 2000 holds for the password in capitals."""
    if len(text) == 94:  # noqa: PLR2004 - two digests
        raise HashRefused(Reason.HASH_UNSAFE)
    return KnownHash("mssql2005", text)


def _scram(text: str) -> KnownHash:
    """Only with digests that have names: passlib asks itself aloud what another one may mean."""
    if not _SCRAM.fullmatch(text):
        raise HashRefused(Reason.HASH_MALFORMED)
    return KnownHash("scram", text)


def _django_digest(text: str) -> KnownHash:
    kind, salt, _ = f"{text}$$".split("$", 2)
    if not salt:
        raise HashRefused(Reason.HASH_UNSAFE)
    return KnownHash(f"django_salted_{kind}", text)


def _why_not(text: str) -> Reason:
    if _UNSAFE.fullmatch(text):
        return Reason.HASH_UNSAFE
    return Reason.HASH_DISABLED if text[0] in "!*" else Reason.HASH_UNKNOWN


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise HashRefused(Reason.HASH_MALFORMED) from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _adapted(data: bytes) -> str:
    """passlib's base64: a dot for the plus sign."""
    return _b64(data).replace("+", ".")


_BCRYPT_64: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BRACES: Final = re.compile(r"\{([A-Za-z0-9-]{1,20})\}")
_BCRYPT: Final = re.compile(r"(\$2[aby]?\$\d\d\$)([./A-Za-z0-9]{21})([./A-Za-z0-9])([./A-Za-z0-9]{30})([./A-Za-z0-9])")
_DJANGO_PBKDF2: Final = re.compile(r"([1-9]\d{0,9})\$([^$]{1,255})\$([A-Za-z0-9+/=]+)")
_DJANGO_SCRYPT: Final = re.compile(
    r"scrypt\$([1-9]\d{0,9})\$([^$]{1,255})\$([1-9]\d{0,4})\$([1-9]\d{0,4})\$([A-Za-z0-9+/=]+)"
)
_SCRAM_DIGEST: Final = r"(?:md5|sha-1|sha-224|sha-256|sha-384|sha-512)=[A-Za-z0-9./]+"
_SCRAM: Final = re.compile(rf"\$scram\$[1-9]\d{{0,9}}\$[A-Za-z0-9./]+\${_SCRAM_DIGEST}(?:,{_SCRAM_DIGEST})*")
_HEX: Final = r"((?:[0-9a-f]{2})+)"
_WERKZEUG_SCRYPT: Final = re.compile(
    rf"scrypt:([1-9]\d{{0,9}}):([1-9]\d{{0,4}}):([1-9]\d{{0,4}})\$([^$]{{1,255}})\${_HEX}"
)
_WERKZEUG_PBKDF2: Final = re.compile(rf"pbkdf2:(sha1|sha256|sha512)(?::([1-9]\d{{0,9}}))?\$([^$]{{1,255}})\${_HEX}")

_PBKDF2_IDENTS: Final[Mapping[str, str]] = {
    "pbkdf2_sha1": "$pbkdf2$",
    "pbkdf2_sha256": "$pbkdf2-sha256$",
    "pbkdf2_sha512": "$pbkdf2-sha512$",
}
_LDAP_PBKDF2: Final[Mapping[str, str]] = {
    "PBKDF2": "pbkdf2_sha1",
    "PBKDF2-SHA256": "pbkdf2_sha256",
    "PBKDF2-SHA512": "pbkdf2_sha512",
}
_LDAP: Final[Mapping[str, str]] = {
    "SMD5": "ldap_salted_md5",
    "SSHA": "ldap_salted_sha1",
    "SSHA256": "ldap_salted_sha256",
    "SSHA512": "ldap_salted_sha512",
    "PKCS5S2": "atlassian_pbkdf2_sha1",
}
_WRAPPED: Final[Mapping[str, tuple[str, ...]]] = {
    "CRYPT": ("$1$", "$2", "$5$", "$6$", "$sha1$", "$apr1$", "_"),
    "BCRYPT": ("$2",),
    "ARGON2": ("$argon2",),
}
_UNSAFE_BRACES: Final = frozenset(
    {"MD5", "SHA", "SHA256", "SHA384", "SHA512", "CLEARTEXT", "CLEAR", "PLAIN", "PLAINTEXT", "NOOP", "NT", "LANMAN"}
)
# Bare digests, which have no salt: MySQL's, PostgreSQL's (whose salt is the name), 13 characters of DES's crypt, which
# like Django's `crypt$` reads eight characters of a password, the buggy bcrypt of `$2x$`, and FreeBSD's NT hash.
_UNSAFE: Final = re.compile(
    r"[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{96}|[0-9A-Fa-f]{128}"
    r"|\*[0-9A-Fa-f]{40}|md5[0-9a-f]{32}|[./0-9A-Za-z]{13}|crypt\$.*|\$2x\$.*|\$3\$.*"
)
_BEGINNINGS: Final = (
    ("$argon2", "argon2"),
    ("$pbkdf2-sha256$", "pbkdf2_sha256"),
    ("$pbkdf2-sha512$", "pbkdf2_sha512"),
    ("$pbkdf2$", "pbkdf2_sha1"),
    ("$scrypt$", "scrypt"),
    ("$7$", "scrypt"),
    ("$bcrypt-sha256$", "bcrypt_sha256"),
    ("bcrypt_sha256$", "django_bcrypt_sha256"),
    ("$6$", "sha512_crypt"),
    ("$5$", "sha256_crypt"),
    ("$P$", "phpass"),
    ("$H$", "phpass"),
    ("$1$", "md5_crypt"),
    ("$apr1$", "apr_md5_crypt"),
    ("$sha1$", "sha1_crypt"),
    ("$md5$", "sun_md5_crypt"),
    ("$md5,", "sun_md5_crypt"),
    ("{FSHP", "fshp"),
    ("grub.pbkdf2.sha512.", "grub_pbkdf2_sha512"),
    ("S:", "oracle11"),
    ("_", "bsdi_crypt"),
)
_REWRITTEN: Final[tuple[tuple[str, Callable[[str], KnownHash]], ...]] = (
    ("$2a$", _bcrypt),
    ("$2b$", _bcrypt),
    ("$2y$", _bcrypt),
    ("$2$", _bcrypt),
    ("$scram$", _scram),
    ("pbkdf2_sha256$", _django_pbkdf2),
    ("pbkdf2_sha1$", _django_pbkdf2),
    ("bcrypt$", _django_bcrypt),
    ("argon2$argon2", _django_argon2),
    ("scrypt$", _django_scrypt),
    ("scrypt:", _werkzeug_scrypt),
    ("pbkdf2:", _werkzeug_pbkdf2),
    ("sha1$", _django_digest),
    ("md5$", _django_digest),
    ("$p5k2$", _p5k2),
    ("0x0100", _mssql),
)
