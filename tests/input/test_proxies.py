"""Whose address it is: the peer's, or what a trusted proxy says."""

import re
import secrets
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from app.domain.proxies import HOPS_MAXIMUM, ProxiesInvalid, TrustedProxies, read_hop, read_proxies
from app.main import create_app
from app.settings import SettingsInvalid, load_settings
from tests.conftest import PASSWORD, make_settings
from tests.doctor.conftest import Examine, environment, examine
from tests.input.conftest import talk

__all__ = ["environment", "examine"]  # fixtures

PEER = "203.0.113.7"
NEAR, FAR = "10.0.0.1", "10.0.0.2"
CLIENT = "198.51.100.9"
TRUSTED = read_proxies("10.0.0.0/8,2001:db8:7::/48", anybody_may=False)

CHAINS = [
    pytest.param("1.2.3.4", CLIENT, CLIENT, id="an untrusted peer"),
    pytest.param(f"1.2.3.4, {CLIENT}", NEAR, CLIENT, id="the client's own word stands left"),
    pytest.param(f"1.2.3.4, {CLIENT}, {FAR}", NEAR, CLIENT, id="two proxies"),
    pytest.param(f"{FAR}, {CLIENT}", NEAR, CLIENT, id="a proxy's address sent by the client"),
    pytest.param("", NEAR, NEAR, id="no header"),
    pytest.param(FAR, NEAR, FAR, id="all trusted"),
    pytest.param(f"10.0.0.3,{FAR}", NEAR, "10.0.0.3", id="all trusted, the farthest"),
    pytest.param(f"{CLIENT}:4711", NEAR, CLIENT, id="a port"),
    pytest.param("[2001:db8::9]:4711", NEAR, "2001:db8::9", id="IPv6 with a port"),
    pytest.param("[2001:db8::9]", NEAR, "2001:db8::9", id="brackets"),
    pytest.param("2001:db8::9", NEAR, "2001:db8::9", id="IPv6"),
    pytest.param("2001:DB8:0:0::9", NEAR, "2001:db8::9", id="IPv6 in another spelling"),
    pytest.param(f"::ffff:{CLIENT}", NEAR, CLIENT, id="IPv4 within IPv6"),
    pytest.param(f"{CLIENT}, ::ffff:{FAR}", NEAR, CLIENT, id="a proxy within IPv6"),
    pytest.param(f"{CLIENT}, 2001:db8:7::1", NEAR, CLIENT, id="a proxy of IPv6"),
    pytest.param(f"\t {CLIENT} \t", NEAR, CLIENT, id="spaces"),
    pytest.param(f"{CLIENT}, unknown", NEAR, NEAR, id="unknown"),
    pytest.param(f"{CLIENT}, _hidden, {FAR}", NEAR, FAR, id="obfuscated"),
    pytest.param(f"{CLIENT}, ", NEAR, NEAR, id="empty at the end"),
    pytest.param(f"{CLIENT},,{FAR}", NEAR, FAR, id="empty in the middle"),
    pytest.param("fe80::1%eth0", NEAR, NEAR, id="a zone"),
    pytest.param(f"{CLIENT}, 10.0.0.256", NEAR, NEAR, id="no address"),
    pytest.param("010.0.0.1", NEAR, NEAR, id="leading zeros"),
    pytest.param("3325256713", NEAR, NEAR, id="a number"),
    pytest.param("0x7f.1", NEAR, NEAR, id="hexadecimal"),
    pytest.param(f"{CLIENT}:", NEAR, NEAR, id="no port"),
    pytest.param(f"{CLIENT}:65536", NEAR, NEAR, id="no such port"),
    pytest.param(f"{CLIENT}:٣", NEAR, NEAR, id="a port in other digits"),
    pytest.param(f"[{CLIENT}]", NEAR, NEAR, id="IPv4 in brackets"),
    pytest.param("[2001:db8::9", NEAR, NEAR, id="half a bracket"),
    pytest.param("[2001:db8::9]4711", NEAR, NEAR, id="a bracket and no colon"),
    pytest.param(f'"{CLIENT}"', NEAR, NEAR, id="quotes"),
    pytest.param(f"for={CLIENT}", NEAR, NEAR, id="as in Forwarded"),
    pytest.param(f"{CLIENT} {FAR}", NEAR, NEAR, id="no comma"),
    pytest.param(f"{CLIENT}\0", NEAR, NEAR, id="NUL"),
    pytest.param("::1\r\nX: y", NEAR, NEAR, id="lines"),
    pytest.param(",".join(["1.2.3.4"] * 10_000), NEAR, "1.2.3.4", id="ten thousand"),
    pytest.param(",".join([CLIENT, *[FAR] * 10_000]), NEAR, FAR, id="ten thousand proxies"),
    pytest.param(f"{CLIENT}," + FAR + " " * 5000, NEAR, NEAR, id="five thousand spaces"),
    pytest.param("9" * 60_000 + f",{CLIENT}", NEAR, CLIENT, id="a long word of the client's"),
    pytest.param(CLIENT, "2001:db8:7::5", CLIENT, id="a peer of IPv6"),
]


@pytest.mark.case(50)
@pytest.mark.parametrize(("header", "peer", "client"), CHAINS)
def test_from_the_peer_inward(header: str, peer: str, client: str) -> None:
    """The first address that is not a trusted proxy's; what cannot be read ends the search at the nearest verified."""
    assert TRUSTED.client_of(ip_address(peer), header.encode()) == ip_address(client)


def test_no_more_proxies_than_anybody_has() -> None:
    """The search is bounded, and says the same each time."""
    assert TRUSTED.client_of(ip_address(NEAR), ",".join([CLIENT, *[FAR] * (HOPS_MAXIMUM - 1)]).encode()) == ip_address(
        CLIENT
    )
    assert TRUSTED.client_of(ip_address(NEAR), ",".join([CLIENT, *[FAR] * HOPS_MAXIMUM]).encode()) == ip_address(FAR)


def test_half_an_address_at_the_cut_is_none() -> None:
    """Where the header is cut, what remains of an entry may look like another one."""
    for spaces in range(2020, 2060):
        header = b"110.0.0.2" + b" " * spaces + b"," + FAR.encode()
        assert TRUSTED.client_of(ip_address(NEAR), header) in {ip_address(FAR), ip_address("110.0.0.2")}


@given(header=st.binary(max_size=300), peer=st.ip_addresses(), trust=st.ip_addresses(network="10.0.0.0/8"))
def test_no_bytes_break_it(header: bytes, peer: Any, trust: Any) -> None:
    """Always an address, and never one of the header's behind a peer that nobody trusts."""
    found = TRUSTED.client_of(peer, header)
    assert found is not None
    if not TRUSTED.trust(peer):
        assert found == peer
    assert TRUSTED.client_of(trust, header) is not None


@given(st.text(max_size=80))
def test_an_entry_is_an_address_or_nothing(text: str) -> None:
    """Whatever it is; and an address has no zone, which a database could not store."""
    found = read_hop(text.encode("utf-8", "surrogatepass"))
    assert found is None or "%" not in str(found)


def test_peers_behind_a_unix_socket() -> None:
    """They have no address; their word counts if they are listed by that name."""
    assert TRUSTED.client_of(None, CLIENT.encode()) is None
    assert read_proxies("unix", anybody_may=False).client_of(None, CLIENT.encode()) == ip_address(CLIENT)
    assert read_proxies("unix", anybody_may=False).client_of(None, b"nonsense") is None
    assert read_proxies("unix", anybody_may=False).client_of(ip_address(PEER), CLIENT.encode()) == ip_address(PEER)


ANYBODY = ["*", "0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.1,*", "::ffff:0.0.0.0/96", "2000::/3",
           "2000::/7", "2000::/12", "::/1, 8000::/1", "64.0.0.0/2", " * ", "unix,*", "0.0.0.0/00"]  # fmt: skip


@pytest.mark.case(53)
@pytest.mark.parametrize("value", ANYBODY)
def test_anybody_is_trusted_by_nobody(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Refused in every spelling, also put together from halves, unless somebody says that he means it."""
    monkeypatch.setenv("ROTA_DATABASE_URL", "postgresql:///x")
    monkeypatch.setenv("ROTA_TRUSTED_PROXIES", value)
    with pytest.raises(SettingsInvalid, match=r"^ROTA_TRUSTED_PROXIES") as refused:
        load_settings()
    assert "ROTA_UNSAFE_TRUST_ANY_PROXY" in str(refused.value)
    monkeypatch.setenv("ROTA_UNSAFE_TRUST_ANY_PROXY", "true")
    proxies = load_settings().proxies
    assert proxies.anybody
    assert proxies.client_of(ip_address(PEER), b"1.2.3.4, 5.6.7.8") == ip_address("1.2.3.4")


@pytest.mark.parametrize(
    "value", ["10.0.0.1/8", "proxy.example.com", "10.0.0.0/33", "10.0.0", "fe80::1%eth0", ",", "10.0.0.1,,10.0.0.2",
              "10.0.0.1;10.0.0.2", "10.0.0.1 10.0.0.2", "UNIX", ",".join(["10.0.0.1"] * 257)],
)  # fmt: skip
def test_a_list_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Nothing is guessed, and the message has no value of it."""
    monkeypatch.setenv("ROTA_DATABASE_URL", "postgresql:///x")
    monkeypatch.setenv("ROTA_TRUSTED_PROXIES", value)
    with pytest.raises(SettingsInvalid, match=r"^ROTA_TRUSTED_PROXIES") as refused:
        load_settings()
    assert "10.0.0.1" not in str(refused.value)
    with pytest.raises(ProxiesInvalid):
        read_proxies(value, anybody_may=True)


def test_nobody_is_trusted_by_default() -> None:
    """Without a setting, a header is not even looked at."""
    assert make_settings("postgresql:///x").proxies == TrustedProxies()
    assert not TrustedProxies()


MakeHttp = Callable[..., httpx2.AsyncClient]


@pytest_asyncio.fixture
async def behind(database_url: str) -> AsyncIterator[MakeHttp]:
    """Applications with proxies of their own."""
    made: list[FastAPI] = []

    def make(peer: str, **settings: Any) -> httpx2.AsyncClient:
        made.append(create_app(make_settings(database_url, **settings)))
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(made[-1], client=(peer, 4711)), base_url="http://rota")

    yield make
    for app in made:
        await app.state.container.close()


async def seen(http: httpx2.AsyncClient, headers: list[tuple[str, str]]) -> str | None:
    """The address that somebody's session is said to come from."""
    name = f"proxied-{secrets.token_hex(6)}"
    await http.post("/register", json={"username": name, "password": PASSWORD})
    pair = (await http.post("/token", data={"username": name, "password": PASSWORD}, headers=headers)).json()
    shown = await http.get("/sessions", headers={"Authorization": f"Bearer {pair['access_token']}"})
    address: str | None = shown.json()["items"][0]["first_ip"]
    return address


@pytest.mark.case(50)
@pytest.mark.case(52)
async def test_what_a_session_and_its_event_say(behind: MakeHttp) -> None:
    """The whole way: several lines are one, other headers are nobody's, and a stranger's header counts for nothing."""
    others = [("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6"), ("X-Client-IP", "6.6.6.6"),
              ("X-Original-URL", "/admin/users"), ("X-Forwarded-Host", "evil.example"),
              ("X-Forwarded-Proto", "https"), ("X-Forwarded-Server", "6.6.6.6"), ("True-Client-IP", "6.6.6.6"),
              ("CF-Connecting-IP", "6.6.6.6"), ("X_Forwarded_For", "6.6.6.6")]  # fmt: skip
    lines = [("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", f"{CLIENT}, {FAR}")]
    trusting = behind(NEAR, trusted_proxies="10.0.0.0/8")
    assert await seen(trusting, [*others, *lines]) == CLIENT
    assert await seen(trusting, others) == NEAR
    assert await seen(trusting, [("X-Forwarded-For", f"{CLIENT}, nonsense")]) == NEAR
    assert await seen(behind(PEER, trusted_proxies="10.0.0.0/8"), [*others, *lines]) == PEER
    assert await seen(behind(PEER), [*others, *lines]) == PEER
    unsafe = behind(PEER, trusted_proxies="*", unsafe_trust_any_proxy=True)
    assert await seen(unsafe, [("X-Forwarded-For", "6.6.6.6, 7.7.7.7")]) == "6.6.6.6"
    assert await seen(behind("", trusted_proxies="unix"), [("X-Forwarded-For", CLIENT)]) == CLIENT
    assert await seen(behind("fe80::1%eth0"), lines) == "fe80::1"


async def test_the_server_believes_its_proxy_and_no_setting_of_uvicorn(port: int) -> None:
    """`rota serve` with FORWARDED_ALLOW_IPS=*: only what ours has added counts."""
    name = f"proxied-{secrets.token_hex(6)}"
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for header, address in ((f"6.6.6.6, {CLIENT}", CLIENT), ("6.6.6.6, oops", "127.0.0.1")):
            assert await seen(http, [("X-Forwarded-For", header)]) == address, name
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    lines = b"".join(b"X-Forwarded-For: 1.2.3.4\r\n" for _ in range(90))
    assert b" 200 " in await talk(port, head + lines + b"\r\n")


async def test_the_start_says_that_anybody_is_trusted(database_url: str) -> None:
    """A line at each start; and none where proxies are named."""
    for value, unsafe, said in (("*", True, True), (NEAR, False, False)):
        app = create_app(make_settings(database_url, trusted_proxies=value, unsafe_trust_any_proxy=unsafe))
        with structlog.testing.capture_logs() as lines:
            async with app.router.lifespan_context(app):
                pass
        assert ("proxies.anybody_trusted" in {line["event"] for line in lines}) is said


@pytest.mark.parametrize(
    ("more", "verdict", "says"),
    [
        ({"ROTA_TRUSTED_PROXIES": "*", "ROTA_UNSAFE_TRUST_ANY_PROXY": "true"}, "failure", "another address"),
        ({"ROTA_ISSUER": "https://login.example.com"}, "warning", "none is trusted"),
        ({"ROTA_ISSUER": "https://login.example.com", "ROTA_TRUSTED_PROXIES": "10.0.0.1,unix"}, "ok", "10.0.0.1/32"),
        ({}, "ok", "peer's"),
    ],
)
async def test_the_doctor_looks_at_it(examine: Examine, more: dict[str, str], verdict: str, says: str) -> None:
    """What trusts anybody is a failure; a proxy that nobody named, a warning."""
    found = (await examine("settings.proxies", more=more)).finding
    assert found.verdict.value == verdict
    assert re.search(says, found.why)


async def test_a_flag_without_a_star_is_a_contradiction(examine: Examine) -> None:
    """It would lie there until somebody writes a star beside it."""
    more = {"ROTA_TRUSTED_PROXIES": "10.0.0.1", "ROTA_UNSAFE_TRUST_ANY_PROXY": "true"}
    assert "UNSAFE" in (await examine("settings.contradictions", more=more)).finding.why
