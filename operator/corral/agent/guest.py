"""One guest through all the rooms of its host, in a fixed order: image, storage, seed, firewall, link, routing, dhcp,
hypervisor.

`agent.instance` calls it with a spec. Rooms that do not need each other converge though one fails; the hypervisor comes
last and only when all before it hold. It waits neither for dhcp, because every guest has a seed, and one that heeds it
needs no answer, nor for the fabric to be told, because a guest boots meanwhile: both are told like anything else. Off,
and on removal, it goes backwards: nothing is taken from a living guest.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from corral.agent import desired, power, settle, userdata
from corral.agent.fetches import Fetches
from corral.agent.filtering import Filter
from corral.agent.memory import Memory
from corral.agent.rooms import Rooms
from corral.api.v1alpha1 import instance
from corral.conclude.instance import HOLDS, WAITS, Outcome, Room
from corral_drivers import errors
from corral_drivers.dhcp import plan as dhcp_plan
from corral_drivers.hypervisor import model as hypervisor_model
from corral_drivers.image import model as image_model
from corral_drivers.image import plan as image_plan
from corral_drivers.link import model as link_model
from corral_drivers.link import plan as link_plan
from corral_drivers.link import port as link_port
from corral_drivers.routing import model as routing_model
from corral_drivers.routing import plan as routing_plan
from corral_drivers.seed import plan as seed_plan
from corral_drivers.storage import model as storage_model
from corral_drivers.storage import plan as storage_plan

ANNOUNCED_WITHIN = 0.25
"""Seconds between two looks whether the fabric is told of a guest's address."""


class _Taps:
    """An owner's taps, as they were last seen."""

    def __init__(self, links: link_port.Links, owner: str) -> None:
        self._links = links
        self._owner = owner
        self._seen: tuple[link_model.Observed, ...] = ()

    async def observe(self) -> tuple[link_model.Observed, ...]:
        self._seen = await self._links.observe(self._owner)
        return self._seen

    async def unheld(self) -> frozenset[str]:
        """Those whose other end nobody holds, looked at again where there was one: most often there is none."""
        if all(tap.carrier for tap in self._seen):
            return frozenset()
        return frozenset(tap.name for tap in await self.observe() if not tap.carrier)


async def _no_fabric(_address: str) -> bool | None:
    return None


@dataclass(frozen=True, slots=True)
class Calls:
    """Whom a guest's passes call.

    `clock` is monotonic, in seconds. `read_secret` reads user data that is in a Secret. `put_back` is called with the
    name of a room when something in it was put back that somebody had changed. `announces` says whether the fabric is
    told of an address, None where there is no fabric to tell.
    """

    clock: Callable[[], float]
    read_secret: userdata.Read
    put_back: Callable[[str], None] = lambda _room: None
    announces: Callable[[str], Awaitable[bool | None]] = _no_fabric


class Guests:
    """The guests of one host."""

    def __init__(
        self,
        rooms: Rooms,
        host: desired.Host,
        fetches: Fetches,
        filters: Filter,
        calls: Calls,
    ) -> None:
        self._rooms = rooms
        self._host = host
        self._fetches = fetches
        self._filters = filters
        self._calls = calls
        self._accelerator: str | None = None

    async def converge(self, spec: instance.InstanceSpec, memory: Memory) -> Outcome:
        """Make the host look like the spec, as far as that is possible now. Raises what no driver may raise."""
        account = settle.Account(spec.owner.uid)
        apply = account.noting("hypervisor", self._rooms.hypervisor.apply)
        guest = power.Guest(self._rooms.hypervisor, apply, spec.owner.uid, memory, self._calls.clock)
        held: dict[tuple[str, image_model.Format], image_model.Held] = {}
        image = await account.room(self._images(spec, held))
        storage = await account.room(self._disks(spec, held, account))
        seed = await account.room(self._seed(spec, account))
        if spec.run_strategy == "Halted":
            announced = HOLDS
            off = await self._off(spec, held if storage.holds else None, guest, account)
            firewall, link, routing, dhcp, hypervisor = off
        else:
            taps = _Taps(self._rooms.links, spec.owner.uid)
            # First who may send what, then the tap: no packet of a guest is ever looked at by nobody.
            noted = account.noting("firewall", self._rooms.firewall.apply)
            firewall = await account.room(self._filters.converge(spec, noted))
            link = await account.room(self._links(spec, taps, account)) if firewall.holds else WAITS
            routing = await account.room(self._routes(spec, account)) if link.holds else WAITS
            dhcp = await account.room(self._answers(spec, account)) if link.holds else WAITS
            announced = await account.room(self._announced(spec, memory)) if routing.holds else WAITS
            before = (image, storage, seed, firewall, link, routing)
            work = self._run(spec, held, guest, taps) if all(room.holds for room in before) else guest.look()
            hypervisor = await account.room(work)
        outcome = Outcome(
            image,
            storage,
            seed,
            link,
            routing,
            dhcp,
            hypervisor,
            power_state=guest.state,
            restart_required=guest.restart_required,
            firewall=firewall,
            announced=announced,
        )
        self._tell(account, outcome, memory)
        account.close()
        return outcome

    def _tell(self, account: settle.Account, outcome: Outcome, memory: Memory) -> None:
        """Count what was put back: a step in a room that was once as this generation of the spec asks."""
        for room in sorted(account.put_back(memory.held)):
            self._calls.put_back(room)
        settled = ("storage", "seed", "firewall", "link", "routing", "dhcp", "announced")
        memory.held |= {name for name in settled if getattr(outcome, name).holds}
        if outcome.holds:
            memory.held.add("hypervisor")

    async def runs(self, owner: str) -> bool:
        """Whether a process of this owner's guest lives here."""
        seen = await self._rooms.hypervisor.observe(owner)
        return seen is not None and seen.state.is_active

    async def remove(self, owner: str, grace: float, memory: Memory) -> Outcome:
        """Take everything of the owner from the host; nothing is left of it once the outcome `holds`."""
        self._fetches.forget(owner)
        account = settle.Account(owner)
        guest = power.Guest(self._rooms.hypervisor, self._rooms.hypervisor.apply, owner, memory, self._calls.clock)
        hypervisor = await account.room(guest.remove(grace))
        if hypervisor.holds:
            firewall, link, routing, dhcp = await self._disconnect(owner, account)
            seed = await account.room(self._no_seed(owner))
            storage = await account.room(self._no_disks(owner))
        else:
            firewall = link = routing = dhcp = seed = storage = WAITS
        outcome = Outcome(
            HOLDS, storage, seed, link, routing, dhcp, hypervisor, power_state=guest.state, firewall=firewall
        )
        account.close()
        if outcome.holds:
            # The hypervisor removes the variables of what it knows: not those of a guest that was undefined by hand.
            for left in (desired.console_log(self._host, owner), desired.variables(self._host, owner)):
                await asyncio.to_thread(pathlib.Path(left).unlink, missing_ok=True)
        return outcome

    async def _images(
        self, spec: instance.InstanceSpec, held: dict[tuple[str, image_model.Format], image_model.Held]
    ) -> Room:
        """Ask for what is missing, and fill `held` with what is there."""
        held |= {(one.sha256, one.format): one for one in await self._rooms.images.observe()}
        todo = image_plan.plan(desired.images(spec), held.values())
        asked = [self._fetches.ask(step, spec.owner.uid) for step in todo.steps]
        # What failed is worth telling before what is on its way.
        return min(asked, key=lambda room: room.reason == "ImageFetching", default=HOLDS)

    async def _disks(self, spec: instance.InstanceSpec, held: desired.Cache, account: settle.Account) -> Room:
        wanted, owner = desired.disks(spec, held), spec.owner.uid
        had: dict[str, str] = {}

        async def look() -> tuple[storage_model.Observed, ...]:
            seen = await self._rooms.storage.observe(owner)
            if not {disk.name for disk in wanted} <= {disk.name for disk in seen}:
                had.update(await self._had(spec))
            return seen

        room = await settle.settle(
            look,
            lambda seen: storage_plan.plan(wanted, seen, had=had),
            account.noting("storage", self._rooms.storage.apply),
            reason="StorageFailed",
        )
        return WAITS if room.holds and len(wanted) < len(spec.disks) else room

    async def _had(self, spec: instance.InstanceSpec) -> dict[str, str]:
        """Where the hypervisor knows disks of this guest: it is told of them only once they are made."""
        seen = await self._rooms.hypervisor.observe(spec.owner.uid)
        known = () if seen is None else (seen.persistent, seen.active)
        paths = {disk.path for domain in known if domain is not None for disk in domain.disks}
        where = self._files(spec).disks
        return {name: path for name, path in where.items() if path in paths}

    async def _seed(self, spec: instance.InstanceSpec, account: settle.Account) -> Room:
        owner = spec.owner.uid
        told = await userdata.of(spec.seed, await self._rooms.seeds.observe(owner), self._calls.read_secret)
        if isinstance(told, Room):
            return told
        wanted = desired.seed_of(spec, told)
        return await settle.settle(
            lambda: self._rooms.seeds.observe(owner),
            lambda seen: seed_plan.plan(wanted, seen, owner),
            account.noting("seed", self._rooms.seeds.apply),
            reason="SeedFailed",
        )

    async def _links(self, spec: instance.InstanceSpec, taps: _Taps, account: settle.Account) -> Room:
        return await settle.settle(
            taps.observe,
            lambda seen: link_plan.plan(desired.taps(spec), seen),
            account.noting("link", self._rooms.links.apply),
            reason="LinkFailed",
        )

    async def _routes(self, spec: instance.InstanceSpec, account: settle.Account) -> Room:
        taps = tuple(tap.name for tap in desired.taps(spec))
        return await settle.settle(
            lambda: self._rooms.routing.observe(taps),
            lambda seen: routing_plan.plan(desired.table(spec), seen),
            account.noting("routing", self._rooms.routing.apply),
            reason="RoutingFailed",
        )

    async def _answers(self, spec: instance.InstanceSpec, account: settle.Account) -> Room:
        owner, wanted = spec.owner.uid, desired.service(spec)
        return await settle.settle(
            lambda: self._rooms.dhcp.observe(owner),
            lambda seen: dhcp_plan.plan(wanted, seen, owner),
            account.noting("dhcp", self._rooms.dhcp.apply),
            reason="DhcpFailed",
        )

    async def _announced(self, spec: instance.InstanceSpec, memory: Memory) -> Room:
        """Whether the fabric was once told of each address: from then on the Host says how it stands with it."""
        if "announced" in memory.held:
            return HOLDS
        addresses = [address for nic in spec.interfaces for address in nic.addresses]
        untold = [address for address in addresses if await self._calls.announces(address) is False]
        if not untold:
            return HOLDS
        detail = f"The fabric is not told of {', '.join(untold)} yet"
        return Room(holds=False, reason="NotAnnounced", detail=detail, look_again=ANNOUNCED_WITHIN)

    async def _run(self, spec: instance.InstanceSpec, held: desired.Cache, guest: power.Guest, taps: _Taps) -> Room:
        domain = await self._domain(spec, held)
        return WAITS if domain is None else await guest.run(domain, taps.unheld)

    async def _off(
        self, spec: instance.InstanceSpec, held: desired.Cache | None, guest: power.Guest, account: settle.Account
    ) -> tuple[Room, Room, Room, Room, Room]:
        """Stop the guest, then take its network away, then have it defined for its next start.

        `held` is None while its disks are not as they should be: a hypervisor that knows a disk vouches for it.
        """
        hypervisor = await account.room(guest.stop(spec.termination_grace_period_seconds))
        if not hypervisor.holds:
            return WAITS, WAITS, WAITS, WAITS, hypervisor
        network = await self._disconnect(spec.owner.uid, account)
        return *network, HOLDS if held is None else await account.room(self._define(spec, held, guest))

    async def _define(self, spec: instance.InstanceSpec, held: desired.Cache, guest: power.Guest) -> Room:
        domain = await self._domain(spec, held)
        # It is off, which is all that is asked of it; its definition follows when its kernel is here.
        return HOLDS if domain is None else await guest.define(domain)

    async def _disconnect(self, owner: str, account: settle.Account) -> tuple[Room, Room, Room, Room]:
        """Firewall, link, routing and dhcp, of which the last goes first."""
        dhcp = await account.room(self._no_answers(owner))
        routing = await account.room(self._no_routes(owner))
        link = await account.room(self._no_links(owner)) if routing.holds else WAITS
        return (await account.room(self._filters.remove(owner)) if link.holds else WAITS), link, routing, dhcp

    async def _no_answers(self, owner: str) -> Room:
        # By its owner, not by what is kept of it: what can't be read back is removed as well.
        if owner in await self._rooms.dhcp.owners():
            await self._rooms.dhcp.apply(dhcp_plan.Silence(owner))
        return HOLDS

    async def _no_routes(self, owner: str) -> Room:
        # Routes go with their tap: where there is no tap of this owner, there is no route of it either.
        taps = tuple(tap.name for tap in await self._rooms.links.observe(owner))
        if not taps:
            return HOLDS
        return await settle.settle(
            lambda: self._rooms.routing.observe(taps),
            lambda seen: routing_plan.plan(routing_model.Table(), seen),
            self._rooms.routing.apply,
            reason="RoutingFailed",
        )

    async def _no_links(self, owner: str) -> Room:
        return await settle.settle(
            lambda: self._rooms.links.observe(owner),
            lambda seen: link_plan.plan((), seen),
            self._rooms.links.apply,
            reason="LinkFailed",
        )

    async def _no_seed(self, owner: str) -> Room:
        # By its owner, not by what is in it: a seed that can't be read back is removed as well.
        if owner in await self._rooms.seeds.owners():
            await self._rooms.seeds.apply(seed_plan.Remove(owner))
        return HOLDS

    async def _no_disks(self, owner: str) -> Room:
        return await settle.settle(
            lambda: self._rooms.storage.observe(owner),
            storage_plan.plan_removal,
            self._rooms.storage.apply,
            reason="StorageFailed",
        )

    def _files(self, spec: instance.InstanceSpec) -> desired.Files:
        owner, pool = spec.owner.uid, self._rooms.storage
        return desired.Files(
            disks={disk.name: pool.path(owner, disk.name) for disk in spec.disks},
            disk_format=pool.format,
            seed=self._rooms.seeds.path(owner),
        )

    async def _domain(self, spec: instance.InstanceSpec, held: desired.Cache) -> hypervisor_model.Domain | None:
        files = self._files(spec)
        if spec.firmware == "UEFI":
            files = dataclasses.replace(files, firmware=await self._uefi())
        return desired.domain(spec, self._host, files, held, await self._accelerated())

    async def _uefi(self) -> hypervisor_model.Firmware:
        found = (await self._rooms.hypervisor.facts()).uefi
        if found is None:
            sentence = "the guest is started by UEFI, and the host has no such firmware: install its package ovmf"
            raise errors.Rejected(hypervisor_model.Cause.UNSUPPORTED, sentence)
        return found

    async def _accelerated(self) -> str:
        if self._accelerator is None:
            self._accelerator = (await self._rooms.hypervisor.facts()).accelerator
        return self._accelerator
