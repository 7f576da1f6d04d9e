"""The hypervisor port on libvirt and QEMU; constructed by the composition root, called by the agent.

Nothing is remembered from one process to the next. What is ours is recognised by the element
`{https://corral.dev/libvirt/domain/1}domain` in a domain's metadata, which names our cloud's and host's uid: libvirt
keeps it on disk with the definition, and in the living guest's state through a restart of its daemon. Domains are
persistent and without autostart; whether one should run is the agent's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Coroutine

import libvirt
from lxml import etree

from corral_drivers import errors
from corral_drivers.hypervisor import plan, port
from corral_drivers.hypervisor.libvirt_qemu import accelerator, connection, domains, firmware
from corral_drivers.hypervisor.model import Facts, Observed

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 5.0


class LibvirtQemu:
    """One host's libvirtd, as one cloud sees it; see `port.Hypervisor` for what each method promises."""

    def __init__(self, settings: port.Settings) -> None:
        self._domains = domains.Ours(settings)
        listener = connection.Listener(opened=self._opened, lost=self._lost, changed=self._changed)
        self._connection = connection.Connection(settings.uri, listener)
        self._watchers: list[Callable[[str], None]] = []
        self._facts: Facts | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def facts(self) -> Facts:
        if self._facts is None:
            seen, emulator = await self._connection.call("read the host's facts", _facts)
            tried = await asyncio.to_thread(accelerator.detect, emulator)
            self._facts = dataclasses.replace(seen, accelerator=tried)
        # Anew each time: who installs what a guest lacks does not restart the agent for it.
        return dataclasses.replace(self._facts, uefi=await asyncio.to_thread(firmware.find))

    async def observe(self, uuid: str) -> Observed | None:
        return await self._connection.call(f"observe domain {uuid}", lambda link: self._domains.observe(link, uuid))

    async def observe_all(self) -> tuple[Observed, ...]:
        return await self._connection.call("observe all domains", self._domains.observe_all)

    async def apply(self, step: plan.Step) -> None:
        await self._connection.call(str(step), lambda link: self._domains.apply(link, step))

    def watch(self, changed: Callable[[str], None]) -> None:
        self._watchers.append(changed)
        self._do(self._reconnect())

    async def close(self) -> None:
        self._watchers.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    def _changed(self, uuid: str) -> None:
        for changed in self._watchers:
            changed(uuid)

    def _opened(self) -> None:
        """Events may have been lost until now: tell of everything."""
        if self._watchers:
            self._do(self._tell_all())

    def _lost(self) -> None:
        if self._watchers:
            self._changed(port.ITSELF)
            self._do(self._reconnect())

    async def _tell_all(self) -> None:
        # Lost again already: the next opening tells.
        with contextlib.suppress(errors.DriverError):
            for uuid in (*await self._connection.call("list all domains", self._domains.uuids), port.ITSELF):
                self._changed(uuid)

    async def _reconnect(self) -> None:
        for attempt in itertools.count():
            with contextlib.suppress(errors.DriverError):
                await self._connection.listen("connect to libvirt")
                return
            await asyncio.sleep(min(_FIRST_RETRY_S * 2 ** min(attempt, 10), _LONGEST_RETRY_S))

    def _do(self, work: Coroutine[object, object, None]) -> None:
        # The loop keeps only a weak reference to a task.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _facts(link: libvirt.virConnect) -> tuple[Facts, str]:
    """The host's facts with the accelerator left open, and the emulator that libvirt would run."""
    version = link.getVersion()
    # Not getInfo's memory: it adds up NUMA nodes, and was seen to miss what the kernel brings up late.
    memory_kib = link.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"]
    facts = Facts(
        cpus=link.getInfo()[2],
        memory=memory_kib << 10,
        accelerator="",
        hypervisor=link.getType(),
        version=f"{version // 1_000_000}.{version // 1_000 % 1_000}.{version % 1_000}",
    )
    emulator = etree.fromstring(link.getDomainCapabilities(arch="x86_64").encode()).findtext("path")
    return facts, emulator or "qemu-system-x86_64"
