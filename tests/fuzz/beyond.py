"""
Refusals of requests that fit the document, where a schema cannot say the rule. Each with the rule; all others count.
"""

import json
from typing import Final

from app.domain.passwords import MAXIMUM_BYTES

CODES: Final = {
    "password_refused": "what is too short, too common or like the name depends on settings and on a blocklist",
    "username_refused": "PRECIS (RFC 8265) says which characters a name may have",
    "cursor_invalid": "cursors are signed",
    "query_too_broad": "how many rows match is not the request's to know",
    "invalid_grant": "tokens are signed, passwords are somebody's",
    "invalid_scope": "what was granted is the session's",
    "unauthorized_client": "which grants a client has is the client's",
    "unsupported_token_type": "the kind of a token is in the token",
}
FIELDS: Final = {
    "after": "cursors are signed, and bound to their filter and order",
    "actor": "a name as PRECIS has it",
    "subject": "a name as PRECIS has it",
    "user": "a name as PRECIS has it",
    "ended_by": "a name as PRECIS has it",
    "username_prefix": "the beginning of a name as PRECIS has it",
    "prefix": "the beginning of a name as PRECIS has it",
    "created_to": "a range must not end before it begins",
    "last_used_to": "a range must not end before it begins",
    "to": "a range must not end before it begins",
    "from": "a range must be within what is kept, and not longer than its buckets allow",
    "bucket": "a range must not be longer than its buckets allow",
    "ip_scope": "says nothing without ip",
    "auth_time": "must be within the life of a session, up to now",
    "scope": "within what the client may grant",
    "fingerprint": "needed unless dry_run",
    "reason": "needed unless dry_run",
    "filter": "needed unless issued_before",
    "issued_before": "alone",
    "name": "printable",
    "public": "first-party only",
    "grants": "by the kind of client",
    "client_id": "as another pattern has it",
}
WORDS: Final = (
    f"must have at most {MAXIMUM_BYTES} bytes",
    "must have no NUL",
    "must have no lone surrogates",
    "must have no noncharacters",
    "are needed.",
    "is needed.",
)


def is_beyond(answer: bytes) -> bool:
    """Whether a refusal is for a rule that no schema can say."""
    try:
        said = json.loads(answer)
    except ValueError:
        return False
    if said.get("code", said.get("error")) in CODES:
        return True
    words = str(said.get("detail", said.get("error_description")))
    found = said.get("errors") or [{"loc": [""], "msg": words}]
    return all(
        any(part in FIELDS for part in each["loc"] if isinstance(part, str)) or each["msg"].endswith(WORDS)
        for each in found
    )
