"""The rooms of one host, each by its port, and how they are built: `agent.process` does that once a process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

from corral.agent import desired
from corral_drivers.bgp import port as bgp_port
from corral_drivers.bgp import simulated as simulated_bgp
from corral_drivers.bgp.frr import driver as frr
from corral_drivers.dhcp import port as dhcp_port
from corral_drivers.dhcp import responder
from corral_drivers.dhcp import simulated as simulated_dhcp
from corral_drivers.firewall import port as firewall_port
from corral_drivers.firewall import simulated as simulated_firewall
from corral_drivers.firewall.nft import driver as nft
from corral_drivers.hypervisor import port as hypervisor_port
from corral_drivers.image import http_cache
from corral_drivers.image import port as image_port
from corral_drivers.image import simulated as simulated_image
from corral_drivers.link import model as link_model
from corral_drivers.link import port as link_port
from corral_drivers.link import simulated as simulated_link
from corral_drivers.link import tap
from corral_drivers.routing import kernel
from corral_drivers.routing import port as routing_port
from corral_drivers.routing import simulated as simulated_routing
from corral_drivers.seed import nocloud
from corral_drivers.seed import port as seed_port
from corral_drivers.seed import simulated as simulated_seed
from corral_drivers.storage import port as storage_port
from corral_drivers.storage import qcow2
from corral_drivers.storage import simulated as simulated_storage

DRIVERS = "corral.drivers.hypervisor"
"""The group of entry points by which a hypervisor's driver is found; its name is what a Host's spec says."""

SIMULATED = "simulated"


class NoSuchDriver(LookupError):  # noqa: N818 - reads as what it says
    """No installed package has a driver of this name."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a host has for its guests, in the order in which a guest needs it, the last first, and its own `bgp`."""

    hypervisor: hypervisor_port.Hypervisor
    images: image_port.Images
    storage: storage_port.Storage
    seeds: seed_port.Seeds
    links: link_port.Links
    routing: routing_port.Routing
    bgp: bgp_port.Bgp
    firewall: firewall_port.Firewall
    dhcp: dhcp_port.Dhcp

    async def close(self) -> None:
        """End what the rooms hold open; guests run on."""
        await self.dhcp.close()
        await self.hypervisor.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Whose the host is, where its hypervisor answers, and the folder that everything of its guests is kept in."""

    cloud: str
    host: str
    uri: str
    folder: str


def build(driver: str, place: Place) -> Rooms:
    """The rooms that go with a hypervisor's driver; with the simulated one they are simulated all.

    Raises `NoSuchDriver`.
    """
    hypervisor = _hypervisor(driver)(hypervisor_port.Settings(place.cloud, place.host, place.uri))
    images = image_port.Settings(f"{place.folder}/images")
    storage = storage_port.Settings(place.cloud, place.host, f"{place.folder}/disks")
    seeds = seed_port.Settings(f"{place.folder}/seeds")
    links = link_port.Settings(place.cloud, place.host, desired.GATEWAY)
    routing = routing_port.Settings()
    bgp = bgp_port.Settings(place.cloud, place.host)
    firewall = firewall_port.Settings(place.cloud, place.host, desired.GATEWAY)
    dhcp = dhcp_port.Settings(f"{place.folder}/dhcp", desired.GATEWAY, desired.GATEWAY_V6, link_model.HOST_MAC)
    if driver == SIMULATED:
        return Rooms(
            hypervisor,
            simulated_image.Simulated(images),
            simulated_storage.Simulated(storage),
            simulated_seed.Simulated(seeds),
            simulated_link.Simulated(links),
            simulated_routing.Simulated(routing),
            simulated_bgp.Simulated(bgp),
            simulated_firewall.Simulated(firewall),
            simulated_dhcp.Simulated(dhcp),
        )
    return Rooms(
        hypervisor,
        http_cache.HttpCache(images),
        qcow2.Qcow2(storage),
        nocloud.NoCloud(seeds),
        tap.Taps(links),
        kernel.Kernel(routing),
        frr.Frr(bgp),
        nft.Nft(firewall),
        responder.Responder(dhcp),
    )


def _hypervisor(driver: str) -> Any:
    found = tuple(metadata.entry_points(group=DRIVERS, name=driver))
    if not found:
        known = ", ".join(sorted(point.name for point in metadata.entry_points(group=DRIVERS))) or "none"
        raise NoSuchDriver(f"no hypervisor driver called {driver!r} is installed here; installed are: {known}")
    return found[0].load()
