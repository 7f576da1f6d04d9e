"""What a CRD has around its schema, and the contradictions between a kind and its models that are refused."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from corral.api import schema
from corral.crds import generate

Short = Annotated[str, Field(max_length=8)]


class Spec(schema.Model):
    """What is wanted."""

    size: int = 3
    """How large."""


class Status(schema.Observed):
    """What is seen."""

    observed_generation: int = -1
    """Which generation was seen."""

    default: Short = "x"
    """A field with the name of a keyword, and a default."""

    seen: list[Spec] = Field(default_factory=list, max_length=4)
    """What was seen, with a default below."""


class BareStatus(schema.Observed):
    """What is seen, of no generation."""


def kind(**changes: Any) -> schema.Kind:
    return schema.Kind(**{"kind": "Kite", "plural": "kites", "scope": "Cluster", **changes})


def only_version(crd: dict[str, Any]) -> dict[str, Any]:
    (version,) = crd["spec"]["versions"]
    assert isinstance(version, dict)
    return version


def test_a_kind_with_nothing_optional_says_nothing_optional() -> None:
    crd = generate.crd(kind(has_status=False), Spec, None, "A kite.")
    assert crd["metadata"] == {"name": "kites.corral.dev"}
    assert crd["spec"]["names"] == {"kind": "Kite", "listKind": "KiteList", "plural": "kites", "singular": "kite"}
    version = only_version(crd)
    assert list(version) == ["name", "served", "storage", "schema"]
    assert list(version["schema"]["openAPIV3Schema"]["properties"]) == ["apiVersion", "kind", "metadata", "spec"]


def test_a_status_begins_at_generation_minus_one_and_has_no_other_default() -> None:
    version = only_version(generate.crd(kind(), Spec, Status, "A kite."))
    assert version["subresources"] == {"status": {}}
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert status["properties"]["default"] == {
        "description": "A field with the name of a keyword, and a default.",
        "type": "string",
        "maxLength": 8,
    }
    assert "default" not in status["properties"]["seen"]
    assert "default" not in status["properties"]["seen"]["items"]["properties"]["size"]


def test_a_status_without_a_generation_has_no_default_at_all() -> None:
    version = only_version(generate.crd(kind(), Spec, BareStatus, "A kite."))
    assert "default" not in version["schema"]["openAPIV3Schema"]["properties"]["status"]


@pytest.mark.parametrize(
    "path",
    [
        ".metadata.creationTimestamp",
        ".spec.size",
        ".status.seen",
        ".status.seen[0].size",
        ".status.seen[?(@.size==3)].size",
    ],
)
def test_a_column_may_read_what_is_in_the_schema(path: str) -> None:
    crd = generate.crd(kind(columns=(schema.Column("Column", path),)), Spec, Status, "A kite.")
    assert only_version(crd)["additionalPrinterColumns"][0]["jsonPath"] == path


@pytest.mark.parametrize("path", [".spec.sise", ".size", ".spec[0].size", ".status.seen.size", ".spec.size.more"])
def test_a_column_or_selectable_field_that_names_nothing_is_refused(path: str) -> None:
    wrong = kind(columns=(schema.Column("Wrong", path),), selectable=(path,))
    with pytest.raises(generate.Inconsistent) as refused:
        generate.crd(wrong, Spec, Status, "A kite.")
    assert str(refused.value).splitlines() == [
        f"Kite: the column Wrong reads {path}, which is not in the schema",
        f"Kite: the selectable field {path} is not in the schema",
    ]


@pytest.mark.parametrize(("has_status", "model"), [(True, None), (False, Status)])
def test_a_kind_and_its_status_model_must_agree(has_status: bool, model: type[schema.Observed] | None) -> None:
    with pytest.raises(generate.Inconsistent, match="Kite: has_status"):
        generate.crd(kind(has_status=has_status), Spec, model, "A kite.")
