"""Checks of the settings and the secrets; all but the last two need no database."""

import asyncio
import ipaddress
import math
import stat
import zlib
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from app.domain.checks import Finding, failure, ok, skipped, warning
from app.domain.key_calendar import SecretState
from app.domain.passwords import MINIMUM_CHARACTERS
from app.security.keys import key_id, spell_key_id
from app.services.contradictions import contradictions
from app.services.patient import Look, Patient

SECRETS_MAXIMUM: Final = 3
BITS_WANTED: Final = 128
BITS_MINIMUM: Final = 64
AGE_DAYS: Final = 365
_ZLIB_BYTES: Final = 12  # what zlib adds to what cannot be compressed


async def valid(patient: Patient) -> Finding:
    complaints = patient.examined.complaints
    if complaints:
        return failure("; ".join(each.message for each in complaints) + ".")
    return ok(f"{len(patient.examined.given)} are set, the others have their defaults.")


async def contradicting(patient: Patient) -> Finding:
    found = contradictions(patient.settings, patient.examined.given)
    return warning(" ".join(each.what for each in found)) if found else ok("There is no contradiction.")


async def issuer(patient: Patient) -> Finding:
    told = patient.settings.issuer
    parts = urlsplit(told)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host:
        return warning("The issuer is not a URL: services cannot find the key set by it.")
    if parts.query or parts.fragment:
        return failure("The issuer has a query or a fragment, which RFC 8414 does not allow.")
    if _is_of_this_host(host):
        return warning(f"{told} is an address of this host: nobody else can fetch the key set there.")
    if parts.scheme == "http":
        return failure(f"{told} is not encrypted.")
    return ok(f"It is {told}.")


async def proxies(patient: Patient) -> Finding:
    trusted = patient.settings.proxies
    if trusted.anybody:
        return failure("ROTA_TRUSTED_PROXIES trusts anybody: every client can say to be another address.")
    if not trusted and urlsplit(patient.settings.issuer).scheme == "https":
        return warning(
            "The issuer is https, so a proxy stands before the server, and none is trusted: every client seems to have "
            "the proxy's address."
        )
    named = [str(each) for each in trusted.networks] + (["unix"] if trusted.unix else [])
    return ok(f"Trusted: {', '.join(named)}." if named else "No proxy is trusted: a client's address is its peer's.")


def _is_of_this_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def password_length(patient: Patient) -> Finding:
    least = patient.settings.password_min_characters
    if least < MINIMUM_CHARACTERS:
        return warning(f"{least} characters are enough: something else must be asked for besides, outside of Rota.")
    return ok(f"They have at least {least}.")


async def present(patient: Patient) -> Finding:
    ids = [spell_key_id(key_id(secret)) for secret in patient.settings.secret_list]
    if not ids:
        return failure("There is none that can be used.")
    if len(set(ids)) != len(ids):
        return failure(
            f"Two secrets share an id ({', '.join(ids)}), so tokens could not say which one they are of: replace the "
            "newer one by another."
        )
    told = f"{ids[0]} mints" + (f"; {', '.join(ids[1:])} only verify" if ids[1:] else "") + "."
    if len(ids) > SECRETS_MAXIMUM:
        return warning(f"There are {len(ids)}: {told}")
    return ok(told)


async def strength(patient: Patient) -> Finding:
    secrets = patient.settings.secret_list
    if not secrets:
        return skipped("There is no secret.")
    weak = {spell_key_id(key_id(secret)): _bits(secret) for secret in secrets if _bits(secret) < BITS_WANTED}
    if not weak:
        return ok(f"Each looks like {BITS_WANTED} random bits or more.")
    names = ", ".join(f"{name} looks like {bits} random bits" for name, bits in weak.items())
    say = failure if min(weak.values()) < BITS_MINIMUM else warning
    return say(f"Repetitions or words are in it, or it is too short: {names}; {BITS_WANTED} are wanted.")


def _bits(secret: bytes) -> int:
    """An upper bound of what is random in it: by how often its bytes stand in it, and by how far it compresses."""
    counts = Counter(secret)
    entropy = -sum(n * math.log2(n / len(secret)) for n in counts.values())
    return max(0, int(min(entropy, 8 * (len(zlib.compress(secret, 9)) - _ZLIB_BYTES))))


async def files(patient: Patient) -> Finding:
    paths = sorted(set(patient.examined.files.values()))
    if not paths:
        return ok("No secret comes from a file.")
    return await asyncio.to_thread(_examine_files, paths)


def _examine_files(paths: list[str]) -> Finding:
    readable, writable = [], []
    for path in (Path(each).resolve() for each in paths):
        try:
            mode = path.stat().st_mode
            reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
        except OSError as error:
            return failure(f"{path} cannot be looked at ({error.strerror}).")
        if mode & stat.S_IROTH and reachable:
            readable.append(str(path))
        if mode & stat.S_IWGRP or (mode & stat.S_IWOTH and reachable):
            writable.append(str(path))
    if readable or writable:
        said = [f"everybody on this host can read {', '.join(readable)}"] if readable else []
        said += [f"others can write {', '.join(writable)}"] if writable else []
        return failure("; ".join(said).capitalize() + ".")
    return ok(f"Nobody else on this host can read {', '.join(paths)}.")


async def age(patient: Patient) -> Finding:
    calendar = await patient.calendar()
    if calendar.unseen:
        return skipped(calendar.unseen)
    first = calendar.secrets[0]
    former = [each for each in calendar.secrets if each.state is SecretState.FORMER]
    depending = calendar.depending
    if former and depending and depending.sessions == depending.password_tokens == 0:
        unused = [each.id for each in former if not each.clients]
        if unused and depending.since + depending.then_wait < calendar.now:
            return warning(f"Nothing depends on {', '.join(unused)} any more: it can be removed.")
    if first.minted_since is None:
        return ok("No server has started with the first secret yet.")
    days = (calendar.now - first.minted_since).days
    if days > AGE_DAYS:
        return warning(f"{first.id} has been minting for {days} days.")
    return ok(f"{first.id} has been minting since {first.minted_since:%Y-%m-%d}, as far as the trail goes back.")


async def in_use(patient: Patient) -> Finding:
    calendar = await patient.calendar()
    if calendar.unseen:
        return skipped(calendar.unseen)
    if calendar.missing:
        return failure(" ".join(calendar.missing))
    if not any(each.listed_since for each in calendar.secrets):
        return skipped("No server has started with this database yet.")
    return ok("The server that started last has the same list.")


LOOKS: Final[dict[str, Look]] = {
    "settings.valid": valid,
    "settings.contradictions": contradicting,
    "settings.issuer": issuer,
    "settings.password_length": password_length,
    "settings.proxies": proxies,
    "secrets.present": present,
    "secrets.strength": strength,
    "secrets.files": files,
    "secrets.age": age,
    "secrets.in_use": in_use,
}
