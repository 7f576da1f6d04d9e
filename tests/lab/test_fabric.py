"""The lab's fabric: what one host announces is reached from the others and from this machine, by either spine.

Hosts without libvirt and agents, whose FRR is configured by hand; the last tests look at the run's own lab.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from corral_lab.fabric import fabric
from corral_lab.host import frr, lifecycle, namespace
from corral_lab.host import programs as host_programs
from corral_lab.options import Options

from .cloud import Cloud, until

pytestmark = pytest.mark.lab

LAB = "fabric-test"
OPTIONS = Options(
    hosts=2,
    management=ipaddress.IPv4Network("100.127.25.0/24"),
    guests=ipaddress.IPv4Network("10.254.23.0/24"),
    loopbacks=ipaddress.IPv4Network("100.127.23.0/24"),
)
BLOCKS = (ipaddress.IPv4Network("10.254.23.0/26"), ipaddress.IPv6Network("fd00:10:254:23::/112"))
ADDRESSES = [str(block[number]) for block in BLOCKS for number in range(5, 9)]
"""Of the first host, in its blocks; several, so that their flows go by both spines."""

CONFIGURATION = """\
bgp route-map delay-timer 0
zebra nexthop-group keep 1
interface lo
 ip address {v4}/32
 ipv6 address {v6}/128
exit
ip prefix-list OWN seq 5 permit {v4}/32
ip prefix-list OWN seq 10 permit {guests} le 32
ipv6 prefix-list OWN seq 5 permit {v6}/128
ipv6 prefix-list OWN seq 10 permit {guests6} le 128
route-map OWN permit 10
 match ip address prefix-list OWN
exit
route-map OWN permit 20
 match ipv6 address prefix-list OWN
exit
router bgp {asn}
 bgp router-id {v4}
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 neighbor FABRIC peer-group
 neighbor FABRIC remote-as external
 neighbor FABRIC timers 3 9
 neighbor FABRIC timers connect 1
 neighbor up1 interface peer-group FABRIC
 neighbor up2 interface peer-group FABRIC
 address-family ipv4 unicast
  redistribute kernel route-map OWN
  redistribute connected route-map OWN
  neighbor FABRIC activate
  neighbor FABRIC route-map OWN out
 exit-address-family
 address-family ipv6 unicast
  redistribute kernel route-map OWN
  redistribute connected route-map OWN
  neighbor FABRIC activate
  neighbor FABRIC route-map OWN out
 exit-address-family
exit
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A fabric and its two hosts."""

    fabric: fabric.Fabric
    hosts: tuple[namespace.Host, ...]

    def up(self) -> None:
        self.fabric.up(host.name for host in self.hosts)
        for host in self.hosts:
            lifecycle.up(host)
            self.fabric.connect(host)
        frr.start(self.hosts)
        self.fabric.admit()

    def announce(self) -> None:
        """Have the first host announce its blocks, of which it has a few addresses itself."""
        for block in BLOCKS:
            _on(self.hosts[0], "ip", "route", "replace", "blackhole", str(block), "proto", "199")
        for address in ADDRESSES:
            _on(
                self.hosts[0], "ip", "address", "replace", f"{address}/{'128' if ':' in address else '32'}", "dev", "lo"
            )


def _on(host: namespace.Host, *command: str) -> str:
    done = subprocess.run(host.command(command), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _ways(host: namespace.Host, block: ipaddress.IPv4Network | ipaddress.IPv6Network) -> list[str]:
    """The interfaces over which the host's kernel reaches the block."""
    shown = json.loads(_on(host, "ip", "--json", f"-{block.version}", "route", "show", str(block)))
    return sorted(hop["dev"] for route in shown for hop in route.get("nexthops", [route]))


def _sessions(host: namespace.Host) -> dict[str, bool]:
    """By the neighbour's interface, whether both families go over an established session with it."""
    families = json.loads(_on(host, "vtysh", "-c", "show bgp summary json")).values()
    peers = [found.get("peers", {}) for found in families]
    return {name: all(each.get(name, {}).get("state") == "Established" for each in peers) for name in peers[0]}


def _is_whole(site: Site) -> bool:
    """Whether all sessions are up, and the hosts reach the first one's blocks and this machine by both spines."""
    first, second = site.hosts
    if not all(up for host in (*site.hosts, *site.fabric.spines) for up in _sessions(host).values()):
        return False
    machine = (ipaddress.ip_network(OPTIONS.machine_loopback.v4), ipaddress.ip_network(OPTIONS.machine_loopback.v6))
    wanted = [(second, block) for block in BLOCKS] + [
        (host, address) for host in (first, second) for address in machine
    ]
    return all(_ways(host, prefix) == ["up1", "up2"] for host, prefix in wanted)


def _silent() -> list[str]:
    """The addresses of the first host that do not answer this machine now."""
    asked = {address: _ping(address, "-c", "1", "-W", "1") for address in ADDRESSES}
    told = {address: ping.communicate(timeout=10)[0] for address, ping in asked.items()}
    return [address for address, text in told.items() if " 0% packet loss" not in text]


def _ping(address: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["ping", *options, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _lost(ping: subprocess.Popen[str]) -> int:
    """End a ping, and say how many were sent in vain."""
    ping.send_signal(signal.SIGINT)
    told, _ = ping.communicate(timeout=10)
    (counted,) = re.findall(r"(\d+) packets transmitted, (\d+) received", told)
    return int(counted[0]) - int(counted[1])


@contextlib.contextmanager
def _site(lab: str, folder: pathlib.Path, options: Options = OPTIONS) -> Iterator[Site]:
    hosts = tuple(namespace.Host(lab, name, folder / name) for name in ("h1", "h2"))
    (folder / "spines").mkdir()
    site = Site(fabric.Fabric(lab, folder / "spines", options), hosts)
    try:
        yield site
    finally:
        for host in hosts:
            lifecycle.down(host)
        site.fabric.down(keep=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _site(LAB, tmp_path_factory.mktemp("fabric")) as site:
        for number, host in enumerate(site.hosts, start=1):
            own = OPTIONS.host_loopback(number)
            prefixes = {"guests": OPTIONS.guests, "guests6": OPTIONS.guests6}
            text = CONFIGURATION.format(asn=4200000010 + number, v4=own.v4, v6=own.v6, **prefixes)
            host.own("/etc/frr").mkdir(parents=True)
            (host.own("/etc/frr") / "frr.conf").write_text(text)
        site.up()
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    running.announce()
    until(lambda: _is_whole(running), within=20)
    return running


def test_what_a_host_announces_is_reached_by_both_spines(site: Site) -> None:
    assert _silent() == []
    ours, theirs = OPTIONS.host_loopback(1), OPTIONS.host_loopback(2)
    for source, target in ((theirs.v4, ours.v4), (theirs.v6, ours.v6)):
        _on(site.hosts[1], "ping", "-c1", "-W2", "-I", str(source), str(target))
    for number, spine in enumerate(site.fabric.spines, start=1):
        assert _sessions(spine) == {"h1": True, "h2": True}
        # No host is on the way from another to a spine.
        loopback = ipaddress.ip_network(OPTIONS.spine_loopback(number).v4)
        assert _ways(site.hosts[0], loopback) == [fabric.uplink(number)]


def test_a_spine_says_what_it_can_not_do_by_its_loopback(site: Site) -> None:
    known = [OPTIONS.spine_loopback(number) for number in (1, 2)]
    for nobody, sources in ((BLOCKS[0], [one.v4 for one in known]), (BLOCKS[1], [one.v6 for one in known])):
        told, _ = _ping(str(nobody[5]), "-c1", "-W2", "-t1").communicate(timeout=10)
        assert "exceeded" in told
        assert any(f"From {source} " in told for source in sources), told


def test_the_loss_of_a_spine_is_hardly_noticed_and_it_comes_back(site: Site) -> None:
    for number in (1, 2):
        pings = [_ping(address, "-i", "0.05", "-q") for address in ADDRESSES]
        site.fabric.cut_power(number)
        left = [fabric.uplink(3 - number)]
        took = until(
            lambda left=left: all(_ways(site.hosts[1], block) == left for block in BLOCKS), within=5, every=0.02
        )
        begun = time.monotonic()
        site.up()
        until(lambda: _is_whole(site), within=20)
        back = time.monotonic() - begun
        lost = [_lost(ping) for ping in pings]
        said = f"the other way alone after {took:.2f} s, back after {back:.2f} s, pings lost {lost}"
        print(f"spine {number} lost: {said}")  # noqa: T201 - a figure
        # Half a second of each flow.
        assert max(lost) < 10
        assert _silent() == []


def test_frr_starts_anew_without_the_loss_of_a_packet(site: Site) -> None:
    pings = [_ping(address, "-i", "0.05", "-q") for address in (ADDRESSES[0], ADDRESSES[-1])]
    for host in (site.hosts[0], site.fabric.spines[0]):
        frr.stop(host)
        site.up()
        until(lambda: _is_whole(site), within=20)
    assert [_lost(ping) for ping in pings] == [0, 0]


def test_a_host_without_power_is_reached_no_more_and_comes_back_as_it_was_configured(site: Site) -> None:
    first, second = site.hosts
    lifecycle.cut_power(first)
    took = until(lambda: not any(_ways(second, block) for block in BLOCKS), within=5, every=0.02)
    print(f"host lost: its blocks gone from the other after {took:.2f} s")  # noqa: T201 - a figure
    assert len(_silent()) == len(ADDRESSES)

    site.up()
    site.announce()
    took = until(lambda: _is_whole(site), within=20)
    print(f"host back: whole after {took:.2f} s")  # noqa: T201 - a figure
    assert _silent() == []


def test_what_is_up_stays_and_down_leaves_nothing(tmp_path: pathlib.Path) -> None:
    other = dataclasses.replace(
        OPTIONS,
        guests=ipaddress.IPv4Network("10.254.24.0/24"),
        loopbacks=ipaddress.IPv4Network("100.127.24.0/24"),
    )
    with _site("fabric-gone", tmp_path, other) as site:
        site.up()
        links = set(map(fabric.machine_interface, site.fabric.spines))
        assert links <= set(os.listdir("/sys/class/net"))
        routes, processes = _routes(other), _processes(site)
        assert len(processes) == 4 * len(("supervisor", *frr.NAMES))
        site.up()
        assert (_routes(other), _processes(site)) == (routes, processes)

    assert links.isdisjoint(os.listdir("/sys/class/net"))
    assert _routes(other) == []
    assert not [pid for pid in processes if pathlib.Path(f"/proc/{pid}").exists()]
    assert list(tmp_path.rglob("*")) == [tmp_path / "spines"]
    assert not list(pathlib.Path("/run/netns").glob("corral-fabric-gone-*"))


def _processes(site: Site) -> list[int]:
    return [pid for host in (*site.fabric.spines, *site.hosts) for pid in host.processes()]


def _routes(options: Options) -> list[str]:
    prefixes = [*options.fabric.values(), options.management]
    found = []
    for family in ("-4", "-6"):
        shown = subprocess.run(["ip", "--json", family, "route"], capture_output=True, check=True).stdout
        for route in json.loads(shown):
            target = ipaddress.ip_network("0.0.0.0/0" if route["dst"] == "default" else route["dst"])
            if any(one.overlaps(target) for one in prefixes) and target.prefixlen > 0:
                found.append(f"{route}")
    return sorted(found)


def test_the_status_names_all_of_it(cloud: Cloud) -> None:
    seen = {one.name: one for one in cloud.lab.status()}
    for host in ("s1", "s2", "h1"):
        for program in ("supervisor", *frr.NAMES):
            assert seen[f"{host} {program}"].ready


def test_a_rebooted_host_of_the_lab_has_frr_again(cloud: Cloud) -> None:
    before = host_programs.find(cloud.host, frr.BGPD)
    cloud.lab.reboot(1)
    after = [host_programs.find(cloud.host, name) for name in frr.NAMES]
    assert None not in after
    assert before not in after
    links = cloud.on_host("ls", "/sys/class/net").split()
    assert {"up1", "up2"} <= set(links)
