"""A host in memory for these tests: what outlives an agent, a clock to turn by hand, and one hook that fails steps."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from corral.agent import desired, fetches, filtering, guest, kept, memory, rooms
from corral.api.v1alpha1 import host as api_host
from corral.api.v1alpha1 import instance
from corral.conclude import instance as conclude
from corral_drivers import errors
from corral_drivers.bgp import port as bgp_port
from corral_drivers.bgp import simulated as bgp
from corral_drivers.dhcp import port as dhcp_port
from corral_drivers.dhcp import simulated as dhcp
from corral_drivers.firewall import port as firewall_port
from corral_drivers.firewall import simulated as firewall
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
CLOUD, HOST = "c10d", "4057"
TOLD = api_host.HostStateSpec(
    cloud=CLOUD, host=HOST, hypervisor=api_host.HypervisorSettings(driver="simulated"), pools=("10.77.0.0/24",)
)
OWNER = "0b0e4c3a-6f0e-4d5b-9a51-0123456789ab"


def wire(**changes: Any) -> dict[str, Any]:
    """The spec of one Instance as it stands on the wire."""
    file = {"url": "http://images.example/x", "sha256": "a" * 64, "format": "qcow2"}
    spec = {
        "owner": {"namespace": "shop", "name": "web", "uid": OWNER},
        "epoch": 1,
        "cpu": 2,
        "memory": 64 * 2**20,
        "machineType": "pc",
        "disks": [
            {"name": "root", "size": 0, "slot": 3, "image": file},
            {"name": "data", "size": 2**20, "slot": 4},
        ],
        "seedSlot": 12,
        "interfaces": [
            {"name": "eth0", "mac": "02:00:00:00:00:01", "slot": 16, "mtu": 1500, "addresses": ["10.77.0.5"]},
            {
                "name": "eth1",
                "mac": "02:00:00:00:00:02",
                "slot": 17,
                "mtu": 1400,
                "addresses": ["10.78.0.5", "fd00::5"],
            },
        ],
        "boot": {
            "kernel": {**file, "sha256": "b" * 64, "format": "blob"},
            "initramfs": {**file, "sha256": "c" * 64, "format": "blob"},
            "commandLine": "console=ttyS0",
        },
        "seed": {"instanceId": "web-1", "hostname": "web", "userData": "#cloud-config\n"},
        "runStrategy": "Always",
        "terminationGracePeriodSeconds": 30,
    }
    return spec | changes


def spec(**changes: Any) -> instance.InstanceSpec:
    return instance.InstanceSpec.model_validate(wire(**changes))


def nothing_fails(step: object) -> errors.DriverError | None:
    return None


@dataclass
class Host:
    """`fail_at` may be exchanged at any time; `now` is the clock; `state` is the agent's folder."""

    state: str = "/state"
    now: float = 1000.0
    fail_at: Callable[[object], errors.DriverError | None] = nothing_fails
    steps: int = 0
    """How many steps were asked of all rooms together."""

    machine: hypervisor.Machine = field(default_factory=hypervisor.Machine)
    images: image.World = field(default_factory=image.World)
    pool: storage.World = field(default_factory=storage.World)
    seeds: seed.World = field(default_factory=seed.World)
    links: link.World = field(default_factory=link.World)
    routing: routing.World = field(default_factory=routing.World)
    bgp: bgp.World = field(default_factory=bgp.World)
    firewall: firewall.World = field(default_factory=firewall.World)
    dhcp: dhcp.World = field(default_factory=dhcp.World)
    woken: list[str] = field(default_factory=list)
    told: api_host.HostStateSpec = TOLD
    """What its HostState says."""

    announced: set[str] | None = None
    """The addresses that its fabric is told of; None where it has none."""

    put_back: list[str] = field(default_factory=list)
    """The rooms in which something was put back."""

    instances: list[dict[str, Any]] = field(default_factory=list)
    """What the API server knows."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Secrets of the host's namespace, by name."""

    async def read_secret(self, name: str) -> dict[str, Any] | None:
        return self.secrets.get(name)

    def rooms(self) -> rooms.Rooms:
        """The rooms as a process that just started sees them."""
        self.routing.index = self.machine.index = self.links.index
        self.links.held = self.machine.holds
        folder = self.state
        return rooms.Rooms(
            hypervisor.Simulated(hypervisor_port.Settings(CLOUD, HOST), machine=self.machine, fail_at=self._ask),
            image.Simulated(image_port.Settings(f"{folder}/images"), world=self.images, fail_at=self._ask),
            storage.Simulated(
                storage_port.Settings(CLOUD, HOST, f"{folder}/disks"), world=self.pool, fail_at=self._ask
            ),
            seed.Simulated(seed_port.Settings(f"{folder}/seeds"), world=self.seeds, fail_at=self._ask),
            link.Simulated(link_port.Settings(CLOUD, HOST), world=self.links, fail_at=self._ask),
            routing.Simulated(routing_port.Settings(), world=self.routing, fail_at=self._ask),
            bgp.Simulated(bgp_port.Settings(CLOUD, HOST), world=self.bgp, fail_at=self._ask),
            firewall.Simulated(firewall_port.Settings(CLOUD, HOST), world=self.firewall, fail_at=self._ask),
            dhcp.Simulated(dhcp_port.Settings(f"{folder}/dhcp", *GATEWAYS), world=self.dhcp, fail_at=self._ask),
        )

    def _ask(self, step: object) -> errors.DriverError | None:
        self.steps += 1
        return self.fail_at(step)

    async def announces(self, address: str) -> bool | None:
        return None if self.announced is None else address in self.announced

    def empty(self) -> bool:
        """Whether nothing but images is left."""
        filtered = [owner for rules in self.firewall.tables.values() for owner in rules.owners()]
        left = (self.machine.guests, self.pool.disks, self.seeds.seeds, self.links.interfaces, self.dhcp.kept, filtered)
        return not any(left) and not any(self.routing.entries(name) for name in list(self.routing.by_interface))


class Agent:
    """The agent's work on one guest of a host; a new one has forgotten everything."""

    def __init__(self, host: Host, images: image_port.Images | None = None) -> None:
        self.host = host
        self.made = host.rooms()
        if images is not None:
            self.made = dataclasses.replace(self.made, images=images)
        self.memory = memory.Memory()
        self.fetches = fetches.Fetches(self.made.images, host.woken.append, lambda: host.now)
        marks = desired.Host(CLOUD, HOST, f"{host.state}/console", f"{host.state}/uefi")
        self.filters = filtering.Filter(
            self.made.firewall,
            lambda: host.instances,
            kept.Kept(host.state),
            host.told,
            lambda: host.put_back.append("firewall"),
        )
        self.guests = guest.Guests(
            self.made,
            marks,
            self.fetches,
            self.filters,
            guest.Calls(lambda: host.now, host.read_secret, host.put_back.append, host.announces),
        )

    async def converge(self, wanted: instance.InstanceSpec, passes: int = 1) -> conclude.Outcome:
        """So many passes, each with whatever was fetched since the one before."""
        outcome = await self.guests.converge(wanted, self.memory)
        for _ in range(passes - 1):
            await self.fetched()
            outcome = await self.guests.converge(wanted, self.memory)
        return outcome

    async def remove(self, grace: float = 30.0) -> conclude.Outcome:
        return await self.guests.remove(OWNER, grace, self.memory)

    async def fetched(self) -> None:
        """Let the fetches that are under way end."""
        for _ in range(5):
            await asyncio.sleep(0)
