"""The thread whole, with real guests: from `kubectl apply` to a guest that answers, and back to nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from .cloud import IMAGE, NOTHING, TENANT, Cloud, Guest, Traces, until
from .conftest import Make, remove

pytestmark = pytest.mark.lab

USER_DATA = "#cloud-config\nmessage: from the tenant\n"
ROOT_BYTES, DATA_BYTES = 256 << 20, 64 << 20


@pytest.fixture(scope="module")
def web(cloud: Cloud) -> Iterator[Guest]:
    """A guest of this module: each test leaves it running."""
    try:
        cloud.apply(
            "web",
            cpu=1,
            memory="112Mi",
            rootDisk={"size": "256Mi"},
            disks=[{"name": "data", "size": "64Mi"}],
            cloudInit={"userData": USER_DATA},
            terminationGracePeriodSeconds=60,
        )
        cloud.up("web")
        guest = cloud.guest("web")
        guest.get()
        yield guest
    finally:
        remove(cloud, "web")


def test_the_guest_is_what_its_spec_says(cloud: Cloud, web: Guest) -> None:
    meta = web.meta()
    assert web.pings()
    assert web.get() == "web"
    assert meta["hostname"] == "web"
    assert meta["instance_id"] == f"{web.uid}-0"
    assert meta["addresses"] == [f"{web.address}/32"]
    assert meta["cpus"] == 1
    assert 64 << 10 < meta["mem_kb"] < 112 << 10
    assert meta["root_bytes"] == ROOT_BYTES
    assert meta["disks"]["data"] == DATA_BYTES
    assert web.get("/user-data") == USER_DATA.strip()


def test_its_host_has_one_of_everything_and_no_more(cloud: Cloud, web: Guest) -> None:
    seen = cloud.traces(web)
    assert seen.domains == seen.running == {web.uid}
    assert [len(one) for one in (seen.processes, seen.links, seen.routes, seen.neighbours)] == [1, 1, 1, 1]
    assert sorted(name.partition("/")[0] for name in seen.files) == [
        "console",
        "dhcp",
        *4 * ["disks"],
        "instances",
        "seeds",
    ]
    assert cloud.ready("web")["reason"] == "Running"
    shown = cloud.api.run("get", "vm.corral.dev/web", "--namespace", TENANT).splitlines()
    assert shown[0].split() == ["NAME", "STATUS", "READY", "HOST", "IP", "AGE"]
    assert shown[1].split()[:5] == ["web", "Running", "True", "h1", web.address]


def test_what_is_written_is_there_after_a_kill_and_after_a_halt(cloud: Cloud, web: Guest) -> None:
    web.post("/cgi-bin/write?name=note", b"kept")
    boots, before = web.meta()["boots"], cloud.traces(web)

    os.kill(cloud.qemu(web), signal.SIGKILL)
    until(lambda: web.meta()["boots"] == boots + 1, within=30)
    assert web.get("/data/note") == "kept"
    cloud.up("web")
    after = cloud.traces(web)
    assert after.processes != before.processes
    assert (after.links, after.routes, after.neighbours) == (before.links, before.routes, before.neighbours)

    begun = time.monotonic()
    cloud.halted("web")
    assert time.monotonic() - begun < 15, "its shutdown was not clean: the grace period is a minute"
    off = cloud.traces(web)
    answers = {name for name in before.files if name.startswith("dhcp/")}
    assert off == Traces(domains=before.domains, files=before.files - answers)
    ready = cloud.ready("web")
    assert (ready["status"], cloud.vm("web")["status"]["printableStatus"]) == ("True", "Halted")
    assert "corral-guest: poweroff" in _console(cloud, web)

    cloud.apply_strategy("web", "Always")
    until(lambda: web.meta()["boots"] == boots + 2, within=30)
    assert web.get("/data/note") == "kept"
    assert cloud.guest("web") == web


def test_two_guests_talk_to_each_other(cloud: Cloud, web: Guest, make: Make) -> None:
    other = make("other")
    other.get()
    assert web.fetches(other) == "other"
    assert other.fetches(web) == "web"


def test_a_guest_that_was_never_started_is_prepared_and_then_starts(cloud: Cloud, make: Make) -> None:
    prepared = make("prepared", runStrategy="Halted")
    seen = cloud.traces(prepared)
    assert seen == Traces(domains=frozenset({prepared.uid}), files=seen.files)
    assert seen.files
    assert cloud.ready("prepared")["reason"] == "Halted"

    cloud.apply_strategy("prepared", "Always")
    assert prepared.get() == "prepared"
    assert prepared.meta()["boots"] == 1


def test_deletion_returns_at_once_and_soon_nothing_is_left(cloud: Cloud, web: Guest) -> None:
    before = cloud.traces(), cloud.allocations(), cloud.instances()
    cloud.apply("gone")
    cloud.up("gone")
    gone = cloud.guest("gone")
    gone.get()
    assert len(cloud.allocations()) == len(before[1]) + 1

    begun = time.monotonic()
    cloud.delete("gone")
    assert time.monotonic() - begun < 2, "a tenant's object hangs in Terminating"
    took = until(lambda: cloud.traces(gone) == NOTHING)
    assert took < 10
    until(lambda: (cloud.traces(), cloud.allocations(), cloud.instances()) == before)
    assert web.get() == "web"


def test_a_guest_deleted_before_it_ran_leaves_nothing(cloud: Cloud) -> None:
    before = cloud.traces(), cloud.allocations(), cloud.instances()
    # Pressed while the kernel boots, its power button is heard by nobody.
    cloud.apply("short", terminationGracePeriodSeconds=2)
    until(lambda: "placement" in cloud.vm("short").get("status", {}), every=0.02)
    short = cloud.guest("short")
    cloud.delete("short")
    until(lambda: (cloud.traces(), cloud.allocations(), cloud.instances()) == before)
    assert cloud.traces(short) == NOTHING


@pytest.fixture
def deaf_image(cloud: Cloud) -> Iterator[dict[str, str]]:
    """The lab's image, but that its first process is a shell, which hears no power button."""
    spec = cloud.api.get(f"clusterimage.corral.dev/{IMAGE}")["spec"]
    boot = spec["directBoot"]
    spec |= {"directBoot": boot | {"commandLine": boot["commandLine"] + " rdinit=/bin/sh"}}
    metadata = {"name": "deaf", "namespace": TENANT}
    cloud.api.apply({"apiVersion": "corral.dev/v1alpha1", "kind": "Image", "metadata": metadata, "spec": spec})
    yield {"kind": "Image", "name": "deaf"}
    cloud.api.run("delete", "image.corral.dev/deaf", "--namespace", TENANT)


def test_a_guest_that_ignores_the_power_button_is_powered_off_after_its_grace(
    cloud: Cloud, deaf_image: dict[str, str], make: Make
) -> None:
    guest = make("deaf", imageRef=deaf_image, terminationGracePeriodSeconds=4)
    until(lambda: "#" in _console(cloud, guest), within=20)

    begun = time.monotonic()
    cloud.halted("deaf")

    assert 4 <= time.monotonic() - begun < 12
    assert cloud.traces(guest).running == set()


def test_ten_at_once_all_answer(cloud: Cloud) -> None:
    names = [f"many-{number}" for number in range(10)]
    try:
        cloud.apply_all(names)
        cloud.up(*names, within=90)
        guests = [cloud.guest(name) for name in names]
        assert len({guest.address for guest in guests}) == len(names)
        assert [guest.get() for guest in guests] == names
    finally:
        remove(cloud, *names)


def _console(cloud: Cloud, guest: Guest) -> str:
    return (cloud.host.folder / "corral" / "console" / f"{guest.uid}.log").read_text(errors="replace")
