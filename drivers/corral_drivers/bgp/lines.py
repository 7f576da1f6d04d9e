"""A configuration as text, read into its statements. Pure; for the file, for what we render, and for what FRR shows.

FRR indents what stands under another statement, by a space more each time; `exit`, `!` and empty lines say nothing.
"""

from __future__ import annotations

import re

from corral_drivers.bgp.model import Lines, Path

_SILENT = re.compile(r"!|#|exit\b|exit-|end$|$")
_ENVIRONMENT = re.compile(
    r"(Building configuration|Current configuration|frr (version|defaults)|hostname|domainname|log|service|password"
    r"|enable password|banner|debug|line vty|agentx|(no )?ip(v6)? forwarding)\b"
)
"""What says nothing of routing, or what an operator may set for a while to find a fault."""

_DEFAULTS = re.compile(r"^frr defaults (\S+)", re.MULTILINE)


def read(text: str) -> Lines:
    """Every statement that says something of routing, once."""
    found: dict[Path, None] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        statement = line.strip()
        if _SILENT.match(statement):
            continue
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        above.append((indent, statement))
        path = tuple(one for _, one in above)
        if not _ENVIRONMENT.match(path[0]) and not _is_bare(path):
            found[path] = None
    return tuple(found)


def _is_bare(path: Path) -> bool:
    """An interface is there without being stated, and goes by no statement."""
    return len(path) == 1 and path[0].startswith("interface ")


def defaults(text: str) -> str:
    """Which defaults the configuration counts on, as it says; empty where it does not."""
    found = _DEFAULTS.search(text)
    return found[1] if found else ""
