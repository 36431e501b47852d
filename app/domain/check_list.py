"""The list of checks of `rota doctor`, the one place where they are declared. Docs and tests are made from it."""

from typing import Final

from app.domain.checks import Check, Need

GROUPS: Final = {
    "settings": "Settings",
    "secrets": "Secrets",
    "database": "Database",
    "rights": "Logins and rights",
    "trail": "The audit trail",
    "schema": "Schema",
    "tables": "Tables",
    "work": "Housekeeping and people",
    "host": "Backup, disk and host",
}

CHECKS: Final = (
    Check(
        "settings.valid",
        "Every ROTA_ variable is a setting, and every value is within its bounds",
        "a server does not start otherwise",
        "Correct the variables that are named; `rota config show` lists all of them.",
        Need.NOTHING,
    ),
    Check(
        "settings.contradictions",
        "No setting makes another one pointless",
        "what somebody has set does not happen",
        "Change one of the settings named; `rota config show` marks them.",
        Need.NOTHING,
    ),
    Check(
        "settings.issuer",
        "The issuer is an https URL that others can reach",
        "services fetch the keys of access tokens from there; over plain http somebody could hand them others",
        "Set `ROTA_ISSUER` to the public https:// URL. Verifiers that expect the former issuer must be changed with "
        "it.",
        Need.NOTHING,
    ),
    Check(
        "settings.password_length",
        "New passwords have at least 15 characters",
        "where a password is all that is asked for, a shorter one can be guessed from a stolen hash",
        "Unset `ROTA_PASSWORD_MIN_CHARACTERS`, unless a second factor is asked for elsewhere.",
        Need.NOTHING,
    ),
    Check(
        "settings.proxies",
        "The proxies before the server are trusted, and nobody else",
        "limits by address and the trail are about the address that is believed",
        "Set `ROTA_TRUSTED_PROXIES` as docs/operation/proxies.md says.",
        Need.NOTHING,
    ),
    Check(
        "secrets.present",
        "There is a secret, no more than three, and each has an id of its own",
        "without one no server starts; a former one that stays is one more that can be stolen",
        "Set `ROTA_SECRETS`, or `ROTA_SECRETS_FILE`; to change or remove one, follow docs/operation/secrets.md.",
        Need.NOTHING,
    ),
    Check(
        "secrets.strength",
        "Secrets look random",
        "whoever guesses one can sign access tokens for anybody",
        "Replace it by the output of `openssl rand -base64 48`, as docs/operation/secrets.md says.",
        Need.NOTHING,
    ),
    Check(
        "secrets.files",
        "Files that hold secrets can be read by their owner only",
        "another user of this host could read them",
        "`chmod 0400` the file, and let it belong to the user that runs the server.",
        Need.NOTHING,
    ),
    Check(
        "secrets.age",
        "The minting secret is younger than a year, and former ones that nobody needs are gone",
        "the longer a secret is in use, the more places it may have been copied to",
        "Change the secret as docs/operation/secrets.md says; `rota keys list` shows what still depends on a former "
        "one.",
        Need.SERVER,
    ),
    Check(
        "secrets.in_use",
        "The servers run with the secrets of this environment",
        "a server with another list refuses the tokens of its neighbours",
        "Restart every server with the same `ROTA_SECRETS`; `rota keys list` shows which one is missing.",
        Need.SERVER,
    ),
    Check(
        "database.reachable",
        "The database answers the server's login",
        "nothing works without it",
        "Start it, and look at `ROTA_DATABASE_URL`; `rota config show` says where it comes from.",
        Need.NOTHING,
    ),
    Check(
        "database.version",
        "PostgreSQL 15 to 18",
        "others are not tested",
        "Upgrade PostgreSQL with pg_upgrade, which keeps transaction ids and so the sealed trail.",
    ),
    Check(
        "database.writable",
        "It takes writes",
        "on a standby or a read-only database nobody can sign in or refresh",
        "Point `ROTA_DATABASE_URL` to the primary; if it is one, `ALTER DATABASE {database} RESET "
        "default_transaction_read_only`.",
    ),
    Check(
        "database.clock",
        "This host's clock and the database's agree to a second",
        "tokens carry the database's time, and whoever verifies them has a clock like this host's",
        "Run a time service (chrony, systemd-timesyncd) on both hosts.",
    ),
    Check(
        "database.encoding",
        "The encoding is UTF8",
        "names that people may choose could not be stored",
        "Make a database with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`, and copy into it.",
    ),
    Check(
        "database.time_zone",
        "The database's time zone is UTC",
        "Rota's own connections use UTC anyhow; whoever reads by hand sees other times than the trail and the logs say",
        "`ALTER DATABASE {database} SET timezone = 'UTC'`",
    ),
    Check(
        "database.durability",
        "What is committed survives a crash: fsync, full_page_writes, synchronous_commit are on",
        "a lost commit is a sign-in or a refresh that a client has and the database does not, and a hole in the trail",
        "`ALTER SYSTEM RESET fsync`, `ALTER SYSTEM RESET full_page_writes`, `ALTER SYSTEM RESET synchronous_commit`, "
        "then "
        "`SELECT pg_reload_conf()`; look for `ALTER ROLE … SET` and `ALTER DATABASE … SET` of the same.",
    ),
    Check(
        "database.checksums",
        "Data checksums are on",
        "a page that the disk has spoilt is noticed when it is read",
        "Stop the database and run `pg_checksums --enable`, or switch over to a replica on which that was done.",
    ),
    Check(
        "database.connections",
        "There are connections for all server processes",
        "a process that gets none answers 503",
        "Lower `ROTA_DATABASE_POOL_SIZE`, raise `ALTER SYSTEM SET max_connections = …` (needs a restart), or put a "
        "pooler between.",
    ),
    Check(
        "database.pooler",
        "Migrations reach the database itself, not a transaction pooler",
        "behind one, the lock that keeps two migrations apart protects nothing",
        "Set `ROTA_MIGRATION_DATABASE_URL` to a URL that leads to the database itself.",
        seconds=10,
    ),
    Check(
        "database.listen",
        "Notifications arrive",
        "by them a process hears of the ends of sessions at once; without them it polls, up to "
        "ROTA_REVOCATION_STALENESS_SECONDS later",
        "Set `ROTA_DIRECT_DATABASE_URL` to a URL that leads to the database itself, or to a pooler in session mode.",
    ),
    Check(
        "database.deadlines",
        "The server's connections have their deadlines",
        "a statement without one holds its locks and its connection for as long as it likes",
        "Something between drops what the server asks for at the start of a connection: in PgBouncer, take the names "
        "out of ignore_startup_parameters.",
        Need.SERVER,
    ),
    Check(
        "database.prepared",
        "No transactions can be prepared: max_prepared_transactions is 0",
        "a prepared transaction that is forgotten holds up the sealing of the trail for ever",
        "`ALTER SYSTEM SET max_prepared_transactions = 0`, then restart PostgreSQL.",
    ),
    Check(
        "database.extensions",
        "What Rota needs is there, and nothing that it is not tested with stands in the hot path",
        "the trail's triggers are written in plpgsql",
        "`CREATE EXTENSION plpgsql`, then `rota db check`.",
    ),
    Check(
        "database.certificate",
        "The connection is encrypted, or does not leave this host; the certificate is good for a month",
        "statements hold addresses and password hashes; when the certificate has expired, no process can connect",
        "Add sslmode=verify-full to `ROTA_DATABASE_URL`; renew the certificate, then `SELECT pg_reload_conf()`.",
    ),
    Check(
        "rights.login",
        "The server's login can do nothing but act as rota_app",
        "whoever breaks into the server has what its login has; a superuser can rewrite the trail",
        "`CREATE ROLE rota_server LOGIN PASSWORD '…' IN ROLE rota_app`, and put it into `ROTA_DATABASE_URL`.",
    ),
    Check(
        "rights.role",
        "The login may act as rota_app, and as no other role of Rota",
        "the server acts as rota_app, or does not start; as rota_owner it could take the trail's triggers off",
        "`GRANT rota_app TO {login}`; `REVOKE rota_owner, rota_maintenance FROM {login}`",
    ),
    Check(
        "rights.owner",
        "Everything belongs to rota_owner, which nobody can sign in as",
        "an owner can change what is append-only for everybody else",
        "`ALTER TABLE … OWNER TO rota_owner` for the tables named; `ALTER ROLE rota_owner NOLOGIN`",
        Need.SCHEMA,
    ),
    Check(
        "rights.trail",
        "The server cannot change or remove anything in the trail",
        "whoever broke into it could remove their traces",
        "`REVOKE UPDATE, DELETE, TRUNCATE ON … FROM rota_app` for the tables named, also from PUBLIC and from the "
        "login.",
        Need.SCHEMA,
    ),
    Check(
        "rights.grants",
        "The server may do what it must",
        "what is not granted fails when somebody asks for it",
        "`GRANT` what is named to rota_app; the migrations under migrations/sql say what each table needs.",
        Need.SCHEMA,
    ),
    Check(
        "trail.triggers",
        "The triggers that refuse changes are on everywhere, and always",
        "without them the owner's mistakes reach the trail; that they are off may be an attack",
        "Find out who took them off, then as the owner: `SELECT audit_protect('…')` for each table named; `rota "
        "audit check`.",
        Need.SCHEMA,
    ),
    Check(
        "trail.partitions",
        "There are months to write to for 60 days at least, without gaps",
        "when there is none, nobody can sign in",
        "`rota maintain --job partitions`",
        Need.SCHEMA,
    ),
    Check(
        "trail.default_partition",
        "The trail has no default partition",
        "it would take what belongs into a missing month, and then that month could not be made",
        "`ALTER TABLE audit_events DETACH PARTITION … CONCURRENTLY`, after its rows were looked at.",
        Need.SCHEMA,
    ),
    Check(
        "trail.statement_logs",
        "The database's own log holds no values of statements",
        "they are addresses, names and password hashes, and nothing erases them from a log",
        "`ALTER SYSTEM SET log_parameter_max_length = 0`, `ALTER SYSTEM SET log_parameter_max_length_on_error = 0`, "
        "then "
        "`SELECT pg_reload_conf()`",
    ),
    Check(
        "trail.horizon",
        "No transaction has been open for long",
        "in any database of this cluster, an open or prepared transaction holds up the sealing of the trail",
        "`SELECT pg_terminate_backend(…)` for the process named, `ROLLBACK PREPARED '…'` for a prepared one.",
        Need.SCHEMA,
    ),
    Check(
        "trail.sealing",
        "What has happened is sealed within seconds",
        "until it is, whoever owns the database can change it unnoticed",
        "Run `rota serve` or `rota audit seal --watch`; `rota audit status` names the transaction that is in the way.",
        Need.SERVER,
    ),
    Check(
        "trail.published",
        "The sealed tree is signed and published",
        "what is published elsewhere is what a rewritten trail is noticed by",
        "`rota audit new-key FILE`, then set `ROTA_AUDIT_SIGNING_KEY_FILE` and `ROTA_AUDIT_SINK` for one process, best "
        "`rota audit seal --watch`.",
        Need.SERVER,
    ),
    Check(
        "trail.sink",
        "Checkpoints can be added where they are published",
        "nothing is signed while the sink is away",
        "Mount the directory that `ROTA_AUDIT_SINK` names, and let the server's user add files to it.",
        Need.NOTHING,
    ),
    Check(
        "schema.version",
        "The schema is the one that this release knows",
        "a server refuses a schema that it cannot serve",
        "`rota db plan`, then `rota db upgrade`",
        seconds=10,
    ),
    Check(
        "schema.drift",
        "The tables are what the migrations have made",
        "somebody has changed them by hand, and the next migration may fail",
        "`rota db check` says what differs; undo it.",
        Need.SCHEMA,
        seconds=30,
    ),
    Check(
        "schema.indexes",
        "No index is INVALID",
        "it serves nobody, and each write pays for it",
        "`REINDEX INDEX CONCURRENTLY …` for the index named, or `rota db upgrade`, which rebuilds those of its own.",
        Need.SCHEMA,
        seconds=10,
    ),
    Check(
        "schema.constraints",
        "No constraint is NOT VALID",
        "it holds for new rows only",
        "`rota db upgrade`; if nothing is pending, `ALTER TABLE … VALIDATE CONSTRAINT …`.",
        Need.SCHEMA,
        seconds=10,
    ),
    Check(
        "tables.autovacuum",
        "Autovacuum is on and keeps up",
        "each refresh leaves a dead row; if nobody clears them away, everything grows and slows down",
        "`ALTER SYSTEM RESET autovacuum`, `ALTER TABLE families RESET (autovacuum_enabled)`; `VACUUM (ANALYZE) "
        "families`; "
        "look for the transaction that `rota audit status` names.",
        Need.SCHEMA,
    ),
    Check(
        "tables.hot",
        "Refreshes write no index (HOT updates)",
        "otherwise each refresh writes every index of the sessions' table",
        "Drop indexes that Rota has not made (`rota db check`), end long transactions, `VACUUM families`.",
        Need.SCHEMA,
    ),
    Check(
        "tables.freeze",
        "Transaction ids are far from running out",
        "PostgreSQL stops taking writes when they do",
        "`VACUUM (FREEZE)` in the database named; end what keeps autovacuum from it: long transactions, slots, "
        "prepared ones.",
    ),
    Check(
        "work.jobs",
        "Every job of housekeeping runs when it should, without failing",
        "sessions past their limit are written down, months are made and events are sealed by jobs",
        "Start a server, or run `rota maintain` by a timer; `rota maintain --status` shows each job.",
        Need.SERVER,
    ),
    Check(
        "work.numbers",
        "The counts agree with one another and are up to date",
        "`GET /admin/stats` answers from them",
        "`rota maintain --job stats`, then `rota stats --check` to recount everything.",
        Need.SERVER,
    ),
    Check(
        "work.admin",
        "There is an administrator who can sign in",
        "nobody could end somebody's sessions by the API",
        "`rota users create --role admin NAME`, or `rota users enable NAME`",
        Need.SERVER,
    ),
    Check(
        "host.backup",
        "The last backup is younger than 26 hours",
        "what was not backed up is lost with the disk",
        "Let the backup touch a file at its end, and name that by `ROTA_BACKUP_STAMP` or `rota doctor --backup-stamp "
        "FILE`.",
        Need.NOTHING,
    ),
    Check(
        "host.slots",
        "No replication slot holds WAL back",
        "a slot that nobody reads fills the database's disk",
        "`SELECT pg_drop_replication_slot('…')` for one that nobody needs; `ALTER SYSTEM SET max_slot_wal_keep_size "
        "= '10GB'`.",
    ),
    Check(
        "host.disk",
        "There is room on the database's disk and at the sink",
        "a full disk stops the database",
        "Make room, or a larger volume. `ROTA_SESSION_RETENTION_DAYS` and `ROTA_AUDIT_RETENTION_DAYS` bound what is "
        "kept.",
    ),
    Check(
        "host.files",
        "A process may open as many files as it may be asked for",
        "each connection and each stream of the feed is one",
        "Raise the limit (LimitNOFILE= of systemd, `ulimit -Hn`), or lower `ROTA_STREAMS_PER_CLIENT`.",
        Need.NOTHING,
    ),
)
