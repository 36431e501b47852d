"""The servers of `tests/deploy`."""

from tests.deploy.conftest import serve

__all__ = ["serve"]
