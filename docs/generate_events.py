"""Writes docs/reference/events.md from the vocabulary: `make docs`. A test fails when the two differ."""

from pathlib import Path

from app.domain.definitions import Definition, Level, Numbered
from app.domain.events import Action, ActorKind
from app.domain.findings import Class
from app.domain.vocabulary import DEFINITIONS, REASONS, VERSIONS

TARGET = Path(__file__).parent / "reference" / "events.md"

HEAD = """# The audit trail: events, entries, verification

*Made from `app/domain/vocabulary.py` by `make docs`; do not edit.*

This page is for whoever audits a Rota deployment: what is recorded, in which form it is sealed, and how to check it
without trusting the people who run it.

## What an event holds

| column | meaning |
| --- | --- |
| `id` | UUIDv7 |
| `occurred_at` | UTC, microseconds, by the database's clock |
| `action`, `version` | what happened; the list below is closed. Version: {versions} |
| `outcome` | `success` or `failure` |
| `reason` | a code of the action's own list, or null |
| `actor_kind`, `actor_id` | who acted: {actors} |
| `subject_id` | whose account or session it is about; the nil UUID if nobody's that is known |
| `family_id` | the session (its refresh-token family) |
| `family_seq` | 1, 2, 3 … without gaps through a session's life; null for events that are not part of it |
| `generation` | of the refresh token |
| `ip`, `user_agent` | of whoever sent the request: personal data, readable by auditors and administrators |
| `request_id` | also in the answer's `X-Request-ID` and in the log |
| `commitment` | in place of `ip` and `user_agent` once the person was erased |
| `detail` | canonical JSON, members as listed below; never personal data, never a secret |

The database role of the server may add events and read them. Triggers that are always on refuse changes to everybody,
but whoever owns the database can take triggers off: that this is noticed is what the sealing below is for. Months past
their time are removed by retention, which is an event itself. Levels: `routine` is the ordinary life of sessions, `notice`
is worth a look in a review, `warning` may be an attack, `alarm` needs somebody now. Events are kept until
`ROTA_AUDIT_RETENTION_DAYS` have passed (for ever, if that is not set); readers are the user themselves (their own),
auditors and administrators, and each read by those two is an event.

Failures that are alike are not written one by one for ever: of failed sign-ins the first five of a minute with the same
subject, reason and address (for IPv6: /64) are events, of refused refreshes the first of a minute and session; the rest
becomes one event with reason `rolled_up` and their exact number in `count`.

## The form in which an event is sealed

    entry      = canonical JSON: RFC 8785 (members sorted, no white space), strings, integers within 2^53, booleans, null,
                 arrays and objects; no floats. All member names are ASCII.
    leaf       = SHA-256(0x00 || entry)                                                    (RFC 6962, section 2.1)
    commitment = SHA-256(0x02 || event salt || personal data)
    event salt = HMAC-SHA256(key = the person's own 32 random bytes, message = the 16 bytes of the event's id)
    personal data = {{"ip":…,"user_agent":…}} as canonical JSON; either may be null. `ip` as PostgreSQL's host() writes it.

An event's entry has exactly these members, absent ones as null: `action`, `actor_id`, `actor_kind`, `commitment` (base64url
without padding, 43 characters; null only if there is neither address nor agent), `detail` (an object, `{{}}` if empty),
`family_id`, `family_seq`, `generation`, `id`, `k` (`"rota.event/<version>"`), `occurred_at`
(`2026-11-23T10:00:00.000000Z`), `outcome`, `reason`, `request_id`, `subject_id`. Ids are in lower case.

The person is the actor if that is a user or an administrator, else the subject. An entry is the same before and after an
erasure, and so is every proof.

Leaves are appended to one tree (RFC 6962) in the order in which their transactions began to write, each exactly once.
That order is total and final, but not causal between transactions: inside a session `family_seq` tells what came first.
Tree heads are signed as C2SP checkpoints (`c2sp.org/tlog-checkpoint`, Ed25519 signed notes, three lines and one signature,
the key's name is the log's origin) and published outside the database within seconds; when nothing happens for ten
minutes an `audit.heartbeat` does.

After a restore from a backup the log goes on under a further name, `<origin>/epoch-<n>`, which seals everything that the
restored database holds anew, signed by the same key under that name (`rota audit key` prints a verifier key for each). Its
entry 0, and no other, has the members `k` (`"rota.epoch/1"`), `opened_at` (a time as above), `previous_checkpoint` (the
whole note of the newest checkpoint of the log before, or an empty string), `reason` (the operator's) and `removed` (whether
retention had removed events before).

## A bundle, and verifying it

`rota audit export --output DIR` writes a directory in the layout of C2SP tlog-tiles (`c2sp.org/tlog-tiles`):

| file | holds |
| --- | --- |
| `checkpoint` | the newest signed tree head |
| `checkpoints` | signed heads by size: those larger than `first` and at most `last`, then the newest; five lines each, an empty line between two |
| `tile/<level>/<n>[.p/<w>]` | hashes: the range's, all above them, and the right edge of the tree of the newest head, by whose size their widths go |
| `tile/entries/<n>[.p/<w>]` | entries, each preceded by its length in two bytes; partial only if `last` is not a multiple of 256. An empty entry stands where an event is gone |
| `personal/<n>` | never partial, absent if empty: a line for each entry of that tile with personal data, by index: index, space, event salt (base64url, 43 characters), space, personal data |
| `manifest.json` | see below |

The manifest is canonical JSON and a newline: `k` (`"rota.bundle/1"`), `origin`, `size` (of the newest head), `first` and
`last` (the range of entries, without `last`; `first` is a multiple of 256), `checkpoints` and `personal` (how many; `personal`
is null if personal data was left out), `minimum_index` (entries below were removed by retention), `exported_at`, `since`,
`until`, and `digest`: SHA-256, in hex, of the same JSON without it. It guards against accidents only: what counts is proven by
the tree.

`rota audit verify DIR --keys FILE [--checkpoints DIR] [--max-age SECONDS]` needs neither a database nor a network. Keys
are verifier keys as `rota audit key` prints them, one a line; get them from the operator once, by a way of your own, and
keep the published checkpoints yourself: against a copy that you hold, nobody can rewrite what it covers.
`rota audit prove EVENT` writes a C2SP `tlog-proof` for one event, with the entry as its extra data; the same command
verifies it.

| exit code | finding |
| --- | --- |
| 0 | everything holds |
| 2, 3 | not called rightly; there is no such bundle |
{codes}
What this cannot show: whether the program told the truth when it wrote an event; what somebody who owns the database changed
before it was sealed, which takes a second or two; that there are newer entries than the bundle's, unless you give a newer
checkpoint (then it says so) or `--max-age`; which heads between two others were left out. A bundle of a range says which entries it has, and
how many are before and after them. `rota audit reconcile` compares the events with the tables.

## Events by level

"""

FINDINGS = {
    Class.MALFORMED: "not a bundle, or a part of it cannot be read",
    Class.SIGNATURE: "a checkpoint that no trusted key has signed, or a wrong signature",
    Class.INCONSISTENT: "checkpoints, tiles and roots contradict each other",
    Class.MISSING: "an entry, a tile or a checkpoint is not there",
    Class.ALTERED: "an entry is not the one that was sealed",
    Class.GAP: "a session's life has a gap, a repetition or an illegal step; an event without a counter stands twice",
    Class.UNKNOWN: "an entry of a version or form that this program does not know",
    Class.TIME: "an entry is dated some five minutes or more before one that stands before it",
    Class.PERSONAL: "personal data is missing without an erasure, or is not what was committed to",
    Class.TOO_OLD: "the newest entry is older than `--max-age`",
}


def _codes(values: object) -> str:
    return ", ".join(f"`{value}`" for value in sorted(values))  # type: ignore[call-overload]


def _event(action: Action, definition: Definition) -> str:
    lines = [f"### `{action}`", "", definition.meaning, ""]
    lines.append(f"- level `{definition.level}`, outcome `{definition.outcome}`")
    if definition.reasons:
        lines.append(f"- reason: {_codes(definition.reasons)}")
    if definition.numbered is Numbered.ALWAYS:
        lines.append("- part of a session's life: `family_id`, `family_seq`, `generation`")
    elif definition.session:
        lines.append("- names a session: `family_id`")
    for name, member in sorted(definition.detail.items()):
        optional = "" if member.required else ", not always there"
        nullable = " or null" if member.nullable else ""
        lines.append(f"- detail `{name}` ({member.kind}{nullable}{optional}): {member.meaning}")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    codes = "".join(f"| {kind.value} | {kind.name.lower()}: {FINDINGS[kind]} |\n" for kind in Class)
    actors = ", ".join(f"`{kind}`" for kind in ActorKind)
    versions = ", ".join(str(version) for version in sorted(VERSIONS))
    parts = [HEAD.format(codes=codes, actors=actors, versions=versions)]
    for level in reversed(Level):
        named = ", ".join(f"`{action}`" for action in Action if DEFINITIONS[action].level is level)
        parts.append(f"- {level}: {named}\n")
    parts.append("\n## Reasons\n\n| code | meaning |\n| --- | --- |\n")
    parts += [f"| `{code}` | {meaning} |\n" for code, meaning in sorted(REASONS.items())]
    parts.append("\n## Actions\n")
    parts.append("\n" + "\n".join(_event(action, DEFINITIONS[action]) for action in Action))
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
