from __future__ import annotations

import random as randomness

import hypothesis
from hypothesis import strategies as st

from corral_drivers.image import plan
from corral_drivers.image.model import Format, Held, Image

SUMS = st.sampled_from([digit * 64 for digit in "0123456789abcdef"])
IMAGES = st.frozensets(
    st.builds(Image, SUMS, st.sampled_from(["http://a/x", "https://b/y"]), st.sampled_from(Format)), max_size=12
)
HELD = st.frozensets(st.builds(Held, SUMS, st.sampled_from(Format), st.just("/x"), st.just(1), st.just(1)), max_size=12)


def applied(observed: frozenset[Held], steps: plan.Plan) -> frozenset[Held]:
    fetched = {Held(step.image.sha256, step.image.format, "/x", 1, 1) for step in steps.steps}
    return observed | fetched


def contents(images: frozenset[Image] | frozenset[Held]) -> set[tuple[str, Format]]:
    return {(image.sha256, image.format) for image in images}


@hypothesis.given(desired=IMAGES, observed=HELD)
def test_after_the_plan_all_that_is_wanted_is_held_and_nothing_went(
    desired: frozenset[Image], observed: frozenset[Held]
) -> None:
    after = applied(observed, plan.plan(desired, observed))
    assert contents(after) == contents(desired) | contents(observed)
    assert not plan.plan(desired, after)


@hypothesis.given(desired=IMAGES)
def test_what_is_held_is_not_fetched(desired: frozenset[Image]) -> None:
    observed = [Held(image.sha256, image.format, "/x", 1, 1) for image in desired]
    assert not plan.plan(desired, observed)


@hypothesis.given(desired=IMAGES, observed=HELD, random=st.randoms())
def test_the_order_of_the_input_does_not_matter(
    desired: frozenset[Image], observed: frozenset[Held], random: randomness.Random
) -> None:
    shuffled = list(desired)
    random.shuffle(shuffled)
    assert plan.plan(shuffled, sorted(observed)) == plan.plan(sorted(desired), observed)


def test_a_plan_reads_well_and_shows_no_secret() -> None:
    image = Image("ab" * 32, "https://user:word@example.org/d/root.qcow2?token=secret#x", Format.QCOW2)
    assert str(plan.plan([image], [])) == "fetch abababababab from https://example.org/d/root.qcow2"
