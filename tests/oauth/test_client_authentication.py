"""Who calls: secrets by HTTP Basic and in the form, tokens of clients, and what each refusal says."""

import base64
import contextlib
import hmac

import asyncpg
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.container import Container
from app.domain.api_clients import SECRET_PREFIX, ClientScope, new_client_id, new_secret, read_scope, write_scope
from app.domain.errors import ClientRejected, InputInvalid, Unavailable
from app.domain.events import SYSTEM
from app.security.keys import Keyring
from tests.conftest import SECRET, MakeServices, client_at
from tests.oauth.conftest import ElapsingClock, Known, LogIn, MakeKnown, Somebody, basic, bearer, make_known

ASK = {"token": "noise"}


async def ask(
    http: httpx2.AsyncClient, data: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> httpx2.Response:
    return await http.post("/oauth2/introspect", data={**ASK, **(data or {})}, headers=headers)


async def test_basic_and_post_both_serve(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """RFC 6749 section 2.3.1, both ways; a secret has 256 random bits and a prefix of its own."""
    known = await make_client(scopes=["introspect"])
    assert known.secret.startswith(SECRET_PREFIX)
    assert len(base64.urlsafe_b64decode(known.secret.removeprefix(SECRET_PREFIX) + "=")) == 32
    for answer in (await ask(http, headers=known.basic), await ask(http, known.post)):
        assert (answer.status_code, answer.json()) == (200, {"active": False})
    # The name may stand in the form beside Basic, if it is the same.
    answer = await ask(http, {"client_id": known.client.client_id}, headers=known.basic)
    assert answer.status_code == 200


async def test_name_and_secret_are_form_encoded_inside_basic(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """Percent-encoded characters are those they stand for (RFC 6749 section 2.3.1)."""
    known = await make_client(scopes=["introspect"])
    spelt = "".join(f"%{ord(character):02x}" for character in known.client.client_id)
    encoded = base64.b64encode(f"{spelt}:{known.secret.replace('_', '%5F')}".encode()).decode()
    assert (await ask(http, headers={"Authorization": f"bAsIc {encoded}"})).status_code == 200


async def test_two_methods_at_once_are_one_too_many(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """400 invalid_request (RFC 6749 section 2.3), whether or not both are right."""
    known = await make_client(scopes=["introspect"], grants=["client_credentials"])
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=known.basic)
    token = bearer(granted.json()["access_token"])
    for data, headers in [
        (known.post, known.basic),
        ({"client_secret": "x"}, known.basic),
        ({"client_id": "another"}, known.basic),
        (known.post, token),
    ]:
        answer = await ask(http, data, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def malformed(known: Known) -> dict[str, dict[str, str]]:
    def header(text: str) -> dict[str, str]:
        return {"Authorization": text}

    def encoded(raw: bytes) -> dict[str, str]:
        return header("Basic " + base64.b64encode(raw).decode())

    right = f"{known.client.client_id}:{known.secret}".encode()
    return {
        "unknown client": basic("client-0000000000000000", known.secret),
        "wrong secret": basic(known.client.client_id, new_secret()),
        "a prefix of the secret": basic(known.client.client_id, known.secret[:-1]),
        "a longer secret": basic(known.client.client_id, known.secret + "A"),
        "another case": basic(known.client.client_id.upper(), known.secret),
        "no secret": basic(known.client.client_id, ""),
        "no name": basic("", known.secret),
        "our own client": basic("first-party", known.secret),
        "a name with a NUL": basic("a\0b", known.secret),
        "a very long name": basic("a" * 20_000, known.secret),
        "no colon": encoded(known.client.client_id.encode()),
        "not base64": header("Basic !!!"),
        "base64 with rubbish between": header("Basic " + base64.b64encode(right).decode()[:8] + "!" * 4),
        "not UTF-8": encoded(b"\xff\xfe:" + known.secret.encode()),
        "percent-encoded rubbish": encoded(known.client.client_id.encode() + b":%ff%fe"),
        "an empty header": header(""),
        "no credentials": header("Basic"),
        "another scheme": header("Digest " + base64.b64encode(right).decode()),
    }


async def test_every_refusal_is_the_same(
    http: httpx2.AsyncClient, container: Container, make_client: MakeKnown
) -> None:
    """401 invalid_client with a Basic challenge (RFC 6749 section 5.2); nothing tells one cause from another."""
    known = await make_client(scopes=["introspect"])
    shut_out = await make_client(scopes=["introspect"])
    await container.api_clients.disable(shut_out.client.id, actor=SYSTEM, client=client_at())
    answers = {name: await ask(http, headers=headers) for name, headers in malformed(known).items()}
    answers |= {
        "disabled": await ask(http, headers=shut_out.basic),
        "nothing": await ask(http),
        "only a name": await ask(http, {"client_id": known.client.client_id}),
        "wrong secret in the form": await ask(http, {**known.post, "client_secret": "x"}),
        "unknown in the form": await ask(http, {"client_id": "nobody", "client_secret": "x"}),
    }
    for name, answer in answers.items():
        assert answer.status_code == 401, name
        assert answer.json() == {"error": "invalid_client", "error_description": answer.json()["error_description"]}
        assert answer.headers["www-authenticate"] == 'Basic realm="rota"', name
        assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert len({answer.text for answer in answers.values()}) == 1


async def test_two_authorization_headers_are_refused(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """One meaning or none."""
    known = await make_client(scopes=["introspect"])
    headers = [("Authorization", known.basic["Authorization"])] * 2
    answer = await http.post("/oauth2/introspect", data=ASK, headers=headers)
    assert answer.status_code == 401


async def test_an_unknown_client_costs_what_a_known_one_costs(
    container: Container, make_client: MakeKnown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two keyed hashes over as many bytes, two comparisons in constant time, one read: whatever is wrong."""
    known, rotated = await make_client(), await make_client()
    await container.api_clients.rotate_secret(rotated.client.id, None, actor=SYSTEM, client=client_at())
    work: list[tuple[str, int]] = []
    digest, compare = hmac.digest, hmac.compare_digest

    def counted_digest(key: bytes, message: bytes, name: str) -> bytes:
        work.append(("digest", len(message)))
        return digest(key, message, name)

    def counted_compare(one: bytes, other: bytes) -> bool:
        work.append(("compare", len(one)))
        return compare(one, other)

    monkeypatch.setattr("app.security.keys.hmac.digest", counted_digest)
    monkeypatch.setattr("app.security.keys.hmac.compare_digest", counted_compare)
    seen = []
    for client_id, secret in [
        (known.client.client_id, known.secret),
        (known.client.client_id, new_secret()),
        (rotated.client.client_id, new_secret()),
        (new_client_id(), new_secret()),
        ("no client can be named so!", new_secret()),
    ]:
        work.clear()
        with contextlib.suppress(ClientRejected):
            await container.client_authentication.authenticate(client_id, secret)
        seen.append(list(work))
    assert seen[0] == [("digest", 16 + 51), ("compare", 32)] * 2
    assert all(each == seen[0] for each in seen)


async def test_no_secret_is_stored(make_client: MakeKnown, sql: asyncpg.Connection) -> None:
    """The row has a hash under the server's key: neither the secret nor its plain hash is anywhere in the database."""
    import hashlib  # noqa: PLC0415 - only here

    known = await make_client()
    row = await sql.fetchrow("SELECT * FROM api_clients WHERE id = $1", known.client.id)
    assert row is not None
    assert known.secret not in str(dict(row))
    assert row["secret_hash"] != hashlib.sha256(known.secret.encode()).digest()
    assert row["secret_key_id"] == Keyring([SECRET.encode()]).minting.key_id
    trail = await sql.fetchval("SELECT string_agg(detail, '') FROM audit_events WHERE action LIKE 'client.%'")
    assert SECRET_PREFIX not in trail


async def test_a_hash_is_bound_to_its_row(
    container: Container, make_client: MakeKnown, sql: asyncpg.Connection
) -> None:
    """Whoever can write the table cannot give one client another's secret."""
    mine, other = await make_client(), await make_client()
    await sql.execute(
        "UPDATE api_clients SET secret_hash = (SELECT secret_hash FROM api_clients WHERE id = $1) WHERE id = $2",
        mine.client.id,
        other.client.id,
    )
    with pytest.raises(ClientRejected):
        await container.client_authentication.authenticate(other.client.client_id, mine.secret)


async def test_a_change_of_the_servers_secrets(make_services: MakeServices, sql: asyncpg.Connection) -> None:
    """A hash under an older secret verifies while that is listed, moves to the newest on use, and survives it then."""
    older, newer = SECRET, "another-secret-another-secret-another-secret"
    before = make_services(secrets=older)
    used, idle = await make_known(before), await make_known(before)
    between = make_services(secrets=f"{newer},{older}")
    await between.client_authentication.authenticate(used.client.client_id, used.secret)
    key_ids = {row["id"]: row["secret_key_id"] for row in await sql.fetch("SELECT id, secret_key_id FROM api_clients")}
    assert key_ids[used.client.id] == Keyring([newer.encode()]).minting.key_id
    assert key_ids[idle.client.id] == Keyring([older.encode()]).minting.key_id
    after = make_services(secrets=newer)
    assert await after.client_authentication.authenticate(used.client.client_id, used.secret)
    with pytest.raises(ClientRejected):
        await after.client_authentication.authenticate(idle.client.client_id, idle.secret)
    assert await between.client_authentication.authenticate(idle.client.client_id, idle.secret)


async def test_a_change_reaches_other_processes_within_a_second(make_services: MakeServices) -> None:
    """At once where it was made; elsewhere when the copy is a second old, and not before it is asked for again."""
    clock = ElapsingClock()
    here, elsewhere = make_services(clock), make_services(clock)
    known = await make_known(here)
    who = known.client.client_id, known.secret
    await elsewhere.client_authentication.authenticate(*who)
    await here.client_authentication.authenticate(*who)
    await here.api_clients.disable(known.client.id, actor=SYSTEM, client=client_at())
    with pytest.raises(ClientRejected):
        await here.client_authentication.authenticate(*who)
    clock.advance(seconds=0.9)
    await elsewhere.client_authentication.authenticate(*who)
    clock.advance(seconds=0.1)
    with pytest.raises(ClientRejected):
        await elsewhere.client_authentication.authenticate(*who)
    await here.api_clients.enable(known.client.id, actor=SYSTEM, client=client_at())
    clock.advance(seconds=1)
    await elsewhere.client_authentication.authenticate(*who)


async def test_an_older_copy_is_no_answer_when_the_database_is_away(make_services: MakeServices) -> None:
    """Nothing is assumed of a client that cannot be read again: `Unavailable`, which is a 503."""
    clock = ElapsingClock()
    services = make_services(clock)
    known = await make_known(services)
    who = known.client.client_id, known.secret
    await services.client_authentication.authenticate(*who)
    away = make_services(clock, url="postgresql://nobody@127.0.0.1:1/nowhere")
    services.client_authentication._database = away.database
    await services.client_authentication.authenticate(*who)
    clock.advance(seconds=1)
    with pytest.raises(Unavailable):
        await services.client_authentication.authenticate(*who)


async def test_a_token_of_the_client_serves_as_its_secret_would(
    http: httpx2.AsyncClient, container: Container, make_client: MakeKnown, clock: ElapsingClock
) -> None:
    """As Bearer at our own routes: with the scopes it was asked for, until it expires or the client is disabled."""
    known = await make_client(scopes=["introspect", "revoke"])

    async def token(scope: str) -> dict[str, str]:
        data = {"grant_type": "client_credentials", "scope": scope}
        granted = await http.post("/oauth2/token", data=data, headers=known.basic)
        return bearer(granted.json()["access_token"])

    full, narrow = await token("introspect"), await token("revoke")
    assert (await ask(http, headers=full)).json() == {"active": False}
    refused = await ask(http, headers=narrow)
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    await container.api_clients.disable(known.client.id, actor=SYSTEM, client=client_at())
    refused = await ask(http, headers=full)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
    assert refused.headers["www-authenticate"] == 'Bearer realm="rota", error="invalid_token"'
    await container.api_clients.enable(known.client.id, actor=SYSTEM, client=client_at())
    assert (await ask(http, headers=full)).status_code == 200
    clock.advance(seconds=900)
    assert (await ask(http, headers=full)).status_code == 401


async def test_tokens_of_people_and_of_clients_never_pass_for_each_other(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, log_in: LogIn
) -> None:
    """A client's token opens no route of people, a person's token none of clients (RFC 9068 section 5)."""
    known = await make_client(scopes=list(ClientScope))
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=known.basic)
    theirs, persons = bearer(granted.json()["access_token"]), bearer((await log_in(somebody))["access_token"])
    for path in ("/me", "/sessions", "/admin/events", "/admin/clients"):
        assert (await http.get(path, headers=theirs)).status_code == 401, path
    assert (await http.post("/logout", headers=theirs)).status_code == 401
    assert (await ask(http, headers=persons)).status_code == 401
    answer = await http.post(f"/admin/users/{somebody.user.id}/sessions", json={"amr": ["pwd"]}, headers=persons)
    assert (answer.status_code, answer.json()["code"]) == (401, "access_token_rejected")


async def test_a_client_without_the_scope_may_not(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """403 insufficient_scope, plain JSON at /oauth2, a problem document elsewhere."""
    known = await make_client(scopes=["authz"])
    answer = await ask(http, headers=known.basic)
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    answer = await http.post(
        "/admin/users/01a20000-0000-7000-8000-000000000000/sessions", json={"amr": ["pwd"]}, headers=known.basic
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_form_where_json_is_due_is_a_wrong_body_not_a_crash(
    http: httpx2.AsyncClient, make_client: MakeKnown
) -> None:
    """The guard has read it already; the route says what it takes."""
    known = await make_client(scopes=["sessions"])
    answer = await http.post("/admin/users/01a20000-0000-7000-8000-000000000000/sessions", data=known.post)
    assert answer.status_code == 415


@given(values=st.lists(st.from_regex(r"[\x21\x23-\x5B\x5D-\x7E]{1,20}", fullmatch=True), max_size=20))
def test_scopes_are_read_as_written(values: list[str]) -> None:
    """Each once, in order; and what is written is read again."""
    once = tuple(dict.fromkeys(values))
    assert read_scope(" ".join(values)) == once
    assert read_scope(write_scope(once)) == once


@pytest.mark.parametrize(
    "text",
    ["a  b", " a", "a ", "a\tb", 'a"b', "a\\b", "ä", "a\x7f", "a\0", "a" * 1001, " ".join(map(str, range(65))), " "],
    ids=ascii,
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    """RFC 6749 section 3.3, and a bound."""
    with pytest.raises(InputInvalid):
        read_scope(text)
