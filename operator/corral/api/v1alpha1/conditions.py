"""The condition of every status: `metav1.Condition`, as kstatus, `kubectl wait` and Argo CD read it."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from corral.api import schema

Status = Literal["True", "False", "Unknown"]


class Condition(schema.Observed):
    """One fact about the object, with since when, why, and what to do."""

    type: Annotated[str, pydantic.Field(min_length=1, max_length=64)]
    """What the fact is about, such as Ready."""

    status: Status
    """Whether it holds: True, False, or Unknown."""

    observed_generation: int = 0
    """The generation of the spec that the fact was concluded from."""

    last_transition_time: schema.Time
    """When `status` last changed."""

    reason: Annotated[str, pydantic.Field(min_length=1, max_length=64)]
    """The stable code of why; the reference page of reasons says who must act."""

    message: schema.Sentence = ""
    """Why, in a sentence, and the next command to type."""


Conditions = Annotated[
    tuple[Condition, ...],
    pydantic.Field(
        max_length=24,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""Conditions by type."""
