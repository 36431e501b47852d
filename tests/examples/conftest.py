"""The examples run against real servers."""

from tests.feed.conftest import serve, who

__all__ = ["serve", "who"]
