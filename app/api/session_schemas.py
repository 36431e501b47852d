"""What goes in and comes out at `/admin/sessions`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.api.parameters import Cursor, Parameters
from app.api.schemas import EventAnswer, SessionAnswer
from app.api.session_filters import SessionFilters
from app.domain.families import Family, SessionState
from app.domain.session_exports import ExportFormat
from app.domain.session_filters import SessionSort
from app.domain.session_stories import Generation, Reuse, Told
from app.services.session_search import FoundSessions
from app.services.session_stories import Explanation, Story

SESSIONS_LIMIT = 500
GENERATIONS_LIMIT = 500


class SessionQuery(SessionFilters):
    sort: SessionSort = SessionSort.CREATED
    order: Literal["newest", "oldest"] = "newest"
    after: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=SESSIONS_LIMIT)] = 50


class TimelineQuery(Parameters):
    after: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=GENERATIONS_LIMIT)] = 50


class ExportQuery(SessionFilters):
    format: ExportFormat = ExportFormat.NDJSON
    order: Literal["newest", "oldest"] = "oldest"


class SessionUser(BaseModel):
    """Whose session it is, by the name of today; null: the account is not there any more."""

    id: UUID
    username: str | None


class AdminSession(SessionAnswer):
    """
    A session with what administrators see besides. `generation` is how often it was refreshed. `first_ip` is the
    address of the sign-in, `last_ip` that of the last refresh. `role` is the one given at sign-in.
    """

    user: SessionUser
    role: str
    generation: int
    authenticated_at: datetime
    ended_by: UUID | None

    @classmethod
    def of_anybody(cls, family: Family, *, names: Mapping[UUID, str], now: datetime, current: UUID | None) -> Self:
        return cls(
            **SessionAnswer.of(family, now=now, current=current or UUID(int=0)).model_dump(),
            user=SessionUser(id=family.user_id, username=names.get(family.user_id)),
            role=family.role.value,
            generation=family.generation,
            authenticated_at=family.authenticated_at,
            ended_by=family.ended_by,
        )


class FoundSessionPage(BaseModel):
    """
    `next` is the `after` of the next page, null on the last. `cut_short`: so few match that the page ended before it
    was full, which need not mean that there are no more; only a null `next` does.
    """

    items: list[AdminSession]
    next: str | None
    cut_short: bool

    @classmethod
    def of(cls, found: FoundSessions, *, current: UUID | None) -> Self:
        items = [
            AdminSession.of_anybody(family, names=found.names, now=found.now, current=current)
            for family in found.families
        ]
        return cls(items=items, next=found.next, cut_short=found.cut_short)


class Presentation(BaseModel):
    """Somebody presented a token, or acted on the session: when, from where, with what."""

    event_id: UUID
    at: datetime
    action: str
    reason: str | None
    generation: int | None
    ip: str | None
    user_agent: str | None
    actor_kind: str
    actor_id: UUID | None

    @classmethod
    def of(cls, event: Told) -> Self:
        return cls(
            event_id=event.id,
            at=event.at,
            action=event.action,
            reason=event.reason,
            generation=event.generation,
            ip=str(event.ip) if event.ip else None,
            user_agent=event.user_agent,
            actor_kind=event.actor_kind,
            actor_id=event.actor_id,
        )


class GenerationAnswer(BaseModel):
    """
    One generation. `how` it began: sign_in, rotation, or fast_forward after a failover; `began` says when, from where
    and with what. `replays`: the token just spent, presented again, harmlessly.
    """

    generation: int
    how: str | None
    began: Presentation | None
    replays: list[Presentation]
    others: list[Presentation]

    @classmethod
    def of(cls, generation: Generation) -> Self:
        return cls(
            generation=generation.number,
            how=generation.how,
            began=Presentation.of(generation.began) if generation.began else None,
            replays=[Presentation.of(event) for event in generation.replays],
            others=[Presentation.of(event) for event in generation.others],
        )


class ReuseAnswer(BaseModel):
    """Two presentations of one token, side by side: `spent` in a rotation, and `presented` again."""

    generation: int | None
    spent: Presentation | None
    presented: Presentation

    @classmethod
    def of(cls, reuse: Reuse) -> Self:
        return cls(
            generation=reuse.presented.generation,
            spent=Presentation.of(reuse.spent) if reuse.spent else None,
            presented=Presentation.of(reuse.presented),
        )


class Timeline(BaseModel):
    """
    What happened to a session, newest first. `next` is the `after` of older generations. `refusals` are the newest
    presentations that were refused, those after its end too.
    """

    generations: list[GenerationAnswer]
    next: str | None
    reuse: ReuseAnswer | None
    end: Presentation | None
    refusals: list[Presentation]


class SessionWithTimeline(AdminSession):
    ended_by_name: str | None
    timeline: Timeline

    @classmethod
    def of_story(cls, story: Story, *, current: UUID | None) -> Self:
        family = story.family
        timeline = Timeline(
            generations=[GenerationAnswer.of(each) for each in story.generations],
            next=story.next,
            reuse=ReuseAnswer.of(story.reuse) if story.reuse else None,
            end=Presentation.of(story.end) if story.end else None,
            refusals=[Presentation.of(event) for event in story.refusals],
        )
        shown = AdminSession.of_anybody(family, names=story.names, now=story.now, current=current)
        name = story.names.get(family.ended_by) if family.ended_by else None
        return cls(**shown.model_dump(), ended_by_name=name, timeline=timeline)


class ExplanationAnswer(BaseModel):
    """Why a session is over, or until when it lives: one sentence, and the events it is built from."""

    session_id: UUID
    state: SessionState
    explanation: str
    evidence: list[EventAnswer]

    @classmethod
    def of(cls, explained: Explanation) -> Self:
        return cls(
            session_id=explained.family.id,
            state=explained.family.state(explained.now),
            explanation=explained.sentence,
            evidence=[EventAnswer.of(event) for event in explained.evidence],
        )
