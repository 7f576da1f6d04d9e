"""The laws of the plan of FRR's statements."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.bgp import plan, port, simulated
from corral_drivers.bgp.frr import render
from corral_drivers.bgp.model import Cause, Desired, Lines, Neighbor, Observed, Speaker

from .speakers import MARK, SPEAKERS, speakers

GOLDEN = pathlib.Path(__file__).parent / "golden"
SETTINGS = port.Settings("c10d", "4057")

NOTHING = Observed((), (), None)
STRANGE: Lines = (
    ("router bgp 64999",),
    ("router bgp 64999", "neighbor up1 interface remote-as external"),
    ("router bgp 4200000011", "bgp always-compare-med"),
    ("router bgp 4200000011", "neighbor up7 interface remote-as 7"),
    ("router bgp 4200000011", "neighbor up7 bfd"),
    ("router bgp 4200000011", "address-family ipv4 unicast", "neighbor up7 activate"),
    ("ip prefix-list leak seq 5 permit any",),
)


def desired(speaker: Speaker | None, *, take_over: bool = False) -> Desired:
    return render.desired(speaker, MARK, take_over=take_over)


def holding(want: Desired) -> simulated.World:
    """A host's daemons that have exactly this."""
    running = {"zebra": dict.fromkeys(want.zebra), "bgpd": dict.fromkeys(want.bgpd)}
    return simulated.World(running=running, file=want.file)


async def applied(steps: plan.Plan, world: simulated.World) -> Observed:
    daemons = simulated.Simulated(SETTINGS, world=world)
    for step in steps.steps:
        await daemons.apply(step)
    return await daemons.observe()


def same(observed: Observed, want: Desired) -> bool:
    return (set(observed.zebra), set(observed.bgpd), observed.file) == (set(want.zebra), set(want.bgpd), want.file)


@settings(deadline=None)
@given(speakers)
def test_what_is_as_desired_needs_no_step(speaker: Speaker) -> None:
    want = desired(speaker)
    assert not plan.plan(want, Observed(want.zebra, want.bgpd, want.file))
    assert not plan.plan(want, Observed(want.zebra[::-1], want.bgpd[::-1], want.file))


@settings(deadline=None)
@given(st.one_of(st.none(), speakers), st.one_of(st.none(), speakers), st.sets(st.sampled_from(STRANGE)))
async def test_the_steps_lead_to_what_is_desired_and_then_none_is_left(
    before: Speaker | None, after: Speaker | None, strange: set[tuple[str, ...]]
) -> None:
    world, want = holding(desired(before)), desired(after)
    if before is not None:
        for path in sorted(strange):
            world.give("bgpd", path)
    observed = await simulated.Simulated(SETTINGS, world=world).observe()
    reached = await applied(plan.plan(want, observed), world)
    assert same(reached, want)
    assert not plan.plan(want, reached)


@settings(deadline=None)
@given(speakers, speakers)
async def test_where_frr_gave_all_statements_to_both_daemons_it_is_the_same(before: Speaker, after: Speaker) -> None:
    former, want = desired(before), desired(after)
    world = holding(former)
    # As after a start from the file: zebra knows prefix lists and route maps too, though not all of a route map.
    for path in former.bgpd:
        if "prefix-list" in path[0] or path[0].startswith("route-map"):
            world.give("zebra", path)
    observed = await simulated.Simulated(SETTINGS, world=world).observe()
    assert not plan.plan(former, observed)
    reached = await applied(plan.plan(want, observed), world)
    assert set(want.zebra) <= set(reached.zebra) <= want.lines
    assert not plan.plan(want, reached)


@settings(deadline=None)
@given(st.one_of(st.none(), speakers), st.sets(st.sampled_from(STRANGE), min_size=1))
def test_a_foreign_configuration_is_never_touched(speaker: Speaker | None, strange: set[tuple[str, ...]]) -> None:
    observed = Observed((), tuple(sorted(strange)), "ip route 192.0.2.0/24 blackhole\n")
    if speaker is None:
        assert not plan.plan(desired(None), observed)
        return
    with pytest.raises(errors.Rejected) as refused:
        plan.plan(desired(speaker), observed)
    assert refused.value.cause is Cause.FOREIGN
    assert plan.plan(desired(speaker, take_over=True), observed)


@settings(deadline=None)
@given(speakers)
def test_a_first_round_that_was_cut_short_at_any_statement_is_gone_on_with(speaker: Speaker) -> None:
    want = desired(speaker)
    for done in range(len(want.bgpd)):
        assert plan.plan(want, Observed((), want.bgpd[:done], None))
    assert plan.plan(want, Observed(want.zebra, want.bgpd, None)).steps == (plan.Write(want.file),)


@settings(deadline=None)
@given(speakers, speakers)
def test_what_goes_of_a_prefix_list_goes_from_its_end(before: Speaker, after: Speaker) -> None:
    former = desired(before)
    for step in plan.plan(desired(after), Observed(former.zebra, former.bgpd, former.file)).steps:
        if isinstance(step, plan.Configure):
            places = [former.bgpd.index(path) for path in step.remove if path in former.bgpd]
            assert places == sorted(places, reverse=True)


def test_a_plan_prints_for_a_person() -> None:
    before = desired(SPEAKERS["unnumbered"])
    observed = Observed(before.zebra, before.bgpd, before.file)
    after = dataclasses.replace(
        SPEAKERS["unnumbered"],
        addresses=("100.87.0.12", "fd87::11"),
        neighbors=(Neighbor("up1", asn=64512),),
        blocks=("10.77.0.64/26", "10.77.0.0/26"),
    )
    text = f"{plan.plan(desired(after), observed)}\n"
    if os.environ.get("CORRAL_GOLDEN") == "write":
        (GOLDEN / "plan.txt").write_text(text)
    assert text == (GOLDEN / "plan.txt").read_text()
