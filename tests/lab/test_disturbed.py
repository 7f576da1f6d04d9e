"""Real guests while what keeps them is stopped, killed or contradicted by hand: they run on, or come back."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from corral_lab import process
from corral_lab.host import libvirtd, programs
from corral_lab.lab import AGENT

from .cloud import Cloud, Guest, Traces, until
from .conftest import Make, remove

pytestmark = pytest.mark.lab

FOREIGN = """\
<domain type='qemu'>
  <name>foreign</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
</domain>
"""


@pytest.fixture(scope="module")
def steady(cloud: Cloud) -> Iterator[Guest]:
    """A guest of this module: each test leaves it running."""
    try:
        cloud.apply("steady")
        cloud.up("steady")
        guest = cloud.guest("steady")
        guest.get()
        # Images that failed in other tests are forgotten with their guests: one late report of that may be due.
        until(lambda: all(one["held"] for one in _reported(cloud).get("images", [])), within=20)
        yield guest
    finally:
        remove(cloud, "steady")


@pytest.fixture
def agent(cloud: Cloud) -> Iterator[process.Running]:
    """The agent as it runs now; afterwards one runs, whatever became of this one."""
    running = programs.find(cloud.host, AGENT)
    assert running is not None
    yield running
    cloud.lab.start_agent(1)


def test_a_restarted_agent_touches_no_guest_and_writes_nothing(
    cloud: Cloud, steady: Guest, agent: process.Running
) -> None:
    before, writes = cloud.traces(), cloud.writes()

    programs.stop(cloud.host, AGENT)
    assert steady.get() == "steady"
    cloud.lab.start_agent(1)
    _until_agent_has_looked(cloud)

    assert cloud.traces() == before
    assert cloud.writes() == writes


def test_a_restarted_libvirtd_touches_no_guest_and_is_found_again(cloud: Cloud, steady: Guest) -> None:
    boots, before, writes = steady.meta()["boots"], cloud.traces(), cloud.writes()

    libvirtd.stop(cloud.host)
    assert steady.get() == "steady"
    libvirtd.start(cloud.host)
    _until_agent_rests(cloud)

    assert cloud.traces() == before
    assert cloud.writes() == writes
    # The agent hears of guests from the new one.
    os.kill(cloud.qemu(steady), signal.SIGKILL)
    until(lambda: steady.meta()["boots"] == boots + 1, within=30)
    cloud.up("steady")


def test_an_agent_killed_while_guests_start_ends_where_another_does(cloud: Cloud, agent: process.Running) -> None:
    names = ["torn-1", "torn-2", "torn-3"]
    before = cloud.traces()
    try:
        cloud.apply_all(names)
        until(lambda: cloud.traces().files != before.files, within=20, every=0.01)
        os.kill(agent.pid, signal.SIGKILL)
        until(lambda: programs.find(cloud.host, AGENT) is None)
        cloud.lab.start_agent(1)

        cloud.up(*names)
        guests = [cloud.guest(name) for name in names]
        assert [guest.get() for guest in guests] == names
        for guest in guests:
            assert _shape(cloud.traces(guest)) == (1, 1, 1, 1, 1, 1, 6)
    finally:
        remove(cloud, *names)
    assert cloud.traces() == before


def test_what_is_stopped_or_forgotten_by_hand_is_put_back(cloud: Cloud, steady: Guest) -> None:
    boots, before = steady.meta()["boots"], cloud.traces(steady)

    cloud.virsh("destroy", steady.uid)
    until(lambda: steady.meta()["boots"] == boots + 1, within=30)
    pid = cloud.qemu(steady)
    cloud.virsh("undefine", steady.uid)
    until(lambda: "yes" in _info(cloud, steady, "Persistent"), within=40)

    assert cloud.qemu(steady) == pid, "a guest was restarted only because its definition was gone"
    after = cloud.traces(steady)
    assert (after.domains, after.links, after.files) == (before.domains, before.links, before.files)


def test_what_carries_no_mark_is_neither_touched_nor_seen(cloud: Cloud, steady: Guest, agent: process.Running) -> None:
    xml = cloud.host.folder / "foreign.xml"
    xml.write_text(FOREIGN)
    cloud.virsh("define", str(xml))
    cloud.virsh("start", "foreign", "--paused")
    try:
        before = cloud.traces()
        programs.stop(cloud.host, AGENT)
        cloud.lab.start_agent(1)
        _until_agent_has_looked(cloud)

        assert cloud.traces() == before
        assert _reported(cloud).get("orphans", []) == []
    finally:
        cloud.virsh("destroy", "foreign")
        cloud.virsh("undefine", "foreign")
        xml.unlink()


def test_a_guest_that_stops_by_itself_is_started_again(cloud: Cloud, make: Make) -> None:
    quitter = make("quitter")
    assert quitter.meta()["boots"] == 1
    quitter.post("/cgi-bin/power?poweroff")
    until(lambda: quitter.meta()["boots"] == 2, within=30)
    cloud.up("quitter")


def _reported(cloud: Cloud) -> dict[str, Any]:
    status: dict[str, Any] = cloud.api.get("hoststates.corral.dev/h1", "--namespace", "corral-host-h1")["status"]
    return status


def _until_agent_has_looked(cloud: Cloud) -> None:
    """A new agent's first sign of life follows its first list; then it looks at everything, and is idle again."""
    lease = ("lease.coordination.k8s.io/corral-agent", "--namespace", "corral-host-h1")
    before = cloud.api.get(*lease)["spec"]["renewTime"]
    until(lambda: cloud.api.get(*lease)["spec"]["renewTime"] != before, within=20)
    _until_agent_rests(cloud)


def _until_agent_rests(cloud: Cloud) -> None:
    spent = [-1.0, _processor_seconds(cloud)]
    while spent[-1] - spent[-2] > 0.2:
        time.sleep(1.0)
        spent.append(_processor_seconds(cloud))
        assert len(spent) < 30, "the agent does not come to rest"


def _processor_seconds(cloud: Cloud) -> float:
    running = programs.find(cloud.host, AGENT)
    assert running is not None
    fields = pathlib.Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _shape(traces: Traces) -> tuple[int, ...]:
    return tuple(
        len(one)
        for one in (
            traces.domains,
            traces.running,
            traces.processes,
            traces.links,
            traces.routes,
            traces.neighbours,
            traces.files,
        )
    )


def _info(cloud: Cloud, guest: Guest, field: str) -> str:
    said = cloud.virsh("dominfo", guest.uid).splitlines()
    return next(line for line in said if line.startswith(field))
