"""Bytes that no client library sends: each has one meaning or none, a bound, and a 4xx."""

import asyncio
import contextlib
import json
import time

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.http import protocol
from tests.input.conftest import statuses, talk

HOST = b"Host: rota\r\n"
CLOSE = b"Connection: close\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
BODY = b"refresh_token=x"
NEXT = b"GET /livez HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"


async def talk_slowly(port: int, *chunks: bytes) -> bytes:
    """As `talk`, each chunk in a segment of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(0.03)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


def get(target: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + CLOSE + b"".join(headers) + b"\r\n"


def post(*headers: bytes, body: bytes = BODY) -> bytes:
    return b"POST /refresh HTTP/1.1\r\n" + HOST + FORM + b"".join(headers) + b"\r\n" + body


SMUGGLED = [
    pytest.param(post(b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"), id="both lengths"),
    pytest.param(post(b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", body=b"0\r\n\r\n"), id="both, turned"),
    pytest.param(post(b"Content-Length: 15\r\nContent-Length: 14\r\n"), id="two lengths"),
    pytest.param(post(b"Content-Length: 15\r\nContent-Length: 15\r\n"), id="one length twice"),
    pytest.param(post(b"Content-Length: 15, 15\r\n"), id="a list of lengths"),
    pytest.param(post(b"Content-Length: -1\r\n"), id="a negative length"),
    pytest.param(post(b"Content-Length: +15\r\n"), id="a signed length"),
    pytest.param(post(b"Content-Length: 0x0f\r\n"), id="a hexadecimal length"),
    pytest.param(post(b"Content-Length: 15abc\r\n"), id="a length and more"),
    pytest.param(post(b"Content-Length: " + b"9" * 40 + b"\r\n"), id="a length beyond numbers"),
    pytest.param(post(b"Content-Length : 15\r\n"), id="a space before the colon"),
    pytest.param(post(b"Transfer-Encoding: chunked, identity\r\n", body=b"0\r\n\r\n"), id="not chunked at last"),
    pytest.param(post(b"Transfer-Encoding: gzip\r\n", body=b"0\r\n\r\n"), id="another coding"),
    pytest.param(post(b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"), id="nearly chunked"),
    pytest.param(post(b"Transfer-Encoding: chunked\r\n", body=b"-1\r\nx\r\n0\r\n\r\n"), id="a negative chunk"),
    pytest.param(post(b"Transfer-Encoding: chunked\r\n", body=b"zz\r\nx\r\n0\r\n\r\n"), id="a chunk of no size"),
    pytest.param(post(b"Transfer-Encoding: chunked\r\n", body=b"f" * 17 + b"\r\n"), id="a chunk beyond numbers"),
    pytest.param(post(b"Transfer-Encoding: chunked\r\n", body=b"1\r\nxx\r\n0\r\n\r\n"), id="a chunk too long"),
    pytest.param(post(b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n"), id="a coding and chunked"),
    pytest.param(
        b"POST /refresh HTTP/1.0\r\n" + HOST + FORM + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        id="chunked in 1.0",
    ),
    pytest.param(
        post(b"Connection: Upgrade\r\nUpgrade: h2\r\nContent-Length: 15\r\n"), id="another protocol after a body"
    ),
    pytest.param(
        post(b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\nContent-Length: 15\r\n"), id="a choice of protocols"
    ),
    pytest.param(
        post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"),
        id="another protocol after a chunked body",
    ),
    pytest.param(get(b"/livez#rota_rt_x"), id="a fragment"),
    pytest.param(get(b"http://user:word@rota/livez"), id="a name and a password"),
    pytest.param(post(b"X-A: b\r\n c\r\nContent-Length: 15\r\n"), id="a folded line"),
    pytest.param(post(b"X\x00A: b\r\nContent-Length: 15\r\n"), id="NUL in a name"),
    pytest.param(post(b"X-A: b\x00c\r\nContent-Length: 15\r\n"), id="NUL in a value"),
    pytest.param(post(b"Host: other\r\nContent-Length: 15\r\n"), id="two hosts"),
    pytest.param(b"POST /refresh HTTP/1.1\r\n" + FORM + b"Content-Length: 15\r\n\r\n" + BODY, id="no host"),
    pytest.param(b"GET /liv\xe9z HTTP/1.1\r\n" + HOST + b"\r\n", id="a path that is not ASCII"),
    pytest.param(b"GET /liv\x00ez HTTP/1.1\r\n" + HOST + b"\r\n", id="NUL in the path"),
    pytest.param(b"CONNECT rota:443 HTTP/1.1\r\n" + HOST + b"\r\n", id="CONNECT"),
    pytest.param(b"GET http:/// HTTP/1.1\r\n" + HOST + b"\r\n", id="a target without a host"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50, id="TLS"),
    pytest.param(b"GET /livez\r\n\r\n", id="HTTP/0.9"),
]


@pytest.mark.parametrize("request_", SMUGGLED)
async def test_what_two_readers_could_take_for_two_things(port: int, request_: bytes) -> None:
    """400 or another 4xx, once, and the connection ends: what comes behind is nobody's request."""
    answer = await talk(port, request_ + NEXT, seconds=25)
    found = statuses(answer)
    assert len(found) == 1, answer
    assert 400 <= found[0] < 500, answer
    assert b'{"status":"ok"}' not in answer


JAVA = (  # what java.net.http.HttpClient sends first, unless it is told to speak HTTP/1.1
    b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    b"Upgrade: h2c\r\nUser-Agent: Java-http-client/21\r\n"
)


OFFERED = b"POST /refresh HTTP/1.1\r\n" + JAVA + HOST + FORM + b"Content-Length: 15\r\n\r\n" + BODY


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([OFFERED], id="at once"),
        pytest.param([b"\r\n\r\n" + OFFERED], id="after empty lines"),
        *(
            pytest.param([OFFERED[:n], OFFERED[n:]], id=f"torn at {n}")
            for n in (60, 200, *range(len(OFFERED) - 20, len(OFFERED)))
        ),
        pytest.param(
            [post(JAVA, b"Transfer-Encoding: chunked\r\n", body=b"f\r\n" + BODY + b"\r\n0\r\n\r\n")], id="chunked"
        ),
        pytest.param([OFFERED.replace(b"h2c", b"H2C")], id="capitals"),
    ],
)
async def test_an_offer_of_http_2_is_declined(port: int, chunks: list[bytes]) -> None:
    """The request is answered as any other, wherever it is torn; its body is its body, and the next one follows."""
    assert statuses(await talk_slowly(port, *chunks, NEXT)) == [401, 200]


@pytest.mark.parametrize(
    "before", [b"\r\n\r\n", b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"], ids=["empty lines", "another request"]
)
async def test_what_looks_like_an_offer_in_a_body(port: int, before: bytes) -> None:
    """It is the body's, though the end of the head comes with it; nothing of what follows is taken for it."""
    body = b"a=1\r\nUpgrade: h2c\r\n\r\nb=2"
    head = post(b"Content-Length: %d\r\n" % len(body), body=b"")
    for torn in (1, 2, 3, 4):
        answer = await talk_slowly(port, before + head[:-torn], head[-torn:] + body, NEXT)
        assert statuses(answer) == [*([200] if before.strip() else []), 422, 200], torn


@pytest.mark.parametrize("protocol_", [b"h2", b"websocket"])
@pytest.mark.parametrize("body", [b"", BODY], ids=["none", "a body that follows"])
async def test_what_comes_after_an_upgrade_is_nobodys_request(port: int, body: bytes, protocol_: bytes) -> None:
    """In the same segment or in another one: what was to be spoken there is not spoken here."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    upgrade = b"Connection: Upgrade\r\nUpgrade: " + protocol_ + b"\r\n"
    asked = b"GET /livez HTTP/1.1\r\n" + HOST + upgrade + length + b"\r\n"
    hidden = b"GET /openapi.json HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):  # closed already
        writer.write(hidden)
        answer += await asyncio.wait_for(reader.read(), 20)
    writer.close()
    together = await talk(port, asked + body + hidden)
    for each in (answer, together):
        assert statuses(each) == [400 if body else 200]
        assert b"openapi" not in each


async def test_requests_that_wait_for_one_another_are_bounded(port: int) -> None:
    """A few are answered in their order; thousands in one go are cut off."""
    few = b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await talk(port, few * 7 + NEXT)
    assert statuses(answer) == [200] * 8
    assert len(statuses(await talk(port, few * 9000, seconds=25))) <= 9


async def test_a_head_whose_end_is_torn(port: int) -> None:
    """Wherever it is, what follows is body, and counted as that."""
    body = b"refresh_token=" + b"x" * 65_000
    head = post(CLOSE, b"Content-Length: %d\r\n" % len(body), body=b"")
    for torn in (1, 2, 3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head[:-torn])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(head[-torn:] + body)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert statuses(answer) == [422], torn  # such a token is too long, and not the head


async def test_a_connection_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when one would that has said all it had to say."""
    config = uvicorn.Config(lambda: None, timeout_keep_alive=0)
    config.load_app()
    loop, state = asyncio.get_running_loop(), ServerState()
    server = await loop.create_server(
        lambda: protocol.BoundedHttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    server.close()


async def test_refusals_of_the_protocol_are_problems_too(port: int) -> None:
    """With an id, and as safe as the others."""
    head, _, body = (await talk(port, get(b"/" + b"x" * 9000))).partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert problem["status"] == 414
    assert problem["request_id"].encode() in head
    safe = (b"nosniff", b"no-store", b"no-referrer", b"same-origin", b"default-src 'none'", b"max-age=31536000")
    for line in (b"application/problem+json", b"Connection: close", *safe):
        assert line in head


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(get(b"/livez?" + b"x" * (protocol.URL_BYTES_MAXIMUM - 7)), 200, id="the longest URL"),
        pytest.param(get(b"/livez?" + b"x" * (protocol.URL_BYTES_MAXIMUM - 6)), 414, id="one byte more"),
        pytest.param(get(b"/livez", b"X: y\r\n" * (protocol.HEADERS_MAXIMUM - 2)), 200, id="the most headers"),
        pytest.param(get(b"/livez", b"X: y\r\n" * (protocol.HEADERS_MAXIMUM - 1)), 431, id="one header more"),
        pytest.param(get(b"/livez", b"a:\r\n" * 15_000), 431, id="fifteen thousand headers"),
        pytest.param(get(b"/livez", b"X: " + b"y" * 70_000 + b"\r\n"), 431, id="a long header"),
        pytest.param(get(b"/livez", b"User-Agent: " + b"(" * 60_000 + b"\r\n"), 200, id="a long agent"),
    ],
)
async def test_bounds_of_the_head(port: int, request_: bytes, status: int) -> None:
    """On both sides of each."""
    assert statuses(await talk(port, request_)) == [status]


@pytest.mark.case(35)
async def test_a_megabyte_of_a_token_is_refused_by_its_size(port: int) -> None:
    """The head's bound, or the token's: nothing is parsed."""
    dots = b"Authorization: Bearer " + b"." * 20_000 + b"\r\n"
    assert statuses(await talk(port, get(b"/me", dots))) == [401]
    huge = get(b"/me", b"Authorization: Bearer " + b"x" * 2**20 + b"\r\n")
    assert statuses(await talk(port, huge)) in ([431], [])  # the reset may overtake the answer


@pytest.mark.case(52)
async def test_trailers_are_nobodys_headers(port: int) -> None:
    """A proxy that cleans headers does not look behind the body; what stands there says nothing about the client."""
    body = b"f\r\n" + BODY + b"\r\n0\r\nAuthorization: Bearer x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    request = b"POST /oauth2/revoke HTTP/1.1\r\n" + HOST + CLOSE + FORM + b"Transfer-Encoding: chunked\r\n\r\n" + body
    answer = await talk(port, request)
    assert statuses(answer) == [401]  # no client authentication, rather than a wrong one
    assert b'Basic realm="rota"' in answer
    endless = post(b"Transfer-Encoding: chunked\r\n", body=b"f\r\n" + BODY + b"\r\n0\r\nX-A: ")
    flood = await talk(port, endless, *[b"y" * 2**18] * 8)
    assert statuses(flood) in ([413], [])


async def test_chunks_with_words_beside_them(port: int) -> None:
    """Extensions are passed over; without end they are cut."""
    assert statuses(
        await talk(
            port, post(CLOSE, b"Transfer-Encoding: chunked\r\n", body=b'f;a="b";c\r\n' + BODY + b"\r\n0\r\n\r\n")
        )
    ) == [401]
    endless = post(b"Transfer-Encoding: chunked\r\n", body=b"f;a=")
    assert statuses(await talk(port, endless, *[b"y" * 2**18] * 8)) in ([413], [400], [])


async def test_one_byte_a_chunk(port: int) -> None:
    """64 KiB in chunks of one byte are a body as any other."""
    chunks = b"".join(b"1\r\n%c\r\n" % each for each in BODY + b"&a=" + b"b" * 60_000) + b"0\r\n\r\n"
    assert statuses(await talk(port, post(CLOSE, b"Transfer-Encoding: chunked\r\n", body=chunks))) == [401]


async def test_a_body_that_nobody_reads_and_that_never_comes(port: int) -> None:
    """Also a route that does not read it does not keep the connection for whoever never ends it."""
    started = time.monotonic()
    request = b"GET /livez HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n{"
    answer = await talk(port, request, seconds=40)
    assert statuses(answer)[0] == 200
    assert time.monotonic() - started < 39


async def test_expectations_and_upgrades(port: int) -> None:
    """100 only where the body is wanted; no other protocol is spoken; the server's log says nothing of it."""
    expect = b"Expect: 100-continue\r\n"
    wanted = await talk(port, post(CLOSE, expect, b"Content-Length: 15\r\n"))
    assert statuses(wanted)[-1] == 401
    unwanted = b"POST /refresh HTTP/1.1\r\n" + HOST + CLOSE + expect
    unwanted += b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 10000000\r\n\r\n"
    assert statuses(await talk(port, unwanted)) == [415]
    for protocol_ in (b"websocket", b"h2c"):
        upgrade = b"Connection: Upgrade, close\r\nUpgrade: " + protocol_ + b"\r\n"
        upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        answer = await talk(port, b"GET /livez HTTP/1.1\r\n" + HOST + upgrade + b"\r\n")
        assert 101 not in statuses(answer)


@pytest.mark.case(60)
async def test_ten_thousand_parts(port: int) -> None:
    """415 before a part is read, and soon; a Content-Type made for regular expressions likewise."""
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    body = part * 10_000 + b"--b--\r\n"
    head = b"POST /token HTTP/1.1\r\n" + HOST + CLOSE
    request = head + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert statuses(await talk(port, request, body))[:1] in ([415], [])
    slow = b"Content-Type: application/x-www-form-urlencoded; " + b"!=\\" * 10_000 + b"\r\nContent-Length: 3\r\n\r\na=b"
    assert statuses(await talk(port, head + slow)) in ([415], [422])


@pytest.mark.case(61)
async def test_ten_thousand_ranges(port: int) -> None:
    """Passed over: the whole answer."""
    ranges = b"Range: bytes=" + b",".join(b"%d-%d" % (n, n + 1) for n in range(6000)) + b"\r\n"
    for target in (b"/livez", b"/docs", b"/docs/swagger-ui.css", b"/.well-known/jwks.json"):
        answer = await talk(port, get(target, ranges))
        assert statuses(answer)[0] == 200
        assert b"multipart/byteranges" not in answer[:2000]


@pytest.mark.case(63)
async def test_nothing_of_a_request_comes_back_in_a_header(port: int) -> None:
    """No line of an answer's head is the client's, whatever it tries."""
    mark = b"injected9c1f"
    bad = b"/authz?role=%0d%0aSet-Cookie:%20" + mark + b"=1"
    for request in (
        get(bad, b"Authorization: Bearer " + mark + b"\r\n"),
        get(b"/livez%0d%0a" + mark),
        get(
            b"/docs%0d%0aLocation:%20" + mark, b"Origin: https://" + mark + b"\r\n", b"X-Request-Id: " + mark + b"\r\n"
        ),
        get(b"//" + mark + b".example/%2e%2e", b"X-Forwarded-Host: " + mark + b"\r\n"),
        get(b"/.well-known/jwks.json", b'If-None-Match: "' + mark + b'"\r\n'),
    ):
        answer = await talk(port, request)
        assert mark not in answer
        assert b"location:" not in answer.lower()


@pytest.mark.case(64)
@pytest.mark.parametrize("target", [b"/me", b"/token", b"/livez", b"/admin/users", b"/docs", b"/nowhere", b"*"])
@pytest.mark.parametrize("method", [b"TRACE", b"OPTIONS", b"HEAD", b"PUT", b"PROPFIND"])
async def test_methods_on_the_wire(port: int, method: bytes, target: bytes) -> None:
    """A 4xx or what GET would say; a TRACE never gives a header back."""
    answer = await talk(port, get(target, b"Cookie: mark=9c1f7a\r\n", method=method))
    (status,) = statuses(answer)
    assert status < 500
    assert status >= 400 or method == b"HEAD"
    assert b"9c1f7a" not in answer


@pytest.mark.parametrize(
    "target",
    [b"//admin/users", b"/admin/../admin/users", b"/%2e%2e/admin/users", b"/admin/%2e%2e/me", b"/./me", b"/me%00",
     b"/me%0a", b"/%c0%ae%c0%ae/me", b"/%ff", b"/me%2f", b"/%2fme", b"/me;x=y", b"/ME", b"/me%E2%80%8B", b"/%u002e",
     b"/%", b"/%%%", b"\\admin", b"/admin\\users", b"http://evil.example//admin/users", b"/sessions/%00",
     b"/sessions/" + b"a" * 7000, b"/.well-known/oauth-authorization-server/" + b"a/" * 3000],
)  # fmt: skip
async def test_paths_in_other_spellings(port: int, target: bytes) -> None:
    """Nothing is normalised behind a proxy's back: 4xx, and no route by another name."""
    (status,) = statuses(await talk(port, get(target)))
    assert 400 <= status < 500


async def test_the_other_forms_that_are_allowed(port: int) -> None:
    """HTTP/1.0, an absolute target, an empty query."""
    assert statuses(await talk(port, b"GET /livez HTTP/1.0\r\n\r\n")) == [200]
    assert statuses(await talk(port, get(b"http://rota/livez"))) == [200]
    assert statuses(await talk(port, get(b"/livez?"))) == [200]


async def test_whoever_does_not_wait_for_an_answer(port: int) -> None:
    """A refusal never stands where the answer to an earlier request is expected."""
    first = b"GET /readyz HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await talk(port, first + b"GET /livez HTTP/1.1\r\n" + HOST + b"Host: two\r\n\r\n")
    assert statuses(answer) in ([], [200], [200, 400])
    answer = await talk(port, first * 5 + NEXT)
    assert statuses(answer) == [200] * 6


async def test_a_hundred_slow_ones_keep_nobody_out(port: int) -> None:
    """Connections that say nothing cost nobody else anything."""
    writers = []
    for _ in range(100):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nX")
        writers.append(writer)
    assert statuses(await talk(port, NEXT)) == [200]
    for writer in writers:
        writer.close()
