"""Where everything is built: settings, then engine, then services. Nothing else builds any of it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from uuid_utils.compat import uuid7

from app import __version__
from app.domain.checkpoints import Malformed
from app.domain.clock import Clock
from app.observability.metrics import HASH_WAIT_SECONDS
from app.observability.statements import StatementWatch
from app.observability.traces import Traces, TracesMissing, make_traces
from app.repositories.database import Database
from app.repositories.doorbell import Doorbell
from app.repositories.engine import MAINTENANCE, make_engine
from app.repositories.holds import Holds
from app.repositories.rotations import RotationRepository
from app.security.access_tokens import AccessTokens
from app.security.event_tokens import EventTokens
from app.security.keys import KeyIdsCollide, Keyring
from app.security.notes import NoteSigner
from app.security.password_policy import BreachedFile, PasswordPolicy
from app.security.passwords import PasswordHasher
from app.security.signing_keys import SigningKeys
from app.services.admin_reads import AdminReads
from app.services.api_clients import ApiClients
from app.services.authentication import Authentication
from app.services.client_authentication import ClientAuthentication
from app.services.credentials import Credentials
from app.services.ended_view import EndedView
from app.services.erasure import Erasure
from app.services.exports import Exports
from app.services.facts import Facts
from app.services.feed import Feed
from app.services.feed_batches import FeedWriter
from app.services.feed_hub import Hub
from app.services.feed_reader import FeedReader
from app.services.guard import Guard
from app.services.housekeeping import Housekeeping
from app.services.job_runs import JobRuns
from app.services.lifecycle import Lifecycle
from app.services.notifications import Notifications
from app.services.oauth import OAuth
from app.services.password_change import PasswordChange
from app.services.proofs import Proofs
from app.services.publishing import Publishing
from app.services.readiness import Readiness
from app.services.reconciliation import Reconciliation
from app.services.refresh import Refresh
from app.services.replica import Replica
from app.services.revocation_work import RevocationWork
from app.services.revocations import Revocations
from app.services.sealing import Sealing
from app.services.session_exports import SessionExports
from app.services.session_search import SessionSearch
from app.services.session_stories import SessionStories
from app.services.sessions import Sessions
from app.services.sign_in import SignIn
from app.services.sinks import DirectorySink
from app.services.standing import Standing
from app.services.stats import Stats
from app.services.stats_check import StatsCheck
from app.services.throttling import Throttling
from app.services.tokens import TokenPairs
from app.services.trail import Trail
from app.services.user_exports import UserExports
from app.services.user_imports import UserImports
from app.services.user_queries import UserQueries
from app.services.users import Users
from app.settings import Settings, SettingsInvalid


@dataclass(frozen=True, slots=True)
class Watching:
    """What tells others how this process is."""

    probe: Database  # of few connections of its own
    traces: Traces | None  # `None` where nobody is to get any
    readiness: Readiness
    facts: Facts
    standing: Standing


@dataclass(frozen=True, slots=True)
class Container:
    """The services of one process."""

    settings: Settings
    clock: Clock
    database: Database
    maintenance: Database  # acts as the maintenance role; without a URL of its own, by the server's login
    hasher: PasswordHasher
    password_policy: PasswordPolicy
    signing_keys: SigningKeys
    ended_view: EndedView
    feed: Feed
    authentication: Authentication
    client_authentication: ClientAuthentication
    api_clients: ApiClients
    oauth: OAuth
    throttling: Throttling
    sign_in: SignIn
    refresh: Refresh
    sessions: Sessions
    revocations: Revocations
    revocation_work: RevocationWork
    users: Users
    user_queries: UserQueries
    credentials: Credentials
    password_change: PasswordChange
    notifications: Notifications
    trail: Trail
    admin_reads: AdminReads
    session_search: SessionSearch
    session_exports: SessionExports
    session_stories: SessionStories
    housekeeping: Housekeeping
    exports: Exports
    proofs: Proofs
    erasure: Erasure
    guard: Guard
    reconciliation: Reconciliation
    lifecycle: Lifecycle
    watching: Watching
    sealing: Sealing
    stats: Stats
    stats_check: StatsCheck
    job_runs: JobRuns
    replica: Replica
    publishing: Publishing | None  # `None` where no signing key is set: the tree grows, and nothing is signed

    @classmethod
    def build(cls, settings: Settings, clock: Clock | None = None) -> Self:
        """
        Open nothing yet: connections are made when first needed.

        Raises:
            SettingsInvalid: no secret is set, or two secrets have the same key id.
        """
        keyring, traces = _keyring(settings), _traces(settings)
        database, maintenance = _databases(settings, clock or Clock(), traces)
        ended_view, replica = _ended_view(settings, database, maintenance), _replica(settings, database)
        sealing = Sealing(database, origin=settings.log_origin, origin_is_set=bool(settings.audit_origin))
        trail, session_search = Trail(database, keyring, replica), SessionSearch(database, keyring, replica)
        signing_keys, hasher = SigningKeys(settings.secret_list), PasswordHasher(on_wait=HASH_WAIT_SECONDS.observe)
        feed = _feed(settings, database, keyring, signing_keys, ended_view)
        watching = _watching(settings, database, hasher, feed.hub, ended_view, traces)
        access_tokens, rotations = _access_tokens(settings, signing_keys), RotationRepository(database)
        pairs = TokenPairs(keyring, access_tokens)
        admin_reads, policy = AdminReads(database), _password_policy(settings)
        credentials, sessions = Credentials(database, hasher, policy, keyring), Sessions(database, pairs)
        client_authentication = ClientAuthentication(database, keyring, access_tokens, database.clock)
        authentication = Authentication(access_tokens, rotations, database.clock, ended_view)
        throttling = Throttling(database, keyring, failures_per_minute=settings.failed_logins_per_minute)
        sign_in = _sign_in(settings, database, hasher, keyring, pairs, credentials, throttling)
        refresh = Refresh(database, rotations, pairs, settings.lifetimes)
        oauth = OAuth(database, access_tokens, pairs, authentication, client_authentication, sign_in, refresh, sessions)
        return cls(
            settings=settings,
            clock=database.clock,
            database=database,
            maintenance=maintenance,
            hasher=hasher,
            password_policy=policy,
            signing_keys=signing_keys,
            revocations=Revocations(database, keyring),
            revocation_work=RevocationWork(database),
            client_authentication=client_authentication,
            api_clients=ApiClients(database, keyring, client_authentication),
            ended_view=ended_view,
            feed=feed,
            watching=watching,
            authentication=authentication,
            throttling=throttling,
            sign_in=sign_in,
            refresh=refresh,
            sessions=sessions,
            oauth=oauth,
            users=Users(database, hasher, policy, throttling, registration_open=settings.registration == "open"),
            user_queries=UserQueries(database, keyring, admin_reads, replica),
            credentials=credentials,
            notifications=Notifications(database, admin_reads),
            password_change=PasswordChange(database, hasher, policy, throttling),
            trail=trail,
            session_search=session_search,
            session_exports=SessionExports(database, session_search),
            session_stories=SessionStories(database, keyring, replica),
            admin_reads=admin_reads,
            housekeeping=_housekeeping(settings, database),
            exports=Exports(database),
            proofs=Proofs(database),
            sealing=sealing,
            guard=Guard(database, sealing),
            reconciliation=Reconciliation(database, trail),
            lifecycle=Lifecycle(database, settings, keyring),
            erasure=Erasure(maintenance),
            stats=Stats(database, admin_reads, replica, trail_days=settings.audit_retention_days),
            stats_check=StatsCheck(database, trail_days=settings.audit_retention_days),
            job_runs=JobRuns(database, settings, admin_reads),
            replica=replica,
            publishing=_publishing(settings, database),
        )

    @property
    def readiness(self) -> Readiness:
        return self.watching.readiness

    @property
    def user_imports(self) -> UserImports:
        return UserImports(self.database, Holds(self.settings.direct_url))

    @property
    def user_exports(self) -> UserExports:
        return UserExports(self.database)

    async def close(self) -> None:
        self.hasher.close()
        await self.throttling.close()
        await self.feed.hub.close()
        await self.readiness.close()
        # At once: a database that does not answer is waited for once, not once a pool.
        await asyncio.gather(
            self.watching.probe.close(),
            self.database.close(),
            self.maintenance.close(),
            self.ended_view.close(),
            self.replica.close(),
        )
        if self.watching.traces is not None:
            await asyncio.to_thread(self.watching.traces.close)


def _traces(settings: Settings) -> Traces | None:
    try:
        return make_traces(settings.traces_endpoint, __version__)
    except TracesMissing:
        raise SettingsInvalid("traces are asked for, and not installed: pip install 'rota[traces]'") from None


def _watching(
    settings: Settings,
    database: Database,
    hasher: PasswordHasher,
    hub: Hub,
    ended_view: EndedView,
    traces: Traces | None,
) -> Watching:
    probe = _probe(settings, database.clock)
    readiness = Readiness(probe, database.clock, ended_view, Housekeeping(probe))
    return Watching(
        probe=probe,
        traces=traces,
        readiness=readiness,
        facts=Facts(probe, readiness, JobRuns(probe, settings, AdminReads(probe))),
        standing=Standing(database, hasher, hub, ended_view, pool_size=settings.database_pool_size),
    )


def _databases(settings: Settings, clock: Clock, traces: Traces | None) -> tuple[Database, Database]:
    """The server's, and the one that acts as the maintenance role."""
    watch = StatementWatch(slow_seconds=settings.slow_statement_milliseconds / 1000, traces=traces)
    url, size = settings.database_url.get_secret_value(), settings.database_pool_size
    engine = make_engine(url, pool_size=size, pooled=settings.is_pooled)
    maintenance = make_engine(settings.maintenance_url, pool_size=1, role=MAINTENANCE)
    return (
        Database(engine, clock, hot_connections=size // 2, watch=watch),
        Database(maintenance, clock, hot_connections=1, watch=watch),
    )


def _probe(settings: Settings, clock: Clock) -> Database:
    """For looking whether all is well: it must not wait for a place behind requests."""
    url = settings.database_url.get_secret_value()
    engine = make_engine(url, pool_size=2, application_name="rota-probe", pooled=settings.is_pooled)
    return Database(engine, clock, hot_connections=1)


def _password_policy(settings: Settings) -> PasswordPolicy:
    """`SettingsInvalid`: the collection of stolen passwords cannot be used."""
    breached = BreachedFile(Path(settings.password_breached_file)) if settings.password_breached_file else None
    if breached is not None:
        try:
            breached.check()
        except (OSError, ValueError):
            raise SettingsInvalid(
                "ROTA_PASSWORD_BREACHED_FILE cannot be read, or its lines do not begin with a SHA-1 in hexadecimal"
            ) from None
    return PasswordPolicy(
        minimum=settings.password_min_characters, product_names=settings.service_names, breached=breached
    )


def _housekeeping(settings: Settings, database: Database) -> Housekeeping:
    return Housekeeping(database, session_days=settings.session_retention_days, legal_hold=settings.audit_legal_hold)


def _sign_in(
    settings: Settings,
    database: Database,
    hasher: PasswordHasher,
    keyring: Keyring,
    pairs: TokenPairs,
    credentials: Credentials,
    throttling: Throttling,
) -> SignIn:
    limit = settings.max_sessions_per_user
    return SignIn(database, hasher, keyring, pairs, settings.lifetimes, credentials, throttling, max_sessions=limit)


def _access_tokens(settings: Settings, signing_keys: SigningKeys) -> AccessTokens:
    return AccessTokens(
        signing_keys,
        issuer=settings.issuer,
        audience=settings.audience,
        lifetime=settings.lifetimes.access,
        new_id=uuid7,
    )


def _keyring(settings: Settings) -> Keyring:
    if not settings.secret_list:
        raise SettingsInvalid("ROTA_SECRETS is not set: at least one secret of 32 bytes or more is needed")
    try:
        return Keyring(settings.secret_list)
    except KeyIdsCollide as collision:
        raise SettingsInvalid(f"ROTA_SECRETS: {collision}") from None


def _ended_view(settings: Settings, *databases: Database) -> EndedView:
    """The view of ended sessions, which is told at once what any of this process's databases ends."""
    engine = make_engine(settings.direct_url, pool_size=1, application_name="rota-ends")
    ended_view = EndedView(
        Doorbell(engine, databases[0].clock),
        databases[0].clock,
        staleness=timedelta(seconds=settings.revocation_staleness_seconds),
        strict=settings.revocation_mode == "strict",
    )
    for database in databases:
        database.on_ended(ended_view.note)
    return ended_view


def _replica(settings: Settings, database: Database) -> Replica:
    """For what administrators and auditors read. Its URL leads to a standby itself, not to a pooler."""
    url, size = settings.replica_url.get_secret_value(), max(2, settings.database_pool_size // 4)
    engine = make_engine(url, pool_size=size, application_name="rota-replica") if url else None
    there = Database(engine, database.clock, hot_connections=1, watch=database.watch) if engine else None
    return Replica(database, there, bound=timedelta(seconds=settings.replica_lag_seconds))


def _feed(
    settings: Settings, database: Database, keyring: Keyring, signing_keys: SigningKeys, ended_view: EndedView
) -> Feed:
    """The feed of ended sessions for others, woken by the view."""
    tokens = EventTokens(signing_keys, issuer=settings.issuer, audience=settings.audience)
    writer = FeedWriter(tokens, keyring, database.clock)
    reader = FeedReader(database, writer)
    hub = Hub(reader, writer, lambda: ended_view.found)
    return Feed(reader, writer, hub, streams_per_client=settings.streams_per_client)


def _publishing(settings: Settings, database: Database) -> Publishing | None:
    key = settings.audit_signing_key.get_secret_value()
    if not key:
        return None
    try:
        return Publishing(database, NoteSigner(key), DirectorySink(Path(settings.audit_sink)))
    except Malformed:
        raise SettingsInvalid("ROTA_AUDIT_SIGNING_KEY is not a key made by `rota audit new-key`") from None
