"""The disk under the database is full: nobody gets in unrecorded, nothing is lost, and with room all is well again."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.cli.embedded import embedded_postgresql
from app.cli.schema import upgrade_schema
from app.container import Container
from app.domain.clock import Clock
from app.domain.errors import Unavailable
from app.repositories.engine import APP, MAINTENANCE
from app.repositories.logins import make_login
from app.security.notes import NoteSigner, new_key
from tests.conftest import MakePerson, MakeServices, OwnDatabase
from tests.trail.conftest import ORIGIN, Log
from tests.trail.test_sealing import sealed_in_order, verified

MEGABYTES = 320


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("file systems cannot be mounted here")
    words = [mount, "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run([umount, "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the room there is."""
    ballast = place / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(65_536)) == 65_536:
            pass
    room = os.statvfs(place)
    assert room.f_bavail * room.f_bsize < 65_536
    return ballast


@pytest.mark.case(94)
@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_a_full_disk_under_the_database(
    small_disk: Path, tmp_path: Path, make_services: MakeServices, make_person: MakePerson
) -> None:
    """
    While it is full: no new session without its event, each refused request can be tried again, no half of a change.
    Afterwards, with nothing mended by hand but the room: everybody goes on, and the sealed trail verifies.
    """
    with embedded_postgresql(small_disk / "pg") as url:
        await asyncio.to_thread(upgrade_schema, url)
        own = OwnDatabase(
            url,
            await make_login(url, "rota_test", role=APP, password="rota_test"),
            await make_login(url, "rota_test_maintenance", role=MAINTENANCE, password="rota_test"),
        )
        sql = await asyncpg.connect(url)
        await sql.execute("ALTER SYSTEM SET checkpoint_timeout = '30s'")
        await sql.execute("SELECT pg_reload_conf()")
        (tmp_path / "sink").mkdir()
        key = new_key()
        settings = {
            "audit_origin": ORIGIN,
            "audit_signing_key": key,
            "audit_sink": str(tmp_path / "sink"),
            "maintenance_database_url": own.maintenance,
        }
        services = make_services(Clock(), url=own.app, **settings)
        log = Log(services, own, tmp_path, NoteSigner(key), make_services, settings)
        person = await make_person(services)
        issued = [await person.sign_in() for _ in range(3)]
        live = {one.session_id: one.refresh_token for one in issued}
        await sql.close()

        ballast = await asyncio.to_thread(fill, small_disk)
        refused = 0
        for turn in range(4000):
            try:
                for one, token in list(live.items()):
                    live[one] = (await person.refresh(token)).refresh_token
            except Unavailable:
                refused += 1
                if refused > 5:
                    break
            if turn % 50 == 0:
                with contextlib.suppress(Unavailable):
                    made = await person.sign_in()
                    live[made.session_id] = made.refresh_token
        assert refused > 5, "the disk was never full"
        with pytest.raises(Unavailable):
            while True:
                await person.sign_in()
        ballast.unlink()

        await _until_writable(services)
        for one, token in live.items():
            assert (await person.refresh(token)).session_id == one, "an answer that was given holds"
        await person.sign_in()
        sql = await asyncpg.connect(url)
        gaps = await sql.fetch(
            "SELECT f.id FROM families f LEFT JOIN audit_events e ON e.family_id = f.id AND e.family_seq IS NOT NULL"
            " GROUP BY f.id, f.event_seq HAVING count(e.family_seq) <> f.event_seq"
        )
        assert gaps == [], "a change without its event"
        await log.publish()
        await sealed_in_order(sql)
        await verified(log)
        await sql.close()
        await services.close()


async def _until_writable(services: Container) -> None:
    """The server recovers by itself."""
    async with asyncio.timeout(60):
        while True:
            try:
                await services.housekeeping.check_writable()
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                return
