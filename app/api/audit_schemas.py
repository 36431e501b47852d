"""What goes in and comes out at `/admin/events`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from app.api.parameters import Cursor, Moment, Network, Parameters, checked
from app.api.schemas import EventAnswer
from app.domain.event_filters import Bucket, read_actions
from app.domain.events import Action, Outcome
from app.domain.users import USERNAME_CHARACTERS
from app.http.bodies import Text
from app.services.trail import Found

EVENTS_LIMIT = 500

Person = Annotated[Text, Field(min_length=1, max_length=USERNAME_CHARACTERS)]
# The whole vocabulary: each action, and each noun with all its actions.
ACTIONS = sorted({*Action, *(f"{action.partition('.')[0]}.*" for action in Action)})
Pattern = Annotated[
    Text,
    Field(max_length=64, json_schema_extra={"enum": [*ACTIONS]}),
    AfterValidator(checked(lambda pattern: read_actions([pattern]))),
]


class Filters(Parameters):
    action: Annotated[list[Pattern], Field(max_length=64, default_factory=list)]
    outcome: Outcome | None = None
    actor: Person | None = None
    subject: Person | None = None
    session: UUID | None = None
    ip: Network | None = None
    request_id: UUID | None = None
    since: Annotated[Moment | None, Field(alias="from")] = None
    until: Annotated[Moment | None, Field(alias="to")] = None


class EventQuery(Filters):
    order: Literal["newest", "oldest"] = "newest"
    after: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=EVENTS_LIMIT)] = 50
    count: bool = False


class HistogramQuery(Filters):
    bucket: Bucket = Bucket.HOUR


class TrailEvent(EventAnswer):
    """An event with the names behind its ids, as they are today. `erased`: its personal data was removed."""

    actor_name: str | None
    subject_id: UUID | None
    subject_name: str | None
    erased: bool


class FoundEvents(BaseModel):
    """`next` is the `after` of the next page, null on the last. `count` stops at 10,000; `count_is_exact` says so."""

    items: list[TrailEvent]
    next: str | None
    count: int | None
    count_is_exact: bool | None

    @classmethod
    def of(cls, found: Found) -> Self:
        items = [
            TrailEvent(
                **EventAnswer.of(event).model_dump(),
                actor_name=found.names.get(event.actor_id) if event.actor_id else None,
                subject_id=event.subject_id if event.subject_id.int else None,
                subject_name=found.names.get(event.subject_id),
                erased=event.commitment is not None,
            )
            for event in found.events
        ]
        return cls(items=items, next=found.next, count=found.count, count_is_exact=found.count_is_exact)


class Bar(BaseModel):
    start: datetime
    action: str
    count: int


class Histogram(BaseModel):
    """Only buckets in which something happened."""

    bucket: Bucket
    items: list[Bar]

    @classmethod
    def of(cls, counts: Sequence[tuple[datetime, str, int]], bucket: Bucket) -> Self:
        return cls(bucket=bucket, items=[Bar(start=at, action=action, count=count) for at, action, count in counts])
