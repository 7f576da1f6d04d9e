"""What the real firewall does with packets: each rule is tried from a guest's end of a tap, octet by octet.

One network namespace with three guests on taps and the world outside on a fourth. Whether a packet got past the first
look is counted by a foreign table right behind ours, which also must live through everything.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from corral_drivers.firewall import plan, port
from corral_drivers.firewall.model import Floating, Group, Network, Rule, Service, Shared, Tap
from corral_drivers.firewall.nft import driver
from corral_drivers.link.model import HOST_MAC

from . import packets
from .network import private_network
from .packets import ACK, ARP, BROADCAST, ICMP, ICMPV6, IPV4, PSH, SYN, TCP, Packet, Wire

pytestmark = pytest.mark.lab

SETTINGS = port.Settings(cloud="cloud-1", host="host-1", connections=100)
GATEWAY, GATEWAY6 = "169.254.1.1", "fe80::1"
ALL_NODES, ALL_ROUTERS, MLD_ROUTERS = "ff02::1", "ff02::2", "ff02::16"
HOST, HOST6 = "100.87.0.1", "fd87::1"
WORLD, WORLD6 = "198.51.100.9", "fd98::9"
MACS = {f"ct{number}": f"02:00:00:00:00:0{number + 5}" for number in range(3)}
A, B, C = (
    Tap(tap, f"owner-{tap}", own, (f"10.77.0.{number}", f"fd77::{number}"))
    for number, (tap, own) in enumerate(MACS.items(), start=5)
)
A4, B4, C4, A6, B6, C6 = (*(tap.addresses[0] for tap in (A, B, C)), *(tap.addresses[1] for tap in (A, B, C)))
A_LINK = "fe80::ff:fe00:5"
CLOUD = ("10.77.0.0/16", "fd77::/64")

MARKERS = itertools.count(40000)


def run(*words: str, text: str = "") -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, input=text).stdout


@dataclass
class Net:
    """The host, its guests a, b, c, and the world outside."""

    a: Wire
    b: Wire
    c: Wire
    outside: Wire
    firewall: driver.Nft = field(default_factory=lambda: driver.Nft(SETTINGS))

    async def ask(self, shared: Shared, *taps: Tap) -> None:
        """Have the host look like that."""
        for step in plan.plan(shared, taps, await self.firewall.observe()).steps:
            await self.firewall.apply(step)
        assert not plan.plan(shared, taps, await self.firewall.observe())
        for wire in (self.a, self.b, self.c, self.outside):
            wire.drain()

    def passed(self) -> int:
        """How many packets and ARP messages of guests a foreign table behind ours has seen."""
        counters = [
            part["counter"]["packets"]
            for table in ("inet", "arp")
            for item in json.loads(run("nft", "-j", "list", "table", table, "witness"))["nftables"]
            for part in item.get("rule", {}).get("expr", ())
            if "counter" in part
        ]
        return sum(counters)

    def seen(self, by: Wire) -> list[Packet]:
        """What came to somebody until now: the host sends a last packet of its own, which nobody filters."""
        marker = next(MARKERS)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.sendto(b"marker", (ADDRESS[by.interface], marker))
        return by.until(marker)

    def crossed(self, sender: Wire, packet: bytes, receiver: Wire) -> Packet | None:
        """What comes to the receiver of one packet."""
        sender.send(packet)
        found = self.seen(receiver)
        assert len(found) <= 1, found
        return found[0] if found else None


ADDRESS = {"ct0": A4, "ct1": B4, "ct2": C4, "up0": "192.0.2.2"}


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with private_network():
        wires = [Wire(name, own) for name, own in (*MACS.items(), ("up0", "02:00:00:00:00:99"))]
        for name, value in (("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv4/icmp_ratelimit", "0")):
            (pathlib.Path("/proc/sys/net") / name).write_text(value)
        addressed = [
            *(f"address add {one} dev lo" for one in (f"{GATEWAY}/32", f"{HOST}/32", f"{HOST6}/128")),
            *(f"link set {wire.interface} address {HOST_MAC} addrgenmode none up" for wire in wires),
            *(f"address add {GATEWAY6}/64 dev {tap} nodad" for tap in MACS),
            *(f"route add {address} dev {tap.interface}" for tap in (A, B, C) for address in tap.addresses),
            *(
                f"neighbour add {address} lladdr {tap.mac} nud permanent dev {tap.interface}"
                for tap in (A, B, C)
                for address in tap.addresses
            ),
            "address add 192.0.2.1/24 dev up0",
            "address add fd92::1/64 dev up0 nodad",
            "neighbour add 192.0.2.2 lladdr 02:00:00:00:00:99 nud permanent dev up0",
            "neighbour add fd92::2 lladdr 02:00:00:00:00:99 nud permanent dev up0",
            "route add default via 192.0.2.2",
            "route add default via fd92::2",
        ]
        run("ip", "-batch", "-", text="\n".join(["link set lo up", *addressed]) + "\n")
        run("nft", "-f", "-", text=WITNESS)
        yield Net(*wires)
        for wire in wires:
            wire.close()


@pytest.fixture(autouse=True)
async def fresh(net: Net) -> None:
    """No flow of a guest is left from another test."""
    shut = tuple(replace(tap, groups=("nobody's",)) for tap in (A, B, C))
    await net.firewall.apply(plan.Sever(Shared(), shut))


WITNESS = """
table inet witness {
    chain behind { type filter hook prerouting priority -340; iifname "ct*" counter; }
}
table arp witness {
    chain behind { type filter hook input priority 10; iifname "ct*" counter; }
}
"""


def na(about: str, *, source: str = A6, own: str = A.mac) -> bytes:
    return packets.neighbour(136, source, GATEWAY6, about, own)


def ns(about: str, *, source: str = A6, own: str = A.mac) -> bytes:
    return packets.neighbour(135, source, "ff02::1:ff00:1", about, own)


def icmp6(kind: int, source: str, to: str, body: bytes = bytes(12)) -> bytes:
    return packets.ip(source, to, ICMPV6, bytes([kind, 0, 0, 0]) + body, hops=255)


NOT_LET_ON: dict[str, bytes] = {
    "IPv4 of another guest": packets.udp(B4, WORLD, 1, 2),
    "IPv4 of nobody": packets.udp("192.0.2.77", WORLD, 1, 2),
    "IPv4 of the gateway": packets.udp(GATEWAY, WORLD, 1, 2),
    "IPv4 of the host": packets.udp(HOST, WORLD, 1, 2),
    "loopback": packets.udp("127.0.0.1", WORLD, 1, 2),
    "no address, no DHCP": packets.udp("0.0.0.0", WORLD, 1, 2),
    "no address, to the DHCP port of somebody else": packets.udp("0.0.0.0", B4, 68, 67),
    "a DHCP server's offer": packets.udp(A4, "255.255.255.255", 67, 68),
    "a DHCP server's offer from no address": packets.udp("0.0.0.0", "255.255.255.255", 67, 68),
    "IPv6 of another guest": packets.udp(B6, WORLD6, 1, 2),
    "IPv6 of nobody": packets.udp("fd99::1", WORLD6, 1, 2),
    "IPv6 of the gateway": packets.udp(GATEWAY6, ALL_NODES, 1, 2),
    "no IPv6 address": packets.udp("::", ALL_NODES, 1, 2),
    "a link-local address beyond the link": packets.udp("fe80::99", WORLD6, 1, 2),
    "a router's advertisement": icmp6(134, A_LINK, ALL_NODES),
    "a router's advertisement from an address of one's own": icmp6(134, A6, ALL_NODES),
    "a redirect": icmp6(137, A_LINK, A_LINK, bytes(36)),
    "a DHCPv6 server's answer": packets.udp(A_LINK, A_LINK, 547, 546),
    "advertising another guest's address": na(B6),
    "advertising the gateway": na(GATEWAY6, source=A_LINK),
    "advertising the gateway as its own": na(GATEWAY6, source=GATEWAY6),
    "soliciting another guest's address": ns(B6),
    "detecting another guest's address as a duplicate": ns(B6, source="::"),
    "an echo from no address": packets.echo("::", ALL_NODES),
}


@pytest.mark.parametrize("packet", NOT_LET_ON.values(), ids=NOT_LET_ON.keys())
async def test_what_a_guest_may_not_send_gets_nowhere(net: Net, packet: bytes) -> None:
    await net.ask(Shared(), A, B)
    before = net.passed()
    net.a.send(packet)
    assert net.passed() == before
    assert not net.seen(net.outside)
    assert not net.seen(net.b)


LET_ON: dict[str, bytes] = {
    "its IPv4": packets.udp(A4, WORLD, 1, 2),
    "its IPv6": packets.udp(A6, WORLD6, 1, 2),
    "DHCP's first question": packets.udp("0.0.0.0", "255.255.255.255", 68, 67),
    "DHCP's renewal": packets.udp(A4, GATEWAY, 68, 67),
    "DHCPv6": packets.udp(A_LINK, "ff02::1:2", 546, 547),
    "DHCPv6 from a random address": packets.udp("fe80::1234", "ff02::1:2", 546, 547),
    "detecting its own address as a duplicate": ns(A6, source="::"),
    "detecting its own link-local address as a duplicate": ns(A_LINK, source="::"),
    "detecting a random link-local address as a duplicate": ns("fe80::1234", source="::"),
    "soliciting a router": icmp6(133, A_LINK, ALL_ROUTERS),
    "soliciting a router from no address": icmp6(133, "::", ALL_ROUTERS),
    "soliciting a router from a random address": icmp6(133, "fe80::1234", ALL_ROUTERS),
    "joining groups": icmp6(143, A_LINK, MLD_ROUTERS, bytes(24)),
    "joining groups from no address": icmp6(143, "::", MLD_ROUTERS, bytes(24)),
    "leaving a group": icmp6(132, A_LINK, ALL_ROUTERS, bytes(20)),
    "soliciting the gateway": ns(GATEWAY6),
    "soliciting the gateway from a link-local address": ns(GATEWAY6, source=A_LINK),
    "soliciting the gateway from a random address": ns(GATEWAY6, source="fe80::1234"),
    "advertising itself": na(A6),
    "advertising its random link-local address": na("fe80::1234", source="fe80::1234"),
    "pinging the gateway": packets.echo(A4, GATEWAY),
    "pinging the gateway's IPv6": packets.echo(A_LINK, GATEWAY6),
}


@pytest.mark.parametrize("packet", LET_ON.values(), ids=LET_ON.keys())
async def test_what_a_guest_needs_is_let_on(net: Net, packet: bytes) -> None:
    await net.ask(Shared(), A)
    before = net.passed()
    net.a.send(packet)
    assert net.passed() == before + 1
    net.a.send(packet, source=B.mac)
    assert net.passed() == before + 1, "it was let on from another guest's MAC"


ARP_NOT_LET_ON: dict[str, tuple[bytes, str]] = {
    "answering for the gateway": (packets.arp(2, A.mac, GATEWAY, A4), A.mac),
    "answering for another guest": (packets.arp(2, A.mac, B4, GATEWAY), A.mac),
    "asking as another guest": (packets.arp(1, A.mac, B4, GATEWAY), A.mac),
    "asking with another guest's MAC inside": (packets.arp(1, B.mac, A4, GATEWAY), A.mac),
    "asking from another guest's MAC": (packets.arp(1, A.mac, A4, GATEWAY), B.mac),
    "answering with another guest's MAC inside": (packets.arp(2, B.mac, A4, GATEWAY), A.mac),
    "asking for the host": (packets.arp(1, A.mac, A4, HOST), A.mac),
    "probing for the host": (packets.arp(1, A.mac, "0.0.0.0", HOST), A.mac),
    "a reverse question": (packets.arp(3, A.mac, A4, GATEWAY), A.mac),
}


@pytest.mark.parametrize(("message", "own"), ARP_NOT_LET_ON.values(), ids=ARP_NOT_LET_ON.keys())
async def test_arp_that_is_not_the_guests_own_gets_nowhere(net: Net, message: bytes, own: str) -> None:
    await net.ask(Shared(), A, B)
    before = net.passed()
    net.a.frame(ARP, message, source=own, to=BROADCAST)
    assert net.passed() == before


@pytest.mark.parametrize(
    "message",
    [packets.arp(1, A.mac, A4, GATEWAY), packets.arp(1, A.mac, "0.0.0.0", GATEWAY)],
    ids=["asking", "probing"],
)
async def test_the_gateway_answers_who_asks_for_it(net: Net, message: bytes) -> None:
    await net.ask(Shared(), A)
    net.a.frame(ARP, message, to=BROADCAST)
    answer = net.a.frames(lambda frame: frame[12:14] == ARP.to_bytes(2, "big"))[-1][14:]
    assert answer[6:8] == b"\0\2"
    assert (answer[8:14], answer[14:18]) == (packets.mac(HOST_MAC), packets.packed(GATEWAY))


async def test_random_link_local_addresses_do_not_fill_the_neighbour_table(net: Net) -> None:
    await net.ask(Shared(), C)
    before = net.passed()
    for number in range(100, 200):
        net.c.send(packets.neighbour(135, f"fe80::{number}", ALL_NODES, GATEWAY6, C.mac))
    assert 1 <= net.passed() - before <= 30


async def test_a_tap_that_nobody_knows_is_cut_off(net: Net) -> None:
    await net.ask(Shared(), A)
    before = net.passed()
    net.c.send(packets.udp(C4, WORLD, 1, 2))
    net.c.frame(ARP, packets.arp(1, C.mac, C4, GATEWAY), to=BROADCAST)
    assert net.passed() == before
    assert net.crossed(net.a, packets.udp(A4, C4, 1, 2), net.c) is None
    assert net.crossed(net.outside, packets.udp(WORLD, C4, 1, 2), net.c) is None


async def test_who_is_in_no_group_and_network_reaches_everybody_and_is_reached(net: Net) -> None:
    await net.ask(Shared(), A, B)
    for sender, source, target, receiver in (
        (net.a, A4, B4, net.b),
        (net.a, A6, B6, net.b),
        (net.outside, WORLD, A4, net.a),
        (net.outside, WORLD6, A6, net.a),
        (net.a, A4, WORLD, net.outside),
        (net.a, A6, WORLD6, net.outside),
    ):
        assert net.crossed(sender, packets.echo(source, target), receiver)
        assert net.crossed(sender, packets.tcp(source, target, 999, 80, SYN), receiver)


async def test_the_host_is_closed_to_its_guests_and_they_are_open_to_it(net: Net) -> None:
    await net.ask(Shared(), A)
    with socket.create_server((GATEWAY, 2222)), socket.create_server((HOST, 2222)):
        for address in (GATEWAY, HOST):
            net.a.send(packets.tcp(A4, address, 1000, 2222, SYN))
            assert not net.seen(net.a)
    net.a.send(packets.echo(A4, HOST))
    assert not net.seen(net.a)
    for source, address in ((A4, GATEWAY), (A6, GATEWAY6)):
        net.a.send(packets.echo(source, address))
        assert [packet.source for packet in net.seen(net.a)] == [address]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.settimeout(5)
        host.sendto(b"question", (A4, 53))
        (asked,) = net.seen(net.a)
        net.a.send(packets.udp(A4, asked.source, 53, asked.sport, b"answer"))
        assert host.recv(100) == b"answer"


async def test_a_service_of_the_host_is_opened_to_guests(net: Net) -> None:
    await net.ask(Shared(services=(Service(TCP, 2223),)), A)
    with socket.create_server((GATEWAY, 2223)), socket.create_server((HOST, 2223)):
        net.a.send(packets.tcp(A4, GATEWAY, 1001, 2223, SYN))
        (answer,) = net.seen(net.a)
        assert (answer.source, answer.flags) == (GATEWAY, SYN | ACK)
        net.a.send(packets.tcp(A4, HOST, 1001, 2223, SYN))
        assert not net.seen(net.a)


async def test_no_guest_reaches_what_is_off_limits(net: Net) -> None:
    await net.ask(Shared(off_limits=("198.51.100.0/24", "fd98::/64")), A)
    assert net.crossed(net.a, packets.echo(A4, WORLD), net.outside) is None
    assert net.crossed(net.a, packets.echo(A6, WORLD6), net.outside) is None
    assert net.crossed(net.a, packets.echo(A4, "203.0.113.1"), net.outside)


ONE, OTHER = (
    Network("one", (A4, A6, B4, B6, "10.77.1.5", "fd77::105")),
    Network("other", (C4, C6, "10.77.1.7", "fd77::107")),
)
APART = Shared(networks=(ONE, OTHER), prefixes=CLOUD)
PEERED = Shared(networks=(replace(ONE, peers=("other",)), replace(OTHER, peers=("one",))), prefixes=CLOUD)
IN_ONE = (replace(A, network="one"), replace(B, network="one"))
IN_OTHER = replace(C, network="other")


@pytest.mark.parametrize(
    ("a", "b", "c", "near", "far"),
    [(A4, B4, C4, "10.77.1.5", "10.77.1.7"), (A6, B6, C6, "fd77::105", "fd77::107")],
    ids=["IPv4", "IPv6"],
)
async def test_networks_are_isolated_unless_they_are_peered(
    net: Net, a: str, b: str, c: str, near: str, far: str
) -> None:
    def across() -> list[bool]:
        return [
            net.crossed(net.a, packets.udp(a, c, 7, 8), net.c) is not None,
            net.crossed(net.c, packets.udp(c, a, 8, 7), net.a) is not None,
            net.crossed(net.a, packets.udp(a, far, 7, 8), net.outside) is not None,
            net.crossed(net.outside, packets.udp(far, a, 8, 7), net.a) is not None,
        ]

    await net.ask(APART, *IN_ONE, IN_OTHER)
    assert across() == [False] * 4
    assert net.crossed(net.a, packets.udp(a, b, 7, 8), net.b)
    assert net.crossed(net.a, packets.udp(a, near, 7, 8), net.outside)
    assert net.crossed(net.outside, packets.udp(near, a, 8, 7), net.a)
    assert net.crossed(net.outside, packets.udp(WORLD if "." in a else WORLD6, a, 8, 7), net.a)
    await net.ask(PEERED, *IN_ONE, IN_OTHER)
    assert across() == [True] * 4
    # What was going on when the peering ended is tracked as established, and ends all the same.
    await net.ask(APART, *IN_ONE, IN_OTHER)
    assert across() == [False] * 4
    assert net.crossed(net.a, packets.udp(a, "10.77.9.9" if "." in a else "fd77::999", 7, 8), net.outside) is None


WEB = Rule(remote="198.51.100.0/24", protocol=TCP, ports=(80, 81))
PINGS = Rule(protocol=ICMP, kind=8)
FRIENDS = Rule(group="friends", protocol=TCP, ports=(5432, 5432))


def groups(*ingress: Rule, egress: tuple[Rule, ...] | None = None, friends: tuple[str, ...] = (B4, B6)) -> Shared:
    return Shared(groups=(Group("web", (A4, A6), ingress, egress), Group("friends", friends)))


IN_WEB = replace(A, groups=("web",))


async def test_a_group_lets_in_what_its_rules_say_and_nothing_else(net: Net) -> None:
    await net.ask(groups(WEB, PINGS, FRIENDS, Rule(protocol=ICMPV6, kind=128)), IN_WEB, B, C)
    let_in = {
        packets.tcp(WORLD, A4, 999, 80, SYN): True,
        packets.tcp(WORLD, A4, 999, 81, SYN): True,
        packets.tcp(WORLD, A4, 999, 82, SYN): False,
        packets.udp(WORLD, A4, 999, 80): False,
        packets.tcp("203.0.113.9", A4, 999, 80, SYN): False,
        packets.tcp(WORLD, A4, 80, 999, SYN): False,
        packets.echo(WORLD, A4, number=21): True,
        packets.echo(WORLD, A4, number=22, reply=True): False,
        packets.echo(WORLD6, A6, number=23): True,
        packets.tcp(WORLD6, A6, 999, 80, SYN): False,
    }
    for packet, expected in let_in.items():
        assert (net.crossed(net.outside, packet, net.a) is not None) == expected, packet
    assert net.crossed(net.b, packets.tcp(B4, A4, 999, 5432, SYN), net.a)
    assert net.crossed(net.b, packets.tcp(B6, A6, 999, 5432, SYN), net.a)
    assert net.crossed(net.c, packets.tcp(C4, A4, 999, 5432, SYN), net.a) is None
    assert net.crossed(net.b, packets.tcp(B4, A4, 999, 5433, SYN), net.a) is None


async def test_what_goes_out_of_a_group_is_answered_and_is_all_let_out_unless_there_are_rules(net: Net) -> None:
    await net.ask(groups(), IN_WEB)
    assert net.crossed(net.a, packets.udp(A4, WORLD, 5353, 53), net.outside)
    assert net.crossed(net.outside, packets.udp(WORLD, A4, 53, 5353), net.a)
    assert net.crossed(net.outside, packets.udp(WORLD, A4, 53, 5354), net.a) is None
    await net.ask(groups(egress=(WEB, FRIENDS)), IN_WEB, B)
    assert net.crossed(net.a, packets.tcp(A4, WORLD, 1000, 80, SYN), net.outside)
    assert net.crossed(net.a, packets.tcp(A4, WORLD, 1000, 443, SYN), net.outside) is None
    assert net.crossed(net.a, packets.udp(A4, WORLD, 5353, 53), net.outside) is None
    assert net.crossed(net.a, packets.tcp(A4, B4, 1000, 5432, SYN), net.b)


async def test_members_of_a_group_that_lets_in_each_other_come_and_go(net: Net) -> None:
    await net.ask(groups(FRIENDS, friends=()), IN_WEB, B)
    assert net.crossed(net.b, packets.tcp(B4, A4, 1100, 5432, SYN), net.a) is None
    await net.ask(groups(FRIENDS), IN_WEB, B)
    assert net.crossed(net.b, packets.tcp(B4, A4, 1101, 5432, SYN), net.a)
    await net.ask(groups(FRIENDS, friends=()), IN_WEB, B)
    assert net.crossed(net.b, packets.tcp(B4, A4, 1102, 5432, SYN), net.a) is None


@pytest.mark.parametrize("egress", [None, (Rule(protocol=TCP, ports=(2000, 2000)),)], ids=["all out", "some out"])
async def test_a_rule_that_is_removed_ends_the_flows_that_it_let_in_and_no_others(
    net: Net, egress: tuple[Rule, ...] | None
) -> None:
    def shake_hands(dport: int) -> None:
        assert net.crossed(net.outside, packets.tcp(WORLD, A4, 2000, dport, SYN), net.a)
        assert net.crossed(net.a, packets.tcp(A4, WORLD, dport, 2000, SYN | ACK), net.outside)
        assert net.crossed(net.outside, packets.tcp(WORLD, A4, 2000, dport, ACK, at=2), net.a)

    def goes_on(dport: int) -> tuple[bool, bool]:
        """Both ways; the guest speaks first, as a server that has more to say."""
        said = net.crossed(net.a, packets.tcp(A4, WORLD, dport, 2000, ACK | PSH, b"more", at=2), net.outside)
        heard = net.crossed(net.outside, packets.tcp(WORLD, A4, 2000, dport, ACK | PSH, b"more", at=2), net.a)
        return said is not None, heard is not None

    rules = [Rule(protocol=TCP, ports=(number, number)) for number in (80, 81)]
    await net.ask(groups(*rules, egress=egress), IN_WEB)
    for dport in (80, 81):
        shake_hands(dport)
        assert goes_on(dport) == (True, True)
    await net.ask(groups(rules[0], egress=egress), IN_WEB)
    assert goes_on(81) == (False, False)
    assert goes_on(80) == (True, True)
    assert goes_on(81) == (False, False)


async def test_a_guest_inherits_no_flow_of_who_had_its_address(net: Net) -> None:
    await net.ask(Shared(), A)
    assert net.crossed(net.outside, packets.tcp(WORLD, A4, 2100, 82, SYN), net.a)
    assert net.crossed(net.a, packets.tcp(A4, WORLD, 82, 2100, SYN | ACK), net.outside)
    await net.ask(Shared())
    for step in plan.plan_guest(groups(WEB), [IN_WEB], await net.firewall.observe(IN_WEB.owner)).steps:
        await net.firewall.apply(step)
    assert net.crossed(net.a, packets.tcp(A4, WORLD, 82, 2100, ACK | PSH, b"more", at=2), net.outside) is None
    await net.ask(groups(WEB), IN_WEB)
    assert net.crossed(net.outside, packets.tcp(WORLD, A4, 2100, 82, ACK, at=2), net.a) is None


async def test_a_guests_tracked_connections_are_capped_and_its_neighbours_are_not(net: Net) -> None:
    await net.ask(Shared(), A, B)
    got = [
        net.crossed(net.a, packets.udp(A4, WORLD, 3000 + number, 3000), net.outside) is not None
        for number in range(SETTINGS.connections + 10)
    ]
    assert got == [True] * SETTINGS.connections + [False] * 10
    assert net.crossed(net.b, packets.udp(B4, WORLD, 3000, 3000), net.outside)


async def test_what_is_not_let_in_takes_nothing_of_a_guests_connections(net: Net) -> None:
    await net.ask(groups(WEB), IN_WEB)
    for number in range(SETTINGS.connections + 10):
        net.outside.send(packets.tcp(WORLD, A4, 4000 + number, 22, SYN))
        net.a.send(packets.tcp(A4, HOST, 4000 + number, 22, SYN))
    assert not net.seen(net.a)
    assert net.crossed(net.outside, packets.tcp(WORLD, A4, 4000, 80, SYN), net.a)


NATTED = replace(A, nat=(HOST, HOST6))


@pytest.mark.parametrize(
    ("a", "b", "world", "host"), [(A4, B4, WORLD, HOST), (A6, B6, WORLD6, HOST6)], ids=["IPv4", "IPv6"]
)
async def test_a_guest_goes_out_by_an_address_of_its_host(net: Net, a: str, b: str, world: str, host: str) -> None:
    await net.ask(Shared(prefixes=CLOUD), NATTED, B)
    out = net.crossed(net.a, packets.udp(a, world, 4000, 53), net.outside)
    assert out is not None
    assert (out.source, out.target, out.dport) == (host, world, 53)
    back = net.crossed(net.outside, packets.udp(world, host, 53, out.sport), net.a)
    assert back is not None
    assert (back.source, back.target, back.dport) == (world, a, 4000)
    inside = net.crossed(net.a, packets.udp(a, b, 4001, 53), net.b)
    assert inside is not None
    assert inside.source == a
    far = net.crossed(net.a, packets.udp(a, "10.77.1.9" if "." in a else "fd77::109", 4002, 53), net.outside)
    assert far is not None
    assert far.source == a
    # NAT that is taken away ends what went by it.
    await net.ask(Shared(prefixes=CLOUD), A, B)
    assert net.crossed(net.outside, packets.udp(world, host, 53, out.sport), net.a) is None


async def test_a_prefix_that_is_routed_outside_gets_no_nat(net: Net) -> None:
    await net.ask(Shared(prefixes=CLOUD, direct=("10.77.0.4/30",)), NATTED)
    out = net.crossed(net.a, packets.udp(A4, WORLD, 4003, 53), net.outside)
    assert out is not None
    assert out.source == A4


PUBLIC, PUBLIC6 = "203.0.113.5", "fd93::5"
FLOATING = Shared(prefixes=CLOUD, floating=(Floating(PUBLIC, A4), Floating(PUBLIC6, A6)))


@pytest.mark.parametrize(("a", "world", "public"), [(A4, WORLD, PUBLIC), (A6, WORLD6, PUBLIC6)], ids=["IPv4", "IPv6"])
async def test_a_public_address_stands_for_a_guests_both_ways(net: Net, a: str, world: str, public: str) -> None:
    await net.ask(FLOATING, replace(NATTED, network="one"), B)
    heard = net.crossed(net.outside, packets.tcp(world, public, 5000, 80, SYN), net.a)
    assert heard is not None
    assert (heard.source, heard.target) == (world, a)
    said = net.crossed(net.a, packets.tcp(a, world, 80, 5000, SYN | ACK), net.outside)
    assert said is not None
    assert (said.source, said.target) == (public, world)
    # It keeps its own address within the cloud.
    inside = net.crossed(net.a, packets.udp(a, B4 if "." in a else B6, 5001, 53), net.b)
    assert inside is None, "it is in a network, the other one in none"
    asked = net.crossed(net.a, packets.udp(a, world, 5002, 53), net.outside)
    assert asked is not None
    assert asked.source == public


async def test_flows_by_a_public_address_live_through_the_rules_being_laid_anew(net: Net) -> None:
    """Nothing of the translation is remembered, so there is nothing to lose, as when the guest moves."""
    await net.ask(FLOATING, A)
    assert net.crossed(net.outside, packets.tcp(WORLD, PUBLIC, 5100, 80, SYN), net.a)
    run("nft", "delete", "table", "inet", SETTINGS.table)
    await net.ask(FLOATING, A)
    said = net.crossed(net.a, packets.tcp(A4, WORLD, 80, 5100, SYN | ACK), net.outside)
    assert said is not None
    assert said.source == PUBLIC
    assert net.crossed(net.outside, packets.tcp(WORLD, PUBLIC, 5100, 80, ACK, at=2), net.a)


async def test_what_is_no_guests_is_not_touched(net: Net) -> None:
    await net.ask(APART, *IN_ONE)
    run("ip", "route", "replace", "203.0.113.0/24", "via", "192.0.2.2")
    through = net.crossed(net.outside, packets.udp(B4, "203.0.113.77", 1, 2), net.outside)
    assert through is not None, "transit of the fabric"
    assert "witness" in run("nft", "list", "tables")


def test_frames_are_of_the_kinds_they_say() -> None:
    assert packets.read(bytes(12) + IPV4.to_bytes(2, "big") + packets.udp(A4, B4, 1, 2)) == Packet(
        A4, B4, 17, 1, 2, body=packets.udp(A4, B4, 1, 2)[20:]
    )
