"""A VirtualMachine's status: from its spec, its placement, and what the host says of its Instance."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from corral.api import objects
from corral.api.v1alpha1 import instance, virtualmachine
from corral.conclude import conditions

PARTS = ("ImageReady", "StorageReady", "NetworkReady", "PowerStateSynced")
"""What an Instance says and a VirtualMachine repeats, in the order in which they come true where a guest starts."""

VirtualMachine = objects.Object[virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus]


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of a VirtualMachine beside its spec.

    `scheduled` says whether and why; `agent` is AgentConnected of its host, None before there is one; `instance` is
    what the host says of the spec as it is now, None while it has not answered.
    """

    scheduled: conditions.Fact
    placement: virtualmachine.Placement | None
    agent: conditions.Fact | None = None
    instance: instance.InstanceStatus | None = None


def conclude(
    vm: VirtualMachine, observed: Observed, now: datetime.datetime
) -> tuple[virtualmachine.VirtualMachineStatus, float | None]:
    """The status, and in how many seconds time alone would change it (None: never)."""
    running = vm.spec.run_strategy == "Always"
    facts = (observed.scheduled, *_agent(observed), *_parts(observed))
    summary, look_again = conditions.summarized(
        facts,
        vm.status.conditions,
        ready="Running" if running else "Halted",
        now=now,
        extra={"PowerStateSynced": float(vm.spec.termination_grace_period_seconds)},
    )
    summary = (*summary, *_restart_required(observed))
    status = virtualmachine.VirtualMachineStatus(
        observed_generation=vm.generation,
        printable_status=_in_a_word(summary, running=running, stands=observed.instance is not None),
        placement=observed.placement,
        conditions=conditions.written(
            summary,
            vm.status.conditions,
            generation=vm.generation,
            now=now,
            names={
                "namespace": vm.namespace,
                "name": vm.name,
                "host": observed.placement.host if observed.placement else "",
            },
        ),
    )
    return status, look_again


def _agent(observed: Observed) -> tuple[conditions.Fact, ...]:
    return () if observed.agent is None else (observed.agent,)


def _parts(observed: Observed) -> tuple[conditions.Fact, ...]:
    if observed.instance is None:
        reason = "Provisioning" if observed.scheduled.holds else "WaitingForEarlier"
        return tuple(conditions.unknown(part, reason) for part in PARTS)
    # In the Instance's own order: a guest that stops is off first, and what waits for that is not why.
    said = {one.type: conditions.repeated(one) for one in observed.instance.conditions if one.type in PARTS}
    missing = (conditions.unknown(part, "Provisioning") for part in PARTS if part not in said)
    return (*said.values(), *missing)


def _restart_required(observed: Observed) -> tuple[conditions.Fact, ...]:
    if observed.instance is None:
        return ()
    return tuple(conditions.repeated(one) for one in observed.instance.conditions if one.type == "RestartRequired")


def _in_a_word(facts: tuple[conditions.Fact, ...], *, running: bool, stands: bool) -> str:
    by_type = {fact.type: fact for fact in facts}
    if not by_type["Scheduled"].holds and not stands:
        return "Pending"
    if "AgentConnected" in by_type and not by_type["AgentConnected"].holds:
        return "Unknown"
    unmet = [fact.type for fact in facts if fact.type in PARTS and not fact.holds]
    if not unmet:
        # A guest runs on when what its spec refers to is gone.
        return "Running" if running else "Halted"
    if "Stalled" in by_type:
        return "Failed"
    if unmet[0] == "PowerStateSynced":
        return "Starting" if running else "Stopping"
    return "Provisioning"
