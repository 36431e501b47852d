"""
Which hashes of passwords are understood: ours, and those that people bring along.

A hash counts only if it says itself of what kind it is, has a salt, holds for the whole password, and can be verified
within bounds. It is kept as it was written; what passlib knows under another spelling is spelt so for each
verification. All but ours are outdated, so the first sign-in puts ours in their place.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from passlib.context import CryptContext
from passlib.registry import get_crypt_handler

from app.domain.errors import TooBusy
from app.domain.passwords import MAXIMUM_BYTES
from app.domain.user_imports import Reason

HASH_CHARACTERS: Final = 1024
BCRYPT_BYTES: Final = 72

# What one verification may take. Each bound is some two seconds of a core of 2026; memory is twice what the defaults
# of the libraries that we know need, times the threads that hash.
MEMORY_BYTES: Final = 128 * 1024 * 1024
ARGON2_WORK_BYTES: Final = 2 * 1024 * 1024 * 1024  # memory times passes
SCRYPT_WORK_BYTES: Final = 1024 * 1024 * 1024  # memory times parallelism
MOST_LANES: Final = 16
BCRYPT_COST: Final = 15
PBKDF2_ROUNDS: Final = 5_000_000
LEAST_DIGEST: Final = 16

# What passlib and its backends raise at a hash or a password that they do not like.
_FOREIGN_ERRORS: Final = (
    ValueError,
    TypeError,
    AssertionError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    Warning,
)


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


class PasswordHashes:
    """Makes hashes of today's parameters, and verifies all that are understood."""

    def __init__(self, *, memory_kib: int, passes: int, lanes: int) -> None:
        self._ours: Any = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=passes,
            argon2__parallelism=lanes,
        )

    def hash(self, password: str) -> str:
        """A new hash with today's parameters."""
        made: str = self._ours.hash(password)
        return made

    def verify(self, password: str, stored: str) -> bool:
        """
        Whether the password is the stored hash's. Whatever is stored, the answer is yes or no.

        What cannot be verified takes as long as a hash of ours, and is false: a text that is no hash, a hash beyond
        the bounds. So is a password with a NUL for kinds that end there, and one of more than 72 bytes for bcrypt,
        which looks at no more: any of the passwords that begin alike would be right.

        Raises:
            TooBusy: there is no memory for it.
        """
        try:
            known = read_hash(stored)
        except HashRefused:
            self._ours.dummy_verify()
            return False
        try:
            return self._verify(password, known)
        except MemoryError:
            raise TooBusy(why="no memory for a hash") from None
        except _FOREIGN_ERRORS:
            self._ours.dummy_verify()
            return False

    def needs_update(self, stored: str) -> bool:
        """Whether it is not of our kind with today's parameters."""
        try:
            known = read_hash(stored)
        except HashRefused:
            return True
        outdated: bool = known.scheme != "argon2" or known.text != stored or self._ours.needs_update(stored)
        return outdated

    def _verify(self, password: str, known: KnownHash) -> bool:
        secret = password.encode()
        if known.scheme == "bcrypt" and len(secret) > BCRYPT_BYTES:
            known.handler.verify(secret[:BCRYPT_BYTES].replace(b"\0", b"0"), known.text)  # the same work
            return False
        if (
            len(secret) > MAXIMUM_BYTES and known.scheme != "argon2"
        ):  # nobody has one, and some kinds read it each round
            self._ours.dummy_verify()
            return False
        right: bool = known.handler.verify(secret, known.text)
        if not right and known.scheme in _QUICK:
            self._ours.dummy_verify()  # or it would be told apart from a user whom nobody knows
        return right


def read_hash(text: str) -> KnownHash:
    """
    What kind of hash this is.

    Raises:
        HashRefused: `hash_unknown`, `hash_malformed`, `hash_unsafe` (no salt, reversible, or not of the whole
            password), `hash_ambiguous`, `hash_too_costly` or `hash_disabled` (a mark that there is none).
    """
    if len(text) > HASH_CHARACTERS or not _PRINTABLE.fullmatch(text):
        raise HashRefused(Reason.HASH_MALFORMED)
    known = _spelt(text)
    try:
        parsed = known.handler.from_string(known.text)
    except _FOREIGN_ERRORS:
        raise HashRefused(Reason.HASH_MALFORMED) from None
    if not parsed.checksum or (known.scheme == "argon2" and (len(parsed.checksum) < LEAST_DIGEST or parsed.data)):
        raise HashRefused(Reason.HASH_MALFORMED)
    if not getattr(parsed, "salt", None):
        raise HashRefused(Reason.HASH_UNSAFE)
    if not _BOUNDS.get(known.scheme, _no_bound)(parsed):
        raise HashRefused(Reason.HASH_TOO_COSTLY)
    return known


def _spelt(text: str) -> KnownHash:
    """By the beginning of the text; in passlib's spelling."""
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
        return _spelt(rest)
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


def _no_bound(_parsed: Any) -> bool:
    return True


def _argon2_bound(parsed: Any) -> bool:
    memory = parsed.memory_cost * 1024
    work = memory * parsed.rounds
    return bool(memory <= MEMORY_BYTES and work <= ARGON2_WORK_BYTES and parsed.parallelism <= MOST_LANES)


def _scrypt_bound(parsed: Any) -> bool:
    memory = (128 << parsed.rounds) * parsed.block_size
    work = memory * parsed.parallelism
    return bool(memory <= MEMORY_BYTES and work <= SCRYPT_WORK_BYTES and parsed.parallelism <= MOST_LANES)


def _rounds(most: int) -> Callable[[Any], bool]:
    return lambda parsed: parsed.rounds <= most


_BCRYPT_64: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PRINTABLE: Final = re.compile(r"[!-~]+")
_BRACES: Final = re.compile(r"\{([A-Za-z0-9-]{1,20})\}")
_BCRYPT: Final = re.compile(r"(\$2[aby]?\$\d\d\$)([./A-Za-z0-9]{21})([./A-Za-z0-9])([./A-Za-z0-9]{30})([./A-Za-z0-9])")
_DJANGO_PBKDF2: Final = re.compile(r"([1-9]\d{0,9})\$([^$]{1,255})\$([A-Za-z0-9+/=]+)")
_DJANGO_SCRYPT: Final = re.compile(
    r"scrypt\$([1-9]\d{0,9})\$([^$]{1,255})\$([1-9]\d{0,4})\$([1-9]\d{0,4})\$([A-Za-z0-9+/=]+)"
)
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
    ("$scram$", "scram"),
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
_BOUNDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "argon2": _argon2_bound,
    "scrypt": _scrypt_bound,
    "bcrypt": _rounds(BCRYPT_COST),
    "bcrypt_sha256": _rounds(BCRYPT_COST),
    "django_bcrypt_sha256": _rounds(BCRYPT_COST),
    "pbkdf2_sha1": _rounds(PBKDF2_ROUNDS),
    "pbkdf2_sha256": _rounds(PBKDF2_ROUNDS),
    "pbkdf2_sha512": _rounds(PBKDF2_ROUNDS),
    "cta_pbkdf2_sha1": _rounds(PBKDF2_ROUNDS),
    "dlitz_pbkdf2_sha1": _rounds(PBKDF2_ROUNDS),
    "grub_pbkdf2_sha512": _rounds(PBKDF2_ROUNDS),
    "scram": _rounds(2_000_000),
    "fshp": _rounds(2_000_000),
    "sha256_crypt": _rounds(1_000_000),
    "sha512_crypt": _rounds(1_000_000),
    "sha1_crypt": _rounds(1_000_000),
    "sun_md5_crypt": _rounds(100_000),
    "bsdi_crypt": _rounds(100_001),
    "phpass": _rounds(21),  # of two's exponent
}
# A single digest, or a thousand: over before a hash of ours has begun.
_QUICK: Final = frozenset(
    {
        "django_salted_md5",
        "django_salted_sha1",
        "ldap_salted_md5",
        "ldap_salted_sha1",
        "ldap_salted_sha256",
        "ldap_salted_sha512",
        "md5_crypt",
        "apr_md5_crypt",
        "mssql2005",
        "oracle11",
        "atlassian_pbkdf2_sha1",
        "phpass",
    }
)
