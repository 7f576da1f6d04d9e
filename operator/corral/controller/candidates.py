"""The hosts that a guest may be placed on, and what is left of each: kept from one placement to the next.

What is known of a host is worked out again only where its Host, its HostState, its agent's answering or what guests
take of it changed: a thousand hosts are too many to read for each guest. `controller.claim` asks for a host here, and
the process has the numbers told on the Hosts.
"""

from __future__ import annotations

from collections.abc import Collection

from corral import kube, place, store
from corral.api import objects, quantities
from corral.api.v1alpha1 import host, placement
from corral.conclude import conditions
from corral.conclude import host as conclude_host
from corral.conclude import virtualmachine as conclude
from corral.controller import census, heartbeats, ledger
from corral.place import costs
from corral.place import rules as placing
from corral.resolve import requirements as resolve

_AT_ONCE = 100
"""Hosts whose numbers are told in one look: with one look each 5 s, 20 writes a second of the largest fleet."""

_LISTED = 700
"""Characters of a message that may be names of hosts: there is room for 1024 in all."""


class Candidates:
    """Every Host as a candidate. `hosts` and `states` are the plurals of Host and HostState."""

    def __init__(
        self,
        known: store.Store,
        book: ledger.Ledger,
        beats: heartbeats.Heartbeats,
        *,
        hosts: str,
        states: str,
        host_prefix: str,
    ) -> None:
        self._known, self._book, self._beats = known, book, beats
        self._hosts, self._states, self._host_prefix = hosts, states, host_prefix
        self._made: dict[str, place.Candidate] = {}
        self._stale: set[str] = set()
        self._answering: Collection[str] = frozenset()
        self._untold: dict[str, None] = {}
        self._charges: dict[str, costs.Cost] = {}
        self._has_more_room = False
        known.listen(self._changed)
        book.listen(self._charged, lambda _uid, _host: None)

    def all(self) -> Collection[place.Candidate]:
        """Every host, as it is now."""
        answering = self._beats.answering
        if answering is not self._answering:
            self._stale |= set(answering).symmetric_difference(self._answering)
            self._answering = answering
        for name in self._stale:
            raw = self._known.get(kube.Key(self._hosts, "", name))
            if raw is None:
                self._made.pop(name, None)
            else:
                self._made[name] = self._candidate(name, raw)
        self._stale.clear()
        return self._made.values()

    def untold(self) -> list[str]:
        """Hosts whose guests changed since they were last asked for, the first ones first, and not too many at once."""
        told = list(self._untold)[:_AT_ONCE]
        for name in told:
            del self._untold[name]
        return told

    def has_more_room(self) -> bool:
        """Whether guests take less of any host since this was last asked: one left or became smaller, or a claim on the
        host came to nothing."""
        has, self._has_more_room = self._has_more_room, False
        return has

    def allocated(self, name: str, accelerator: str) -> host.Allocated:
        """What guests take of this host, as its status says it."""
        taken = self._book.taken(name)
        return host.Allocated(
            guests=taken.guests,
            virtual_cpus=taken.virtual_cpus,
            cpu=-(-taken.cpu // 1000),
            memory=quantities.from_bytes(taken.of_all().memory_on(accelerator)),
        )

    def _changed(self, key: kube.Key, _old: kube.Object | None, _new: kube.Object | None) -> None:
        if key.plural == self._hosts or (
            key.plural == self._states and key.namespace == f"{self._host_prefix}{key.name}"
        ):
            self._stale.add(key.name)

    def _charged(self, name: str) -> None:
        charge = self._book.taken(name).of_all()
        before = self._charges.get(name, costs.NOTHING)
        self._charges[name] = charge
        self._has_more_room |= charge.cpu < before.cpu or charge.memory < before.memory
        self._stale.add(name)
        self._untold[name] = None

    def _candidate(self, name: str, raw: kube.Object) -> place.Candidate:
        labels = {**raw["metadata"].get("labels", {}), placement.HOST: name}
        state = self._known.get(kube.Key(self._states, f"{self._host_prefix}{name}", name))
        try:
            spec = objects.parsed(raw, host.HostSpec, host.HostStatus).spec
        except objects.NotUnderstood:
            return _refusing(name, labels, place.Cause.NOT_UNDERSTOOD)
        if "deletionTimestamp" in raw["metadata"] or spec.maintenance:
            return _refusing(name, labels, place.Cause.MAINTENANCE)
        said = None if state is None else objects.status_of(state, host.HostStateStatus)
        if said is None or name not in self._answering or not _hypervisor_answers(said):
            return _refusing(name, labels, place.Cause.NOT_READY)
        free, taken = conclude_host.allocatable(spec, said.capacity), self._book.taken(name)
        return place.Candidate(
            name=name,
            cpus=free.cpu,
            free_cpu=1000 * free.cpu - taken.cpu,
            free_memory=quantities.to_bytes(free.memory) - taken.of_all().memory_on(said.facts.accelerator),
            accelerator=said.facts.accelerator,
            labels=labels,
        )


def choose(
    of: Candidates, near: census.Census, vm: conclude.VirtualMachine, needs: resolve.Requirements
) -> str | conditions.Fact:
    """The name of the host that is to run this guest, or why there is none."""
    rules = placing.rules(vm.spec.placement)
    labels = vm.raw["metadata"].get("labels", {})
    need = place.Need(cost(needs), rules, labels)
    where = place.place(need, of.all(), near.around(vm.uid, vm.namespace, labels, rules))
    if isinstance(where, place.Placed):
        return where.host
    reason = "NoHostMatches" if where.is_asked_for else "NoHostFits"
    return conditions.false("Scheduled", reason, _told(where, need, of))


def cost(needs: resolve.Requirements) -> costs.Cost:
    """What a guest with these requirements costs its host."""
    return costs.cost(
        needs.cpu,
        needs.memory,
        cpu_overcommit=needs.overcommit.cpu,
        memory_percent=needs.overcommit.memory_percent,
    )


def _told(nowhere: place.Nowhere, need: place.Need, of: Candidates) -> str:
    """How many hosts refuse for which cause, then which; and where memory is short, how much it is about.

    Nothing in it changes with what other guests take, or each of their coming and going would be a write for all that
    wait.
    """
    sentences = [str(nowhere), nowhere.hosts(_LISTED)]
    short = {name for name, cause in nowhere.why.items() if cause is place.Cause.MEMORY}
    sizes = {need.cost.memory_on(one.accelerator) for one in of.all() if one.name in short}
    if sizes:
        mebibytes = " or ".join(str(-(-size // quantities.MIB)) for size in sorted(sizes))
        sentences.append(f"With its hypervisor it takes {mebibytes} MiB")
    return ". ".join(sentence for sentence in sentences if sentence)


def _refusing(name: str, labels: placing.Labels, cause: place.Cause) -> place.Candidate:
    return place.Candidate(name, 0, 0, 0, labels=labels, refuses=cause)


def _hypervisor_answers(said: host.HostStateStatus) -> bool:
    return any(one.type == "HypervisorReady" and one.status == "True" for one in said.conditions)
