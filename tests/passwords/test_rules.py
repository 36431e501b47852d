"""Which passwords may be set, and under which reason the others are refused."""

import hashlib
import secrets
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import PasswordRefused, Unavailable
from app.domain.passwords import (
    MAXIMUM_BYTES,
    MAXIMUM_CHARACTERS,
    Blocklist,
    PasswordReason,
    check_new_password,
    is_presentable,
)
from app.security.password_policy import BreachedFile, PasswordPolicy
from tests.conftest import PASSWORD

ASTRONAUT = "\U0001f469\u200d\U0001f680"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ADDRESS = "Ada.Lovelace@Engines.example.com"
SERVICE = ("rota", "id.brambleworks.example", "brambleworks.example", "brambleworks")

ACCEPTED = {
    "words": PASSWORD,
    "fifteen letters": "fifteen letters",
    "a frequent word and a rare one": "another zeppelin",
    "64 characters": "k" + secrets.token_hex(31) + "z",
    "64 of spaces and emoji": "\U0001f40e \U0001f50b " * 16,
    "one emoji and spaces": "\U0001f642 " * 32,
    "emoji with joiners": ASTRONAUT * 5,
    "15 emoji with joiners": FAMILY * 15,
    "1,024 bytes": "o" + "x" * 1023,
    "1,024 bytes in 512 letters": "\u00e8" + "\u00e9" * 511,
    "1,024 bytes in decomposed letters": "\u01d7" + "\u01d5" * 511,
    "lower case only": "nothing but lower case letters",
    "digits only": "80417295033618",
    "controls": "tab\tand\x1bescape are bytes",
    "Greek": "\u03bc\u03ae\u03bd\u03b9\u03bd \u03ac\u03b5\u03b9\u03b4\u03b5 \u03b8\u03b5\u03ac",
    "private use": "\ue000\ue001" + " private signs",
}

REFUSED = [
    ("", PasswordReason.TOO_SHORT),
    ("fourteen lette", PasswordReason.TOO_SHORT),
    ("e\u0301xa\u0308o" * 3, PasswordReason.TOO_SHORT),  # 18 as typed, 12 after NFC
    ("x" * 1025, PasswordReason.TOO_LONG),
    ("\u20ac" * 342, PasswordReason.TOO_LONG),
    ("x" * 70_000, PasswordReason.TOO_LONG),
    ("a nul\0in the middle", PasswordReason.NUL),
    ("\ud83d a lone surrogate", PasswordReason.SURROGATE),
    ("unassigned \U000e0080 in it", PasswordReason.UNASSIGNED),
    ("not a character \uffff", PasswordReason.UNASSIGNED),
    ("1qaz2wsx3edc4rfv", PasswordReason.COMMON),
    ("1q2w3e4r5t6y7u8i", PasswordReason.SEQUENCE),
    ("\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44" * 2, PasswordReason.COMMON),
    ("momsanaladventure", PasswordReason.COMMON),
    ("passwordpassword", PasswordReason.COMMON),
    ("passwordpassword1", PasswordReason.COMMON),
    ("PasswordPassword", PasswordReason.COMMON),
    ("P@ssw0rdP@ssw0rd", PasswordReason.COMMON),
    ("password password", PasswordReason.COMMON),
    ("password1234567", PasswordReason.COMMON),
    ("Summer2026Summer", PasswordReason.COMMON),
    ("iloveyouiloveyou", PasswordReason.COMMON),
    ("letmein-letmein-2", PasswordReason.COMMON),
    ("qwertyuiop12345", PasswordReason.COMMON),
    ("michaelmichael12", PasswordReason.COMMON),
    ("administratively", PasswordReason.COMMON),  # a word of English
    ("administrator123", PasswordReason.COMMON),
    ("thisisapassword", PasswordReason.COMMON),
    ("another password", PasswordReason.COMMON),
    ("aaaaaaaaaaaaaaa", PasswordReason.REPETITIVE),
    ("               ", PasswordReason.REPETITIVE),
    ("\u00e9" * 20, PasswordReason.REPETITIVE),
    ("xyxyxyxyxyxyxyxy", PasswordReason.REPETITIVE),
    ("123456789012345", PasswordReason.SEQUENCE),
    ("987654321098765", PasswordReason.SEQUENCE),
    ("abcdefghijklmno", PasswordReason.SEQUENCE),
    ("zyxwvutsrqponml", PasswordReason.SEQUENCE),
    ("qwertyuiopasdfgh", PasswordReason.SEQUENCE),
    ("poiuytrewq098765", PasswordReason.SEQUENCE),
    ("йцукенгшщзхъфыва", PasswordReason.SEQUENCE),
    ("".join(map(chr, range(0x3B1, 0x3C1))), PasswordReason.SEQUENCE),
    (ADDRESS, PasswordReason.USER_NAME),
    (ADDRESS.upper(), PasswordReason.USER_NAME),
    (ADDRESS + "1", PasswordReason.USER_NAME),
    (ADDRESS * 3, PasswordReason.USER_NAME),
    ("ada.lovelace-1815", PasswordReason.EMAIL),
    ("LovelaceLovelace", PasswordReason.EMAIL),
    ("engines.example.com", PasswordReason.EMAIL),
    ("lovelace-engines", PasswordReason.EMAIL),
    ("lovelace.ada1815", PasswordReason.EMAIL),
    ("rotarotarotarota", PasswordReason.PRODUCT_NAME),
    ("brambleworks2026", PasswordReason.PRODUCT_NAME),
    ("Br4mblew0rks!!!", PasswordReason.PRODUCT_NAME),
    ("id.brambleworks.example", PasswordReason.PRODUCT_NAME),
]  # fmt: skip


@pytest.mark.parametrize("password", ACCEPTED.values(), ids=ACCEPTED)
def test_what_may_be_set(password: str, blocklist: Blocklist) -> None:
    """No rules of composition, any script; at least 64 characters and 1,024 bytes (SP 800-63B-4, 3.1.1.2)."""
    minimum = 14 if len(password) == 14 else 15
    taken = check_new_password(password, minimum=minimum, blocklist=blocklist, username=ADDRESS, product_names=SERVICE)
    assert taken == unicodedata.normalize("NFC", password)


@pytest.mark.parametrize(("password", "reason"), REFUSED, ids=[f"{why}: {text[:30]!a}" for text, why in REFUSED])
def test_what_may_not_be_set(password: str, reason: PasswordReason, blocklist: Blocklist) -> None:
    """Each class has a reason of its own, and no message repeats what was typed."""
    with pytest.raises(PasswordRefused) as refused:
        check_new_password(password, blocklist=blocklist, username=ADDRESS, product_names=SERVICE)
    assert refused.value.reason == reason
    assert not password or password not in refused.value.message


def test_every_reason_is_met_by_a_case() -> None:
    """The table is of all reasons but the one that needs a file."""
    assert {reason for _, reason in REFUSED} == set(PasswordReason) - {PasswordReason.BREACHED}


def test_every_reason_is_documented() -> None:
    """In the table of the page, each once."""
    page = (Path(__file__).parents[2] / "docs" / "integration" / "passwords.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| `"))
    assert all(f"`{reason}`" in rows for reason in PasswordReason)


@pytest.mark.parametrize("minimum", [8, 15, 64])
def test_the_minimum_is_of_code_points(minimum: int, blocklist: Blocklist) -> None:
    """One fewer is refused; bytes, and code units of UTF-16, do not count."""
    text = "".join(chr(0x1F400 + n) for n in range(minimum))
    assert check_new_password(text, minimum=minimum, blocklist=blocklist) == text
    with pytest.raises(PasswordRefused) as refused:
        check_new_password(text[1:], minimum=minimum, blocklist=blocklist)
    assert refused.value.reason == PasswordReason.TOO_SHORT
    assert str(minimum) in refused.value.message


@pytest.mark.parametrize("name", ["rota", "ada", "lovelace", "Ada.Lovelace@Engines.example.com"])
def test_a_passphrase_may_have_a_name_in_it(name: str, blocklist: Blocklist) -> None:
    """What counts is what there is besides."""
    text = f"the mill of {name} weaves algebraic patterns without a loom at hand"
    for passphrase in (text[:72], text[:64], f"{name} weaves patterns"):
        assert check_new_password(passphrase, blocklist=blocklist, username=ADDRESS, product_names=SERVICE)


def test_the_shortest_lists_hold_more_than_three_thousand(blocklist: Blocklist) -> None:
    """ASVS 6.2.4 wants the 3,000 most common that fit the rules; none of the list passes at any length."""
    common = sorted((word for word, rank in blocklist.ranks.items() if rank <= 3000 and len(word) >= 8))
    assert len(common) > 1000
    for word in common[::7]:
        with pytest.raises(PasswordRefused):
            check_new_password(word, minimum=8, blocklist=blocklist)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\0"), max_size=2000))
def test_the_limit_of_bytes_is_of_the_normalised_form(text: str) -> None:
    """What would be refused unread for its length has too many bytes in any case."""
    canonical = unicodedata.normalize("NFC", text)
    assert is_presentable(text) == (len(canonical.encode()) <= MAXIMUM_BYTES)


def test_no_letter_shrinks_further_than_is_allowed_for() -> None:
    """Over all of Unicode, decomposing makes at most three code points of two bytes."""
    worst = max(
        len(unicodedata.normalize("NFD", chr(each))) / len(unicodedata.normalize("NFC", chr(each)).encode())
        for each in range(0x110000)
        if not 0xD800 <= each < 0xE000
    )
    assert worst * MAXIMUM_BYTES == MAXIMUM_CHARACTERS


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
@pytest.mark.parametrize("ending", ["\n", "\r\n", ":17\n"])
def test_a_collection_of_stolen_passwords(count: int, ending: str, tmp_path: Path) -> None:
    """All of the file are found, first and last too, and nothing else."""
    stolen = [f"stolen from somebody {n}" for n in range(count)]
    digests = sorted(hashlib.sha1(each.encode(), usedforsecurity=False).hexdigest().upper() for each in stolen)
    file = tmp_path / "breached"
    file.write_text("".join(each + ending for each in digests), newline="")
    breached = BreachedFile(file)
    breached.check()
    assert all(breached.has(each) for each in stolen)
    assert not any(breached.has(f"not stolen from anybody {n}") for n in range(200))


async def test_a_stolen_password_is_refused(tmp_path: Path) -> None:
    """In its canonical form, whichever was typed."""
    file = tmp_path / "breached"
    digest = hashlib.sha1("a caf\u00e9 by the canal".encode(), usedforsecurity=False).hexdigest()
    file.write_text(digest)
    policy = PasswordPolicy(breached=BreachedFile(file))
    with pytest.raises(PasswordRefused) as refused:
        await policy.check("a cafe\u0301 by the canal", username="ada")
    assert refused.value.reason == PasswordReason.BREACHED
    assert await policy.check("a caf\u00e9 by the river", username="ada")


async def test_a_collection_that_has_gone_lets_nothing_pass(tmp_path: Path) -> None:
    """Trouble that passes, and no password is set unseen."""
    policy = PasswordPolicy(breached=BreachedFile(tmp_path / "gone"))
    with pytest.raises(Unavailable):
        await policy.check("a wholly different phrase", username="ada")
