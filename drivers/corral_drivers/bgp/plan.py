"""Which statements to take from the daemons and to give them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from corral_drivers import steps
from corral_drivers.bgp import lines, marks
from corral_drivers.bgp.model import Desired, Lines, Observed, Path

Daemon = Literal["bgpd", "zebra"]


@dataclass(frozen=True, slots=True)
class Configure:
    """Take these statements from a daemon, then give it those, each in this order; sessions that are kept, stay."""

    daemon: Daemon
    remove: Lines
    add: Lines

    def __str__(self) -> str:
        signed = [("-", path) for path in self.remove] + [("+", path) for path in self.add]
        return "\n".join(f"{self.daemon} {sign} {': '.join(path)}" for sign, path in signed)


@dataclass(frozen=True, slots=True)
class Write:
    """Replace the file that the daemons start from."""

    text: str

    def __str__(self) -> str:
        return "write the file that FRR starts from"


Step = Configure | Write

Plan = steps.Plan[Step]


def plan(desired: Desired, observed: Observed) -> Plan:
    """Order the steps from what the daemons have to what they should have.

    bgpd comes first, because it carries the mark, and the file last, because it is the mark's other place. What goes,
    goes in reverse order: of a prefix list, what permits before what denies, so that nothing gets out meanwhile. To be
    silent is no reason to touch what was never ours.

    Raises `errors.Rejected` for a foreign configuration.
    """
    if desired.is_silent and not marks.is_ours(observed, desired.mark):
        return Plan()
    marks.check(desired, observed, lines.read(observed.file or ""))
    configured = (
        _configure("bgpd", desired.bgpd, observed.bgpd, frozenset(desired.bgpd)),
        _configure("zebra", desired.zebra, observed.zebra, desired.lines),
    )
    written = () if observed.file == desired.file else (Write(desired.file),)
    return Plan(steps=(*(one for one in configured if one.remove or one.add), *written))


def _configure(daemon: Daemon, want: Lines, have: Lines, allowed: frozenset[Path]) -> Configure:
    # A neighbor that stays is told its new AS: bgpd crashed now and then (FRR 8.4.4) where one was made anew at once.
    stay = {_defined(path) for path in want} - {None}
    stale = [path for path in have if path not in allowed and _defined(path) not in stay]
    ended = {definition for path in stale if (definition := _defined(path))}
    gone = frozenset(stale)
    left = frozenset(path for path in have if path not in gone and not _falls(path, gone, ended))
    return Configure(
        daemon,
        remove=tuple(path for path in reversed(stale) if not _falls(path, gone, ended)),
        add=tuple(path for path in want if path not in left),
    )


def _falls(path: Path, gone: Iterable[Path], ended: Iterable[Path]) -> bool:
    """Whether it goes by itself with one of what goes: what it stands under, or its neighbor."""
    if any(path[:depth] in gone for depth in range(1, len(path))):
        return True
    return _defined(path) is None and any(_concerns(path, definition) for definition in ended)


def _concerns(path: Path, definition: Path) -> bool:
    return path[: len(definition) - 1] == definition[:-1] and path[-1].startswith(f"{definition[-1]} ")


def _defined(path: Path) -> Path | None:
    """The neighbor, `(…, "neighbor NAME")`, where the statement is the one that makes it."""
    words = path[-1].split()
    if words[:1] != ["neighbor"] or len(words) < 3:
        return None
    return (*path[:-1], " ".join(words[:2])) if words[2] in ("interface", "remote-as") else None
