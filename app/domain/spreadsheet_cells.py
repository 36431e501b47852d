"""Text in cells of a CSV file that no spreadsheet takes for a formula."""

from typing import Any, Final

_FORMULAS: Final = tuple("=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20")  # begin so, in full width too
_AFTER_GUARD: Final = (*_FORMULAS, "'")


def harmless(value: Any) -> Any:
    """For people: an apostrophe stands before what would be a formula. What is not text is left as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def guarded(cell: str) -> str:
    """For programs, who take it off again by `bare`: an apostrophe stands before such an apostrophe as well."""
    return f"'{cell}" if cell.startswith(_FORMULAS) or _is_guarded(cell) else cell


def bare(cell: str) -> str:
    """The inverse of `guarded`."""
    return cell[1:] if _is_guarded(cell) else cell


def _is_guarded(cell: str) -> bool:
    return cell.startswith("'") and cell.startswith(_AFTER_GUARD, 1)
