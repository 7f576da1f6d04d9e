"""A host in memory: what outlives its agent, and the rooms that each agent sees it by."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from corral.agent import desired, rooms
from corral_drivers import errors
from corral_drivers.bgp import port as bgp_port
from corral_drivers.bgp import simulated as bgp
from corral_drivers.dhcp import port as dhcp_port
from corral_drivers.dhcp import simulated as dhcp
from corral_drivers.firewall import port as firewall_port
from corral_drivers.firewall import simulated as firewall
from corral_drivers.hypervisor import model as hypervisor_model
from corral_drivers.hypervisor import port as hypervisor_port
from corral_drivers.hypervisor import simulated as hypervisor
from corral_drivers.image import port as image_port
from corral_drivers.image import simulated as image
from corral_drivers.link import model as link_model
from corral_drivers.link import port as link_port
from corral_drivers.link import simulated as link
from corral_drivers.routing import port as routing_port
from corral_drivers.routing import simulated as routing
from corral_drivers.seed import port as seed_port
from corral_drivers.seed import simulated as seed
from corral_drivers.storage import port as storage_port
from corral_drivers.storage import simulated as storage

GATEWAYS = (desired.GATEWAY, desired.GATEWAY_V6, link_model.HOST_MAC)


@dataclass
class Metal:
    """What outlives the agent of one host: its guests, disks, taps. `fail_at` may be exchanged at any time."""

    name: str
    memory: int = 4 << 30
    cpus: int = 64
    fail_at: Callable[[object], errors.DriverError | None] = lambda _step: None
    machine: hypervisor.Machine = field(default_factory=hypervisor.Machine)
    images: image.World = field(default_factory=image.World)
    pool: storage.World = field(default_factory=storage.World)
    seeds: seed.World = field(default_factory=seed.World)
    links: link.World = field(default_factory=link.World)
    routing: routing.World = field(default_factory=routing.World)
    bgp: bgp.World = field(default_factory=bgp.World)
    firewall: firewall.World = field(default_factory=firewall.World)
    dhcp: dhcp.World = field(default_factory=dhcp.World)
    task: asyncio.Task[None] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    pids: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of each guest, every pid that it ever had: as many as it was started."""

    def __post_init__(self) -> None:
        self.machine.listen(self._note)

    def _note(self, uid: str) -> None:
        guest = self.machine.guests.get(uid)
        if guest is not None and guest.pid is not None and guest.pid not in self.pids[uid]:
            self.pids[uid].append(guest.pid)

    def rooms(self, _driver: str, place: rooms.Place) -> rooms.Rooms:
        """The rooms as an agent that just started sees them."""
        self.machine.facts = hypervisor_model.Facts(
            cpus=self.cpus, memory=self.memory, accelerator="tcg", hypervisor="Simulated", version="1.0.0"
        )
        self.routing.index = self.machine.index = self.links.index
        self.links.held = self.machine.holds

        def fail(step: object) -> errors.DriverError | None:
            return self.fail_at(step)

        marks, folder = (place.cloud, place.host), place.folder
        return rooms.Rooms(
            hypervisor.Simulated(hypervisor_port.Settings(*marks), machine=self.machine, fail_at=fail),
            image.Simulated(image_port.Settings(f"{folder}/images"), world=self.images, fail_at=fail),
            storage.Simulated(storage_port.Settings(*marks, f"{folder}/disks"), world=self.pool, fail_at=fail),
            seed.Simulated(seed_port.Settings(f"{folder}/seeds"), world=self.seeds, fail_at=fail),
            link.Simulated(link_port.Settings(*marks), world=self.links, fail_at=fail),
            routing.Simulated(routing_port.Settings(), world=self.routing, fail_at=fail),
            bgp.Simulated(bgp_port.Settings(*marks), world=self.bgp, fail_at=fail),
            firewall.Simulated(firewall_port.Settings(*marks), world=self.firewall, fail_at=fail),
            dhcp.Simulated(dhcp_port.Settings(f"{folder}/dhcp", *GATEWAYS), world=self.dhcp, fail_at=fail),
        )

    @property
    def running(self) -> set[str]:
        """Uids of the guests that run."""
        guests = self.machine.guests.items()
        return {uid for uid, guest in guests if guest.state is hypervisor_model.State.RUNNING}

    @property
    def is_empty(self) -> bool:
        """Whether nothing but images is left."""
        filtered = any(rules.owners() for rules in self.firewall.tables.values())
        left = (self.machine.guests, self.pool.disks, self.seeds.seeds, self.links.interfaces, self.dhcp.kept, filtered)
        return not any(left)
