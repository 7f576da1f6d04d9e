from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.agent import desired
from corral.api import objects
from corral_drivers.dhcp import model as dhcp
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.image import model as image
from corral_drivers.link import model as link
from corral_drivers.routing import model as routing
from corral_drivers.seed import model as seed
from corral_drivers.storage import model as storage

from .simulated_host import OWNER, spec, wire

HELD = {
    ("a" * 64, image.Format.QCOW2): image.Held("a" * 64, image.Format.QCOW2, "/i/a.qcow2", 10, 2**30),
    ("b" * 64, image.Format.BLOB): image.Held("b" * 64, image.Format.BLOB, "/i/b.blob", 10, 10),
    ("c" * 64, image.Format.BLOB): image.Held("c" * 64, image.Format.BLOB, "/i/c.blob", 10, 10),
}
HOST = desired.Host("c10d", "4057", "/state/console", "/state/uefi")
FILES = desired.Files({"root": "/d/root.qcow2", "data": "/d/data.qcow2"}, "qcow2", "/s/seed.iso")
TAPS = (desired.tap_name(OWNER, "eth0"), desired.tap_name(OWNER, "eth1"))


def test_the_images_are_those_of_disks_and_of_the_direct_boot_without_doubles() -> None:
    assert [(one.sha256[0], one.format) for one in desired.images(spec())] == [
        ("a", image.Format.QCOW2),
        ("b", image.Format.BLOB),
        ("c", image.Format.BLOB),
    ]
    disks = wire()["disks"]
    again = spec(disks=[disks[0], {**disks[0], "name": "more", "slot": 5}], boot=None)
    assert len(desired.images(again)) == 1


def test_a_disk_without_a_size_is_as_large_as_its_image_and_waits_for_it() -> None:
    root = storage.Disk(OWNER, "root", 2**30, base="/i/a.qcow2", base_format="qcow2")
    data = storage.Disk(OWNER, "data", 2**20)
    assert desired.disks(spec(), HELD) == (root, data)
    assert desired.disks(spec(), {}) == (data,)


def test_the_domain() -> None:
    assert desired.domain(spec(), HOST, FILES, HELD, "tcg") == hypervisor.Domain(
        uuid=OWNER,
        name="shop.web.0b0e4c3a",
        mark=hypervisor.Mark("c10d", "4057", "shop", "web", OWNER, 1),
        cpus=2,
        memory=64 * 2**20,
        machine="pc",
        accelerator="tcg",
        console_log=f"/state/console/{OWNER}.log",
        disks=(
            hypervisor.Disk("vda", "/d/root.qcow2", "qcow2", 3, "root"),
            hypervisor.Disk("vdb", "/d/data.qcow2", "qcow2", 4, "data"),
            hypervisor.Disk("vdc", "/s/seed.iso", "raw", 12, "corral-seed", read_only=True),
        ),
        interfaces=(
            hypervisor.Interface(TAPS[0], "02:00:00:00:00:01", 1500, 16),
            hypervisor.Interface(TAPS[1], "02:00:00:00:00:02", 1400, 17),
        ),
        boot=hypervisor.DirectBoot("/i/b.blob", "/i/c.blob", "console=ttyS0"),
    )


def test_there_is_no_domain_before_its_kernel_is_held() -> None:
    assert desired.domain(spec(), HOST, FILES, {}, "tcg") is None
    assert desired.domain(spec(boot=None), HOST, FILES, {}, "tcg") is not None


def test_the_first_interface_leads_out_and_every_address_stands_alone() -> None:
    assert desired.seed_of(spec(), "#cloud-config\n") == seed.Seed(
        owner=OWNER,
        instance_id="web-1",
        hostname="web",
        nics=(
            seed.Nic("eth0", "02:00:00:00:00:01", 1500, ("10.77.0.5/32",), (seed.Route("default", "169.254.1.1"),)),
            seed.Nic("eth1", "02:00:00:00:00:02", 1400, ("10.78.0.5/32", "fd00::5/128"), ()),
        ),
        user_data="#cloud-config\n",
    )


def test_an_interface_that_leads_out_has_a_way_of_each_family_that_it_has_an_address_of() -> None:
    (nic, *_) = wire()["interfaces"]
    both = spec(interfaces=[{**nic, "addresses": ["10.77.0.5", "FD00:0::5"]}])
    (told,) = desired.seed_of(both, "").nics
    assert told.addresses == ("10.77.0.5/32", "fd00::5/128")
    assert told.routes == (seed.Route("default", "169.254.1.1"), seed.Route("default", "fe80::1"))
    (told,) = desired.seed_of(spec(interfaces=[{**nic, "addresses": ["fd00::5"]}]), "").nics
    assert told.routes == (seed.Route("default", "fe80::1"),)


def test_a_guest_is_answered_what_its_seed_says() -> None:
    nics = wire()["interfaces"]
    named = {**nics[1], "dnsServers": ["10.0.0.53", "FD00:0::53"], "searchDomains": ["example.org"]}
    first = dhcp.Answer(TAPS[0], "02:00:00:00:00:01", 1500, ("10.77.0.5",), leads_out=True, hostname="web")
    second = dhcp.Answer(
        TAPS[1],
        "02:00:00:00:00:02",
        1400,
        ("10.78.0.5", "fd00::5"),
        leads_out=False,
        hostname="web",
        dns_servers=("10.0.0.53", "fd00::53"),
        search_domains=("example.org",),
    )
    assert desired.service(spec(interfaces=[nics[0], named])) == dhcp.Service(OWNER, (first, second))


def test_links_and_routes() -> None:
    assert desired.taps(spec()) == (link.Tap(TAPS[0], OWNER, 1500), link.Tap(TAPS[1], OWNER, 1400))
    table = desired.table(spec())
    assert set(table.routes) == {
        routing.Route("10.77.0.5/32", TAPS[0]),
        routing.Route("10.78.0.5/32", TAPS[1]),
        routing.Route("fd00::5/128", TAPS[1]),
    }
    assert routing.Neighbour("fd00::5", "02:00:00:00:00:02", TAPS[1]) in table.neighbours
    assert len(table.neighbours) == 3


def test_the_name_of_a_tap_never_changes() -> None:
    assert desired.tap_name("u", "eth0") == "ctd2e5ede054a0"
    assert desired.tap_name(OWNER, "eth0") == TAPS[0] != TAPS[1]


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_name_of_a_tap_fits_the_kernel(owner: str, interface: str) -> None:
    name = desired.tap_name(owner, interface)
    assert len(name) == 14
    assert name.isalnum()


def test_what_the_api_server_cannot_see_to_be_wrong_is_refused_by_the_name_of_the_field() -> None:
    desired.check(spec())
    nics = wire()["interfaces"]
    with pytest.raises(objects.NotUnderstood, match=r"spec\.interfaces\.1\.addresses: 'no' is no address"):
        desired.check(spec(interfaces=[nics[0], {**nics[1], "addresses": ["no"]}]))
    with pytest.raises(objects.NotUnderstood, match="the same PCI slot"):
        desired.check(spec(seedSlot=3))
