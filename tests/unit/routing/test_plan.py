"""The laws of the plan of routes and neighbours."""

from __future__ import annotations

import pathlib
import random as randoms

from hypothesis import given
from hypothesis import strategies as st

from corral_drivers.routing import plan
from corral_drivers.routing.model import Blackhole, Neighbour, Route, Table

GOLDEN = pathlib.Path(__file__).parent / "golden"

addresses = st.sampled_from(["10.77.0.1", "10.77.0.2", "10.77.0.3", "fd00::1", "fd00::2"])
interfaces = st.sampled_from(["tap0", "tap1", "tap2"])
routes = st.builds(
    lambda address, interface: Route(f"{address}/{128 if ':' in address else 32}", interface), addresses, interfaces
)
neighbours = st.builds(Neighbour, addresses, st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]), interfaces)
tables = st.builds(
    lambda some, others: Table(tuple(sorted(some)), tuple(sorted(others))),
    st.lists(routes, unique_by=lambda route: route.prefix),
    st.lists(neighbours, unique_by=lambda one: (one.address, one.interface)),
)


def applied(steps: plan.Plan, before: Table) -> Table:
    """What a small model of the kernel holds after the steps: one route a prefix, one neighbour an address and link."""
    ways = {route.prefix: route for route in before.routes}
    known = {(one.address, one.interface): one for one in before.neighbours}
    for step in steps.steps:
        match step:
            case plan.SetNeighbour(one):
                known[one.address, one.interface] = one
            case plan.SetRoute(route):
                ways[route.prefix] = route
            case plan.RemoveRoute(route):
                assert ways.pop(route.prefix) == route
            case plan.RemoveNeighbour(one):
                assert known.pop((one.address, one.interface)) == one
    return Table(tuple(sorted(ways.values())), tuple(sorted(known.values())))


@given(tables)
def test_what_is_as_desired_needs_no_step(table: Table) -> None:
    assert not plan.plan(table, table)


@given(tables, tables)
def test_the_steps_lead_to_what_is_desired_and_then_none_is_left(desired: Table, before: Table) -> None:
    after = applied(plan.plan(desired, before), before)
    assert after == desired
    assert not plan.plan(desired, after)


@given(tables, tables)
def test_no_step_touches_what_is_neither_desired_nor_observed(desired: Table, before: Table) -> None:
    ours = {*desired.routes, *desired.neighbours, *before.routes, *before.neighbours}
    for step in plan.plan(desired, before).steps:
        match step:
            case plan.SetRoute(one) | plan.RemoveRoute(one) | plan.SetNeighbour(one) | plan.RemoveNeighbour(one):
                assert one in ours


@given(tables, tables, st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_irrelevant(desired: Table, before: Table, random: randoms.Random) -> None:
    def shuffled(table: Table) -> Table:
        some, others = list(table.routes), list(table.neighbours)
        random.shuffle(some)
        random.shuffle(others)
        return Table(tuple(some), tuple(others))

    assert plan.plan(shuffled(desired), shuffled(before)) == plan.plan(desired, before)


@given(tables, tables)
def test_a_prefix_that_moves_is_never_without_a_route(desired: Table, before: Table) -> None:
    kept = {route.prefix for route in desired.routes} & {route.prefix for route in before.routes}
    removed = {step.route.prefix for step in plan.plan(desired, before).steps if isinstance(step, plan.RemoveRoute)}
    assert not kept & removed


holes = st.lists(st.sampled_from(["10.77.0.0/26", "10.77.0.64/26", "fd77::/112"]).map(Blackhole))


@given(holes, holes)
def test_blackholes_become_what_is_desired_and_no_other_is_touched(
    desired: list[Blackhole], before: list[Blackhole]
) -> None:
    after = set(before)
    for step in plan.plan_blackholes(desired, before).steps:
        match step:
            case plan.SetBlackhole(one):
                assert one not in after
                after.add(one)
            case plan.RemoveBlackhole(one):
                after.remove(one)
    assert after == set(desired)
    assert not plan.plan_blackholes(desired, after)
    assert plan.plan_blackholes(desired[::-1], before[::-1]) == plan.plan_blackholes(desired, before)


def test_a_plan_of_blackholes_prints_for_a_person() -> None:
    steps = plan.plan_blackholes([Blackhole("10.77.0.0/26")], [Blackhole("fd77::/112")])
    assert str(steps).splitlines() == ["blackhole 10.77.0.0/26", "no blackhole fd77::/112"]


def test_a_plan_prints_for_a_person() -> None:
    mac = "02:00:00:00:00:01"
    before = Table(
        (Route("10.77.0.2/32", "tap0"), Route("10.77.0.9/32", "tap9")),
        (Neighbour("10.77.0.2", mac, "tap0"), Neighbour("10.77.0.9", mac, "tap9")),
    )
    desired = Table(
        (Route("10.77.0.1/32", "tap0"), Route("10.77.0.2/32", "tap1"), Route("fd00::1/128", "tap0")),
        (Neighbour("10.77.0.1", mac, "tap0"), Neighbour("10.77.0.2", mac, "tap1"), Neighbour("fd00::1", mac, "tap0")),
    )
    assert f"{plan.plan(desired, before)}\n" == (GOLDEN / "plan.txt").read_text()
