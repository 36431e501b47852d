"""Exported bundles hold, and nothing can be changed in them unnoticed."""

from tests.trail.conftest import Log


async def test_a_bundle_holds(log: Log) -> None:
    """All of it, with personal data under its commitments; without trust in who exported it."""
    await log.live("ada", 300, end=True)
    await log.live("ben", 20)
    await log.publish()
    await log.live("cleo", 30, end=True)
    await log.publish()
    report = log.verify(await log.export())
    assert report.findings == []
    assert report.exit_code == 0
    assert (report.sessions, report.checkpoints, report.erased) == (3, 2, 0)
