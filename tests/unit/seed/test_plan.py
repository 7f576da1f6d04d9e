from __future__ import annotations

import pytest

from corral_drivers.seed import plan
from corral_drivers.seed.model import Route, Seed
from corral_drivers.seed.plan import Remove, Write

OLD = Seed("u1", "u1-1", "web", ())
NEW = Seed("u1", "u1-2", "web", ())


def applied(observed: Seed | None, steps: plan.Plan) -> Seed | None:
    for step in steps.steps:
        observed = step.seed if isinstance(step, Write) else None
    return observed


@pytest.mark.parametrize("observed", [None, OLD, NEW])
@pytest.mark.parametrize("desired", [None, OLD, NEW])
def test_the_plan_reaches_what_is_desired_and_then_is_empty(desired: Seed | None, observed: Seed | None) -> None:
    steps = plan.plan(desired, observed, "u1")
    assert applied(observed, steps) == desired
    assert bool(steps) == (desired != observed)
    assert not plan.plan(desired, applied(observed, steps), "u1")


def test_a_plan_reads_well() -> None:
    assert str(plan.plan(OLD, None, "u1")) == "write the seed of u1"
    assert str(plan.plan(None, OLD, "u1")) == "remove the seed of u1"
    assert plan.plan(None, OLD, "u1").steps == (Remove("u1"),)


def test_the_way_to_everything_is_the_default_route() -> None:
    assert Route("0.0.0.0/0", "169.254.1.1") == Route("default", "169.254.1.1")
    assert Route("::/0", "fe80::1") == Route("default", "fe80::1")
    assert Route("0.0.0.0/0", "fe80::1").to == "0.0.0.0/0"
