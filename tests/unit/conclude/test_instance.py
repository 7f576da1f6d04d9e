from __future__ import annotations

import dataclasses
import datetime

import pytest

from corral import reasons
from corral.api.v1alpha1 import instance
from corral.conclude import instance as conclude
from corral.conclude.instance import HOLDS, WAITS, Asked, Outcome, Room
from corral_drivers import errors
from corral_drivers.hypervisor import model as hypervisor

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
ASKED = Asked(generation=3, running=True, grace=30.0, names={"namespace": "shop", "name": "web", "host": "h1"})
OFF = dataclasses.replace(ASKED, running=False)
GONE = dataclasses.replace(ASKED, removed=True)
WELL = Outcome(HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, power_state="Running")
FETCHING = Room(holds=False, reason="ImageFetching", detail="10 of 20 MiB")
BLANK = instance.InstanceStatus()


def told(outcome: Outcome, asked: Asked = ASKED) -> dict[str, tuple[str, str]]:
    status = conclude.conclude(outcome, asked, BLANK, NOW).status
    return {one.type: (one.status, one.reason) for one in status.conditions}


def waiting(**rooms: Room) -> Outcome:
    return dataclasses.replace(WELL, power_state="", **rooms)  # type: ignore[arg-type]  # all of them are rooms


def test_a_running_guest() -> None:
    assert told(WELL) == {
        "ImageReady": ("True", "Held"),
        "StorageReady": ("True", "DisksReady"),
        "NetworkReady": ("True", "Routed"),
        "PowerStateSynced": ("True", "AsWanted"),
        "Ready": ("True", "Running"),
    }


def test_a_halted_guest_is_ready_and_needs_no_network() -> None:
    facts = told(dataclasses.replace(WELL, power_state="ShutOff"), OFF)
    assert facts["Ready"] == ("True", "Halted")
    assert facts["NetworkReady"] == ("True", "NotNeeded")


def test_what_waits_is_unknown_and_ready_names_what_is_waited_for() -> None:
    facts = told(waiting(image=FETCHING, storage=WAITS, hypervisor=WAITS))
    assert facts == {
        "ImageReady": ("False", "ImageFetching"),
        "StorageReady": ("Unknown", "WaitingForEarlier"),
        "NetworkReady": ("True", "Routed"),
        "PowerStateSynced": ("Unknown", "WaitingForEarlier"),
        "Ready": ("False", "ImageFetching"),
        "Reconciling": ("True", "ImageFetching"),
    }


@pytest.mark.parametrize(
    ("rooms", "kind", "reason"),
    [
        ({"seed": Room(holds=False, reason="SeedFailed")}, "StorageReady", "SeedFailed"),
        ({"storage": WAITS, "seed": Room(holds=False, reason="SeedFailed")}, "StorageReady", "SeedFailed"),
        ({"routing": Room(holds=False, reason="PrefixTaken"), "link": HOLDS}, "NetworkReady", "PrefixTaken"),
        ({"link": Room(holds=False, reason="LinkFailed"), "routing": WAITS}, "NetworkReady", "LinkFailed"),
        ({"hypervisor": Room(holds=False, reason="DeviceBusy")}, "PowerStateSynced", "DeviceBusy"),
    ],
)
def test_each_room_has_its_fact(rooms: dict[str, Room], kind: str, reason: str) -> None:
    assert told(waiting(**rooms))[kind] == ("False", reason)


def test_the_cause_of_a_wait_is_named_in_the_order_in_which_things_come_about() -> None:
    stopping = Room(holds=False, reason="ShuttingDown")
    assert told(waiting(link=WAITS, routing=WAITS, hypervisor=stopping), OFF)["Ready"] == ("False", "ShuttingDown")
    left = waiting(storage=WAITS, seed=WAITS, link=WAITS, routing=WAITS, hypervisor=stopping)
    assert told(left, GONE)["Ready"] == ("False", "ShuttingDown")


def test_a_final_reason_is_stalled_at_once() -> None:
    word = errors.Rejected(hypervisor.Cause.UNSUPPORTED, "no such machine type")
    answer = conclude.conclude(waiting(hypervisor=conclude.failed(word)), ASKED, BLANK, NOW)
    conditions = {one.type: one for one in answer.status.conditions}
    assert answer.is_final
    assert conditions["Stalled"].reason == "HostUnsupported"
    assert conditions["Stalled"].message.startswith("no such machine type. Next: ")
    assert "Reconciling" not in conditions


def test_past_its_deadline_a_fact_is_stalled_and_the_grace_period_counts() -> None:
    stopping = waiting(hypervisor=Room(holds=False, reason="ShuttingDown"))
    before = conclude.conclude(stopping, OFF, BLANK, NOW)
    assert before.look_again == 150.0
    almost = conclude.conclude(stopping, OFF, before.status, NOW + datetime.timedelta(seconds=149))
    assert {"Reconciling"} == {one.type for one in almost.status.conditions} & {"Reconciling", "Stalled"}
    late = conclude.conclude(stopping, OFF, almost.status, NOW + datetime.timedelta(seconds=150))
    assert {"Stalled"} == {one.type for one in late.status.conditions} & {"Reconciling", "Stalled"}
    assert late.look_again is None


def test_times_move_only_with_the_status() -> None:
    first = conclude.conclude(waiting(image=FETCHING), ASKED, BLANK, NOW).status
    later = NOW + datetime.timedelta(seconds=60)
    more = Room(holds=False, reason="ImageFetching", detail="20 of 20 MiB")
    second = conclude.conclude(waiting(image=more), ASKED, first, later).status
    assert second.conditions[0].last_transition_time == "2026-01-31T12:00:00Z"
    third = conclude.conclude(WELL, ASKED, second, later).status
    assert third.conditions[0].last_transition_time == "2026-01-31T12:01:00Z"
    assert conclude.conclude(WELL, ASKED, third, later + datetime.timedelta(days=1)).status == third


def test_a_restart_that_is_needed_is_told_and_the_guest_is_ready() -> None:
    outcome = dataclasses.replace(WELL, restart_required=("cpus", "memory"))
    status = conclude.conclude(outcome, ASKED, BLANK, NOW).status
    conditions = {one.type: one for one in status.conditions}
    assert conditions["Ready"].status == "True"
    assert "cpus, memory" in conditions["RestartRequired"].message


def test_a_power_state_that_nobody_could_see_stays_as_it_was_told() -> None:
    before = instance.InstanceStatus(power_state="Running")
    assert conclude.conclude(waiting(image=FETCHING), ASKED, before, NOW).status.power_state == "Running"
    assert conclude.conclude(WELL, ASKED, before, NOW).status.observed_generation == 3


def test_a_spec_that_is_not_understood() -> None:
    answer = conclude.not_understood("spec.cpu: Input should be a valid integer", ASKED, BLANK, NOW)
    assert answer.is_final
    assert {one.type: (one.status, one.reason) for one in answer.status.conditions} == {
        "Ready": ("False", "SpecNotUnderstood"),
        "Stalled": ("True", "SpecNotUnderstood"),
    }
    assert "spec.cpu" in answer.status.conditions[0].message


def test_only_what_may_succeed_next_time_is_retried() -> None:
    cause = hypervisor.Cause.FAILED
    assert conclude.failed(errors.Unavailable(cause, "")).retry
    assert conclude.failed(errors.NotReady(cause, "")).retry
    assert not conclude.failed(errors.Rejected(cause, "")).retry
    assert not conclude.failed(errors.Unavailable(cause, ""), look_again=2.0).retry


def test_every_reason_here_is_in_the_catalogue() -> None:
    for code in ("Held", "DisksReady", "Routed", "NotNeeded", "AsWanted", "Running", "Halted", "RestartNeeded"):
        assert code in reasons.CATALOGUE
