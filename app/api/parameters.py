"""
Query parameters under `/admin`, read strictly: a filter that is misspelt, or of which one value is dropped, must not
widen an answer.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, get_origin

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.domain.errors import InputInvalid
from app.domain.event_filters import IpNetwork, read_moment, read_network
from app.domain.session_filters import PREFIX_CHARACTERS_MINIMUM, read_user, read_username_prefix
from app.domain.users import USERNAME_CHARACTERS
from app.http.bodies import Text
from app.http.errors import BodyInvalid

CURSOR_CHARACTERS = 200


class Parameters(BaseModel):
    """The query parameters of a route. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def reading(reader: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A reader whose refusal is the fault of one field, and names it."""

    def read(value: Any) -> Any:
        if isinstance(value, bool | int | float):  # of JSON; `true` would be the address 0.0.0.1
            raise ValueError("must be text")  # noqa: TRY004 - pydantic names the field of this one
        if not isinstance(value, str):
            return value
        try:
            return reader(value)
        except InputInvalid as refused:
            raise ValueError(refused.message) from None

    return read


def checked(reader: Callable[[str], Any]) -> Callable[[str], str]:
    """The text as it is, if the reader takes it."""

    def check(text: str) -> str:
        reading(reader)(text)
        return text

    return check


Moment = Annotated[datetime, BeforeValidator(reading(read_moment))]
# An address, or a network in CIDR form.
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ADDRESS_OR_NETWORK = {
    "anyOf": [
        {"type": "string", "format": "ipv4"},
        {"type": "string", "format": "ipv6"},
        {"type": "string", "pattern": rf"^({_BYTE}\.){{3}}{_BYTE}/(3[0-2]|[12]?[0-9])$"},
        {"type": "string", "pattern": "^([0-9A-Fa-f]{1,4}:){1,7}:/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$"},
    ],
    "examples": ["203.0.113.0/24", "2001:db8::/32"],
}
Network = Annotated[IpNetwork, BeforeValidator(reading(read_network)), WithJsonSchema(_ADDRESS_OR_NETWORK)]
Person = Annotated[Text, Field(min_length=1, max_length=USERNAME_CHARACTERS), AfterValidator(checked(read_user))]
Prefix = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=USERNAME_CHARACTERS,
        json_schema_extra={"minLength": PREFIX_CHARACTERS_MINIMUM},  # its reader says so in words of its own
    ),
    AfterValidator(reading(read_username_prefix)),
]
Cursor = Annotated[Text, Field(max_length=CURSOR_CHARACTERS)]


def refuse_other_parameters(request: Request) -> None:
    """
    Each query parameter is one of the route's, and stands once unless it is a list.

    Raises:
        BodyInvalid: one is not. The name of an unknown one is the sender's text, so it is left out.
    """
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    known = dict(_parameters(request.scope["route"].dependant))
    if not known.keys() >= set(given):
        raise BodyInvalid([{"loc": ["query"], "type": "extra_forbidden", "msg": "Extra inputs are not permitted"}])
    twice = sorted({name for name in given if given.count(name) > 1 and not known[name]})
    if twice:
        raise BodyInvalid([{"loc": ["query", name], "type": "repeated", "msg": "must stand once"} for name in twice])


def _parameters(dependant: Any) -> Iterator[tuple[str, bool]]:
    """The names of the query parameters that a route needs, and whether each is a list."""
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, member in kind.model_fields.items():
                yield member.alias or name, get_origin(member.annotation) is list
        else:
            yield field.alias, get_origin(kind) is list
    for needed in dependant.dependencies:
        yield from _parameters(needed)
