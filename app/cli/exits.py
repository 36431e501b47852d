"""What the exit codes say."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    CHECK_FAILED = 5
    TRY_AGAIN = 75
