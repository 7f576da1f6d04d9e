"""The contract of the hypervisor's port, on the simulated machine and on libvirt: states, not calls."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator

import pytest

from corral_drivers import errors
from corral_drivers.hypervisor import plan, port
from corral_drivers.hypervisor.model import Cause, Desired, Disk, Domain, Interface, Mark, Observed, Power, State
from corral_lab.host import namespace

from . import hypervisor_fixtures as fixtures


@pytest.fixture(scope="module", params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[namespace.Host | None]:
    """Where the hypervisor is: nowhere, or on a lab host."""
    if request.param == "simulated":
        yield None
        return
    with fixtures.lab_host(tmp_path_factory.mktemp("hv")) as host:
        yield host


@pytest.fixture
def rig(place: namespace.Host | None) -> Iterator[fixtures.Rig]:
    made: fixtures.Rig = fixtures.SimulatedRig() if place is None else fixtures.LibvirtRig(place)
    yield made
    made.close()


@pytest.fixture
async def driver(rig: fixtures.Rig) -> AsyncIterator[port.Hypervisor]:
    made = rig.driver()
    yield made
    await made.close()


async def converge(driver: port.Hypervisor, domain: Domain, power: Power) -> plan.Plan:
    """One pass as the agent makes it, with a guest that gets no time to shut down."""
    seen = await driver.observe(domain.uuid)
    steps = plan.plan(Desired(domain, power, grace=0.0), seen)
    for step in steps.steps:
        await driver.apply(step)
    return steps


async def seen(driver: port.Hypervisor, domain: Domain) -> Observed:
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    return observed


async def test_facts_are_of_a_host_that_can_run_guests(driver: port.Hypervisor) -> None:
    facts = await driver.facts()
    assert facts.cpus >= 1
    assert facts.memory >= 1 << 30
    assert facts.accelerator in ("kvm", "tcg")
    assert facts.hypervisor
    assert facts.version[0].isdigit()
    assert await driver.facts() == facts


async def test_a_defined_domain_is_observed_as_it_was_defined(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("defined")
    await driver.apply(plan.Define(domain))
    observed = await seen(driver, domain)
    assert observed.persistent == plan.pinned(domain, observed.persistent)
    assert observed.persistent is not None
    assert observed.persistent.machine.startswith("pc-i440fx-")
    assert (observed.state, observed.active, observed.pid) == (State.SHUT_OFF, None, None)
    assert observed.mark == domain.mark


async def test_plans_converge_and_come_to_rest(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("converging")
    assert await converge(driver, domain, Power.RUNNING)
    running = await seen(driver, domain)
    assert running.state is State.RUNNING
    assert running.active == running.persistent
    assert running.pid
    assert await converge(driver, domain, Power.RUNNING) == plan.Plan()

    assert await converge(driver, domain, Power.STOPPED)
    assert (await seen(driver, domain)).state is State.SHUT_OFF
    assert await converge(driver, domain, Power.STOPPED) == plan.Plan()

    for step in plan.plan_removal(domain.uuid, await driver.observe(domain.uuid), grace=0.0).steps:
        await driver.apply(step)
    assert await driver.observe(domain.uuid) is None
    assert domain.name not in rig.names()


async def test_removing_a_running_guest_leaves_nothing(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("removed")
    await converge(driver, domain, Power.RUNNING)
    for step in plan.plan_removal(domain.uuid, await driver.observe(domain.uuid), grace=0.0).steps:
        await driver.apply(step)
    assert await driver.observe_all() == ()
    assert rig.names() == set()


async def test_every_step_may_be_repeated(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("repeated")
    steps = (plan.Define(domain), plan.Start(domain.uuid), plan.Resume(domain.uuid), plan.ShutDown(domain.uuid))
    for step in (*steps, plan.PowerOff(domain.uuid), plan.Undefine(domain.uuid)):
        await driver.apply(step)
        once = await driver.observe(domain.uuid)
        if isinstance(step, plan.Resume) or once is None or step == plan.ShutDown(domain.uuid):
            # What a guest makes of its power button is the guest's.
            await driver.apply(step)
            continue
        await driver.apply(step)
        assert await driver.observe(domain.uuid) == once
    assert await driver.observe(domain.uuid) is None


async def test_steps_on_a_domain_that_is_not_there(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    gone = rig.domain("gone").uuid
    for verb in (plan.ShutDown, plan.PowerOff, plan.Undefine):
        await driver.apply(verb(gone))
    for step in (plan.Start(gone), plan.Resume(gone), plan.Replug(gone, "tap0")):
        with pytest.raises(errors.Rejected) as refused:
            await driver.apply(step)
        assert refused.value.cause is Cause.FAILED
        assert gone in refused.value.message


async def test_a_paused_guest_is_resumed(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("paused")
    await converge(driver, domain, Power.RUNNING)
    rig.pause(domain.uuid)
    assert (await seen(driver, domain)).state is State.PAUSED
    await converge(driver, domain, Power.RUNNING)
    assert (await seen(driver, domain)).state is State.RUNNING


async def test_a_guest_that_is_off_has_no_nic_to_plug_in(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("unplugged")
    await converge(driver, domain, Power.STOPPED)
    before = await seen(driver, domain)
    await driver.apply(plan.Replug(domain.uuid, domain.interfaces[0].tap))
    assert await seen(driver, domain) == before


async def test_a_change_waits_for_the_guests_next_start(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("changed")
    await converge(driver, domain, Power.RUNNING)
    before = await seen(driver, domain)
    larger = dataclasses.replace(domain, cpus=2, memory=64 << 20)
    assert (await converge(driver, larger, Power.RUNNING)).restart_required == ("cpus", "memory")
    after = await seen(driver, domain)
    assert after.persistent == plan.pinned(larger, after.persistent)
    assert (after.active, after.pid) == (before.active, before.pid)
    assert (await converge(driver, larger, Power.RUNNING)).steps == ()

    await converge(driver, larger, Power.STOPPED)
    await converge(driver, larger, Power.RUNNING)
    assert (await converge(driver, larger, Power.RUNNING)) == plan.Plan()


async def test_a_definition_that_somebody_took_away_is_put_back(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("undefined")
    await converge(driver, domain, Power.RUNNING)
    before = await seen(driver, domain)
    rig.undefine(domain.uuid)
    bare = await seen(driver, domain)
    assert (bare.persistent, bare.active, bare.state) == (None, before.active, State.RUNNING)
    assert (await converge(driver, domain, Power.RUNNING)).restart_required == ()
    assert await driver.observe(domain.uuid) == before


async def test_a_killed_guest_is_started_again(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    domain = rig.domain("killed")
    heard: list[str] = []
    driver.watch(heard.append)
    await converge(driver, domain, Power.RUNNING)
    before = await seen(driver, domain)
    await fixtures.eventually(lambda: domain.uuid in heard)
    heard.clear()
    rig.kill(domain.uuid, before.pid)
    await fixtures.eventually(lambda: domain.uuid in heard)
    dead = await seen(driver, domain)
    assert (dead.active, dead.pid) == (None, None)
    assert not dead.state.is_active
    await converge(driver, domain, Power.RUNNING)
    after = await seen(driver, domain)
    assert after.state is State.RUNNING
    assert after.pid != before.pid


async def test_a_driver_without_memory_sees_the_same(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    running, stopped = rig.domain("a-running"), rig.domain("a-stopped")
    await converge(driver, running, Power.RUNNING)
    await converge(driver, stopped, Power.STOPPED)
    before = await driver.observe_all()
    await driver.close()
    anew = rig.driver()
    try:
        assert await anew.observe_all() == before
        assert [one.uuid for one in before] == sorted((running.uuid, stopped.uuid))
        assert await converge(anew, running, Power.RUNNING) == plan.Plan()
    finally:
        await anew.close()


async def test_domains_of_others_do_not_exist(rig: fixtures.Rig, driver: port.Hypervisor) -> None:
    others: dict[str, Mark | None] = {
        "unmarked": None,
        "of-a-cloud": Mark("cloud-2", fixtures.HOST, "n", "x", "u", 1),
        "of-a-host": Mark(fixtures.CLOUD, "host-2", "n", "x", "u", 1),
    }
    domains = {name: rig.domain(name) for name in others}
    for name, mark in others.items():
        rig.plant(domains[name], mark=mark)
    ours = rig.domain("ours")
    await driver.apply(plan.Define(ours))

    assert [one.uuid for one in await driver.observe_all()] == [ours.uuid]
    for domain in domains.values():
        assert await driver.observe(domain.uuid) is None
        forbidden = (plan.Start, plan.Resume, plan.ShutDown, plan.PowerOff, plan.Undefine)
        taken = (plan.Define(domain), plan.Define(dataclasses.replace(ours, name=domain.name)))
        for step in (*taken, *(verb(domain.uuid) for verb in forbidden), plan.Replug(domain.uuid, "tap0")):
            with pytest.raises(errors.Rejected) as refused:
                await driver.apply(step)
            assert refused.value.cause is Cause.NAME_TAKEN
    assert rig.names() == {*others, "ours"}

    neighbour = rig.driver(cloud="cloud-2")
    try:
        assert [one.mark.cloud for one in await neighbour.observe_all()] == ["cloud-2"]
    finally:
        await neighbour.close()


@pytest.mark.parametrize(
    "fault",
    [
        {"memory": 0},
        {"memory": (1 << 20) + 1},
        {"cpus": 0},
        {"accelerator": "xen"},
        {"name": "a/b"},
        {"name": "bell\a"},
        {"uuid": "none"},
        {"console_log": "relative"},
        {"interfaces": (Interface("t", "52:54:00:AA:00:01", 1500, 3),)},
        {"disks": (Disk("vda", "/d", "raw", 3, "x"), Disk("vda", "/d", "raw", 4, "x"))},
        {"disks": (Disk("vda", "/d", "raw", 2, "x"),)},
    ],
    ids=str,
)
async def test_what_no_hypervisor_can_keep_is_refused(
    rig: fixtures.Rig, driver: port.Hypervisor, fault: dict[str, object]
) -> None:
    domain = dataclasses.replace(rig.domain("faulty"), **fault)  # type: ignore[arg-type]  # a row of the table
    with pytest.raises(errors.Rejected) as refused:
        await driver.apply(plan.Define(domain))
    assert refused.value.cause is Cause.UNSUPPORTED
    assert rig.names() == set()
