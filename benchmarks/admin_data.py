"""
A data set of sessions as an installation of some size has them: a tenth as many users, twice as many events.

    python -m benchmarks.admin_data --rows N URL

builds one in a migrated, empty database, whose login must be a superuser. Session `n` is a function of `n`, so that a
load can make its token without asking. Four months of history: of those that began in the last thirty days four in five
are active, which is a fifth of all; the others have ended, for reasons as common as they are. A few people, addresses
and clients have far more sessions than others. Devices, browsers and systems go together as they do on the street.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from uuid import UUID

from benchmarks import rig

DAYS = 120
HEAVY_USERS = 20  # one session in a hundred is of one of these
ADMINS = 10
YOUNG = 0.75  # where the last thirty days begin
CHUNKS = 40

NAMES = (
    "ada,ben,cleo,dora,emil,fay,gus,hana,ivo,jan,kim,lea,max,nora,oto,pia,quin,rosa,sam,tea,uma,vera,wim,xena,yara,zoe"
)

# Golden-ratio sequences: as even as dice, and the same in Python.
USER_LOT, STATE_LOT = 2654435761, 2246822519
WEYL = "((n * {factor} % 4294967296) / 4294967296.0::float8)"

USERS = f"""
INSERT INTO users (id, username, username_key, password_hash, role, created_at, password_changed_at)
SELECT md5('user' || u)::uuid, name, name, 'none', CASE WHEN u < {ADMINS} THEN 'admin' WHEN u < 50 THEN 'auditor'
       ELSE 'user' END, at, at
  FROM (SELECT u, (string_to_array('{NAMES}', ','))[1 + u % 26] || '.' || u AS name,
               timestamptz '{{start}}' - {{users}} * interval '1 second' + u * interval '1 second' AS at
          FROM generate_series(0, {{users}} - 1) AS u) AS made
"""

# What each session is, from its number: whose, from where, with what, and what became of it.
DRAWN = f"""
  FROM (SELECT *, md5('user' || u)::uuid AS user_id,
               (lpad(to_hex(floor(extract(epoch FROM created_at) * 1000)::bigint), 12, '0') || '70008'
                || lpad(to_hex(n), 15, '0'))::uuid AS id,
               CASE WHEN net < 10 THEN '198.18.0.0'::inet + floor(500 * (kind / 1000.0) ^ 2)::bigint
                    WHEN net < 15 THEN '2001:db8::'::inet + u
                    ELSE '10.0.0.0'::inet + u * 2654435761 % 16777216 END AS ip,
               CASE WHEN n <= {{rows}} * {YOUNG} OR state_lot >= 0.8 THEN
                 CASE WHEN n > {{rows}} * 0.8 AND n <= {{rows}} * 0.93 AND state_lot > 0.9995 THEN 'lapsed'
                      WHEN why < 3500 THEN 'logout' WHEN why < 7500 THEN 'idle_timeout'
                      WHEN why < 8700 THEN 'absolute_timeout' WHEN why < 9200 THEN 'logout_all'
                      WHEN why < 9600 THEN 'evicted' WHEN why < 9800 THEN 'password_change'
                      WHEN why < 9920 THEN 'bulk_admin' WHEN why < 9950 THEN 'admin'
                      WHEN why < 9960 THEN 'reuse' WHEN why < 9975 THEN 'user_disabled'
                      WHEN why < 9977 THEN 'role_change' WHEN n % 1000 = 0 THEN 'restore'
                      ELSE 'oauth_revocation' END END AS fate,
               CASE WHEN client < 9000 THEN 'first-party' WHEN client < 9600 THEN 'mobile-app'
                    WHEN client < 9850 THEN 'web-console' WHEN client < 9950 THEN 'partner'
                    WHEN client < 9990 OR n > {{rows}} / 10 THEN 'cli' ELSE 'legacy' END AS client_id,
               CASE WHEN u < {ADMINS} THEN 'admin' WHEN u < 50 THEN 'auditor' ELSE 'user' END AS role,
               CASE WHEN kind < 280 THEN 'iPhone' WHEN kind < 310 THEN 'iPad' WHEN kind < 500 THEN
                      'Samsung SM-' || chr((65 + net % 5)::int) || 900 + client % 40
                    WHEN kind < 640 THEN 'Mac' WHEN kind < 641 AND net < 5 THEN 'Nokia 3310' END AS device,
               CASE WHEN kind < 310 THEN 'Mobile Safari ' || 16 + net % 3
                    WHEN kind < 500 THEN 'Chrome Mobile ' || version
                    WHEN kind < 600 THEN 'Safari ' || 16 + net % 3 WHEN kind < 860 THEN 'Chrome ' || version
                    WHEN kind < 930 THEN 'Edge ' || version WHEN kind < 980 THEN 'Firefox ' || version
                    WHEN kind < 985 THEN 'Opera ' || version END AS browser,
               CASE WHEN kind < 310 THEN 'iOS ' || 16 + net % 3 WHEN kind < 500 THEN 'Android ' || 11 + net % 5
                    WHEN kind < 640 THEN 'Mac OS X 10' WHEN kind < 960 THEN 'Windows 1' || net % 2
                    WHEN kind < 985 THEN 'Ubuntu' END AS os
          FROM (SELECT *, CASE WHEN n % 100 = 7 THEN (n / 100) % {HEAVY_USERS}
                               ELSE floor({{users}} * user_lot * user_lot)::bigint END AS u,
                       abs(hashint8extended(n, 1)) % 1000 AS kind, abs(hashint8extended(n, 2)) % 100 AS net,
                       abs(hashint8extended(n, 3)) % 10000 AS client, abs(hashint8extended(n, 4)) % 10000 AS why,
                       120 + n * 12 / {{rows}} AS version
                  FROM (SELECT n, timestamptz '{{start}}' + n * {{gap}} * interval '1 microsecond' AS created_at,
                               {WEYL.format(factor=USER_LOT)} AS user_lot, {WEYL.format(factor=STATE_LOT)} AS state_lot
                          FROM generate_series({{first}}::bigint, {{last}}) AS n) AS numbers) AS lots) AS drawn
 CROSS JOIN LATERAL (
   SELECT CASE WHEN fate IS NULL THEN greatest(created_at, timestamptz '{{end}}' - state_lot * interval '7 days') END
            AS rotated_at,
          CASE WHEN fate <> 'lapsed' THEN least(created_at + CASE fate WHEN 'idle_timeout' THEN interval '7 days'
            WHEN 'absolute_timeout' THEN interval '30 days' ELSE state_lot * interval '20 days' END,
            timestamptz '{{end}}') END AS ended_at,
          CASE WHEN fate IN ('logout', 'logout_all', 'password_change') THEN user_id
               WHEN fate IN ('admin', 'bulk_admin') THEN md5('user' || n % {ADMINS})::uuid END AS ended_by) AS times
"""

FAMILIES = f"""
INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at, amr,
                      created_at, rotated_at, idle_expires_at, expires_at, ended_at, end_reason, ended_by, ended_xact,
                      created_ip, last_ip, user_agent, device, browser, os)
SELECT user_id, id, sha256(('seed' || n)::bytea), CASE WHEN rotated_at IS NULL THEN 0 ELSE 1 END,
       CASE fate WHEN 'lapsed' THEN 1 ELSE 2 END, client_id, '', role, created_at, 'pwd', created_at, rotated_at,
       coalesce(rotated_at, created_at) + interval '7 days', created_at + interval '30 days', ended_at,
       CASE WHEN ended_at IS NOT NULL THEN fate END, ended_by, CASE WHEN ended_at IS NOT NULL THEN '3'::xid8 END,
       ip, ip, '{rig.AGENT}', device, browser, os
{DRAWN}
"""

# Each session's beginning, and its end or its first refresh. Ids of events need only be in order of time.
EVENTS = f"""
INSERT INTO audit_events (id, occurred_at, action, version, outcome, reason, actor_kind, actor_id, subject_id,
                          family_id, family_seq, generation, ip, user_agent, request_id, detail)
SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || k || '00'
        || substr(replace(id::text, '-', ''), 17))::uuid,
       at, action, 1, 'success', CASE action WHEN 'session.ended' THEN fate END,
       CASE WHEN action <> 'session.ended' OR ended_by = user_id THEN 'user' WHEN ended_by IS NULL THEN 'system'
            ELSE 'admin' END,
       CASE WHEN action <> 'session.ended' THEN user_id ELSE ended_by END, user_id, id, k,
       CASE action WHEN 'session.refreshed' THEN 1 ELSE 0 END,
       CASE WHEN action = 'session.refreshed' AND net % 20 = 1 THEN '203.0.113.0'::inet + n % 256
            WHEN action <> 'session.ended' OR ended_by = user_id THEN ip END,
       '{rig.AGENT}', NULL, CASE k WHEN 1 THEN '{{{{"amr":["pwd"],"client_id":"' || client_id || '","scope":""}}}}' END
{DRAWN}
 CROSS JOIN LATERAL (
   SELECT 1 AS k, 'session.created' AS action, created_at AS at
    UNION ALL
   SELECT 2, CASE WHEN ended_at IS NULL THEN 'session.refreshed' ELSE 'session.ended' END,
          coalesce(ended_at, rotated_at)
    WHERE coalesce(ended_at, rotated_at) IS NOT NULL) AS lives
"""

# The schema makes months from today on; these are history. As `audit_make_partitions` makes them.
PARTITIONS = """
DO $body$
DECLARE
  month timestamp := date_trunc('month', timestamptz '{start}' AT TIME ZONE 'UTC');
  partition text;
BEGIN
  WHILE month <= timestamptz '{end}' AT TIME ZONE 'UTC' LOOP
    partition := 'audit_events_' || to_char(month, 'YYYY_MM');
    IF to_regclass(partition) IS NULL THEN
      EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
      EXECUTE format('ALTER TABLE %I OWNER TO rota_owner', partition);
      EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     partition, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
      PERFORM audit_protect(partition::regclass);
    END IF;
    month := month + interval '1 month';
  END LOOP;
END
$body$
"""

# As they stand in the schema, keys first: built after the rows they take half the time.
INDEXES = """
SELECT conname, 'ALTER TABLE {table} ADD CONSTRAINT ' || conname || ' ' || pg_get_constraintdef(oid), 'constraint'
  FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype IN ('p', 'u')
 UNION ALL
SELECT indexname, replace(indexdef, ' ON ONLY ', ' ON '), 'index' FROM pg_indexes
 WHERE tablename = '{table}' AND schemaname = current_schema()
   AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass)
 ORDER BY 3, 1
"""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is known of the data without asking for it. Sessions are numbered from 1, users from 0."""

    rows: int
    start: datetime
    gap: int  # microseconds from one session to the next

    @property
    def users(self) -> int:
        return max(100, self.rows // 10)

    @property
    def end(self) -> datetime:
        """When the data was made: about a minute after the last session began."""
        return self.start + timedelta(days=DAYS)

    def user_id(self, number: int) -> UUID:
        return UUID(md5(f"user{number}".encode(), usedforsecurity=False).hexdigest())

    def username(self, number: int) -> str:
        return f"{NAMES.split(',')[number % 26]}.{number}"

    def user_of(self, session: int) -> int:
        if session % 100 == 7:
            return session // 100 % HEAVY_USERS
        lot = _weyl(session, USER_LOT)
        return int(self.users * lot * lot)

    def created_at(self, session: int) -> datetime:
        return self.start + session * timedelta(microseconds=self.gap)

    def family_id(self, session: int) -> UUID:
        made = (self.created_at(session) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        return UUID(f"{made:012x}70008{session:015x}")

    def is_active(self, session: int) -> bool:
        """As the data is made; nobody has ended it, and it has a day or so before it lapses. Its generation is 1."""
        return session > self.rows * YOUNG and _weyl(session, STATE_LOT) < 0.8


def _weyl(number: int, factor: int) -> float:
    return number * factor % 4294967296 / 4294967296.0


def build(url: str, rows: int, say: Callable[[str], None] = lambda _: None) -> DataSet:
    """
    Fill a migrated, empty database with `rows` sessions, their users and their events.

    Two database sessions insert at a time, each a stretch of time after the other; indexes come afterwards.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    start = now - timedelta(days=DAYS)
    gap = int((DAYS * 86_400 - 60) * 1_000_000 / rows)
    data = DataSet(rows, start, gap)
    values = {"rows": rows, "users": data.users, "start": start.isoformat(), "end": now.isoformat(), "gap": gap}
    began = time.perf_counter()
    rig.psql(url, PARTITIONS.format(**values))
    indexes = [line.split("|") for table in ("users", "families", "audit_events") for line in _drop_indexes(url, table)]
    _fill(url, USERS.format(**values))
    for words, statement in (("sessions", FAMILIES), ("events", EVENTS)):
        with ThreadPoolExecutor(2) as pool:
            parts = [statement.format(**values, first=first, last=last) for first, last in _chunks(rows)]
            list(pool.map(lambda part: _fill(url, part), parts))
        say(f"  {words} inserted after {time.perf_counter() - began:.0f} s")
    definitions = [definition for _, definition, _ in indexes]
    with ThreadPoolExecutor(2) as pool:
        keys = [definition for definition in definitions if definition.startswith("ALTER")]
        list(pool.map(lambda definition: _build(url, definition), keys))
        list(pool.map(lambda definition: _build(url, definition), [each for each in definitions if each not in keys]))
    say(f"  {len(definitions)} indexes built after {time.perf_counter() - began:.0f} s")
    rig.psql(url, "VACUUM ANALYZE families", "VACUUM ANALYZE users", "VACUUM ANALYZE audit_events", "CHECKPOINT")
    say(f"  {rows:,} sessions, {data.users:,} users, their events: {time.perf_counter() - began:.0f} s")
    return data


def _chunks(rows: int) -> Sequence[tuple[int, int]]:
    size = max(1, -(-rows // CHUNKS))
    return [(first, min(first + size - 1, rows)) for first in range(1, rows + 1, size)]


def _drop_indexes(url: str, table: str) -> list[str]:
    found = rig.psql(url, INDEXES.format(table=table))
    for line in found:
        name, _, kind = line.split("|")
        rig.psql(url, f"ALTER TABLE {table} DROP CONSTRAINT {name}" if kind == "constraint" else f"DROP INDEX {name}")
    return found


def _fill(url: str, statement: str) -> None:
    rig.psql(url, "SET synchronous_commit = off", "SET jit = off", statement)


def _build(url: str, definition: str) -> None:
    rig.psql(url, "SET maintenance_work_mem = '512MB'", definition)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="how many sessions")
    options = parser.parse_args()
    build(options.url, options.rows, lambda words: print(words, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
