"""Fixtures of other folders, where a hostile case goes across."""

from tests.admin.conftest import office
from tests.trail.conftest import log

__all__ = ["log", "office"]
