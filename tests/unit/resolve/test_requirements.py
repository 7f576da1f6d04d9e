from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import reasons
from corral.api import quantities
from corral.resolve import requirements as resolve

from .catalogue import Known, a_network, an_image, machine

GIB = 2**30
SOURCE = {"url": "http://images.test/kernel", "sha256": "b" * 64}


def needs(known: Known | None = None, **spec: Any) -> resolve.Requirements:
    met = resolve.requirements(machine(**spec).spec, "shop", known or Known())
    assert isinstance(met, resolve.Requirements)
    return met


def unmet(known: Known | None = None, **spec: Any) -> resolve.Unmet:
    answer = resolve.requirements(machine(**spec).spec, "shop", known or Known())
    assert isinstance(answer, resolve.Unmet)
    return answer


def test_cpu_and_memory_are_the_classes_where_there_is_one() -> None:
    assert (needs().cpu, needs().memory) == (1, 64 * quantities.MIB)
    classy = needs(cpu=None, memory=None, classRef={"name": "small"})
    assert (classy.cpu, classy.memory, classy.machine_type) == (2, 512 * quantities.MIB, "pc")


@given(size=st.integers(32 * quantities.MIB, 64 * GIB))
def test_memory_is_whole_mebibytes_and_never_less_than_asked(size: int) -> None:
    memory = needs(memory=str(size)).memory
    assert memory % quantities.MIB == 0
    assert 0 <= memory - size < quantities.MIB


def test_the_root_disk_is_the_first() -> None:
    made = needs(disks=[{"name": "data", "size": "2Gi"}], rootDisk={"size": "5Gi"})
    assert [(disk.name, disk.size) for disk in made.disks] == [("root", 5 * GIB), ("data", 2 * GIB)]
    assert [disk.image is not None for disk in made.disks] == [True, False]
    own = needs(
        imageRef=None,
        disks=[
            {"name": "a", "size": "1Gi"},
            {"name": "b", "size": "1Gi"},
            {"name": "boot", "size": "2Gi", "root": True, "imageRef": {"name": "debian"}},
        ],
    )
    assert [disk.name for disk in own.disks] == ["boot", "a", "b"]


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ({}, 0),
        ({"imageRef": {"name": "own", "kind": "Image"}}, 3 * GIB),
        ({"imageRef": {"name": "own", "kind": "Image"}, "rootDisk": {"size": "7Gi"}}, 7 * GIB),
    ],
)
def test_a_disk_is_as_large_as_is_said_then_as_its_image_says(spec: dict[str, Any], size: int) -> None:
    assert needs(**spec).disks[0].size == size


def test_interfaces_have_the_pools_of_their_networks_in_order() -> None:
    known = Known(pools={"a": ("10.1.0.0/24",), "b": ("10.2.0.0/24", "10.3.0.0/24")})
    known.networks["", "default"] = a_network("b", "a")
    need = needs(known).interfaces[0]
    assert (need.name, [pool.name for pool in need.pools]) == ("eth0", ["b", "a"])
    assert need.pools[0].prefixes == ("10.2.0.0/24", "10.3.0.0/24")


UNMET: list[tuple[dict[str, Any], Known, str, str]] = [
    ({"cpu": None, "memory": None, "classRef": {"name": "huge"}}, Known(), "ClassNotFound", "VirtualMachineClass huge"),
    ({"imageRef": {"name": "nope"}}, Known(), "ImageNotFound", "There is no ClusterImage nope: see"),
    (
        {"imageRef": {"name": "debian", "kind": "Image"}},
        Known(),
        "ImageNotFound",
        "no Image debian in namespace shop: see the imageRef of disk root",
    ),
    (
        {"disks": [{"name": "data", "size": "1Gi", "imageRef": {"name": "nope"}}]},
        Known(),
        "ImageNotFound",
        "the imageRef of disk data",
    ),
    ({}, Known(networks={}), "NetworkNotFound", "There is no ClusterNetwork default: see interface eth0"),
    (
        {"networks": [{"name": "lan", "networkRef": {"name": "default", "kind": "Network"}}]},
        Known(),
        "NetworkNotFound",
        "no Network default in namespace shop: see interface lan",
    ),
    ({}, Known(pools={}), "PoolNotFound", "ClusterNetwork default names IPPool pool, which is not there"),
]


@pytest.mark.parametrize(("spec", "known", "reason", "detail"), UNMET, ids=[f"{row[2]}-{row[3]}" for row in UNMET])
def test_a_reference_that_leads_nowhere_is_named(spec: dict[str, Any], known: Known, reason: str, detail: str) -> None:
    answer = unmet(known, **spec)
    assert answer.reason == reason
    assert detail in answer.detail
    assert reasons.reason(reason).actor is not reasons.Actor.NOBODY


def test_a_disk_that_is_made_needs_its_image_no_more() -> None:
    known = Known(images={})
    met = resolve.requirements(machine().spec, "shop", known, ["root"])
    assert isinstance(met, resolve.Requirements)
    assert met.disks[0].image is None
    later = machine(disks=[{"name": "b", "size": "1Gi", "imageRef": {"name": "debian"}}])
    assert isinstance(resolve.requirements(later.spec, "shop", known, ["root"]), resolve.Unmet)


def test_an_image_of_another_namespace_is_not_seen() -> None:
    known = Known(images={("other", "own"): an_image()})
    assert unmet(known, imageRef={"name": "own", "kind": "Image"}).reason == "ImageNotFound"


@pytest.mark.parametrize(
    ("of_class", "of_image", "firmware"),
    [
        (None, {}, "BIOS"),
        (None, {"firmware": "UEFI"}, "UEFI"),
        ("UEFI", {}, "UEFI"),
        ("BIOS", {"firmware": "UEFI"}, "BIOS"),
        ("UEFI", {"directBoot": {"kernel": SOURCE, "initramfs": SOURCE}}, "BIOS"),
    ],
)
def test_the_class_says_the_firmware_and_else_the_image(
    of_class: str | None, of_image: dict[str, Any], firmware: str
) -> None:
    known = Known(images={("", "debian"): an_image(**of_image)}, firmware={"small": of_class} if of_class else {})
    assert needs(known, cpu=None, memory=None, classRef={"name": "small"}).firmware == firmware
    assert needs(known).firmware == of_image.get("firmware", "BIOS")
