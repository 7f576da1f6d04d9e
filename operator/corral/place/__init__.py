"""Place: which host runs a guest, and for each other host why not. Pure; called by the controller alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """What a guest takes of a host; memory is in bytes."""

    cpu: int
    memory: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host and what is left of it; `refuses` says in two or three words why it takes nobody, empty where it does."""

    name: str
    cpus: int
    free_memory: int
    refuses: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """The host that was chosen."""

    host: str


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No host fits: why not, by host name."""

    why: dict[str, str]

    def __str__(self) -> str:
        counts = Counter(self.why.values())
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(counts.items()))
        return f"0/{len(self.why)} hosts" + (f": {causes}" if causes else ": there is no Host yet")


def place(need: Need, candidates: Iterable[Candidate]) -> Placed | Nowhere:
    """The host with the most memory left, by name among equals."""
    why: dict[str, str] = {}
    fits: list[Candidate] = []
    for candidate in candidates:
        obstacle = _obstacle(need, candidate)
        if obstacle:
            why[candidate.name] = obstacle
        else:
            fits.append(candidate)
    if not fits:
        return Nowhere(why)
    return Placed(min(fits, key=lambda host: (-host.free_memory, host.name)).name)


def _obstacle(need: Need, host: Candidate) -> str:
    if host.refuses:
        return host.refuses
    if need.cpu > host.cpus:
        return "too few CPUs"
    if need.memory > host.free_memory:
        return "too little memory"
    return ""
