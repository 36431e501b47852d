"""The OpenAPI document: that it says what routes do, for those that are there and for those that will be."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import Field

from app.api.dependencies import Access, SignedIn, stated
from app.api.openapi import DocumentedApi
from app.domain import errors
from app.http.bodies import Body, Kind
from app.http.errors import ANSWERS, MEDIA_TYPE

Operation = tuple[str, dict[str, Any]]
# What an answer may never have, and the members that are what the route is for.
SECRET = re.compile(r"password|hash|secret|seed|proof|token", re.IGNORECASE)
HANDED_OUT = {
    "access_token",
    "refresh_token",
    "token_type",
    "password_token",
    "one_time_password",
    "client_secret",
    "device_token",
}
SAID_OF = re.compile(r"_at$|^has_|^must_|^token_|_endpoint|_supported$|_expires_")


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_it_is_a_valid_document_whose_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """OpenAPI 3.1 by another's schema of it, each of our schemas a schema, and all operations can be loaded."""
    loaded = schemathesis.openapi.from_dict(document)
    loaded.validate()
    assert len(list(loaded.get_all_operations())) == len(list(operations(document)))
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})
        assert "$defs" not in str(schema), name


def test_operation_ids_are_unique_and_every_route_says_who_may_call_it(document: dict[str, Any]) -> None:
    """No two names alike, no route without `x-access`, no scheme that is not described, nothing of our own left in."""
    named = Counter(operation["operationId"] for _, operation in operations(document))
    assert named.most_common(1)[0][1] == 1
    schemes = document["components"]["securitySchemes"]
    for label, operation in operations(document):
        assert operation["x-access"] in set(Access), label
        assert {scheme for each in operation["security"] for scheme in each} <= set(schemes), label
        assert ({} in operation["security"]) == (operation["x-access"] == Access.ANYONE), label
        assert "x-refuses" not in operation, label


def test_every_parameter_says_what_it_is(document: dict[str, Any]) -> None:
    """A new one is described by its name, or by itself."""
    for label, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["description"], f"{label}: describe {parameter['name']} in app/api/parameter_texts.py"


def test_every_route_documents_its_refusals(document: dict[str, Any]) -> None:
    """Each has what follows from who may call it and what it reads, in the form and with the headers that it has."""
    for label, operation in operations(document):
        answers = operation["responses"]
        wanted = {"500", "503"} | ({"400"} if "/authz" not in label else set())
        if operation["x-access"] != Access.ANYONE:
            wanted.add("401")
        if operation["x-access"] in {Access.AUDITOR, Access.ADMIN}:
            wanted |= {"403", "422"}
        oauth = label.split()[1].startswith("/oauth2/")
        if "requestBody" in operation:
            wanted |= {"408", "413"} | ({"400"} if oauth else {"415", "422"})
        if any(each["in"] == "path" and each["name"].endswith("_id") for each in operation.get("parameters", [])):
            wanted |= {"404", "422"}
        assert wanted <= set(answers), f"{label} lacks {wanted - set(answers)}"
        for status, answer in answers.items():
            assert "X-Request-ID" in answer["headers"], (label, status)
            if int(status) >= 400:
                assert answer["description"].startswith("`"), (label, status)
                kind, schema = ("application/json", "OAuthError") if oauth else (MEDIA_TYPE, "Problem")
                assert answer["content"][kind]["schema"]["$ref"].endswith(schema), (label, status)
            if status in {"429", "503"}:
                assert answer["headers"]["Retry-After"]["required"], (label, status)
            if status == "401":
                assert answer["headers"]["WWW-Authenticate"]["required"], (label, status)


def test_no_answer_has_a_member_for_a_secret(document: dict[str, Any]) -> None:
    """A71: but for what a route is there to hand out, once, no answer of any route has a secret's name in it."""
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        for member in schema.get("properties", {}):
            if SECRET.search(member) and not SAID_OF.search(member):
                assert member in HANDED_OUT, f"{name}.{member}"


def test_json_bodies_take_no_number_for_a_truth_and_no_word_for_a_number() -> None:
    """What is read loosely is accepted against the document: each such member of a body is strict."""
    found = [
        f"{model.__name__}.{name}"
        for model in _bodies(Body)
        if not model.__name__.endswith("Query")  # parameters are words, always
        for name, member in model.model_fields.items()
        for kind in (member.annotation, *getattr(member.annotation, "__args__", ()))
        if kind in {bool, int} and not any(getattr(each, "strict", False) for each in member.metadata)
        and "Strict" not in str(member.annotation)
    ]  # fmt: skip
    assert found == []


def _bodies(root: type[Body]) -> Iterator[type[Body]]:
    for model in root.__subclasses__():
        yield model
        yield from _bodies(model)


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    """What the document shows is what it allows."""
    tried = 0
    for place in _everything(document):
        for example in place.get("examples", []) if isinstance(place.get("examples"), list) else []:
            schema = {name: value for name, value in place.items() if name != "examples"}
            jsonschema_rs.validate({**schema, "components": document["components"]}, example)
            tried += 1
    assert tried > 0


def _everything(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _everything(each)


def test_a_new_route_is_described_by_being_there() -> None:
    """Its guard, its id, its body and what it says that it refuses: all is derived, nothing listed by hand."""

    class MadeUp(Body):
        password: Annotated[str, Field(min_length=1)]

    router = APIRouter()

    async def act(session_id: UUID, caller: SignedIn) -> None: ...

    router.add_api_route(
        "/made-up/{session_id}",
        act,
        methods=["POST"],
        openapi_extra=stated(Access.SIGNED_IN, MadeUp, Kind.JSON, refuses=(errors.UserDeleted,)),
    )
    made = DocumentedApi(routes=router.routes).openapi()["paths"]["/made-up/{session_id}"]["post"]
    held_up = {"429"} if any(kind.code == "too_many_attempts" for kind in ANSWERS) else set()
    wanted = {"200", "400", "401", "404", "408", "409", "413", "414", "415", "422", "500", "503"} | held_up
    assert set(made["responses"]) == wanted
    assert "user_deleted" in made["responses"]["409"]["description"]
    assert "session_not_found" in made["responses"]["404"]["description"]
    assert made["security"] == [{"OAuth2PasswordBearer": []}]


async def test_a_method_that_is_not_there_is_told_all_that_are(app: FastAPI, http: httpx2.AsyncClient) -> None:
    """405 names every method of the path, and a path that is a word is never read as an id by another method."""
    for label, _ in operations(app.openapi()):
        path = re.sub(r"{\w+}", "01a21fd9-db64-7377-a3c7-cbd39c987ae6", label.split()[1])
        if path == "/authz":
            continue  # any method
        answer = await http.request("LINK", path)
        of_path = [
            route for route in app.routes if isinstance(route, APIRoute) and route.path_format == label.split()[1]
        ]
        wanted = {method for route in of_path for method in route.methods or ()}
        assert answer.status_code == 405, label
        assert set(answer.headers["allow"].split(", ")) == wanted, label
    for word in ("export", "revocations"):
        assert (await http.delete(f"/admin/sessions/{word}")).status_code == 405
