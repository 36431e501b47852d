"""`rota dev`: everything at once, on one machine, with nothing set."""

import asyncio
import os
import secrets
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
import uvicorn

from app.cli.embedded import embedded_postgresql
from app.cli.exits import Exit
from app.cli.schema import upgrade_schema
from app.cli.serve import SERVER, bind
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.users import Role
from app.observability.logs import configure_logs
from app.security.notes import NoteSigner, new_key
from app.settings import Settings, load_settings

ADMIN: Final = "admin"


def dev(
    port: Annotated[int | None, typer.Option(help="Port to listen on [default: ROTA_PORT]", min=0, max=65535)] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the embedded database and its secrets live")] = Path(".rota"),
) -> None:
    """Start Rota for development: embedded PostgreSQL, migrations, a first admin, the server."""
    from app.repositories.engine import APP, MAINTENANCE  # noqa: PLC0415 - other commands do without the database's libraries
    from app.repositories.logins import make_login  # noqa: PLC0415 - likewise

    configure_logs("console")
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)  # so that the embedded server is stopped too
    data_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ROTA_REGISTRATION", "open")
    if not {"ROTA_SECRETS", "ROTA_SECRETS_FILE"} & os.environ.keys():
        os.environ["ROTA_SECRETS"] = _kept(data_dir / "secrets")
    given = {"ROTA_DATABASE_URL", "ROTA_DATABASE_URL_FILE"} & os.environ.keys()
    database = nullcontext() if given else _embedded(data_dir / "postgresql")
    with database as embedded_url, _listening(port) as server_socket:
        url = _url(server_socket)
        os.environ.setdefault("ROTA_ISSUER", url)
        settings = load_settings()
        upgrade_schema(embedded_url or settings.direct_url)
        if embedded_url:  # the server is not the database's superuser, here neither
            os.environ["ROTA_DATABASE_URL"] = asyncio.run(make_login(embedded_url, "rota_server", role=APP))
            keeper = asyncio.run(make_login(embedded_url, "rota_keeper", role=MAINTENANCE))
            os.environ["ROTA_MAINTENANCE_DATABASE_URL"] = keeper
        _sign_checkpoints(data_dir)
        _keep_environment(data_dir)
        settings = load_settings()
        admin_password = data_dir / f"admin-password{_suffix(settings) if given else ''}"
        if password := asyncio.run(_first_admin()):
            _write_private(admin_password, password)
        _say_hello(url, admin_password, password)
        config = uvicorn.Config("app.main:create_dev_app", **SERVER)
        try:
            uvicorn.Server(config).run(sockets=[server_socket])
        except KeyboardInterrupt:
            typer.echo("Rota has stopped.", err=True)


def _sign_checkpoints(data_dir: Path) -> None:
    """A key and a sink for the trail's checkpoints, and the public key for `rota audit verify`."""
    if {"ROTA_AUDIT_SIGNING_KEY", "ROTA_AUDIT_SIGNING_KEY_FILE"} & os.environ.keys():
        return
    key, sink = data_dir / "audit-key", data_dir / "checkpoints"
    if not key.exists():
        _write_private(key, new_key())
    sink.mkdir(exist_ok=True)
    os.environ["ROTA_AUDIT_SIGNING_KEY_FILE"] = str(key.resolve())
    os.environ["ROTA_AUDIT_SINK"] = str(sink.resolve())
    origin = os.environ.setdefault("ROTA_AUDIT_ORIGIN", "localhost/rota")
    public = NoteSigner(key.read_text(encoding="ascii")).key(origin)
    (data_dir / "audit-keys").write_text(f"{public}\n", encoding="ascii")


def _keep_environment(data_dir: Path) -> None:
    """So that the other commands find the same database, in another shell."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in sorted(os.environ.items()) if name.startswith("ROTA_")]
    _write_private(data_dir / "environment", "\n".join(lines) + "\n")


@contextmanager
def _embedded(data_dir: Path) -> Iterator[str]:
    with embedded_postgresql(data_dir) as url:
        os.environ["ROTA_DATABASE_URL"] = url
        try:
            yield url
        finally:
            del os.environ["ROTA_DATABASE_URL"]


@contextmanager
def _listening(port: int | None) -> Iterator[socket.socket]:
    settings = load_settings()
    wanted = settings.port if port is None else port
    try:
        listening = bind(settings.host, wanted)
    except OSError as refused:
        typer.echo(f"Cannot listen on {settings.host}:{wanted}: {refused.strerror}. Try --port.", err=True)
        raise typer.Exit(Exit.FAILURE) from None
    with listening:
        yield listening


async def _first_admin() -> str | None:
    """Create the first administrator if there is none; the password, or `None` if there was one."""
    from app.container import Container  # noqa: PLC0415 - likewise

    container = Container.build(load_settings())
    try:
        if await container.users.has_admin():
            return None
        password = secrets.token_urlsafe(48)  # 64 characters: enough for whatever minimum is set
        await container.users.create(ADMIN, password, role=Role.ADMIN, actor=SYSTEM, client=NO_CLIENT)
        return password
    finally:
        await container.close()


def _url(server_socket: socket.socket) -> str:
    host, port = server_socket.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _say_hello(url: str, admin_password: Path, new_password: str | None) -> None:
    tokens = admin_password.resolve().with_name("tokens.json")
    _write_private(tokens, "")  # curl keeps the mode of a file that is there
    fetch = f"curl -sS {url}"
    keep = f"-o {shlex.quote(str(tokens))} && cat {shlex.quote(str(tokens))}"
    password = f"password@{shlex.quote(str(admin_password.resolve()))}"
    if not admin_password.exists():
        password = 'password="$ADMIN_PASSWORD"'  # noqa: S105 - for the reader to fill in: we did not make this admin
    if new_password:
        typer.echo(f"First admin: {ADMIN}, password {new_password} (kept in {admin_password}; not shown again)\n")
    typer.echo(f"Rota is at {url}, its API docs at {url}/docs\n")
    environment = shlex.quote(str(admin_password.resolve().with_name("environment")))
    typer.echo(f"The other commands, in another shell: set -a; . {environment}; rota audit status\n")
    typer.echo("Log in, refresh, log out:\n")
    typer.echo(f"{fetch}/token -d username={ADMIN} --data-urlencode {password} {keep}")
    typer.echo(f"{fetch}/refresh -d refresh_token=$({_member('refresh_token', tokens)}) {keep}")
    typer.echo(f'{fetch}/logout -X POST -H "Authorization: Bearer $({_member("access_token", tokens)})"\n')


def _member(name: str, path: Path) -> str:
    """Shell words that print one member of a JSON file without more tools than a bare machine has."""
    return f"""sed -E 's/.*"{name}":"([^"]*)".*/\\1/' {shlex.quote(str(path))}"""


def _suffix(settings: Settings) -> str:
    """Tells the password files of several databases apart."""
    return "-" + sha256(settings.database_url.get_secret_value().encode()).hexdigest()[:8]


def _kept(path: Path) -> str:
    """A secret made once and kept."""
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(48))
    return path.read_text(encoding="ascii")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def _leave(ending: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + ending)
