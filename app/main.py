"""The ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

from app import __version__
from app.api import (
    admin_clients,
    admin_events,
    admin_revocations,
    admin_sessions,
    admin_stats,
    admin_users,
    authz,
    docs,
    feed,
    health,
    keys,
    me,
    metrics,
    notifications,
    oauth,
    passwords,
    session_exports,
    sessions,
    tokens,
    vouched_sessions,
)
from app.api.openapi import DocumentedApi
from app.container import Container
from app.domain.clock import Clock
from app.http.clients import PROXIES
from app.http.cors import CrossOrigin, Preflights
from app.http.deadline import Deadline
from app.http.errors import install_error_handlers
from app.http.methods import words_first
from app.http.middleware import RequestContext
from app.http.pacing import Admission, Pacing
from app.http.protocol import DRAINING, HTTPS, STOPPING
from app.jobs.following import following_ends, following_replica
from app.jobs.sampling import sampling
from app.jobs.schedule import JOBS, running_jobs
from app.observability.logs import configure_logs, get_logger
from app.services.devices import load_rules
from app.settings import Settings, load_settings

log = get_logger()

# Those asked most come first: routes are tried in turn.
SURFACE: Final = (
    tokens,
    authz,
    oauth,
    passwords,
    sessions,
    me,
    admin_users,
    vouched_sessions,
    admin_events,
    admin_stats,
    admin_revocations,
    session_exports,
    admin_sessions,  # last of its prefix: an id may stand where the others have a word
    admin_clients,
    feed,
    notifications,
    keys,
    health,
    metrics,
    docs,
)


def create_app(settings: Settings | None = None, clock: Clock | None = None) -> FastAPI:
    """
    Build the application; connections are made when it starts.

    Args:
        settings: From the environment if left out.
        clock: Tests pass one that they can move.
    Raises:
        SettingsInvalid: the environment is wrong.
    """
    container = Container.build(settings or load_settings(), clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        await asyncio.gather(*(asyncio.to_thread(load) for load in (load_rules, container.password_policy.load)))
        if container.settings.proxies.anybody:
            log.warning("proxies.anybody_trusted", message="Every client can say to be another address.")
        await container.lifecycle.started()
        async with (
            running_jobs(container) as end_jobs,
            following_ends(container),
            following_replica(container),
            sampling(container),
        ):

            def drain() -> None:
                container.readiness.drain()
                end_jobs()

            def stop() -> None:
                drain()  # not every server gives notice
                container.feed.hub.stop()  # it waits for open answers, and streams have no end but this one

            yield {DRAINING: drain, STOPPING: stop, HTTPS: container.settings.https}
        await container.lifecycle.stopped()
        await container.close()

    app = DocumentedApi(
        title="Rota",
        version=__version__,
        summary="Sessions as refresh-token families in PostgreSQL",
        lifespan=lifespan,
        docs_url=None,  # `docs` has one with a strict policy
        redoc_url=None,
        redirect_slashes=False,
        # Not by include_router, which lets each request match twice; our routes have their prefixes and tags already.
        routes=words_first([route for module in SURFACE for route in module.router.routes]),
        # FastAPI's own telemetry records exception messages and validation failures, which quote input.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.container = container
    app.issuer = container.settings.issuer
    app.state.duties = JOBS
    setattr(app.state, PROXIES, container.settings.proxies)
    install_error_handlers(app)
    _add_middleware(app, container)
    return app


def _add_middleware(app: FastAPI, container: Container) -> None:
    """Innermost first."""
    settings = container.settings
    app.add_middleware(Deadline, seconds=settings.request_seconds)
    app.add_middleware(Admission, admit=container.sign_in.admit)
    origins = settings.allowed_origins
    if origins:
        app.add_middleware(Preflights, origins=origins)
    app.add_middleware(
        RequestContext,
        slow_seconds=settings.slow_request_milliseconds / 1000,
        traces=container.watching.traces,
        https=settings.https,
    )
    if origins:
        app.add_middleware(CrossOrigin, origins=origins)
    app.add_middleware(Pacing)


def create_served_app() -> FastAPI:
    """The application of `rota serve`: settings from the environment, log lines as JSON."""
    configure_logs("json")
    return create_app()


def create_dev_app() -> FastAPI:
    """The application of `rota dev`: log lines for people."""
    configure_logs("console")
    return create_app()
