"""Place: which host runs a guest, and for each other host why not. Pure; called by the controller alone.

Filters say of a host why it can't be, and the first that does counts. Scores choose among the others: what the tenant
wishes, then how evenly it spreads, then the memory that is left, then the name.
"""

from __future__ import annotations

import enum
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from corral.api.v1alpha1 import placement
from corral.place import costs
from corral.place import rules as placing


class Cause(enum.StrEnum):
    """Why a host can't be taken: what stands behind a number of hosts."""

    NOT_UNDERSTOOD = "not understood"
    MAINTENANCE = "in maintenance"
    NOT_READY = "not ready"
    SELECTOR = "outside the hostSelector"
    CPUS = "too few CPUs"
    CPU = "too little CPU"
    MEMORY = "too little memory"
    NO_ZONE = "without a zone"
    AFFINITY = "not near those of the affinity"
    ANTI_AFFINITY = "near those of the antiAffinity"
    KEPT_AWAY = "near one whose antiAffinity keeps this away"
    SPREAD = "beyond maxSkew"

    @property
    def is_asked_for(self) -> bool:
        """Whether it is because of what VirtualMachines ask for, and no want of the hosts'."""
        return self in _ASKED_FOR


_ASKED_FOR = frozenset(
    (Cause.SELECTOR, Cause.NO_ZONE, Cause.AFFINITY, Cause.ANTI_AFFINITY, Cause.KEPT_AWAY, Cause.SPREAD)
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host and what is left of it: `free_cpu` in thousandths of a CPU, `free_memory` in bytes.

    `refuses` says why it takes nobody, None where it does. Its labels have its name and its zone.
    """

    name: str
    cpus: int
    free_cpu: int
    free_memory: int
    accelerator: str = ""
    labels: placing.Labels = field(default_factory=dict)
    refuses: Cause | None = None

    def where(self, topology_key: str) -> str | None:
        """The host itself, or its zone; None for a host without one."""
        return self.name if topology_key == placement.HOST else self.labels.get(topology_key) or None


@dataclass(frozen=True, slots=True)
class Need:
    """What a guest takes of a host, and what its VirtualMachine asks for; `labels` are the VirtualMachine's."""

    cost: costs.Cost
    rules: placing.Rules = placing.ANY
    labels: placing.Labels = field(default_factory=dict)


Guests = Mapping[str, int]
"""How many guests, by host."""


@dataclass(frozen=True, slots=True)
class Around:
    """Who is where, of the VirtualMachine's own namespace and without itself.

    `guests` are those that its rules' selectors select. `keepers` are those whose own rules keep it away, by how far.
    """

    guests: Mapping[placing.Selector, Guests] = field(default_factory=dict)
    keepers: tuple[tuple[str, Guests], ...] = ()


NOBODY = Around()


@dataclass(frozen=True, slots=True)
class Placed:
    """The host that was chosen."""

    host: str


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No host fits: why not, by host name."""

    why: Mapping[str, Cause]

    def __str__(self) -> str:
        counts = Counter(self.why.values())
        ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        causes = ", ".join(f"{count} {cause}" for cause, count in ranked)
        return f"0/{len(self.why)} hosts" + (f": {causes}" if causes else ": there is no Host yet")

    def hosts(self, longest: int) -> str:
        """Which hosts for which cause, such as `h1, h2: in maintenance`, in at most so many characters.

        Each cause has its share of them, and what one leaves goes to those with more hosts.
        """
        told: list[str] = []
        by_cause: defaultdict[Cause, list[str]] = defaultdict(list)
        for name, cause in sorted(self.why.items()):
            by_cause[cause].append(name)
        left = longest
        for number, (cause, names) in enumerate(sorted(by_cause.items(), key=lambda one: (len(one[1]), one[0]))):
            share = left // (len(by_cause) - number)
            said = _listed(names, share - len(f": {cause}; "))
            if said:
                told.append(f"{said}: {cause}")
                left -= len(told[-1]) + len("; ")
        return "; ".join(reversed(told))

    @property
    def is_asked_for(self) -> bool:
        """Whether every host is refused by what VirtualMachines ask for."""
        return bool(self.why) and all(cause.is_asked_for for cause in self.why.values())


def _listed(names: list[str], room: int) -> str:
    """As many names as there is room for, and how many more there are."""
    whole = ", ".join(names)
    if len(whole) <= room:
        return whole
    taken = 0
    for number, name in enumerate(names):
        taken += len(name) + len(", ")
        if taken + len(f"and {len(names)} more") > room:
            some = names[:number]
            return f"{', '.join(some)} and {len(names) - number} more" if some else ""
    return whole


Check = Callable[[Candidate], Cause | None]
Rank = tuple[int, int, int, str]


def place(need: Need, candidates: Iterable[Candidate], around: Around = NOBODY) -> Placed | Nowhere:
    """The best of the hosts that fit, by name among equals; candidates have different names.

    The best ones are asked first, so that the many others need not be where one of them fits.
    """
    hosts = tuple(candidates)
    checks, rank = _checks(need, hosts, around), _ranking(need, hosts, around)
    best = [(rank(host), host) for host in hosts]
    heapq.heapify(best)
    why: dict[str, Cause] = {}
    while best:
        _, host = heapq.heappop(best)
        cause = next((cause for check in checks if (cause := check(host)) is not None), None)
        if cause is None:
            return Placed(host.name)
        why[host.name] = cause
    return Nowhere(why)


def _checks(need: Need, hosts: tuple[Candidate, ...], around: Around) -> tuple[Check, ...]:
    """The filters, in order; what the guest does not ask for costs nothing."""
    asked = need.rules
    checks: list[Check] = [lambda host: host.refuses]
    if asked.hosts.requirements:
        checks.append(lambda host: None if asked.hosts.selects(host.labels) else Cause.SELECTOR)
    return (
        *checks,
        _room(need.cost),
        *(_near(one, need, hosts, around) for one in asked.near),
        *(_far(one.topology_key, hosts, around.guests[one.selector], Cause.ANTI_AFFINITY) for one in asked.far),
        *(_far(topology_key, hosts, keepers, Cause.KEPT_AWAY) for topology_key, keepers in around.keepers),
        *(_even(one, need, hosts, around) for one in asked.spread if one.strict),
    )


def _room(cost: costs.Cost) -> Check:
    def check(host: Candidate) -> Cause | None:
        if cost.virtual_cpus > host.cpus:
            return Cause.CPUS
        if cost.cpu > host.free_cpu:
            return Cause.CPU
        return Cause.MEMORY if cost.memory_on(host.accelerator) > host.free_memory else None

    return check


def _near(term: placing.Term, need: Need, hosts: tuple[Candidate, ...], around: Around) -> Check:
    guests = around.guests[term.selector]
    places = _places(term.topology_key, hosts, guests)
    # Whom its own term means may be the first one, or nobody ever was. A guest on a host that is no Host any more is
    # one nevertheless.
    is_first = not guests and term.selector.selects(need.labels)

    def check(host: Candidate) -> Cause | None:
        where = host.where(term.topology_key)
        if where is None:
            return Cause.NO_ZONE
        return None if is_first or places[where] else Cause.AFFINITY

    return check


def _far(topology_key: str, hosts: tuple[Candidate, ...], guests: Guests, cause: Cause) -> Check:
    places = _places(topology_key, hosts, guests)

    def check(host: Candidate) -> Cause | None:
        where = host.where(topology_key)
        return cause if where is not None and places[where] else None

    return check


def _even(spread: placing.Spread, need: Need, hosts: tuple[Candidate, ...], around: Around) -> Check:
    """By how many a place has more than the one with the fewest, the guest counted where it is meant itself.

    Places of hosts that take nobody just now count too: that a zone is down for a while makes nothing more even.
    """
    key = spread.term.topology_key
    places = _places(key, hosts, around.guests[spread.term.selector])
    eligible = {host.where(key) for host in hosts if need.rules.hosts.selects(host.labels)} - {None}
    fewest = min((places[where] for where in eligible if where is not None), default=0)
    itself = int(spread.term.selector.selects(need.labels))

    def check(host: Candidate) -> Cause | None:
        where = host.where(key)
        if where is None:
            return Cause.NO_ZONE
        return Cause.SPREAD if places[where] + itself - fewest > spread.max_skew else None

    return check


def _places(topology_key: str, hosts: tuple[Candidate, ...], guests: Guests) -> Counter[str]:
    """How many guests, by the place of their host; of hosts that are no Hosts any more nothing is known."""
    if topology_key == placement.HOST:
        return Counter(guests)
    places: Counter[str] = Counter()
    for host in hosts:
        where = host.where(topology_key) if host.name in guests else None
        if where is not None:
            places[where] += guests[host.name]
    return places


def _ranking(need: Need, hosts: tuple[Candidate, ...], around: Around) -> Callable[[Candidate], Rank]:
    """The scores: of two hosts the one that ranks lower is better."""
    soft = [one for one in need.rules.spread if not one.strict]
    wishes = [(one.weight, *_counted(one.term, hosts, around)) for one in need.rules.wishes]
    evenly = [_counted(one.term, hosts, around) for one in soft]
    takes = {one: need.cost.memory_on(one) for one in {host.accelerator for host in hosts}}
    if not wishes and not soft:
        return lambda host: (0, 0, takes[host.accelerator] - host.free_memory, host.name)

    def rank(host: Candidate) -> Rank:
        granted = sum(weight * places[host.where(key) or ""] for weight, key, places in wishes)
        crowded = sum(_crowd(places, host.where(key)) for key, places in evenly)
        return -granted, crowded, takes[host.accelerator] - host.free_memory, host.name

    return rank


def _counted(term: placing.Term, hosts: tuple[Candidate, ...], around: Around) -> tuple[str, Counter[str]]:
    return term.topology_key, _places(term.topology_key, hosts, around.guests[term.selector])


def _crowd(places: Counter[str], where: str | None) -> int:
    """How many are there already; a host without a zone comes last."""
    return places.total() + 1 if where is None else places[where]
