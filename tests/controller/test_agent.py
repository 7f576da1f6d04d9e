"""The agent's process against a real API server, on hosts in memory: what a person at kubectl would see of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from corral import kube
from corral.agent import process
from corral.agent.host import HOST_STATES
from corral.agent.instance import INSTANCES
from corral.api.v1alpha1 import instance
from corral_drivers import errors
from corral_drivers.dhcp import model as dhcp
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.hypervisor import port as hypervisor_port
from corral_drivers.hypervisor import simulated as simulated_hypervisor
from corral_lab.control_plane import plane

from ..unit.agent import simulated_host
from .simulated_cloud import allow_deletion

pytestmark = pytest.mark.api


@dataclass
class Rig:
    """One host and its namespace; `user` is who the agent is to the API server."""

    name: str
    namespace: str
    user: str
    settings: process.Settings
    host: simulated_host.Host
    api: kube.Kube
    audit_log: pathlib.Path
    audited: int
    """How long the audit log was when the host was made, in bytes: what is before is others'."""

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[asyncio.Task[None]]:
        """The agent's process, stopped at the end as SIGTERM stops it."""
        stop = asyncio.Event()
        task = asyncio.create_task(process.run(self.settings, stop, build=lambda *_: self.host.rooms()))
        try:
            yield task
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await task

    async def create(self, name: str = "web", **changes: Any) -> str:
        """A hand-written Instance; the uid of its owner."""
        owner = str(uuid.uuid4())
        spec = simulated_host.wire(owner={"namespace": "shop", "name": name, "uid": owner}) | changes
        metadata = {"name": name, "namespace": self.namespace, "finalizers": [instance.FINALIZER]}
        await self.api.create(INSTANCES, {"metadata": metadata, "spec": spec})
        return owner

    async def get(self, name: str = "web") -> kube.Object | None:
        return await self.api.get(INSTANCES, self.namespace, name)

    async def until(self, reason: str, name: str = "web", status: str = "True") -> kube.Object:
        """The Instance once Ready is so, for this reason, at its generation."""

        def is_so(obj: kube.Object | None) -> bool:
            if obj is None or obj["status"]["observedGeneration"] != obj["metadata"]["generation"]:
                return False
            return ready(obj) == (status, reason)

        found = await self.wait(INSTANCES, name, is_so)
        assert found is not None
        return found

    async def wait(
        self, where: kube.Collection, name: str, is_so: Callable[[kube.Object | None], bool]
    ) -> kube.Object | None:
        deadline = time.monotonic() + 15
        while True:
            obj = await self.api.get(where, self.namespace, name)
            if is_so(obj):
                return obj
            assert time.monotonic() < deadline, f"it never came so far: {json.dumps(obj, indent=1)}"
            await asyncio.sleep(0.02)

    def writes(self, resource: str = "instances") -> list[tuple[str, str]]:
        """What the agent wrote, as verb and name with subresource, by the API server's own account."""
        with self.audit_log.open(encoding="utf-8") as log:
            log.seek(self.audited)
            # The last one may be half written.
            events = [json.loads(line) for line in log if line.endswith("\n")]
        return [
            (event["verb"], "/".join(filter(None, (event["objectRef"]["name"], event["objectRef"].get("subresource")))))
            for event in events
            if event["user"]["username"] == self.user
            and event["stage"] == "ResponseComplete"
            and event["objectRef"]["resource"] == resource
        ]


async def soon(is_so: Callable[[], bool]) -> None:
    """Wait until this is so on the host."""
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline, "it never came so far"
        await asyncio.sleep(0.02)


def ready(obj: kube.Object) -> tuple[str, str] | None:
    """Status and reason of Ready."""
    for condition in obj["status"].get("conditions", []):
        if condition["type"] == "Ready":
            return condition["status"], condition["reason"]
    return None


@pytest_asyncio.fixture
async def rig(
    control_plane: plane.ControlPlane, admin: kube.Kube, crds: None, roles: None, tmp_path: pathlib.Path
) -> AsyncIterator[Rig]:
    """A host with its namespace and HostState, and nothing of it afterwards."""
    name = f"t{uuid.uuid4().hex[:8]}"
    user = f"corral:agent:{name}"
    settings = process.Settings(
        host=name,
        kubeconfig=str(control_plane.kubeconfig(user)),
        state_dir=str(tmp_path),
        hypervisor_uri="test:///default",
        liveness=None,
    )
    host = simulated_host.Host(state=str(tmp_path))
    log = control_plane.audit_log
    made = Rig(name, settings.namespace, user, settings, host, admin, log, audited=log.stat().st_size)
    namespace = await admin.create(kube.NAMESPACES, {"metadata": {"name": made.namespace}})
    await _allow(admin, made.namespace, user)
    spec = {"cloud": simulated_host.CLOUD, "host": simulated_host.HOST, "hypervisor": {"driver": "simulated"}}
    await admin.create(HOST_STATES, {"metadata": {"name": name, "namespace": made.namespace}, "spec": spec})
    try:
        yield made
    finally:
        async for page in admin.pages(INSTANCES, made.namespace):
            for obj in page:
                await admin.delete(INSTANCES, obj)
                with contextlib.suppress(kube.ApiRefused):
                    await admin.patch(INSTANCES, obj, {"metadata": {"finalizers": []}})
        await admin.delete(kube.NAMESPACES, await allow_deletion(admin, kube.NAMESPACES, namespace))


async def _allow(admin: kube.Kube, namespace: str, user: str) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "agent", "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "corral-agent"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    await admin.create(kube.ROLE_BINDINGS, binding)


async def test_from_create_to_ready_is_one_write_and_so_are_halting_and_removal(rig: Rig) -> None:
    async with rig.agent():
        owner = await rig.create()
        running = await rig.until("Running")
        assert running["status"]["powerState"] == "Running"
        assert rig.writes() == [("patch", "web/status")]
        await rig.api.patch(INSTANCES, running, {"spec": {"runStrategy": "Halted"}})
        await rig.until("Halted")
        assert rig.host.machine.guests[owner].state is hypervisor.State.SHUT_OFF
        assert rig.writes() == [("patch", "web/status")] * 2
        await rig.api.delete(INSTANCES, running)
        await rig.wait(INSTANCES, "web", lambda obj: obj is None)
        assert rig.host.empty()
        assert rig.writes() == [("patch", "web/status")] * 2 + [("patch", "web")]


async def test_a_restart_with_nothing_changed_writes_nothing_and_touches_no_guest(rig: Rig) -> None:
    async with rig.agent():
        owner = await rig.create()
        await rig.until("Running")
        await rig.wait(HOST_STATES, rig.name, lambda obj: _holds_images(obj, 3))
    before, pid, steps = rig.writes(), rig.host.machine.guests[owner].pid, rig.host.steps
    reports = rig.writes("hoststates")
    async with rig.agent():
        await asyncio.sleep(2.0)
    assert rig.writes() == before
    assert rig.writes("hoststates") == reports
    assert rig.host.machine.guests[owner].pid == pid
    assert rig.host.steps == steps


async def test_a_guest_that_was_killed_is_back_at_once_by_the_hypervisors_event(rig: Rig) -> None:
    async with rig.agent():
        owner = await rig.create()
        await rig.until("Running")
        killed = rig.host.machine.guests[owner].pid
        rig.host.machine.end(owner)
        await soon(lambda: rig.host.machine.guests[owner].pid not in (killed, None))
        assert rig.writes() == [("patch", "web/status")]


async def test_a_host_that_may_not_answer_dhcp_runs_its_guests_says_so_and_is_well_once_it_may(rig: Rig) -> None:
    rig.host.dhcp.deaf = errors.Unavailable(dhcp.Cause.FAILED, "can't hear guests that ask: Too many open files")
    async with rig.agent():
        owner = await rig.create()
        told = await rig.until("DhcpFailed", status="False")
        assert rig.host.machine.guests[owner].state is hypervisor.State.RUNNING
        assert told["status"]["powerState"] == "Running"
        (network,) = (one for one in told["status"]["conditions"] if one["type"] == "NetworkReady")
        assert network["status"] == "False"
        assert "Too many open files" in network["message"]
        rig.host.dhcp.deaf = None
        await rig.until("Running")
        assert owner in rig.host.dhcp.kept


async def test_a_periodic_look_puts_back_what_no_event_told_of(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, look_every=0.3)
    async with rig.agent():
        await rig.create()
        await rig.until("Running")
        rig.host.links.drop(next(iter(rig.host.links.interfaces)))
        await soon(lambda: len(rig.host.links.interfaces) == 2)


async def test_an_instance_that_lost_its_finalizer_leaves_an_orphan_that_runs_on(rig: Rig) -> None:
    async with rig.agent():
        owner = await rig.create()
        seen = await rig.until("Running")
        await rig.api.patch(INSTANCES, seen, {"metadata": {"finalizers": []}})
        await rig.api.delete(INSTANCES, seen)
        state = await rig.wait(HOST_STATES, rig.name, lambda obj: bool((obj or {})["status"].get("orphans")))
        assert state is not None
        (orphan,) = state["status"]["orphans"]
        addresses = orphan.pop("addresses")
        assert orphan == {
            "uid": owner,
            "name": "shop/web",
            "kinds": ["dhcp", "disk", "domain", "rules", "seed", "tap"],
            "epoch": 1,
        }
        assert addresses == [
            {"interface": nic["name"], "address": address}
            for nic in seen["spec"]["interfaces"]
            for address in nic["addresses"]
        ]
        assert rig.host.machine.guests[owner].state is hypervisor.State.RUNNING


async def test_the_host_state_says_what_the_machine_is(rig: Rig) -> None:
    async with rig.agent():
        state = await rig.wait(HOST_STATES, rig.name, lambda obj: "conditions" in (obj or {})["status"])
        await rig.wait(kube.LEASES, "corral-agent", lambda obj: obj is not None)
    assert state is not None
    status = state["status"]
    assert status["capacity"] == {"cpu": 64, "memory": "256Gi"}
    assert status["facts"]["hypervisor"] == "Simulated 1.0.0"
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [("HypervisorReady", "True")]
    lease = await rig.api.get(kube.LEASES, rig.namespace, "corral-agent")
    assert lease is not None
    assert lease["metadata"]["labels"] == {"corral.dev/agent": rig.name}


async def test_a_spec_that_is_not_understood_is_told_and_touches_nothing(rig: Rig) -> None:
    nics = simulated_host.wire()["interfaces"]
    async with rig.agent():
        await rig.create(interfaces=[{**nics[0], "slot": 12}], seedSlot=12)
        seen = await rig.until("SpecNotUnderstood", status="False")
        assert rig.host.empty()
        await rig.api.delete(INSTANCES, seen)
        await rig.wait(INSTANCES, "web", lambda obj: obj is None)


async def test_the_agent_waits_for_its_host_state(rig: Rig) -> None:
    state = await rig.api.get(HOST_STATES, rig.namespace, rig.name)
    assert state is not None
    await rig.api.delete(HOST_STATES, state)
    async with rig.agent() as task:
        await asyncio.sleep(0.3)
        assert not task.done()


async def test_an_unknown_driver_ends_the_agent_with_a_clear_word(rig: Rig) -> None:
    state = await rig.api.get(HOST_STATES, rig.namespace, rig.name)
    assert state is not None
    await rig.api.patch(HOST_STATES, state, {"spec": {"hypervisor": {"driver": "abacus"}}})
    with pytest.raises(LookupError, match="no hypervisor driver called 'abacus' is installed here"):
        await process.run(rig.settings, asyncio.Event())


class Deaf(simulated_hypervisor.Simulated):
    """A hypervisor whose events can't be had."""

    def watch(self, changed: Callable[[str], None]) -> None:
        raise RuntimeError("a defect in a driver")


async def test_a_defect_ends_the_whole_process_instead_of_half_of_it(rig: Rig) -> None:
    deaf = Deaf(hypervisor_port.Settings(simulated_host.CLOUD, simulated_host.HOST))
    rooms = dataclasses.replace(rig.host.rooms(), hypervisor=deaf)
    with pytest.raises(ExceptionGroup) as caught:
        await process.run(rig.settings, asyncio.Event(), build=lambda *_: rooms)
    assert caught.group_contains(RuntimeError, match="a defect in a driver")


async def test_fifty_guests_at_once_are_one_write_each(rig: Rig) -> None:
    async with rig.agent():
        await rig.wait(HOST_STATES, rig.name, lambda obj: "conditions" in (obj or {})["status"])
        begun = time.monotonic()
        names = [f"vm-{number}" for number in range(50)]
        nics = simulated_host.wire()["interfaces"]
        for number, name in enumerate(names):
            await rig.create(name, interfaces=[{**nics[0], "addresses": [f"10.77.1.{number}"]}])
        for name in names:
            await rig.until("Running", name)
        took = time.monotonic() - begun
    print(f"50 guests: {took:.1f} s")  # noqa: T201 - a figure, shown with -rP
    assert sorted(rig.writes()) == sorted(("patch", f"{name}/status") for name in names)


def _holds_images(obj: kube.Object | None, count: int) -> bool:
    images = (obj or {})["status"].get("images", [])
    return len(images) == count and all(one["held"] for one in images)
