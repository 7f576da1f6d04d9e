from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import deadlines, reasons
from corral.api.v1alpha1 import conditions as api_conditions
from corral.conclude import conditions

from .said import NAMES, NOW, after, is_told_well, message, told, was

CHAIN = ("Scheduled", "ImageReady", "StorageReady")
GOOD = {"Scheduled": "Placed", "ImageReady": "Held", "StorageReady": "DisksReady"}


def facts(*statuses: str) -> tuple[conditions.Fact, ...]:
    """The chain with these statuses: what does not hold waits."""
    made = {"True": conditions.true, "False": conditions.false, "Unknown": conditions.unknown}
    return tuple(
        made[status](kind, GOOD[kind] if status == "True" else "WaitingForEarlier")
        for kind, status in zip(CHAIN, statuses, strict=True)
    )


def write(
    new: tuple[conditions.Fact, ...],
    before: tuple[api_conditions.Condition, ...] = (),
    now: datetime.datetime = NOW,
) -> tuple[api_conditions.Condition, ...]:
    return conditions.written(new, before, generation=4, now=now, names=NAMES)


def test_a_time_moves_with_its_status_and_with_nothing_else() -> None:
    first = write((conditions.false("ImageReady", "ImageFetching"),))
    other = write((conditions.false("ImageReady", "ImageUnreachable", "No answer"),), first, after(10))
    moved = write((conditions.true("ImageReady", "Held"),), other, after(20))
    assert [one[0].last_transition_time for one in (first, other, moved)] == [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:20Z",
    ]


def test_a_time_says_since_when_it_does_not_hold_whether_false_or_unknown() -> None:
    first = write((conditions.false("AgentConnected", "AgentSilent"),))
    swayed = write((conditions.unknown("AgentConnected", "AgentSilent"),), first, after(30))
    back = write((conditions.false("AgentConnected", "AgentSilent"),), swayed, after(50))
    assert [one[0].last_transition_time for one in (swayed, back)] == ["2026-01-31T12:00:00Z"] * 2


def test_who_sways_between_false_and_unknown_does_not_escape_the_deadline() -> None:
    allowed = deadlines.DEADLINES["Scheduled"]
    before: tuple[api_conditions.Condition, ...] = ()
    for number in range(10):
        now = after(number * allowed / 10)
        new = facts("False" if number % 2 else "Unknown", "Unknown", "Unknown")
        assert late(new, before, now) == (None, allowed - number * allowed / 10)
        before = write(new, before, now)
    assert late(facts("False", "Unknown", "Unknown"), before, after(allowed)) == ("Scheduled", None)


def test_who_writes_a_status_owns_all_its_conditions() -> None:
    before = (was("Stalled", "True"), was("Ready", "True"))
    assert told(write((conditions.true("Ready", "Running"),), before)) == {"Ready": ("True", "Running")}


def test_a_message_is_the_detail_and_the_next_command() -> None:
    new = (conditions.false("Scheduled", "ImageNotFound", "There is no ClusterImage debian"),)
    assert message(write(new), "Scheduled") == (
        "There is no ClusterImage debian. Next: kubectl get clusterimages.corral.dev,images.corral.dev -n shop"
    )


def test_a_name_that_nobody_gave_is_empty() -> None:
    written = conditions.written(
        (conditions.false("Ready", "AgentSilent"),), (), generation=1, now=NOW, names={"name": "x"}
    )
    assert written[0].message.endswith("read the agent's log on host ")


@given(detail=st.text(max_size=3000), code=st.sampled_from(sorted(reasons.CATALOGUE)))
def test_messages_fit_and_keep_the_next_command(detail: str, code: str) -> None:
    written = write((conditions.Fact("Ready", "False", code, detail),))[0]
    assert len(written.message) <= conditions.LONGEST_MESSAGE
    assert written.message.endswith(reasons.reason(code).next.format(**NAMES))


def test_what_an_agent_said_is_repeated_with_one_next_command() -> None:
    theirs = write((conditions.false("ImageReady", "ImageUnreachable", "No answer from images.test"),))[0]
    ours = write((conditions.repeated(theirs),))[0]
    assert ours.message == theirs.message
    assert ours.message.count("Next:") == 1


def test_a_reason_of_a_newer_agent_is_repeated_as_one_that_is_not_known() -> None:
    theirs = was("ImageReady", "False").model_copy(update={"reason": "MoonInTheWay", "message": "The moon is there."})
    ours = write((conditions.repeated(theirs),))[0]
    assert ours.reason == "ReasonNotKnown"
    assert ours.message.startswith("The moon is there. Next: ")


# The chain: one deadline at a time, from when the earlier ones held.


def late(
    new: tuple[conditions.Fact, ...], before: tuple[api_conditions.Condition, ...], now: datetime.datetime
) -> tuple[str | None, float | None]:
    fact, left = conditions.overdue(new, before, now)
    return (None if fact is None else fact.type), left


def test_a_deadline_begins_when_it_is_first_seen() -> None:
    assert late(facts("False", "Unknown", "Unknown"), (), NOW) == (None, deadlines.DEADLINES["Scheduled"])


def test_a_deadline_passes() -> None:
    new, before = facts("False", "Unknown", "Unknown"), (was("Scheduled", "False"),)
    allowed = deadlines.DEADLINES["Scheduled"]
    assert late(new, before, after(allowed - 1)) == (None, 1)
    assert late(new, before, after(allowed)) == ("Scheduled", None)


def test_what_waits_for_earlier_ones_begins_when_they_hold() -> None:
    new = facts("True", "True", "Unknown")
    before = (was("Scheduled", "True", 0), was("ImageReady", "True", 1000), was("StorageReady", "Unknown", 0))
    allowed = deadlines.DEADLINES["StorageReady"]
    assert late(new, before, after(1010)) == (None, allowed - 10)
    assert late(new, before, after(1000 + allowed)) == ("StorageReady", None)


def test_in_the_pass_in_which_an_earlier_one_comes_true_the_next_one_has_all_its_time() -> None:
    before = (was("Scheduled", "True"), was("ImageReady", "False"), was("StorageReady", "Unknown"))
    allowed = deadlines.DEADLINES["StorageReady"]
    assert late(facts("True", "True", "Unknown"), before, after(1700)) == (None, allowed)


def test_what_breaks_anew_has_all_its_time() -> None:
    before = tuple(was(kind, "True") for kind in CHAIN)
    assert late(facts("False", "True", "True"), before, after(9999)) == (None, deadlines.DEADLINES["Scheduled"])


def test_time_that_an_object_adds() -> None:
    new, before = facts("True", "True", "False"), (*(was(kind, "True") for kind in CHAIN[:2]), was(CHAIN[2], "False"))
    allowed = deadlines.DEADLINES["StorageReady"]
    fact, left = conditions.overdue(new, before, after(allowed), extra={"StorageReady": 30.0})
    assert (fact, left) == (None, 30)


def test_what_is_final_is_stalled_at_once_and_only_when_its_turn_is_there() -> None:
    final = conditions.false("ImageReady", "ImageChecksumMismatch")
    placed, waits = conditions.true("Scheduled", "Placed"), conditions.false("Scheduled", "NoHostFits")
    assert late((placed, final), (), NOW) == ("ImageReady", None)
    assert late((waits, final), (), NOW)[0] is None


def test_nothing_is_late_where_all_hold() -> None:
    assert late(facts("True", "True", "True"), (), NOW) == (None, None)


STATUS = st.sampled_from(["True", "False", "Unknown"])


@given(passes=st.lists(st.tuples(STATUS, STATUS, STATUS, st.integers(0, 4000)), min_size=1, max_size=6))
def test_whatever_happens_the_conditions_are_told_well(passes: list[tuple[str, str, str, int]]) -> None:
    before: tuple[api_conditions.Condition, ...] = ()
    now = NOW
    for *statuses, pause in passes:
        now += datetime.timedelta(seconds=pause)
        new = facts(*statuses)
        summary, left = conditions.summarized(new, before, ready="Running", now=now)
        before = conditions.written(summary, before, generation=4, now=now, names=NAMES)
        assert is_told_well(before)
        assert (left is not None) == ("Reconciling" in told(before))
        assert left is None or left > 0
        again, _ = conditions.summarized(new, before, ready="Running", now=now)
        assert conditions.written(again, before, generation=4, now=now, names=NAMES) == before
        if left is not None:
            then = now + datetime.timedelta(seconds=left)
            assert "Stalled" in {fact.type for fact in conditions.summarized(new, before, ready="Running", now=then)[0]}


def test_ready_is_unknown_where_nobody_can_say() -> None:
    summary, _ = conditions.summarized(
        (conditions.unknown("AgentConnected", "AgentSilent"),), (), ready="Running", now=NOW
    )
    assert [fact.status for fact in summary if fact.type == "Ready"] == ["Unknown"]


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z", "2026-01-31T13:00:00+01:00"])
def test_times_of_the_api(text: str) -> None:
    assert conditions.parsed(text) == NOW
    assert conditions.timestamp(conditions.parsed(text)) == "2026-01-31T12:00:00Z"


def test_what_is_not_understood_is_not_ready_and_stalled_at_once() -> None:
    said = {fact.type: (fact.status, fact.reason) for fact in conditions.not_understood("spec.cpu: no integer")}
    assert said == {"Ready": ("False", "SpecNotUnderstood"), "Stalled": ("True", "SpecNotUnderstood")}


def test_a_time_that_is_yet_to_come_puts_no_deadline_off() -> None:
    waiting = conditions.false("StorageReady", "StorageFailed")
    planted = write((waiting,), now=after(10**8))
    late, left = conditions.overdue((waiting,), planted, NOW)
    assert (late, left) == (None, deadlines.DEADLINES["StorageReady"])
    (mended,) = write((waiting,), planted)
    assert conditions.parsed(mended.last_transition_time) == NOW
