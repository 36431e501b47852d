"""Hashes that people bring along: each kind signs in and is ours afterwards; what must not be stored is refused."""

import base64
import contextlib
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from passlib.registry import get_crypt_handler, list_crypt_handlers
from precis_i18n import get_profile

from app.domain.errors import UsernameRefused
from app.domain.user_imports import Reason
from app.domain.users import username_key
from app.main import create_app
from app.security.hash_kinds import HashRefused
from app.security.password_hashes import read_hash
from app.security.passwords import PasswordHasher
from tests.conftest import OwnDatabase, make_settings
from tests.imports.conftest import Bring, csv_of

PASSWORD = "corréct horse battery"  # not of ASCII only; NFC


def by(scheme: str, secret: str = PASSWORD, **options: Any) -> str:
    """By passlib, as cheap as it goes."""
    handler = get_crypt_handler(scheme)
    made: str = handler.using(**options).hash(secret) if options else handler.hash(secret)
    return made


def django(algorithm: str, digest: str, rounds: int = 1000, salt: str = "aZ-09_salt") -> str:
    """As Django's `make_password` writes it."""
    made = hashlib.pbkdf2_hmac(digest, PASSWORD.encode(), salt.encode(), rounds)
    return f"{algorithm}${rounds}${salt}${base64.b64encode(made).decode()}"


def django_scrypt(salt: str = "saltsaltsalt") -> str:
    made = hashlib.scrypt(PASSWORD.encode(), salt=salt.encode(), n=1024, r=8, p=5, maxmem=2**26, dklen=64)
    return f"scrypt$1024${salt}$8$5${base64.b64encode(made).decode()}"


def werkzeug_scrypt(salt: str = "saltsaltsalt") -> str:
    made = hashlib.scrypt(PASSWORD.encode(), salt=salt.encode(), n=1024, r=8, p=1, maxmem=2**26)
    return f"scrypt:1024:8:1${salt}${made.hex()}"


def werkzeug_pbkdf2(digest: str, salt: str = "saltsaltsalt") -> str:
    made = hashlib.pbkdf2_hmac(digest, PASSWORD.encode(), salt.encode(), 1000)
    return f"pbkdf2:{digest}:1000${salt}${made.hex()}"


def keycloak() -> str:
    """As the page says to write a credential of Keycloak's: PBKDF2 of 64 bytes, of which 32 are kept."""
    salt = b"sixteen bytes of"
    value = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, 27_500, 64)

    def adapted(data: bytes) -> str:
        return base64.b64encode(data).decode().rstrip("=").replace("+", ".")

    return f"$pbkdf2-sha256$27500${adapted(salt)}${adapted(value[:32])}"


CHEAP: dict[str, Any] = {"memory_cost": 1024, "rounds": 1, "parallelism": 2}
FORMATS = {
    "bcrypt 2a": by("bcrypt", rounds=4, ident="2a"),
    "bcrypt 2b": by("bcrypt", rounds=4, ident="2b"),
    "bcrypt 2y": by("bcrypt", rounds=4, ident="2y"),
    "bcrypt_sha256": by("bcrypt_sha256", rounds=4),
    "Django bcrypt": "bcrypt$" + by("bcrypt", rounds=4),
    "Django bcrypt_sha256": by("django_bcrypt_sha256", rounds=4),
    "Django pbkdf2_sha256": django("pbkdf2_sha256", "sha256"),
    "Django pbkdf2_sha1": django("pbkdf2_sha1", "sha1"),
    "Django argon2id": "argon2" + by("argon2", type="ID", **CHEAP),
    "Django argon2i": "argon2" + by("argon2", type="I", **CHEAP),
    "Django scrypt": django_scrypt(),
    "Django sha1": by("django_salted_sha1"),
    "Django md5": by("django_salted_md5"),
    "Werkzeug scrypt": werkzeug_scrypt(),
    "Werkzeug pbkdf2 sha256": werkzeug_pbkdf2("sha256"),
    "Werkzeug pbkdf2 sha512": werkzeug_pbkdf2("sha512"),
    "Werkzeug pbkdf2 sha1": werkzeug_pbkdf2("sha1"),
    "Keycloak": keycloak(),
    "argon2id": by("argon2", type="ID", **CHEAP),
    "argon2i": by("argon2", type="I", **CHEAP),
    "argon2d": by("argon2", type="D", **CHEAP),
    "argon2id of argon2-cffi": by("argon2", type="ID", memory_cost=65_536, rounds=3, parallelism=4),
    "scrypt": by("scrypt", rounds=8),
    "scrypt $7$": by("scrypt", rounds=8, ident="$7$"),
    "pbkdf2_sha1": by("pbkdf2_sha1", rounds=1000),
    "pbkdf2_sha256": by("pbkdf2_sha256", rounds=1000),
    "pbkdf2_sha512": by("pbkdf2_sha512", rounds=1000),
    "{PBKDF2}": by("ldap_pbkdf2_sha1", rounds=1000),
    "{PBKDF2-SHA256}": by("ldap_pbkdf2_sha256", rounds=1000),
    "{PBKDF2-SHA512}": by("ldap_pbkdf2_sha512", rounds=1000),
    "grub": by("grub_pbkdf2_sha512", rounds=1000),
    "cryptacular": by("cta_pbkdf2_sha1", rounds=1000),
    "dlitz": by("dlitz_pbkdf2_sha1", rounds=1000),
    "Atlassian": by("atlassian_pbkdf2_sha1"),
    "sha256_crypt": by("sha256_crypt", rounds=1000),
    "sha512_crypt": by("sha512_crypt", rounds=5000),
    "sha1_crypt": by("sha1_crypt", rounds=1000),
    "md5_crypt": by("md5_crypt"),
    "apr_md5_crypt": by("apr_md5_crypt"),
    "sun_md5_crypt": by("sun_md5_crypt", rounds=10),
    "bsdi_crypt": by("bsdi_crypt", rounds=11),
    "phpass": by("phpass", rounds=7),
    "phpBB3": by("phpass", rounds=7, ident="H"),
    "scram": by("scram", rounds=1000),
    "fshp": by("fshp", rounds=1000),
    "{SMD5}": by("ldap_salted_md5"),
    "{SSHA}": by("ldap_salted_sha1"),
    "{SSHA256}": by("ldap_salted_sha256"),
    "{SSHA512}": by("ldap_salted_sha512"),
    "{CRYPT} bcrypt": by("ldap_bcrypt", rounds=4),
    "{CRYPT} sha512": by("ldap_sha512_crypt", rounds=1000),
    "{CRYPT} md5": by("ldap_md5_crypt"),
    "{bcrypt} of Spring": "{bcrypt}" + by("bcrypt", rounds=4, ident="2a"),
    "mssql2005": by("mssql2005"),
    "oracle11": by("oracle11"),
}


@pytest_asyncio.fixture
async def at_own(own: OwnDatabase) -> Any:
    """The API over the test's own database."""
    app: FastAPI = create_app(make_settings(own.app))
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as client:
        yield client
    await app.state.container.close()


async def sign_in(http: httpx2.AsyncClient, username: str, password: str) -> int:
    return (await http.post("/token", data={"username": username, "password": password})).status_code


async def test_each_kind_signs_in_and_is_ours_afterwards(
    at_own: httpx2.AsyncClient, own_sql: asyncpg.Connection, tmp_path: Path, bring: Bring
) -> None:
    """From the file through `POST /token`: wrong is 401 and changes nothing, right is a session and a hash of ours."""
    names = {f"user-{n}": (kind, text) for n, (kind, text) in enumerate(FORMATS.items())}
    file = csv_of(tmp_path / "users.csv", [[name, f'"{text}"', "", ""] for name, (_, text) in names.items()])
    brought = await bring(file)
    assert list(brought.checked.faults) == []
    for name, (kind, text) in names.items():
        found = "SELECT password_hash FROM users WHERE username = $1"
        assert await own_sql.fetchval(found, name) == text, kind
        assert await sign_in(at_own, name, PASSWORD + "x") == 401, kind
        assert await sign_in(at_own, name, PASSWORD.upper()) == 401, kind
        assert await own_sql.fetchval(found, name) == text, kind
        assert await sign_in(at_own, name, PASSWORD) == 200, kind
        ours = await own_sql.fetchval(found, name)
        assert ours.startswith("$argon2id$v=19$m=19456,t=2,p=1$"), kind
        assert await sign_in(at_own, name, PASSWORD) == 200, kind
        assert await own_sql.fetchval(found, name) == ours, kind
        rehashed = await own_sql.fetchval(
            "SELECT count(*) FROM audit_events JOIN users ON users.id = subject_id"
            " WHERE username = $1 AND action = 'password.rehashed'",
            name,
        )
        assert rehashed == 1, kind


REFUSED = {
    "plaintext": ("hunter2", "hash_unknown"),
    "yescrypt": ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", "hash_unknown"),
    "hex MD5": ("5f4dcc3b5aa765d61d8327deb882cf99", "hash_unsafe"),
    "hex SHA-1": ("5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8", "hash_unsafe"),
    "hex SHA-256": (hashlib.sha256(b"x").hexdigest(), "hash_unsafe"),
    "hex SHA-512": (hashlib.sha512(b"x").hexdigest(), "hash_unsafe"),
    "NT hash": (by("nthash"), "hash_unsafe"),
    "LM hash": (by("lmhash", "x"), "hash_unsafe"),
    "bsd_nthash": (by("bsd_nthash"), "hash_unsafe"),
    "mysql323": (by("mysql323"), "hash_unsafe"),
    "mysql41": (by("mysql41"), "hash_unsafe"),
    "mssql2000": (by("mssql2000"), "hash_unsafe"),
    "postgres_md5": ("md5" + "a" * 32, "hash_unsafe"),
    "des_crypt": (by("des_crypt", "x"), "hash_unsafe"),
    "Django crypt": (by("django_des_crypt", "x"), "hash_unsafe"),
    "{CRYPT} DES": (by("ldap_des_crypt", "x"), "hash_unsafe"),
    "{MD5}": (by("ldap_md5"), "hash_unsafe"),
    "{SHA}": (by("ldap_sha1"), "hash_unsafe"),
    "{noop}": ("{noop}hunter2", "hash_unsafe"),
    "{plaintext}": ("{plaintext}hunter2", "hash_unsafe"),
    "Django md5 without salt": ("md5$$" + "a" * 32, "hash_unsafe"),
    "bcrypt 2x": ("$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "hash_unsafe"),
    "Django's mark": (by("django_disabled"), "hash_disabled"),
    "Unix's mark": ("*", "hash_disabled"),
    "Werkzeug without rounds": ("pbkdf2:sha256$salt$abcd", "hash_ambiguous"),
    "half of bcrypt": ("$2b$12$R9h/cIPz0gi.URNNX3kh2O", "hash_malformed"),
    "bcrypt of other characters": ("$2b$12$" + "!" * 53, "hash_malformed"),
    "argon2 without digest": ("$argon2id$v=19$m=65536,t=3,p=4$zJlzLgUgpLTW2ntvTen9fw", "hash_malformed"),
    "argon2 of four bytes": ("$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$YWJjZA", "hash_malformed"),
    "argon2 of another version": ("$argon2id$v=99$m=1024,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_malformed"),
    "argon2x": ("$argon2x$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_malformed"),
    "pbkdf2 of nothing": ("$pbkdf2-sha256$1000$$", "hash_malformed"),
    "scrypt, N no power of two": ("scrypt:1000:8:1$salt$" + "ab" * 64, "hash_malformed"),
    "2,000 characters": ("$2b$12$" + "a" * 2000, "hash_malformed"),
    "a space": ("$2b$12$" + "a" * 52 + " ", "hash_malformed"),
    "argon2 of fewer than 8 blocks a lane": (
        "$argon2id$v=19$m=8,t=1,p=16$c2FsdHNhbHQ$" + "A" * 43,
        "hash_malformed",
    ),
    "scrypt of too small blocks": ("$scrypt$ln=16,r=1,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_malformed"),
    "SCRAM with a digest of no name": ("$scram$4096$c2FsdHNhbHQ$U2VjcmV0=c2FsdHNhbHQ", "hash_malformed"),
    "SCRAM without digest": ("$scram$4096$c2FsdHNhbHQ$U2VjcmV0RGlnZXN0", "hash_malformed"),
    "argon2 of 4 GiB": ("$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ$" + "A" * 43, "hash_too_costly"),
    "argon2 of 4 billion passes": ("$argon2id$v=19$m=8,t=4294967295,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_too_costly"),
    "argon2 of 16 million lanes": (
        "$argon2id$v=19$m=134217720,t=1,p=16777215$c2FsdHNhbHQ$" + "A" * 43,
        "hash_too_costly",
    ),
    "argon2 of little memory and a million threads": (
        "$argon2id$v=19$m=128,t=16384,p=16$c2FsdHNhbHQ$" + "A" * 43,
        "hash_too_costly",
    ),
    "bcrypt 16": ("$2b$16$" + "." * 53, "hash_too_costly"),
    "bcrypt_sha256 31": ("$bcrypt-sha256$v=2,t=2b,r=31$" + "." * 22 + "$" + "." * 31, "hash_too_costly"),
    "Django pbkdf2": ("pbkdf2_sha256$4000000000$salt$" + "A" * 43 + "=", "hash_too_costly"),
    "Werkzeug pbkdf2": ("pbkdf2:sha512:999999999$salt$" + "ab" * 64, "hash_too_costly"),
    "scrypt ln=31": ("$scrypt$ln=31,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_too_costly"),
    "scrypt r=65536": ("$scrypt$ln=10,r=65536,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_too_costly"),
    "scrypt of few steps and large blocks": ("$scrypt$ln=1,r=524288,p=1$c2FsdHNhbHQ$" + "A" * 43, "hash_too_costly"),
    "scrypt p=65536": ("$scrypt$ln=10,r=8,p=65536$c2FsdHNhbHQ$" + "A" * 43, "hash_too_costly"),
    "Werkzeug scrypt": ("scrypt:1048576:8:1$salt$" + "ab" * 64, "hash_too_costly"),
    "sha256_crypt": ("$5$rounds=700001$saltsalt$" + "a" * 42 + "1", "hash_too_costly"),
    "sha512_crypt": ("$6$rounds=99999999$saltsalt$" + "a" * 85 + "1", "hash_too_costly"),
    "sun_md5_crypt": ("$md5,rounds=4000000000$saltsalt$$" + "." * 22, "hash_too_costly"),
    "phpass of 2^21": ("$P$J" + "saltsalt" + "." * 22, "hash_too_costly"),
    "phpass of 2^30": ("$P$S" + "saltsalt" + "." * 22, "hash_too_costly"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_must_not_be_stored_is_refused(text: str, reason: str) -> None:
    """No salt, not of the whole password, no name of its own, broken, or so costly that verifying is an attack."""
    with pytest.raises(HashRefused) as refused:
        read_hash(text)
    assert refused.value.reason == Reason(reason)
    assert text not in str(refused.value)


@pytest.fixture(scope="module")
def hasher() -> Iterator[PasswordHasher]:
    made = PasswordHasher()
    yield made
    made.close()


@pytest.mark.parametrize("text", [each[0] for each in REFUSED.values()], ids=REFUSED.keys())
async def test_what_lies_in_the_table_nevertheless_is_nobodys_password(text: str, hasher: PasswordHasher) -> None:
    """Put there by hand, it is wrong: never an error, never right."""
    assert not await hasher.verify(PASSWORD, text)
    assert not await hasher.verify(text, text)
    assert hasher.is_outdated(text)


LACKING = """
import resource, sys
from app.domain.errors import TooBusy
from app.security.password_hashes import PasswordHashes
hashes = PasswordHashes(memory_kib=19_456, passes=2, lanes=1)
ours = hashes.hash("a password of ours")
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, used + 2**20))
for work in (lambda: hashes.verify("x", sys.argv[1]), lambda: hashes.verify("x", ours), lambda: hashes.hash("x"),
             lambda: hashes.verify("x", "no hash")):
    try:
        print(work())
    except TooBusy:
        print("busy")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="by the size of the address space")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("$argon2id$v=19$m=65536,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43, id="argon2"),
        pytest.param("$scrypt$ln=15,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43, id="scrypt"),
    ],
)
def test_without_memory_nothing_is_said_of_the_password(text: str) -> None:
    """503, as in any other storm: not wrong, which would count against its owner, and not broken."""
    done = subprocess.run([sys.executable, "-c", LACKING, text], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["busy"] * 4


@pytest.mark.parametrize("kind", ["sha512_crypt", "md5_crypt", "bcrypt"])
async def test_a_guess_at_a_quick_kind_takes_a_hash_of_ours_besides(
    kind: str, monkeypatch: pytest.MonkeyPatch, hasher: PasswordHasher
) -> None:
    """
    Or its owner would be told apart from a user whom nobody knows; and by a right one, the password of somebody who is
    disabled would be known.
    """
    asked: list[None] = []
    context: Any = hasher._context
    monkeypatch.setattr(context._ours, "dummy_verify", lambda: asked.append(None))
    monkeypatch.setattr(context, "_seconds", 60.0)
    for password, right in ((PASSWORD, True), ("another password", False), ("0123456789" * 9, False)):
        assert await hasher.verify(password, by(kind)) is right
        assert len(asked) == 1, password
        asked.clear()


@pytest.mark.case(38)
async def test_a_long_password_and_a_hash_of_bcrypt(at_own: httpx2.AsyncClient, tmp_path: Path, bring: Bring) -> None:
    """bcrypt looks at 72 bytes: a longer one is wrong, right as its beginning may be, and never an error."""
    long = "0123456789" * 10
    rows = [["short", by("bcrypt", rounds=4), "", ""], ["cut", by("bcrypt", long[:72], rounds=4), "", ""]]
    rows.append(["whole", by("bcrypt_sha256", long, rounds=4), "", ""])
    await bring(csv_of(tmp_path / "users.csv", [[name, f'"{text}"', *rest] for name, text, *rest in rows]))
    for name, password, status in (
        ("short", long, 401),
        ("cut", long, 401),
        ("cut", long[:73], 401),
        ("cut", "ä" * 37, 401),
        ("cut", long[:72], 200),
        ("whole", long[:99], 401),
        ("whole", long, 200),
        ("short", PASSWORD, 200),
    ):
        assert await sign_in(at_own, name, password) == status, (name, len(password))


@pytest.mark.parametrize("kind", ["bcrypt 2b", "Django bcrypt", "sha512_crypt", "md5_crypt", "bsdi_crypt", "phpass"])
async def test_a_nul_in_a_password_is_wrong(kind: str, hasher: PasswordHasher) -> None:
    """Kinds that end at a NUL refuse it: neither an error, nor the same as the part before."""
    assert not await hasher.verify(PASSWORD + "\0more", FORMATS[kind])
    assert not await hasher.verify("\0", FORMATS[kind])
    assert not await hasher.verify("", FORMATS[kind])


@pytest.mark.case(39)
def test_bcrypt_works_with_the_passlib_that_is_installed() -> None:
    """A password of ten bytes: with passlib 1.7.4 and bcrypt 5 every hash fails."""
    stored = by("bcrypt", "0123456789", rounds=4)
    assert get_crypt_handler("bcrypt").verify("0123456789", stored)
    assert not get_crypt_handler("bcrypt").verify("0123456780", stored)


def test_padding_bits_of_bcrypt_mean_nothing() -> None:
    """Libraries that leave them at random made good hashes."""
    stored = by("bcrypt", rounds=4)
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    odd = stored[:28] + alphabet[alphabet.index(stored[28]) + 1] + stored[29:]
    known = read_hash(odd)
    assert known.text == stored
    assert known.handler.verify(PASSWORD, known.text)


def test_every_kind_that_passlib_knows_is_accounted_for() -> None:
    """Taken, or refused on purpose: a kind that a later release brings fails here until somebody has decided."""
    taken = {read_hash(text).scheme for text in FORMATS.values()}
    wrapped = {name for name in list_crypt_handlers() if name.startswith(("ldap_", "django_"))}
    unsafe = {
        "bigcrypt", "bsd_nthash", "cisco_asa", "cisco_pix", "cisco_type7", "crypt16", "des_crypt", "hex_md4", "hex_md5",
        "hex_sha1", "hex_sha256", "hex_sha512", "htdigest", "lmhash", "msdcc", "msdcc2", "mssql2000", "mysql323",
        "mysql41", "nthash", "oracle10", "plaintext", "postgres_md5", "roundup_plaintext", "unix_disabled",
    }  # fmt: skip
    assert set(list_crypt_handlers()) - taken - wrapped - unsafe == set()


@given(st.text(max_size=300) | st.from_regex(re.compile(r"\$(2b|argon2id|6|scrypt|P|7)\$[!-~]{0,120}"), fullmatch=True))
def test_no_text_is_an_error(text: str) -> None:
    """Whatever is asked: a kind, or a reason."""
    with contextlib.suppress(HashRefused):
        assert read_hash(text).handler.identify(read_hash(text).text)


def long_way(name: str) -> str | None:
    """By the library, whatever the name; `None`: refused."""
    try:
        key: str = get_profile("UsernameCaseMapped").enforce(name)
    except UnicodeError:
        return None
    return key


def key_of(name: str) -> str | None:
    try:
        return username_key(name)
    except UsernameRefused:
        return None


@given(st.text(alphabet=st.characters(max_codepoint=0x7F), min_size=1, max_size=40))
def test_names_of_ascii_take_the_short_way(name: str) -> None:
    """It is the same as the long one, for each name of ASCII."""
    assert key_of(name) == long_way(name)


def test_each_character_of_ascii_takes_the_short_way() -> None:
    """Alone, at the beginning, at the end and within."""
    for code in range(128):
        for name in (chr(code), f"{chr(code)}a", f"a{chr(code)}", f"A{chr(code)}B"):
            assert key_of(name) == long_way(name), ascii(name)
