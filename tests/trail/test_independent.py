"""What the product exports holds for a verifier that shares no code with it, and what was changed does not."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.trail.conftest import ORIGIN, Log
from tests.trail.independent import verify_bundle, verify_proof


def vkeys(log: Log) -> list[str]:
    return [str(log.signer.key(ORIGIN))]


async def some_history(log: Log) -> Path:
    """A few hundred events under several checkpoints, two tiles full and one begun."""
    for name, refreshes in (("ada", 90), ("ben", 120), ("cleo", 200), ("dora", 150)):
        await log.live(name, refreshes, end=name != "ben")
        await log.publish()
    return await log.export()


def in_file(pattern: str, new: bytes) -> Callable[[str], Callable[[Path], None]]:
    """Replace the first match of a pattern in a file."""

    def of(name: str) -> Callable[[Path], None]:
        def change(bundle: Path) -> None:
            raw = (bundle / name).read_bytes()
            changed, times = re.subn(pattern.encode(), new, raw, count=1, flags=re.DOTALL)
            assert times == 1
            assert changed != raw
            (bundle / name).write_bytes(changed)

        return change

    return of


def without(name: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).unlink()


def swapped(bundle: Path) -> None:
    """Two entries change places."""
    file = bundle / "tile/entries/001"
    raw = file.read_bytes()
    one = 2 + int.from_bytes(raw[:2])
    two = one + 2 + int.from_bytes(raw[one : one + 2])
    file.write_bytes(raw[one:two] + raw[:one] + raw[two:])


def left_out(bundle: Path) -> None:
    """The last whole entry of a tile is gone."""
    file = bundle / "tile/entries/000"
    raw, at, last = file.read_bytes(), 0, 0
    while at < len(raw):
        last, at = at, at + 2 + int.from_bytes(raw[at : at + 2])
    file.write_bytes(raw[:last])


def reversed_heads(bundle: Path) -> None:
    """Genuine checkpoints in another order."""
    notes = (bundle / "checkpoints").read_text().removesuffix("\n").split("\n\n")
    pairs = [f"{text}\n\n{signature}" for text, signature in zip(notes[::2], notes[1::2], strict=True)]
    (bundle / "checkpoints").write_text("\n\n".join(reversed(pairs)) + "\n")


TAMPERING: dict[str, Callable[[Path], None]] = {
    "an entry is changed": in_file(r'"outcome":"success"', b'"outcome":"failure"')("tile/entries/000"),
    "an entry is spelled otherwise": in_file(r'"family_seq":1,', b'"family_seq":01')("tile/entries/000"),
    "two entries are swapped": swapped,
    "an entry is missing": left_out,
    "a tile of entries is missing": without("tile/entries/001"),
    "a hash is changed": in_file(r"^.{32}", b"\0" * 32)("tile/0/000"),
    "a hash above is changed": in_file(r"^.{32}", b"\0" * 32)("tile/1/000.p/2"),
    "a tile is cut": in_file(r".{32}$", b"")("tile/0/001"),
    "a root is changed": in_file(r"(\n\d+\n)....", rb"\1AAAA")("checkpoints"),
    "a signature is changed": in_file(r"=?=?\n\n", b"\n\n\n")("checkpoints"),
    "the newest checkpoint is another": in_file(r"\n\d", b"\n9")("checkpoint"),
    "checkpoints change places": reversed_heads,
    "an address is changed": in_file(r"203\.0\.113\.7", b"203.0.113.8")("personal/000"),
    "a salt is changed": in_file(r" [A-Za-z0-9_-]{4}", b" AAAA")("personal/000"),
    "personal data is missing": in_file(r"^[^\n]*\n", b"")("personal/001"),
    "personal data stands twice": in_file(r"^([^\n]*\n)", rb"\1\1")("personal/001"),
    "the range is another": in_file(r'"last":\d', b'"last":1')("manifest.json"),
}


async def test_a_bundle_holds_and_nothing_in_it_can_be_changed(log: Log, tmp_path: Path) -> None:
    """Signatures, every root from the entries themselves, tiles under tiles, commitments; then one change at a time."""
    bundle = await some_history(log)
    report = log.verify(bundle)
    assert report.exit_code == 0
    assert report.entries > 512
    assert report.checkpoints == 4
    assert verify_bundle(bundle, vkeys(log)) == []
    for name, change in TAMPERING.items():
        changed = tmp_path / "changed"
        shutil.copytree(bundle, changed)
        change(changed)
        assert verify_bundle(changed, vkeys(log)) != [], name
        shutil.rmtree(changed)


async def test_proofs_hold(log: Log, own_sql: asyncpg.Connection) -> None:
    """An event's proof holds; not for another entry, place or path, nor under another key."""
    await some_history(log)
    events = [row[0] for row in await own_sql.fetch("SELECT id FROM audit_events ORDER BY epoch, xact_id, seq")]
    for number in (0, 1, 255, 256, 300, 511, 512):
        text = (await log.services.proofs.prove(events[number])).text()
        assert f"\nindex {number}\n" in text
        assert verify_proof(text, vkeys(log)) == []
        changes = [
            text.replace("extra eyJ", "extra eyK"),
            text.replace(f"index {number}\n", f"index {number + 1}\n"),
            re.sub(r"(index \d+\n)[^\n]*\n", r"\1", text),
            re.sub(r"(index \d+\n)([^\n]*\n)", r"\1\2\2", text),
            text.replace("tlog-proof@v1", "tlog-proof@v2"),
        ]
        for change in changes:
            assert change != text
            assert verify_proof(change, vkeys(log)) != []
    assert verify_proof(text, [str(log.signer.key("example.com/other"))]) != []


async def test_a_part_and_a_bundle_without_personal_data_hold(log: Log, own_sql: asyncpg.Connection) -> None:
    """A stretch that does not begin at entry 0 holds under the newest head alone, and so does one that ends early."""
    await some_history(log)
    whole = await log.export(personal=False)
    assert verify_bundle(whole, vkeys(log)) == []
    assert not (whole / "personal").exists()
    first = await own_sql.fetchval("SELECT min(last_at) FROM audit_batches")
    last = await own_sql.fetchval("SELECT max(last_at) FROM audit_batches")
    part = await log.export(since=last)
    assert '"first":256' in (part / "manifest.json").read_text()
    assert verify_bundle(part, vkeys(log)) == []
    beginning = await log.export(until=first)
    assert '"last":256' in (beginning / "manifest.json").read_text()
    assert verify_bundle(beginning, vkeys(log)) == []


@pytest.mark.parametrize("key", ["example.com/rota+00000000+AQ==", "example.com/other+00000000+AQ=="])
async def test_a_key_that_is_none_verifies_nothing(log: Log, key: str) -> None:
    await log.live("ada", 3)
    await log.publish()
    assert verify_bundle(await log.export(), [key]) != []
