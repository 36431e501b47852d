"""A path that is written out is that path, by every method: it is never read as an id by the route beside it."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route


def words_first(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """
    The routes, and before any that would read a word of another's path as an id one that refuses it with 405.

    `DELETE /admin/sessions/export` ends no session of that id, since there is `GET /admin/sessions/export`.
    """
    return list(_words_first(routes))


def _words_first(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    words: dict[str, set[str]] = {}
    for route in routes:
        if isinstance(route, Route) and "{" not in route.path:
            words.setdefault(route.path, set()).update(route.methods or ())
    for route in routes:
        if isinstance(route, Route) and "{" in route.path:
            for word, methods in words.items():
                others = set(route.methods or ()) - methods
                if others and route.path_regex.match(word):
                    yield Route(word, _refuse, methods=sorted(others), include_in_schema=False)
        yield route


async def _refuse(_: Request) -> Response:
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
