"""A made-up kind with one field for each thing the API server must accept; its CRD is the file in `golden/`.

That file was applied to a kube-apiserver 1.37. After a wanted change, write it anew with
`write.write(GOLDEN, [kite()], check=False)` and review the difference.
"""

from __future__ import annotations

import enum
import pathlib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from corral.api import schema
from corral.crds import generate, write

GOLDEN = pathlib.Path(__file__).parent / "golden"

KIND = schema.Kind(
    kind="Kite",
    plural="kites",
    scope="Namespaced",
    short_names=("kt",),
    categories=("corral",),
    columns=(
        schema.Column("Status", ".status.printableStatus"),
        schema.Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether the spec holds."),
        schema.Column("Height", ".spec.flight.height", type="integer", priority=1),
        schema.Column("Age", ".metadata.creationTimestamp", type="date"),
    ),
    selectable=(".spec.color", ".status.pilot.name"),
    rules=(
        schema.Rule(
            "size(self.metadata.name) <= 40", "metadata.name: 40 characters at most, because a tail carries it."
        ),
    ),
)

DESCRIPTION = """A kite in the sky: how it should look,
and how high it should fly.

Delete it to reel it in."""


class Color(enum.Enum):
    """What the cloth is dyed with."""

    RED = "Red"
    BLUE = "Blue"


class Wind(schema.Model):
    """What the wind may do."""

    force: Annotated[int, Field(ge=0, le=12)] = 4
    """In degrees of Beaufort."""

    gusts: bool = False
    """Whether gusts are allowed."""


class Flight(schema.Model):
    """How the kite flies."""

    height: Annotated[int, Field(gt=0)] = 30
    """In metres over the ground."""

    wind: Wind = Wind()
    """The wind it is made for."""

    lift: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the cloth that lifts."""


class Line(schema.Model):
    """A line that holds the kite."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            "!has(self.length) || self.name != 'main' || self.length >= 10",
            "length: the main line is 10 m at least; make it longer.",
            field_path=".length",
        ),
    )

    name: schema.Name
    """Which line this is."""

    length: Annotated[int, Field(ge=1, le=500)] | None = None
    """In metres."""


class KiteSpec(schema.Model):
    """What the kite should be."""

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        schema.Rule(
            "!oldSelf.hasValue() || self.color == oldSelf.value().color",
            "color: cannot be changed; make a new kite.",
            field_path=".color",
            reason="FieldValueForbidden",
            optional_old_self=True,
        ),
        schema.Rule("self.lines.exists(line, line.name == 'main')", "lines: one of them must be called main."),
    )

    color: Color = Color.RED
    """The color of the cloth: `Red` or
    `Blue`.

    - It cannot be
      changed.
    - It fades.
    """

    shape: Literal["Diamond"] = "Diamond"
    """The only shape there is."""

    flight: Flight = Field(default_factory=Flight)
    """How it should fly."""

    lines: Annotated[
        list[Line],
        Field(
            min_length=1,
            max_length=4,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """The lines that hold it."""

    tail: tuple[Annotated[str, Field(max_length=20)], ...] = Field(default=(), max_length=8)
    """The ribbons of its tail, from the top."""

    owners: Annotated[frozenset[schema.Name], Field(max_length=8)] = frozenset()
    """Who may fly it."""

    labels: dict[schema.Name, Annotated[str, Field(max_length=63)]] = Field(default_factory=dict, max_length=16)
    """What is written on it."""

    land_at: schema.Time | None = None
    """When it must be down again."""

    knots: Annotated[
        int | Annotated[str, Field(max_length=4, pattern=r"^[0-9]+%$")] | None,
        Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
    ] = None
    """How many knots, or a share such as `50%`."""

    extras: dict[str, Any] = Field(
        default_factory=dict, max_length=8, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """What only the kite's maker understands."""


class Condition(schema.Observed):
    """One thing that is true of the kite, or not."""

    type: Annotated[str, Field(max_length=64)]
    """Which thing."""

    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""

    last_transition_time: schema.Time
    """Since when."""


class Pilot(schema.Observed):
    """Who flies it."""

    name: schema.ObjectName
    """The pilot's name."""


class KiteStatus(schema.Observed):
    """What was last seen of the kite."""

    observed_generation: int = -1
    """The generation of the spec that this status speaks of."""

    printable_status: Annotated[str, Field(max_length=32)] = "Unknown"
    """One word for people."""

    pilot: Pilot | None = None
    """Who flies it now."""

    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """What is true of it."""


def kite() -> dict[str, Any]:
    return generate.crd(KIND, KiteSpec, KiteStatus, DESCRIPTION)


def test_the_whole_crd_is_the_reviewed_one() -> None:
    assert write.write(GOLDEN, [kite()], check=True) == []


def test_a_model_built_from_nothing_has_what_the_api_server_fills_in() -> None:
    spec = KiteSpec(lines=[Line(name="main")]).wire()
    assert spec == {
        "color": "Red",
        "shape": "Diamond",
        "flight": {"height": 30, "wind": {"force": 4, "gusts": False}},
        "lines": [{"name": "main"}],
        "tail": [],
        "owners": [],
        "labels": {},
        "extras": {},
    }
