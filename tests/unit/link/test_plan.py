"""The laws of the plan of links."""

from __future__ import annotations

import pathlib
import random as randoms

from hypothesis import given
from hypothesis import strategies as st

from corral_drivers.link import plan
from corral_drivers.link.model import HOST_MAC, Observed, Tap

OWNER = "9f0c"
GOLDEN = pathlib.Path(__file__).parent / "golden"

names = st.sampled_from([f"tap{number}" for number in range(6)])
mtus = st.sampled_from([1280, 1400, 1500])
desired = st.lists(st.builds(Tap, names, st.just(OWNER), mtus), unique_by=lambda tap: tap.name)
observed = st.lists(
    st.builds(
        Observed,
        names,
        st.just(OWNER),
        mtus,
        st.sampled_from([HOST_MAC, "fe:00:00:00:00:01"]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda tap: tap.name,
)


def shown(taps: list[Tap]) -> list[Observed]:
    """The taps as a kernel shows them once they are as asked for."""
    return [Observed(tap.name, tap.owner, tap.mtu, HOST_MAC, up=True, carrier=False) for tap in taps]


def applied(steps: plan.Plan, before: list[Observed]) -> list[Observed]:
    """What a small model of the kernel shows after the steps."""
    have = {tap.name: tap for tap in before}
    for step in steps.steps:
        match step:
            case plan.Ensure(tap):
                (have[tap.name],) = shown([tap])
            case plan.Remove(name):
                del have[name]
    return sorted(have.values())


@given(desired)
def test_what_is_as_desired_needs_no_step(taps: list[Tap]) -> None:
    assert not plan.plan(taps, shown(taps))


@given(desired, observed)
def test_the_steps_lead_to_what_is_desired_and_then_none_is_left(taps: list[Tap], before: list[Observed]) -> None:
    after = applied(plan.plan(taps, before), before)
    assert [(tap.name, tap.mtu, tap.mac, tap.up, tap.gateway) for tap in after] == sorted(
        (tap.name, tap.mtu, HOST_MAC, True, True) for tap in taps
    )
    assert not plan.plan(taps, after)


@given(desired, observed)
def test_no_step_names_a_tap_that_is_neither_desired_nor_observed(taps: list[Tap], before: list[Observed]) -> None:
    known = {tap.name for tap in taps} | {tap.name for tap in before}
    for step in plan.plan(taps, before).steps:
        assert (step.name if isinstance(step, plan.Remove) else step.tap.name) in known


@given(desired, observed, st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_irrelevant(taps: list[Tap], before: list[Observed], random: randoms.Random) -> None:
    shuffled, seen = list(taps), list(before)
    random.shuffle(shuffled)
    random.shuffle(seen)
    assert plan.plan(shuffled, seen) == plan.plan(taps, before)


def test_a_plan_prints_for_a_person() -> None:
    before = [
        Observed("tap1", OWNER, 1500, HOST_MAC, up=True, carrier=True),
        Observed("tap2", OWNER, 1400, HOST_MAC, up=True, carrier=True),
        Observed("tap9", OWNER, 1400, HOST_MAC, up=False, carrier=False),
    ]
    steps = plan.plan([Tap("tap0", OWNER, 1400), Tap("tap1", OWNER, 1400), Tap("tap2", OWNER, 1400)], before)
    assert f"{steps}\n" == (GOLDEN / "plan.txt").read_text()
