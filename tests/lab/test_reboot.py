"""A host that loses its power, with the API server there and without: its guests come back with address and disk."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from corral_lab import process, progress
from corral_lab.control_plane import components

from .cloud import Cloud, Guest, until
from .conftest import remove

pytestmark = pytest.mark.lab

BACK_WITHIN = 90.0


@pytest.fixture(scope="module")
def guests(cloud: Cloud) -> Iterator[dict[str, Guest]]:
    """Two guests that run, each with something on its disk, and one that is off."""
    names = ("lives-1", "lives-2", "off")
    try:
        cloud.apply_all(names)
        cloud.up(*names)
        found = {name: cloud.guest(name) for name in names}
        for name in names:
            found[name].get()
            found[name].post("/cgi-bin/write?name=kept", name.encode())
        cloud.halted("off")
        yield found
    finally:
        remove(cloud, *names)


@contextlib.contextmanager
def without_api_server(cloud: Cloud) -> Iterator[None]:
    process.stop(components.pid_file(cloud.lab.folder, components.API_SERVER), deadline=components.GRACE)
    try:
        yield
    finally:
        cloud.lab.control_plane().start(progress.silent())


def reboot(cloud: Cloud) -> None:
    cloud.lab.cut_power(1)
    assert cloud.host.processes() == []
    cloud.lab.boot(1)


def _sign_of_life(cloud: Cloud) -> str:
    """When the agent last told the API server that it is there: it asks for everything before."""
    lease = cloud.api.get("lease.coordination.k8s.io/corral-agent", "--namespace", "corral-host-h1")
    return str(lease["spec"]["renewTime"])


def is_back(guest: Guest, boots: int) -> bool:
    """Whether it booted once more, with its name, address and what was on its disk."""
    meta = guest.meta()
    return bool(meta["boots"] == boots + 1 and guest.get("/data/kept") == guest.name)


def test_after_a_power_cut_guests_come_back_by_themselves(cloud: Cloud, guests: dict[str, Guest]) -> None:
    living = [guests["lives-1"], guests["lives-2"]]
    boots = {guest.name: guest.meta()["boots"] for guest in living}
    shapes = {guest.name: cloud.traces(guest) for guest in living}

    begun = time.monotonic()
    reboot(cloud)
    booted = time.monotonic() - begun
    for guest in living:
        until(lambda guest=guest: is_back(guest, boots[guest.name]), within=BACK_WITHIN)
    print(f"host up after {booted:.1f} s, guests back after {time.monotonic() - begun:.1f} s")  # noqa: T201 - a figure

    cloud.up(*(guest.name for guest in living))
    for guest in living:
        now, before = cloud.traces(guest), shapes[guest.name]
        assert (now.domains, now.routes, now.neighbours, now.files) == (
            before.domains, before.routes, before.neighbours, before.files
        )  # fmt: skip
        assert len(now.processes) == 1
    assert cloud.virsh("list", "--all", "--autostart", "--uuid").split() == [], "libvirt started one, not we"
    off = cloud.traces(guests["off"])
    assert (off.running, off.links, off.routes) == (frozenset(), frozenset(), frozenset())
    assert living[0].fetches(living[1]) == "lives-2"


def test_after_a_power_cut_without_api_server_they_come_back_too(cloud: Cloud, guests: dict[str, Guest]) -> None:
    living = [guests["lives-1"], guests["lives-2"]]
    boots = {guest.name: guest.meta()["boots"] for guest in living}
    sign = _sign_of_life(cloud)
    with without_api_server(cloud):
        begun = time.monotonic()
        reboot(cloud)
        for guest in living:
            until(lambda guest=guest: is_back(guest, boots[guest.name]), within=BACK_WITHIN)
        print(f"guests back after {time.monotonic() - begun:.1f} s without API server")  # noqa: T201 - a figure
        assert cloud.traces(guests["off"]).running == frozenset()
        pids = {guest.name: cloud.qemu(guest) for guest in living}

    begun = time.monotonic()
    until(lambda: _sign_of_life(cloud) != sign, within=60)
    cloud.up(*(guest.name for guest in living))
    print(f"told {time.monotonic() - begun:.1f} s after the API server was back")  # noqa: T201 - a figure
    assert {guest.name: cloud.qemu(guest) for guest in living} == pids
    assert [guest.meta()["boots"] for guest in living] == [boots[guest.name] + 1 for guest in living]
    assert cloud.ready("off")["reason"] == "Halted"
