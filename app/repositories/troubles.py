"""What an error of the database is: trouble that passes, of which kind, or a defect."""

from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.observability.metrics import DatabaseError

# Trouble that passes, by SQLSTATE or its class: nothing was decided, and the same request may succeed a moment later.
_PASSING_CLASSES: Final = {
    "08": DatabaseError.CONNECTION_LOST,
    "53": DatabaseError.RESOURCES,
    "57": DatabaseError.INTERVENTION,  # cancel, shutdown
}
_PASSING_STATES: Final = {
    "25006": DatabaseError.READ_ONLY,  # a standby, or a primary being demoted
    "25P03": DatabaseError.CONNECTION_LOST,  # idle in transaction too long
    "40001": DatabaseError.SERIALIZATION,
    "40P01": DatabaseError.DEADLOCK,
    "55P03": DatabaseError.LOCK_TIMEOUT,
    "57014": DatabaseError.DEADLINE,
}
CANCELED: Final = "SQLSTATE 57014"  # by a statement's deadline
_NO_PARTITION: Final = "no partition of relation"  # the trail cannot be written, so the change must not happen
_NOT_READY: Final = "cannot switch to state"
_LOST: Final = (OSError, TimeoutError, PoolTimeoutError, DisconnectionError, asyncpg.InterfaceError)


def trouble(error: Exception) -> str | None:
    """A word for the log if the error is trouble that passes, else `None`."""
    state = sqlstate(error)
    if state is not None:
        return f"SQLSTATE {state}" if kind_of(error) is not DatabaseError.DEFECT else None
    if (isinstance(error, DBAPIError) and error.connection_invalidated) or _is_ended(error):
        return "connection lost"
    defect = isinstance(error, ValueError)  # asyncpg's word for a value it cannot send
    return type(error).__name__ if isinstance(error, _LOST) and not defect else None


def kind_of(error: Exception) -> DatabaseError | None:
    """The kind of trouble, for whoever counts; `None`: it is none of the database's."""
    state = sqlstate(error)
    if state is not None:
        if _NO_PARTITION in str(_cause(error)):
            return DatabaseError.NO_PARTITION
        return _PASSING_STATES.get(state) or _PASSING_CLASSES.get(state[:2]) or DatabaseError.DEFECT
    if isinstance(error, PoolTimeoutError):
        return DatabaseError.POOL_TIMEOUT
    if _is_ended(error):
        return DatabaseError.CONNECTION_LOST
    if isinstance(error, DBAPIError):
        return DatabaseError.CONNECTION_LOST if error.connection_invalidated else DatabaseError.DEFECT
    if isinstance(error, TimeoutError | ConnectionRefusedError):
        return DatabaseError.UNREACHABLE
    if isinstance(error, ValueError) or not isinstance(error, _LOST):
        return None
    return DatabaseError.CONNECTION_LOST


def sqlstate(error: BaseException) -> str | None:
    state: str | None = getattr(_cause(error), "sqlstate", None)
    return state


def _is_ended(error: BaseException) -> bool:
    """
    Whether the server had said its last word on the connection before it was used. Until the socket is closed, asyncpg
    calls that an error of its own.
    """
    cause = _cause(error)
    return any(
        isinstance(each, asyncpg.InternalClientError) and _NOT_READY in str(each)
        for each in (cause, cause.__cause__ if cause is not None else None)
    )


def _cause(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error
