"""One browser, several people: each stays known."""

from datetime import UTC, datetime
from uuid import UUID

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from app.domain import device_token
from app.domain.device_token import HELD, DeviceToken, join, parse_all
from app.domain.throttling import ACCOUNT
from app.http.cookies import DEVICE
from tests.conftest import PASSWORD, Person
from tests.guessing.conftest import WRONG, Town

KEYS = {7: b"k" * 32}
ISSUED = datetime(2026, 11, 28, tzinfo=UTC)
NUMBERS = st.integers(0, 2**16)


class Browser:
    """Keeps the device cookie."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.held = ""

    async def sign_in(self, person: Person, password: str = PASSWORD, **more: str) -> httpx2.Response:
        form = {"username": person.username, "password": password, "refresh_token_in": "cookie", **more}
        headers = {"sec-fetch-site": "same-origin"} | ({"cookie": f"{DEVICE}={self.held}"} if self.held else {})
        answer = await self.town.request("POST", "/token", data=form, headers=headers)
        for cookie in answer.headers.get_list("set-cookie"):
            if cookie.startswith(f"{DEVICE}="):
                self.held = cookie.removeprefix(f"{DEVICE}=").partition(";")[0]
        return answer


async def test_whoever_signed_in_before_somebody_else(town: Town) -> None:
    """Strangers use up both names; both get in by the browser that they share, and a third person does not."""
    town.cheap()
    people = [await town.person() for _ in range(3)]
    browser = Browser(town)
    for person in people[:2]:
        assert (await browser.sign_in(person)).status_code == 200
    for person in people:
        await town.fail(person.username, ACCOUNT.most)
    assert (await browser.sign_in(people[2])).status_code == 429
    for person in people[:2]:
        assert (await browser.sign_in(person)).status_code == 200
    assert len(browser.held.split(".")) == 2


async def test_each_has_limits_of_their_own(town: Town) -> None:
    """Guessing at one of them from the browser does not make the other a stranger to it."""
    town.cheap()
    one, other = await town.person(), await town.person()
    browser = Browser(town)
    await browser.sign_in(one)
    await browser.sign_in(other)
    await town.fail(other.username, ACCOUNT.most)
    for _ in range(12):
        await browser.sign_in(one, WRONG)
    assert (await browser.sign_in(other)).status_code == 200


async def test_a_token_in_the_form_hides_none_in_the_cookie(town: Town) -> None:
    """The owner of a good cookie gets in, be what the page presents none or others'; so does that of a good field."""
    town.cheap()
    owner, other = await town.person(), await town.person()
    browser = Browser(town)
    await browser.sign_in(owner)
    own, others = browser.held, [await town.device_of(other) for _ in range(4)]
    await town.fail(owner.username, ACCOUNT.most)
    strange = ["rota_dt_bogus", others[0], own[:-1] + ("A" if own[-1] != "A" else "B"), ";".join(others)]
    for useless in (*strange, ".".join(others), ".".join([*others, own])):
        answer = await browser.sign_in(owner, device_token=useless)
        assert answer.status_code == 200, useless
    await town.fail(owner.username, ACCOUNT.most)
    browser.held = others[0]
    assert (await browser.sign_in(owner)).status_code == 429
    assert (await browser.sign_in(owner, device_token=own)).status_code == 200


@given(st.lists(NUMBERS, min_size=1, max_size=12))
def test_what_is_held(numbers: list[int]) -> None:
    """The newest of each of the last four, newest first; whatever came before them is let go."""
    held = ""
    wanted: list[tuple[int, int]] = []
    for turn, number in enumerate(numbers):
        token = DeviceToken(UUID(int=number), UUID(int=turn), ISSUED)
        held = join(device_token.build(7, KEYS[7], token), held)
        wanted = [(number, turn), *(each for each in wanted if each[0] != number)][:HELD]
        assert [(each.user_id.int, each.device_id.int) for each in parse_all(held, KEYS)] == wanted
        assert device_token.is_spelled(held)


@given(st.text(alphabet=".rota_dt-AZ09", max_size=400))
def test_what_is_none_is_let_go(junk: str) -> None:
    """Of whatever a cookie held, only the shape of tokens stays."""
    token = device_token.build(7, KEYS[7], DeviceToken(UUID(int=1), UUID(int=2), ISSUED))
    assert join(token, junk) == token
    assert parse_all(junk, KEYS) == []
    assert not device_token.is_spelled(junk)
