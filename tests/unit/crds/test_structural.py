"""Each thing that pydantic writes and the API server refuses has one translation; what has none is refused by path."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Annotated, Any, ClassVar, Literal

import hypothesis
import pydantic
import pytest
from hypothesis import strategies
from pydantic import Field

from corral.api import schema
from corral.crds import structural

Short = Annotated[str, Field(max_length=8)]
TEXT = {"type": "string", "maxLength": 8}


class Color(enum.Enum):
    RED = "Red"
    BLUE = "Blue"


class Inner(schema.Model):
    """What is inside."""

    size: Annotated[int, Field(ge=1, le=9)] = 3
    """How large."""

    label: Short | None = None
    """What it says."""


INNER = {
    "description": "What is inside.",
    "type": "object",
    "properties": {
        "size": {
            "description": "How large.",
            "type": "integer",
            "format": "int32",
            "default": 3,
            "minimum": 1,
            "maximum": 9,
        },
        "label": {"description": "What it says.", **TEXT},
    },
}


def model_of(annotation: Any, default: Any = ...) -> type[pydantic.BaseModel]:
    """A model `Sample` with one described field `some_field` of the given type."""
    field = Field(default=default, description="A field.")
    return pydantic.create_model("Sample", __base__=schema.Model, __doc__="A sample.", some_field=(annotation, field))


def field_of(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The structural schema of such a field, without the description that all of them have."""
    properties = structural.structural(model_of(annotation, default))["properties"]
    field: dict[str, Any] = properties["someField"]
    assert field.pop("description") == "A field."
    return field


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        pytest.param(Short, TEXT, id="a bounded string"),
        pytest.param(bool, {"type": "boolean"}, id="a boolean"),
        pytest.param(float, {"type": "number"}, id="a number"),
        pytest.param(int, {"type": "integer", "format": "int64"}, id="an integer without bounds has 64 bits"),
        pytest.param(
            Annotated[int, Field(ge=0, le=2**31 - 1)],
            {"type": "integer", "format": "int32", "minimum": 0, "maximum": 2**31 - 1},
            id="an integer whose bounds fit has 32 bits",
        ),
        pytest.param(
            Annotated[int, Field(ge=0, le=2**31)],
            {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**31},
            id="one more and it has 64",
        ),
        pytest.param(
            Annotated[float, Field(gt=0, lt=1)],
            {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True},
            id="an exclusive bound is a bound and a flag",
        ),
        pytest.param(Literal["a"], {"type": "string", "enum": ["a"]}, id="a constant"),
        pytest.param(Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, id="a literal"),
        pytest.param(Literal["a", None], {"type": "string", "enum": ["a"]}, id="a literal with None"),
        pytest.param(Literal[1, 2], {"type": "integer", "enum": [1, 2]}, id="a literal of integers"),
        pytest.param(Color, {"type": "string", "enum": ["Red", "Blue"]}, id="an enum"),
        pytest.param(Color | None, {"type": "string", "enum": ["Red", "Blue"]}, id="an optional enum"),
        pytest.param(datetime.datetime, {"type": "string", "format": "date-time"}, id="a time needs no length"),
        pytest.param(
            schema.Time | None,
            {
                "type": "string",
                "format": "date-time",
                "maxLength": 32,
                "pattern": "^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
            },
            id="a time of ours",
        ),
        pytest.param(Inner, {key: INNER[key] for key in ("type", "properties")}, id="a model is written out"),
        pytest.param(Inner | None, {key: INNER[key] for key in ("type", "properties")}, id="an optional model too"),
        pytest.param(
            Annotated[list[Inner], Field(min_length=1, max_length=4)],
            {"type": "array", "minItems": 1, "maxItems": 4, "items": INNER},
            id="a list of models",
        ),
        pytest.param(
            Annotated[tuple[Short, ...], Field(max_length=4)],
            {"type": "array", "maxItems": 4, "items": TEXT},
            id="a tuple of any length is a list",
        ),
        pytest.param(
            Annotated[frozenset[Short], Field(max_length=4)],
            {"type": "array", "maxItems": 4, "x-kubernetes-list-type": "set", "items": TEXT},
            id="a set is a list that says so",
        ),
        pytest.param(
            Annotated[
                list[Inner],
                Field(
                    max_length=4,
                    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["size"]},
                ),
            ],
            {
                "type": "array",
                "maxItems": 4,
                "x-kubernetes-list-map-keys": ["size"],
                "x-kubernetes-list-type": "map",
                "items": INNER,
            },
            id="a list's markers are kept",
        ),
        pytest.param(
            Annotated[dict[str, Short], Field(max_length=4)],
            {"type": "object", "maxProperties": 4, "additionalProperties": TEXT},
            id="a map",
        ),
        pytest.param(
            Annotated[
                dict[Annotated[str, Field(max_length=5, pattern=r'^"\w$')], Short],
                Field(min_length=1, max_length=4),
            ],
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 4,
                "x-kubernetes-validations": [
                    {
                        "rule": r'self.all(key, size(key) <= 5 && key.matches("^\"\\w$"))',
                        "message": 'someField: every key must be of length 0 to 5 and form ^"\\w$; rename it.',
                    }
                ],
                "additionalProperties": TEXT,
            },
            id="bounds of a map's keys become a rule",
        ),
        pytest.param(
            Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})],
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            id="an open object",
        ),
        pytest.param(
            Annotated[int | Short | None, Field(json_schema_extra={"x-kubernetes-int-or-string": True})],
            {"maxLength": 8, "x-kubernetes-int-or-string": True},
            id="an integer or a string",
        ),
    ],
)
def test_a_type_has_one_structural_form(annotation: Any, expected: dict[str, Any]) -> None:
    assert field_of(annotation) == expected


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        pytest.param(Short, "x", "x", id="a value"),
        pytest.param(bool, False, False, id="a false one"),
        pytest.param(Annotated[tuple[Short, ...], Field(max_length=4)], (), [], id="an empty list"),
        pytest.param(Color, Color.RED, "Red", id="an enum's value"),
        pytest.param(Inner, Inner(), {}, id="a model as its own defaults make it"),
        pytest.param(Inner, Inner(size=4, label="x"), {"size": 4, "label": "x"}, id="a model with other values"),
        pytest.param(
            Annotated[tuple[Inner, ...], Field(max_length=4)],
            (Inner(), Inner(size=4)),
            [{}, {"size": 4}],
            id="a list of models",
        ),
        pytest.param(Annotated[dict[str, Inner], Field(max_length=4)], {"a": Inner()}, {"a": {}}, id="a map of models"),
    ],
)
def test_a_default_is_kept_in_its_shortest_form(annotation: Any, default: Any, expected: Any) -> None:
    assert field_of(annotation, default)["default"] == expected


def test_none_is_no_default() -> None:
    assert field_of(Short | None, None) == TEXT


def test_a_class_is_called_for_its_default_and_a_function_is_not() -> None:
    class Sample(schema.Model):
        """A sample."""

        inner: Inner = Field(default_factory=Inner)
        """What a model constructs is always the same."""

        names: list[Short] = Field(default_factory=list, max_length=4)
        """So is an empty list."""

        since: Short = Field(default_factory=lambda: "now")
        """What a function returns may differ at each run."""

    properties = structural.structural(Sample)["properties"]
    assert {name: field.get("default", "none") for name, field in properties.items()} == {
        "inner": {},
        "names": [],
        "since": "none",
    }


def test_a_whole_model_has_names_rules_and_required_fields_in_order() -> None:
    class Sample(schema.Model):
        """A sample
        of two lines.

        And of two paragraphs."""

        rules: ClassVar[tuple[schema.Rule, ...]] = (
            schema.Rule("self.title != 'x'", "title: not x."),
            schema.Rule(
                "!oldSelf.hasValue()", "default: no.", ".default", "FieldValueForbidden", optional_old_self=True
            ),
        )

        title: Short
        """A field that is called as one of pydantic's keywords."""

        default: Short = "x"
        """Another."""

    assert list(structural.structural(Sample).items()) == [
        ("description", "A sample of two lines.\n\nAnd of two paragraphs."),
        ("type", "object"),
        (
            "x-kubernetes-validations",
            [
                {"rule": "self.title != 'x'", "message": "title: not x."},
                {
                    "rule": "!oldSelf.hasValue()",
                    "message": "default: no.",
                    "fieldPath": ".default",
                    "reason": "FieldValueForbidden",
                    "optionalOldSelf": True,
                },
            ],
        ),
        ("required", ["title"]),
        (
            "properties",
            {
                "title": {"description": "A field that is called as one of pydantic's keywords.", **TEXT},
                "default": {"description": "Another.", "default": "x", **TEXT},
            },
        ),
    ]


def test_rules_follow_their_model_to_every_place_it_is_used() -> None:
    class Ruled(schema.Model):
        """A model with a rule."""

        rules: ClassVar[tuple[schema.Rule, ...]] = (schema.Rule("true", "never said."),)

    class Child(Ruled):
        """A model that inherits it."""

    class Group(schema.Model):
        """A model with a field of that name, and no rule."""

        rules: Annotated[list[Short], Field(max_length=4)]
        """A field."""

    class Sample(schema.Model):
        """A sample."""

        one: Ruled | None = None
        """One."""

        many: Annotated[list[Child], Field(max_length=4)]
        """Many."""

        group: Group
        """A group."""

    properties = structural.structural(Sample)["properties"]
    rules = [{"rule": "true", "message": "never said."}]
    assert properties["one"]["x-kubernetes-validations"] == rules
    assert properties["many"]["items"]["x-kubernetes-validations"] == rules
    assert "x-kubernetes-validations" not in properties["group"]


def test_conditions_are_a_map_by_type() -> None:
    class Condition(schema.Observed):
        """A condition."""

        type: Short
        """Which."""

    class Sample(schema.Observed):
        """A sample."""

        conditions: list[Condition] = Field(default_factory=list, max_length=4)
        """What is true."""

    conditions = structural.structural(Sample)["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


class Endless(schema.Model):
    """A model that contains itself."""

    child: Endless | None = None
    """Itself."""


class Loose(schema.Model):
    """A model with an unbounded string."""

    text: str
    """Anything."""


class Silent(schema.Model):
    """A model with a field that says nothing."""

    size: int


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        pytest.param(str, "Sample.someField: an unbounded string", id="string"),
        pytest.param(list[Short], "Sample.someField: an unbounded list", id="list"),
        pytest.param(dict[str, Short], "Sample.someField: an unbounded map", id="map"),
        pytest.param(
            Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})],
            "Sample.someField: an unbounded string",
            id="int or string",
        ),
        pytest.param(
            Annotated[list[str], Field(max_length=4)], "Sample.someField[]: an unbounded string", id="in a list"
        ),
        pytest.param(
            Annotated[dict[str, str], Field(max_length=4)], "Sample.someField{}: an unbounded string", id="in a map"
        ),
        pytest.param(
            Annotated[list[Loose], Field(max_length=4)], "Sample.someField[].text: an unbounded", id="in a model"
        ),
        pytest.param(Silent, "Sample.someField.size: no description", id="without a description"),
        pytest.param(tuple[int, int], "Sample.someField: a tuple of fixed length", id="tuple"),
        pytest.param(int | Short, "Sample.someField: a union of 2 shapes", id="union"),
        pytest.param(Literal["a", 1], "Sample.someField: an enumeration of more than one type", id="mixed literal"),
        pytest.param(Any, "Sample.someField: any type", id="anything"),
        pytest.param(list[Any], "Sample.someField[]: any type", id="list of anything"),
        pytest.param(list, "Sample.someField", id="list of no type"),
        pytest.param(dict[str, Any], "Sample.someField: values of any type", id="map of anything"),
        pytest.param(dict[Literal["a"], int], "Sample.someField: keys that no rule can check", id="map of literals"),
        pytest.param(Annotated[int, Field(gt=0, ge=0)], "Sample.someField: both minimum", id="both bounds"),
        pytest.param(Annotated[int, Field(deprecated=True)], "Sample.someField: no structural form", id="keyword"),
        pytest.param(Endless, "Endless → Endless: a model that contains itself", id="recursion"),
        pytest.param(
            Annotated[list[Inner], Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "map"})],
            "Sample.someField: a map list without",
            id="map list without keys",
        ),
        pytest.param(
            Annotated[
                list[Inner],
                Field(
                    max_length=4,
                    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["label"]},
                ),
            ],
            "Sample.someField: the keys of a map list must be required or have a default: label",
            id="map list with an optional key",
        ),
    ],
)
def test_what_the_api_server_would_refuse_is_refused_with_its_path(annotation: Any, message: str) -> None:
    with pytest.raises(structural.NotStructural) as refused:
        structural.structural(model_of(annotation))
    assert str(refused.value).startswith(message)


def test_every_lack_is_named_at_once() -> None:
    class Sample(schema.Model):
        a: str
        b: list[Loose]

    with pytest.raises(structural.NotStructural) as refused:
        structural.structural(Sample)
    assert [line.partition(";")[0] for line in str(refused.value).splitlines()] == [
        "Sample: no description",
        "Sample.a: no description",
        "Sample.a: an unbounded string",
        "Sample.b: no description",
        "Sample.b: an unbounded list",
        "Sample.b[].text: an unbounded string",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One\nline.", "One line."),
        ("One.\n\n\nTwo,\nwrapped.", "One.\n\nTwo, wrapped."),
        ("Either:\n\n- this\n  one\n- that", "Either:\n\n- this one\n- that"),
        ("Such as:\n\n    a:\n      b", "Such as:\n\n    a:\n      b"),
    ],
)
def test_a_docstring_is_unwrapped(text: str, expected: str) -> None:
    assert structural.unwrapped(text) == expected


leaves = strategies.sampled_from([Short, bool, int, Color, Inner, schema.Time, Literal["a", "b"]])
types = strategies.recursive(
    leaves,
    lambda inner: strategies.one_of(
        inner.map(lambda kind: kind | None),
        # A checker can't follow a type that is only drawn at run time.
        inner.map(lambda kind: Annotated[list[kind], Field(max_length=4)]),  # type: ignore[valid-type]
        inner.map(lambda kind: Annotated[dict[schema.Name, kind], Field(max_length=4)]),  # type: ignore[valid-type]
        inner.map(model_of),
    ),
    max_leaves=4,
)


def keywords(node: dict[str, Any]) -> set[str]:
    children = [*node.get("properties", {}).values()]
    children += [node[key] for key in ("items", "additionalProperties") if key in node]
    return set(node).union(*map(keywords, children))


@hypothesis.given(types)
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_nesting_of_what_is_accepted_is_structural(annotation: Any) -> None:
    model = model_of(annotation)
    result = structural.structural(model)
    unknown = {"title", "$ref", "anyOf", "const", "propertyNames", "patternProperties", "uniqueItems", "prefixItems"}
    assert not keywords(result) & unknown
    assert json.dumps(result) == json.dumps(structural.structural(model))
    assert "null" not in json.dumps(result)
