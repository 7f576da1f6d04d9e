"""Every verb, and the death of a process at every call that it makes on the way: `test_crash` runs it.

A verb is a row of `VERBS`; one more row is tried like the others. What must be in the end is not written down: it is
what an undisturbed run of the same verb left.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import itertools
import os
import pathlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from corral import kube
from corral.agent import rooms
from corral.controller import world

from . import mortal
from .metal import Metal
from .mortal import Life, Moment, Point
from .simulated_cloud import SimulatedCloud, is_ready

PATIENCE = 60.0
_LAST = 10.0
"""Seconds in which a host does the last of what its Instance, or the lack of one, says that it has done."""

_BELIEVED = 42
"""How many deletions one controller believes before its guard holds them; a new one begins to count anew."""

_QUIET = 0.1
"""Seconds after its last call in which a process that lives would have made the next."""

Tried = collections.Counter[tuple[Moment, str]]
"""How often a process ended so, at a call of this kind."""


class State(enum.Enum):
    """What a VirtualMachine is before and after a verb; the value is the reason of its Ready."""

    NOTHING = ""
    RUNNING = "Running"
    OFF = "Halted"


@dataclass(frozen=True, slots=True)
class Verb:
    """What somebody asks of a VirtualMachine by name. `at_birth`: it is done by a process that starts just then."""

    name: str
    begins: State
    ends: State
    act: Callable[[SimulatedCloud, str], Awaitable[object]]
    at_birth: bool = False


async def _fetch(cloud: SimulatedCloud, name: str) -> None:
    image = f"only-{uuid.uuid4()}"
    await cloud.offer(world.CLUSTER_IMAGES, image, cloud.image(image))
    await cloud.vm(name, imageRef={"name": cloud.named(image)})


async def _nothing(_cloud: SimulatedCloud, _name: str) -> None:
    """Nobody asks for anything."""


def _strategy(strategy: str) -> Callable[[SimulatedCloud, str], Awaitable[object]]:
    return lambda cloud, name: cloud.patch(world.VMS, name, {"runStrategy": strategy})


VERBS = (
    Verb("create", State.NOTHING, State.RUNNING, lambda cloud, name: cloud.vm(name)),
    Verb("restart", State.RUNNING, State.RUNNING, _nothing, at_birth=True),
    Verb("halt", State.RUNNING, State.OFF, _strategy("Halted")),
    Verb("start", State.OFF, State.RUNNING, _strategy("Always")),
    Verb("delete", State.RUNNING, State.NOTHING, lambda cloud, name: cloud.delete(name)),
    Verb("fetch", State.NOTHING, State.RUNNING, _fetch),
)


class Process:
    """A process of the cloud that is given one life after another."""

    def __init__(self, cloud: SimulatedCloud, user_agent: str) -> None:
        self.cloud = cloud
        self.life = Life()
        self._user_agent = user_agent

    async def begin(self, point: Point | None = None) -> None:
        """A new life, the last one of which is over."""
        raise NotImplementedError

    async def end(self) -> None:
        """End it now, wherever it is."""
        self.life.end()

    async def replace(self, point: Point | None = None) -> None:
        """End it, and begin anew."""
        await self.end()
        await self.begin(point)

    def connect(self, life: Life) -> Callable[[str | None], Awaitable[kube.Kube]]:
        """The connection of this life."""
        return lambda kubeconfig: mortal.Api.of(life, kubeconfig, self._user_agent)


class Controller(Process):
    """The one controller of the cloud."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        super().__init__(cloud, "corral-controller")

    async def begin(self, point: Point | None = None) -> None:
        self.life = Life(point)
        await self.cloud.start_controller(self.connect(self.life))

    async def end(self) -> None:
        await super().end()
        await self.cloud.kill_controller()
        # A dead one holds the lead until its Lease runs out: no test need wait for that.
        held = await self.cloud.admin.get(kube.LEASES, "corral-system", "corral-controller")
        if held is not None:
            await self.cloud.admin.delete(kube.LEASES, held)


class Agent(Process):
    """The agent of one host."""

    def __init__(self, cloud: SimulatedCloud, metal: Metal) -> None:
        super().__init__(cloud, "corral-agent")
        self._metal = metal
        self._files = ExitStack()

    async def begin(self, point: Point | None = None) -> None:
        self.life = life = Life(point)
        self._files.enter_context(mortal.files(self.cloud.state_dir(self._metal), life))

        def build(driver: str, place: rooms.Place) -> rooms.Rooms:
            return mortal.counted(self._metal.rooms(driver, place), life)

        self.cloud.start_agent(self._metal, self.connect(life), build)

    async def end(self) -> None:
        await super().end()
        await self.cloud.kill_agent(self._metal)
        self._files.close()


@dataclass(frozen=True, slots=True)
class Guest:
    """A VirtualMachine of the sweep; `uid` is empty before it is made."""

    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything of the cloud at one moment."""

    vms: dict[str, kube.Object]
    instances: list[kube.Object]
    allocations: list[kube.Object]

    @classmethod
    async def of(cls, cloud: SimulatedCloud) -> Picture:
        vms = {obj["metadata"]["name"]: obj for obj in await cloud.all(world.VMS)}
        return cls(vms, await cloud.all(world.INSTANCES), await cloud.all(world.ALLOCATIONS))

    def has(self, guest: Guest) -> bool:
        """Whether anything stands for the guest, its VirtualMachine apart."""
        return guest.uid in {obj["spec"]["owner"]["uid"] for obj in (*self.instances, *self.allocations)}


class Sweep:
    """Runs verbs on one cloud, with as many guests at a time as there are processes that may die: one a process."""

    def __init__(self, cloud: SimulatedCloud, controller: Controller, processes: Sequence[Process]) -> None:
        self.cloud = cloud
        self.controller = controller
        self.processes = processes
        self._ready: collections.defaultdict[State, list[tuple[Guest, ...]]] = collections.defaultdict(list)
        self._numbers = itertools.count(1)
        self._deletions = _BELIEVED

    async def over(self, verbs: Sequence[Verb]) -> dict[Verb, Tried]:
        """Run each verb until no death comes any more, each time at later calls; how they died, and at what.

        They take turns, so that there are few guests at a time: whoever begins looks at every one there is.
        """
        wanted = {verb: await self._undisturbed(verb) for verb in verbs}
        await self.empty()
        tried: dict[Verb, Tried] = {verb: collections.Counter() for verb in verbs}
        for moment in Moment:
            left = list(verbs)
            for first in itertools.count(1, len(self.processes)):
                points = [Point(moment, first + index) for index in range(len(self.processes))]
                for verb in tuple(left):
                    struck = await self._round(verb, points, wanted[verb])
                    tried[verb].update((moment, kind) for kind in struck if kind)
                    if not any(struck):
                        left.remove(verb)
                await self.empty()
                if not left:
                    break
        return tried

    async def empty(self) -> None:
        """Delete what is left."""
        (delete,) = (verb for verb in VERBS if verb.ends is State.NOTHING)
        for guests in [*self._ready[State.OFF], *self._ready[State.RUNNING]]:
            await self._believe(delete)
            await self._act(delete, guests)
            await self._settled(guests, State.NOTHING)
        self._ready.clear()
        await self.cloud.nothing_is_left()

    async def _undisturbed(self, verb: Verb) -> Mapping[str, object]:
        """What the verb leaves where nobody dies."""
        await self._believe(verb)
        guests = await self._guests(verb.begins)
        starts = [self._starts(guest) for guest in guests]
        guests = await self._act(verb, guests)
        picture = await self._settled(guests, verb.ends)
        first, *others = (self._shape(picture, *each) for each in zip(guests, starts, strict=True))
        assert all(other == first for other in others), f"{verb.name} leaves one guest otherwise than another"
        return first

    async def _round(self, verb: Verb, points: Sequence[Point], wanted: Mapping[str, object]) -> list[str]:
        """The verb once for each process, each of which dies at its point; the kinds of calls they died at."""
        await self._believe(verb)
        guests = await self._guests(verb.begins)
        starts = [self._starts(guest) for guest in guests]
        for process, point in zip(self.processes, points, strict=True):
            if verb.at_birth:
                await process.replace(point)
            else:
                process.life.arm(point)
        lives = [process.life for process in self.processes]
        guests = await self._act(verb, guests)
        told = f"{verb.name}: {[(point.moment.value, point.number) for point in points]}"
        picture = await self._settled(guests, verb.ends, told)
        struck = [life.struck for life in lives]
        for life in lives:
            life.arm(None)
        deadline = time.monotonic() + _LAST
        for guest, before in zip(guests, starts, strict=True):
            while (found := self._shape(picture, guest, before)) != wanted:
                assert time.monotonic() < deadline, f"{told}, {struck}: {found} is not {wanted}"
                await asyncio.sleep(_QUIET)
                picture = await Picture.of(self.cloud)
        return struck

    async def _guests(self, state: State) -> tuple[Guest, ...]:
        """One guest a process, in this state."""
        if self._ready[state]:
            return self._ready[state].pop()
        if state is State.NOTHING:
            return tuple(Guest(f"vm-{next(self._numbers)}") for _ in self.processes)
        (verb, *_) = (verb for verb in VERBS if verb.ends is state and verb.begins is not state)
        guests = await self._act(verb, await self._guests(verb.begins))
        await self._settled(guests, state)
        return self._ready[state].pop()

    async def _act(self, verb: Verb, guests: Sequence[Guest]) -> tuple[Guest, ...]:
        await asyncio.gather(*(verb.act(self.cloud, guest.name) for guest in guests))
        if verb.begins is not State.NOTHING:
            return tuple(guests)
        made = (await Picture.of(self.cloud)).vms
        return tuple(Guest(guest.name, made[guest.name]["metadata"]["uid"]) for guest in guests)

    async def _believe(self, verb: Verb) -> None:
        """See to it that the guests that the verb is about to delete are no accident to the controller."""
        if verb.ends is State.NOTHING:
            self._deletions += len(self.processes)
            if self._deletions > _BELIEVED:
                self._deletions = len(self.processes)
                await self.controller.replace()

    async def _settled(self, guests: Sequence[Guest], state: State, told: str = "") -> Picture:
        """Everything, once the guests have come so far; who died on the way is born anew."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for process in self.processes:
                if process.life.is_dead:
                    await process.replace()
            if all(process.life.is_quiet(_QUIET) for process in self.processes):
                vms = await self.cloud.all(world.VMS)
                if all(_is_at(vms, guest, state) for guest in guests):
                    picture = await Picture.of(self.cloud)
                    if state is not State.NOTHING or not any(picture.has(guest) for guest in guests):
                        break
            assert time.monotonic() < deadline, f"{told}: {await self.cloud.all(world.VMS)}"
            await asyncio.sleep(0.02)
        if state is not State.NOTHING:
            self._ready[state].append(tuple(guests))
        return picture

    def _starts(self, guest: Guest) -> int:
        return sum(len(metal.pids[guest.uid]) for metal in self.cloud.hosts.values() if guest.uid)

    def _shape(self, picture: Picture, guest: Guest, starts: int) -> Mapping[str, object]:
        """What there is of the guest, in words that are the same for every guest; and how often it was started."""
        metals = self.cloud.hosts.values()
        return _of_the_api(picture, guest) | {
            "on hosts": [found for metal in metals if (found := _on_host(metal, guest, self.cloud.state_dir(metal)))],
            "starts": self._starts(guest) - starts,
        }


def _is_at(vms: Sequence[kube.Object], guest: Guest, state: State) -> bool:
    """Whether its VirtualMachine says that the guest has come to this state."""
    vm = next((vm for vm in vms if vm["metadata"]["name"] == guest.name), None)
    return vm is None if state is State.NOTHING else vm is not None and is_ready(vm, state.value)


def _of_the_api(picture: Picture, guest: Guest) -> dict[str, object]:
    vm = picture.vms.get(guest.name, {})
    status = vm.get("status", {})
    placement = status.get("placement", {})
    addresses = [one["address"] for one in placement.get("addresses", [])]
    instances = [obj for obj in picture.instances if obj["spec"]["owner"]["uid"] == guest.uid]
    allocations = [obj for obj in picture.allocations if obj["spec"]["owner"]["uid"] == guest.uid]
    return {
        "VirtualMachine": [status.get("printableStatus"), _conditions(vm)],
        "Instances": [[obj["spec"]["epoch"], _conditions(obj)] for obj in instances],
        "is where it was placed": [obj["metadata"]["namespace"] for obj in instances]
        == ([f"corral-host-{placement['host']}"] if placement else []),
        "addresses": len(addresses),
        "addresses are in the ledger": sorted(obj["spec"]["address"] for obj in allocations) == sorted(addresses),
    }


def _conditions(obj: kube.Object) -> list[str]:
    found = obj.get("status", {}).get("conditions", [])
    return sorted(f"{one['type']} {one['status']} {one['reason']}" for one in found)


def _on_host(metal: Metal, guest: Guest, folder: str) -> Mapping[str, object]:
    domain = metal.machine.guests.get(guest.uid)
    taps = sorted(name for name, one in metal.links.interfaces.items() if guest.uid in one.alias)
    links = [(one.alias, one.mtu, one.mac, one.up) for name in taps for one in [metal.links.interfaces[name]]]
    led = [entries for name in taps if (entries := metal.routing.entries(name))]
    found = {
        "domain": domain and (domain.name, domain.mark, domain.state, domain.persistent, domain.active),
        "disks": metal.pool.disks.get(guest.uid),
        "seed": metal.seeds.seeds.get(guest.uid),
        "dhcp": metal.dhcp.kept.get(guest.uid),
        "taps": links,
        "routes": [(sorted(one.prefixes), sorted(one.macs.items())) for one in led],
        "files": _files(folder, guest),
    }
    return {what: _common(repr(value), metal, guest) for what, value in found.items() if value}


def _files(folder: str, guest: Guest) -> list[str]:
    walk = ((pathlib.Path(here).relative_to(folder), names) for here, _, names in os.walk(folder))
    return sorted(str(here / name) for here, names in walk for name in names if guest.uid in str(here / name))


def _common(text: str, metal: Metal, guest: Guest) -> str:
    """The text with what differs from guest to guest, and from host to host, under one name."""
    named = {guest.uid: "UID", guest.uid[:8]: "UID", metal.name: "HOST", guest.name: "NAME"}
    for word, name in named.items():
        text = re.sub(rf"\b{re.escape(word)}\b", name, text)
    for pattern, name in _ALIKE:
        text = pattern.sub(name, text)
    return text


_ALIKE = (
    (re.compile(r"\bhost='[0-9a-f-]{36}'"), "host=UID"),
    (re.compile(r"\bct[0-9a-f]{12}\b"), "TAP"),
    (re.compile(r"\b(?!ee)([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "MAC"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SUM"),
    (re.compile(r"\b(\d{1,3}\.){3}\d{1,3}\b"), "ADDRESS"),
    (re.compile(r"\b[0-9a-f-]{36}:[0-9a-f-]{36}:UID"), "MARK"),
)
