"""An Instance's status from what became of its rooms. Called by the agent, after every pass.

Each fact is concluded at every pass, whatever was written before. A room that waits for another one is Unknown, not
False: nothing is wrong with it, and its deadline begins when its turn comes.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from corral.api.v1alpha1 import instance
from corral.conclude import causes, conditions
from corral_drivers import errors

WAITING_FOR_EARLIER = "WaitingForEarlier"


@dataclass(frozen=True, slots=True)
class Room:
    """What became of one room: it holds, or why not, as a code of the catalogue and a sentence.

    `look_again` is in how many seconds that may be otherwise, None where an event tells; `retry` asks for the same once
    more, with back-off.
    """

    holds: bool
    reason: str = ""
    detail: str = ""
    look_again: float | None = None
    retry: bool = False


HOLDS = Room(holds=True)
WAITS = Room(holds=False, reason=WAITING_FOR_EARLIER)


def failed(error: errors.DriverError, *, look_again: float | None = None) -> Room:
    """The room of a driver that said one of its three words."""
    again = not isinstance(error, errors.Rejected) and look_again is None
    return Room(holds=False, reason=causes.reason(error), detail=error.message, look_again=look_again, retry=again)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pass over a guest's rooms, to make it or to remove it.

    `power_state` is what the guest was seen doing, empty where nobody could see. `restart_required` names what a living
    guest runs with otherwise than its spec says.
    """

    image: Room
    storage: Room
    seed: Room
    link: Room
    routing: Room
    dhcp: Room
    hypervisor: Room
    power_state: str = ""
    restart_required: tuple[str, ...] = ()
    firewall: Room = HOLDS
    announced: Room = HOLDS

    @property
    def rooms(self) -> tuple[Room, ...]:
        """All of them, in the order in which they are made."""
        network = (self.firewall, self.link, self.routing, self.dhcp, self.announced)
        return (self.image, self.storage, self.seed, *network, self.hypervisor)

    @property
    def holds(self) -> bool:
        """Whether nothing is left to do."""
        return all(room.holds for room in self.rooms)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the pass was for: a guest that runs, one that is off, or (`removed`) nothing of it.

    `grace` is what its shutdown gets, in seconds. `names` fill in the next commands of reasons: `namespace` and `name`
    of the owner, and the `host`.
    """

    generation: int
    running: bool
    grace: float
    names: Mapping[str, str]
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Concluded:
    """The status; whether all that was asked for is so; whether waiting won't help; and in how many seconds a deadline
    passes, None for never.
    """

    status: instance.InstanceStatus
    is_settled: bool
    is_final: bool
    look_again: float | None = None


def conclude(outcome: Outcome, asked: Asked, before: instance.InstanceStatus, now: datetime.datetime) -> Concluded:
    """The whole status, as it is to be written."""
    parts = facts(outcome, asked)
    summary, look_again = conditions.summarized(
        parts,
        before.conditions,
        ready="Running" if asked.running else "Halted",
        now=now,
        extra={"PowerStateSynced": asked.grace},
    )
    told = (*summary, *_restart(outcome))
    return Concluded(
        status=_status(told, asked, before, now, power_state=outcome.power_state or before.power_state),
        is_settled=outcome.holds,
        is_final=any(fact.is_final for fact in parts),
        look_again=look_again,
    )


def not_understood(detail: str, asked: Asked, before: instance.InstanceStatus, now: datetime.datetime) -> Concluded:
    """The status of an Instance that the API admitted and this agent can't read; its guest stays as it is."""
    status = _status(conditions.not_understood(detail), asked, before, now, power_state=before.power_state)
    return Concluded(status=status, is_settled=False, is_final=True)


def facts(outcome: Outcome, asked: Asked) -> tuple[conditions.Fact, ...]:
    """What the outcome says, in the order in which it comes about: a guest is off before anything is taken from it."""
    image = _fact("ImageReady", "Held", outcome.image)
    storage = _fact("StorageReady", "DisksReady", outcome.storage, outcome.seed)
    network = (outcome.firewall, outcome.link, outcome.routing, outcome.dhcp, outcome.announced)
    power = _fact("PowerStateSynced", "AsWanted", outcome.hypervisor)
    if asked.running and not asked.removed:
        return image, storage, _fact("NetworkReady", "Routed", *network), power
    off = _fact("NetworkReady", "NotNeeded", *network)
    return (power, off, storage, image) if asked.removed else (image, storage, power, off)


def _fact(kind: str, good: str, *rooms: Room) -> conditions.Fact:
    unmet = [room for room in rooms if not room.holds]
    if not unmet:
        return conditions.true(kind, good)
    room = next((room for room in unmet if room.reason != WAITING_FOR_EARLIER), unmet[0])
    tell = conditions.unknown if room.reason == WAITING_FOR_EARLIER else conditions.false
    return tell(kind, room.reason, room.detail)


def _restart(outcome: Outcome) -> tuple[conditions.Fact, ...]:
    if not outcome.restart_required:
        return ()
    fields = ", ".join(outcome.restart_required)
    detail = f"Until its next start the guest runs with another {fields} than its spec says"
    return (conditions.true("RestartRequired", "RestartNeeded", detail),)


def _status(
    told: tuple[conditions.Fact, ...],
    asked: Asked,
    before: instance.InstanceStatus,
    now: datetime.datetime,
    *,
    power_state: str,
) -> instance.InstanceStatus:
    written = conditions.written(told, before.conditions, generation=asked.generation, now=now, names=asked.names)
    return instance.InstanceStatus(observed_generation=asked.generation, power_state=power_state, conditions=written)
