"""What there is on this machine that a lab could leave behind, as one value that `test_residue` compares."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

Snapshot = dict[str, frozenset[str]]

FOLDERS = ("/run", "/etc", "/var/lib", "/var/cache", "/var/log", "/dev/shm")
TEMPORARY = pathlib.Path("/tmp")

_COMMANDS = {
    "links": ["ip", "-brief", "link"],
    "addresses": ["ip", "-oneline", "address"],
    "routes": ["ip", "route", "show", "table", "all"],
    "routes of IPv6": ["ip", "-6", "route", "show", "table", "all"],
    "rules": ["ip", "rule"],
    "neighbours": ["ip", "neighbour", "show", "nud", "permanent"],
    "nftables": ["nft", "list", "tables"],
}


def snapshot(lab: pathlib.Path, token: str) -> Snapshot:
    """Everything of the machine but its processes, of which only those that have to do with `lab`.

    A process does when its command line names the lab's folder, or its environment has `token`.
    """
    seen = {what: _lines(command) for what, command in _COMMANDS.items()}
    seen["processes"] = frozenset(f"{pid} {command}" for pid, command in processes(lab, token).items())
    seen["network namespaces"] = frozenset(_namespaces())
    seen["mounts"] = frozenset(_mounts())
    seen["files"] = frozenset(_files())
    seen["temporary files"] = frozenset(map(str, TEMPORARY.iterdir()))
    return seen


def differences(before: Snapshot, after: Snapshot) -> dict[str, tuple[list[str], list[str]]]:
    """By what differs: what came, and what went. Anybody may have taken back a temporary file of theirs meanwhile."""
    found = {}
    for what, there in before.items():
        went = frozenset[str]() if what == "temporary files" else there - after[what]
        came = after[what] - there
        if came or went:
            found[what] = (sorted(came), sorted(went))
    return found


def processes(lab: pathlib.Path, token: str) -> dict[int, str]:
    """The living processes of the lab, by pid, with their command line; those that started it are not among them."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            # A zombie has neither.
            if int(entry.name) != os.getpid() and command:
                environ = (entry / "environ").read_bytes().decode(errors="replace")
                if str(lab) in command or token in environ:
                    found[int(entry.name)] = command
    return found


def _lines(command: list[str]) -> frozenset[str]:
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    return frozenset(" ".join(line.split()) for line in shown.splitlines())


def _namespaces() -> Iterator[str]:
    for link in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            yield str(link.readlink())
    for name in pathlib.Path("/run/netns").glob("*"):
        yield str(name)


def _mounts() -> Iterator[str]:
    """Every mount that any process sees, without its number."""
    for table in pathlib.Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines():
                yield " ".join(line.split()[3:5])


def _files() -> Iterator[str]:
    for folder in FOLDERS:
        for here, folders, names in os.walk(folder):
            yield from (f"{here}/{name}" for name in (*folders, *names))
    home = pathlib.Path.home()
    yield from (str(path) for path in (*home.glob("*"), *home.glob(".[!.]*"), *home.glob(".*/*")))
