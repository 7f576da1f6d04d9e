"""Guests on two hosts, and the packets between them: routes that are learnt by BGP, by either spine, in both families.

In a lab of this module's own, because the tests' lab has one host.
"""

from __future__ import annotations

import http.server
import ipaddress
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from corral_lab import lab, paths, progress
from corral_lab.host import frr, libvirtd, programs
from corral_lab.lab import AGENT
from corral_lab.options import Options

from .cloud import NETWORK, NOTHING, POOL, TENANT, Cloud, Guest, objects, until

pytestmark = pytest.mark.lab

OPTIONS = Options(
    hosts=2,
    management=ipaddress.IPv4Network("100.95.0.0/24"),
    guests=ipaddress.IPv4Network("10.84.0.0/24"),
    loopbacks=ipaddress.IPv4Network("100.96.0.0/24"),
)
_OTHERS = {"matchExpressions": [{"key": "apart", "operator": "Exists"}]}
APART = {"antiAffinity": {"required": [{"labelSelector": _OTHERS, "topologyKey": "corral.dev/host"}]}}


@dataclass(frozen=True, slots=True)
class Site:
    """The lab, seen from either host, and a guest on each: `near` and `far`, never on one host."""

    clouds: dict[str, Cloud]
    near: Guest
    far: Guest

    @property
    def any(self) -> Cloud:
        return next(iter(self.clouds.values()))

    def of(self, guest: Guest) -> Cloud:
        """The lab as seen from this guest's host."""
        return self.clouds[self.any.vm(guest.name)["status"]["placement"]["host"]]

    def addresses(self, guest: Guest) -> list[str]:
        placement = self.any.vm(guest.name)["status"]["placement"]
        return [one["address"] for one in placement["addresses"]]

    def routes(self, guest: Guest) -> dict[str, Any]:
        """What the kernel of this guest's host has learnt of the fabric, by prefix; a single address has no length."""
        asked = ("route", "show", "proto", "bgp")
        shown = [json.loads(self.of(guest).on_host("ip", "-json", family, *asked)) for family in ("-4", "-6")]
        return {route["dst"]: route for routes in shown for route in routes}

    def ways(self, guest: Guest, prefix: str) -> int:
        """By how many next hops this guest's host reaches the prefix."""
        route = self.routes(guest).get(prefix)
        return 0 if route is None else len(route.get("nexthops", [route]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    own = lab.Lab(paths.LabDir.at(tmp_path_factory.mktemp("pair")), paths.Cache.find(os.environ))
    try:
        api = own.up(OPTIONS, progress.silent())
        api.apply(*objects(str(OPTIONS.guests), str(OPTIONS.guests6)))
        clouds = {own.host(number).name: Cloud(own, api, number) for number in (1, 2)}
        cloud = clouds["h1"]
        for name in ("near", "far"):
            _apart(cloud, name)
        cloud.up("near", "far")
        made = Site(clouds, cloud.guest("near"), cloud.guest("far"))
        for guest in (made.near, made.far):
            guest.get()
        yield made
    finally:
        own.down(keep=False)


def _apart(cloud: Cloud, name: str, **spec: Any) -> None:
    """Apply a guest that is never on one host with another such."""
    cloud.apply(name, placement=APART, **spec)
    cloud.api.run("label", f"vm.corral.dev/{name}", "--namespace", TENANT, "apart=yes", "--overwrite")


class Pings:
    """Twenty a second to each address, and how many were sent in vain."""

    def __init__(self, *addresses: str) -> None:
        asked = ("ping", "-i", "0.05", "-q", "-W", "2")
        self._all = [
            subprocess.Popen([*asked, one], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for one in addresses
        ]
        self.lost: list[int] = []

    def __enter__(self) -> Pings:
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        for ping in self._all:
            ping.send_signal(signal.SIGINT)
            told, _ = ping.communicate(timeout=10)
            words = told.replace(",", "").split()
            sent, received = int(words[words.index("packets") - 1]), int(words[words.index("received") - 1])
            # The last one may still be on its way back.
            self.lost.append(max(0, sent - received - 1))


def test_guests_of_two_hosts_talk_in_both_families(site: Site) -> None:
    assert site.of(site.near).number != site.of(site.far).number
    assert site.near.fetches(site.far) == "far"
    assert site.far.fetches(site.near) == "near"
    for guest in (site.near, site.far):
        addresses = site.addresses(guest)
        assert [ipaddress.ip_address(one).version for one in addresses] == [4, 6]
        assert {f"{addresses[0]}/32", f"{addresses[1]}/128"} <= set(guest.meta()["addresses"])
        for address in addresses:
            # 1,500 octets with the headers, in one piece.
            size = "1472" if ":" not in address else "1452"
            done = subprocess.run(
                ["ping", "-c3", "-i0.3", "-W2", "-Mdo", "-s", size, address], capture_output=True, check=False
            )
            assert done.returncode == 0, f"{address}: {done.stdout.decode()}"


def test_a_host_learns_the_others_blocks_by_two_ways_and_no_guest(site: Site) -> None:
    theirs = site.of(site.far).blocks()
    assert len(theirs) == 2
    assert {prefix: site.ways(site.near, prefix) for prefix in theirs} == dict.fromkeys(theirs, 2)
    assert not set(site.addresses(site.far)) & site.routes(site.near).keys()


def test_a_guest_away_from_its_block_has_a_route_of_its_own(site: Site) -> None:
    block = next(ipaddress.ip_network(one) for one in site.of(site.far).blocks() if ":" not in one)
    asked = str(block[-2])
    interface = {"name": "eth0", "networkRef": {"name": NETWORK}, "addresses": [asked]}
    cloud = site.of(site.near)
    term = {"labelSelector": {"matchLabels": {"is": "near"}}, "topologyKey": "corral.dev/host"}
    beside = {"affinity": {"required": [term]}}
    cloud.api.run("label", "vm.corral.dev/near", "--namespace", TENANT, "is=near", "--overwrite")
    try:
        cloud.apply("away", placement=beside, networks=[interface])
        cloud.up("away")
        away = cloud.guest("away")
        assert (away.address, site.of(away).number) == (asked, cloud.number)
        assert asked in site.routes(site.far), "Ready says that the fabric was told"
        assert away.get() == "away"
        assert away.fetches(site.far) == "far"
    finally:
        cloud.delete("away")
    until(lambda: asked not in site.routes(site.far))


class _Visitors(http.server.BaseHTTPRequestHandler):
    """Tells who asks by which address he is seen."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def outside() -> Iterator[str]:
    """A server at this machine's own address on the fabric."""
    address = str(OPTIONS.machine_loopback.v4)
    with http.server.ThreadingHTTPServer((address, 80), _Visitors) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_nat_hides_a_guest_outside_and_guests_still_talk(site: Site, outside: str) -> None:
    cloud = site.any
    spec = {"poolRefs": [{"name": POOL}], "nat": True}
    network = {
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "Network",
        "metadata": {"name": "veil", "namespace": TENANT},
    }
    cloud.api.apply(network | {"spec": spec})
    try:
        cloud.apply("veiled", networks=[{"name": "eth0", "networkRef": {"kind": "Network", "name": "veil"}}])
        cloud.up("veiled")
        veiled = cloud.guest("veiled")
        assert veiled.get() == "veiled", "who asks first is answered as ever"
        assert veiled.asks(outside) == str(OPTIONS.host_loopback(site.of(veiled).number).v4)
        assert site.near.asks(outside) == site.near.address
        assert (veiled.fetches(site.near), veiled.fetches(site.far)) == ("near", "far")
        assert site.far.fetches(veiled) == "veiled"
    finally:
        cloud.delete("veiled")
        cloud.api.run("delete", "network.corral.dev/veil", "--namespace", TENANT)


def test_either_spine_may_go(site: Site) -> None:
    addresses = [one for guest in (site.near, site.far) for one in site.addresses(guest)]
    for spine in (1, 2):
        with Pings(*addresses) as pings:
            site.any.lab.reboot_spine(spine)
            assert site.near.fetches(site.far) == "far"
        assert max(pings.lost) <= 20, f"spine {spine}: {pings.lost} pings of 20 a second lost"
        for block in site.of(site.far).blocks():
            until(lambda block=block: site.ways(site.near, block) == 2, within=30)  # type: ignore[misc]  # bound


def test_agent_libvirtd_and_frr_start_anew_without_the_loss_of_a_packet(site: Site) -> None:
    cloud = site.of(site.far)
    lost = {}
    with Pings(*site.addresses(site.far)) as pings:
        programs.stop(cloud.host, AGENT)
        cloud.lab.start_agent(cloud.number)
    lost["agent"] = pings.lost
    with Pings(*site.addresses(site.far)) as pings:
        programs.stop(cloud.host, libvirtd.NAME)
        libvirtd.start(cloud.host)
    lost["libvirtd"] = pings.lost
    with Pings(*site.addresses(site.far)) as pings:
        frr.stop(cloud.host)
        frr.start([cloud.host])
        until(lambda: len(frr.told(cloud.host)) == 4, within=20)
    lost["FRR"] = pings.lost
    assert not any(one for some in lost.values() for one in some), lost
    until(lambda: _fabric(cloud) == "FabricConnected", within=20)


def _fabric(cloud: Cloud) -> str:
    conditions = cloud.api.get(f"hosts.corral.dev/{cloud.host.name}")["status"]["conditions"]
    return next(one["reason"] for one in conditions if one["type"] == "FabricReady")


def test_routes_vanish_with_their_host_and_come_back_with_it(site: Site) -> None:
    cloud = site.of(site.far)
    blocks = cloud.blocks()
    cloud.lab.cut_power(cloud.number)
    gone = until(lambda: not blocks & site.routes(site.near).keys(), within=10)
    cloud.lab.boot(cloud.number)
    back = until(lambda: blocks <= site.routes(site.near).keys(), within=40)
    assert site.far.get() == "far"
    assert site.near.fetches(site.far) == "far"
    print(f"a host's routes are gone after {gone:.1f} s, and there {back:.1f} s after its start")  # noqa: T201 - figures


def test_deletion_leaves_nothing_on_either_host(site: Site) -> None:
    before = {name: cloud.traces() for name, cloud in site.clouds.items()}
    cloud = site.any
    cloud.apply_all(["short-1", "short-2", "short-3"])
    cloud.up("short-1", "short-2", "short-3")
    guests = [cloud.guest(name) for name in ("short-1", "short-2", "short-3")]
    cloud.delete("short-1", "short-2", "short-3")
    for one in site.clouds.values():
        until(lambda one=one: all(one.traces(guest) == NOTHING for guest in guests), within=60)  # type: ignore[misc]  # bound
    assert {name: cloud.traces() for name, cloud in site.clouds.items()} == before
