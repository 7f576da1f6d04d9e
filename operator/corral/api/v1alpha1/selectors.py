"""Label selectors, as Kubernetes spells them: what a VirtualMachine says of hosts, and of other VirtualMachines."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from corral.api import schema

LabelKey = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=253,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    ),
]
"""The key of a label, such as `app` or `topology.kubernetes.io/zone`."""

LabelValue = Annotated[str, pydantic.Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
"""The value of a label; it may be empty."""

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


class LabelSelectorRequirement(schema.Model):
    """One thing that must hold of labels."""

    key: LabelKey
    """The label that it is about."""

    operator: Operator
    """In, NotIn: its value is one of values, or none of them. Exists, DoesNotExist: it is there, whatever its value, or
    it is not. NotIn also holds where the label is not there."""

    values: Annotated[tuple[LabelValue, ...], pydantic.Field(max_length=16)] = ()
    """The values of In and NotIn."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            rule="self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0",
            message="In and NotIn need values, Exists and DoesNotExist have none",
            field_path=".values",
        ),
    )


class LabelSelector(schema.Model):
    """Which objects are meant, by their labels; all of it must hold, and an empty one means every object."""

    match_labels: dict[LabelKey, LabelValue] = pydantic.Field(default_factory=dict, max_length=16)
    """Labels and their values."""

    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], pydantic.Field(max_length=8)] = ()
    """What else must hold."""
