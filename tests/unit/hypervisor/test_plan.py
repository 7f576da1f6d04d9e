"""The laws of the hypervisor's plan, with the simulated machine as the world that it is applied to."""

from __future__ import annotations

import dataclasses
import itertools
import math

import hypothesis
from hypothesis import strategies as st

from corral_drivers.hypervisor import plan, simulated
from corral_drivers.hypervisor.model import Desired, Domain, Firmware, Observed, Power, State

from . import samples, strategies

FOREIGN = samples.AWKWARD
GRACE = 30.0


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Domain, simulated.Machine]:
    """A domain that is wanted, and a machine that has it in any state, or another version of it, or not at all."""
    domain = draw(strategies.domains(("tcg",)).filter(lambda one: one.name != FOREIGN.name))
    machine = simulated.Machine(obeys_power_button=draw(st.booleans()))
    machine.put(FOREIGN, mark=None)
    if draw(st.booleans()):
        other = draw(
            st.sampled_from((domain, dataclasses.replace(domain, cpus=65), dataclasses.replace(domain, disks=())))
        )
        machine.apply(plan.Define(other))
        if draw(st.booleans()):
            machine.apply(plan.Start(domain.uuid))
            _meddle(machine, domain.uuid, draw(st.sampled_from(("nothing", "pause", "undefine", "crash"))))
    return domain, machine


def _meddle(machine: simulated.Machine, uuid: str, how: str) -> None:
    if how == "pause":
        machine.pause(uuid)
    if how == "undefine":
        machine.apply(plan.Undefine(uuid))
    if how == "crash":
        machine.end(uuid, State.CRASHED)


def observe(machine: simulated.Machine, uuid: str) -> Observed | None:
    guest = machine.guests.get(uuid)
    if guest is None or guest.mark is None:
        return None
    return Observed(uuid, guest.mark, guest.state, guest.persistent, guest.active, guest.pid)


def settle(machine: simulated.Machine, desired: Desired) -> list[plan.Step]:
    """Plan and apply, with the clock moved by what each plan says, until it is at rest."""
    taken: list[plan.Step] = []
    now, first, last = 0.0, None, 0.0
    for _ in range(4 + 2 * int(desired.grace / plan.PRESSED_EVERY)):
        pressed = None if first is None else plan.Pressed(now - first, now - last)
        made = plan.plan(desired, observe(machine, desired.domain.uuid), pressed=pressed)
        for step in made.steps:
            machine.apply(step)
        if any(isinstance(step, plan.ShutDown) for step in made.steps):
            first, last = now if first is None else first, now
        taken += made.steps
        if made.look_again is None:
            return taken
        assert 0 < made.look_again <= desired.grace
        now += made.look_again
    raise AssertionError("the plan does not come to rest")


@hypothesis.given(world=worlds(), power=st.sampled_from(Power))
def test_steps_reach_what_is_desired_and_then_rest(world: tuple[Domain, simulated.Machine], power: Power) -> None:
    domain, machine = world
    desired = Desired(domain, power, GRACE)
    settle(machine, desired)
    seen = observe(machine, domain.uuid)
    assert seen is not None
    assert seen.persistent == plan.pinned(domain, seen.persistent)
    assert seen.state.is_active is (power is Power.RUNNING)
    assert seen.state is not State.PAUSED
    again = plan.plan(desired, seen)
    assert again.steps == ()
    assert again.look_again is None
    assert bool(again.restart_required) == (seen.active is not None and seen.active != seen.persistent)


@hypothesis.given(domain=strategies.domains(), power=st.sampled_from(Power))
def test_what_is_as_desired_needs_nothing(domain: Domain, power: Power) -> None:
    runs = power is Power.RUNNING
    state = State.RUNNING if runs else State.SHUT_OFF
    seen = Observed(domain.uuid, domain.mark, state, domain, domain if runs else None)
    assert plan.plan(Desired(domain, power, GRACE), seen) == plan.Plan()


@hypothesis.given(domain=strategies.domains(), state=st.sampled_from(State), data=st.data())
def test_a_nic_that_lost_its_tap_is_plugged_in_again_while_its_guest_runs(
    domain: Domain, state: State, data: st.DataObject
) -> None:
    taps = sorted({nic.tap for nic in domain.interfaces} | {"another"})
    lost = frozenset(data.draw(st.sets(st.sampled_from(taps))))
    active = domain if state.is_active else None
    if active is not None and data.draw(st.booleans()):
        # Taken out, by a death in the middle of it.
        active = dataclasses.replace(domain, interfaces=())
    seen = Observed(domain.uuid, domain.mark, state, domain, active)
    made = plan.plan(Desired(domain, Power.RUNNING, GRACE, lost), seen)
    again = [step for step in made.steps if isinstance(step, plan.Replug)]
    expected = [plan.Replug(domain.uuid, nic.tap) for nic in domain.interfaces if nic.tap in lost]
    assert again == (expected if state is State.RUNNING else [])


def test_a_nic_that_the_guest_has_otherwise_stays_as_it_is() -> None:
    (nic, *_) = samples.DIRECT.interfaces
    for other in (dataclasses.replace(nic, mtu=nic.mtu - 1), dataclasses.replace(nic, tap="another")):
        active = dataclasses.replace(samples.DIRECT, interfaces=(other,))
        seen = Observed(samples.DIRECT.uuid, samples.DIRECT.mark, State.RUNNING, samples.DIRECT, active)
        made = plan.plan(Desired(samples.DIRECT, Power.RUNNING, GRACE, frozenset({nic.tap, "another"})), seen)
        assert (made.steps, made.restart_required) == ((), ("interfaces",))


@hypothesis.given(world=worlds(), power=st.sampled_from(Power))
def test_foreign_domains_stay_as_they_are(world: tuple[Domain, simulated.Machine], power: Power) -> None:
    domain, machine = world
    before = dataclasses.replace(machine.guests[FOREIGN.uuid])
    settle(machine, Desired(domain, power, GRACE))
    remove(machine, domain)
    assert machine.guests == {FOREIGN.uuid: before}


@hypothesis.given(world=worlds())
def test_a_guest_that_should_run_is_never_ended(world: tuple[Domain, simulated.Machine]) -> None:
    domain, machine = world
    taken = settle(machine, Desired(domain, Power.RUNNING, GRACE))
    assert not any(isinstance(step, plan.ShutDown | plan.PowerOff | plan.Undefine) for step in taken)


@hypothesis.given(world=worlds())
def test_the_button_comes_every_few_seconds_and_before_the_plug(world: tuple[Domain, simulated.Machine]) -> None:
    domain, machine = world
    before = observe(machine, domain.uuid)
    taken = settle(machine, Desired(domain, Power.STOPPED, GRACE))
    kinds = [type(step) for step in taken if not isinstance(step, plan.Define)]
    if before is None or not before.state.is_active:
        assert kinds == []
    elif before.state is State.PAUSED:
        assert kinds == [plan.PowerOff]
    else:
        presses = math.ceil(GRACE / plan.PRESSED_EVERY)
        assert kinds == ([plan.ShutDown] if machine.obeys_power_button else [plan.ShutDown] * presses + [plan.PowerOff])


def test_between_two_presses_there_is_nothing_to_do_but_wait() -> None:
    seen = Observed(samples.DIRECT.uuid, samples.DIRECT.mark, State.RUNNING, samples.DIRECT, samples.DIRECT)
    made = plan.plan_removal(samples.DIRECT.uuid, seen, grace=30.0, pressed=plan.Pressed(first=6.0, last=1.0))
    assert made == plan.Plan(look_again=plan.PRESSED_EVERY - 1.0)
    made = plan.plan_removal(samples.DIRECT.uuid, seen, grace=7.0, pressed=plan.Pressed(first=6.0, last=1.0))
    assert made == plan.Plan(look_again=1.0)


@hypothesis.given(world=worlds())
def test_removal_leaves_nothing_and_forgets_last(world: tuple[Domain, simulated.Machine]) -> None:
    domain, machine = world
    taken = remove(machine, domain)
    assert observe(machine, domain.uuid) is None
    assert all(type(step) is not plan.Undefine for step in taken[:-1])
    assert plan.plan_removal(domain.uuid, None, grace=GRACE) == plan.Plan()


def remove(machine: simulated.Machine, domain: Domain) -> list[plan.Step]:
    taken: list[plan.Step] = []
    for pressed in itertools.chain((None,), itertools.repeat(plan.Pressed(GRACE, GRACE), 3)):
        seen = observe(machine, domain.uuid)
        for step in plan.plan_removal(domain.uuid, seen, grace=GRACE, pressed=pressed).steps:
            machine.apply(step)
            taken.append(step)
    return taken


def test_a_guest_keeps_the_machine_it_was_given() -> None:
    given = dataclasses.replace(samples.DIRECT, machine="pc-i440fx-6.0")
    wanted = dataclasses.replace(given, machine="pc")
    assert plan.pinned(wanted, given) == given
    assert plan.pinned(wanted, None) == wanted
    assert plan.pinned(dataclasses.replace(wanted, machine="q35"), given).machine == "q35"


def test_a_host_that_finds_another_accelerator_changes_no_guest_that_is_there() -> None:
    machine = simulated.Machine()
    given = dataclasses.replace(samples.DIRECT, accelerator="kvm")
    for step in plan.plan(Desired(given, Power.RUNNING, GRACE), None).steps:
        machine.apply(step)
    later = dataclasses.replace(given, accelerator="tcg")
    assert plan.plan(Desired(later, Power.RUNNING, GRACE), observe(machine, given.uuid)) == plan.Plan()
    machine.end(given.uuid)
    assert plan.plan(Desired(later, Power.RUNNING, GRACE), observe(machine, given.uuid)).steps == (
        plan.Start(given.uuid),
    )
    undefined = plan.plan(Desired(later, Power.STOPPED, GRACE), None)
    assert undefined.steps[0] == plan.Define(later)


def test_an_accelerator_that_nobody_gave_is_not_kept() -> None:
    given = dataclasses.replace(samples.DIRECT, accelerator="lxc")
    assert plan.pinned(samples.DIRECT, given) == samples.DIRECT


def test_a_guest_keeps_the_uefi_that_its_variables_were_made_for() -> None:
    given = samples.UEFI
    assert given.uefi is not None
    newer = dataclasses.replace(given.uefi, firmware=Firmware("/newer/code", "/newer/vars"))
    wanted = dataclasses.replace(given, uefi=newer)
    assert plan.pinned(wanted, given) == given
    assert plan.pinned(wanted, dataclasses.replace(given, uefi=None)) == wanted
    assert plan.pinned(dataclasses.replace(wanted, uefi=None), given).uefi is None


def test_a_plan_reads_as_its_steps() -> None:
    made = plan.plan(Desired(samples.DIRECT, Power.RUNNING, GRACE), None)
    assert str(made) == f"define {samples.DIRECT.name}\nstart {samples.DIRECT.uuid}"
    assert str(plan.Plan()) == "nothing to do"
