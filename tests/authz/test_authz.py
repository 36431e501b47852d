"""`GET /authz`: 200, 401 or 403, and an identity that only we can have written."""

import asyncpg
import httpx2
import pytest

from app.api import authz
from app.domain.users import Role
from app.main import create_app
from tests.conftest import MakePerson, MovableClock, Person, make_settings

IDENTITY = {
    "x-auth-request-user",
    "x-auth-request-session",
    "x-auth-request-roles",
    "x-auth-request-groups",
    "x-auth-request-client",
    "x-auth-request-scope",
    "remote-user",
    "remote-groups",
}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def identity(answer: httpx2.Response) -> dict[str, list[str]]:
    return {name: answer.headers.get_list(name) for name in answer.headers if name.startswith(("x-auth-", "remote-"))}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_by_any_method(http: httpx2.AsyncClient, person: Person, method: str) -> None:
    """200 with an empty body and all identity headers once; without a token 401 and none of them."""
    issued = await person.sign_in()
    answer = await http.request(method, "/authz", headers=bearer(issued.access_token))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert identity(answer) == {
        "x-auth-request-user": [str(person.user.id)],
        "x-auth-request-session": [str(issued.session_id)],
        "x-auth-request-roles": ["user"],
        "x-auth-request-groups": ["user"],
        "x-auth-request-client": ["first-party"],
        "x-auth-request-scope": [""],
        "remote-user": [str(person.user.id)],
        "remote-groups": ["user"],
    }
    refused = await http.request(method, "/authz")
    assert (refused.status_code, identity(refused)) == (401, {})
    assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_what_the_client_claims_is_not_read(http: httpx2.AsyncClient, person: Person) -> None:
    """Identity headers of the request change nothing, and the body is not looked at."""
    issued = await person.sign_in()
    lies = dict.fromkeys(IDENTITY, "intruder")
    answer = await http.post("/authz", headers={**bearer(issued.access_token), **lies}, content=b"\xff" * 100_000)
    assert answer.status_code == 200
    assert answer.headers["remote-user"] == str(person.user.id)
    assert "intruder" not in str(answer.headers)
    assert (await http.get("/authz", headers=lies)).status_code == 401


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("role=auditor", 200, id="the role"),
        pytest.param("role=admin&role=auditor", 200, id="any of the roles"),
        pytest.param("role=admin", 403, id="another role"),
        pytest.param("role=user", 403, id="roles are not ranked"),
        pytest.param("role=root", 403, id="no such role"),
        pytest.param("role=auditor&role=root", 403, id="no such role beside the right one"),
        pytest.param("role=", 403, id="an empty role"),
        pytest.param("role=AUDITOR", 403, id="a role in capitals"),
        pytest.param("roles=auditor", 403, id="a misspelt parameter"),
        pytest.param("role=auditor&x=1", 403, id="an unknown parameter"),
        pytest.param("role", 403, id="no value"),
        pytest.param("role=%ff", 403, id="not UTF-8"),
        pytest.param("role=auditor" + "&role=admin" * 40, 403, id="too many"),
        pytest.param("scope=files.read", 403, id="a scope it has not"),
        pytest.param("scope=", 403, id="an empty scope"),
        pytest.param("role=auditor&scope=files.read", 403, id="the role without the scope"),
        pytest.param("access_token=x", 403, id="a token where none belongs"),
    ],
)
async def test_requirements(http: httpx2.AsyncClient, make_person: MakePerson, query: str, status: int) -> None:
    """Any of the roles, all of the scopes; what cannot be read is met by nobody, and is never a 422."""
    issued = await (await make_person(role=Role.AUDITOR)).sign_in()
    answer = await http.get(f"/authz?{query}", headers=bearer(issued.access_token))
    assert answer.status_code == status
    assert bool(identity(answer)) == (status == 200)
    assert (await http.get(f"/authz?{query}")).status_code == 401


@pytest.mark.parametrize(
    ("scope", "query", "status"),
    [
        pytest.param("a b", "scope=a", 200, id="one of them"),
        pytest.param("a b", "scope=a&scope=b", 200, id="both, one by one"),
        pytest.param("a b", "scope=b+a", 200, id="both, in another order"),
        pytest.param("a b", "scope=a+c", 403, id="one that is missing"),
        pytest.param("ab", "scope=a", 403, id="a part of a word"),
    ],
)
async def test_scopes(
    http: httpx2.AsyncClient, person: Person, sql: asyncpg.Connection, scope: str, query: str, status: int
) -> None:
    """All of them, word by word; the answer names those that the token has."""
    issued = await person.sign_in()
    await sql.execute("UPDATE families SET scope = $1 WHERE id = $2", scope, issued.session_id)
    issued = await person.refresh(issued.refresh_token)
    answer = await http.get(f"/authz?{query}", headers=bearer(issued.access_token))
    assert answer.status_code == status
    assert answer.headers.get("x-auth-request-scope", scope) == scope


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("first-party", b"first-party"),
        ("files.read files.write", b"files.read files.write"),
        ("x\r\nRemote-User: admin", b""),
        ("x\ny", b""),
        ("x\0", b""),
        ("käse", b""),
    ],
)
def test_a_value_is_one_line_or_nothing(text: str, line: bytes) -> None:
    """Whatever a client is called, it writes no header of its own."""
    assert authz._line(text) == line


async def test_an_ended_and_an_expired_one(http: httpx2.AsyncClient, person: Person, clock: MovableClock) -> None:
    """401 from the moment on."""
    ended, expired = await person.sign_in(), await person.sign_in()
    assert (await http.get("/authz", headers=bearer(ended.access_token))).status_code == 200
    await http.post("/logout", headers=bearer(ended.access_token))
    assert (await http.get("/authz", headers=bearer(ended.access_token))).status_code == 401
    clock.advance(minutes=15)
    assert (await http.get("/authz", headers=bearer(expired.access_token))).status_code == 401


async def test_while_the_database_is_away(person: Person) -> None:
    """503: nobody is let in whom nobody can ask about, and nobody is told to throw a token away."""
    issued = await person.sign_in()
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"), person.services.clock)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
        answer = await http.get("/authz", headers=bearer(issued.access_token))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await http.get("/authz", headers=bearer("nonsense"))).status_code == 401
    await app.state.container.close()
