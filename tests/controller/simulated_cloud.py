"""A whole cloud in one event loop, for tests and benchmarks: the processes of the controller and of hosts in memory.

Only the hosts are simulated: the API server, the watches, every request and every process' code are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import json
import pathlib
import string
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

from corral import kube
from corral.agent import process as agent_process
from corral.agent import rooms
from corral.api.v1alpha1 import placement
from corral.controller import heartbeats, leader, world
from corral.controller import host as controller_host
from corral.controller import process as controller_process
from corral_lab.control_plane import plane

from .metal import Metal

CONTROLLER = "corral:controller"
PATIENCE = 15.0
"""Seconds that anything may take which a test waits for."""

_COUNTED = {
    where.plural
    for where in controller_process.COLLECTIONS
    if where not in (world.CLOUDS, world.HOSTS, world.HOST_STATES)
} | {kube.SECRETS.plural}
_WRITES = {"create", "update", "patch", "delete", "deletecollection"}


class SimulatedCloud:
    """A cloud with names of its own in a control plane that others may use; `close` leaves nothing behind."""

    def __init__(
        self,
        control_plane: plane.ControlPlane,
        admin: kube.Kube,
        folder: pathlib.Path,
        kubeconfig: Callable[[str], pathlib.Path] | None = None,
    ) -> None:
        self.control_plane = control_plane
        self.kubeconfig = kubeconfig or control_plane.kubeconfig
        """How a user reaches the API server."""
        self.agent_settings: dict[str, Any] = {}
        self.admin = admin
        self.prefix = f"t{uuid.uuid4().hex[:6]}"
        self.namespace = self.prefix
        self.hosts: dict[str, Metal] = {}
        self.settings = controller_process.Settings(kubeconfig=str(self.kubeconfig(CONTROLLER)), heartbeats_every=0.2)
        self._folder = folder
        self._controller: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._made: list[tuple[kube.Collection, str]] = []
        self._read_from = 0

    # The offers of the operator.

    async def furnish(self, *, prefix: str) -> None:
        """A namespace, and one class, image, pool and network of the cloud's own names."""
        await self.forget_the_leader()
        await self.admin.create(kube.NAMESPACES, {"metadata": {"name": self.namespace}})
        await self.offer(world.CLASSES, "small", {"cpu": 1, "memory": "64Mi"})
        await self.offer(world.CLUSTER_IMAGES, "image", self.image())
        await self.offer(world.POOLS, "pool", {"prefixes": [prefix]})
        await self.offer(world.CLUSTER_NETWORKS, "net", {"poolRefs": [{"name": self.named("pool")}]})
        self.mark()

    def named(self, name: str) -> str:
        """The name that an object without a namespace has here."""
        return f"{self.prefix}-{name}"

    def image(self, content: str = "") -> kube.Object:
        """The spec of an image."""
        digest = hashlib.sha256(f"{self.prefix}{content}".encode()).hexdigest()
        return {"source": {"url": "http://images.example/x", "sha256": digest}, "format": "qcow2"}

    async def offer(self, where: kube.Collection, name: str, spec: kube.Object) -> kube.Object:
        """Make an object without a namespace, under this cloud's prefix."""
        self._made.append((where, self.named(name)))
        return await self.admin.create(where, {"metadata": {"name": self.named(name)}, "spec": spec})

    # Virtual machines.

    def vm_spec(self, **changes: Any) -> kube.Object:
        """A whole spec; None removes a field."""
        spec = {
            "classRef": {"name": self.named("small")},
            "imageRef": {"name": self.named("image")},
            "networks": [{"networkRef": {"name": self.named("net")}}],
            "terminationGracePeriodSeconds": 1,
        } | changes
        return {key: value for key, value in spec.items() if value is not None}

    async def vm(self, name: str, *, labels: Mapping[str, str] | None = None, **changes: Any) -> kube.Object:
        """Apply a VirtualMachine."""
        metadata = {"name": name, "namespace": self.namespace, "labels": dict(labels or {})}
        return await self.admin.create(world.VMS, {"metadata": metadata, "spec": self.vm_spec(**changes)})

    async def delete(self, name: str) -> None:
        """Delete a VirtualMachine, as its tenant does."""
        seen = await self.get(world.VMS, name)
        assert seen is not None, f"there is no VirtualMachine {name}"
        await self.admin.delete(world.VMS, seen)

    async def patch(self, where: kube.Collection, name: str, spec: kube.Object) -> kube.Object:
        """Change a spec."""
        seen = await self.get(where, name)
        assert seen is not None
        return await self.admin.patch(where, seen, {"spec": spec})

    async def label(self, where: kube.Collection, name: str, **labels: str | None) -> kube.Object:
        """Give an object labels, or take them away; `zone` stands for the one of that name."""
        changes = {placement.ZONE if key == "zone" else key: value for key, value in labels.items()}
        seen = await self.get(where, name)
        assert seen is not None
        return await self.admin.patch(where, seen, {"metadata": {"labels": changes}})

    async def get(self, where: kube.Collection, name: str) -> kube.Object | None:
        return await self.admin.get(where, self.namespace if where.namespaced else None, name)

    async def empty(self) -> None:
        """Delete every VirtualMachine, and wait until nothing stands for one."""
        for vm in await self.all(world.VMS):
            await self.admin.delete(world.VMS, vm)
        await self.nothing_is_left()

    async def ready(self, *names: str, reason: str = "Running", patience: float = PATIENCE) -> list[kube.Object]:
        """The VirtualMachines, once each is Ready at its generation for this reason."""

        async def look() -> list[kube.Object]:
            return await self._vms(names)

        def is_so(vms: list[kube.Object]) -> bool:
            return len(vms) == len(names) and all(is_ready(vm, reason) for vm in vms)

        found: list[kube.Object] = await until(look, is_so, patience)
        return found

    async def _vms(self, names: Iterable[str]) -> list[kube.Object]:
        listed = {vm["metadata"]["name"]: vm for vm in await self.all(world.VMS)}
        return [listed[name] for name in names if name in listed]

    async def says(self, name: str, reason: str, kind: str = "Ready", status: str = "False") -> kube.Object:
        """The VirtualMachine, once this condition is so for this reason."""

        async def look() -> kube.Object | None:
            return await self.get(world.VMS, name)

        found: kube.Object = await until(look, lambda vm: vm is not None and said(vm, kind) == (status, reason))
        return found

    async def all(self, where: kube.Collection) -> list[kube.Object]:
        """Every object that stands for one of this cloud's VirtualMachines, or is in its namespace."""
        found = [obj async for page in self.admin.pages(where) for obj in page]
        if where.plural in (world.INSTANCES.plural, world.ALLOCATIONS.plural):
            return [obj for obj in found if obj["spec"]["owner"]["namespace"] == self.namespace]
        return [obj for obj in found if obj["metadata"].get("namespace") == self.namespace]

    async def leftovers(self) -> list[str]:
        """What stands for VirtualMachines, in the API and on the hosts."""
        found = [*await self.all(world.INSTANCES), *await self.all(world.ALLOCATIONS)]
        return [obj["metadata"]["name"] for obj in found] + [
            name for name, host in self.hosts.items() if not host.is_empty
        ]

    async def nothing_is_left(self) -> None:
        await until(self.leftovers, lambda left: not left)

    # Processes.

    async def start_controller(
        self, connect: Callable[[str | None], Awaitable[kube.Kube]] | None = None, **changes: Any
    ) -> asyncio.Task[None]:
        """Start the controller; `connect` exchanges its connection, `changes` its settings."""
        settings = dataclasses.replace(self.settings, **changes)
        self._stop = asyncio.Event()
        extra = {} if connect is None else {"connect": connect}
        self._controller = asyncio.create_task(controller_process.run(settings, self._stop, **extra))
        return self._controller

    async def forget_the_leader(self) -> None:
        """Who was killed holds the lead until its Lease is over: a test need not wait for that."""
        held = await self.admin.get(kube.LEASES, leader.NAMESPACE, leader.NAME)
        if held is not None:
            await self.admin.delete(kube.LEASES, held)

    async def stop_controller(self) -> None:
        """Stop the controller as SIGTERM does."""
        task, self._controller = self._controller, None
        if task is not None:
            self._stop.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([task])
            task.result()

    def is_alive(self) -> bool:
        """Whether the controller and the agent of every host run."""
        tasks = (self._controller, *(metal.task for metal in self.hosts.values()))
        return all(task is not None and not task.done() for task in tasks)

    async def kill_controller(self) -> None:
        """End the controller in the middle of whatever it does."""
        task, self._controller = self._controller, None
        await _kill(task)

    async def add_host(self, name: str = "a", *, memory: int = 4 << 30, cpus: int = 64) -> Metal:
        """A Host of this much memory, all for guests, with its agent running."""
        metal = self.hosts[self.named(name)] = Metal(self.named(name), memory, cpus)
        await self.offer(world.HOSTS, name, {"hypervisor": {"driver": rooms.SIMULATED}, "reserved": {"memory": "0"}})
        namespace = f"corral-host-{metal.name}"

        async def look() -> kube.Object | None:
            return await self.admin.get(world.HOST_STATES, namespace, metal.name)

        await until(look, lambda state: state is not None)
        self.start_agent(metal)
        await self.host_is(metal, "True")
        return metal

    def state_dir(self, metal: Metal) -> str:
        """The folder of a host in which its agent keeps what it must not forget."""
        return str(self._folder / metal.name)

    def start_agent(
        self,
        metal: Metal,
        connect: agent_process.Connect = agent_process.connect,
        build: agent_process.Build | None = None,
        **changes: Any,
    ) -> None:
        """Start the agent of a host; `connect` and `build` exchange what it reaches, `changes` are of its settings."""
        user = controller_host.agent_user(metal.name)
        settings = agent_process.Settings(
            host=metal.name,
            kubeconfig=str(self.kubeconfig(user)),
            state_dir=self.state_dir(metal),
            hypervisor_uri="test:///default",
            liveness=None,
            **self.agent_settings | changes,
        )
        metal.stop = asyncio.Event()
        running = agent_process.run(settings, metal.stop, connect=connect, build=build or metal.rooms)
        metal.task = asyncio.create_task(running)

    async def stop_agent(self, metal: Metal) -> None:
        task, metal.task = metal.task, None
        if task is not None:
            metal.stop.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([task])
            task.result()

    async def kill_agent(self, metal: Metal) -> None:
        """End the agent of a host in the middle of whatever it does."""
        task, metal.task = metal.task, None
        await _kill(task)

    async def host_is(self, metal: Metal, status: str, *, patience: float = PATIENCE) -> kube.Object:
        """The Host, once its Ready has this status."""

        async def look() -> kube.Object | None:
            return await self.get(world.HOSTS, metal.name)

        def is_so(one: kube.Object | None) -> bool:
            return one is not None and (said(one, "Ready") or ("", ""))[0] == status

        found: kube.Object = await until(look, is_so, patience)
        return found

    @contextlib.asynccontextmanager
    async def lively(self, metal: Metal, *, says: str = "") -> AsyncIterator[None]:
        """Signs of life from this host's namespace, many a second; `says` is the host that they name."""

        async def beat() -> None:
            namespace, labels = f"corral-host-{metal.name}", {heartbeats.LABEL: says or metal.name}
            seen = await self.admin.get(kube.LEASES, namespace, heartbeats.NAME)
            assert seen is not None
            while True:
                now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                body = {"metadata": {"labels": labels}, "spec": {"renewTime": now}}
                seen = await self.admin.patch(kube.LEASES, seen, body)
                await asyncio.sleep(0.1)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    # What was written.

    def mark(self) -> None:
        """Count writes from here on."""
        self._read_from = self.control_plane.audit_log.stat().st_size

    def writes(self, *others: str) -> Counter[str]:
        """How often our processes wrote to objects of ours, by verb, resource and subresource.

        Not counted is what is of hosts and of the cloud, unless `others` names its plural.
        """
        with self.control_plane.audit_log.open(encoding="utf-8") as log:
            log.seek(self._read_from)
            # The last line may be half written.
            events = [json.loads(line) for line in log if line.endswith("\n")]
        return Counter(
            "/".join(filter(None, (f"{event['verb']} {what['resource']}", what.get("subresource"))))
            for event, what in ((event, event["objectRef"]) for event in events)
            if event["user"]["username"] == CONTROLLER or event["user"]["username"].startswith("corral:agent:")
            if event["verb"] in _WRITES and what["resource"] in {*_COUNTED, *others}
            if event["stage"] == "ResponseComplete"
        )

    # The end.

    async def close(self) -> None:
        """Stop every process and remove every object, whatever state they are in."""
        for name in list(self.hosts):
            with contextlib.suppress(Exception):
                await self.stop_agent(self.hosts[name])
        with contextlib.suppress(Exception):
            await self.stop_controller()
        for where in (world.VMS, world.INSTANCES, world.ALLOCATIONS):
            for obj in await self.all(where):
                await self._remove(where, obj)
        for where, name in reversed(self._made):
            found = await self.admin.get(where, None, name)
            if found is not None:
                await self._remove(where, found)
        for name in (self.namespace, *(f"corral-host-{name}" for name in self.hosts)):
            found = await self.admin.get(kube.NAMESPACES, None, name)
            if found is not None:
                await self._remove(kube.NAMESPACES, found)
        found = await self.admin.get(world.CLOUDS, None, world.CLOUD_KEY.name)
        if found is not None:
            await self._remove(world.CLOUDS, found)

    async def _remove(self, where: kube.Collection, obj: kube.Object) -> None:
        if where is kube.NAMESPACES:
            obj = await allow_deletion(self.admin, where, obj)
        await self.admin.delete(where, obj)
        if obj["metadata"].get("finalizers"):
            with contextlib.suppress(kube.ApiRefused):
                await self.admin.patch(where, obj, {"metadata": {"finalizers": []}})


async def _kill(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([task])
        with contextlib.suppress(BaseException):
            task.result()


@contextlib.asynccontextmanager
async def running(
    control_plane: plane.ControlPlane,
    admin: kube.Kube,
    folder: pathlib.Path,
    *,
    hosts: int = 2,
    prefix: str = "10.99.0.0/24",
    memory: int = 4 << 30,
    cpus: int = 64,
) -> AsyncIterator[SimulatedCloud]:
    """A cloud with everything a VirtualMachine needs, its controller and so many hosts."""
    cloud = SimulatedCloud(control_plane, admin, folder)
    try:
        await cloud.furnish(prefix=prefix)
        await cloud.start_controller()
        await asyncio.gather(
            *(cloud.add_host(name, memory=memory, cpus=cpus) for name in string.ascii_lowercase[:hosts])
        )
        cloud.mark()
        yield cloud
    finally:
        await cloud.close()


async def allow_deletion(admin: kube.Kube, where: kube.Collection, obj: kube.Object) -> kube.Object:
    """What a policy keeps from being deleted by a slip may be deleted now."""
    return await admin.patch(where, obj, {"metadata": {"annotations": {"corral.dev/allow-deletion": "true"}}})


async def until(look: Callable[[], Awaitable[Any]], is_so: Callable[[Any], bool], patience: float = PATIENCE) -> Any:
    """What `look` finds, once it is so. Raises `AssertionError` with what was found last."""
    deadline = time.monotonic() + patience
    while not is_so(found := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came so far: {json.dumps(found, indent=1, default=str)}")
        await asyncio.sleep(0.02)
    return found


def said(obj: kube.Object, kind: str) -> tuple[str, str] | None:
    """Status and reason of a condition."""
    for condition in obj.get("status", {}).get("conditions", ()):
        if condition["type"] == kind:
            return condition["status"], condition["reason"]
    return None


def message(obj: kube.Object, kind: str = "Ready") -> str:
    """What a condition tells."""
    return next((one["message"] for one in obj["status"]["conditions"] if one["type"] == kind), "")


def is_ready(vm: kube.Object, reason: str = "Running") -> bool:
    """Whether it is Ready at its generation, for this reason."""
    at_generation = vm["status"]["observedGeneration"] == vm["metadata"]["generation"]
    return at_generation and said(vm, "Ready") == ("True", reason)
