"""Bad input without end: whatever is written through the API server is refused with words, or ends decided.

The manifests come from the schemas of the kinds and from a list of what nobody should write, the same ones at every
run (`hostile_manifests.SEED`). Nothing of it may end in an error that nobody foresaw, or keep a good guest from
running.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import structlog

from corral import kube
from corral.api import v1alpha1
from corral.controller import heartbeats, world
from corral.controller import host as controller_host
from corral_lab.control_plane import plane

from . import hostile_manifests as hostile
from . import simulated_cloud
from .flood import Flood, Made, fail_on, flood
from .simulated_cloud import SimulatedCloud

pytestmark = pytest.mark.api

Log = list[Any]

NEVER_MADE = ("Cloud",)
"""There is one Cloud, and it is changed here, not made."""

COUNTS = {"VirtualMachine": 900, "Instance": 700, "Image": 250, "ClusterImage": 250, "Host": 120}
PATIENCE = 300.0
"""Seconds until what was admitted must be decided, on a machine that has other things to do as well."""

REST = 200
"""How many manifests of a kind are made by hand, of all that there could be."""


@pytest_asyncio.fixture(scope="module")
async def cloud(
    control_plane: plane.ControlPlane,
    admin: kube.Kube,
    crds: None,
    roles: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SimulatedCloud]:
    """A cloud with room for every guest that anybody may ask for here."""
    folder = tmp_path_factory.mktemp("hosts")
    cloud = simulated_cloud.running(control_plane, admin, folder, prefix="10.64.0.0/14", memory=1 << 42, cpus=1 << 20)
    async with cloud as made:
        yield made


@pytest.fixture
def log() -> Iterator[Log]:
    """What our processes log meanwhile; an error that nobody foresaw fails the test."""
    with structlog.testing.capture_logs() as entries:
        yield entries
    for entry in entries:
        if entry["log_level"] != "info":
            print(entry)  # noqa: T201 - shown where a test fails
    defects = [f"{entry}" for entry in entries if "nobody foresaw" in entry["event"] or entry["log_level"] == "error"]
    fail_on(defects, "errors that nobody foresaw")


@pytest_asyncio.fixture
async def names(cloud: SimulatedCloud) -> hostile.Names:
    """What is there for a manifest to refer to; and removals by the thousand are no accident here."""
    seen = await cloud.get(world.CLOUDS, "cloud")
    assert seen is not None
    limits = {"sharePercent": 100, "floor": 1_000_000}
    await cloud.admin.patch(world.CLOUDS, seen, {"spec": {"deletionGuard": limits}})
    return hostile.Names(*(cloud.named(name) for name in ("small", "image", "pool", "net")))


@pytest_asyncio.fixture
async def hostility(cloud: SimulatedCloud, names: hostile.Names) -> AsyncIterator[Flood]:
    # In a namespace of its own: there, whoever wants to be far from everybody keeps everybody away.
    namespace = await cloud.admin.create(
        kube.NAMESPACES, {"metadata": {"name": f"{cloud.prefix}-{uuid.uuid4().hex[:6]}"}}
    )
    async with flood(cloud.admin, f"{cloud.prefix}-x", namespace["metadata"]["name"]) as made:
        yield made
    await cloud.admin.delete(kube.NAMESPACES, namespace)


def test_the_good_manifests_have_every_field_of_every_kind(names: hostile.Names) -> None:
    """A field that is missing here has no hostile value: give it a place in `hostile.bases`."""
    missing = set()
    for kind, specs in hostile.bases(names).items():
        written = {re.sub(r"\[\d+\]", "[]", hostile.shown(path)) for spec in specs for path in hostile.places(spec)}
        missing |= {f"{kind} {field}" for field in set(hostile.fields(hostile.schemas()[kind]["spec"])) - written}
    assert missing == set()


async def test_whatever_is_made_is_refused_with_words_or_decided(
    cloud: SimulatedCloud, names: hostile.Names, hostility: Flood, log: Log
) -> None:
    begun = time.monotonic()
    await hostility.create(_cases(names))
    sent = time.monotonic() - begun
    try:
        await hostility.decided(within=PATIENCE)
    finally:
        print(f"\nseed {hostile.SEED}, sent in {sent:.0f} s, decided in {time.monotonic() - begun:.0f} s")  # noqa: T201
        print(hostility.account)  # noqa: T201 - figures, shown with -rP
    fail_on(hostility.account.unnamed, "refusals name no field")
    fail_on(hostility.account.not_parsed, "admitted manifests are not understood")
    for reason, count in sorted((await hostility.told()).items()):
        print(f"{count:5} {reason}")  # noqa: T201
    await _a_good_guest_runs(cloud)


async def test_good_objects_that_are_changed_for_the_worse_are_decided_again(
    cloud: SimulatedCloud, names: hostile.Names, hostility: Flood, log: Log
) -> None:
    await hostility.create(_good(names))
    await hostility.decided(within=PATIENCE)
    made = sorted(hostility.account.admitted)
    await hostility.patch(_for_the_worse(names, made))
    await hostility.decided(within=PATIENCE)
    print(f"\nseed {hostile.SEED}\n{hostility.account}")  # noqa: T201 - figures, shown with -rP
    await hostility.told()
    fail_on(hostility.account.unnamed, "refusals name no field")
    fail_on(hostility.account.not_parsed, "admitted manifests are not understood")
    await _a_good_guest_runs(cloud)


async def test_a_status_that_somebody_wrote_by_hand_is_written_anew(
    cloud: SimulatedCloud, names: hostile.Names, hostility: Flood, log: Log
) -> None:
    await hostility.create(_good(names))
    await hostility.decided(within=PATIENCE)
    made = sorted(hostility.account.admitted)
    await hostility.patch(_nonsense(made))
    await hostility.decided(within=PATIENCE)
    print(f"\nseed {hostile.SEED}\n{hostility.account}")  # noqa: T201 - figures, shown with -rP
    for reason, count in sorted((await hostility.told()).items()):
        print(f"{count:5} {reason}")  # noqa: T201
    await _a_good_guest_runs(cloud)


async def test_an_agent_decides_about_every_instance_that_the_api_server_takes(
    cloud: SimulatedCloud, names: hostile.Names, log: Log
) -> None:
    await cloud.stop_controller()
    first = next(iter(cloud.hosts.values()))
    try:
        async with flood(cloud.admin, f"{cloud.prefix}-y", f"corral-host-{first.name}", frozenset()) as made:
            # The other good Instance waits for a Secret, which nobody makes here.
            base, _ = hostile.bases(names)["Instance"]
            cases = hostile.sampled((_of_its_own(case) for case in hostile.by_hand("Instance", base)), 900)
            await made.create(
                [
                    *cases,
                    *(case for case in hostile.from_schema("Instance", names, 60) if "userDataSecret" not in case.spec),
                ]
            )
            await made.decided(within=PATIENCE)
            print(f"\nseed {hostile.SEED}\n{made.account}")  # noqa: T201 - figures, shown with -rP
            for reason, count in sorted((await made.told()).items()):
                print(f"{count:5} {reason}")  # noqa: T201
            fail_on(made.account.not_parsed, "admitted manifests are not understood")
            assert first.task is not None
            assert not first.task.done()
    finally:
        await cloud.start_controller()
    await _a_good_guest_runs(cloud)


async def test_an_agent_that_lies_harms_nobody_elses_guests(
    cloud: SimulatedCloud, control_plane: plane.ControlPlane, names: hostile.Names, log: Log
) -> None:
    vms = [f"true-{number}" for number in range(6)]
    for vm in vms:
        await cloud.vm(vm)
    ready = await cloud.ready(*vms)
    honest, liar = cloud.hosts.values()
    theirs = [vm["metadata"]["name"] for vm in ready if vm["status"]["placement"]["host"] == honest.name]
    await cloud.stop_agent(liar)
    agent = await kube.Kube.connect(
        str(control_plane.kubeconfig(controller_host.agent_user(liar.name))), user_agent="liar"
    )
    try:
        await _lie(agent, f"corral-host-{liar.name}")
        # Also one that begins among lies finds its way.
        await cloud.stop_controller()
        await cloud.start_controller()
        await asyncio.sleep(1)
        await cloud.patch(world.VMS, theirs[0], {"runStrategy": "Halted"})
        await cloud.ready(theirs[0], reason="Halted")
        await cloud.patch(world.VMS, theirs[0], {"runStrategy": "Always"})
        await cloud.ready(*theirs)
        assert honest.task is not None
        assert not honest.task.done()
    finally:
        await agent.close()
        cloud.start_agent(liar)
    await cloud.host_is(liar, "True")
    await cloud.ready(*vms)
    await _a_good_guest_runs(cloud)
    for vm in vms:
        await cloud.delete(vm)


async def _lie(agent: kube.Kube, namespace: str) -> None:
    """Statuses that the API server takes, and signs of life that no clock gives."""
    for where, kind in ((world.HOST_STATES, "HostState"), (world.INSTANCES, "Instance")):
        objects = [obj async for page in agent.pages(where, namespace) for obj in page]
        assert objects
        for number, case in enumerate(hostile.statuses(kind, 80)):
            with contextlib.suppress(kube.ApiRefused):
                body = {"status": json.loads(case.spec)}
                await agent.patch(where, objects[number % len(objects)], body, subresource="status")
    lease = await agent.get(kube.LEASES, namespace, heartbeats.NAME)
    assert lease is not None
    for time_of_year in ("9999-12-31T23:59:59.999999Z", "0000-01-01T00:00:00.000000Z"):
        with contextlib.suppress(kube.ApiRefused):
            await agent.patch(kube.LEASES, lease, {"spec": {"renewTime": time_of_year}})
        await asyncio.sleep(0.5)


def _of_its_own(case: hostile.Case) -> hostile.Case:
    """The case with an owner of its own, where it has a whole one: two Instances of one owner would wait in turn."""
    return dataclasses.replace(
        case, spec=case.spec.replace(hostile.OWNER_UID, str(uuid.uuid5(uuid.NAMESPACE_URL, case.what)))
    )


EACH = 40
"""How many good objects of a kind are changed."""

_HAVE_STATUS = {one.kind.kind for one in v1alpha1.RESOURCES if one.kind.has_status}
_CHANGED = ("ClusterImage", "Image", "ClusterNetwork", "Network", "IPPool", "VirtualMachine", "VirtualMachineClass")


def _good(names: hostile.Names) -> Iterator[hostile.Case]:
    for kind in _CHANGED:
        for number in range(8 if kind == "IPPool" else EACH):
            spec = hostile.bases(names)[kind][0]
            if kind == "IPPool":
                spec = {"prefixes": [f"10.96.{number}.0/24"]}
            yield hostile.Case(kind, f"good {number}", json.dumps(spec))


def _for_the_worse(names: hostile.Names, made: list[Made]) -> Iterator[tuple[Made, str, hostile.Case]]:
    """Ten changes to each object, of the kind that could be made of a new one."""
    for kind in _CHANGED:
        objects = [key for key in made if key[0] == kind]
        changes = hostile.sampled(hostile.by_hand(kind, hostile.bases(names)[kind][0]), 10 * len(objects))
        for number, change in enumerate(changes):
            yield objects[number % len(objects)], "", change


def _nonsense(made: list[Made]) -> Iterator[tuple[Made, str, hostile.Case]]:
    for kind in sorted(_HAVE_STATUS.intersection(_CHANGED)):
        objects = [key for key in made if key[0] == kind]
        for number, status in enumerate(hostile.statuses(kind, 3 * len(objects))):
            yield objects[number % len(objects)], "status", status


async def _a_good_guest_runs(cloud: SimulatedCloud) -> None:
    assert cloud.is_alive()
    await cloud.vm("good")
    await cloud.ready("good")
    await cloud.delete("good")


def _cases(names: hostile.Names) -> Iterator[hostile.Case]:
    for kind, specs in hostile.bases(names).items():
        if kind in NEVER_MADE:
            continue
        by_hand = (case for spec in specs for case in hostile.by_hand(kind, spec))
        yield from hostile.sampled(by_hand, COUNTS.get(kind, REST))
        yield from hostile.sampled(hostile.of_metadata(kind, specs[0]), 40)
        yield from hostile.from_schema(kind, names, 60)
