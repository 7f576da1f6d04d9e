"""What the clients of distributions make of the answers: busybox, ISC's dhclient, dhcpcd, systemd-networkd, the kernel.

Each runs in a machine of its own (network, mounts, host name) behind a veth that stands for its tap.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from corral_drivers.dhcp import plan, port, responder
from corral_drivers.dhcp.model import Answer, Service
from corral_lab.guest import build

from .dhcp_guest import GATEWAYS, MAC, Guest, ip, needs
from .network import private_network

pytestmark = pytest.mark.lab

OUT = Answer(
    interface="tap0",
    mac=MAC,
    mtu=1420,
    addresses=("10.77.0.5", "fd77::5", "fd77::6"),
    leads_out=True,
    hostname="web-0",
    dns_servers=("10.0.0.53", "fd00::53", "10.0.0.54"),
    search_domains=("a.example.org", "example.org"),
)
IN = Answer("tap0", MAC, 1420, ("10.77.0.5", "fd77::5"), leads_out=False, hostname="web-0")
SOON = 10.0


class Site:
    """A host that answers, and one guest behind its tap."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        ip("link", "set", "lo", "up")
        ip("address", "add", "169.254.1.1/32", "dev", "lo", "scope", "link")
        self.guest = Guest("tap0", folder / "guest", MAC)
        self.host = responder.Responder(port.Settings(str(folder / "dhcp"), *GATEWAYS))

    async def says(self, answer: Answer) -> None:
        await self.host.apply(plan.Serve(Service("owner-1", (answer,))))

    async def close(self) -> None:
        await self.host.close()
        self.guest.close()

    def file(self, name: str, text: str = "") -> str:
        """A file for the guest's programs."""
        path = self.guest.files / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    async def until(self, look: Callable[[], Any], what: str) -> Any:
        """What it finds, once it finds something."""
        deadline = time.monotonic() + SOON
        while not (found := look()):
            assert time.monotonic() < deadline, f"{what}: not within {SOON} s"
            await asyncio.sleep(0.05)
        return found

    def up(self) -> None:
        """The interface is up, and has its own address at once and not after a second's doubt."""
        self.guest.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
        self.guest.run("ip", "link", "set", "eth0", "up")

    def addresses(self) -> dict[str, int]:
        """The guest's addresses and their length, without link-local ones."""
        (shown,) = json.loads(self.guest.run("ip", "-json", "address", "show", "dev", "eth0"))
        return {one["local"]: one["prefixlen"] for one in shown["addr_info"] if one["scope"] == "global"}

    def routes(self, family: str) -> dict[str, dict[str, Any]]:
        return {one["dst"]: one for one in json.loads(self.guest.run("ip", "-json", family, "route", "show"))}

    def ways(self, family: str) -> list[dict[str, Any]]:
        """The guest's default routes."""
        found: list[dict[str, Any]] = json.loads(self.guest.run("ip", "-json", family, "route", "show", "default"))
        return found

    async def pings(self, address: str) -> bool:
        said = await self.guest.client("ping", "-c", "1", "-W", "2", address)
        return " 0% packet loss" in said


@pytest.fixture
async def site(tmp_path: pathlib.Path) -> AsyncIterator[Site]:
    with private_network():
        made = Site(tmp_path)
        try:
            yield made
        finally:
            await made.close()


UDHCPC = ("busybox", "udhcpc", "-i", "eth0", "-f", "-t", "3", "-T", "1", "-s")
RECORD = """#!/bin/sh
env > "$0.new" && mv "$0.new" "$0.$1"
"""


def recorded(site: Site, event: str = "bound") -> dict[str, str]:
    lines = (site.guest.files / f"record.{event}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


async def udhcpc(site: Site, *more: str) -> str:
    site.up()
    script = site.file("record", RECORD)
    asked = [word for option in ("121", "119", "mtu") for word in ("-O", option)]
    return await site.guest.client(*UDHCPC, script, "-n", "-q", *asked, *more)


async def test_udhcpc_is_told_every_option(site: Site) -> None:
    await site.says(OUT)
    await udhcpc(site)
    told = recorded(site)
    assert {
        name: told.get(name) for name in ("ip", "subnet", "router", "staticroutes", "mtu", "lease", "serverid")
    } == {
        "ip": "10.77.0.5",
        "subnet": "255.255.255.255",
        "router": "169.254.1.1",
        "staticroutes": "169.254.1.1/32 0.0.0.0 0.0.0.0/0 169.254.1.1",
        "mtu": "1420",
        "lease": "4294967295",
        "serverid": "169.254.1.1",
    }
    assert {name: told.get(name) for name in ("dns", "search", "domain", "hostname")} == {
        "dns": "10.0.0.53 10.0.0.54",
        "search": "a.example.org example.org",
        "domain": "a.example.org",
        "hostname": "web-0",
    }


async def test_udhcpc_on_an_interface_that_does_not_lead_out_has_no_way_out(site: Site) -> None:
    await site.says(IN)
    await udhcpc(site)
    told = recorded(site)
    assert told["ip"] == "10.77.0.5"
    assert not told.keys() & {"router", "staticroutes", "dns", "search", "domain"}


async def test_udhcpc_is_answered_by_a_host_that_was_just_restarted(site: Site) -> None:
    await site.says(OUT)
    await site.host.close()
    asking = asyncio.create_task(udhcpc(site, "-t", "20"))
    await asyncio.sleep(1.5)
    site.host = responder.Responder(port.Settings(str(site.folder / "dhcp"), *GATEWAYS))
    await site.host.prepare()
    begun = time.monotonic()
    await asking
    assert recorded(site)["ip"] == "10.77.0.5"
    assert time.monotonic() - begun < 3.0


async def test_udhcpc_renews_what_it_has_and_hears_what_changed(site: Site) -> None:
    await site.says(OUT)
    site.up()
    client = await site.guest.start(*UDHCPC, site.file("record", RECORD), "-O", "mtu")
    try:
        await site.until((site.guest.files / "record.bound").exists, "a lease")
        site.guest.run("ip", "address", "add", "10.77.0.5/32", "dev", "eth0")
        site.guest.run("ip", "route", "add", "169.254.1.1/32", "dev", "eth0")
        await site.says(dataclasses.replace(OUT, mtu=1300))
        # It asks by the address that it has, its server alone.
        client.send_signal(signal.SIGUSR1)
        await site.until((site.guest.files / "record.renew").exists, "a renewed lease")
        assert recorded(site, "renew")["mtu"] == "1300"
    finally:
        site.guest.end()
        await client.communicate()


DHCLIENT = ("dhclient", "-1", "-v")


async def dhclient(site: Site, family: str, script: str = "/bin/true") -> str:
    """Until it has a lease; what it wrote of it."""
    needs("dhclient")
    site.up()
    leases, pid = site.guest.files / "leases", site.guest.files / "pid"
    leases.touch()
    files = ("-lf", str(leases), "-pf", str(pid), "-sf", script)
    if family == "-6":
        own = ("ip", "address", "show", "dev", "eth0", "scope", "link")
        await site.until(lambda: "fe80::" in site.guest.run(*own), "an address to ask from")
    # It goes to the background when it has one, and stays there as long as its network.
    await site.guest.client("sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *DHCLIENT, family, *files, "eth0")
    return leases.read_text()


SMALL_GUEST = """
mount -t sysfs none /sys && mount -t tmpfs none /mnt && mkdir /mnt/bin /mnt/etc
for applet in sh ip udhcpc hostname; do ln -s "$0" /mnt/bin/$applet; done
cp -a /etc/. /mnt/etc/ && mkdir /mnt/etc/corral && cp "$1"/ask "$1"/told /mnt/etc/corral && chmod +x /mnt/etc/corral/*
mount --bind /mnt/etc /etc && PATH=/mnt/bin exec /etc/corral/ask
"""


async def test_the_small_guest_comes_up_without_its_seed(site: Site) -> None:
    await site.says(OUT)
    scripts = pathlib.Path(build.__file__).parent / "files"
    said = await site.guest.client("sh", "-c", SMALL_GUEST, needs("busybox"), str(scripts))
    assert "lease of 10.77.0.5 obtained" in said
    assert site.addresses()["10.77.0.5"] == 32
    assert site.routes("-4")["default"]["gateway"] == "169.254.1.1"
    assert site.guest.run("hostname").strip() == "web-0"
    (link,) = json.loads(site.guest.run("ip", "-json", "link", "show", "dev", "eth0"))
    assert link["mtu"] == 1420
    assert await site.pings("169.254.1.1")


async def test_dhclient_is_told_every_option(site: Site) -> None:
    await site.says(OUT)
    lease = await dhclient(site, "-4")
    for line in (
        "fixed-address 10.77.0.5;",
        "option subnet-mask 255.255.255.255;",
        "option routers 169.254.1.1;",
        "option rfc3442-classless-static-routes 32,169,254,1,1,0,0,0,0,0,169,254,1,1;",
        "option interface-mtu 1420;",
        "option dhcp-lease-time 4294967295;",
        "option dhcp-server-identifier 169.254.1.1;",
        "option domain-name-servers 10.0.0.53,10.0.0.54;",
        'option domain-search "a.example.org.", "example.org.";',
        'option domain-name "a.example.org";',
        'option host-name "web-0";',
    ):
        assert line in lease


async def test_dhclient_that_comes_with_the_address_of_another_network_is_told_so_and_gets_its_own(site: Site) -> None:
    await site.says(OUT)
    old = 'lease {\n  interface "eth0";\n  fixed-address 192.0.2.9;\n  option dhcp-server-identifier 192.0.2.1;\n'
    site.file("leases", old + "  renew 5 2100/01/01 00:00:00;\n  expire 5 2100/01/01 00:00:00;\n}\n")
    lease = await dhclient(site, "-4")
    assert "fixed-address 10.77.0.5;" in lease.split("lease {")[-1]


async def test_debian_with_dhclients_own_scripts_gets_out(site: Site) -> None:
    await site.says(OUT)
    etc = site.guest.files / "etc"
    etc.mkdir()
    # What its script writes to /etc is the guest's own.
    site.guest.run("mount", "-t", "tmpfs", "none", str(etc))
    site.guest.run("sh", "-c", f"cp -a /etc/. {etc}/ && mount --bind {etc} /etc && rm -f /etc/resolv.conf")
    await dhclient(site, "-4", "/sbin/dhclient-script")
    assert site.addresses()["10.77.0.5"] == 32
    assert site.routes("-4")["default"]["gateway"] == "169.254.1.1"
    (link,) = json.loads(site.guest.run("ip", "-json", "link", "show", "dev", "eth0"))
    assert link["mtu"] == 1420
    resolver = site.guest.run("cat", "/etc/resolv.conf")
    assert "nameserver 10.0.0.53" in resolver
    assert "search a.example.org. example.org." in resolver
    assert await site.pings("169.254.1.1")


async def test_dhclient_gets_every_ipv6_address_without_end(site: Site) -> None:
    await site.says(OUT)
    lease = await dhclient(site, "-6")
    for line in (
        "iaaddr fd77::5 {",
        "iaaddr fd77::6 {",
        "preferred-life 4294967295;",
        "max-life 4294967295;",
        "option dhcp6.name-servers fd00::53;",
        'option dhcp6.domain-search "a.example.org.", "example.org.";',
        "option dhcp6.server-id 0:3:0:1:ee:ee:ee:ee:ee:ee;",
    ):
        assert line in lease


async def test_the_kernel_takes_the_way_out_for_ever_and_the_mtu_and_makes_up_no_address(site: Site) -> None:
    await site.says(OUT)
    site.up()
    await site.until(lambda: site.routes("-6").get("default"), "a way out")
    default = site.routes("-6")["default"]
    assert (default["gateway"], default["protocol"]) == ("fe80::1", "ra")
    assert "expires" not in site.guest.run("ip", "-6", "route", "show", "default")
    assert site.guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu").strip() == "1420"
    assert site.addresses() == {}
    assert await site.pings("fe80::1%eth0")


async def test_the_kernel_of_an_interface_that_does_not_lead_out_has_no_way_out(site: Site) -> None:
    await site.says(IN)
    site.up()
    await site.until(
        lambda: site.guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu").strip() == "1420", "an advertisement"
    )
    assert "default" not in site.routes("-6")


DHCPCD = """
mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd && mkdir /run/dhcpcd
exec "$0" --nobackground --noarp --script /bin/true eth0
"""


async def test_dhcpcd_sets_both(site: Site) -> None:
    await site.says(OUT)
    site.up()
    client = await site.guest.start("sh", "-c", DHCPCD, needs("dhcpcd"))
    try:
        await site.until(lambda: len(site.addresses()) == 3, "three addresses")
        assert site.addresses() == {"10.77.0.5": 32, "fd77::5": 128, "fd77::6": 128}
        assert site.routes("-4")["default"]["gateway"] == "169.254.1.1"
        assert site.routes("-6")["default"]["gateway"] == "fe80::1"
    finally:
        site.guest.end()
        await client.communicate()


NETWORKD = """
mount -t tmpfs none /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network
chown -R systemd-network:systemd-network /run/systemd/netif
printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=yes\\n' > /run/systemd/network/eth0.network
# A machine without udev, as it takes a container to be: it waits for nobody to name the interface.
mount --bind /sys /sys && mount -o remount,bind,ro /sys
exec "$0"
"""


SEEDED = """
[Match]
Name=eth0
[Link]
MTUBytes=1420
[Network]
Address=10.77.0.5/32
Address=fd77::5/128
LinkLocalAddressing=ipv6
[Route]
Destination=0.0.0.0/0
Gateway=169.254.1.1
GatewayOnLink=yes
[Route]
Destination=::/0
Gateway=fe80::1
GatewayOnLink=yes
"""
"""What netplan makes of a seed."""


async def test_a_guest_that_heeds_its_seed_is_not_disturbed_by_the_answers(site: Site) -> None:
    await site.says(dataclasses.replace(OUT, addresses=("10.77.0.5", "fd77::5")))
    (site.guest.files / "eth0.network").write_text(SEEDED)
    script = NETWORKD.replace("exec", f"cp {site.guest.files}/eth0.network /run/systemd/network/\nexec")
    networkd = await site.guest.start("sh", "-c", script, needs("systemd-networkd"))
    try:
        # It heeds the advertisement too, and by DHCPv6 gets what it has.
        note = ("sh", "-c", "cat /run/systemd/netif/links/*; true")
        await site.until(lambda: "fd00::53" in site.guest.run(*note), "what networkd noted")
        await asyncio.sleep(1.0)
        assert site.addresses() == {"10.77.0.5": 32, "fd77::5": 128}
        assert {one["gateway"] for one in (*site.ways("-4"), *site.ways("-6"))} == {"169.254.1.1", "fe80::1"}
        assert await site.pings("169.254.1.1")
    finally:
        site.guest.end()
        await networkd.communicate()


async def test_networkd_comes_up_as_a_stock_image_does(site: Site) -> None:
    await site.says(OUT)
    networkd = await site.guest.start("sh", "-c", NETWORKD, needs("systemd-networkd"))
    try:
        await site.until(lambda: len(site.addresses()) == 3 and "default" in site.routes("-6"), "three addresses")
        assert site.addresses() == {"10.77.0.5": 32, "fd77::5": 128, "fd77::6": 128}
        assert site.routes("-4")["default"]["gateway"] == "169.254.1.1"
        assert site.routes("-6")["default"]["gateway"] == "fe80::1"
        note = ("sh", "-c", "cat /run/systemd/netif/leases/* /run/systemd/netif/links/*; true")
        await site.until(lambda: "fd00::53" in site.guest.run(*note), "what networkd noted")
        told = dict(
            re.findall(r"^(\w+)=(.*)$", site.guest.run("sh", "-c", "cat /run/systemd/netif/leases/*"), re.MULTILINE)
        )
        assert (told["LIFETIME"], told["MTU"], told["HOSTNAME"]) == ("4294967295", "1420", "web-0")
        assert told["DNS"] == "10.0.0.53 10.0.0.54"
        assert told["DOMAIN_SEARCH_LIST"] == "a.example.org example.org"
        assert await site.pings("169.254.1.1")
    finally:
        site.guest.end()
        await networkd.communicate()
