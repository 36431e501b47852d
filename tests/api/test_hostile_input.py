"""Bad input of every kind: 4xx, a problem document, and never an echo."""

import secrets
from typing import Any

import httpx2
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.test_sign_in_api import bearer, log_in, register

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CANARY = "hunter2canary9c1f7a3b5d"


def assert_problem(answer: httpx2.Response, *statuses: int) -> None:
    """RFC 9457, with our members, and nothing of what was sent."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= problem.keys()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in answer.text


REGISTER = [
    pytest.param(b"", {}, id="nothing"),
    pytest.param(b"{", JSON, id="half"),
    pytest.param(b"[]", JSON, id="a list"),
    pytest.param(b"null", JSON, id="null"),
    pytest.param(b'{"username":"a"}', JSON, id="no password"),
    pytest.param(f'{{"username":"a","password":"{CANARY}","role":"admin"}}'.encode(), JSON, id="mass assignment"),
    pytest.param(f'{{"username":"a","password":"long enough","{CANARY}":1}}'.encode(), JSON, id="unknown member"),
    pytest.param(f'{{"username":"a","password":"x{CANARY}","password":"{CANARY}"}}'.encode(), JSON, id="twice"),
    pytest.param(f'{{"username":"a\\u0000","password":"{CANARY}"}}'.encode(), JSON, id="NUL in name"),
    pytest.param(f'{{"username":"a","password":"{CANARY}\\u0000"}}'.encode(), JSON, id="NUL in password"),
    pytest.param(f'{{"username":"a\\ud800","password":"{CANARY}"}}'.encode(), JSON, id="lone surrogate"),
    pytest.param(f'{{"username":"a","password":"{CANARY}\\udfff"}}'.encode(), JSON, id="lone surrogate in password"),
    pytest.param(b'{"username":"\xff","password":"long enough"}', JSON, id="invalid UTF-8"),
    pytest.param(b'{"username":1,"password":"long enough"}', JSON, id="a number"),
    pytest.param(b'{"username":["a"],"password":"long enough"}', JSON, id="a list for a name"),
    pytest.param(b'{"username":"a","password":null}', JSON, id="null password"),
    pytest.param(b'{"username":"a","password":NaN}', JSON, id="NaN"),
    pytest.param(b'{"username":"two words","password":"long enough"}', JSON, id="a name with a space"),
    pytest.param(b'{"username":"a","password":"short"}', JSON, id="short password"),
    pytest.param(b'{"username":"a","password":"' + b"x" * 1025 + b'"}', JSON, id="1,025 bytes"),
    pytest.param(b'{"username":"' + b"x" * 255 + b'","password":"long enough"}', JSON, id="long name"),
    pytest.param(b"[" * 50_000, JSON, id="deep"),
    pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, JSON, id="deep objects"),
    pytest.param(b"1" * 10_000, JSON, id="a huge number"),
]


@pytest.mark.parametrize(("body", "headers"), REGISTER)
async def test_bad_bodies_of_register(http: httpx2.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
    """422 for each."""
    assert_problem(await http.post("/register", content=body, headers=headers), 415, 422)


TOKEN = [
    pytest.param(b"", FORM, 422, id="nothing"),
    pytest.param(f"username=a&password={CANARY}&password=b".encode(), FORM, 422, id="a field twice"),
    pytest.param(b"username=%ff&password=x", FORM, 422, id="invalid UTF-8, escaped"),
    pytest.param(b"username=\xff&password=x", FORM, 422, id="invalid UTF-8, raw"),
    pytest.param(b"username=a%00&password=x", FORM, 422, id="NUL"),
    pytest.param(b"username=%ED%A0%80&password=x", FORM, 422, id="a surrogate in UTF-8"),
    pytest.param(b"username=a&password=", FORM, 422, id="no value"),
    pytest.param(b"username=a&password=" + b"x" * 1025, FORM, 422, id="1,025 bytes"),
    pytest.param(b"&".join(b"f%d=1" % n for n in range(1000)), FORM, 422, id="a thousand fields"),
    pytest.param(b"x", FORM, 422, id="no pairs"),
    pytest.param(b"grant_type=magic&username=a&password=b", FORM, 400, id="unknown grant"),
    pytest.param(b"grant_type=refresh_token", FORM, 422, id="no refresh token"),
    pytest.param(b"grant_type=refresh_token&refresh_token=noise", FORM, 401, id="noise"),
    pytest.param(b"grant_type=refresh_token&refresh_token=x&scope=y", FORM, 400, id="more scope"),
    pytest.param(b'{"username":"a","password":"b"}', JSON, 415, id="JSON"),
    pytest.param(b"username=a&password=b", {"Content-Type": "text/plain"}, 415, id="plain text"),
    pytest.param(b"username=a&password=b", {}, 415, id="no content type"),
    pytest.param(b"username=a&password=b", {"Content-Type": "multipart/form-data; boundary=x"}, 415, id="multipart"),
    pytest.param(
        b"username=a&password=b", {"Content-Type": f"{FORM['Content-Type']}; charset=utf-16"}, 415, id="charset"
    ),
]


@pytest.mark.parametrize(("body", "headers", "status"), TOKEN)
async def test_bad_bodies_of_token(http: httpx2.AsyncClient, body: bytes, headers: dict[str, str], status: int) -> None:
    """Each has its status, and unknown grants and scopes their OAuth error."""
    answer = await http.post("/token", content=body, headers=headers)
    assert_problem(answer, status)
    if status == 400:
        assert answer.json()["error"] in {"unsupported_grant_type", "invalid_scope"}


@pytest.mark.case(13)
@pytest.mark.parametrize("path", ["/token", "/refresh", "/logout", "/register"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_ten_megabytes_are_refused(http: httpx2.AsyncClient, path: str, *, chunked: bool) -> None:
    """413, with and without an announced length."""

    async def chunks() -> Any:
        for _ in range(160):
            yield b"x" * 65_536

    content = chunks() if chunked else b"x" * 10_485_760
    assert_problem(await http.post(path, content=content, headers=FORM if path != "/register" else JSON), 413)


REFRESH = [
    pytest.param({"json": {"refresh_token": "x"}}, 401, id="noise"),
    pytest.param({"json": {"refresh_token": "x" * 8193}}, 422, id="long noise"),
    pytest.param({"json": {"refresh_token": ""}}, 422, id="empty"),
    pytest.param({"json": {"refresh_token": 5}}, 422, id="a number"),
    pytest.param({"json": {"refresh_token": "x", "more": 1}}, 422, id="unknown member"),
    pytest.param({"json": {}}, 422, id="nothing"),
    pytest.param({"data": {"token": "x"}}, 422, id="another field"),
    pytest.param({"content": b"refresh_token=x", "headers": {"Content-Type": "text/plain"}}, 415, id="plain text"),
    pytest.param({"content": b'{"refresh_token":"\\ud83d"}', "headers": JSON}, 422, id="half an emoji"),
]


@pytest.mark.parametrize(("request_", "status"), REFRESH)
async def test_bad_refreshes(http: httpx2.AsyncClient, request_: dict[str, Any], status: int) -> None:
    """Noise is 401 whatever it is; what is no token at all is 422."""
    assert_problem(await http.post("/refresh", **request_), status)


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "bearer\t x", "Bearer " + "x" * 8000, f"Token {CANARY}"],
)
async def test_bad_authorization_headers(http: httpx2.AsyncClient, value: str) -> None:
    """401 with a challenge."""
    answer = await http.get("/me", headers={"Authorization": value})
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_two_authorization_headers_are_refused(http: httpx2.AsyncClient) -> None:
    """Nobody has to guess which one counts."""
    await register(http, name := f"h-{secrets.token_hex(8)}")
    tokens = await log_in(http, name)
    header = bearer(tokens)["Authorization"]
    answer = await http.get("/me", headers=[("Authorization", header), ("Authorization", header)])
    assert_problem(answer, 401)


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/sessions", {"limit": "0"}),
        ("/sessions", {"limit": "101"}),
        ("/sessions", {"limit": "-1"}),
        ("/sessions", {"limit": "1e3"}),
        ("/sessions", {"limit": CANARY}),
        ("/sessions", {"after": CANARY}),
        ("/sessions", {"after": "A" * 33}),
        ("/sessions", {"after": "_" * 32}),
        ("/me/events", {"after": "\0"}),
        ("/me/events", {"limit": "999999999999999999999"}),
        ("/sessions/not-a-uuid", {}),
        ("/sessions/%00", {}),
        (f"/sessions/{CANARY}", {}),
    ],
)
async def test_bad_queries(http: httpx2.AsyncClient, path: str, parameters: dict[str, str]) -> None:
    """422, without the value."""
    await register(http, name := f"h-{secrets.token_hex(8)}")
    tokens = await log_in(http, name)
    assert_problem(await http.get(path, params=parameters, headers=bearer(tokens)), 422)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", f"/{CANARY}", 404),
        ("GET", "/token", 405),
        ("POST", "/token/", 404),
        ("TRACE", "/me", 405),
        ("DELETE", "/refresh", 405),
        ("HEAD", "/me", 405),
        ("OPTIONS", "/token", 405),
    ],
)
async def test_unknown_paths_and_methods(http: httpx2.AsyncClient, method: str, path: str, status: int) -> None:
    """Problem documents too."""
    answer = await http.request(method, path)
    assert answer.status_code == status
    if method != "HEAD":
        assert_problem(answer, status)


LABELS = ["", "x" * 101, "nul\0", 5, ["x"]]


@pytest.mark.parametrize("label", LABELS, ids=repr)
async def test_bad_labels(http: httpx2.AsyncClient, label: Any) -> None:
    """Empty, long, NUL, not text: 422."""
    await register(http, name := f"h-{secrets.token_hex(8)}")
    tokens = await log_in(http, name)
    answer = await http.patch(f"/sessions/{tokens['session_id']}", json={"label": label}, headers=bearer(tokens))
    assert_problem(answer, 422)


async def test_headers_of_others_do_not_say_who_we_are(http: httpx2.AsyncClient) -> None:
    """The peer's address counts, whatever anybody forwards; a long agent is cut."""
    await register(http, name := f"h-{secrets.token_hex(8)}")
    forged = {
        "X-Forwarded-For": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "X-Real-IP": "1.2.3.4",
        "User-Agent": "x" * 9999,
    }
    answer = await http.post(
        "/token", data={"username": name, "password": "correct horse battery staple"}, headers=forged
    )
    tokens = answer.json()
    shown = (await http.get("/sessions", headers=bearer(tokens))).json()["items"][0]
    assert shown["first_ip"] == "203.0.113.7"
    assert shown["user_agent"] == "x" * 512


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/register", "/token", "/refresh", "/logout"]),
    kind=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain"]),
    body=st.binary(max_size=300),
)
async def test_no_bytes_break_a_route(http: httpx2.AsyncClient, path: str, kind: str, body: bytes) -> None:
    """Whatever arrives, the answer is a problem of the 4xx kind."""
    answer = await http.post(path, content=body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_defect_says_nothing(app: Any, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is a 500 with the request id; neither answer nor log has its message."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(type(app.state.container.refresh), "rotate", broken)
    with structlog.testing.capture_logs() as lines:
        answer = await http.post("/refresh", json={"refresh_token": "x"})
    assert_problem(answer, 500)
    (line,) = lines
    assert (line["event"], line["error"]) == ("request.broke", ["builtins.RuntimeError"])
    assert CANARY not in str(line)
