"""The vocabulary's part on failed sign-ins, and on those that were not looked at."""

from collections.abc import Mapping
from typing import Final

from app.domain.definitions import ROLLED_UP, SUMMED, Definition, Kind, Level, Member
from app.domain.events import Action, Outcome
from app.domain.throttling import Limited

_OF: Final = Member(Kind.STRING, "in a sum: the reason that all had", required=False)
_NAME_DIGEST: Final = Member(
    Kind.STRING, "of an unknown name: its keyed hash, so that equal names are seen to be equal", required=False
)

# Reasons, as in `REASONS`.
LIMITS: Final[Mapping[str, str]] = {
    Limited.ACCOUNT: "too many failures in a row on this name",
    Limited.DEVICE: "too many failures in a row from a device that had signed in before",
    Limited.SESSION: "too many wrong current passwords from this session",
    Limited.ADDRESS: "too many failures from this address",
    Limited.EVERYWHERE: "too many failures of all together",
}

LOGINS: Final[Mapping[Action, Definition]] = {
    Action.LOGIN_FAILED: Definition(
        "A sign-in failed. Beyond five that are alike (subject, reason, address, minute) there is one sum a minute.",
        Level.NOTICE,
        Outcome.FAILURE,
        frozenset({"unknown_user", "wrong_password", "disabled", ROLLED_UP}),
        detail={
            "name_digest": _NAME_DIGEST,
            "of": Member(Kind.STRING, "in a sum: the reason that all had, of `credential.refused` too", required=False),
            **SUMMED,
        },
    ),
    Action.LOGIN_THROTTLED: Definition(
        "A password was not even looked at: too many were wrong before. Summed like `login.failed`; of one account "
        "whatever the addresses, of one address whatever the accounts.",
        Level.WARNING,
        Outcome.FAILURE,
        frozenset(Limited) - {Limited.EVERYWHERE} | {ROLLED_UP},
        detail={"name_digest": _NAME_DIGEST, "of": _OF, **SUMMED},
    ),
    Action.LOGIN_FLOODED: Definition(
        "So many sign-ins failed that unknown devices are turned away. One event in such a minute, and one sum.",
        Level.ALARM,
        Outcome.FAILURE,
        frozenset({Limited.EVERYWHERE, ROLLED_UP}),
        detail={"of": _OF, **SUMMED},
    ),
    Action.LOGIN_UNBLOCKED: Definition("Somebody cleared the count of a user's failed sign-ins.", Level.NOTICE),
}
