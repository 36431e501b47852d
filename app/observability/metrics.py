"""
Every metric there is: name, kind, help, labels. Nothing else of this process is shown.

The values of a label are closed lists, or what code alone can name (route templates, jobs, releases, revisions): never
an id, a name or an address, of which there is no end, and which are nobody's business in a monitoring system. A page of
the documentation is made from this module, and the alert rules and the dashboard are compared with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry

from app.domain.events import Action
from app.domain.families import EndReason
from app.domain.readiness import Check
from app.observability.shared_counts import count_together

OTHER: Final = "other"  # in place of a value that no list has
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER)
STATUSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx", "abandoned")
NO_ROUTE: Final = "none"  # a path that is none of ours

# A refresh takes some 2 ms, a sign-in some 50 ms; beyond ten seconds nobody waits any more.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merged(StrEnum):
    """How a gauge of several processes becomes one, as prometheus-client calls it."""

    SUM = "livesum"
    MAX = "livemax"


class RefreshOutcome(StrEnum):
    """What came of a presented refresh token."""

    ROTATED = "rotated"
    REPLAYED = "replayed"
    FAST_FORWARDED = "fast_forwarded"
    REUSED = "reused"
    RESTORED = "restored"
    NOISE = "noise"
    FORGED = "forged"
    UNKNOWN_SESSION = "unknown_session"
    ENDED = "ended"
    EXPIRED = "expired"
    WRONG_CLIENT = "wrong_client"
    SCOPE_REFUSED = "scope_refused"
    UNAVAILABLE = "unavailable"


class SignInOutcome(StrEnum):
    """What came of a sign-in."""

    OPENED = "opened"
    VOUCHED = "vouched"
    UNKNOWN_USER = "unknown_user"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - an outcome, not a password
    DISABLED = "disabled"
    PASSWORD_CHANGE_REQUIRED = "password_change_required"  # noqa: S105 - likewise
    ONE_TIME_PASSWORD_EXPIRED = "one_time_password_expired"  # noqa: S105 - likewise
    ACCOUNT_LIMIT = "account_limit"
    DEVICE_LIMIT = "device_limit"
    ADDRESS_LIMIT = "address_limit"
    GLOBAL_LIMIT = "global_limit"
    TOO_BUSY = "too_busy"
    UNAVAILABLE = "unavailable"


class DatabaseError(StrEnum):
    """What went wrong with a statement, by kind of trouble."""

    POOL_TIMEOUT = "pool_timeout"
    UNREACHABLE = "unreachable"
    CONNECTION_LOST = "connection_lost"
    DEADLINE = "deadline"
    LOCK_TIMEOUT = "lock_timeout"
    DEADLOCK = "deadlock"
    SERIALIZATION = "serialization"
    READ_ONLY = "read_only"
    RESOURCES = "resources"
    INTERVENTION = "intervention"
    NO_PARTITION = "no_partition"
    DEFECT = "defect"


class JobOutcome(StrEnum):
    """What came of one batch of a job."""

    DONE = "done"
    BUSY = "busy"
    DELAYED = "delayed"
    REFUSED = "refused"
    BROKE = "broke"


class Lane(StrEnum):
    """The two ways to the database: single hot statements, and units of work."""

    HOT = "hot"
    UNITS = "units"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its values; `values` is `None` where code names them, and `meaning` says what they are."""

    name: str
    meaning: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    read: bool = False  # from the database, when somebody asks

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


DECLARED: Final[dict[str, Declared]] = {}
REGISTRY: Final = CollectorRegistry()

count_together()  # with the other workers, before any of the following is made

_METHOD: Final = Label("method", "HTTP method", METHODS)
_ROUTE: Final = Label("route", f"the route's template, or `{NO_ROUTE}`")
_STATUS: Final = Label("status", "class of the answer's status; `abandoned`: the client left before it", STATUSES)
_LANE: Final = Label("lane", "`hot`: single statements of refreshes and checks; `units`: units of work", tuple(Lane))
_JOB: Final = Label("job_name", "name in the table of jobs; `job` is Prometheus's own")
_CHECK: Final = Label("check", "a check of `/readyz`", tuple(Check))


class Counter:
    """Counts up. What its closed lists allow is shown from the start, as 0, so that a first time is seen as one."""

    def __init__(self, name: str, text: str, *labels: Label) -> None:
        declared = _declare(Declared(name, Kind.COUNTER, text, labels))
        self._metric = prometheus_client.Counter(name, text, declared.label_names, registry=REGISTRY)
        self._children: dict[tuple[str, ...], prometheus_client.Counter] = {}
        self._only = labels[0].values if len(labels) == 1 else None
        for value in self._only or ():
            self._child((value,))

    def add(self, *values: str, amount: float = 1) -> None:
        """Count once more, or by an amount; a value that its list does not have counts as `other`."""
        if self._only is not None and values[0] not in self._only:
            values = (OTHER,)
        (self._children.get(values) or self._child(values)).inc(amount)

    def _child(self, values: tuple[str, ...]) -> prometheus_client.Counter:
        made = self._metric.labels(*values) if values else self._metric
        return self._children.setdefault(values, made)


class Histogram:
    def __init__(self, name: str, text: str, *labels: Label) -> None:
        declared = _declare(Declared(name, Kind.HISTOGRAM, text, labels))
        self._metric = prometheus_client.Histogram(name, text, declared.label_names, buckets=SECONDS, registry=REGISTRY)
        self._children: dict[tuple[str, ...], prometheus_client.Histogram] = {}

    def observe(self, seconds: float, *values: str) -> None:
        child = self._children.get(values)
        if child is None:
            child = self._children.setdefault(values, self._metric.labels(*values) if values else self._metric)
        child.observe(seconds)


class Gauge:
    """What each process says of itself now and then, merged when somebody asks."""

    def __init__(self, name: str, text: str, *labels: Label, merged: Merged) -> None:
        declared = _declare(Declared(name, Kind.GAUGE, text, labels))
        self._metric = prometheus_client.Gauge(
            name, text, declared.label_names, registry=REGISTRY, multiprocess_mode=merged.value
        )

    def set(self, value: float, *values: str) -> None:
        (self._metric.labels(*values) if values else self._metric).set(value)


def _declare(declared: Declared) -> Declared:
    DECLARED[declared.name] = declared
    return declared


def _fact(name: str, text: str, *labels: Label) -> str:
    return _declare(Declared(name, Kind.GAUGE, text, labels, read=True)).name


def _closed(name: str, meaning: str, values: Sequence[str]) -> Label:
    return Label(name, meaning, (*values, OTHER))


REQUESTS: Final = Counter("rota_http_requests_total", "Requests answered or abandoned.", _METHOD, _ROUTE, _STATUS)
REQUEST_SECONDS: Final = Histogram(
    "rota_http_request_seconds", "Until the answer was sent; of an event stream, until it began.", _METHOD, _ROUTE
)
SLOW_REQUESTS: Final = Counter(
    "rota_http_slow_requests_total", "Requests that took longer than ROTA_SLOW_REQUEST_MILLISECONDS.", _ROUTE
)
REFRESHES: Final = Counter(
    "rota_refreshes_total",
    "Presented refresh tokens, by what came of them.",
    _closed("outcome", "`reused`: somebody has a copy, the session ended", tuple(RefreshOutcome)),
)
SIGN_INS: Final = Counter(
    "rota_sign_ins_total", "Sign-ins, by what came of them.", _closed("outcome", "outcome", tuple(SignInOutcome))
)
SESSIONS_ENDED: Final = Counter(
    "rota_sessions_ended_total", "Sessions ended, by reason.", _closed("reason", "end reason", tuple(EndReason))
)
EVENTS_WRITTEN: Final = Counter(
    "rota_events_written_total", "Events committed to the trail.", _closed("action", "action", tuple(Action))
)
HASHES_WAITING: Final = Gauge(
    "rota_password_hashes_waiting",
    "Passwords that wait for a core; a process lets none in that would wait over two seconds.",
    merged=Merged.SUM,
)
HASHES_RUNNING: Final = Gauge("rota_password_hashes_running", "Passwords being hashed.", merged=Merged.SUM)
HASH_WAIT_SECONDS: Final = Histogram("rota_password_hash_wait_seconds", "How long a password waited for a core.")
CONNECTIONS_LIMIT: Final = Gauge(
    "rota_database_connections_limit", "Connections that may work at once, of all processes.", _LANE, merged=Merged.SUM
)
CONNECTIONS_IN_USE: Final = Gauge(
    "rota_database_connections_in_use", "Connections that work for somebody.", _LANE, merged=Merged.SUM
)
CONNECTIONS_WAITING: Final = Gauge(
    "rota_database_connections_waiting", "Requests and jobs that wait for a connection.", _LANE, merged=Merged.SUM
)
DATABASE_ERRORS: Final = Counter(
    "rota_database_errors_total",
    "Statements and transactions that failed, by kind of trouble; `defect` is none that passes.",
    _closed("kind", "kind of trouble", tuple(DatabaseError)),
)
SLOW_STATEMENTS: Final = Counter(
    "rota_database_slow_statements_total", "Statements that took longer than ROTA_SLOW_STATEMENT_MILLISECONDS."
)
VIEW_AGE: Final = Gauge(
    "rota_revocation_view_age_seconds",
    "Since the view of ended sessions was read, in the process where that is longest ago.",
    merged=Merged.MAX,
)
VIEW_SIZE: Final = Gauge(
    "rota_revocation_view_sessions", "Ended sessions that the view knows, where it knows most.", merged=Merged.MAX
)
FOLLOWERS: Final = Gauge("rota_feed_followers", "Open streams and waiting polls of the feed.", merged=Merged.SUM)
LOOP_LAG: Final = Gauge(
    "rota_event_loop_lag_seconds", "How late a timer of the slowest process was a moment ago.", merged=Merged.MAX
)
PROCESSES: Final = Gauge("rota_processes", "Serving processes.", merged=Merged.SUM)
JOB_BATCHES: Final = Counter(
    "rota_job_batches_total",
    "Batches of jobs in these processes.",
    _JOB,
    Label("outcome", "`busy`: another process has the job", tuple(JobOutcome)),
)
JOB_SECONDS: Final = Histogram("rota_job_batch_seconds", "How long a batch took.", _JOB)

READY: Final = _fact("rota_ready", "1 if the process that answers is ready.")
READY_CHECK: Final = _fact("rota_ready_check", "1 if the check is ok; 0 also if it was not tried.", _CHECK)
DATABASE_UP: Final = _fact("rota_database_up", "1 if the database told what follows.")
CLOCK_SKEW: Final = _fact("rota_clock_skew_seconds", "How far this host's clock is ahead of the database's.")
SEALING_LAG: Final = _fact("rota_sealing_lag_seconds", "Age of the oldest event that is not sealed; 0 if all are.")
UNSEALED: Final = _fact("rota_sealing_unsealed_events", "Events that are not sealed yet; counted up to 100,000.")
CHECKPOINT_AT: Final = _fact("rota_checkpoint_timestamp_seconds", "When the newest signed checkpoint was made.")
PARTITIONS_AHEAD: Final = _fact("rota_partitions_ahead_days", "Days for which the trail has partitions.")
JOB_SUCCESS: Final = _fact("rota_job_last_success_timestamp_seconds", "When a run of the job last succeeded.", _JOB)
JOB_LAST_SECONDS: Final = _fact("rota_job_last_duration_seconds", "How long its last run took.", _JOB)
JOB_INTERVAL: Final = _fact("rota_job_interval_seconds", "How often it runs.", _JOB)
JOB_FAILING: Final = _fact("rota_job_failing", "1 if its last run failed.", _JOB)
JOB_OVERDUE: Final = _fact("rota_job_overdue", "1 if nobody has run it for longer than it should take.", _JOB)
SCHEMA_SERVED: Final = _fact("rota_schema_served", "1 if this release can serve the database's schema.")
SCHEMA_PENDING: Final = _fact("rota_schema_pending_revisions", "Revisions of this release that are not applied.")
SCHEMA_INFO: Final = _fact("rota_schema_info", "1.", Label("revision", "the schema's newest revision"))
BUILD_INFO: Final = _fact("rota_build_info", "1.", Label("version", "the release that answers"))
