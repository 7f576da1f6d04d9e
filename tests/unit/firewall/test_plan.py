"""The laws of the plan of a host's firewall."""

from __future__ import annotations

import random as randoms
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from corral_drivers.firewall import plan, values
from corral_drivers.firewall.model import Element, Observed, Shared, Tap
from corral_drivers.firewall.ruleset import RuleSet

from . import strategies

Host = tuple[Shared, tuple[Tap, ...]]

hosts = st.tuples(strategies.shared, strategies.some_taps())


def applied(steps: plan.Plan, before: Observed) -> Observed:
    """What a small model of the kernel holds after the steps."""
    held, laid, judged = RuleSet(before.elements), before.laid, before.judged
    for step in steps.steps:
        match step:
            case plan.Lay(elements):
                held, laid = RuleSet(elements), True
            case plan.Change(remove, add):
                assert laid
                held.change(remove, add)
            case plan.Sever():
                judged = judged or step.everything
    return Observed(laid, judged, held.everything(), dict(held.names))


def made(host: Host) -> Observed:
    return applied(plan.plan(*host, Observed()), Observed())


@settings(deadline=None, max_examples=25)
@given(hosts, hosts)
def test_the_steps_lead_to_what_is_desired_and_then_none_is_left(desired: Host, former: Host) -> None:
    for before in (Observed(), made(former), replace(made(former), laid=False)):
        after = applied(plan.plan(*desired, before), before)
        assert not plan.plan(*desired, after)
        # But for their numbers, the rules are the same wherever one comes from.
        assert Counter(one.of for one in after.elements) == Counter(one.of for one in made(desired).elements)


@settings(deadline=None, max_examples=25)
@given(hosts)
def test_whatever_is_asked_for_is_as_the_kernel_shows_it_and_no_key_comes_twice(host: Host) -> None:
    elements = made(host).elements
    values.check(elements)
    assert max(Counter((one.of, one.key) for one in elements).values(), default=1) == 1


@settings(deadline=None, max_examples=25)
@given(hosts, hosts, st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_irrelevant(desired: Host, former: Host, random: randoms.Random) -> None:
    shared, taps = desired
    mixed = [list(some) for some in (shared.networks, shared.groups, shared.prefixes, shared.floating, taps)]
    for some in mixed:
        random.shuffle(some)
    networks, groups, prefixes, floating, others = (tuple(some) for some in mixed)
    shuffled = replace(shared, networks=networks, groups=groups, prefixes=prefixes, floating=floating)
    steps = plan.plan(shuffled, others, made(former)).steps
    same = plan.plan(shared, taps, made(former)).steps
    assert [step for step in steps if not isinstance(step, plan.Sever)] == [
        step for step in same if not isinstance(step, plan.Sever)
    ]


@settings(deadline=None, max_examples=25)
@given(hosts, hosts, st.sampled_from(["owner-1", "owner-2"]))
def test_who_is_kept_loses_nothing(desired: Host, former: Host, kept: str) -> None:
    before, (shared, taps) = made(former), desired
    others = tuple(tap for tap in taps if tap.owner != kept and tap.interface not in _taps(before, kept))
    others = tuple(replace(tap, addresses=()) for tap in others)
    after = applied(plan.plan(shared, others, before, keep=[kept]), before)
    assert _of(before, kept) <= after.elements
    assert not plan.plan(shared, others, after, keep=[kept])


def test_of_two_taps_that_claim_an_address_always_the_same_one_has_it() -> None:
    taps = [Tap(f"ct{n}", f"owner-{n}", "02:00:00:00:00:01", ("10.77.0.1",), network="a") for n in range(2)]
    seen = made((Shared(), (*taps,)))
    assert not plan.plan(Shared(), reversed(taps), seen)
    assert len([one for one in seen.elements if one.of == "homes4"]) == 1


@settings(deadline=None, max_examples=25)
@given(hosts)
def test_one_guest_after_the_other_comes_to_the_same_as_all_at_once(host: Host) -> None:
    shared, taps = host
    seen = made((shared, ()))
    for owner in ("owner-1", "owner-2"):
        own = tuple(tap for tap in taps if tap.owner == owner)
        mine = replace(seen, elements=_of(seen, owner))
        steps = plan.plan_guest(shared, own, mine)
        seen = applied(steps, seen)
        assert not plan.plan_guest(shared, own, replace(seen, elements=_of(seen, owner)))
    # What networks and groups need is the whole host's plan, which takes no tap's own away.
    for step in plan.plan(shared, taps, seen).steps:
        if isinstance(step, plan.Change):
            assert not [one for one in step.remove if one.of != "names"]


@settings(deadline=None, max_examples=25)
@given(hosts)
def test_a_guest_that_goes_takes_nothing_of_another_with_it(host: Host) -> None:
    seen = made(host)
    before = _of(seen, "owner-2")
    steps = plan.plan_guest(host[0], (), replace(seen, elements=_of(seen, "owner-1")))
    after = applied(steps, seen)
    assert not _of(after, "owner-1")
    assert _of(after, "owner-2") == before


def _taps(seen: Observed, owner: str) -> frozenset[str]:
    return frozenset(one.key[0] for one in seen.elements if one.of == "guests" and one.comment == owner)


def _of(seen: Observed, owner: str) -> frozenset[Element]:
    return RuleSet(seen.elements).of(owner)
