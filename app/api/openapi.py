"""
The OpenAPI document: what a route may refuse, and how, follows from what it states, its guards, its body and the one
table of errors. A new route is described by being there; what only it can refuse it states with `refuses=`.
"""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.client_auth import AnyClientGuard, ClientWith
from app.api.dependencies import Access
from app.api.parameter_texts import PARAMETERS
from app.domain import errors
from app.http import errors as http_errors
from app.http import oauth_errors
from app.http.urls import ANSWERS_ITSELF

Json = dict[str, Any]
Kinds = Iterable[type[errors.RotaError]]

DESCRIPTION: Final = """\
Errors are problem documents (RFC 9457) with a stable `code` and the `request_id`; those of `/oauth2/*` are as RFC 6749
section 5.2 has them. A request whose head is larger than 64 KiB or takes more than ten seconds is answered 431 or 408,
and the connection ends; a path that is not here 404; a method that is not here 405.
"""

USER: Final = "OAuth2PasswordBearer"
BASIC: Final = "APIClient"
CLIENT_TOKEN: Final = "APIClientToken"  # noqa: S105 - the name of a scheme
OPERATOR: Final = "Operator"

_SCHEMES: Final[Json] = {
    BASIC: {
        "type": "http",
        "scheme": "basic",
        "description": "`client_id` and `client_secret`, form-encoded (RFC 6749 section 2.3.1). A form may have both "
        "as fields instead; a public client says its `client_id` only.",
    },
    CLIENT_TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of the client credentials grant.",
    },
    OPERATOR: {"type": "http", "scheme": "bearer", "description": "`ROTA_OPERATOR_TOKEN`."},
}

# What any request may be answered.
_ALWAYS: Final = (errors.RotaError, errors.Unavailable)
_BODY: Final = (
    errors.InputInvalid,
    http_errors.BodyTooLarge,
    http_errors.BodyTooSlow,
    http_errors.UnsupportedMediaType,
)

_BY_ACCESS: Final[dict[str, Kinds]] = {
    Access.ANYONE: (),
    Access.SIGNED_IN: (errors.AccessTokenRejected,),
    Access.AUDITOR: (errors.AccessTokenRejected, errors.NotPermitted, errors.InputInvalid),
    Access.ADMIN: (errors.AccessTokenRejected, errors.NotPermitted, errors.InputInvalid),
    Access.OPERATOR: (errors.OperatorTokenRejected,),
    Access.CLIENT: (errors.ClientRejected, *_BODY),  # its name may be in a form
}
_BY_PLACE: Final[dict[str, type[errors.RotaError]]] = {
    "user_id": errors.UserNotFound,
    "session_id": errors.SessionNotFound,
    "event_id": errors.EventNotFound,
    "revocation_id": errors.RevocationNotFound,
    "client": errors.ClientNotFound,
    "path": http_errors.PathNotFound,
}
# Members of a body that somebody may be guessing: the answers by which guessing is held up.
_GUESSED: Final = frozenset({"password", "current_password"})
_HOLDING_UP: Final = tuple(
    kind
    for kind, answer in http_errors.ANSWERS.items()
    if answer.status is HTTPStatus.TOO_MANY_REQUESTS and kind is not errors.TooManyStreams
)

_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; the words of `detail` are not.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:rota:problem:"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^[a-z0-9_]+$"},
        "request_id": {"type": "string", "format": "uuid"},
        "error": {"type": "string", "description": "Where RFC 6749 or RFC 6750 has a word for it."},
        "error_description": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Where the input is wrong, never what it was.",
            "items": {
                "type": "object",
                "required": ["loc", "type", "msg"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "type": {"type": "string"},
                    "msg": {"type": "string"},
                },
            },
        },
        "password_token": {"type": "string", "description": "With `password_change_required`: for `PUT /password`."},
        "expires_in": {"type": "integer", "description": "Of `password_token`, in seconds."},
    },
}
_OAUTH_ERROR: Final[Json] = {
    "type": "object",
    "description": "RFC 6749 section 5.2.",
    "required": ["error", "error_description"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}
_HEADERS: Final[Json] = {
    "X-Request-ID": {"description": "As in our log and trail.", "schema": {"type": "string", "format": "uuid"}},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "RFC 9110 section 11.6.1.", "schema": {"type": "string"}},
}


class DocumentedApi(FastAPI):
    """FastAPI, whose document says what our routes answer beside what they return."""

    issuer = ""  # where we are, as `ROTA_ISSUER` has it

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            document = super().openapi()
            routes = [route for route in self.routes if isinstance(route, APIRoute) and route.include_in_schema]
            for route in routes:
                for method in route.methods or ():
                    _complete(document["paths"][route.path_format][method.lower()], route)
            _complete_components(document, self.issuer)
            self.openapi_schema = document
        return self.openapi_schema


def refusals_of(route: APIRoute, operation: Json) -> list[type[errors.RotaError]]:
    """Everything that a route may answer instead of what it is for."""
    stated = operation.get("x-refuses", [])
    always = _ALWAYS if route.path == ANSWERS_ITSELF else (http_errors.CredentialInUrl, *_ALWAYS)
    return list(dict.fromkeys([*_derived(route, operation), *(_named(name) for name in stated), *always]))


def _derived(route: APIRoute, operation: Json) -> Iterator[type[errors.RotaError]]:
    yield from _BY_ACCESS[operation["x-access"]]
    for guard in guards_of(route.dependant):
        if isinstance(guard, ClientWith):
            yield from (errors.ClientNotPermitted, errors.AccessTokenRejected)
    for parameter in operation.get("parameters", []):
        yield from (errors.InputInvalid, http_errors.UriTooLong)
        if parameter["in"] == "path" and parameter["name"] in _BY_PLACE:
            yield _BY_PLACE[parameter["name"]]
    if "requestBody" in operation:
        yield from _BODY
        for content in operation["requestBody"]["content"].values():
            if _GUESSED & content["schema"].get("properties", {}).keys():
                yield from _HOLDING_UP


def guards_of(dependant: Any) -> Iterator[Any]:
    """All that a route depends on, however deep."""
    for needed in dependant.dependencies:
        yield needed.call
        yield from guards_of(needed)


def _named(name: str) -> type[errors.RotaError]:
    found: type[errors.RotaError] = getattr(errors, name, None) or getattr(http_errors, name)
    return found


def _complete(operation: Json, route: APIRoute) -> None:
    refused = refusals_of(route, operation)
    operation.pop("x-refuses", None)
    operation["responses"].pop("422", None)  # the framework's own, which we do not answer with
    for status, answer in _answers(refused, oauth=route.path.startswith(oauth_errors.PATHS)).items():
        also = operation["responses"].get(status, {}).get("content", {})  # a route may have another form of it
        operation["responses"][status] = {**answer, "content": {**answer["content"], **also}}
    for answer in operation["responses"].values():
        answer.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
    operation["security"] = _security(route, operation)
    for parameter in operation.get("parameters", []):
        parameter.setdefault("description", parameter["schema"].pop("description", PARAMETERS.get(parameter["name"])))


def _answers(refused: Kinds, *, oauth: bool) -> Json:
    """One answer a status, which names its codes."""
    by_status: dict[int, list[tuple[type[errors.RotaError], str]]] = {}
    for kind in refused:
        answer = http_errors.answer_for(kind)
        plain = answer.status, kind.code
        named, word = oauth_errors.as_oauth(kind, answer.status, answer.oauth) if oauth else plain
        by_status.setdefault(int(named), []).append((kind, word))
    made = {}
    for status, kinds in sorted(by_status.items()):
        lines = dict.fromkeys(f"`{word}`: {kind.message}" for kind, word in kinds)
        headers: Json = {}
        names = [_headers(http_errors.answer_for(kind), status) for kind, _ in kinds]
        for name in sorted(set().union(*names)):
            headers[name] = {"required": all(name in each for each in names), **_HEADERS[name]}
        schema = "#/components/schemas/" + ("OAuthError" if oauth else "Problem")
        media_type = "application/json" if oauth else http_errors.MEDIA_TYPE
        content = {media_type: {"schema": {"$ref": schema}}}
        made[str(status)] = {"description": "\n\n".join(lines), "content": content, "headers": headers}
    return made


def _headers(answer: http_errors.Answer, status: int) -> set[str]:
    names = {"WWW-Authenticate"} if answer.challenge and status != HTTPStatus.BAD_REQUEST else set()
    later = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    return names | {"Retry-After"} if later else names


def _security(route: APIRoute, operation: Json) -> list[Json]:
    """Who may call it by what; several are alternatives, and an empty one is nobody in particular."""
    match operation["x-access"]:
        case Access.ANYONE:
            optional = {Access.SIGNED_IN: USER, Access.OPERATOR: OPERATOR}
            may = operation.get("x-access-optional")
            return [{}, {optional[may]: []}] if may else [{}]
        case Access.OPERATOR:
            return [{OPERATOR: []}]
        case Access.CLIENT:
            guards = list(guards_of(route.dependant))
            by_token = any(isinstance(guard, ClientWith) for guard in guards)
            assert by_token or any(isinstance(guard, AnyClientGuard) for guard in guards)  # noqa: S101 - it states so
            return [{BASIC: []}, {CLIENT_TOKEN: []}] if by_token else [{BASIC: []}]
        case _:
            return [{USER: []}]


def _complete_components(document: Json, issuer: str) -> None:
    document["info"]["description"] = DESCRIPTION
    components = document["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["schemas"] |= {"Problem": _PROBLEM, "OAuthError": _OAUTH_ERROR}
    components["securitySchemes"] |= _SCHEMES
    if issuer and USER in components["securitySchemes"]:  # OpenAPI 3.1 has no relative addresses there
        components["securitySchemes"][USER]["flows"]["password"]["tokenUrl"] = f"{issuer.rstrip('/')}/token"
    components["headers"] = {"X-Request-ID": {"required": True, **_HEADERS["X-Request-ID"]}}
