"""What is missing, too large or in the way is a condition with a reason, and goes away with its cause."""

from __future__ import annotations

import asyncio

import pytest

from corral.controller import world
from corral_drivers import errors
from corral_drivers.image import model as image
from corral_drivers.image import plan as image_plan

from .simulated_cloud import SimulatedCloud, message, said, until

pytestmark = pytest.mark.api


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classRef": {"name": "none"}}, "ClassNotFound"),
        ({"imageRef": {"name": "none"}}, "ImageNotFound"),
        ({"imageRef": {"kind": "Image", "name": "none"}}, "ImageNotFound"),
        ({"networks": [{"networkRef": {"name": "none"}}]}, "NetworkNotFound"),
    ],
)
async def test_a_reference_that_leads_nowhere_is_told(
    lent_cloud: SimulatedCloud, changes: dict[str, object], reason: str
) -> None:
    await lent_cloud.vm("web", **changes)
    vm = await lent_cloud.says("web", reason)
    assert vm["status"]["printableStatus"] == "Pending"
    assert said(vm, "Reconciling") == ("True", reason)
    assert "none" in message(vm)
    assert "Next: kubectl get" in message(vm)
    assert await lent_cloud.all(world.INSTANCES) == []


async def test_what_a_virtual_machine_refers_to_may_come_after_it(lent_cloud: SimulatedCloud) -> None:
    cloud = lent_cloud
    refs = {
        "classRef": {"name": cloud.named("late")},
        "imageRef": {"name": cloud.named("late")},
        "networks": [{"networkRef": {"name": cloud.named("late")}}],
    }
    await cloud.vm("web", **refs)
    await cloud.says("web", "ClassNotFound")
    await cloud.offer(world.CLASSES, "late", {"cpu": 2, "memory": "128Mi"})
    await cloud.says("web", "ImageNotFound")
    await cloud.offer(world.CLUSTER_IMAGES, "late", cloud.image("late"))
    await cloud.says("web", "NetworkNotFound")
    await cloud.offer(world.CLUSTER_NETWORKS, "late", {"poolRefs": [{"name": cloud.named("late")}]})
    await cloud.says("web", "PoolNotFound")
    network = await cloud.get(world.CLUSTER_NETWORKS, cloud.named("late"))
    assert network is not None
    assert said(network, "Ready") == ("False", "PoolNotFound")
    await cloud.offer(
        world.POOLS, "late", {"prefixes": ["10.98.0.0/30"], "blockSize": {"ipv4": 30}, "coolDownSeconds": 0}
    )
    (vm,) = await cloud.ready("web")
    assert vm["status"]["placement"]["addresses"][0]["address"] == "10.98.0.1"
    assert vm["metadata"]["generation"] == 1


async def test_a_full_pool_is_told_and_an_address_that_is_freed_is_given_again(lent_cloud: SimulatedCloud) -> None:
    cloud = lent_cloud
    await cloud.offer(
        world.POOLS, "tiny", {"prefixes": ["10.97.0.0/30"], "blockSize": {"ipv4": 30}, "coolDownSeconds": 0}
    )
    await cloud.offer(world.CLUSTER_NETWORKS, "tiny", {"poolRefs": [{"name": cloud.named("tiny")}]})
    networks = [{"networkRef": {"name": cloud.named("tiny")}}]
    for name in ("a", "b"):
        await cloud.vm(name, networks=networks)
    await cloud.ready("a", "b")
    await cloud.vm("c", networks=networks)
    assert cloud.named("tiny") in message(await cloud.says("c", "PoolExhausted"))
    await cloud.delete("a")
    vms = await cloud.ready("b", "c")
    addresses = {vm["status"]["placement"]["addresses"][0]["address"] for vm in vms}
    assert addresses == {"10.97.0.1", "10.97.0.2"}


async def test_a_pool_that_overlaps_an_earlier_one_says_with_which(lent_cloud: SimulatedCloud) -> None:
    cloud = lent_cloud
    await cloud.offer(world.POOLS, "zz-overlap", {"prefixes": ["10.99.0.128/25"]})
    found = await until(
        lambda: cloud.get(world.POOLS, cloud.named("zz-overlap")),
        lambda pool: pool is not None and said(pool, "Ready") == ("False", "PoolOverlaps"),
    )
    assert said(found, "Stalled") == ("True", "PoolOverlaps")
    assert cloud.named("pool") in message(found)
    await cloud.admin.delete(world.POOLS, found)


async def test_an_image_with_another_sum_stops_the_guest_and_says_so(lent_cloud: SimulatedCloud) -> None:
    cloud = lent_cloud
    await cloud.offer(world.CLUSTER_IMAGES, "bad", cloud.image("bad"))

    def other_sum(step: object) -> errors.DriverError | None:
        if isinstance(step, image_plan.Fetch) and step.image.sha256 == cloud.image("bad")["source"]["sha256"]:
            return errors.Rejected(image.Cause.CHECKSUM_MISMATCH, "the file has the sum 12ab")
        return None

    for metal in cloud.hosts.values():
        metal.fail_at = other_sum
    await cloud.vm("web", imageRef={"name": cloud.named("bad")})
    vm = await cloud.says("web", "ImageChecksumMismatch")
    assert said(vm, "Stalled") == ("True", "ImageChecksumMismatch")
    assert vm["status"]["printableStatus"] == "Failed"
    found = await until(
        lambda: cloud.get(world.CLUSTER_IMAGES, cloud.named("bad")),
        lambda one: one is not None and said(one, "Ready") == ("False", "ImageChecksumMismatch"),
    )
    assert "the file has the sum 12ab" in message(found)
    for metal in cloud.hosts.values():
        metal.fail_at = lambda _step: None


async def test_guests_run_on_when_their_class_image_and_network_are_gone_and_can_be_halted(
    lent_cloud: SimulatedCloud,
) -> None:
    cloud = lent_cloud
    await cloud.offer(world.CLASSES, "going", {"cpu": 2, "memory": "128Mi"})
    await cloud.offer(world.CLUSTER_IMAGES, "going", cloud.image("going"))
    refs = {"classRef": {"name": cloud.named("going")}, "imageRef": {"name": cloud.named("going")}}
    await cloud.vm("web", **refs)
    await cloud.ready("web")
    going = await cloud.get(world.CLUSTER_IMAGES, cloud.named("going"))
    assert going is not None
    await cloud.admin.delete(world.CLUSTER_IMAGES, going)
    await asyncio.sleep(0.3)
    await cloud.ready("web")
    going = await cloud.get(world.CLASSES, cloud.named("going"))
    assert going is not None
    await cloud.admin.delete(world.CLASSES, going)
    vm = await cloud.says("web", "ClassNotFound")
    assert vm["status"]["printableStatus"] == "Running"
    assert any(vm["metadata"]["uid"] in metal.running for metal in cloud.hosts.values())
    await cloud.patch(world.VMS, "web", {"runStrategy": "Halted"})
    await until(_running(cloud), lambda running: not running)
    await cloud.offer(world.CLASSES, "going", {"cpu": 2, "memory": "128Mi"})
    await cloud.ready("web", reason="Halted")


def _running(cloud: SimulatedCloud):  # type: ignore[no-untyped-def]
    async def look() -> list[str]:
        return sorted(uid for metal in cloud.hosts.values() for uid in metal.running)

    return look
