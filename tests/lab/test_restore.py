"""Real guests while etcd and the API server are killed, and while etcd is put back to a backup."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from corral_lab import process, progress
from corral_lab.control_plane import components
from corral_lab.lab import CONTROLLER

from .cloud import Cloud, Guest, until
from .conftest import Make, remove

pytestmark = pytest.mark.lab


class Pings:
    """A guest that is pinged all the while, and how often that was in vain."""

    def __init__(self, guest: Guest) -> None:
        self.sent = self.lost = 0
        self._guest = guest
        self._over = threading.Event()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ping)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _ping(self) -> None:
        while not self._over.is_set():
            self.sent += 1
            self.lost += not self._guest.pings()
            time.sleep(0.2)


def test_etcd_and_the_api_server_are_killed_and_no_guest_notices(cloud: Cloud, make: Make) -> None:
    steady = make("steady-outage")
    steady.get()
    pid, boots = cloud.qemu(steady), steady.meta()["boots"]
    control_plane, pings = cloud.lab.control_plane(), Pings(steady)
    with pings():
        control_plane.kill(components.ETCD, components.API_SERVER)
        time.sleep(2.0)
        assert steady.get() == "steady-outage"
        control_plane.start(progress.silent())
        after = make("after-outage")
    assert after.get() == "after-outage"
    assert (cloud.qemu(steady), steady.meta()["boots"]) == (pid, boots)
    assert pings.sent > 5
    assert pings.lost == 0


def test_what_a_backup_does_not_know_runs_on_and_is_taken_back(cloud: Cloud, tmp_path: pathlib.Path) -> None:
    names = ("known", "unplaced", "unknown")
    control_plane = cloud.lab.control_plane()
    try:
        cloud.apply("known")
        cloud.up("known")
        with _paused(cloud):
            cloud.apply("unplaced")
            control_plane.backup(tmp_path / "early", progress.silent())
        cloud.apply("unknown")
        cloud.up(*names)
        guests = {name: cloud.guest(name) for name in names}
        assert [guests[name].get() for name in names] == list(names)
        before = {name: cloud.traces(guest) for name, guest in guests.items()}
        control_plane.backup(tmp_path / "late", progress.silent())

        pings = Pings(guests["unknown"])
        with pings():
            control_plane.restore(tmp_path / "early", progress.silent())
            until(lambda: [one["name"] for one in _orphans(cloud)] == ["lab-test/unknown"], within=60)
            cloud.up("known", "unplaced")
        assert pings.lost == 0
        assert {name: cloud.traces(guest) for name, guest in guests.items()} == before
        assert cloud.guest("unplaced") == guests["unplaced"]
        (orphan,) = _orphans(cloud)
        assert [one["address"] for one in orphan["addresses"]] == [guests["unknown"].address]

        # The later one knows it again: nothing of it is left once it is deleted.
        control_plane.restore(tmp_path / "late", progress.silent())
        until(lambda: not _orphans(cloud), within=60)
        cloud.up(*names)
        assert {name: cloud.traces(guest) for name, guest in guests.items()} == before
    finally:
        remove(cloud, *names)


def _orphans(cloud: Cloud) -> list[dict[str, Any]]:
    state = cloud.api.get("hoststates.corral.dev/h1", "--namespace", "corral-host-h1")
    found: list[dict[str, Any]] = state["status"].get("orphans", [])
    return found


@contextlib.contextmanager
def _paused(cloud: Cloud) -> Iterator[None]:
    """The controller does nothing meanwhile."""
    running = process.find(cloud.lab.folder.run / f"{CONTROLLER}.pid")
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)
