"""
The hostile cases, by number: each that concerns what is delivered is proved by a test that says so.

A test says it by `@pytest.mark.case(number)`. Numbers are those of the list that the project is held to; where that
names only a part of a kind, its gaps are filled with cases of the same kind.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

CASES: dict[int, str] = {
    # Tokens, families, races.
    1: "The same refresh token in 64 requests at once: one successor, one event of a refresh",
    2: "The same through two processes: no lock that only one of them knows",
    3: "A one-time credential used again, and by many at once",
    4: "The token just spent, a moment before and after the end of its grace; by the database's clock",
    5: "A spent token after a restart, and where the host's clock has stepped: still reuse",
    6: "The token before the one just spent, within the grace: reuse",
    7: "A refresh against a change of password, or the disabling of its user: no survivor",
    8: "A refresh against a logout, and two logouts at once",
    9: "Fifty sign-ins at a limit of five sessions",
    10: "The connection cut after the commit, and the same token again",
    11: "The connection cut before anything was written",
    12: "A request cancelled at any moment: no open transaction, no lock, no half of a change",
    13: "Noise for a token: of another prefix, of another tag, empty, of a megabyte; and no query for any",
    14: "A credential of one kind in the place of each other kind",
    15: "A refresh token presented by another client, for more scope, for another audience",
    16: "A refresh at the very end of the session, and a microsecond before",
    17: "A sign-in that brings a session along: fixation",
    18: "Two people by turns in one browser, with cookies left behind",
    19: "A session's row deleted by hand",
    20: "An administrator's end of a session, and its token at once on every instance",
    21: "A malformed cookie is refused, and not taken for nobody",
    22: "A token from the future of a database that was restored or has failed over",
    # JWT.
    23: "`alg`: none, in any spelling, empty, missing",
    24: "HS256 with our public key as its secret, in any encoding",
    25: "Another algorithm or curve than the key's",
    26: "`kid`: a path, SQL, very long, a list, null; nothing is opened or asked for it",
    27: "`jku`, `x5u`, `jwk`, `x5c`: no key is fetched from, or taken out of, the token",
    28: "`crit` with members that nobody knows",
    29: "An encrypted token that unpacks to 250 MB",
    30: "A JWS in its JSON form, alone and mixed with the compact one",
    31: "`iss` that begins as ours or is a list; `aud` with others beside ours",
    32: "`exp`: text, infinite, negative, huge, twice",
    33: "`iat` in the future; `exp` just past",
    34: "`nbf` in the future, and of a wrong kind",
    35: "Twenty thousand dots; a header of a megabyte",
    # Passwords and names.
    36: "Passwords of a megabyte, of 1,025 bytes, of 1,024",
    37: "A stored hash that no scheme knows, or that is damaged",
    38: "An imported bcrypt hash and a password of 100 bytes",
    39: "passlib 1.7.4 beside bcrypt 5",
    40: "A password with NUL in it",
    41: "A letter in its composed and its decomposed form",
    42: "Fifteen emoji with joiners",
    43: "Passwords that differ in their last byte only, or in case",
    44: "Names that look, fold or normalise alike",
    45: "The time of a refusal: known and unknown names",
    46: "The words of a refusal: unknown, wrong, disabled",
    47: "Five hundred sign-ins at once",
    48: "One password over 10,000 accounts from 10,000 addresses",
    # HTTP, addresses, logs.
    50: "X-Forwarded-For from a peer that nobody trusts",
    52: "Forwarded, X-Real-IP, X-Original-URL from outside",
    53: "Everybody trusted as a proxy",
    54: "Names with line ends, terminal colours, format strings",
    55: "A user agent of 100 kB, and one made for slow patterns",
    57: "An exception with the token in it",
    58: "JSON as text/plain from another site, with the cookie",
    60: "Ten thousand parts, a hundred levels, a million members",
    61: "A Range of ten thousand",
    62: "A head without an end, a body by the drop",
    63: "Line ends in what comes back as a header",
    64: "TRACE, HEAD, OPTIONS, another method by a header",
    # Administrators' queries and exports.
    65: "A search for `%`, `_`, `\\`, and for ten thousand of them",
    66: "Order by SQL, by a secret column; a filter on a secret column",
    67: "A role lost between two pages",
    68: "A limit below, above and beside numbers; a cursor that was edited, or of another filter",
    69: "An export with cells that a spreadsheet would run",
    70: "A parameter that nobody knows, and one that stands twice",
    71: "An export whose reader is shut out in the middle of it",
    72: "Somebody else's id, and one that nobody has",
    73: "NUL, lone surrogates, invalid UTF-8, noncharacters in any text",
    74: "Dates that no calendar has",
    # The audit trail.
    75: "UPDATE, DELETE, TRUNCATE of the trail and each of its partitions",
    76: "An event added or removed behind the seal",
    77: "One bit flipped, anywhere in a bundle; what the database's owner can forge",
    78: "A bundle with files missing, added, linked, doubled",
    79: "A bundle under another log's name or key",
    80: "An edit before the seal: not provable; a deletion shows as a gap",
    81: "Several sealers at once; a sealer killed at any moment",
    82: "A transaction that sits open, here, in another database, or prepared",
    83: "A transaction that began first and commits last",
    84: "A lower sequence in a higher transaction",
    85: "A database restored to an older state",
    86: "A publisher that could not publish for a long time",
    87: "A sink that holds another checkpoint of that size, or answers with errors",
    88: "A log rewritten as a whole, with the key",
    89: "A person erased, and every proof",
    90: "An address guessed from its commitment",
    91: "A detached partition, half",
    92: "No partition for next month",
    93: "A flood of failures",
    94: "A full disk under the database",
    95: "An event's detail with a million members, floats, members twice, bottomless nesting",
    96: "An event of an unknown action, reason or version",
    # Delivery.
    97: "A webhook to an address inside",
    98: "A webhook's receiver that stalls, redirects, is gone",
    99: "A cursor of the feed that is not one",
    100: "A SET twice; with `exp`; as an access token",
}

# Of parts that there are not.
UNDELIVERED: dict[int, str] = {
    97: "there are no webhooks: spans go where the operator says, and nothing else goes out",
    98: "there are no webhooks",
}


def marked() -> dict[int, list[str]]:
    """Number -> the tests that carry it, over the whole tree."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for number, line in markers(ast.parse(path.read_text(encoding="utf-8"))):
            found[number].append(f"{path.relative_to(TESTS)}:{line}")
    return found


def markers(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """`pytest.mark.case(N)` wherever it stands: on a test, or on one set of its parameters. The number is literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
            (number,) = node.args
            assert isinstance(number, ast.Constant), f"line {node.lineno}: a case is a number"
            assert isinstance(number.value, int), f"line {node.lineno}: a case is a number"
            yield number.value, node.lineno


def complaints(found: dict[int, list[str]], undelivered: dict[int, str]) -> list[str]:
    return [
        *(f"case {number} is not in the list: {found[number]}" for number in found if number not in CASES),
        *(f"case {number} is said not to be delivered and has a test" for number in undelivered if number in found),
        *(
            f"case {number} has no test: {CASES[number]}"
            for number in CASES
            if number not in found and number not in undelivered
        ),
    ]


def test_every_delivered_case_has_its_test() -> None:
    """No number without a test, none that the list does not know, none that is excused and need not be."""
    found = marked()
    assert complaints(found, UNDELIVERED) == []
    assert len(found) > 50


def test_the_list_can_complain() -> None:
    """A test taken away, a number made up, an excuse that is none: each is said."""
    found = marked()
    without = {number: where for number, where in found.items() if number != 1}
    assert complaints(without, UNDELIVERED) == [f"case 1 has no test: {CASES[1]}"]
    assert len(complaints(found | {999: ["x"]}, UNDELIVERED)) == 1
    assert len(complaints(found, UNDELIVERED | {2: "x"})) == 1
    assert list(markers(ast.parse("x = [pytest.param(1, marks=pytest.mark.case(7))]"))) == [(7, 1)]
    with pytest.raises(AssertionError):
        list(markers(ast.parse("pytest.mark.case(n)")))


def test_excuses_are_of_the_list() -> None:
    """An excuse for a number that is none would stay unnoticed."""
    assert CASES.keys() >= UNDELIVERED.keys()
