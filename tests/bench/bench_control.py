"""How fast the control plane deploys: so many VirtualMachines at once on hosts in memory, beside the floor of the API.

Run it by hand: `python -m pytest tests/bench/bench_control.py -s` with `CORRAL_BENCH_VMS` (200 unless told) and
`CORRAL_BENCH_HOSTS` (10). Everything is on this one machine and in one process, the agents too. The floor is the same
number of the same kind of writes, one after the other for each object, by a bare loop with the same concurrency.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import resource
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pytest
import pytest_asyncio
import structlog

from corral import allocate, kube
from corral.controller import world
from corral_lab.control_plane import plane

from ..controller import simulated_cloud
from ..controller.conftest import admin, crds, roles

__all__ = ["admin", "crds", "roles"]

ItemT = TypeVar("ItemT")

# A thousand lines of the processes' own log would hide the table.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

pytestmark = pytest.mark.api

VMS = int(os.environ.get("CORRAL_BENCH_VMS", "200"))
HOSTS = int(os.environ.get("CORRAL_BENCH_HOSTS", "10"))
CONCURRENCY = 16
WRITES = 5


@dataclass(frozen=True)
class Figures:
    """One row: seconds by the clock, and of this process' CPU."""

    what: str
    writes: int
    seconds: float
    cpu: float

    def __str__(self) -> str:
        per_second = self.writes / self.seconds
        return (
            f"{self.what:<34}{self.seconds:>8.1f} s{VMS / self.seconds:>9.1f} VM/s{self.writes:>8} writes"
            f"{self.writes / VMS:>6.2f} /VM{per_second:>8.0f} writes/s{1000 * self.cpu / VMS:>8.2f} ms CPU/VM"
        )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@pytest_asyncio.fixture
async def cloud(
    control_plane: plane.ControlPlane, admin: kube.Kube, crds: None, roles: None, tmp_path: pathlib.Path
) -> AsyncIterator[simulated_cloud.SimulatedCloud]:
    made = simulated_cloud.running(control_plane, admin, tmp_path, hosts=HOSTS, prefix="10.96.0.0/20", memory=256 << 30)
    async with made as running:
        yield running


async def test_bench(cloud: simulated_cloud.SimulatedCloud, capsys: pytest.CaptureFixture[str]) -> None:
    await cloud.patch(world.CLOUDS, world.CLOUD_KEY.name, {"deletionGuard": {"floor": 1_000_000}})
    rows = [await _deploy(cloud), await _remove(cloud), await _floor(cloud)]
    with capsys.disabled():
        print("\n" + "\n".join(str(row) for row in rows))  # noqa: T201 - a benchmark's result


async def _deploy(cloud: simulated_cloud.SimulatedCloud) -> Figures:
    names = [f"vm-{number}" for number in range(VMS)]
    cloud.mark()
    began, cpu = time.monotonic(), _cpu()
    await _all(names, cloud.vm)
    while not await _are_ready(cloud):
        await asyncio.sleep(0.2)
    seconds, cpu = time.monotonic() - began, _cpu() - cpu
    return Figures("apply → Ready (all processes)", cloud.writes().total(), seconds, cpu)


async def _are_ready(cloud: simulated_cloud.SimulatedCloud) -> bool:
    vms = await cloud.all(world.VMS)
    return len(vms) == VMS and all(simulated_cloud.is_ready(vm) for vm in vms)


async def _remove(cloud: simulated_cloud.SimulatedCloud) -> Figures:
    vms = await cloud.all(world.VMS)
    cloud.mark()
    began, cpu = time.monotonic(), _cpu()
    await _all(vms, lambda vm: cloud.admin.delete(world.VMS, vm))
    while await cloud.all(world.ALLOCATIONS) or await cloud.all(world.INSTANCES):
        await asyncio.sleep(0.2)
    seconds, cpu = time.monotonic() - began, _cpu() - cpu
    return Figures("delete → nothing left", cloud.writes().total(), seconds, cpu)


async def _floor(cloud: simulated_cloud.SimulatedCloud) -> Figures:
    """The tenant's own create, and the five writes that a VirtualMachine costs, with nobody listening."""
    await cloud.stop_controller()
    for metal in cloud.hosts.values():
        await cloud.stop_agent(metal)
    host = next(iter(cloud.hosts))
    began, cpu = time.monotonic(), _cpu()
    await _all(list(range(VMS)), lambda number: _bare(cloud, host, number))
    return Figures("floor: the same writes, bare", VMS * WRITES, time.monotonic() - began, _cpu() - cpu)


async def _bare(cloud: simulated_cloud.SimulatedCloud, host: str, number: int) -> None:
    api = cloud.admin
    vm = await cloud.vm(f"bare-{number}")
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Provisioning",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    conditions = [{**condition, "type": kind} for kind in ("A", "B", "C", "D", "E", "F", "G", "H")]
    vm = await api.patch(world.VMS, vm, {"status": {"conditions": conditions}}, subresource="status")
    address = f"10.95.{number // 250}.{number % 250 + 1}"
    owner = {"namespace": cloud.namespace, "name": f"bare-{number}", "uid": str(uuid.uuid4())}
    spec = {
        "address": address,
        "poolRef": {"name": "pool"},
        "networkRef": {"name": "net"},
        "owner": owner,
        "interface": "eth0",
    }
    await api.create(world.ALLOCATIONS, {"metadata": {"name": allocate.ledger_name(address)}, "spec": spec})
    instance = {
        "owner": owner,
        "epoch": 1,
        "cpu": 1,
        "memory": 64 << 20,
        "machineType": "pc",
        "disks": [{"name": "root", "size": 0, "slot": 3}],
        "seedSlot": 12,
        "interfaces": [
            {"name": "eth0", "mac": "02:00:00:00:00:01", "slot": 16, "mtu": 1500, "addresses": [address]},
        ],
        "seed": {"instanceId": owner["uid"], "hostname": "bare"},
        "runStrategy": "Always",
        "terminationGracePeriodSeconds": 1,
    }
    metadata = {"name": f"bare-{number}", "namespace": f"corral-host-{host}"}
    made = await api.create(world.INSTANCES, {"metadata": metadata, "spec": instance})
    await api.patch(world.INSTANCES, made, {"status": {"conditions": conditions}}, subresource="status")
    await api.patch(world.VMS, vm, {"status": {"conditions": conditions[:4]}}, subresource="status")


async def _all(items: Iterable[ItemT], act: Callable[[ItemT], Awaitable[object]]) -> None:
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(item: ItemT) -> None:
        async with gate:
            await act(item)

    await asyncio.gather(*(one(item) for item in items))
