from __future__ import annotations

import asyncio
import copy
import datetime
import pathlib
from typing import Any

import pytest
import structlog.testing

from corral import kube, store
from corral.agent import instance
from corral.agent.instance import INSTANCES, OWNER, Clock, Instances
from corral.agent.kept import Kept
from corral_drivers import errors
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.hypervisor import plan as hypervisor_plan
from corral_drivers.image import model as image
from corral_drivers.image import plan as image_plan
from corral_drivers.image import port

from .kept_api import NAMESPACE, KeptApi
from .simulated_host import OWNER as UID
from .simulated_host import Agent, Host, nothing_fails, wire

BEGIN = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """What a test keeps, goes with it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def key(name: str = "i") -> kube.Key:
    return kube.Key("instances", NAMESPACE, name)


class Process:
    """One agent's process on a host: a new one has an empty store and no memory."""

    def __init__(self, host: Host, api: KeptApi, images: port.Images | None = None) -> None:
        self.host, self.api = host, api
        self.store = store.Store()
        self.store.index("instances", OWNER, lambda obj: str(obj["spec"]["owner"]["uid"]))
        self.agent = Agent(host, images)
        self.fill()
        clock = Clock(lambda: host.now, lambda: BEGIN + datetime.timedelta(seconds=host.now - 1000.0))
        self.instances = Instances(api, self.store, self.agent.guests, Kept("kept"), "h1", clock)

    def fill(self) -> None:
        for obj in self.api.objects.values():
            self.store.put(INSTANCES, copy.deepcopy(obj))

    async def look(self, name: str = "i") -> float | None:
        """One pass, and then whatever was being fetched is here."""
        after = await self.instances.reconcile(key(name))
        await self.agent.fetched()
        return after

    def conditions(self, name: str = "i") -> dict[str, tuple[str, str]]:
        status = self.api.objects[name]["status"]
        return {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", [])}


def begun(**changes: Any) -> Process:
    api = KeptApi()
    api.put(**changes)
    return Process(Host(), api)


async def ready() -> Process:
    process = begun()
    await process.look()
    await process.look()
    assert process.conditions()["Ready"] == ("True", "Running")
    return process


async def test_a_guest_whose_images_come_within_a_second_is_told_once_done() -> None:
    process = begun()
    first = await process.look()
    assert first == pytest.approx(instance.SETTLED_WITHIN)
    assert process.api.writes == []
    assert await process.look() is None
    (write,) = process.api.writes
    assert (write["status"]["observedGeneration"], write["status"]["powerState"]) == (1, "Running")


async def test_nothing_changed_writes_nothing_and_neither_does_a_restart() -> None:
    process = await ready()
    for _ in range(3):
        process.host.now += 30
        assert await process.look() is None
    assert await Process(process.host, process.api).look() is None
    assert len(process.api.writes) == 1


async def test_what_takes_longer_is_told_after_a_second_and_then_only_what_is_new() -> None:
    process = begun()
    # A fetch that never ends: the image room stays as it is.
    process.host.fail_at = lambda step: _unreachable() if isinstance(step, image_plan.Fetch) else None
    await process.look()
    await process.look()
    assert process.api.writes == []
    process.host.now += 1.0
    await process.look()
    assert process.conditions()["Ready"] == ("False", "ImageUnreachable")
    assert process.conditions()["Reconciling"] == ("True", "ImageUnreachable")
    for _ in range(5):
        process.host.now += 10.0
        await process.look()
    assert len(process.api.writes) == 1


async def test_a_final_reason_is_told_at_once() -> None:
    process = begun(boot=None)
    process.host.fail_at = _refuses_to_define
    await process.look()
    assert process.api.writes == []
    await process.look()
    assert process.conditions()["Stalled"] == ("True", "HostUnsupported")


async def test_failures_are_retried_with_growing_delays_until_they_end() -> None:
    process = await ready()
    process.host.machine.end(UID)
    process.host.fail_at = lambda step: _lost() if isinstance(step, hypervisor_plan.Start) else None
    waits = []
    for _ in range(9):
        process.host.now += 1.0
        waits.append(await process.look())
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert process.conditions()["Ready"] == ("False", "HypervisorUnavailable")
    process.host.fail_at = nothing_fails
    assert await process.look() is None
    assert process.conditions()["Ready"] == ("True", "Running")


async def test_a_spec_that_is_not_understood_names_the_field_and_not_its_value() -> None:
    process = begun(cpu="secret")
    assert await process.look() is None
    (one, _) = process.api.objects["i"]["status"]["conditions"]
    assert (one["type"], one["reason"]) == ("Ready", "SpecNotUnderstood")
    assert one["message"].startswith("spec.cpu: ")
    assert "secret" not in str(process.api.writes)
    process.api.put()
    process.fill()
    await process.look()
    await process.look()
    assert process.conditions()["Ready"] == ("True", "Running")


async def test_an_address_that_is_none_is_not_understood() -> None:
    nics = wire()["interfaces"]
    process = begun(interfaces=[{**nics[0], "addresses": ["10.77.0.500"]}])
    await process.look()
    assert process.conditions()["Stalled"] == ("True", "SpecNotUnderstood")
    assert not process.host.links.interfaces


async def test_halting_is_told_in_one_write() -> None:
    process = await ready()
    process.api.put(runStrategy="Halted")
    process.fill()
    await process.look()
    assert process.conditions()["Ready"] == ("True", "Halted")
    assert process.api.objects["i"]["status"]["observedGeneration"] == 2
    assert len(process.api.writes) == 2


async def test_a_deleted_instance_costs_one_write_and_leaves_nothing() -> None:
    process = await ready()
    process.store.put(INSTANCES, process.api.mark_deleted())
    assert await process.look() is None
    assert process.api.objects == {}
    assert process.host.empty()
    assert process.store.get(key()) is None
    assert process.api.writes[1:] == [
        {"metadata": {"finalizers": [], "resourceVersion": process.api.writes[1]["metadata"]["resourceVersion"]}}
    ]


async def test_a_deletion_that_takes_its_time_says_what_it_waits_for() -> None:
    process = await ready()
    process.host.machine.obeys_power_button = False
    process.store.put(INSTANCES, process.api.mark_deleted())
    await process.look()
    process.host.now += 1.0
    await process.look()
    assert process.conditions()["Ready"] == ("False", "ShuttingDown")
    process.host.now += 30.0
    await process.look()
    assert process.api.objects == {}


async def test_somebody_elses_finalizer_is_left_to_them() -> None:
    process = await ready()
    process.api.objects["i"]["metadata"]["finalizers"].append("example.com/audit")
    process.store.put(INSTANCES, process.api.mark_deleted())
    await process.look()
    assert process.api.objects["i"]["metadata"]["finalizers"] == ["example.com/audit"]
    await process.look()
    assert len(process.api.writes) == 2


async def test_an_instance_that_is_merely_gone_destroys_nothing() -> None:
    process = await ready()
    del process.api.objects["i"]
    process.store.doubt(key())
    assert await process.look() is None
    assert process.store.get(key()) is None
    assert process.host.machine.guests[UID].state is hypervisor.State.RUNNING


async def test_a_doubt_that_is_unfounded_changes_nothing() -> None:
    process = await ready()
    process.store.doubt(key())
    await process.look()
    assert process.store.get(key()) is not None
    assert process.host.machine.guests[UID].state is hypervisor.State.RUNNING


async def test_another_object_of_the_same_name_is_seen_before_anything_is_written() -> None:
    process = await ready()
    process.host.machine.end(UID)
    process.host.fail_at = lambda step: _lost() if isinstance(step, hypervisor_plan.Start) else None
    await process.look()
    process.host.now += 2.0
    del process.api.objects["i"]
    process.api.put(uid="another")
    assert await process.look() is not None
    assert process.store.get(key())["metadata"]["uid"] == "another"  # type: ignore[index]


async def test_of_two_placements_of_one_guest_the_earlier_one_has_it_until_it_is_gone() -> None:
    process = await ready()
    process.api.put("j", uid="ju", epoch=2, cpu=4)
    process.fill()
    assert await process.look("j") == pytest.approx(1.0)
    assert process.host.machine.guests[UID].mark.epoch == 1  # type: ignore[union-attr]
    process.store.put(INSTANCES, process.api.mark_deleted("j"))
    await process.look("j")
    assert process.host.machine.guests[UID].state is hypervisor.State.RUNNING
    process.api.put("k", uid="ku", epoch=3)
    process.fill()
    process.store.put(INSTANCES, process.api.mark_deleted())
    await process.look()
    assert process.host.empty()
    await process.look("k")
    await process.look("k")
    assert process.host.machine.guests[UID].mark.epoch == 3  # type: ignore[union-attr]


async def test_progress_is_told_every_five_seconds() -> None:
    api, images = KeptApi(), SlowImages()
    api.put(boot=None)
    process = Process(Host(), api, images)
    await process.look()
    for _ in range(60):
        process.host.now += 0.5
        images.tick()
        await process.look()
    assert 5 <= len(process.api.writes) <= 8
    assert "MiB are here" in process.api.objects["i"]["status"]["conditions"][0]["message"]
    await process.agent.fetches.close()


async def test_an_instance_is_kept_before_anything_is_made_for_it_and_forgotten_after_all_is_gone() -> None:
    process = begun()
    kept_at_first_step: list[int] = []

    def watched(_step: object) -> None:
        kept_at_first_step.append(len(list(Kept("kept").all())))

    process.host.fail_at = watched
    await process.look()
    assert kept_at_first_step[0] == 1
    process.store.put(INSTANCES, process.api.mark_deleted())
    process.api.fail_next = kube.ApiUnavailable("PATCH", "away")
    with pytest.raises(kube.ApiUnavailable):
        await process.look()
    assert process.host.empty()
    assert list(Kept("kept").all()) == []
    assert process.api.objects["i"]["metadata"]["finalizers"]
    await process.look()
    assert process.api.objects == {}
    assert list(Kept("kept").all()) == []


async def test_what_is_being_removed_is_kept_as_that() -> None:
    process = await ready()
    process.host.machine.obeys_power_button = False
    process.store.put(INSTANCES, process.api.mark_deleted())
    await process.look()
    (one,) = Kept("kept").all()
    assert "deletionTimestamp" in one["metadata"]


async def test_a_disk_that_keeps_nothing_keeps_no_guest_from_running(folder: pathlib.Path) -> None:
    (folder / "kept").write_text("no folder")
    await ready()


async def test_an_api_server_that_is_away_is_told_once_and_later_all_that_was_missed() -> None:
    process = await ready()
    process.host.machine.obeys_power_button = False
    process.api.away = True
    process.api.put(runStrategy="Halted")
    process.fill()
    with structlog.testing.capture_logs() as said:
        for _ in range(6):
            process.host.now += 10.0
            wait = await process.look()
            assert wait is not None
            assert wait <= 15.0
    assert len([line for line in said if "status" in line["event"]]) == 1
    # Nobody could be told, and it was done all the same.
    assert process.host.machine.guests[UID].state is hypervisor.State.SHUT_OFF
    assert len(process.api.writes) == 1
    process.api.away = False
    process.host.now += 15.0
    await process.look()
    assert process.conditions()["Ready"] == ("True", "Halted")


async def test_while_the_api_server_is_away_nobody_waits_for_it_twice() -> None:
    process = await ready()
    process.host.machine.end(UID)
    process.api.away = True
    process.api.put(terminationGracePeriodSeconds=5)
    process.fill()
    for _ in range(20):
        process.host.now += 0.1
        await process.look()
    assert process.api.asked <= 4


async def rebooted(before: Process) -> Process:
    """An agent that finds nothing of its guest's life, and no API server: only what was kept."""
    before.host.machine.end(UID)
    _lose_taps(before.host)
    process = Process(before.host, KeptApi())
    process.api.away = True
    process.instances.is_current = False
    for obj in Kept("kept").all():
        process.store.put(INSTANCES, obj)
    return process


async def test_without_api_server_a_guest_is_started_that_may_be() -> None:
    process = begun(startWithoutAPI=True)
    await process.look()
    await process.look()
    process = await rebooted(process)
    await process.look()
    assert process.host.machine.guests[UID].state is hypervisor.State.RUNNING
    assert len(process.host.links.interfaces) == 2


@pytest.mark.parametrize("changes", [{}, {"runStrategy": "Halted"}, {"runStrategy": "Halted", "startWithoutAPI": True}])
async def test_without_api_server_no_other_guest_is_started(changes: dict[str, Any]) -> None:
    process = begun(**changes)
    await process.look()
    await process.look()
    process = await rebooted(process)
    await process.look()
    assert process.host.machine.guests[UID].state is hypervisor.State.SHUT_OFF
    assert not process.host.links.interfaces


async def test_without_api_server_a_running_guest_is_kept_as_it_should_be() -> None:
    before = await ready()
    process = Process(before.host, before.api)
    process.instances.is_current = False
    _lose_taps(process.host)
    await process.look()
    assert len(process.host.links.interfaces) == 2


async def test_without_api_server_nothing_is_removed_that_was_being_removed() -> None:
    process = begun(startWithoutAPI=True)
    await process.look()
    await process.look()
    process.host.machine.obeys_power_button = False
    process.store.put(INSTANCES, process.api.mark_deleted())
    await process.look()
    process = await rebooted(process)
    steps = process.host.steps
    process.host.now += 100.0
    assert await process.look() is None
    assert process.host.steps == steps
    assert process.host.pool.disks


async def test_what_the_api_server_knows_no_more_is_kept_and_not_started() -> None:
    process = begun(startWithoutAPI=True)
    await process.look()
    await process.look()
    process.api.objects.clear()
    process.store.doubt(key())
    await process.look()
    process = await rebooted(process)
    await process.look()
    assert process.host.machine.guests[UID].state is hypervisor.State.SHUT_OFF
    (one,) = Kept("kept").all()
    assert one["spec"]["interfaces"] == wire()["interfaces"]


class SlowImages:
    """A cache whose fetch reports when it is told to, and never ends."""

    def __init__(self) -> None:
        self._report: Any = None
        self._done = 0

    async def observe(self) -> tuple[image.Held, ...]:
        return ()

    async def apply(self, step: image_plan.Step, report: Any = None) -> None:
        self._report = report
        await asyncio.Event().wait()

    def tick(self) -> None:
        self._done += 2**20
        if self._report is not None:
            self._report(image.Progress("a" * 64, self._done, 100 * 2**20))


def _lose_taps(host: Host) -> None:
    for name in list(host.links.interfaces):
        host.links.drop(name)


def _unreachable() -> errors.DriverError:
    return errors.Unavailable(image.Cause.UNREACHABLE, "the server does not answer")


def _lost() -> errors.DriverError:
    return errors.Unavailable(hypervisor.Cause.CONNECTION_LOST, "no daemon")


def _refuses_to_define(step: object) -> errors.DriverError | None:
    if isinstance(step, hypervisor_plan.Define):
        return errors.Rejected(hypervisor.Cause.UNSUPPORTED, "no such machine")
    return None
