from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api import objects
from corral.api.v1alpha1 import conditions as api_conditions
from corral.api.v1alpha1 import instance, virtualmachine
from corral.conclude import conditions
from corral.conclude import virtualmachine as conclude

from .said import NAMES, NOW, after, is_told_well, message, raw, told

PLACEMENT = virtualmachine.Placement(host="h1", epoch=1)
PLACED = conditions.true("Scheduled", "Placed")
ANSWERING = conditions.true("AgentConnected", "Answering")
SILENT = conditions.unknown("AgentConnected", "AgentSilent")
GOOD = {
    "ImageReady": "Held",
    "StorageReady": "DisksReady",
    "NetworkReady": "Routed",
    "PowerStateSynced": "AsWanted",
}


def machine(*, halted: bool = False, before: virtualmachine.VirtualMachineStatus | None = None) -> Any:
    spec: dict[str, Any] = {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "x"}}
    spec["runStrategy"] = "Halted" if halted else "Always"
    return objects.parsed(raw(spec, before), virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)


def instance_says(*facts: conditions.Fact) -> instance.InstanceStatus:
    """What an agent says: all well, but for these."""
    said = {kind: conditions.true(kind, reason) for kind, reason in GOOD.items()} | {one.type: one for one in facts}
    return instance.InstanceStatus(conditions=conditions.written(said.values(), (), generation=1, now=NOW, names=NAMES))


def seen(*facts: conditions.Fact) -> conclude.Observed:
    """A placed guest whose agent answers, and says that all is well but for these."""
    return conclude.Observed(PLACED, PLACEMENT, ANSWERING, instance_says(*facts))


def status_of(observed: conclude.Observed, *, halted: bool = False) -> virtualmachine.VirtualMachineStatus:
    return conclude.conclude(machine(halted=halted), observed, NOW)[0]


FETCHING = conditions.false("ImageReady", "ImageFetching")
MISMATCH = conditions.false("ImageReady", "ImageChecksumMismatch")
STARTING = conditions.false("PowerStateSynced", "Starting")
STOPPING = conditions.false("PowerStateSynced", "ShuttingDown")
NOWHERE = conditions.false("Scheduled", "NoHostFits", "0/1 hosts: 1 too little memory")
LATER = conditions.unknown("PowerStateSynced", "WaitingForEarlier")

# In the order of an agent that stops a guest: what must wait for that comes after it.
HALTING = instance.InstanceStatus(
    conditions=conditions.written(
        (
            conditions.true("ImageReady", "Held"),
            conditions.true("StorageReady", "DisksReady"),
            conditions.false("PowerStateSynced", "HypervisorUnavailable"),
            conditions.unknown("NetworkReady", "WaitingForEarlier"),
        ),
        (),
        generation=1,
        now=NOW,
        names=NAMES,
    )
)

WORDS = [
    ("Pending", conclude.Observed(NOWHERE, None), False, ("False", "NoHostFits")),
    ("Pending", conclude.Observed(NOWHERE, PLACEMENT, SILENT), False, ("False", "NoHostFits")),
    ("Provisioning", conclude.Observed(PLACED, PLACEMENT, ANSWERING), False, ("Unknown", "Provisioning")),
    ("Provisioning", seen(FETCHING, LATER), False, ("False", "ImageFetching")),
    ("Failed", seen(MISMATCH, LATER), False, ("False", "ImageChecksumMismatch")),
    ("Unknown", conclude.Observed(PLACED, PLACEMENT, SILENT, instance_says()), False, ("Unknown", "AgentSilent")),
    ("Starting", seen(STARTING), False, ("False", "Starting")),
    ("Stopping", seen(STOPPING), True, ("False", "ShuttingDown")),
    ("Stopping", conclude.Observed(PLACED, PLACEMENT, ANSWERING, HALTING), True, ("False", "HypervisorUnavailable")),
    ("Running", seen(), False, ("True", "Running")),
    ("Halted", seen(), True, ("True", "Halted")),
]


@pytest.mark.parametrize(
    ("word", "observed", "halted", "ready"), [pytest.param(*row, id=f"{row[0]}-{row[3][1]}") for row in WORDS]
)
def test_the_state_in_a_word(word: str, observed: conclude.Observed, halted: bool, ready: tuple[str, str]) -> None:
    status = status_of(observed, halted=halted)
    assert status.printable_status == word
    assert told(status.conditions)["Ready"] == ready
    assert is_told_well(status.conditions)
    assert status.observed_generation == 4
    assert status.placement == observed.placement


def test_every_word_that_the_field_promises_is_in_the_table() -> None:
    promised = virtualmachine.VirtualMachineStatus.model_fields["printable_status"].description or ""
    assert all(word in promised for word, *_ in WORDS)
    assert len({word for word, *_ in WORDS}) == 8


def test_what_is_not_placed_waits_for_that_and_has_no_agent() -> None:
    facts = told(status_of(conclude.Observed(NOWHERE, None)).conditions)
    assert "AgentConnected" not in facts
    assert {facts[part] for part in conclude.PARTS} == {("Unknown", "WaitingForEarlier")}


def test_what_the_agent_said_is_told_with_one_next_command() -> None:
    unreachable = conditions.false("ImageReady", "ImageUnreachable", "No answer from images.test")
    status = status_of(seen(unreachable, LATER))
    for kind in ("ImageReady", "Ready", "Reconciling"):
        assert message(status.conditions, kind).startswith("No answer from images.test. Next: kubectl get clusterim")
        assert message(status.conditions, kind).count("Next:") == 1


def test_a_part_that_an_older_agent_does_not_say_is_on_its_way() -> None:
    said = instance.InstanceStatus(conditions=instance_says().conditions[:2])
    facts = told(status_of(conclude.Observed(PLACED, PLACEMENT, ANSWERING, said)).conditions)
    assert facts["NetworkReady"] == ("Unknown", "Provisioning")


def test_a_restart_that_is_needed_is_told_and_is_no_obstacle() -> None:
    status = status_of(seen(conditions.true("RestartRequired", "RestartNeeded", "It runs with another cpu")))
    assert told(status.conditions)["RestartRequired"] == ("True", "RestartNeeded")
    assert status.printable_status == "Running"
    assert message(status.conditions, "RestartRequired").endswith("kubectl get vm.corral.dev web -n shop -o yaml")


def test_a_second_pass_changes_nothing() -> None:
    for _, observed, halted, _ in WORDS:
        first = status_of(observed, halted=halted)
        assert conclude.conclude(machine(halted=halted, before=first), observed, after(1))[0] == first


STATUS = st.sampled_from(["True", "False", "Unknown"])
REASON = st.sampled_from(["Held", "ImageFetching", "ImageChecksumMismatch", "FromTheFuture"])


@given(
    scheduled=st.sampled_from([PLACED, NOWHERE]),
    agent=st.sampled_from([ANSWERING, SILENT, None]),
    said=st.none() | st.lists(st.tuples(st.sampled_from(conclude.PARTS), STATUS, REASON), unique_by=lambda row: row[0]),
    halted=st.booleans(),
)
def test_whatever_is_seen_it_is_told_well(
    scheduled: conditions.Fact,
    agent: conditions.Fact | None,
    said: list[tuple[str, api_conditions.Status, str]] | None,
    halted: bool,
) -> None:
    rows = (
        None
        if said is None
        else [
            api_conditions.Condition(
                type=kind,
                status=status,
                reason=reason,
                last_transition_time="2026-01-31T12:00:00Z",
                message="x Next: y",
            )
            for kind, status, reason in said
        ]
    )
    answered = None if rows is None else instance.InstanceStatus(conditions=tuple(rows))
    status = status_of(conclude.Observed(scheduled, PLACEMENT, agent, answered), halted=halted)
    assert is_told_well(status.conditions)
    assert status.printable_status in {word for word, *_ in WORDS}
