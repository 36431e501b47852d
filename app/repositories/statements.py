"""Telling the watch of each statement that goes through an engine."""

import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from app.observability.statements import StatementWatch

_BEGAN = "rota_began"


def watch_statements(engine: AsyncEngine, watch: StatementWatch) -> None:
    """Have all statements of units of work noted; those of the lane go past the engine, and are noted there."""

    def began(connection: Any, _cursor: Any, _statement: str, _values: Any, _context: Any, _many: bool) -> None:  # noqa: FBT001 - the library's signature
        connection.info[_BEGAN] = time.perf_counter()

    def ended(connection: Any, _cursor: Any, statement: str, _values: Any, _context: Any, _many: bool) -> None:  # noqa: FBT001 - likewise
        watch.note(statement, time.perf_counter() - connection.info[_BEGAN])

    def failed(failure: ExceptionContext) -> None:
        connection, statement = failure.connection, failure.statement
        if connection is None or statement is None or connection.closed or connection.invalidated:
            return
        if (at := connection.info.get(_BEGAN)) is not None:
            cause = failure.original_exception
            watch.note(statement, time.perf_counter() - at, type(cause.__cause__ or cause).__name__)

    event.listen(engine.sync_engine, "before_cursor_execute", began)
    event.listen(engine.sync_engine, "after_cursor_execute", ended)
    event.listen(engine.sync_engine, "handle_error", failed)
