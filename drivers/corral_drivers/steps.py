"""The form that every room's plan has: a frozen, ordered value that is empty when nothing is left to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

StepT = TypeVar("StepT")


# No slots: with them Python 3.11 can't construct a subscripted generic (`Plan[Step]()`) that is frozen.
@dataclass(frozen=True)
class Plan(Generic[StepT]):
    """Steps in the order in which they are applied; printed one a line, for a person to review."""

    steps: tuple[StepT, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __str__(self) -> str:
        return "\n".join(str(step) for step in self.steps) or "nothing to do"
