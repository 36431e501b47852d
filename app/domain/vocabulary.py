"""
The trail's vocabulary: for each action its meaning, level, reasons and details. Closed and versioned.

What is written is checked against it (`vocabulary_check.py`), and so is what an auditor verifies;
`docs/reference/events.md` is made from it.
A new member or reason needs a new version of its action; readers refuse versions they do not know.
"""

from collections.abc import Mapping
from typing import Final

from app.domain.definitions import ROLLED_UP, SUMMED, Definition, Kind, Level, Member, Numbered
from app.domain.events import Action, Outcome
from app.domain.families import EndReason
from app.domain.login_vocabulary import LIMITS, LOGINS

_ENDS: Final = frozenset(reason.value for reason in EndReason)
_BULK_ENDS: Final = frozenset({EndReason.BULK_ADMIN.value, EndReason.RESTORE.value})
_BULK_WORK: Final = {
    "ended": Member(Kind.INTEGER, "how many sessions it has ended"),
    "revocation": Member(Kind.STRING, "its id"),
}
_CLIENT: Final = {
    "client": Member(Kind.STRING, "the client's id in the table"),
    "client_id": Member(Kind.STRING, "its name"),
}
_IMPORTED: Final = {
    "admins": Member(Kind.INTEGER, "how many of them are administrators"),
    "disabled": Member(Kind.INTEGER, "how many of them are disabled"),
    "import": Member(Kind.STRING, "its id"),
    "skipped": Member(Kind.INTEGER, "how many were left out: somebody had taken the name meanwhile"),
    "users": Member(Kind.INTEGER, "how many were made"),
}
_REPLAY: Final = frozenset({"grace", "idempotency_key"})


# Each reason code, once for all actions that have it.
REASONS: Final[Mapping[str, str]] = {
    EndReason.LOGOUT: "the user ended it, by this session's own token or from another one",
    EndReason.LOGOUT_ALL: "the user ended all their other sessions",
    EndReason.ADMIN: "an administrator ended it",
    EndReason.BULK_ADMIN: "an administrator ended many at once",
    EndReason.REUSE: "a spent refresh token was presented: somebody has a copy",
    EndReason.PASSWORD_CHANGE: "the password was changed, or an administrator took it away",
    EndReason.USER_DISABLED: "the user was disabled, deleted or erased",
    EndReason.ROLE_CHANGE: "the user got another role",
    EndReason.RESTORE: "the database is a restored copy: a token was ahead of it, or an operator ended what was older",
    EndReason.EVICTED: "the user had too many sessions, and this was the oldest",
    EndReason.IDLE_TIMEOUT: "it was not refreshed for too long",
    EndReason.ABSOLUTE_TIMEOUT: "it reached the longest time that a session may live",
    EndReason.OAUTH_REVOCATION: "a client revoked it (RFC 7009)",
    "unknown_user": "nobody has that name",
    "wrong_password": "the password was wrong",
    "disabled": "the user is disabled",
    "token_unknown": "the set-password token is spent already, or a newer one has taken its place",
    "token_expired": "the set-password token is past its time",
    "user_shut_out": "the user of the set-password token is disabled or deleted",
    "one_time_password_expired": "the one-time password is past its time",
    "one_time_password_elsewhere": "a one-time password that was right, at a client instead of at our own sign-in",
    **LIMITS,
    ROLLED_UP: "a sum of failures that were alike",
    "grace": "within the seconds in which the token just spent may come again",
    "idempotency_key": "with the Idempotency-Key of the rotation",
    "unknown_session": "a genuine token of a session that retention has removed, or that the database has lost",
    "wrong_client": "the session was opened through another client",
    "wrong_proof": "the token's tag was right, its proof was not",
    "unsealed": "events wait too long for their seal; the detail names who holds them up",
    "miscounted": "between two places of the sealed order there are more or fewer events than were sealed",
    "unprotected": "a table of the trail lacks a trigger",
    "partitions": "the months made ahead do not reach thirty days, or one is missing",
}


def _life(
    meaning: str,
    level: Level = Level.ROUTINE,
    reasons: frozenset[str] = frozenset(),
    outcome: Outcome = Outcome.SUCCESS,
    **detail: Member,
) -> Definition:
    """An event of a session's own life."""
    return Definition(meaning, level, outcome, reasons, Numbered.ALWAYS, session=True, detail=detail)


DEFINITIONS: Final[Mapping[Action, Definition]] = {
    Action.USER_CREATED: Definition("An account was made.", detail={"role": Member(Kind.STRING, "the user's role")}),
    Action.USER_DISABLED: Definition("A user was shut out; all their sessions ended with it.", Level.NOTICE),
    Action.USER_ENABLED: Definition("A disabled user may sign in again.", Level.NOTICE),
    Action.USER_RENAMED: Definition("A user got another name; neither name is told.", Level.NOTICE),
    Action.USER_ROLE_CHANGED: Definition(
        "A user got another role; all their sessions ended with it.",
        Level.NOTICE,
        detail={
            "from": Member(Kind.STRING, "the role until then"),
            "to": Member(Kind.STRING, "the role from then on"),
        },
    ),
    Action.USER_DELETED: Definition(
        "A user was deleted: shut out for good, all their sessions ended with it, and the name is free.", Level.NOTICE
    ),
    Action.IMPORT_STARTED: Definition(
        "Somebody began to import users. Each one's own events follow, with the import's id as their `request_id`.",
        Level.WARNING,
        detail={
            "digest": Member(Kind.STRING, "SHA-256 of the file, hexadecimal"),
            "format": Member(Kind.STRING, "csv or ndjson"),
            "import": Member(Kind.STRING, "its id"),
            "users": Member(Kind.INTEGER, "how many there are in the file"),
        },
    ),
    Action.IMPORT_FINISHED: Definition("An import has come to the end of its file.", Level.NOTICE, detail=_IMPORTED),
    **LOGINS,
    Action.PASSWORD_CHANGED: Definition("A new password was set; all other sessions ended with it.", Level.NOTICE),
    Action.PASSWORD_REHASHED: Definition("The same password was stored under stronger parameters, at a sign-in."),
    Action.PASSWORD_CHANGE_FAILED: Definition(
        "Somebody with a live session gave a wrong current password.",
        Level.WARNING,
        Outcome.FAILURE,
        frozenset({"wrong_password"}),
        session=True,
    ),
    Action.PASSWORD_RESET: Definition(
        "A password was set with a set-password token; the token is spent, and all sessions ended with it.",
        Level.NOTICE,
    ),
    Action.PASSWORD_FORGOTTEN: Definition(
        "An administrator took a user's password away; all their sessions ended with it.", Level.NOTICE
    ),
    Action.CREDENTIAL_ISSUED: Definition(
        "A one-time password or a set-password token was handed out; a token issued before is void.",
        Level.NOTICE,
        detail={
            "cause": Member(Kind.STRING, "created, reset, or sign_in: a one-time password was exchanged for a token"),
            "expires_at": Member(Kind.STRING, "until when it is good"),
            "kind": Member(Kind.STRING, "one_time_password or set_password_token"),
        },
    ),
    Action.CREDENTIAL_REFUSED: Definition(
        "A set-password token of ours, or a one-time password, came when it was no longer good. Summed like "
        "`login.failed`, and among its sums.",
        Level.WARNING,
        Outcome.FAILURE,
        frozenset(
            {
                "token_unknown",
                "token_expired",
                "user_shut_out",
                "one_time_password_expired",
                "one_time_password_elsewhere",
            }
        ),
    ),
    Action.NOTIFICATION_ACKNOWLEDGED: Definition(
        "A mailer has taken over what the user is to be told, or an operator has; it is out of the outbox.",
        detail={"kind": Member(Kind.STRING, "of what"), "notification": Member(Kind.STRING, "its id")},
    ),
    Action.NOTIFICATION_REMOVED: Definition(
        "Retention removed what nobody has fetched: these people were not told.",
        Level.WARNING,
        detail={"before": Member(Kind.STRING, "created before then"), "count": Member(Kind.INTEGER, "how many")},
    ),
    Action.SESSION_CREATED: _life(
        "Somebody signed in.",
        amr=Member(Kind.STRINGS, "how (RFC 8176)"),
        client_id=Member(Kind.STRING, "through which client"),
        scope=Member(Kind.STRING, "what was granted"),
    ),
    Action.SESSION_REFRESHED: _life("A refresh token was spent for the next one."),
    Action.SESSION_REPLAYED: _life(
        "The token just spent was presented again, harmlessly; at most one event a generation.", reasons=_REPLAY
    ),
    Action.SESSION_FAST_FORWARDED: _life(
        "A token proved generations that the database has lost in a failover.",
        Level.WARNING,
        lost_generations=Member(Kind.INTEGER, "how many"),
    ),
    Action.SESSION_RIDE_ALONG_SUSPECTED: _life(
        "Replays from another network, three generations running: somebody may hold a copy and keep pace.",
        Level.WARNING,
        _REPLAY,
    ),
    Action.SESSION_LABELLED: _life("The user named a session, or took its name away."),
    Action.SESSION_ENDED: _life(
        "A session is over. The reason says why; it is the last event of its life.", reasons=_ENDS
    ),
    Action.REVOCATION_PREVIEWED: Definition(
        "Somebody asked which sessions a bulk end would end; none was.",
        Level.NOTICE,
        detail={
            "filter": Member(Kind.OBJECT, "what they asked for; addresses as a keyed hash"),
            "sessions": Member(Kind.INTEGER, "how many matched"),
            "users": Member(Kind.INTEGER, "of how many users"),
        },
    ),
    Action.REVOCATION_STARTED: Definition(
        "Somebody ordered sessions to be ended in bulk. Each one's own event follows, with the revocation's id as its "
        "`request_id`.",
        Level.WARNING,
        reasons=_BULK_ENDS,
        detail={
            "cut": Member(Kind.STRING, "only sessions created until then end"),
            "expected": Member(Kind.INTEGER, "how many matched before"),
            "filter": Member(Kind.OBJECT, "which; addresses as a keyed hash"),
            "revocation": Member(Kind.STRING, "its id"),
            "why": Member(Kind.STRING, "as the administrator said"),
        },
    ),
    Action.REVOCATION_FINISHED: Definition(
        "A bulk end has ended all that it was ordered to.", Level.NOTICE, reasons=_BULK_ENDS, detail=_BULK_WORK
    ),
    Action.REVOCATION_CANCELLED: Definition(
        "A bulk end was stopped before its end; what had ended stays ended.",
        Level.NOTICE,
        reasons=_BULK_ENDS,
        detail=_BULK_WORK,
    ),
    Action.SESSION_REMOVED: Definition(
        "Retention removed sessions that had ended before a time. Their events stay.",
        Level.NOTICE,
        detail={
            "before": Member(Kind.STRING, "all of them had ended before then"),
            "count": Member(Kind.INTEGER, "how many"),
        },
    ),
    Action.REFRESH_REFUSED: Definition(
        "A token of a session that is over was presented. The first in a minute is an event, the rest one sum.",
        Level.NOTICE,
        Outcome.FAILURE,
        _ENDS | {"unknown_session", ROLLED_UP},
        session=True,
        detail=SUMMED,
    ),
    Action.REFRESH_FORGED: Definition(
        "A token with a right tag and a wrong proof was presented. Summed like `refresh.refused`.",
        Level.WARNING,
        Outcome.FAILURE,
        frozenset({"wrong_proof", ROLLED_UP}),
        session=True,
        detail=SUMMED,
    ),
    Action.REFRESH_REUSED: _life(
        "A spent token was presented: somebody has a copy. The session ends with it.",
        Level.ALARM,
        frozenset({EndReason.REUSE.value}),
        Outcome.FAILURE,
        live_generation=Member(Kind.INTEGER, "the generation that was live"),
        rotation_event=Member(Kind.STRING, "the event of whoever spent it, if it was found", nullable=True),
    ),
    Action.REFRESH_MISDIRECTED: Definition(
        "A genuine token came through another client than its own. It was refused, the session lives on. Summed like "
        "`refresh.refused`.",
        Level.WARNING,
        Outcome.FAILURE,
        frozenset({"wrong_client", ROLLED_UP}),
        session=True,
        detail=SUMMED,
    ),
    Action.CLIENT_CREATED: Definition(
        "An API client was made.",
        Level.NOTICE,
        detail={
            **_CLIENT,
            "first_party": Member(Kind.BOOLEAN, "whether it is ours"),
            "grants": Member(Kind.STRINGS, "what it may ask the token endpoint for"),
            "public": Member(Kind.BOOLEAN, "whether it is without a secret"),
            "scopes": Member(Kind.STRINGS, "what it may do at Rota"),
            "session_scopes": Member(Kind.STRINGS, "what its sessions may be granted"),
        },
    ),
    Action.CLIENT_SECRET_ROTATED: Definition(
        "A client got a new secret.",
        Level.NOTICE,
        detail={
            **_CLIENT,
            "former_until": Member(Kind.STRING, "until when the former one works; null: until revoked", nullable=True),
        },
    ),
    Action.CLIENT_SECRET_REVOKED: Definition(
        "A client's secret was revoked.",
        Level.NOTICE,
        detail={**_CLIENT, "which": Member(Kind.STRING, "current or former")},
    ),
    Action.CLIENT_DISABLED: Definition("A client was shut out.", Level.NOTICE, detail=_CLIENT),
    Action.CLIENT_ENABLED: Definition("A disabled client may come again.", Level.NOTICE, detail=_CLIENT),
    Action.CLIENT_VIEWED: Definition(
        "Somebody looked at the API clients.",
        detail={
            "client": Member(Kind.STRING, "which one; null: the list", nullable=True),
            "count": Member(Kind.INTEGER, "how many they saw"),
        },
    ),
    Action.SUBJECT_ERASED: Definition(
        "A person's data was removed; commitments stand in its place.",
        Level.NOTICE,
        detail={
            "events": Member(Kind.INTEGER, "how many events held personal data"),
            "why": Member(Kind.STRING, "as the operator said"),
        },
    ),
    Action.ADMIN_QUERIED: Definition(
        "Somebody read what only auditors and administrators may: accounts, sessions, figures.",
        Level.NOTICE,
        detail={
            "count": Member(Kind.INTEGER, "how many rows they saw"),
            "filter": Member(Kind.OBJECT, "what they asked for; names and addresses as a keyed hash"),
            "what": Member(Kind.STRING, "of which list or object: users, user, sessions and so on"),
        },
    ),
    Action.ADMIN_EXPORTED: Definition(
        "Somebody exported what only auditors and administrators may: one event when it begins, one when it ends.",
        Level.NOTICE,
        detail={
            "count": Member(Kind.INTEGER, "how many rows were handed on by then"),
            "filter": Member(Kind.OBJECT, "what they asked for; names and addresses as a keyed hash"),
            "format": Member(Kind.STRING, "ndjson or csv"),
            "stage": Member(Kind.STRING, "begun, finished or broken_off"),
            "what": Member(Kind.STRING, "of which list: sessions or users"),
        },
    ),
    Action.AUDIT_QUERIED: Definition(
        "Somebody read the trail.",
        Level.NOTICE,
        detail={
            "count": Member(Kind.INTEGER, "how many events they saw"),
            "filter": Member(Kind.OBJECT, "what they asked for; addresses as a keyed hash"),
            "view": Member(Kind.STRING, "events, histogram, proof, tail or reconciliation"),
        },
    ),
    Action.AUDIT_EXPORTED: Definition(
        "Somebody began to export the trail.",
        Level.NOTICE,
        detail={
            "format": Member(Kind.STRING, "bundle, ndjson or csv"),
            "from": Member(Kind.STRING, "from when", nullable=True),
            "to": Member(Kind.STRING, "until when", nullable=True),
        },
    ),
    Action.AUDIT_HEARTBEAT: Definition(
        "Nothing else has happened for ten minutes. A newest event that is older means that sealing has stopped."
    ),
    Action.AUDIT_ALARM: Definition(
        "The trail's own checks have found something.",
        Level.ALARM,
        Outcome.FAILURE,
        frozenset({"unsealed", "miscounted", "unprotected", "partitions"}),
        detail={"found": Member(Kind.STRING, "what, in words")},
    ),
    Action.AUDIT_EPOCH_OPENED: Definition(
        "After a restore the operator opened a further incarnation of the log.",
        Level.ALARM,
        detail={
            "epoch": Member(Kind.INTEGER, "its number"),
            "lost": Member(Kind.INTEGER, "entries that were published and are not here"),
            "why": Member(Kind.STRING, "as the operator said"),
        },
    ),
    Action.AUDIT_RETENTION: Definition(
        "A partition past its time was exported, verified and removed.",
        Level.NOTICE,
        detail={
            "checkpoint_size": Member(Kind.INTEGER, "size of the checkpoint under which it was exported"),
            "events": Member(Kind.INTEGER, "how many events it held"),
            "first_index": Member(Kind.INTEGER, "the first index of its events"),
            "last_index": Member(Kind.INTEGER, "the last index of its events"),
            "partition": Member(Kind.STRING, "its name"),
            "root": Member(Kind.STRING, "root of that checkpoint, base64url"),
        },
    ),
    Action.SERVER_STARTED: Definition(
        "A server process started.",
        detail={
            "key_ids": Member(Kind.STRINGS, "ids of the secrets it knows, the minting one first"),
            "settings": Member(Kind.OBJECT, "every setting that is no secret"),
            "version": Member(Kind.STRING, "of Rota"),
        },
    ),
    Action.SERVER_STOPPED: Definition("A server process stopped in good order."),
    Action.SCHEMA_MIGRATED: Definition(
        "The schema was brought to another revision. One event a run; what a killed run did is told of by the next.",
        Level.NOTICE,
        detail={
            "duration_ms": Member(Kind.INTEGER, "how long the run took that wrote this"),
            "from": Member(Kind.STRING, "the revision before; `base`: none"),
            "phase": Member(Kind.STRING, "what was asked for: expand, all, or down"),
            "to": Member(Kind.STRING, "the revision afterwards"),
            "version": Member(Kind.STRING, "of Rota"),
        },
    ),
}

VERSIONS: Final = frozenset({1})
