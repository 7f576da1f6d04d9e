"""A libvirtd that hangs, and calls that never come back: what is waited for, for how long, and what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator

import libvirt
import pytest

from corral_drivers import errors
from corral_drivers.hypervisor.libvirt_qemu import connection
from corral_drivers.hypervisor.model import Cause
from corral_lab.host import libvirtd, namespace, programs

from . import hypervisor_fixtures

pytestmark = pytest.mark.lab

QUICK = connection.Limits(opening=1.0, call=30.0, sign_every=1, missed=2)
IMPATIENT = connection.Limits(opening=5.0, call=0.5, threads=3)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[namespace.Host]:
    with hypervisor_fixtures.lab_host(tmp_path_factory.mktemp("hc")) as made:
        yield made


class Heard:
    """Who listens to a connection."""

    def __init__(self) -> None:
        self.opened = 0
        self.lost = 0

    def listener(self) -> connection.Listener:
        return connection.Listener(self._open, self._lose, lambda _uuid: None)

    def _open(self) -> None:
        self.opened += 1

    def _lose(self) -> None:
        self.lost += 1


@contextlib.asynccontextmanager
async def connected(
    host: namespace.Host, limits: connection.Limits
) -> AsyncIterator[tuple[connection.Connection, Heard]]:
    heard = Heard()
    made = connection.Connection(host.libvirt_uri, heard.listener(), limits)
    try:
        await made.listen("begin")
        yield made, heard
    finally:
        await made.close()


@contextlib.contextmanager
def hung(host: namespace.Host) -> Iterator[None]:
    running = programs.find(host, libvirtd.NAME)
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)


def version(link: libvirt.virConnect) -> int:
    return int(link.getLibVersion())


def slowly(_link: libvirt.virConnect) -> None:
    time.sleep(0.2)


async def until_heard(made: connection.Connection) -> None:
    """Try until it listens, as its owner does."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(errors.Unavailable):
                return await made.listen("listen")
            await asyncio.sleep(0.05)


async def refused(made: connection.Connection) -> float:
    """In how many seconds a call says that libvirt does not answer."""
    begun = time.monotonic()
    with pytest.raises(errors.Unavailable) as caught:
        await made.call("ask", version)
    assert caught.value.cause is Cause.CONNECTION_LOST
    assert caught.value.message.startswith("ask: ")
    return time.monotonic() - begun


async def test_a_daemon_that_hangs_is_given_up_and_found_again_by_itself(host: namespace.Host) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    before = threading.active_count()
    async with connected(host, QUICK) as (made, heard):
        await asyncio.gather(*(made.call("begin", slowly) for _ in range(4)))
        await hypervisor_fixtures.eventually(lambda: threading.active_count() <= before + 1)
        turning = asyncio.create_task(turn())
        with hung(host):
            waits = await asyncio.gather(*(refused(made) for _ in range(8)))
            print(f"calls are given up after {min(waits):.1f} to {max(waits):.1f} s")  # noqa: T201 - a figure
            assert max(waits) < 15
            await hypervisor_fixtures.eventually(lambda: heard.lost == 1)
            # A few try, for all: nobody waits for it again, and no more threads hang than these.
            assert max(await asyncio.gather(*(refused(made) for _ in range(50)))) < 5.0
            assert max(await asyncio.gather(*(refused(made) for _ in range(50)))) < 0.5
            assert threading.active_count() <= before + 1 + 5
            with pytest.raises(errors.Unavailable):
                await made.listen("listen")
            assert turns > 50, "the event loop stood still"
        await until_heard(made)
        assert heard.opened == 2
        assert await made.call("ask", version) > 0
        turning.cancel()
        await hypervisor_fixtures.eventually(lambda: threading.active_count() <= before + 1)


async def test_nobody_waits_for_a_daemon_that_hangs_to_say_goodbye(host: namespace.Host) -> None:
    with contextlib.ExitStack() as stack:
        async with connected(host, QUICK):
            stack.enter_context(hung(host))
            begun = time.monotonic()
        assert time.monotonic() - begun < 8


async def test_calls_that_never_come_back_are_left_and_counted(host: namespace.Host) -> None:
    come_back = threading.Event()  # which libvirt never is told of

    def hang(_link: libvirt.virConnect) -> None:
        come_back.wait(60)

    async with connected(host, IMPATIENT) as (made, _heard):
        try:
            for lost in range(1, IMPATIENT.threads + 1):
                with pytest.raises(errors.Unavailable, match=r"^hang: .* gave no answer in 0 s$"):
                    await made.call("hang", hang)
                if lost < IMPATIENT.threads:
                    assert await made.call("ask", version) > 0, "the others have a connection"
            assert await refused(made) < 5
        finally:
            come_back.set()
        await hypervisor_fixtures.eventually(lambda: not made.is_choked)
        assert await made.call("ask", version) > 0
