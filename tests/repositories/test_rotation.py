"""The hot statement against the real planner and the real heap."""

import asyncio
import json
import re
from collections.abc import Sequence

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from app.domain.families import FIRST_PARTY_CLIENT
from app.repositories.rotations import LIVENESS, ROTATE
from tests.conftest import MakePerson, MakeServices, Person, client_at


@pytest.mark.usefixtures("empty_database")
async def test_rotations_are_hot_updates(make_services: MakeServices, person: Person, sql: asyncpg.Connection) -> None:
    """No index is written anew: every rotation's update stays in its page."""
    issued = await person.sign_in()
    await person.services.database.close()  # a backend tells its counts when it ends
    updated_before, hot_before = await _updates(sql)
    services = make_services()
    for _ in range(50):
        issued = await services.refresh.rotate(issued.refresh_token, idempotency_key=None, client=client_at())
    await services.database.close()
    for _ in range(100):
        updated, hot = await _updates(sql)
        if updated >= updated_before + 50:
            break
        await asyncio.sleep(0.1)
    assert (updated - updated_before, hot - hot_before) == (50, 50)


async def _updates(sql: asyncpg.Connection) -> tuple[int, int]:
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    row = await sql.fetchrow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'families'")
    assert row is not None
    return row[0], row[1]


async def test_the_rotation_goes_by_the_primary_key(person: Person, sql: asyncpg.Connection) -> None:
    """One row by user and id, nothing sorted, nothing scanned."""
    issued = await person.sign_in()
    arguments = [None, None, None, None, person.user.id, issued.session_id, 0, r"\x00", r"\x00", uuid7(), None, None]
    arguments += [FIRST_PARTY_CLIENT, ""]
    await sql.execute("SET enable_seqscan = off")
    try:
        plan = await sql.fetchval("EXPLAIN (FORMAT JSON) " + _with_values(ROTATE, arguments))
    finally:
        await sql.execute("RESET enable_seqscan")
    text = json.dumps(json.loads(plan))
    # By which index goes by the statistics of a small table; each has the id, and so finds one row.
    assert re.search(rf"\"Index Cond\": \"[^\"]*\bid = '{issued.session_id}'", text), text
    assert "Seq Scan" not in text
    assert "Sort" not in text


def _with_values(statement: str, values: Sequence[object]) -> str:
    """EXPLAIN takes no parameters worth typing; literal values do."""
    for number in range(len(values), 0, -1):
        value = values[number - 1]
        literal = "NULL" if value is None else f"'{value}'"
        statement = statement.replace(f"${number}", literal)
    return statement


async def test_a_session_is_asked_for_by_its_key(person: Person, sql: asyncpg.Connection) -> None:
    """Liveness is one index probe."""
    issued = await person.sign_in()
    statement = LIVENESS.replace("$1", "NULL::timestamptz").replace("$2", "$1").replace("$3", "$2")
    await sql.execute("SET enable_seqscan = off")
    try:
        rows = await sql.fetch("EXPLAIN " + statement, person.user.id, issued.session_id)
    finally:
        await sql.execute("RESET enable_seqscan")
    assert any("Index Scan using" in row[0] and "Filter" not in row[0] for row in rows)


async def test_a_logged_statement_holds_no_token(person: Person, sql: asyncpg.Connection) -> None:
    """Neither the token nor its proof is among the values that the statement is sent."""
    from app.domain.refresh_token import parse  # noqa: PLC0415 - for this test only
    from app.security.keys import Keyring  # noqa: PLC0415 - likewise
    from tests.conftest import SECRET  # noqa: PLC0415 - likewise

    issued = await person.sign_in()
    token = parse(issued.refresh_token, Keyring([SECRET.encode()]).token_keys)
    assert token is not None
    sent: list[object] = []
    database = person.services.database
    inner = database.fetch_one

    async def listen(statement: str, *arguments: object) -> object:
        sent.extend([statement, *arguments])
        return await inner(statement, *arguments)

    database.fetch_one = listen  # type: ignore[method-assign]
    try:
        following = await person.refresh(issued.refresh_token)
    finally:
        del database.fetch_one
    assert following.refresh_token
    assert token.proof_digest in sent
    assert token.proof not in sent
    assert not any(issued.refresh_token in str(value) for value in sent)


async def test_a_full_lane_waits_in_turn(make_services: MakeServices, make_person: MakePerson) -> None:
    """A hundred refreshes through one hot connection all get their answer."""
    services = make_services(database_pool_size=2)
    person = await make_person(services)
    issued = [await person.sign_in() for _ in range(10)]
    for _ in range(10):
        issued = await asyncio.gather(*(person.refresh(one.refresh_token) for one in issued))
    assert len({one.session_id for one in issued}) == 10
