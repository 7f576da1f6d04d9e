"""What tests of conclude share: a clock, conditions as they read, objects as they come."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from corral.api.v1alpha1 import conditions as api_conditions
from corral.conclude import conditions

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
NAMES = {"namespace": "shop", "name": "web", "host": "h1"}


def after(seconds: float) -> datetime.datetime:
    """The moment this many seconds after NOW."""
    return NOW + datetime.timedelta(seconds=seconds)


def told(written: Iterable[api_conditions.Condition]) -> dict[str, tuple[str, str]]:
    """Status and reason by type."""
    return {one.type: (one.status, one.reason) for one in written}


def message(written: Iterable[api_conditions.Condition], kind: str) -> str:
    """The message of the condition of this type."""
    return next(one.message for one in written if one.type == kind)


def was(kind: str, status: api_conditions.Status, seconds: float = 0.0) -> api_conditions.Condition:
    """A condition that has been so since this many seconds after NOW."""
    return api_conditions.Condition(
        type=kind, status=status, reason="Usable", last_transition_time=conditions.timestamp(after(seconds))
    )


def raw(spec: dict[str, Any], status: Any, *, name: str = "web", namespace: str = "shop") -> dict[str, Any]:
    """An object as the API gives it, with the status that was concluded for it before."""
    metadata = {"name": name, "uid": "u1", "generation": 4} | ({"namespace": namespace} if namespace else {})
    return {"metadata": metadata, "spec": spec, "status": status.wire() if status is not None else {}}


def is_told_well(written: Iterable[api_conditions.Condition]) -> bool:
    """The laws of every set of conditions: kstatus' pair excludes each other, and goes with Ready."""
    facts = told(written)
    ready, pair = facts["Ready"][0] == "True", {"Reconciling", "Stalled"} & facts.keys()
    return len(pair) == (0 if ready else 1) and all(facts[one][0] == "True" for one in pair)
