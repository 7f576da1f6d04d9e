"""Routing daemons that ship for tests, demonstrations and load: the same port, and FRR's way with statements in memory.

A `World` stands for the daemons of one host: what outlives a driver, which neighbors answer, and which routes the
kernel has. What it announces is decided by the statements it was given, as FRR would, not by the speaker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from corral_drivers import errors
from corral_drivers.bgp import marks
from corral_drivers.bgp.frr import render
from corral_drivers.bgp.model import Cause, Desired, Observed, Path, Session, Speaker
from corral_drivers.bgp.plan import Configure, Step, Write
from corral_drivers.bgp.port import Settings

FailAt = Callable[[object], errors.DriverError | None]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class World:
    """The daemons of one host; `kernel` tells its routes of our protocol, and `answers` who speaks BGP with us."""

    kernel: Callable[[], Iterable[str]] = tuple
    answers: Callable[[str], bool] = lambda _: True

    running: dict[str, dict[Path, None]] = field(default_factory=lambda: {"zebra": {}, "bgpd": {}})
    """Each daemon's statements; one that is not here does not run."""

    file: str | None = None
    started: dict[str, int] = field(default_factory=dict)
    """Since when there is a session with a neighbor, by a clock that counts sessions."""

    count: int = 0

    def take(self, daemon: str, path: Path) -> None:
        """Have no such statement any more, nor what stands under it or speaks of its neighbor."""
        statements = self.running[daemon]
        statements.pop(path, None)
        maker = _makes(path)
        about = f"neighbor {maker} " if maker else None
        for other in list(statements):
            if other[: len(path)] == path or (about and other[0] == path[0] and other[-1].startswith(about)):
                del statements[other]
        if maker:
            self.started.pop(maker, None)

    def give(self, daemon: str, path: Path) -> None:
        """Have this statement; a neighbor that is there has it instead of the one that made it."""
        statements, maker = self.running[daemon], _makes(path)
        if maker:
            for other in [one for one in statements if _makes(one) == maker and one[:-1] == path[:-1]]:
                del statements[other]
        statements[path] = None


class Simulated:
    """The daemons of one host, in memory. `fail_at` is asked before each step, and what it returns is raised."""

    def __init__(self, settings: Settings, *, world: World | None = None, fail_at: FailAt | None = None) -> None:
        self._mark = marks.mark(settings.cloud, settings.host)
        self.world = world or World()
        self._fail_at = fail_at

    def render(self, speaker: Speaker | None, *, take_over: bool = False) -> Desired:
        return render.desired(speaker, self._mark, take_over=take_over)

    async def observe(self) -> Observed:
        return Observed(self._of("zebra"), self._of("bgpd"), self.world.file)

    async def apply(self, step: Step) -> None:
        if self._fail_at and (error := self._fail_at(step)):
            raise error
        match step:
            case Configure(daemon, remove, add):
                self._of(daemon)
                for path in remove:
                    self.world.take(daemon, path)
                for path in add:
                    self.world.give(daemon, path)
            case Write(text):
                self.world.file = text

    async def sessions(self) -> tuple[Session, ...]:
        names = {
            path[-1].split()[1]
            for path in self._of("bgpd")
            if path[-1].startswith("neighbor ") and "remote-as" in path[-1]
        }
        sent = len(self._told()) if names else 0
        return tuple(self._session(name, sent) for name in sorted(names))

    async def announced(self) -> frozenset[str]:
        spoken = [one for one in await self.sessions() if one.is_established]
        return self._told() if spoken else frozenset()

    def _session(self, name: str, sent: int) -> Session:
        if not self.world.answers(name):
            self.world.started.pop(name, None)
            return Session(name, "Active")
        if name not in self.world.started:
            self.world.count += 1
            self.world.started[name] = self.world.count
        return Session(name, "Established", since=self.world.started[name], sent=sent)

    def _told(self) -> frozenset[str]:
        statements = self._of("bgpd")
        own = {path[-1].split()[1] for path in statements if path[-1].startswith("network ")}
        has = own | {prefix for prefix in self.world.kernel() if _is_redistributed(statements, prefix)}
        return frozenset(prefix for prefix in has if lets_out(statements, prefix))

    def _of(self, daemon: str) -> tuple[Path, ...]:
        if daemon not in self.world.running:
            raise errors.Unavailable(Cause.NOT_RUNNING, f"{daemon} does not run")
        return tuple(self.world.running[daemon])


def lets_out(statements: Iterable[Path], prefix: str) -> bool:
    """Whether the prefix list of what is exported permits this prefix: the first entry that fits decides."""
    network = ipaddress.ip_network(prefix)
    word = "ip" if network.version == 4 else "ipv6"
    head = f"{word} prefix-list {marks.EXPORT}-{network.version} seq "
    entries = [path[0].removeprefix(head).split() for path in statements if path[0].startswith(head)]
    for _, action, *entry in sorted(entries, key=lambda words: int(words[0])):
        if _fits(network, entry):
            return action == "permit"
    return False


def _makes(path: Path) -> str | None:
    """The name of the neighbor that this statement makes."""
    words = path[-1].split()
    return words[1] if words[:1] == ["neighbor"] and words[2:3] in (["interface"], ["remote-as"]) else None


def _is_redistributed(statements: Iterable[Path], prefix: str) -> bool:
    family = f"address-family ipv{ipaddress.ip_network(prefix).version} unicast"
    return any(path[1:2] == (family,) and path[-1].startswith("redistribute kernel") for path in statements)


def _fits(network: Network, entry: list[str]) -> bool:
    """`PREFIX [ge N] [le M]`: without either exactly this length, with `ge` alone up to the longest."""
    outer = ipaddress.ip_network(entry[0])
    bounds = dict(zip(entry[1::2], map(int, entry[2::2]), strict=True))
    least = bounds.get("ge", outer.prefixlen)
    most = bounds.get("le", outer.max_prefixlen if "ge" in bounds else outer.prefixlen)
    return network.network_address in outer and least <= network.prefixlen <= most
