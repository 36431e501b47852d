"""
Known vulnerabilities of what we lock: none, but for the one that SECURITY.md explains.

Asks the vulnerability service about every locked version. A finding fails, and so does an exception that is no longer
needed. A service that cannot be reached, or that does not know a package, fails nothing and is said in capital letters:
then nothing is known about those packages, which is not the same as nothing being wrong.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 25
SERVICES = ("pypi", "osv")
# Package -> the names of what is accepted; the reason of each stands in SECURITY.md, which a test sees to.
ACCEPTED = {"ecdsa": {"CVE-2024-23342", "GHSA-wj6h-64fc-37mp", "PYSEC-2024-263"}}


def audit(service: str) -> list[dict[str, Any]] | str:
    """What a service says of each package, or why it says nothing."""
    with tempfile.TemporaryDirectory() as nothing_kept:
        words = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", str(ROOT / "requirements.lock")]
        words += ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
        words += ["--cache-dir", nothing_kept, "--timeout", "10", "--vulnerability-service", service]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603 - ours
        except subprocess.TimeoutExpired:
            return f"no answer within {SECONDS} seconds"
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        if not any(sign in done.stderr for sign in ("Connection", "Timeout", "HTTPError", "resolve")):
            raise SystemExit(f"pip-audit is broken: {last}") from None
        return last[:200]
    return found


def judge(found: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Complaints, and the packages of which nothing is known."""
    complaints, unknown = [], []
    for each in found:
        name = each["name"]
        if "skip_reason" in each:
            unknown.append(name)
            continue
        vulnerabilities = each["vulns"]
        for one in vulnerabilities:
            names = {one["id"], *one["aliases"]}
            if not names & ACCEPTED.get(name, set()):
                fixed = ", ".join(one["fix_versions"]) or "nothing yet"
                complaints.append(f"{name} {each['version']}: {', '.join(sorted(names))}; fixed by {fixed}")
        if name in ACCEPTED and not vulnerabilities:
            complaints.append(f"{name} {each['version']} is not vulnerable any more: take its exception away")
    locked = {each["name"] for each in found}
    complaints += [f"{name} is not locked any more: take its exception away" for name in ACCEPTED if name not in locked]
    return complaints, unknown


def main() -> None:
    complaints: set[str] = set()
    audited: set[str] = set()
    for service in SERVICES:
        found = audit(service)
        if isinstance(found, str):
            print(f"NOT AUDITED BY {service.upper()}: IT CANNOT BE REACHED ({found})")
            continue
        wrong, unknown = judge(found)
        complaints |= set(wrong)
        audited |= {each["name"] for each in found} - set(unknown)
        if not unknown:
            break
        print(f"NOT AUDITED BY {service.upper()}: IT DOES NOT ANSWER FOR {len(unknown)} OF {len(found)} PACKAGES")
        print(f"  {', '.join(unknown)}")
    print(f"{len(audited)} packages audited, {len(complaints)} complaints")
    for complaint in sorted(complaints):
        print(f"  {complaint}", file=sys.stderr)
    if complaints:
        sys.exit(1)


if __name__ == "__main__":
    main()
