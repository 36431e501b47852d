"""
What a real browser makes of it: Chromium, where it and Playwright are installed, else these tests are skipped.

Rota is at http://localhost, which browsers trust as if it were encrypted. Pages of other ports of localhost are of the
same site and another origin; those of 127.0.0.1 are of another site.
"""

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.browser.conftest import REFRESH
from tests.cli.test_cli import free_port
from tests.conftest import PASSWORD, SECRET

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "integration" / "browsers.md"
EVIL_FORM = """
(fields) => new Promise(() => {
  const form = document.createElement("form");
  form.method = "POST";
  form.action = fields.action;
  for (const [name, value] of Object.entries(fields.values || {})) {
    const input = document.createElement("input");
    input.name = name;
    input.value = value;
    form.append(input);
  }
  document.body.append(form);
  form.submit();
})
"""


@dataclass
class Site:
    """A browser, Rota, and two servers of pages: one is listed, the other is not."""

    context: Any
    rota: str
    app: str
    evil_sibling: str
    evil_stranger: str

    async def page(self, url: str, script: str = "") -> Any:
        page = await self.context.new_page()
        await page.goto(url)
        if script:
            await page.add_script_tag(content=script)
        return page

    async def cookie(self) -> dict[str, Any] | None:
        found = [each for each in await self.context.cookies(self.rota) if each["name"] == REFRESH]
        assert len(found) <= 1
        return found[0] if found else None


async def answer_with_page(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = b"<!doctype html><title>a page</title><body></body>"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()


@dataclass
class Rig:
    """What the tests of this module share: a browser, and who listens where."""

    browser: Any
    rota: int
    app: int
    evil: int


@pytest_asyncio.fixture(scope="module")
async def rig(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    rota, app, evil = free_port(), free_port(), free_port()
    pages = [await asyncio.start_server(answer_with_page, "127.0.0.1", each) for each in (app, evil)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    settings = {
        "ROTA_DATABASE_URL": database_url,
        "ROTA_SECRETS": SECRET,
        "ROTA_ISSUER": f"http://localhost:{rota}",
        "ROTA_REGISTRATION": "open",
        "ROTA_CORS_ORIGINS": f"http://localhost:{app}",
    }
    with (tmp_path_factory.mktemp("rota") / "log").open("wb") as log:
        words = [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", str(rota)]
        served = subprocess.Popen(words, env={**clean, "PYTHONPATH": str(ROOT), **settings}, stderr=log, stdout=log)
    try:
        async with httpx2.AsyncClient() as http:
            while not await is_ready(http, f"http://127.0.0.1:{rota}/readyz"):
                assert served.poll() is None
                await asyncio.sleep(0.1)
        async with playwright.async_playwright() as started:
            browser = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield Rig(browser, rota, app, evil)
            await browser.close()
    finally:
        served.terminate()
        await asyncio.to_thread(served.wait)
        for each in pages:
            each.close()


async def is_ready(http: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx2.TransportError:
        return False


@pytest_asyncio.fixture
async def site(rig: Rig) -> AsyncIterator[Site]:
    """With cookies of its own."""
    context = await rig.browser.new_context(bypass_csp=True)  # to put the example into a page of ours
    yield Site(
        context=context,
        rota=f"http://localhost:{rig.rota}",
        app=f"http://localhost:{rig.app}",
        evil_sibling=f"http://localhost:{rig.evil}",
        evil_stranger=f"http://127.0.0.1:{rig.evil}",
    )
    await context.close()


@pytest_asyncio.fixture
async def name(site: Site) -> str:
    made = f"browser-{secrets.token_hex(8)}"
    answer = await site.context.request.post(f"{site.rota}/register", data={"username": made, "password": PASSWORD})
    assert answer.status == 201
    return made


def example(rota: str) -> str:
    """The script of the documentation."""
    found = re.search(r"^```js example\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found.group(1).replace('const rota = ""', f'const rota = "{rota}"')


@pytest.mark.parametrize("own", [True, False], ids=["own origin", "listed origin"])
async def test_the_documented_way(site: Site, name: str, *, own: bool) -> None:
    """
    The documentation's script, on Rota's origin and on a listed one: sign in, reload, go on by the cookie, which no
    script sees; sign out, and it is gone, with what the origin had stored.
    """
    at, script = (f"{site.rota}/livez", example("")) if own else (site.app, example(site.rota))
    page = await site.page(at, script)
    await page.evaluate("([name, password]) => signIn(name, password)", [name, PASSWORD])
    first = await site.cookie()
    assert first is not None
    assert (first["httpOnly"], first["secure"], first["sameSite"], first["path"]) == (True, True, "Strict", "/")
    assert first["domain"] == "localhost"
    assert REFRESH not in await page.evaluate("document.cookie")
    await page.evaluate("localStorage.setItem('draft', 'kept by the page')")
    await page.goto(at)  # the access token was the former page's, and is lost
    await page.add_script_tag(content=script)
    me = await page.evaluate("refresh().then(() => call('/me')).then((answer) => answer.json())")
    assert me["username"] == name
    second = await site.cookie()
    assert second is not None
    assert second["value"] != first["value"]
    at_once = await page.evaluate("Promise.all([1, 2, 3, 4, 5].map(() => refresh().then(() => access)))")
    assert len(set(at_once)) == 1  # the first did it for all
    await page.evaluate("signOut()")
    assert await site.cookie() is None
    kept = await page.evaluate("localStorage.getItem('draft')")
    assert kept is None if own else kept == "kept by the page"  # the app's storage is the app's
    refused = await page.evaluate("refresh().catch((error) => error.message)")
    assert refused == "input_invalid"


async def test_many_tabs_refresh_at_once(site: Site, name: str) -> None:
    """Four tabs, each four times, as fast as they can: nobody is taken for a thief, and nobody is signed out."""
    tabs = [await site.page(site.app, example(site.rota)) for _ in range(4)]
    await tabs[0].evaluate("([name, password]) => signIn(name, password)", [name, PASSWORD])
    for _ in range(4):
        got = await asyncio.gather(*(tab.evaluate("refresh().then(() => access)") for tab in tabs))
        assert len(set(got)) == 4
    statuses = await asyncio.gather(*(tab.evaluate("call('/me').then((answer) => answer.status)") for tab in tabs))
    assert statuses == [200] * 4


async def test_a_page_cannot_touch_the_cookie(site: Site, name: str) -> None:
    """Not read it, not write one of its name, and not have it stand twice."""
    page = await site.page(f"{site.rota}/livez", example(""))
    await page.evaluate("([name, password]) => signIn(name, password)", [name, PASSWORD])
    sibling = await site.page(site.evil_sibling)
    for place in (page, sibling):
        for text in (
            f"{REFRESH}=evil; Path=/; Secure",
            f"{REFRESH}=evil; Path=/refresh; Secure",
            f"={REFRESH}=evil; Path=/; Secure",
            f"{REFRESH}=; Max-Age=0; Path=/; Secure",
        ):
            await place.evaluate("(text) => { document.cookie = text }", text)
    assert await page.evaluate("refresh().then(() => call('/me')).then((answer) => answer.status)") == 200


Act = Callable[[Any, str], Any]


async def by_fetch(page: Any, url: str, body: str = "") -> None:
    """As far as a page gets without leave: `no-cors`, and the body as a form or as text. It sees no answer."""
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        await page.evaluate(
            "([url, body, kind]) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body,"
            " headers: {'Content-Type': kind}}).then(() => { throw 'seen' }, () => {})",
            [url, body, kind],
        )


@pytest.mark.parametrize("kin", ["sibling", "stranger"])
async def test_a_foreign_page_can_do_nothing(site: Site, name: str, kin: str) -> None:
    """
    A page of another host of the same site, which browsers send the cookie from, and one of another site: neither by
    fetch nor by a form does it refresh, sign out, or sign somebody else in; nor can it read an answer.
    """
    own = await site.page(f"{site.rota}/livez", example(""))
    await own.evaluate("([name, password]) => signIn(name, password)", [name, PASSWORD])
    before = await site.cookie()
    evil = site.evil_sibling if kin == "sibling" else site.evil_stranger
    page = await site.page(evil)
    seen: list[tuple[str, int]] = []
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url.removeprefix(site.rota)))
    page.on("response", lambda answer: seen.append((answer.url.removeprefix(site.rota), answer.status)))
    sign_in = {"username": name, "password": PASSWORD, "refresh_token_in": "cookie"}
    for path in ("/refresh", "/logout"):
        await by_fetch(page, f"{site.rota}{path}")
    await by_fetch(page, f"{site.rota}/token", "&".join(f"{key}={value}" for key, value in sign_in.items()))
    read = await page.evaluate(
        "(url) => fetch(url, {method: 'POST', credentials: 'include'}).then(() => 'read', () => 'refused')",
        f"{site.rota}/refresh",
    )
    assert read == "refused"
    for path, values in (("/refresh", {}), ("/logout", {}), ("/token", sign_in)):
        await page.goto(evil)
        async with page.expect_navigation():
            fields = {"action": f"{site.rota}{path}", "values": values}
            await page.evaluate(f"(fields) => {{ ({EVIL_FORM})(fields) }}", fields)
    paths = {"/refresh", "/logout", "/token"}
    assert sum(path in paths for path in sent) >= 9
    asked = [(path, status) for path, status in seen if path in paths]
    assert {path for path, _ in asked} == paths
    # The sibling's requests carry the cookie; the stranger's have none, and so nothing to misuse.
    statuses = {403} if kin == "sibling" else {401, 403, 415, 422}
    assert {status for _, status in asked} <= statuses, asked
    assert {status for path, status in asked if path == "/token"} <= {403, 415}
    assert await site.cookie() == before
    assert await own.evaluate("refresh().then(() => call('/me')).then((answer) => answer.status)") == 200


async def test_two_people_at_one_real_browser(site: Site, name: str) -> None:
    """One tab is told that the cookie is somebody else's by now, and does not become them."""
    other = f"browser-{secrets.token_hex(8)}"
    await site.context.request.post(f"{site.rota}/register", data={"username": other, "password": PASSWORD})
    one, two = [await site.page(f"{site.rota}/livez", example("")) for _ in range(2)]
    await one.evaluate("([name, password]) => signIn(name, password)", [name, PASSWORD])
    await two.evaluate("([name, password]) => signIn(name, password)", [other, PASSWORD])
    assert await one.evaluate("refresh().catch((error) => error.message)") == "credentials_disagree"
    me = await two.evaluate("refresh().then(() => call('/me')).then((answer) => answer.json())")
    assert me["username"] == other
