"""What a user agent says of the device; parsed once at sign-in, never on the refresh path."""

from dataclasses import dataclass

from ua_parser import parse


@dataclass(frozen=True, slots=True)
class Device:
    """Words for people, such as "iPhone", "Mobile Safari 17", "iOS 17"; `None` where the agent does not say."""

    device: str | None
    browser: str | None
    os: str | None


def describe_device(user_agent: str | None) -> Device:
    """
    The first call loads the rules (some 150 ms, see `load_rules`), each further one takes microseconds.

    The matcher is the Rust one, whose time is linear in the agent's length.
    """
    if user_agent is None:
        return Device(None, None, None)
    found = parse(user_agent)
    return Device(
        device=_known(found.device.family) if found.device else None,
        browser=_named(found.user_agent.family, found.user_agent.major) if found.user_agent else None,
        os=_named(found.os.family, found.os.major) if found.os else None,
    )


def load_rules() -> None:
    """Load the rules ahead of the first sign-in."""
    describe_device("Rota")


def _named(family: str, major: str | None) -> str | None:
    if (known := _known(family)) is None:
        return None
    return f"{known} {major}" if major else known


def _known(family: str) -> str | None:
    return None if family == "Other" else family
