"""Conditions from facts: catalogue reasons in, `metav1.Condition` out, with times since when they hold, or do not."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from corral import deadlines, reasons
from corral.api.v1alpha1 import conditions

LONGEST_MESSAGE = 1024

_NEXT = " Next: "


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is so: a condition before it has a time. `reason` is a code of the catalogue.

    `detail` says which and how much, in a sentence; without, the catalogue's own sentence is told.
    """

    type: str
    status: conditions.Status
    reason: str
    detail: str = ""

    @property
    def holds(self) -> bool:
        return self.status == "True"

    @property
    def is_final(self) -> bool:
        return not self.holds and reasons.reason(self.reason).final


def true(kind: str, reason: str, detail: str = "") -> Fact:
    """It is so."""
    return Fact(kind, "True", reason, detail)


def false(kind: str, reason: str, detail: str = "") -> Fact:
    """It is not so."""
    return Fact(kind, "False", reason, detail)


def unknown(kind: str, reason: str, detail: str = "") -> Fact:
    """Nobody can say."""
    return Fact(kind, "Unknown", reason, detail)


def written(
    facts: Iterable[Fact],
    before: Iterable[conditions.Condition],
    *,
    generation: int,
    now: datetime.datetime,
    names: Mapping[str, str],
) -> tuple[conditions.Condition, ...]:
    """Conditions as they are to be written, in the order of the facts.

    `names` fill in the next command of a reason (`namespace`, `name`, `host`). What is in `before` and has no fact is
    gone: the author of a status owns all of its conditions.
    """
    old = {condition.type: condition for condition in before}
    return tuple(_written(fact, old.get(fact.type), generation, now, names) for fact in facts)


def _written(
    fact: Fact, old: conditions.Condition | None, generation: int, now: datetime.datetime, names: Mapping[str, str]
) -> conditions.Condition:
    since = old.last_transition_time if old is not None and _is_as_before(fact, old) else timestamp(now)
    # A time that is yet to come was written by hand or by another clock: no deadline would ever pass by it.
    since = min(since, timestamp(now))
    return conditions.Condition(
        type=fact.type,
        status=fact.status,
        observed_generation=generation,
        last_transition_time=since,
        reason=fact.reason,
        message=_message(fact, {"namespace": "", "name": "", "host": ""} | dict(names)),
    )


def _is_as_before(fact: Fact, old: conditions.Condition) -> bool:
    """Whether it held before as it does now: False and Unknown are alike, so that who sways can't escape a deadline."""
    return fact.holds == (old.status == "True")


def _message(fact: Fact, names: Mapping[str, str]) -> str:
    """The message, its detail cut where it is too long: the next command stays."""
    reason = reasons.reason(fact.reason)
    message = reason.message(fact.detail, **names)
    if len(message) <= LONGEST_MESSAGE:
        return message
    room = len(fact.detail) - (len(message) - LONGEST_MESSAGE) - len("….")
    return reason.message(fact.detail[:room] + "…", **names)


def repeated(said: conditions.Condition) -> Fact:
    """What an agent said, to be said here: the catalogue tells the next command anew, for this object's reader.

    An agent may be newer than its reader, and know reasons that this catalogue doesn't.
    """
    return Fact(said.type, said.status, known(said.reason), said.message.split(_NEXT, maxsplit=1)[0])


def known(reason: str) -> str:
    """The code, where it is in the catalogue; else the code that says so."""
    return reason if reason in reasons.CATALOGUE else "ReasonNotKnown"


def overdue(
    facts: Iterable[Fact],
    before: Iterable[conditions.Condition],
    now: datetime.datetime,
    *,
    extra: Mapping[str, float] | None = None,
) -> tuple[Fact | None, float | None]:
    """Whether the first fact that does not hold is final or past its deadline; if not, in how many seconds it will be.

    Facts come in the order in which they come true: those behind the first broken one wait for it, and the deadline of
    each begins when the ones before it held. `extra` is what one object adds to a deadline, in seconds, by type.
    """
    old = {condition.type: condition for condition in before}
    began = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    for fact in facts:
        seen = old.get(fact.type)
        # What moves in this pass has been so since now, whatever time stands there still.
        since = parsed(seen.last_transition_time) if seen is not None and _is_as_before(fact, seen) else now
        since = min(since, now)
        if not fact.holds:
            if fact.is_final:
                return fact, None
            allowed = deadlines.DEADLINES[fact.type] + (extra or {}).get(fact.type, 0.0)
            left = allowed - (now - max(began, since)).total_seconds()
            return (fact, None) if left <= 0 else (None, left)
        began = max(began, since)
    return None, None


def summarized(
    facts: tuple[Fact, ...],
    before: Iterable[conditions.Condition],
    *,
    ready: str,
    now: datetime.datetime,
    extra: Mapping[str, float] | None = None,
) -> tuple[tuple[Fact, ...], float | None]:
    """The facts with Ready (of reason `ready` where all hold) and Reconciling or Stalled behind them.

    Also in how many seconds the object would be stalled, None where it is or where nothing is awaited.
    """
    broken = next((fact for fact in facts if not fact.holds), None)
    if broken is None:
        return (*facts, true("Ready", ready)), None
    late, left = overdue(facts, before, now, extra=extra)
    summary = Fact("Ready", "Unknown" if broken.status == "Unknown" else "False", broken.reason, broken.detail)
    if late is None:
        return (*facts, summary, true("Reconciling", broken.reason, broken.detail)), left
    return (*facts, summary, true("Stalled", late.reason, late.detail)), None


def not_understood(detail: str) -> tuple[Fact, ...]:
    """The facts of an object that the API admitted and our models don't; `detail` names the field."""
    return false("Ready", "SpecNotUnderstood", detail), true("Stalled", "SpecNotUnderstood", detail)


def refused(detail: str) -> tuple[Fact, ...]:
    """The facts of an object for which the API server refuses a write of ours; `detail` is its own sentence."""
    return false("Ready", "WriteRefused", detail), true("Stalled", "WriteRefused", detail)


SUMMARIES = frozenset({"Ready", "Reconciling", "Stalled"})
"""The conditions that sum up the others."""


def timestamp(moment: datetime.datetime) -> str:
    """The moment as the API writes times: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime.datetime:
    """A time of the API as a moment. Raises `ValueError` for what is none."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
