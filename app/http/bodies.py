"""
Request bodies, read strictly: one meaning or none.

FastAPI's own form parser replaces invalid UTF-8 by U+FFFD and keeps one of two fields of the same name; its JSON parser
keeps the last of two members. For passwords and tokens that is guessing, so bodies are read here.
"""

import asyncio
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from app.domain.canonical_json import parse_strict
from app.domain.errors import InputInvalid
from app.http.errors import BodyInvalid, BodyTooLarge, BodyTooSlow, UnsupportedMediaType, validation_findings

BODY_BYTES_MAXIMUM: Final = 65_536
BODY_SECONDS: Final = 10
FORM_FIELDS_MAXIMUM: Final = 32

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request body. Unknown members are refused; values never show up in a representation."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return []


class Kind(StrEnum):
    FORM = "application/x-www-form-urlencoded"
    JSON = "application/json"


# What no interchange of text is for (Unicode 16 section 23.7): the last two of each plane, and 32 others.
_NONCHARACTER: Final = re.compile(
    "[\ufdd0-\ufdef" + "".join(map(chr, (plane << 16 | last for plane in range(17) for last in (0xFFFE, 0xFFFF)))) + "]"
)


def _storable(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    try:
        text.encode()  # a lone surrogate has no UTF-8
    except UnicodeEncodeError:
        raise ValueError("must have no lone surrogates") from None
    if "\0" in text:
        raise ValueError("must have no NUL")
    if _NONCHARACTER.search(text):
        raise ValueError("must have no noncharacters")
    return text


def _whole(number: object) -> object:
    """JSON has one kind of numbers (RFC 8259 section 6): 60.0 is 60."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Text = Annotated[str, AfterValidator(_storable)]
WHOLE: Final = BeforeValidator(_whole)  # behind the bounds, which the document would lose otherwise


async def read_body(request: Request, model: type[M], *kinds: Kind) -> M:
    """
    The body as one of the given kinds.

    An absent body is an empty one if the route takes that. Unknown form fields are ignored, as RFC 6749 section 3.2
    demands; so are fields without a value. Unknown JSON members are refused.

    Raises:
        UnsupportedMediaType: another content type, none, a charset other than UTF-8, or a compressed body.
        BodyTooSlow: not there within `BODY_SECONDS`.
        BodyTooLarge: more than `BODY_BYTES_MAXIMUM`; no more than that is ever held.
        InputInvalid: not UTF-8, not well-formed, a name twice, a member wrong or missing.
    """
    # Before the body: of a kind that nobody takes, not a byte is kept.
    kind = _kind(request, kinds) if "content-type" in request.headers else None
    raw = await _read(request)
    if raw and kind is None:
        raise _unsupported(kinds)
    given: dict[str, Any] = {}
    if kind is Kind.FORM:
        given = dict(_known(_form(raw), model))
    elif kind is Kind.JSON:
        given = _json(raw)
    return _validated(model, given)


def _known(form: dict[str, str], model: type[Body]) -> dict[str, str]:
    return {name: value for name, value in form.items() if name in model.model_fields}


def _validated(model: type[M], given: Mapping[str, object]) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as invalid:
        raise BodyInvalid(validation_findings(invalid.errors())) from None


def is_form(request: Request) -> bool:
    """Whether the body says that it is a form."""
    given = request.headers.getlist("content-type")
    return len(given) == 1 and given[0].partition(";")[0].strip().lower() == Kind.FORM


async def read_form(request: Request) -> dict[str, str]:
    """
    The fields of a form, each of which stands once; those without a value are left out (RFC 6749 section 3.2).

    May be asked twice: a guard reads who the client is, the route reads the rest.

    Raises:
        As `read_body`.
    """
    known: dict[str, str] | None = request.scope.get("rota.form")
    if known is None:
        _kind(request, (Kind.FORM,))
        known = request.scope["rota.form"] = _form(await _read(request))
    return known


async def read_form_as(request: Request, model: type[M]) -> M:
    """
    The form as a body of that kind, as `read_body` would read it.

    Raises:
        As `read_body`.
    """
    return _validated(model, _known(await read_form(request), model))


def body_documentation(model: type[Body], *kinds: Kind, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body with `read_body`."""
    schema = model.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {
        "requestBody": {
            "required": required,
            "content": {kind.value: {"schema": _of_form(schema) if kind is Kind.FORM else schema} for kind in kinds},
        }
    }


def _of_form(schema: dict[str, Any]) -> dict[str, Any]:
    """
    The schema of the same as a form: it has no null, other fields are ignored, and so is a field without a value (RFC
    6749 section 3.2).
    """
    members = {}
    for name, member in schema.get("properties", {}).items():
        kinds = [kind for kind in member.get("anyOf", []) if kind.get("type") != "null"]
        rest = {key: value for key, value in member.items() if key not in {"anyOf", "default"}}
        default = {"default": member["default"]} if member.get("default") is not None else {}
        members[name] = {**rest, **default, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})}
        if members[name].get("minLength") == 1:
            del members[name]["minLength"]
    return {**schema, "properties": members, "additionalProperties": {"type": "string"}}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with its definitions in their places: `#/$defs/…` leads nowhere from within the API's document."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {name: _inlined(value, definitions) for name, value in schema.items() if name != "$ref"}
    if "$ref" not in schema:
        return whole
    return {**_inlined(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions), **whole}


async def _read(request: Request) -> bytes:
    """The body's bytes, which a guard may have read already to see who the client is."""
    known: bytes | None = request.scope.get("rota.body")
    if known is not None:
        return known
    raw = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > BODY_BYTES_MAXIMUM:
                    raise BodyTooLarge
    except TimeoutError:
        raise BodyTooSlow from None
    request.scope["rota.body"] = raw
    return raw


def _kind(request: Request, kinds: tuple[Kind, ...]) -> Kind:
    given = request.headers.getlist("content-type")
    media_type, _, parameters = (given[0] if len(given) == 1 else "").partition(";")
    found = next((kind for kind in kinds if kind == media_type.strip().lower()), None)
    charset = parameters.replace('"', "").replace(" ", "").lower().partition("charset=")[2]
    codings = request.headers.getlist("content-encoding")
    coded = any(coding.strip().lower() != "identity" for coding in codings)
    if found is None or charset not in {"", "utf-8", "utf8"} or coded:
        raise _unsupported(kinds)
    return found


def _unsupported(kinds: tuple[Kind, ...]) -> UnsupportedMediaType:
    return UnsupportedMediaType(f"The body must be {' or '.join(kinds)}, in UTF-8, not compressed.")


def _form(raw: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw.decode(),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=FORM_FIELDS_MAXIMUM,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise InputInvalid("The form is not well-formed UTF-8.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InputInvalid("A form field stands twice.")
    return {name: value for name, value in fields.items() if value}


def _json(raw: bytes) -> dict[str, object]:
    try:
        value = parse_strict(raw)
    except ValueError:
        raise InputInvalid("The body is not well-formed JSON in UTF-8, each member once.") from None
    if not isinstance(value, dict):
        raise InputInvalid("The body must be a JSON object.")
    return value
