"""`rota serve`: the server for production."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from app.cli.exits import Exit
from app.observability.logs import configure_logs, get_logger
from app.settings import Settings, SettingsInvalid, load_settings

log = get_logger()

# The peer's address is what the trail records: no header may replace it. Our own log lines stand for access logs.
SERVER: Final[dict[str, Any]] = {
    "factory": True,
    "loop": "uvloop",
    "http": "app.http.protocol:BoundedHttpProtocol",
    "ws": "none",
    "proxy_headers": False,
    "server_header": False,
    "access_log": False,
    "log_config": None,
    "timeout_graceful_shutdown": 10,
    "timeout_keep_alive": 75,  # longer than proxies keep theirs, so that it is not we who close one under a request
}


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: ROTA_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [default: ROTA_PORT]", min=0, max=65535)] = None,
    workers: Annotated[int, typer.Option(help="Server processes", min=1, max=64)] = 1,
) -> None:
    """Serve the API. Needs ROTA_DATABASE_URL (migrated: `rota db upgrade`) and ROTA_SECRETS."""
    # Imported here: other commands do without the database's libraries.
    from app.cli.schema import refuse_pooler_unnamed, refuse_unserved  # noqa: PLC0415
    from app.cli.workers import serve_here, serve_with_workers  # noqa: PLC0415
    from app.container import Container  # noqa: PLC0415 - likewise

    settings = load_settings()
    Container.build(settings).hasher.close()  # what is wrong with the settings is said here, once, not by each worker
    configure_logs("json")
    allow_many_connections()
    refuse_pooler_unnamed(settings)
    refuse_unserved(settings.direct_url)
    options = {"app": "app.main:create_served_app", **SERVER}
    place = (host or settings.host, settings.port if port is None else port)
    with _listening(*place) as bound, _counting_together(settings, workers):
        code = serve_here(options, bound) if workers == 1 else serve_with_workers(options, bound, workers)
    raise typer.Exit(code)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        bound = bind(host, port)
    except OSError as refused:
        typer.echo(f"Cannot listen on {host}:{port}: {refused.strerror}.", err=True)
        raise typer.Exit(Exit.FAILURE) from None
    with bound:
        shown, number = bound.getsockname()[:2]
        log.info("server.listening", host=shown, port=number)
        yield bound


@contextlib.contextmanager
def _counting_together(settings: Settings, workers: int) -> Iterator[None]:
    """Several workers count in one place, if there is anybody who may ask."""
    from app.observability.shared_counts import NoPlace, shared_directory  # noqa: PLC0415 - as above

    if workers == 1 or not settings.operator_token.get_secret_value():
        yield
        return
    try:
        with shared_directory(settings.metrics_directory):
            yield
    except NoPlace:
        raise SettingsInvalid("ROTA_METRICS_DIRECTORY: no directory can be written for the workers' counts") from None


def allow_many_connections() -> None:
    """As many open files as the system lets us have: a thousand followers of the feed pass the usual first limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "no limit" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket of our own, so that a taken port is known before anything is promised."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
