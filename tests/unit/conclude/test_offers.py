from __future__ import annotations

from typing import Any

from corral.api import objects
from corral.api.v1alpha1 import host, image, ippool, network
from corral.conclude import offers

from .said import NOW, message, raw, told

DISK, KERNEL, INITRAMFS = "a" * 64, "b" * 64, "c" * 64


def source(sha256: str) -> dict[str, str]:
    return {"url": "http://images.test/x", "sha256": sha256}


def an_image(**spec: Any) -> offers.Image:
    return objects.parsed(
        raw({"source": source(DISK), "format": "raw", **spec}, None), image.ImageSpec, image.ImageStatus
    )


def direct_boot() -> offers.Image:
    return an_image(directBoot={"kernel": source(KERNEL), "initramfs": source(INITRAMFS)})


def held(*sums: str) -> list[host.HeldImage]:
    return [host.HeldImage(sha256=one, held=True) for one in sums]


def failed(reason: str, message: str = "", sha256: str = DISK) -> list[host.HeldImage]:
    return [host.HeldImage(sha256=sha256, held=False, reason=reason, message=message)]


def test_an_image_that_nobody_asked_for_can_be_used() -> None:
    status, _ = offers.conclude_image(an_image(), {}, NOW)
    assert told(status.conditions) == {"Fetchable": ("True", "Usable"), "Ready": ("True", "Usable")}
    assert status.hosts == ()


def test_a_host_holds_an_image_when_it_holds_all_of_its_files() -> None:
    said = {"h3": held(DISK, KERNEL, INITRAMFS), "h2": held(DISK, KERNEL), "h1": held(KERNEL, DISK, INITRAMFS)}
    assert offers.conclude_image(direct_boot(), said, NOW)[0].hosts == ("h1", "h3")


def test_an_image_that_one_host_could_not_fetch_says_which_and_why() -> None:
    said = {"h1": held(DISK), "h2": failed("ImageChecksumMismatch", "images.test gives another file")}
    status, look_again = offers.conclude_image(an_image(), said, NOW)
    assert told(status.conditions)["Stalled"] == ("True", "ImageChecksumMismatch")
    assert message(status.conditions, "Ready").startswith("On host h2: images.test gives another file. Next: ")
    assert (status.hosts, look_again) == (("h1",), None)


def test_a_failure_of_another_image_is_none_of_this_one() -> None:
    status, _ = offers.conclude_image(an_image(), {"h1": failed("HostDiskFull", sha256=KERNEL)}, NOW)
    assert told(status.conditions)["Ready"] == ("True", "Usable")


def test_a_file_that_is_being_fetched_has_a_sentence() -> None:
    status, _ = offers.conclude_image(an_image(), {"h1": failed("ImageFetching")}, NOW)
    assert told(status.conditions)["Reconciling"] == ("True", "ImageFetching")
    assert message(status.conditions, "Ready") == "On host h1: The host fetches the image."


def test_a_reason_that_nobody_knows_is_told_as_that() -> None:
    for reason in ("", "MoonInTheWay"):
        status, _ = offers.conclude_image(an_image(), {"h1": failed(reason)}, NOW)
        assert told(status.conditions)["Ready"] == ("False", "ReasonNotKnown")


def a_network() -> offers.Network:
    return objects.parsed(
        raw({"poolRefs": [{"name": "a"}, {"name": "b"}]}, None), network.NetworkSpec, network.NetworkStatus
    )


def test_a_network_needs_all_its_pools() -> None:
    assert told(offers.conclude_network(a_network(), ("b", "a", "c"), NOW)[0].conditions)["Ready"][0] == "True"
    status, _ = offers.conclude_network(a_network(), iter(["a"]), NOW)
    assert told(status.conditions)["PoolsFound"] == ("False", "PoolNotFound")
    assert message(status.conditions, "PoolsFound").startswith("There is no IPPool b: see spec.poolRefs. Next: ")


def a_pool(*prefixes: str) -> offers.Pool:
    return objects.parsed(raw({"prefixes": list(prefixes)}, None), ippool.IPPoolSpec, ippool.IPPoolStatus)


def test_a_pool_counts_its_addresses() -> None:
    status, _ = offers.conclude_pool(a_pool("10.7.0.0/24", "10.8.0.1/32"), {"other": ["10.7.1.0/24"]}, NOW)
    assert (status.capacity, told(status.conditions)["Ready"]) == (255, ("True", "Usable"))


def test_the_later_of_two_pools_that_overlap_says_so() -> None:
    status, look_again = offers.conclude_pool(a_pool("10.9.0.0/24", "10.7.0.0/24"), {"first": ["10.7.0.64/26"]}, NOW)
    assert told(status.conditions)["Stalled"] == ("True", "PoolOverlaps")
    assert "has 10.7.0.0/24, which overlaps 10.7.0.64/26 of IPPool first" in message(status.conditions, "Ready")
    assert look_again is None
