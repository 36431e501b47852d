"""What a forger of bundles, an auditor and the holders of the database's logins have tried."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.domain.canonical_json import encode
from app.domain.checkpoints import Checkpoint
from app.domain.errors import InputInvalid
from app.domain.event_filters import EventFilter, read_network
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.findings import Class
from app.domain.merkle import Tree, leaf_hash
from app.security.notes import NoteSigner, SignatureInvalid, new_key, open_note
from app.services.publishing import HistoryRefused
from tests.trail.conftest import ORIGIN, Log


def rewrite_manifest(bundle: Path, **changes: Any) -> None:
    """As a forger can: the digest has no key."""
    members = json.loads((bundle / "manifest.json").read_text())
    members.pop("digest")
    members |= changes
    digest = sha256(encode(members).encode()).hexdigest()
    (bundle / "manifest.json").write_text(encode({**members, "digest": digest}) + "\n")


async def large(log: Log) -> Path:
    await log.live("ada", 600)
    await log.publish()
    await log.live("ben", 40)
    await log.publish()
    return await log.export()


def forge_entries(bundle: Path) -> None:
    path = bundle / "tile" / "entries" / "001"
    path.write_bytes(path.read_bytes().replace(b'"action":"session.refreshed"', b'"action":"session.labelled."'))


def under_an_empty_tile(bundle: Path) -> None:
    forge_entries(bundle)
    (bundle / "tile/0/001").write_bytes(b"")


def under_a_longer_tile(bundle: Path) -> None:
    forge_entries(bundle)
    (bundle / "tile/0/001").write_bytes((bundle / "tile/0/001").read_bytes() + b"x")


def a_file_that_does_not_belong(bundle: Path) -> None:
    (bundle / "personal/999").write_bytes(b"1.2.3.4")


def without_its_beginning(bundle: Path) -> None:
    rewrite_manifest(bundle, minimum_index=256, first=256)
    for name in ("tile/entries/000", "personal/000", "tile/0/000"):
        (bundle / name).unlink()


def a_record_twice(bundle: Path) -> None:
    path = bundle / "personal/000"
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + path.read_bytes())


def a_link_for_a_file(bundle: Path) -> None:
    (bundle / "checkpoint").rename(bundle.parent / "outside")
    (bundle / "checkpoint").symlink_to(bundle.parent / "outside")


def a_pipe_for_a_file(bundle: Path) -> None:
    (bundle / "personal/000").unlink()
    os.mkfifo(bundle / "personal/000")


TRICKS: dict[str, Callable[[Path], None]] = {
    "forged entries under an empty tile": under_an_empty_tile,
    "forged entries under a longer tile": under_a_longer_tile,
    "a file that does not belong": a_file_that_does_not_belong,
    "personal data beside a manifest without": lambda bundle: rewrite_manifest(bundle, personal=None),
    "a number that is a truth": lambda bundle: rewrite_manifest(bundle, minimum_index=True),
    "a beginning that is nowhere": lambda bundle: rewrite_manifest(bundle, minimum_index=10**9),
    "nothing at all": lambda bundle: rewrite_manifest(bundle, first=0, last=0),
    "a time of another type": lambda bundle: rewrite_manifest(bundle, exported_at=7),
    "a beginning that no event explains": without_its_beginning,
    "a record twice": a_record_twice,
    "a link for a file": a_link_for_a_file,
    "a pipe for a file": a_pipe_for_a_file,
}


@pytest.mark.case(78)
@pytest.mark.parametrize("name", TRICKS)
async def test_tricks_with_files(log: Log, name: str) -> None:
    """Each is found; none hangs, none ends in a traceback."""
    bundle = await large(log)
    assert log.verify(bundle).exit_code == 0
    TRICKS[name](bundle)
    assert log.verify(bundle).exit_code >= 10


async def test_a_shorter_bundle_says_so(log: Log) -> None:
    """One that ends before the newest entry of a copy: how far the log had grown is told."""
    bundle = await large(log)
    newer = log.signer.sign(ORIGIN, Checkpoint(ORIGIN, 10_000, bytes(32)).text())
    report = log.verify(bundle, copies=[("kept", newer)])
    assert (report.exit_code, report.newer) == (0, 10_000)


def test_a_key_signs_for_its_own_log_only() -> None:
    """With both keys trusted, one log's key gives no word about the other."""
    one, two = NoteSigner(new_key()), NoteSigner(new_key())
    note = two.sign("b.example/log", Checkpoint("a.example/log", 1, bytes(32)).text())
    with pytest.raises(SignatureInvalid, match="another log"):
        open_note(note, [one.key("a.example/log"), two.key("b.example/log")])


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        pytest.param({}, True, id="genuine"),
        pytest.param({"opened_at": 7}, False, id="a number for a time"),
        pytest.param({"previous_checkpoint": "none"}, False, id="no note"),
        pytest.param({"reason": None}, False, id="no reason"),
        pytest.param(None, False, id="no opening"),
    ],
)
async def test_an_incarnation_is_opened_or_not_believed(
    log: Log,
    own_sql: asyncpg.Connection,
    changes: dict[str, Any] | None,
    ok: bool,  # noqa: FBT001
) -> None:
    """An /epoch-2 that somebody wrote with the key: its first entry must continue the former log's last checkpoint."""
    await log.live("ada", 5)
    await log.publish()
    note = await own_sql.fetchval("SELECT note FROM audit_checkpoints")
    genuine = {
        "k": "rota.epoch/1",
        "opened_at": "2026-11-23T10:00:00.000000Z",
        "previous_checkpoint": note,
        "reason": "restored",
        "removed": False,
    }
    origin = f"{ORIGIN}/epoch-2"
    entry = None if changes is None else encode({**genuine, **changes})
    tree = Tree()
    if entry:
        tree.append(leaf_hash(entry.encode()))
    await own_sql.execute(
        "INSERT INTO audit_logs VALUES (2, $1, $2, $3, $4, $5, 0, '0', 0, 0)",
        *(origin, entry, tree.size, tree.root(), tree.stored_edge()),
    )
    await own_sql.execute("ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT 2")
    await log.seal_all()
    if entry is None:
        with pytest.raises(HistoryRefused, match="without an opening"):
            await log.publishing.publish()
        return
    await log.publishing.publish()
    report = log.verify(await log.export(), origin=origin, also=[ORIGIN])
    assert (report.exit_code == 0) is ok, report.findings


async def test_what_was_published_after_the_named_checkpoint_is_seen(log: Log) -> None:
    """An incarnation that continues an older checkpoint than one that the auditor has kept."""
    await log.live("ada", 5)
    await log.publish()
    kept = [("kept", log.signer.sign(ORIGIN, Checkpoint(ORIGIN, 900, bytes(32)).text()))]
    await log.publishing.open_epoch("ticket", maintenance=log.services.maintenance)
    await log.seal_all()
    await log.publishing.publish()
    bundle = await log.export()
    assert log.verify(bundle, origin=f"{ORIGIN}/epoch-2", also=[ORIGIN]).exit_code == 0
    report = log.verify(bundle, origin=f"{ORIGIN}/epoch-2", also=[ORIGIN], copies=kept)
    assert report.exit_code == Class.INCONSISTENT


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1%eth0",
        "::%a'::\"char\"::int+inet'::'OR pg_sleep(1)IS NULL--",
        "fe80::1%x'::\"char\"::int + '::1'::inet OR true OR ip='::1",
        "1.2.3.4' OR true --",
    ],
)
def test_an_address_is_an_address(text: str) -> None:
    """No scope, in which any text may stand."""
    with pytest.raises(InputInvalid):
        read_network(text)


@pytest.mark.parametrize("network", ["::/0", "0.0.0.0/0", "203.0.113.0/24", "2001:db8::/32", "203.0.113.7"])
async def test_networks_are_bound_as_values(log: Log, network: str) -> None:
    """Whatever the network, the statement is the same; both ends of each are asked."""
    await log.live("ada", 3)
    found = await log.services.trail.search(
        EventFilter(network=read_network(network)),
        newest_first=True,
        cursor=None,
        limit=2,
        with_count=True,
        actor=SYSTEM,
        client=NO_CLIENT,
    )
    assert found.count == (5 if "." in network else 0)
    if found.next:
        more = await log.services.trail.search(
            EventFilter(network=read_network(network)),
            newest_first=True,
            cursor=found.next,
            limit=500,
            with_count=False,
            actor=SYSTEM,
            client=NO_CLIENT,
        )
        assert len(more.events) == 3


async def test_the_servers_role_cannot_place_events_or_found_logs(log: Log, own_sql: asyncpg.Connection) -> None:
    """Transaction, sequence, epoch and incarnations are not its to give."""
    server = await asyncpg.connect(log.own.app)
    try:
        columns = "id, occurred_at, action, version, outcome, actor_kind, subject_id"
        values = "gen_random_uuid(), now(), 'audit.heartbeat', 1, 'success', 'system', gen_random_uuid()"
        for statement in (
            f"INSERT INTO audit_events ({columns}, xact_id) VALUES ({values}, '999999')",
            f"INSERT INTO audit_events ({columns}, epoch) VALUES ({values}, 9)",
            "INSERT INTO audit_logs VALUES (1, 'x', NULL, 0, sha256(''), '{}', 0, '0', 0, 0)",
            "SELECT audit_open_epoch(2::smallint, 'x', 'x', sha256('x'))",
            "UPDATE audit_logs SET minimum_index = 5",
            "UPDATE audit_logs SET origin = 'x'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await server.execute(statement)
    finally:
        await server.close()


async def test_the_maintenance_role_cannot_become_the_owner(log: Log, own_sql: asyncpg.Connection) -> None:
    """Functions with the owner's rights look nowhere but in our own schema."""
    await log.live("ada", 2)
    await log.seal_all()
    keeper = await asyncpg.connect(log.own.maintenance)
    try:
        await keeper.execute("CREATE TEMP TABLE audit_logs (LIKE public.audit_logs)")
        await keeper.execute(
            "CREATE FUNCTION pg_temp.grab() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN ALTER TABLE public.audit_events DISABLE TRIGGER USER; RETURN NEW; END $$"
        )
        await keeper.execute(
            "CREATE TRIGGER grab BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION pg_temp.grab()"
        )
        await keeper.execute("SELECT public.audit_open_epoch(2::smallint, 'x', 'x', sha256('x'))")
    finally:
        await keeper.close()
    assert await own_sql.fetchval("SELECT count(*) FROM public.audit_logs") == 2
    assert [reason for reason, _ in await log.services.guard.check_all()] == []
    functions = await own_sql.fetch("SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND proname LIKE 'audit%'")
    assert len(functions) == 4
    assert all(row["proconfig"][0].endswith(", pg_temp") for row in functions)


async def test_an_emptied_folder_does_not_hide_what_was_published(log: Log) -> None:
    """A crash, or somebody, leaves an empty folder after the newest file: the newest is still the newest."""
    await log.live("ada", 5)
    await log.publish()
    (log.sink / ORIGIN.replace("/", "%2F") / "000" / "000" / "000" / "001").mkdir()
    assert log.publishing._sink.find_newest(ORIGIN) is not None
    await log.live("ben", 5)
    await log.publish()
    shutil.rmtree(log.sink / ORIGIN.replace("/", "%2F") / "000" / "000" / "000" / "001")
    assert log.verify(await log.export()).exit_code == 0


async def test_a_copy_in_a_younger_cluster_is_noticed(log: Log, own_sql: asyncpg.Connection) -> None:
    """Transaction ids that began anew would sort before all that was sealed: refused, until the operator has acted."""
    await log.live("ada", 5)
    await log.seal_all()
    await own_sql.execute("UPDATE audit_logs SET cursor_xact = '99999999'")
    with pytest.raises(Exception, match="another cluster"):
        await log.services.sealing.seal()
