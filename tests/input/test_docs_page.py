"""The one page there is, under a policy that lets no stranger's script run in it."""

import asyncio
import re
import shutil
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from app.main import create_app
from tests.conftest import make_settings

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ASSETS = ["/docs/start.js", "/docs/swagger-ui.js", "/docs/swagger-ui.css"]


def policy(answer: httpx2.Response) -> dict[str, list[str]]:
    given = answer.headers.get_list("content-security-policy")
    assert len(given) == 1
    return {words[0]: words[1:] for part in given[0].split(";") if (words := part.split())}


async def test_nothing_of_another_host_and_nothing_inline(http: httpx2.AsyncClient) -> None:
    """The policy denies by default, allows no inline script or style, no frame, and the page needs none."""
    answer = await http.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    allowed = policy(answer)
    assert allowed["default-src"] == allowed["frame-ancestors"] == allowed["base-uri"] == ["'none'"]
    assert allowed["script-src"] == allowed["style-src"] == allowed["connect-src"] == ["'self'"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"
    assert not re.search(r"https?:|//|<script(?![^>]*src=)|<style|\son\w+=|style=", answer.text)


@pytest.mark.parametrize("path", ["/docs", *ASSETS])
async def test_files_are_kept_by_their_tag(http: httpx2.AsyncClient, path: str) -> None:
    """A copy is asked about, and not sent again; HEAD has the same headers and no body."""
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.content
    again = await http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await http.head(path)
    assert head.headers["etag"] == answer.headers["etag"]
    assert "javascript" in answer.headers["content-type"] if path.endswith(".js") else True


@pytest.mark.parametrize(
    "path",
    [
        "/docs/", "/docs/../admin/users", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%2e%2e/%2e%2e/etc/passwd",
        "/docs/redoc.standalone.js", "/docs/oauth2-redirect", "/docs//etc/passwd", "/redoc",
    ],
)  # fmt: skip
async def test_only_these_files_can_be_had(http: httpx2.AsyncClient, path: str) -> None:
    """Names are a list, not a folder."""
    answer = await http.request("GET", httpx2.URL(f"http://rota{path}"))
    assert answer.status_code in {401, 404}


async def test_a_browser_shows_it_without_a_complaint(port: int, tmp_path: Path) -> None:
    """A real browser renders the operations, and refuses nothing under the policy."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    words += [
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"http://127.0.0.1:{port}/docs",
    ]
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    dom, said = await asyncio.wait_for(browser.communicate(), 120)
    assert b"opblock-summary-path" in dom, said.decode()[-2000:]
    assert dom.count(b"opblock-summary-method") > 40
    complaints = [line for line in said.decode().splitlines() if "CONSOLE" in line or "Content Security Policy" in line]
    assert not complaints, complaints


@pytest.mark.parametrize("issuer", ["https://login.example.com", "http://127.0.0.1:8000"])
async def test_https_for_good_where_the_issuer_says_so(database_url: str, issuer: str) -> None:
    """Every kind of answer, a refusal too; and nowhere else, since a browser would remember it."""
    app: FastAPI = create_app(make_settings(database_url, issuer=issuer))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") as http:
        for path in ("/docs", "/livez", "/nowhere", "/me", "/me?token=x"):
            given = (await http.get(path)).headers.get("strict-transport-security")
            assert given == ("max-age=31536000" if issuer.startswith("https") else None)
    await app.state.container.close()
