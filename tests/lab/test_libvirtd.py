"""A libvirtd that hangs or is killed while guests run, start, stop and go: they live on, and all is done afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from corral_lab.host import libvirtd, programs

from .cloud import NOTHING, Cloud, Guest, until
from .conftest import remove

pytestmark = pytest.mark.lab

Outage = Callable[[Cloud], AbstractContextManager[None]]


@contextlib.contextmanager
def hung(cloud: Cloud) -> Iterator[None]:
    running = programs.find(cloud.host, libvirtd.NAME)
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)


@contextlib.contextmanager
def killed(cloud: Cloud) -> Iterator[None]:
    running = programs.find(cloud.host, libvirtd.NAME)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: programs.find(cloud.host, libvirtd.NAME) is None)
    try:
        yield
    finally:
        libvirtd.start(cloud.host)


@dataclass
class Row:
    """One outage: what is done to guests in it. `goes` is deleted, `begins` is created as it begins."""

    outage: Outage
    strategy: str
    goes: str
    begins: str
    told_within: float


ROWS = {
    "hung": Row(hung, "Halted", goes="goes-1", begins="begins-1", told_within=120.0),
    "killed": Row(killed, "Always", goes="begins-1", begins="begins-2", told_within=60.0),
}


@pytest.fixture(scope="module")
def keeps(cloud: Cloud) -> Iterator[Guest]:
    """A guest that runs through it all, beside those that don't."""
    try:
        cloud.apply_all(["keeps", "changes", "goes-1"])
        cloud.up("keeps", "changes", "goes-1")
        guest = cloud.guest("keeps")
        guest.get()
        yield guest
    finally:
        remove(cloud, "keeps", "changes", *(name for row in ROWS.values() for name in (row.goes, row.begins)))


@pytest.mark.parametrize("name", ROWS)
def test_guests_live_through_an_outage_and_what_was_asked_for_is_done_after_it(
    cloud: Cloud, keeps: Guest, name: str
) -> None:
    row, pid = ROWS[name], cloud.qemu(keeps)
    goes = cloud.guest(row.goes)
    cloud.apply(row.begins)
    until(lambda: any(f".{row.begins}." in one for one in cloud.instances()), within=30, every=0.02)
    with row.outage(cloud):
        begun, sign = time.monotonic(), _sign_of_life(cloud)
        cloud.apply_strategy("changes", row.strategy)
        cloud.delete(row.goes)
        until(lambda: _host(cloud) == ("False", "HypervisorUnavailable"), within=row.told_within)
        print(f"{name}: the host is not Ready {time.monotonic() - begun:.1f} s after it began")  # noqa: T201 - a figure
        until(lambda: _said(cloud, "changes") == "HypervisorUnavailable", within=row.told_within)
        print(f"{name}: its guests say why after {time.monotonic() - begun:.1f} s")  # noqa: T201 - a figure
        # Its event loop turns all the while.
        until(lambda: _sign_of_life(cloud) != sign, within=30)
        assert keeps.get() == "keeps"

    begun = time.monotonic()
    until(lambda: _host(cloud)[0] == "True", within=60)
    print(f"{name}: the host is Ready {time.monotonic() - begun:.1f} s after it ended")  # noqa: T201 - a figure
    cloud.up("keeps", row.begins, "changes", within=90)
    print(f"{name}: all was done {time.monotonic() - begun:.1f} s after it ended")  # noqa: T201 - a figure
    until(lambda: cloud.traces(goes) == NOTHING, within=60)
    assert cloud.ready("changes")["reason"] == ("Halted" if row.strategy == "Halted" else "Running")
    assert cloud.qemu(keeps) == pid
    _until_events_are_heard(cloud, keeps)


def _until_events_are_heard(cloud: Cloud, guest: Guest) -> None:
    """Somebody stops the guest by hand, and it is started again: by an event, long before the next look."""
    begun = time.monotonic()
    cloud.virsh("destroy", guest.uid)
    until(lambda: cloud.virsh("domstate", guest.uid).strip() == "running", within=20)
    print(f"stopped by hand, running again after {time.monotonic() - begun:.1f} s")  # noqa: T201 - a figure
    guest.get()


def _host(cloud: Cloud) -> tuple[str, str]:
    """Status and reason of the Host's Ready."""
    return _ready(cloud.api.get(f"hosts.corral.dev/{cloud.host.name}"))


def _said(cloud: Cloud, name: str) -> str:
    """The reason why the VirtualMachine is not Ready."""
    return _ready(cloud.vm(name))[1]


def _ready(obj: dict[str, Any]) -> tuple[str, str]:
    conditions = obj.get("status", {}).get("conditions", [])
    return next(((one["status"], one["reason"]) for one in conditions if one["type"] == "Ready"), ("", ""))


def _sign_of_life(cloud: Cloud) -> str:
    lease = cloud.api.get("lease.coordination.k8s.io/corral-agent", "--namespace", f"corral-host-{cloud.host.name}")
    return str(lease["spec"]["renewTime"])
