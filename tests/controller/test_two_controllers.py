"""Two controllers at once, real processes, the leader of which is stopped anywhere and woken later: each guest once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from corral import kube
from corral.controller import leader, world
from corral_lab.control_plane import plane

from . import truth
from .simulated_cloud import CONTROLLER, SimulatedCloud, is_ready, until

pytestmark = pytest.mark.api

LEASE = 4.0
ROUNDS = int(os.environ.get("CORRAL_TEST_ROUNDS", "4"))
AT_ONCE = 6
"""VirtualMachines a round: half of those of the round before are deleted in it."""

PATIENCE = 90.0


class Controllers:
    """`corral controller run`, twice; each logs into a file of its own."""

    def __init__(self, cloud: SimulatedCloud, kubeconfig: pathlib.Path, folder: pathlib.Path) -> None:
        self.cloud = cloud
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._kubeconfig = kubeconfig
        self._folder = folder

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"{name}: {self.log(name)[-8000:]}" for name in self.processes)

    async def start(self, name: str) -> None:
        arguments = ("controller", "run", "--kubeconfig", str(self._kubeconfig), "--lease", str(LEASE))
        with (self._folder / f"{name}.log").open("a") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "corral", *arguments, stdout=log, stderr=log
            )

    async def leader(self, *, other_than: str = "") -> str:
        """Which one leads, once one does; its identity says which process it is only in its log."""

        async def look() -> str:
            lease = await self.cloud.admin.get(kube.LEASES, leader.NAMESPACE, leader.NAME)
            holder = "" if lease is None else str(lease["spec"].get("holderIdentity") or "")
            leads = [name for name in self.processes if holder and f"identity={holder}" in self.log(name)]
            return leads[-1] if leads else ""

        found: str = await until(look, lambda name: name not in ("", other_than), PATIENCE)
        return found

    def send(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    async def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest_asyncio.fixture
async def controllers(
    control_plane: plane.ControlPlane, admin: kube.Kube, crds: None, roles: None, tmp_path: pathlib.Path
) -> AsyncIterator[Controllers]:
    """Two controllers, and two hosts in memory."""
    cloud = SimulatedCloud(control_plane, admin, tmp_path)
    made = Controllers(cloud, control_plane.kubeconfig(CONTROLLER), tmp_path)
    try:
        await cloud.furnish(prefix="10.97.0.0/24")
        await cloud.start_controller()
        for name in ("a", "b"):
            await cloud.add_host(name)
        await cloud.stop_controller()
        for name in ("one", "two"):
            await made.start(name)
        yield made
    finally:
        await made.close()
        await cloud.close()
        await cloud.forget_the_leader()


async def test_the_leader_is_stopped_in_the_middle_and_woken_later(controllers: Controllers) -> None:
    seed = int(os.environ.get("CORRAL_TEST_SEED", str(time.time_ns() % 1_000_000)))
    chance, cloud = random.Random(seed), controllers.cloud
    living: list[str] = []
    for number in range(ROUNDS):
        told = f"seed {seed}, round {number}"
        stopped = await controllers.leader()
        new = [f"vm-{number}-{index}" for index in range(AT_ONCE)]
        gone = living[: len(living) // 2]
        living = [*living[len(gone) :], *new]
        await asyncio.gather(*(cloud.vm(name) for name in new), *(cloud.delete(name) for name in gone))
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        controllers.send(stopped, signal.SIGSTOP)
        woken_early = chance.random() < 0.3
        if not woken_early:
            await controllers.leader(other_than=stopped)
            await asyncio.sleep(chance.uniform(0.0, 0.5))
        controllers.send(stopped, signal.SIGCONT)
        try:
            await _all_ready(cloud, living, told)
            await _all_true(cloud, living)
        except AssertionError as error:
            error.add_note(f"{told}: {controllers.logs()}")
            raise
        assert not [uid for metal in cloud.hosts.values() for uid, pids in metal.pids.items() if len(pids) > 1], told
    for name, process in controllers.processes.items():
        assert process.returncode is None, f"seed {seed}: {controllers.logs()}"
        assert "Traceback" not in controllers.log(name), f"seed {seed}: {controllers.logs()}"


async def test_the_lead_goes_over_when_the_leader_ends_in_order_and_when_it_is_killed(controllers: Controllers) -> None:
    cloud = controllers.cloud
    first = await controllers.leader()
    controllers.send(first, signal.SIGTERM)
    assert await controllers.processes[first].wait() == 0
    assert "released the lead" in controllers.log(first)
    second = await controllers.leader(other_than=first)
    await controllers.start("three")
    await cloud.vm("web")
    await _all_ready(cloud, ["web"], second)
    controllers.send(second, signal.SIGKILL)
    await controllers.processes[second].wait()
    await cloud.vm("db")
    await _all_ready(cloud, ["web", "db"], "three")
    await _all_true(cloud, ["web", "db"])


async def _all_ready(cloud: SimulatedCloud, names: list[str], told: str) -> None:
    async def look() -> list[str]:
        vms = {vm["metadata"]["name"]: vm for vm in await cloud.all(world.VMS)}
        return [told, *(name for name in names if name not in vms or not is_ready(vms[name]))]

    await until(look, lambda waiting: waiting == [told], PATIENCE)


async def _all_true(cloud: SimulatedCloud, names: list[str]) -> None:
    await until(lambda: truth.falsehoods(cloud, running=names), lambda found: not found, PATIENCE)
