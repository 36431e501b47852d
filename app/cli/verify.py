"""`rota audit verify`: for auditors. Needs no database, no network and no settings."""

import json
import os
import stat
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import Exit
from app.cli.running import AsJson, progress
from app.domain.checkpoints import Checkpoint, Malformed, Proof
from app.domain.clock import Clock
from app.domain.findings import Class, Report
from app.domain.merkle import leaf_hash, root_from_proof
from app.domain.verification import Verifier
from app.security.notes import NoteKey, SignatureInvalid, open_note

FILE_BYTES = 32 * 1024 * 1024  # beyond what any file of a bundle can have, but for the list of checkpoints

Keys = Annotated[Path, typer.Option(help="File with the trusted public keys (vkeys), one a line")]


class BundleFolder:
    """A bundle on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or (status.st_size > FILE_BYTES and name != "checkpoints"):
                return None
            return path.read_bytes()
        except OSError:
            return None

    def count(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self._root))


def verify(
    bundle: Annotated[Path, typer.Argument(help="An exported bundle, or a .tlog-proof file")],
    keys: Keys,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Directory of checkpoints that you have kept, such as a copy of the sink")
    ] = None,
    max_age: Annotated[int | None, typer.Option(help="Seconds: the newest entry must not be older", min=1)] = None,
    as_json: AsJson = False,  # noqa: FBT002 - Typer's form
) -> None:
    """
    Verify an exported bundle or a proof, offline.

    Exit codes: 0 it holds, 10 malformed, 11 bad signature, 12 inconsistent, 13 missing, 14 altered event, 15 gap in a
    session, 16 unknown version or form, 17 back-dated, 18 personal data, 19 too old; the smallest that was found.
    """
    trusted = _read_keys(keys)
    if bundle.is_file():
        raise typer.Exit(_verify_proof(bundle, trusted, as_json=as_json))
    if not bundle.is_dir():
        typer.echo(f"{bundle}: there is no such bundle", err=True)
        raise typer.Exit(Exit.NOT_FOUND)
    with progress("verifying") as tell:
        verifier = Verifier(
            BundleFolder(bundle),
            partial(open_note, keys=trusted),
            copies=_copies(checkpoints),
            oldest=Clock().on_host() - timedelta(seconds=max_age) if max_age else None,
            progress=tell,
        )
        report = verifier.run()
    _print(report, as_json=as_json)
    raise typer.Exit(report.exit_code)


def verify_folder(bundle: Path, trusted: list[NoteKey]) -> Report:
    """Verify a bundle that was exported just now."""
    return Verifier(BundleFolder(bundle), partial(open_note, keys=trusted)).run()


def _read_keys(path: Path) -> list[NoteKey]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [NoteKey.parse(line) for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter(f"{path} cannot be read") from None
    except Malformed as error:
        raise typer.BadParameter(f"{path}: {error}") from None
    if not found:
        raise typer.BadParameter(f"{path} holds no key")
    return found


def _copies(folder: Path | None) -> list[tuple[str, str]]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is not a directory")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise typer.BadParameter(f"{folder} holds no checkpoint")
    return [(str(path), path.read_bytes().decode("utf-8", "replace")) for path in files]


def _verify_proof(path: Path, trusted: list[NoteKey], *, as_json: bool) -> int:
    """A C2SP tlog-proof whose extra data is the entry."""
    report = Report(entries=1, checkpoints=1)
    entry = b""
    try:
        proof = Proof.parse(path.read_bytes().decode())
        entry = proof.extra or b""
        checkpoint = Checkpoint.parse(open_note(proof.note, trusted))
        root = root_from_proof(leaf_hash(entry), proof.index, checkpoint.size, proof.hashes)
        if root != checkpoint.root:
            report.add(Class.ALTERED, f"entry {proof.index}", "the proof does not lead from it to the signed root")
    except SignatureInvalid as error:
        report.add(Class.SIGNATURE, str(path), str(error))
    except (ValueError, OSError) as error:
        report.add(Class.MALFORMED, str(path), str(error))
    _print(report, as_json=as_json)
    if not report.counts:
        typer.echo(entry.decode())
    return report.exit_code


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        shown = {
            "ok": not report.counts,
            "origin": report.manifest.origin if report.manifest else None,
            "size": report.manifest.size if report.manifest else None,
            "first": report.manifest.first if report.manifest else None,
            "last": report.manifest.last if report.manifest else None,
            "entries": report.entries,
            "checkpoints": report.checkpoints,
            "checkpoints_beyond": report.beyond,
            "newer_size": report.newer or None,
            "sessions": report.sessions,
            "erased": report.erased,
            "newest": report.newest,
            "counts": {kind.name.lower(): count for kind, count in sorted(report.counts.items())},
            "findings": [{"class": f.kind.name.lower(), "place": f.place, "what": f.what} for f in report.findings],
        }
        typer.echo(json.dumps(shown))
        return
    for finding in report.findings:
        typer.echo(f"{finding.kind.name.lower()}: {finding.place} {finding.what}", err=True)
    total = sum(report.counts.values())
    if total > len(report.findings):
        typer.echo(f"... and {total - len(report.findings)} more findings", err=True)
    if report.manifest is not None:
        m = report.manifest
        typer.echo(
            f"{m.origin}: entries {m.first} to {m.last - 1} of {m.size}, {report.checkpoints} checkpoints, "
            f"{report.sessions} sessions, {report.erased} entries without personal data, newest {report.newest}",
            err=True,
        )
        if m.first or m.last < m.size:
            typer.echo(f"only these entries were verified: {m.first} before and {m.size - m.last} after them", err=True)
        if report.newer:
            typer.echo(
                f"the log has {report.newer} entries by your newest checkpoint; the bundle ends before", err=True
            )
        if report.beyond:
            typer.echo(f"{report.beyond} of your checkpoints are not covered by this bundle", err=True)
    typer.echo("verified" if not total else f"NOT verified: {total} findings", err=True)
