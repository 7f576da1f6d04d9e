"""One CustomResourceDefinition from a kind and its models, as a plain mapping.

`corral.crds.write` renders what this returns, for each kind of `corral.api.v1alpha1`. See "CustomResourceDefinition"
(apiextensions.k8s.io/v1) in Kubernetes' API reference for the shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from corral.api import schema as api
from corral.crds import structural

Schema = dict[str, Any]

_API_VERSION: Schema = {
    "description": f"The version of this object's form: `{api.API_VERSION}`.",
    "type": "string",
}
_KIND: Schema = {"description": "The kind of this object, in CamelCase. It cannot be changed.", "type": "string"}
# The API server describes metadata itself, and refuses a CRD that does.
_METADATA: Schema = {"type": "object"}


class Inconsistent(ValueError):  # noqa: N818 - reads as what it says of the kind
    """A kind and its models contradict each other: one line a contradiction."""


def crd(kind: api.Kind, spec: type[api.Model], status: type[api.Observed] | None, description: str) -> dict[str, Any]:
    """The CustomResourceDefinition of `kind`, with one version, served and stored.

    `description` is what `kubectl explain` says of the kind. Raises structural.NotStructural for a model that has no
    structural schema, and Inconsistent for a column or selectable field that names nothing in the schema.
    """
    if kind.has_status != (status is not None):
        raise Inconsistent(f"{kind.kind}: has_status is {kind.has_status}, but its status model is {status}")
    schema = _object(kind, spec, status, description)
    errors = tuple(_dangling(kind, schema))
    if errors:
        raise Inconsistent("\n".join(errors))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name},
        "spec": {
            "group": api.GROUP,
            "names": _names(kind),
            "scope": kind.scope,
            "versions": [_version(kind, schema)],
        },
    }


def _names(kind: api.Kind) -> Schema:
    names: Schema = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    return names


def _version(kind: api.Kind, schema: Schema) -> Schema:
    version: Schema = {"name": api.VERSION, "served": True, "storage": True}
    if kind.columns:
        version["additionalPrinterColumns"] = [_column(column) for column in kind.columns]
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if kind.has_status:
        version["subresources"] = {"status": {}}
    version["schema"] = {"openAPIV3Schema": schema}
    return version


def _column(column: api.Column) -> Schema:
    result: Schema = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.priority:
        result["priority"] = column.priority
    if column.description:
        result["description"] = column.description
    return result


def _object(kind: api.Kind, spec: type[api.Model], status: type[api.Observed] | None, description: str) -> Schema:
    properties = {
        "apiVersion": _API_VERSION,
        "kind": _KIND,
        "metadata": _METADATA,
        "spec": structural.structural(spec),
    }
    if status is not None:
        properties["status"] = _status(status)
    schema: Schema = {"description": structural.unwrapped(description), "type": "object"}
    if kind.rules:
        schema["x-kubernetes-validations"] = structural.validations(kind.rules)
    return {**schema, "required": ["spec"], "properties": properties}


def _status(model: type[api.Observed]) -> Schema:
    """The schema of a status: generation −1 is written at creation, so that waiting tools see *in progress* at once.

    No other default: a status says what was observed, and nobody has observed anything yet.
    """
    schema: Schema = _without_defaults(structural.structural(model))
    if "observedGeneration" not in schema["properties"]:
        return schema
    return {"description": schema.pop("description"), "default": {"observedGeneration": -1}, **schema}


def _without_defaults(schema: Schema) -> Schema:
    """`schema` and what is under it, without defaults. A field may itself be called `default`: that one stays."""
    result = {key: value for key, value in schema.items() if key != "default"}
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = _without_defaults(result[key])
    if "properties" in result:
        result["properties"] = {name: _without_defaults(child) for name, child in result["properties"].items()}
    return result


def _dangling(kind: api.Kind, schema: Schema) -> Iterator[str]:
    """A column that names nothing prints blanks for ever and the API server says nothing; so we look."""
    for column in kind.columns:
        if not _leads_somewhere(column.json_path, schema):
            yield f"{kind.kind}: the column {column.name} reads {column.json_path}, which is not in the schema"
    for path in kind.selectable:
        if not _leads_somewhere(path, schema):
            yield f"{kind.kind}: the selectable field {path} is not in the schema"


def _leads_somewhere(json_path: str, schema: Mapping[str, Any]) -> bool:
    # A filter such as [?(@.type=="Ready")] or an index steps into the list's items, whatever it picks there.
    names = re.sub(r"\[[^]]*\]", ".[]", json_path).strip(".").split(".")
    if names[0] == "metadata":
        return True
    for name in names:
        below = schema.get("items") if name == "[]" else schema.get("properties", {}).get(name)
        below = schema.get("additionalProperties") if below is None else below
        if below is None:
            return bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        schema = below
    return True
