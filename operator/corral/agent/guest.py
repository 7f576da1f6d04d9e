"""One guest through all the rooms of its host, in a fixed order: image, storage, seed, link, routing, hypervisor.

`agent.instance` calls it with a spec. Rooms that do not need each other converge though one fails; the hypervisor comes
last and only when all before it hold. Off, and on removal, it goes backwards: nothing is taken from a living guest.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable

from corral.agent import desired, power, settle
from corral.agent.fetches import Fetches
from corral.agent.memory import Memory
from corral.agent.rooms import Rooms
from corral.api.v1alpha1 import instance
from corral.conclude.instance import HOLDS, WAITS, Outcome, Room
from corral_drivers.image import model as image_model
from corral_drivers.image import plan as image_plan
from corral_drivers.link import plan as link_plan
from corral_drivers.routing import model as routing_model
from corral_drivers.routing import plan as routing_plan
from corral_drivers.seed import plan as seed_plan
from corral_drivers.storage import plan as storage_plan


class Guests:
    """The guests of one host. The clock is monotonic, in seconds."""

    def __init__(self, rooms: Rooms, host: desired.Host, fetches: Fetches, clock: Callable[[], float]) -> None:
        self._rooms = rooms
        self._host = host
        self._fetches = fetches
        self._clock = clock
        self._accelerator: str | None = None

    async def converge(self, spec: instance.InstanceSpec, memory: Memory) -> Outcome:
        """Make the host look like the spec, as far as that is possible now. Raises what no driver may raise."""
        account = settle.Account(spec.owner.uid)
        guest = power.Guest(self._rooms.hypervisor, spec.owner.uid, memory, self._clock)
        held: dict[tuple[str, image_model.Format], image_model.Held] = {}
        image = await account.room(self._images(spec, held))
        storage = await account.room(self._disks(spec, held))
        seed = await account.room(self._seed(spec))
        if spec.run_strategy == "Halted":
            link, routing, hypervisor = await self._off(spec, held, guest, account)
        else:
            link = await account.room(self._links(spec))
            routing = await account.room(self._routes(spec)) if link.holds else WAITS
            before = (image, storage, seed, link, routing)
            work = self._run(spec, held, guest) if all(room.holds for room in before) else guest.look()
            hypervisor = await account.room(work)
        account.close()
        return Outcome(
            image,
            storage,
            seed,
            link,
            routing,
            hypervisor,
            power_state=guest.state,
            restart_required=guest.restart_required,
        )

    async def remove(self, owner: str, grace: float, memory: Memory) -> Outcome:
        """Take everything of the owner from the host; nothing is left of it once the outcome `holds`."""
        self._fetches.forget(owner)
        account = settle.Account(owner)
        guest = power.Guest(self._rooms.hypervisor, owner, memory, self._clock)
        hypervisor = await account.room(guest.remove(grace))
        if hypervisor.holds:
            link, routing = await self._disconnect(owner, account)
            seed = await account.room(self._no_seed(owner))
            storage = await account.room(self._no_disks(owner))
        else:
            link = routing = seed = storage = WAITS
        outcome = Outcome(HOLDS, storage, seed, link, routing, hypervisor, power_state=guest.state)
        account.close()
        if outcome.holds:
            log = pathlib.Path(desired.console_log(self._host, owner))
            await asyncio.to_thread(log.unlink, missing_ok=True)
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

    async def _disks(self, spec: instance.InstanceSpec, held: desired.Cache) -> Room:
        wanted = desired.disks(spec, held)
        room = await settle.settle(
            lambda: self._rooms.storage.observe(spec.owner.uid),
            lambda seen: storage_plan.plan(wanted, seen),
            self._rooms.storage.apply,
            reason="StorageFailed",
        )
        return WAITS if room.holds and len(wanted) < len(spec.disks) else room

    async def _seed(self, spec: instance.InstanceSpec) -> Room:
        wanted, owner = desired.seed_of(spec), spec.owner.uid
        return await settle.settle(
            lambda: self._rooms.seeds.observe(owner),
            lambda seen: seed_plan.plan(wanted, seen, owner),
            self._rooms.seeds.apply,
            reason="SeedFailed",
        )

    async def _links(self, spec: instance.InstanceSpec) -> Room:
        return await settle.settle(
            lambda: self._rooms.links.observe(spec.owner.uid),
            lambda seen: link_plan.plan(desired.taps(spec), seen),
            self._rooms.links.apply,
            reason="LinkFailed",
        )

    async def _routes(self, spec: instance.InstanceSpec) -> Room:
        taps = tuple(tap.name for tap in desired.taps(spec))
        return await settle.settle(
            lambda: self._rooms.routing.observe(taps),
            lambda seen: routing_plan.plan(desired.table(spec), seen),
            self._rooms.routing.apply,
            reason="RoutingFailed",
        )

    async def _run(self, spec: instance.InstanceSpec, held: desired.Cache, guest: power.Guest) -> Room:
        domain = desired.domain(spec, self._host, self._files(spec), held, await self._accelerated())
        return WAITS if domain is None else await guest.run(domain)

    async def _off(
        self, spec: instance.InstanceSpec, held: desired.Cache, guest: power.Guest, account: settle.Account
    ) -> tuple[Room, Room, Room]:
        """Stop the guest, then take its network away, then have it defined for its next start."""
        hypervisor = await account.room(guest.stop(spec.termination_grace_period_seconds))
        if not hypervisor.holds:
            return WAITS, WAITS, hypervisor
        link, routing = await self._disconnect(spec.owner.uid, account)
        return link, routing, await account.room(self._define(spec, held, guest))

    async def _define(self, spec: instance.InstanceSpec, held: desired.Cache, guest: power.Guest) -> Room:
        domain = desired.domain(spec, self._host, self._files(spec), held, await self._accelerated())
        # It is off, which is all that is asked of it; its definition follows when its kernel is here.
        return HOLDS if domain is None else await guest.define(domain)

    async def _disconnect(self, owner: str, account: settle.Account) -> tuple[Room, Room]:
        routing = await account.room(self._no_routes(owner))
        return (await account.room(self._no_links(owner)) if routing.holds else WAITS), routing

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

    async def _accelerated(self) -> str:
        if self._accelerator is None:
            self._accelerator = (await self._rooms.hypervisor.facts()).accelerator
        return self._accelerator
