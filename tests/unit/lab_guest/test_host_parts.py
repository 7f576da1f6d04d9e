"""The pure parts of lab hosts: names, overlaps, what a mount table says, configuration."""

from __future__ import annotations

import ipaddress
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_lab import errors
from corral_lab.host import inside, libvirtd, machine, management, namespace

FOLDER = pathlib.Path("/srv/lab/hosts/h1")


def test_the_interfaces_name_fits_and_differs_by_lab_and_host() -> None:
    hosts = [namespace.Host(lab, name, FOLDER) for lab in ("demo", "d" * 32) for name in ("h1", "h" * 32)]
    names = {management.machine_interface(host) for host in hosts}

    assert len(names) == 4
    assert all(len(name) <= 15 for name in names)
    assert len({libvirtd.host_uuid(host) for host in hosts}) == 4


@pytest.mark.parametrize("name", ["", "H1", "-a", "a/b", "a" * 33])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(errors.LabError, match="can't be part"):
        namespace.Host("demo", name, FOLDER)


@pytest.mark.parametrize("folder", ["/run/lab/h1", "/var/lib/libvirt/h1", "/srv/" + "long/" * 20])
def test_a_folder_that_cannot_hold_a_host_is_refused(folder: str) -> None:
    with pytest.raises(errors.LabError, match="can't hold"):
        namespace.Host("demo", "h1", pathlib.Path(folder))


def test_namespace_mounts_are_found_innermost_first() -> None:
    table = [
        "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
        "40 22 0:4 net:[4026532] /srv/a\\040b/netns rw shared:7 - nsfs nsfs rw",
        "41 22 0:22 / /run rw - tmpfs tmpfs rw",
        "42 41 0:4 net:[4026533] /run/netns/x rw - nsfs nsfs rw",
    ]

    assert inside.namespace_files(table) == ["/run/netns/x", "/srv/a b/netns"]


def _route(prefix: str, interface: str = "eth0") -> machine.Route:
    return machine.Route(ipaddress.ip_network(prefix), interface)


def test_an_overlap_is_found_either_way_round_and_a_default_route_is_none() -> None:
    wanted = ipaddress.IPv4Network("10.77.0.0/16")

    assert machine.overlap(wanted, [_route("0.0.0.0/0"), _route("10.78.0.0/16")], ours=()) is None
    assert machine.overlap(wanted, [_route("10.0.0.0/8")], ours=()) == _route("10.0.0.0/8")
    assert machine.overlap(wanted, [_route("10.77.3.4/32")], ours=()) == _route("10.77.3.4/32")
    assert machine.overlap(wanted, [_route("10.77.3.4/32", "cm-1")], ours=["cm-1"]) is None
    assert machine.overlap(wanted, [_route("::/0"), _route("fd00::/8")], ours=()) is None
    assert machine.overlap(ipaddress.ip_network("fd00:10:77::/64"), [_route("fd00::/8")], ours=()) == _route("fd00::/8")


_prefixes = st.one_of(
    st.builds(
        lambda address, length: ipaddress.IPv4Network((address, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(1, 32),
    ),
    st.builds(
        lambda address, length: ipaddress.IPv6Network((address, length), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(1, 128),
    ),
)


@given(_prefixes, st.lists(_prefixes, max_size=6))
def test_an_overlap_is_one_in_any_order(wanted: machine.Prefix, taken: list[machine.Prefix]) -> None:
    routes = [machine.Route(prefix, "eth0") for prefix in taken]

    found = machine.overlap(wanted, routes, ours=())

    assert found == machine.overlap(wanted, reversed(routes), ours=())
    assert (found is not None) == any(prefix.version == wanted.version and prefix.overlaps(wanted) for prefix in taken)
    assert machine.overlap(wanted, routes, ours=["eth0"]) is None


def test_the_configuration_gives_every_host_its_own_identity() -> None:
    host = namespace.Host("demo", "h1", FOLDER)

    assert f'host_uuid = "{libvirtd.host_uuid(host)}"' in libvirtd.libvirtd_conf(libvirtd.host_uuid(host))
