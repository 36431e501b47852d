"""Settings that are each in bounds and together make no sense."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from app.domain.origins import is_of_this_host, origin_of
from app.settings import Settings, variable

_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The fields concerned, and one sentence: what the one does to the other."""

    fields: tuple[str, ...]
    what: str

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(variable(each) for each in self.fields)


def contradictions(settings: Settings, given: Collection[str]) -> list[Contradiction]:
    """All that there are. `given`: the fields that are set; a default contradicts only what somebody has set."""
    rules = (
        *_of_lifetimes(settings, given),
        *_of_retention(settings),
        *_of_databases(settings),
        *_of_browsers(settings),
        _Rule(
            ("unsafe_trust_any_proxy", "trusted_proxies"),
            settings.unsafe_trust_any_proxy and not settings.proxies.anybody,
            "ROTA_TRUSTED_PROXIES names proxies: ROTA_UNSAFE_TRUST_ANY_PROXY has no effect, and should not stand there "
            "for the day when somebody writes * beside it.",
        ),
    )
    return [Contradiction(rule.fields, rule.what) for rule in rules if rule.holds]


class _Rule(NamedTuple):
    fields: tuple[str, ...]
    holds: bool
    what: str


def _of_lifetimes(settings: Settings, given: Collection[str]) -> tuple[_Rule, ...]:
    access, idle = settings.access_token_seconds, settings.refresh_idle_seconds
    session, retry = settings.session_max_seconds, settings.refresh_retry_seconds
    return (
        _Rule(
            ("refresh_idle_seconds", "session_max_seconds"),
            idle > session,
            "Sessions end after ROTA_SESSION_MAX_SECONDS, before ROTA_REFRESH_IDLE_SECONDS can pass: the idle limit "
            "has no effect.",
        ),
        _Rule(
            ("access_token_seconds", "refresh_idle_seconds"),
            access > idle,
            "An access token never outlives the idle limit of its session: ROTA_ACCESS_TOKEN_SECONDS has no effect "
            "beyond ROTA_REFRESH_IDLE_SECONDS.",
        ),
        _Rule(
            ("access_token_seconds", "revocation_staleness_seconds"),
            settings.revocation_mode == "view" and access <= settings.revocation_staleness_seconds,
            "An access token expires before the view of ended sessions would count as stale: an end may reach a "
            "process no sooner than the token's own expiry. Lower ROTA_REVOCATION_STALENESS_SECONDS or raise "
            "ROTA_ACCESS_TOKEN_SECONDS.",
        ),
        _Rule(
            ("refresh_grace_seconds", "refresh_idle_seconds"),
            settings.refresh_grace_seconds >= idle,
            "A spent token may be presented again until its session is over: ROTA_REFRESH_GRACE_SECONDS must be well "
            "below ROTA_REFRESH_IDLE_SECONDS for reuse to be noticed.",
        ),
        _Rule(
            ("refresh_retry_seconds", "refresh_grace_seconds"),
            0 < retry <= settings.refresh_grace_seconds,
            "Within ROTA_REFRESH_GRACE_SECONDS no Idempotency-Key is needed: ROTA_REFRESH_RETRY_SECONDS has no effect.",
        ),
        _Rule(
            ("refresh_retry_seconds", "session_max_seconds"),
            retry > session,
            "No session lives as long as ROTA_REFRESH_RETRY_SECONDS: it ends after ROTA_SESSION_MAX_SECONDS.",
        ),
        _Rule(
            ("revocation_mode", "revocation_staleness_seconds"),
            settings.revocation_mode == "strict" and "revocation_staleness_seconds" in given,
            "With ROTA_REVOCATION_MODE=strict the view is not asked: ROTA_REVOCATION_STALENESS_SECONDS has no effect.",
        ),
    )


def _of_retention(settings: Settings) -> tuple[_Rule, ...]:
    trail, sessions = settings.audit_retention_days, settings.session_retention_days
    return (
        _Rule(
            ("audit_legal_hold", "audit_retention_days"),
            settings.audit_legal_hold and trail > 0,
            "ROTA_AUDIT_LEGAL_HOLD keeps everything: ROTA_AUDIT_RETENTION_DAYS has no effect while it is set.",
        ),
        _Rule(
            ("audit_legal_hold", "session_retention_days"),
            settings.audit_legal_hold and sessions > 0,
            "ROTA_AUDIT_LEGAL_HOLD keeps everything: ROTA_SESSION_RETENTION_DAYS has no effect while it is set.",
        ),
        _Rule(
            ("audit_retention_days", "session_max_seconds"),
            0 < trail * _DAY_SECONDS < settings.session_max_seconds,
            "A session may live longer (ROTA_SESSION_MAX_SECONDS) than the event of its sign-in is kept "
            "(ROTA_AUDIT_RETENTION_DAYS): nobody could say any more how it began.",
        ),
        _Rule(
            ("session_retention_days", "audit_retention_days"),
            0 < trail < sessions,
            "Ended sessions are kept longer (ROTA_SESSION_RETENTION_DAYS) than the events that tell of them "
            "(ROTA_AUDIT_RETENTION_DAYS).",
        ),
        _Rule(
            ("audit_retention_days", "maintenance_database_url"),
            trail > 0 and not settings.maintenance_database_url.get_secret_value(),
            "ROTA_AUDIT_RETENTION_DAYS wants months removed, which the server's login must not be able to do: set "
            "ROTA_MAINTENANCE_DATABASE_URL for `rota audit retain`.",
        ),
    )


def _of_databases(settings: Settings) -> tuple[_Rule, ...]:
    server = settings.database_url.get_secret_value()
    rules = []
    for field in ("direct_database_url", "replica_url", "maintenance_database_url", "migration_database_url"):
        other = getattr(settings, field).get_secret_value()
        rules.append(
            _Rule(
                ("database_url", field),
                bool(other) and _database(other) != _database(server),
                f"{variable(field)} and ROTA_DATABASE_URL name different databases.",
            )
        )
    return (
        *rules,
        _Rule(
            ("host", "issuer"),
            not _is_loopback(settings.host) and _is_loopback(urlsplit(settings.issuer).hostname or ""),
            "The server listens for other hosts (ROTA_HOST), and ROTA_ISSUER is an address that only this host can "
            "reach: nobody else finds the key set.",
        ),
    )


def _of_browsers(settings: Settings) -> tuple[_Rule, ...]:
    own, listed = origin_of(settings.issuer), settings.allowed_origins
    at_home = own is None or is_of_this_host(own)
    return (
        _Rule(
            ("cors_origins", "issuer"),
            own in listed,
            "ROTA_CORS_ORIGINS lists the origin of ROTA_ISSUER, whose pages need no leave.",
        ),
        _Rule(
            ("cors_origins", "issuer"),
            not at_home and any(is_of_this_host(origin) for origin in listed),
            "ROTA_CORS_ORIGINS lists an origin of the visitor's own host, where any program may serve pages, and "
            "ROTA_ISSUER is not for trying out.",
        ),
    )


def _database(url: str) -> str:
    return urlsplit(url).path.strip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
