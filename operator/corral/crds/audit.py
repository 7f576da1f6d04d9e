"""What every field of the API must have beyond a valid schema: a bound and a description.

`corral.crds.structural` asks before it hands a schema out. The API server estimates the cost of a CEL rule from the
bounds, so one unbounded string makes every rule above it too dear; and `kubectl explain` is the API's manual, so a
field without a description is a hole in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]


def faults(schema: Schema, path: str) -> Iterator[str]:
    """Each lack of the schema at `path`, and of everything under it, as `path: what is missing and how to give it`.

    A path reads `VirtualMachineSpec.networks[].name`; `{}` stands for the values of a map.
    """
    if "description" not in schema:
        yield f"{path}: no description; give the class or the field a docstring"
    yield from _unbounded(schema, path)


def _unbounded(schema: Schema, path: str) -> Iterator[str]:
    lack = _lack(schema)
    if lack:
        yield f"{path}: {lack}"
    for name, child in schema.get("properties", {}).items():
        yield from faults(child, f"{path}.{name}")
    if "items" in schema:
        yield from _unbounded(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from _unbounded(schema["additionalProperties"], f"{path}{{}}")


def _lack(schema: Schema) -> str | None:
    textual = schema.get("type") == "string" or schema.get("x-kubernetes-int-or-string")
    if textual and not (schema.keys() & {"maxLength", "enum"} or schema.get("format") == "date-time"):
        return "an unbounded string; give it max_length, a Literal or the format date-time"
    if schema.get("type") == "array":
        return _array_lack(schema)
    if "additionalProperties" in schema and "maxProperties" not in schema:
        return "an unbounded map; give it max_length, the number of its keys"
    return None


def _array_lack(schema: Schema) -> str | None:
    if "maxItems" not in schema:
        return "an unbounded list; give it max_length"
    if schema.get("x-kubernetes-list-type") != "map":
        return None
    items = schema["items"]
    keys = schema.get("x-kubernetes-list-map-keys", ())
    required = items.get("required", ())
    properties = items.get("properties", {})
    optional = [key for key in keys if key not in required and "default" not in properties.get(key, {})]
    if not keys:
        return "a map list without x-kubernetes-list-map-keys"
    if optional:
        return f"the keys of a map list must be required or have a default: {', '.join(optional)}"
    return None
