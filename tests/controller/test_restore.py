"""etcd and the API server killed, and etcd put back to a backup, with controller and agents running on.

In a control plane of this module's own: what is put back takes everything with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import structlog

from corral import kube
from corral.controller import world
from corral_lab import paths, progress
from corral_lab.control_plane import components, plane
from corral_lab.programs import recipe

from . import simulated_cloud
from .conftest import install_kinds, install_roles
from .metal import Metal
from .simulated_cloud import SimulatedCloud, until

pytestmark = pytest.mark.api

PATIENCE = 60.0

log = structlog.get_logger(__name__)


@pytest.fixture(scope="module")
def own_plane(programs: recipe.Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[plane.ControlPlane]:
    own = plane.ControlPlane(paths.LabDir.at(tmp_path_factory.mktemp("restored")), programs)
    try:
        own.start(progress.silent())
        yield own
    finally:
        own.stop()


@pytest_asyncio.fixture
async def cloud(own_plane: plane.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[SimulatedCloud]:
    """Two hosts in memory, in the control plane of this module."""
    api = await kube.Kube.connect(str(own_plane.lab.kubeconfig), user_agent="corral-tests")
    try:
        await install_kinds(api)
        await install_roles(api)
        async with simulated_cloud.running(own_plane, api, tmp_path) as made:
            yield made
    finally:
        await api.close()


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    log.info("measured", what=what, seconds=round(time.monotonic() - begun, 1))


async def backup(cloud: SimulatedCloud, folder: pathlib.Path) -> None:
    await asyncio.to_thread(cloud.control_plane.backup, folder, progress.silent())


async def restore(cloud: SimulatedCloud, folder: pathlib.Path) -> None:
    await asyncio.to_thread(cloud.control_plane.restore, folder, progress.silent())


class Stuck(kube.Kube):
    """A connection by which no address is entered in the ledger: what is placed gets no further."""

    async def create(self, where: kube.Collection, obj: kube.Object) -> kube.Object:
        if where == world.ALLOCATIONS:
            raise kube.ApiUnavailable("POST", "not today")
        return await super().create(where, obj)


async def _stuck(kubeconfig: str | None) -> kube.Kube:
    return await Stuck.connect(kubeconfig, user_agent="corral-controller")


async def placed(cloud: SimulatedCloud, name: str) -> kube.Object:
    async def look() -> kube.Object | None:
        return await cloud.get(world.VMS, name)

    found: kube.Object = await until(look, lambda vm: vm is not None and "placement" in vm.get("status", {}))
    return found


def where(vm: kube.Object) -> tuple[str, str]:
    """Host and address of a VirtualMachine."""
    placement = vm["status"]["placement"]
    return placement["host"], placement["addresses"][0]["address"]


def pids(cloud: SimulatedCloud) -> dict[str, int]:
    """The pids of guests that run, by uid; a guest that runs on two hosts is a failure."""
    running = [(uid, metal.machine.guests[uid].pid) for metal in cloud.hosts.values() for uid in metal.running]
    assert len({uid for uid, _ in running}) == len(running), "a guest runs twice"
    return {uid: pid for uid, pid in running if pid is not None}


async def orphans(cloud: SimulatedCloud, metal: Metal) -> list[dict[str, Any]]:
    state = await cloud.admin.get(world.HOST_STATES, f"corral-host-{metal.name}", metal.name)
    if state is None:
        # A controller that has not yet seen what was put back may call the Host ready.
        return []
    found: list[dict[str, Any]] = state["status"].get("orphans", [])
    return found


async def test_a_backup_from_before_while_and_after_vms_were_made_is_put_back(
    cloud: SimulatedCloud, tmp_path: pathlib.Path
) -> None:
    await cloud.vm("after")
    await cloud.vm("deleted")
    _, deleted = await cloud.ready("after", "deleted")
    await cloud.stop_controller()
    await cloud.start_controller(_stuck)
    await cloud.vm("while-placed")
    await placed(cloud, "while-placed")
    await cloud.stop_controller()
    await cloud.vm("while-new")
    with timed("backup"):
        await backup(cloud, tmp_path / "backup")
    await cloud.start_controller()
    names = ("after", "while-placed", "while-new")
    before = {vm["metadata"]["name"]: vm for vm in await cloud.ready(*names)}
    await cloud.vm("before")
    (lost,) = await cloud.ready("before")
    await cloud.delete("deleted")
    gone = deleted["metadata"]["uid"]
    await until(lambda: _awaitable(pids(cloud)), lambda running: gone not in running)
    running = pids(cloud)
    assert len(running) == 4

    with timed("restore"):
        await restore(cloud, tmp_path / "backup")
    with timed("all taken back"):
        vms = {vm["metadata"]["name"]: vm for vm in await cloud.ready(*names, "deleted", patience=PATIENCE)}

    assert {name: where(vms[name]) for name in names} == {name: where(before[name]) for name in names}
    now = pids(cloud)
    assert {uid: now[uid] for uid in running} == running, "a guest was harmed"
    assert set(now) == {*running, gone}
    uid = lost["metadata"]["uid"]
    host, address = where(lost)
    with timed("orphan listed"):
        (orphan,) = await until(
            lambda: orphans(cloud, cloud.hosts[host]), lambda found: [one["uid"] for one in found] == [uid], PATIENCE
        )
    assert orphan == {
        "uid": uid,
        "name": f"{cloud.namespace}/before",
        "kinds": ["dhcp", "disk", "domain", "rules", "seed", "tap"],
        "epoch": 1,
        "addresses": [{"interface": "eth0", "address": address}],
    }
    told = await until(lambda: cloud.get(world.HOSTS, host), lambda one: one["status"].get("orphans") == 1)
    assert told is not None
    line = await until(lambda: cloud.get(world.CLOUDS, "cloud"), lambda one: one["status"].get("orphans") == 1)
    assert f"1 orphan on {host}" in line["status"]["printableStatus"]
    others = [f"new-{number}" for number in range(4)]
    await asyncio.gather(*(cloud.vm(name) for name in others))
    addresses = [where(vm)[1] for vm in await cloud.ready(*others, patience=PATIENCE)]
    assert address not in addresses
    assert pids(cloud)[uid] == running[uid]
    assert len({*addresses, *(where(vm)[1] for vm in vms.values()), address}) == 9


async def _awaitable(value: Any) -> Any:
    return value


async def test_what_the_guard_holds_is_still_held_after_a_backup_was_put_back(
    cloud: SimulatedCloud, tmp_path: pathlib.Path
) -> None:
    guard = {"floor": 2, "sharePercent": 1}
    await cloud.patch(world.CLOUDS, "cloud", {"deletionGuard": guard})
    names = [f"vm-{number}" for number in range(5)]
    await asyncio.gather(*(cloud.vm(name) for name in names))
    await cloud.ready(*names)
    await asyncio.gather(*(cloud.delete(name) for name in names))
    held = await until(lambda: cloud.get(world.CLOUDS, "cloud"), lambda one: one["status"].get("heldRemovals") == 3)
    await until(lambda: cloud.all(world.INSTANCES), lambda left: len(left) == 3)
    before = pids(cloud)
    assert len(before) == 3
    await backup(cloud, tmp_path / "backup")
    await cloud.patch(world.CLOUDS, "cloud", {"deletionGuard": guard | {"release": held["status"]["heldSince"]}})
    await cloud.nothing_is_left()

    await restore(cloud, tmp_path / "backup")

    await until(lambda: _awaitable(pids(cloud)), lambda running: running.keys() == before.keys(), PATIENCE)
    held = await until(lambda: cloud.get(world.CLOUDS, "cloud"), lambda one: one["status"].get("heldRemovals") == 3)
    await asyncio.sleep(1.0)
    assert pids(cloud).keys() == before.keys()
    await cloud.patch(world.CLOUDS, "cloud", {"deletionGuard": guard | {"release": held["status"]["heldSince"]}})
    await until(lambda: _awaitable(pids(cloud)), lambda running: not running, PATIENCE)


async def test_a_host_that_is_made_anew_after_its_record_was_lost_is_taken_back_with_its_guests(
    cloud: SimulatedCloud, tmp_path: pathlib.Path
) -> None:
    """The backup is older than the Host: it has another uid now, and its guests carry the old one's."""
    await cloud.vm("early")
    await cloud.ready("early")
    await backup(cloud, tmp_path / "backup")
    await cloud.patch(world.HOSTS, cloud.named("a"), {"maintenance": True})
    await cloud.patch(world.HOSTS, cloud.named("b"), {"maintenance": True})
    late = await cloud.add_host("late")
    await cloud.vm("lost")
    (lost,) = await cloud.ready("lost")
    running = pids(cloud)

    await restore(cloud, tmp_path / "backup")
    assert await cloud.get(world.HOSTS, late.name) is None
    await cloud.ready("early", patience=PATIENCE)
    await cloud.offer(world.HOSTS, "late", {"hypervisor": {"driver": "simulated"}, "reserved": {"memory": "0"}})
    await cloud.host_is(late, "True", patience=PATIENCE)

    (orphan,) = await until(lambda: orphans(cloud, late), bool, PATIENCE)
    assert orphan["uid"] == lost["metadata"]["uid"]
    assert pids(cloud) == running


@pytest.mark.parametrize("names", [(components.ETCD,), (components.ETCD, components.API_SERVER)], ids=" ".join)
async def test_etcd_and_the_api_server_are_killed_and_come_back(cloud: SimulatedCloud, names: tuple[str, ...]) -> None:
    await cloud.vm("steady")
    await cloud.ready("steady")
    running = pids(cloud)

    await asyncio.to_thread(cloud.control_plane.kill, *names)
    await asyncio.sleep(2.0)
    assert pids(cloud) == running
    await asyncio.to_thread(cloud.control_plane.start, progress.silent())
    with timed(f"a VM made at the end of an outage of {' and '.join(names)}"):
        await cloud.vm("next")
        await cloud.ready("steady", "next", patience=PATIENCE)

    assert cloud.is_alive()
    assert pids(cloud).items() > running.items()
