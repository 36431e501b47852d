"""A primary of the tests' own and a streaming standby of it, made with `pg_basebackup`."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

from app.cli.embedded import embedded_postgresql
from benchmarks.rig import postgres_program

# So that a question that holds up the replay is broken off within a moment.
CONFLICTS_AT_ONCE = "max_standby_streaming_delay = 0\nhot_standby_feedback = off\n"


@dataclass
class Pair:
    """URLs of both, by a login that may do anything."""

    primary: str
    standby: str
    folder: Path
    user: str | None

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder), "-m", "immediate", "-w", "stop")

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder), "-l", str(self.folder / "log"), "-w", "start")

    async def pause(self) -> None:
        await self.on_standby("SELECT pg_wal_replay_pause()")
        while await self.on_standby("SELECT pg_get_wal_replay_pause_state()") != "paused":
            pass

    async def resume(self) -> None:
        await self.on_standby("SELECT pg_wal_replay_resume()")

    async def caught_up(self) -> None:
        """Wait until it has what the primary has at this moment."""
        primary = await asyncpg.connect(self.primary)
        place = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        await primary.close()
        while not await self.on_standby(f"SELECT pg_last_wal_replay_lsn() >= '{place}'"):
            pass

    async def on_standby(self, statement: str) -> object:
        standby = await asyncpg.connect(self.standby)
        try:
            return await standby.fetchval(statement)
        finally:
            await standby.close()

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [postgres_program(program), *words],
            check=True,
            user=self.user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    temporary = tempfile.TemporaryDirectory(prefix="rota-pair-", ignore_cleanup_errors=True)
    with temporary as name, embedded_postgresql(Path(name) / "primary") as primary:
        data = Path(name) / "primary"
        standby = Path(name) / "standby"
        user = data.owner() if os.geteuid() == 0 else None
        standby.mkdir(mode=0o700)
        if user:
            os.chown(standby, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        url = make_url(primary)
        host = str(url.query.get("host") or url.host)
        here = url.set(host=None).difference_update_query(["host"]).update_query_dict({"host": str(standby)})
        made = Pair(primary, here.render_as_string(hide_password=False), standby, user)
        source = f"host={host} user={url.username} application_name=standby"
        made._run("pg_basebackup", "-d", source, "-D", str(standby), "-R", "-X", "stream", "-c", "fast")
        with (standby / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"listen_addresses = ''\nunix_socket_directories = '{standby}'\n{CONFLICTS_AT_ONCE}")
        for left in (*standby.glob(".s.PGSQL.*"), standby / "log", standby / "postmaster.opts"):
            left.unlink(missing_ok=True)  # the primary's own
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                made.stop()
            shutil.rmtree(standby, ignore_errors=True)
