"""
What makes generated requests reach further: some of their values are replaced by live ones.

By the names of members and parameters, so that a new route is reached without more work. Only requests that fit the
document are changed, and not all of them.
"""

from collections.abc import Callable
from typing import Any, Final

from tests.conftest import PASSWORD
from tests.fuzz.world import World

SHARE: Final = 0.7
KNOWN: Final = 0.9
NEW_PASSWORD: Final = "another horse, another battery, another staple"
LONGEST_WAIT: Final = 0.2

IN_PATH: Final = ("user_id", "session_id", "event_id", "revocation_id", "client")


def enliven(world: World, case: Any) -> None:
    """Replace values of a request that fits the document."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and wait > LONGEST_WAIT:
        case.query["wait"] = LONGEST_WAIT
    if "after" in (case.query or {}) and world.dice.random() < KNOWN:
        case.query.pop("after")  # one that is made up is refused before anything else is looked at
    if world.dice.random() > SHARE:
        return
    for name in IN_PATH:
        if name in (case.path_parameters or {}):
            mine = case.path == "/sessions/{session_id}"
            live = world.own_session() if mine else world.one_of(name)
            if live is not None:
                case.path_parameters[name] = live
    if isinstance(case.body, dict):
        _enliven_body(world, case)


def _enliven_body(world: World, case: Any) -> None:
    path, body = case.path, case.body
    special = BODIES.get((case.method, path))
    if special is not None:
        body.clear()
        body.update(special(world))
        return
    for name in list(body):
        if name in MEMBERS:
            body[name] = MEMBERS[name](world)


MEMBERS: Final[dict[str, Callable[[World], Any]]] = {
    "refresh_token": lambda world: world.refresh_token(),
    "new_password": lambda _: NEW_PASSWORD,
    "current_password": lambda _: PASSWORD,
}


def _grant(world: World) -> dict[str, str]:
    match world.dice.randrange(3):
        case 0:
            return {"grant_type": "password", "username": world.username(), "password": PASSWORD}
        case 1:
            return {"grant_type": "refresh_token", "refresh_token": world.oauth_refresh_token()}
    return {"grant_type": "client_credentials"}


def _sign_in(world: World) -> dict[str, str]:
    if world.dice.randrange(2):
        return {"grant_type": "refresh_token", "refresh_token": world.refresh_token()}
    return {"username": world.username(), "password": PASSWORD}


def _presented(world: World) -> dict[str, str]:
    return {"token": world.oauth_refresh_token() if world.dice.randrange(2) else world.refresh_token()}


def _bulk(world: World) -> dict[str, Any]:
    order = world.take("order")
    return order or {"filter": {"client": f"nobody-{world.dice.randrange(9)}"}, "dry_run": True}


# Where members must agree with each other.
BODIES: Final[dict[tuple[str, str], Callable[[World], dict[str, Any]]]] = {
    ("POST", "/token"): _sign_in,
    ("POST", "/register"): lambda world: {
        "username": f"registered-{world.dice.randrange(10**9)}",
        "password": NEW_PASSWORD,
    },
    ("POST", "/logout"): lambda world: {"refresh_token": world.refresh_token()} if world.identity == "none" else {},
    ("PUT", "/password"): lambda world: {"token": world.password_token(), "new_password": NEW_PASSWORD},
    ("POST", "/oauth2/token"): _grant,
    ("POST", "/oauth2/revoke"): _presented,
    ("POST", "/oauth2/introspect"): _presented,
    ("POST", "/admin/sessions/revocations"): _bulk,
}


def learn(world: World, case: Any, status: int, answer: Any) -> None:
    """What an answer tells: that we were refused, or values that are live."""
    if not 200 <= status < 300:
        return
    world.harvest(case.path, answer)
    if isinstance(answer, dict) and isinstance(answer.get("fingerprint"), str) and isinstance(case.body, dict):
        kept = {name: value for name, value in case.body.items() if name in {"filter", "issued_before"}}
        world.keep("order", {**kept, "fingerprint": answer["fingerprint"], "reason": "tried by fuzzing"})
