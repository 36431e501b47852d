"""
Spans of requests and statements, for whoever has set up somewhere to send them; nothing is imported otherwise.

A span holds templates, classes and names of operations: no path, no query, no header, no SQL, no value.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

OTEL_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CLOSE_MILLISECONDS: Final = 3000


class TracesMissing(Exception):
    """Traces are asked for, and the packages that send them are not installed."""


class Traces:
    """Makes spans by a tracer provider of its own, so that no other library's spans are sent along."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - only where traces are wanted
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._tracer = provider.get_tracer("rota")
        self._trace = trace
        self._context = context
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, headers: Mapping[str, str], request_id: str) -> Iterator[Any]:
        """A span for a request, continuing the caller's trace if `traceparent` says so."""
        parent = self._propagator.extract(dict(headers))
        span = self._tracer.start_span(
            "HTTP", parent, kind=self._trace.SpanKind.SERVER, attributes={"rota.request_id": request_id}
        )
        token = self._context.attach(self._trace.set_span_in_context(span, parent))
        try:
            yield span
        finally:
            self._context.detach(token)
            span.end()

    def describe(self, span: Any, method: str, route: str, status: int | None) -> None:
        """What the request was, which is known when it is over."""
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if status is None or status >= 500:  # noqa: PLR2004 - a server's own failures
            span.set_status(self._trace.StatusCode.ERROR)

    def statement(self, operation: str, seconds: float, failure: str | None) -> None:
        """A statement that has just ended."""
        import time  # noqa: PLC0415 - as above

        end = time.time_ns()
        span = self._tracer.start_span(
            operation,
            kind=self._trace.SpanKind.CLIENT,
            attributes={"db.system.name": "postgresql", "db.operation.name": operation},
            start_time=end - int(seconds * 1e9),
        )
        if failure is not None:
            span.set_attribute("error.type", failure)
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what is left, within bounds."""
        self._provider.force_flush(CLOSE_MILLISECONDS)
        self._provider.shutdown()


def wanted(endpoint: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are to be sent: by our setting, or by OpenTelemetry's own variables."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(endpoint) or any(environ.get(name) for name in OTEL_ENDPOINTS)


def make_traces(endpoint: str, version: str) -> Traces | None:
    """
    As the environment wants it; `None`: no traces.

    Args:
        endpoint: Where spans are posted as OTLP, such as `http://collector:4318`; empty: OTEL_ variables say.
    Raises:
        TracesMissing: install the extra `traces`.
    """
    if not wanted(endpoint):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise TracesMissing from None
    named = os.environ.get("OTEL_SERVICE_NAME") or "rota"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: named, SERVICE_VERSION: version}))
    target = f"{endpoint.rstrip('/')}/v1/traces" if endpoint and not urlsplit(endpoint).path.strip("/") else endpoint
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(target or None)))
    return Traces(provider)
