from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.agent import power
from corral.conclude import instance as conclude
from corral_drivers import errors
from corral_drivers.dhcp import model as dhcp
from corral_drivers.dhcp import plan as dhcp_plan
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.hypervisor import plan as hypervisor_plan
from corral_drivers.image import model as image
from corral_drivers.image import plan as image_plan
from corral_drivers.link import model as link
from corral_drivers.link import plan as link_plan
from corral_drivers.seed import plan as seed_plan
from corral_drivers.storage import model as storage
from corral_drivers.storage import plan as storage_plan

from .simulated_host import OWNER, Agent, Host, nothing_fails, spec


def state(host: Host) -> str | None:
    found = host.machine.guests.get(OWNER)
    return None if found is None else found.state.value


async def running() -> tuple[Host, Agent]:
    host = Host()
    agent = Agent(host)
    assert (await agent.converge(spec(), passes=2)).holds
    return host, agent


async def test_a_guest_runs_once_its_images_are_here() -> None:
    host = Host()
    agent = Agent(host)
    first = await agent.converge(spec())
    assert (first.image.reason, first.storage.reason, first.hypervisor.reason) == (
        "ImageFetching",
        "WaitingForEarlier",
        "WaitingForEarlier",
    )
    assert first.seed.holds
    assert first.link.holds
    assert first.routing.holds
    assert list(host.pool.disks[OWNER]) == ["data"]
    await agent.fetched()
    assert host.woken == [OWNER, OWNER, OWNER]
    second = await agent.converge(spec())
    assert second.holds
    assert (second.power_state, second.restart_required, state(host)) == ("Running", (), "Running")
    assert host.pool.disks[OWNER]["root"].size == 2**30


async def test_a_second_pass_takes_no_step_and_neither_does_a_process_without_memory() -> None:
    host, agent = await running()
    taken = host.steps
    assert (await agent.converge(spec())).holds
    assert (await Agent(host).converge(spec())).holds
    assert host.steps == taken


async def test_a_guest_that_was_killed_is_back_in_the_same_pass() -> None:
    host, agent = await running()
    host.machine.end(OWNER, hypervisor.State.CRASHED)
    assert (await agent.converge(spec())).holds
    assert state(host) == "Running"


def lost_tap(host: Host) -> None:
    host.links.drop(next(iter(host.links.interfaces)))


def lost_routes(host: Host) -> None:
    host.routing.lose(next(iter(host.routing.by_interface)))


def lost_seed(host: Host) -> None:
    host.seeds.put(OWNER, None)


def lost_answers(host: Host) -> None:
    host.dhcp.put(OWNER, None)


def renamed_disk(host: Host) -> None:
    host.pool.rename(OWNER, "root")


def lost_rules(host: Host) -> None:
    (rules,) = host.firewall.tables.values()
    rules.remove(min(rules.everything()))


def ended(host: Host) -> None:
    host.machine.end(OWNER)


def undefined(host: Host) -> None:
    host.machine.guests[OWNER].persistent = None


@pytest.mark.parametrize(
    ("disturb", "rooms"),
    [
        (lost_tap, ["hypervisor", "link", "routing"]),
        (lost_routes, ["routing"]),
        (lost_seed, ["seed"]),
        (lost_rules, ["firewall"]),
        (lost_answers, ["dhcp"]),
        (renamed_disk, ["storage"]),
        (ended, ["hypervisor"]),
        (undefined, ["hypervisor"]),
    ],
)
async def test_what_was_changed_by_hand_is_put_back_and_counted(
    disturb: Callable[[Host], None], rooms: list[str]
) -> None:
    host, agent = await running()
    assert (await agent.converge(spec())).holds
    assert host.put_back == [], "what a guest gets first was never there before"
    before = stands(host)

    disturb(host)
    assert (await agent.converge(spec())).holds
    assert stands(host) == before
    assert host.put_back == rooms

    taken = host.steps
    assert (await agent.converge(spec())).holds
    assert (host.steps, host.put_back) == (taken, rooms)

    disturb(host)
    assert (await Agent(host).converge(spec())).holds
    assert host.put_back == rooms, "an agent that just began can't know what was there before"


def stands(host: Host) -> object:
    """What the guest has, without what differs from one time to the next."""
    guest = host.machine.guests[OWNER]
    return (
        guest.persistent,
        guest.state,
        {name: host.machine.holds(name) for name in host.links.interfaces},
        {name: (set(one.prefixes), dict(one.macs)) for name, one in host.routing.by_interface.items()},
        dict(host.seeds.seeds),
        [rules.everything() for rules in host.firewall.tables.values()],
        dict(host.dhcp.kept),
        {owner: dict(disks) for owner, disks in host.pool.disks.items()},
    )


async def test_a_change_of_the_spec_is_not_counted() -> None:
    host, agent = await running()
    agent.memory.take_up(1)
    assert (await agent.converge(spec())).holds
    agent.memory.take_up(2)
    assert (await agent.converge(spec(cpu=4))).holds
    agent.memory.take_up(3)
    assert (await agent.converge(spec(cpu=4, runStrategy="Halted"))).holds
    assert host.put_back == []


async def test_a_guest_whose_tap_was_made_anew_gets_its_nic_again_and_runs_on() -> None:
    host, agent = await running()
    pid = host.machine.guests[OWNER].pid
    tap = next(iter(host.links.interfaces))
    lost_tap(host)
    assert (await agent.converge(spec())).holds
    assert host.machine.holds(tap)
    assert host.machine.guests[OWNER].pid == pid


async def test_a_nic_that_does_not_hold_its_tap_is_not_plugged_in_again_and_again() -> None:
    host, agent = await running()
    host.links.held = lambda _: False
    for _ in range(3):
        taken = host.steps
        outcome = await agent.converge(spec())
        assert (outcome.hypervisor.reason, outcome.hypervisor.look_again) == ("HypervisorFailed", 5.0)
        assert host.steps == taken + 2, "each of two NICs once"
        assert (await agent.converge(spec())).hypervisor.reason == "HypervisorFailed"
        assert host.steps == taken + 2
        host.now += power.REPLUGGED_EVERY
    host.links.held = host.machine.holds
    assert (await agent.converge(spec())).holds


@pytest.mark.parametrize("strategy", ["Always", "Halted"])
async def test_a_disk_that_is_gone_is_never_made_anew(strategy: str) -> None:
    host, agent = await running()
    assert (await agent.converge(spec(runStrategy=strategy))).holds
    host.pool.lose(OWNER, "data")
    for one in (agent, Agent(host)):
        outcome = await one.converge(spec(runStrategy=strategy))
        assert (outcome.storage.reason, outcome.storage.retry) == ("DiskMissing", False)
        assert f"/state/disks/{OWNER}/data.qcow2" in outcome.storage.detail
        assert outcome.power_state == ("Running" if strategy == "Always" else "ShutOff")
    assert set(host.pool.disks[OWNER]) == {"root"}
    assert (await agent.remove()).holds
    assert host.empty()


async def test_a_guest_that_is_off_is_not_known_by_disks_that_it_never_had() -> None:
    host = Host()
    agent = Agent(host)
    halted = spec(runStrategy="Halted", boot=None)
    first = await agent.converge(halted)
    assert (first.storage.reason, state(host)) == ("WaitingForEarlier", None)
    await agent.fetched()
    assert (await agent.converge(halted)).holds
    assert (set(host.pool.disks[OWNER]), state(host)) == ({"root", "data"}, "ShutOff")


async def test_a_halted_guest_is_off_without_network_and_keeps_its_disks_and_seed() -> None:
    host, agent = await running()
    outcome = await agent.converge(spec(runStrategy="Halted"))
    assert (outcome.holds, outcome.power_state) == (True, "ShutOff")
    assert not host.links.interfaces
    assert set(host.pool.disks[OWNER]) == {"root", "data"}
    assert OWNER in host.seeds.seeds
    assert (await agent.converge(spec())).holds
    assert state(host) == "Running"


async def test_a_guest_that_begins_halted_gets_its_disks_and_never_runs() -> None:
    host = Host()
    outcome = await Agent(host).converge(spec(runStrategy="Halted"), passes=2)
    assert outcome.holds
    assert (state(host), set(host.pool.disks[OWNER])) == ("ShutOff", {"root", "data"})


async def test_a_guest_that_ignores_its_power_button_is_off_after_its_grace_period() -> None:
    host, agent = await running()
    host.machine.obeys_power_button = False
    halted = spec(runStrategy="Halted")
    first = await agent.converge(halted)
    assert (first.hypervisor.reason, first.hypervisor.look_again) == ("ShuttingDown", hypervisor_plan.PRESSED_EVERY)
    assert first.link == first.routing == conclude.WAITS
    host.now += 29
    waiting = await agent.converge(halted)
    assert waiting.hypervisor.look_again == pytest.approx(1.0)
    assert len(host.links.interfaces) == 2
    host.now += 1
    assert (await agent.converge(halted)).holds
    assert (state(host), len(host.links.interfaces)) == ("ShutOff", 0)


async def test_a_running_guest_is_halted_though_its_images_are_gone() -> None:
    host, agent = await running()
    host.images.held.clear()
    outcome = await agent.converge(spec(runStrategy="Halted"))
    assert outcome.hypervisor.holds
    assert state(host) == "ShutOff"


async def test_a_removed_guest_leaves_nothing(tmp_path: pathlib.Path) -> None:
    host = Host(state=str(tmp_path))
    agent = Agent(host)
    await agent.converge(spec(), passes=2)
    console = tmp_path / "console" / f"{OWNER}.log"
    console.parent.mkdir()
    console.write_text("hello")
    assert (await agent.remove()).holds
    assert host.empty()
    assert not console.exists()
    taken = host.steps
    assert (await agent.remove()).holds
    assert host.steps == taken


async def test_nothing_is_taken_from_a_guest_that_still_shuts_down() -> None:
    host, agent = await running()
    host.machine.obeys_power_button = False
    outcome = await agent.remove(grace=30)
    assert (outcome.hypervisor.reason, outcome.power_state) == ("ShuttingDown", "Running")
    assert not outcome.holds
    assert len(host.pool.disks[OWNER]) == 2
    host.now += 30
    assert (await agent.remove(grace=30)).holds
    assert host.empty()


async def test_a_lost_memory_presses_the_button_once_more_and_ends_the_same() -> None:
    host, agent = await running()
    host.machine.obeys_power_button = False
    await agent.remove(grace=30)
    host.now += 20
    fresh = Agent(host)
    assert not (await fresh.remove(grace=30)).holds
    host.now += 29
    assert not (await fresh.remove(grace=30)).holds
    host.now += 1
    assert (await fresh.remove(grace=30)).holds


async def test_a_guest_that_was_still_booting_hears_the_next_press() -> None:
    host, agent = await running()
    host.machine.obeys_power_button = False
    await agent.remove(grace=30)
    host.machine.obeys_power_button = True
    host.now += hypervisor_plan.PRESSED_EVERY
    assert (await agent.remove(grace=30)).holds


async def test_a_guest_that_keeps_stopping_gets_pauses_and_its_trust_back() -> None:
    host, agent = await running()
    for _ in range(2):
        host.machine.end(OWNER)
        assert (await agent.converge(spec())).holds
    host.machine.end(OWNER)
    outcome = await agent.converge(spec())
    assert (outcome.hypervisor.reason, outcome.hypervisor.look_again) == ("GuestKeepsStopping", 10.0)
    assert (state(host), outcome.power_state) == ("ShutOff", "ShutOff")
    host.now += 10
    on_trial = await agent.converge(spec())
    assert (on_trial.hypervisor.reason, on_trial.hypervisor.look_again) == ("GuestKeepsStopping", 30.0)
    assert state(host) == "Running"
    host.now += 30
    assert (await agent.converge(spec())).holds


async def test_a_paused_guest_that_cannot_run_on_is_started_anew_and_counted() -> None:
    host, agent = await running()
    before = host.machine.guests[OWNER].pid
    host.machine.pause(OWNER)
    assert (await agent.converge(spec())).holds
    assert host.machine.guests[OWNER].pid == before
    for _ in range(2):
        host.machine.pause(OWNER, can_run_on=False)
        assert (await agent.converge(spec())).holds
    assert host.machine.guests[OWNER].pid not in (before, None)
    host.machine.pause(OWNER, can_run_on=False)
    outcome = await agent.converge(spec())
    assert (outcome.hypervisor.reason, outcome.hypervisor.look_again) == ("GuestKeepsStopping", 10.0)


async def test_a_network_is_ready_once_the_fabric_was_told_of_every_address() -> None:
    host = Host()
    host.announced = set()
    agent = Agent(host)
    outcome = await agent.converge(spec(), passes=2)
    addresses = [address for nic in spec().interfaces for address in nic.addresses]
    assert (outcome.announced.reason, outcome.holds) == ("NotAnnounced", False)
    assert all(address in outcome.announced.detail for address in addresses)
    assert outcome.hypervisor.holds, "the guest boots meanwhile"
    assert conclude.facts(outcome, conclude.Asked(1, True, 0.0, {}))[2].reason == "NotAnnounced"
    host.announced = set(addresses)
    assert (await agent.converge(spec())).holds
    host.announced = set()
    assert (await agent.converge(spec())).holds, "from now on it is the Host that says so"
    assert host.put_back == []
    assert not (await Agent(host).converge(spec())).holds


async def test_another_size_waits_for_the_next_start() -> None:
    host, agent = await running()
    outcome = await agent.converge(spec(cpu=4))
    assert (outcome.holds, outcome.restart_required) == (True, ("cpus",))
    host.machine.end(OWNER)
    assert (await agent.converge(spec(cpu=4))).restart_required == ()


async def test_independent_failures_do_not_keep_others_from_their_work() -> None:
    host = Host(fail_at=lambda step: _no_space() if isinstance(step, storage_plan.Create) else None)
    agent = Agent(host)
    outcome = await agent.converge(spec(), passes=2)
    assert (outcome.storage.reason, outcome.storage.retry) == ("HostDiskFull", True)
    assert outcome.hypervisor == conclude.WAITS
    assert outcome.seed.holds
    assert outcome.link.holds
    assert outcome.routing.holds
    host.fail_at = nothing_fails
    assert (await agent.converge(spec())).holds


async def test_what_nobody_foresaw_is_raised_when_the_other_rooms_are_done() -> None:
    def defect(step: object) -> errors.DriverError | None:
        if isinstance(step, seed_plan.Write):
            raise ZeroDivisionError("a defect")
        return None

    host = Host(fail_at=defect)
    agent = Agent(host)
    with pytest.raises(ZeroDivisionError):
        await agent.converge(spec())
    assert len(host.links.interfaces) == 2
    assert not host.machine.guests
    await agent.fetches.close()


async def test_a_running_guest_stays_well_though_something_before_it_fails() -> None:
    host, agent = await running()
    host.links.drop(next(iter(host.links.interfaces)))
    host.fail_at = lambda step: (
        errors.Unavailable(link.Cause.FAILED, "no") if isinstance(step, link_plan.Ensure) else None
    )
    outcome = await agent.converge(spec())
    assert (outcome.link.reason, outcome.routing.reason) == ("LinkFailed", "WaitingForEarlier")
    assert (outcome.hypervisor.holds, outcome.power_state) == (True, "Running")


async def test_a_host_that_can_not_answer_says_so_and_starts_the_guest_by_its_seed() -> None:
    error = errors.Unavailable(dhcp.Cause.UNSUPPORTED, "can't hear guests that ask: Operation not permitted")
    host = Host(fail_at=lambda step: error if isinstance(step, dhcp_plan.Serve) else None)
    outcome = await Agent(host).converge(spec(), passes=2)
    assert (outcome.dhcp.reason, outcome.dhcp.retry) == ("HostUnsupported", True)
    assert (outcome.hypervisor.holds, outcome.holds, state(host)) == (True, False, "Running")


async def test_a_guest_is_answered_before_it_starts_and_until_it_is_off() -> None:
    steps: list[str] = []

    def note(step: object) -> errors.DriverError | None:
        steps.append(type(step).__name__ if not isinstance(step, dhcp_plan.Silence | link_plan.Remove) else str(step))
        return None

    host = Host(fail_at=note)
    agent = Agent(host)
    await agent.converge(spec(), passes=2)
    assert steps.index("Serve") < steps.index("Start")
    assert [answer.interface for answer in host.dhcp.kept[OWNER].answers] == sorted(
        host.links.interfaces, key=lambda name: host.links.interfaces[name].index
    )
    assert (await agent.remove()).holds
    silence = steps.index(f"answer {OWNER} no more")
    assert max(at for at, step in enumerate(steps) if step in ("ShutDown", "PowerOff")) < silence
    assert all(silence < at for at, step in enumerate(steps) if step.startswith("remove tap"))
    assert host.empty()


async def test_an_image_that_can_not_be_had_is_told_and_tried_again_with_growing_delays() -> None:
    error = errors.Unavailable(image.Cause.UNREACHABLE, "no answer")
    host = Host(fail_at=lambda step: error if isinstance(step, image_plan.Fetch) else None)
    agent = Agent(host)
    alone = spec(boot=None)
    waits = []
    for _ in range(8):
        outcome = await agent.converge(alone, passes=2)
        assert outcome.image.reason == "ImageUnreachable"
        assert outcome.image.look_again is not None
        waits.append(outcome.image.look_again)
        host.now += outcome.image.look_again
    assert waits == [2, 4, 8, 16, 32, 64, 120, 120]
    host.fail_at = nothing_fails
    assert (await agent.converge(alone, passes=2)).holds


async def test_an_image_that_is_refused_waits_for_another_url() -> None:
    error = errors.Rejected(image.Cause.CHECKSUM_MISMATCH, "other bytes")
    host = Host(fail_at=lambda step: error if isinstance(step, image_plan.Fetch) else None)
    agent = Agent(host)
    outcome = await agent.converge(spec(boot=None), passes=2)
    assert (outcome.image.reason, outcome.image.look_again) == ("ImageChecksumMismatch", 600.0)
    host.fail_at = nothing_fails
    assert not (await agent.converge(spec(boot=None), passes=2)).holds
    moved = spec().disks[0].model_dump(by_alias=True)
    moved["image"]["url"] = "http://other.example/x"
    assert (await agent.converge(spec(boot=None, disks=[moved]), passes=2)).holds


def _no_space() -> errors.DriverError:
    return errors.Unavailable(storage.Cause.NO_SPACE, "the disk is full")


class Failing:
    """Fail the n-th step, for each n that is given, once."""

    def __init__(self, numbers: set[int]) -> None:
        self._numbers = numbers
        self._asked = 0

    def __call__(self, step: object) -> errors.DriverError | None:
        self._asked += 1
        if self._asked in self._numbers:
            return errors.Unavailable(hypervisor.Cause.FAILED, f"step {self._asked} fails")
        return None


async def _lives_through(numbers: set[int]) -> None:
    host = Host(fail_at=Failing(numbers))
    agent = Agent(host)
    for goal in (spec(), spec(runStrategy="Halted"), spec()):
        for _ in range(len(numbers) + 4):
            outcome = await agent.converge(goal)
            await agent.fetched()
            host.now += 200.0
        assert outcome.holds
        assert state(host) == ("Running" if goal.run_strategy == "Always" else "ShutOff")
    for _ in range(len(numbers) + 2):
        outcome = await agent.remove()
        host.now += 200.0
    assert outcome.holds
    assert host.empty()


@given(st.sets(st.integers(1, 40), max_size=6))
@settings(deadline=None, max_examples=60)
def test_whatever_step_fails_the_end_is_the_same(numbers: set[int]) -> None:
    asyncio.run(_lives_through(numbers))


def test_every_step_is_one_that_can_fail() -> None:
    seen: set[type] = set()

    def note(step: object) -> errors.DriverError | None:
        seen.add(type(step))
        return None

    async def whole_life() -> None:
        agent = Agent(Host(fail_at=note))
        await agent.converge(spec(), passes=2)
        await agent.remove()

    asyncio.run(whole_life())
    assert {hypervisor_plan.Start, hypervisor_plan.Undefine, storage_plan.Create, link_plan.Remove} <= seen
