"""Log lines: one JSON object a line, the request's id on each, nothing secret on any."""

import json
import logging
import re
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_NAME: Final = re.compile(r"password|token|secret|authorization|cookie|seed|proof", re.IGNORECASE)
_SECRET_TEXT: Final = re.compile(r"rota_[a-z]{2}_[A-Za-z0-9_-]+|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*")
_REDACTED: Final = "[redacted]"
_ENCODER: Final = json.JSONEncoder(default=repr, separators=(",", ":"))  # built once: json.dumps builds one a call
_ROOT: Final = Path(__file__).parents[2]


def redact(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Blank what is named like a secret or looks like one of our tokens."""
    for name, value in line.items():
        if _is_secret(name):
            line[name] = _REDACTED
        elif isinstance(value, str):
            if "rota_" in value or "eyJ" in value:
                line[name] = _SECRET_TEXT.sub(_REDACTED, value)
        elif isinstance(value, dict | list | tuple | set | bytes):
            line[name] = _redact_within(value)
    return line


def _redact_within(value: object) -> object:
    if isinstance(value, dict):
        return {name: _REDACTED if _is_secret(str(name)) else _redact_within(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_redact_within(each) for each in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return _SECRET_TEXT.sub(_REDACTED, value) if isinstance(value, str) else value


def escape(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """For a terminal, which obeys what it is shown: one line, without colours, cursors or separators of somebody's."""
    return {_escape(name): _escape(value) if isinstance(value, str) else value for name, value in line.items()}


def _escape(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def describe_exception(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """A library's traceback as ours are told: classes and places, no messages, which quote values."""
    given = line.pop("exc_info", None)
    line.pop("stack_info", None)
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else None
    error = sys.exc_info()[1] if given is True else error
    return line if error is None else {**line, **describe_failure(error)}


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def configure_logs(form: Literal["json", "console"], *, least: int = logging.INFO) -> None:
    """
    Send our lines and those of the libraries to standard error in one form. Called once, by the entry points.

    Args:
        least: The level below which nothing is said.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        redact,
    ]
    rendered: list[Processor] = (
        [structlog.processors.JSONRenderer(_to_json)]
        if form == "json"
        else [escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=least, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _to_json(line: EventDict, **_: object) -> str:
    return _ENCODER.encode(line)


def get_logger() -> Any:
    return structlog.get_logger()


def describe_failure(error: BaseException) -> dict[str, object]:
    """
    An unexpected error without its message: drivers quote the values they choke on.

    Classes along the chain of causes, SQLSTATE if there is one, and where it came from.
    """
    chain: list[str] = []
    cause: BaseException | None = error
    sqlstate = None
    while cause is not None and len(chain) < 5:  # noqa: PLR2004 - enough to see the driver's error
        chain.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        sqlstate = sqlstate or getattr(cause, "sqlstate", None)
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    at = [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": chain, "sqlstate": sqlstate, "at": at}


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else path.name
