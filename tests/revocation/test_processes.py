"""Two real server processes."""

import asyncio
import secrets

import httpx2

from benchmarks import rig
from tests.conftest import PASSWORD, SECRET


async def test_ended_in_one_refused_in_the_other(database_url: str) -> None:
    """By the process that ended it at once, by the other within its bound; a session beside it lives on in both."""
    username = f"processes-{secrets.token_hex(8)}"
    with (
        rig.rota(database_url, ROTA_SECRETS=SECRET, ROTA_REGISTRATION="open") as first,
        rig.rota(database_url, seals=False, ROTA_SECRETS=SECRET) as second,
    ):
        async with (
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{first}") as here,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{second}") as there,
        ):
            registered = await here.post("/register", json={"username": username, "password": PASSWORD})
            assert registered.status_code == 201
            spared, *others = [
                (await here.post("/token", data={"username": username, "password": PASSWORD})).json()["access_token"]
                for _ in range(6)
            ]
            for number, token in enumerate(others):
                headers = {"Authorization": f"Bearer {token}"}
                ending, other = (here, there) if number % 2 else (there, here)
                assert [(await one.get("/me", headers=headers)).status_code for one in (here, there)] == [200, 200]
                assert (await ending.post("/logout", headers=headers)).status_code == 200
                assert (await ending.get("/me", headers=headers)).status_code == 401
                async with asyncio.timeout(10):
                    while (await other.get("/me", headers=headers)).status_code == 200:
                        pass
                assert (await other.get("/me", headers=headers)).status_code == 401
            headers = {"Authorization": f"Bearer {spared}"}
            assert [(await one.get("/me", headers=headers)).status_code for one in (here, there)] == [200, 200]
