"""From a pydantic model to a *structural* OpenAPI v3 schema, the only kind that apiextensions.k8s.io/v1 takes.

`corral.crds.generate` calls it once for a spec and once for a status. The API server refuses most of what pydantic
writes (`$ref`, `anyOf` with null, `const`, numeric exclusive bounds, `uniqueItems`, `propertyNames`): each has one
translation here, and what has none is refused with the path of the field. See "Specifying a structural schema" in
Kubernetes' documentation of custom resources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pydantic
import pydantic.json_schema
import pydantic_core.core_schema

from corral.api import schema as api
from corral.crds import audit

Schema = dict[str, Any]

_EXTENSION = "x-kubernetes-"
_RULES = "x-kubernetes-validations"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_OPEN = "x-kubernetes-preserve-unknown-fields"
_INT32_END = 2**31

# A reader wants to know first what a field is, then what it may hold; the extensions stand before the children.
_BEFORE = ("description", "type", "format", "enum", "default")
_BOUNDS = (
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties"),
)
_CHILDREN = ("required", "properties", "items", "additionalProperties")
_KNOWN = frozenset((*_BEFORE, *_BOUNDS, *_CHILDREN))


class NotStructural(ValueError):  # noqa: N818 - reads as what it says of the model
    """A model can't become a CRD's schema: one line a fault, each beginning with the path of the field."""


def structural(model: type[pydantic.BaseModel]) -> Schema:
    """The structural schema of `model`, with camelCase names, its class's `rules`, and every `$ref` inlined.

    Raises NotStructural when a field can't be expressed, has no bound, or has no description.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_WithRules)
    definitions = raw.pop("$defs", {})
    result = _convert(_inline(raw, definitions, ()), model.__name__)
    lacks = tuple(audit.faults(result, model.__name__))
    if lacks:
        raise NotStructural("\n".join(lacks))
    return result


def validations(rules: Iterable[api.Rule]) -> list[Schema]:
    """CEL rules as `x-kubernetes-validations` has them; what is the API server's own default is left out."""
    return [_validation(rule) for rule in rules]


def _validation(rule: api.Rule) -> Schema:
    result: Schema = {"rule": rule.rule, "message": rule.message}
    if rule.field_path is not None:
        result["fieldPath"] = rule.field_path
    if rule.reason != "FieldValueInvalid":
        result["reason"] = rule.reason
    if rule.optional_old_self:
        result["optionalOldSelf"] = True
    return result


class _WithRules(pydantic.json_schema.GenerateJsonSchema):
    """pydantic's generator, which knows the class behind each definition: its rules, and the defaults it constructs."""

    def model_schema(self, schema: pydantic_core.core_schema.ModelSchema) -> Schema:
        result = super().model_schema(schema)
        cls = cast("type[pydantic.BaseModel]", schema["cls"])
        # A field may be called `rules` too; only the class variable is ours.
        rules = cls.rules if "rules" in cls.__class_vars__ else ()  # type: ignore[attr-defined]
        return {**result, _RULES: validations(rules)} if rules else result

    def sort(self, value: Schema, parent_key: str | None = None) -> Schema:
        return value

    def get_default_value(self, schema: pydantic_core.core_schema.WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        # `list` or a model always constructs the same; a function (a clock, a random id) need not.
        if isinstance(factory, type):
            return factory()
        return super().get_default_value(schema)


def _inline(node: Any, definitions: Mapping[str, Schema], within: tuple[str, ...]) -> Any:
    """`node` with each `$ref` replaced by what it names; what stands beside the `$ref` wins."""
    if isinstance(node, list):
        return [_inline(item, definitions, within) for item in node]
    if not isinstance(node, dict):
        return node
    beside = {key: _inline(value, definitions, within) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return beside
    name = node["$ref"].removeprefix("#/$defs/")
    if name in within:
        raise NotStructural(f"{' → '.join((*within, name))}: a model that contains itself has no structural schema")
    return _merge(_inline(definitions[name], definitions, (*within, name)), beside)


def _merge(inner: Schema, outer: Schema) -> Schema:
    rules = [*inner.get(_RULES, ()), *outer.get(_RULES, ())]
    return {**inner, **outer, **({_RULES: rules} if rules else {})}


def _convert(node: Schema, path: str) -> Schema:
    """One node of pydantic's schema, without `$ref`, as a structural one; its children likewise."""
    node = _one_shape(node, path)
    node.pop("title", None)
    for translate in (_exclusive, _enumerated, _integer, _array, _object):
        node = translate(node, path)
    if "description" in node:
        node["description"] = unwrapped(node["description"])
    unknown = sorted(key for key in node.keys() - _KNOWN if not key.startswith(_EXTENSION))
    if unknown:
        raise NotStructural(f"{path}: no structural form for {', '.join(unknown)}")
    if "type" not in node and not node.get(_INT_OR_STRING) and not node.get(_OPEN):
        raise NotStructural(f"{path}: any type; name one, or set {_OPEN}")
    if "default" in node:
        node["default"] = _pruned(node["default"], node)
    if node.get("default", ...) is None:
        del node["default"]
    return _ordered(node)


def _one_shape(node: Schema, path: str) -> Schema:
    """`anyOf [X, null]` is X: what is None is absent on the wire."""
    if "anyOf" not in node:
        return dict(node)
    outer = {key: value for key, value in node.items() if key != "anyOf"}
    shapes = [shape for shape in node["anyOf"] if shape.get("type") != "null"]
    if node.get(_INT_OR_STRING):
        # The API server wants this extension without a type; bounds of either shape apply to that shape alone.
        for shape in shapes:
            outer = {**{key: value for key, value in shape.items() if key != "type"}, **outer}
        return outer
    if len(shapes) != 1:
        raise NotStructural(f"{path}: a union of {len(shapes)} shapes; give each its own optional field and a rule")
    return _one_shape(_merge(shapes[0], outer), path)


def _exclusive(node: Schema, path: str) -> Schema:
    """OpenAPI v3.0 has `exclusiveMinimum` as a flag beside `minimum`; JSON schema has it as a number of its own."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive not in node:
            continue
        if bound in node:
            raise NotStructural(f"{path}: both {bound} and {exclusive}; keep the tighter one")
        node = {**node, bound: node[exclusive], exclusive: True}
    return node


def _enumerated(node: Schema, path: str) -> Schema:
    """Literal and Enum; None among the values only says that the field may be absent."""
    values = node.get("enum", [node["const"]] if "const" in node else None)
    if values is None:
        return node
    values = [value for value in values if value is not None]
    kinds = {_TYPES.get(type(value)) for value in values}
    if len(kinds) != 1 or None in kinds:
        raise NotStructural(f"{path}: an enumeration of more than one type")
    return {**{key: value for key, value in node.items() if key != "const"}, "type": kinds.pop(), "enum": values}


_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _integer(node: Schema, path: str) -> Schema:
    if node.get("type") != "integer" or "format" in node or "enum" in node:
        return node
    low, high = node.get("minimum"), node.get("maximum")
    small = low is not None and low >= -_INT32_END and high is not None and high < _INT32_END
    return {**node, "format": "int32" if small else "int64"}


def _array(node: Schema, path: str) -> Schema:
    if node.get("type") != "array":
        return node
    if "prefixItems" in node:
        raise NotStructural(f"{path}: a tuple of fixed length; use a model with named fields")
    if "items" not in node:
        raise NotStructural(f"{path}: a list of anything; name the type of its items")
    node = {**node, "items": _convert(node["items"], f"{path}[]")}
    if node.pop("uniqueItems", False):
        node.setdefault("x-kubernetes-list-type", "set")
    if path.endswith(".conditions") and "type" in node["items"].get("properties", {}):
        node.setdefault("x-kubernetes-list-type", "map")
        node.setdefault("x-kubernetes-list-map-keys", ["type"])
    return node


def _object(node: Schema, path: str) -> Schema:
    if "properties" in node:
        node = {**node, "properties": {k: _convert(v, f"{path}.{k}") for k, v in node["properties"].items()}}
    names = node.get("propertyNames", {})
    patterns = node.get("patternProperties", {})
    values = next(iter(patterns.values()), node.get("additionalProperties"))
    rules = _key_rules(names, patterns, path)
    node = {k: v for k, v in node.items() if k not in {"additionalProperties", "patternProperties", "propertyNames"}}
    # A model says False here. That is dropped: the API server prunes what it does not know, and reports it when asked.
    if isinstance(values, dict):
        node["additionalProperties"] = _convert(values, f"{path}{{}}")
    elif values is True and not node.get(_OPEN):
        raise NotStructural(f"{path}: values of any type; name one, or set {_OPEN}")
    return _merge(node, {_RULES: rules} if rules else {})


def _key_rules(names: Schema, patterns: Iterable[str], path: str) -> list[Schema]:
    """The rule that stands for the bounds of a map's keys, which a structural schema has no words for."""
    checks = [f"size(key) >= {names['minLength']}"] if "minLength" in names else []
    checks += [f"size(key) <= {names['maxLength']}"] if "maxLength" in names else []
    checks += [f"key.matches({_cel_string(pattern)})" for pattern in patterns]
    if names.keys() - {"minLength", "maxLength"}:
        raise NotStructural(f"{path}: keys that no rule can check; bound them by length and pattern")
    if not checks:
        return []
    says = [f"length {names.get('minLength', 0)} to {names['maxLength']}"] if "maxLength" in names else []
    says += [f"form {pattern}" for pattern in patterns]
    message = f"{path.rpartition('.')[2]}: every key must be of {' and '.join(says)}; rename it."
    return validations([api.Rule(f"self.all(key, {' && '.join(checks)})", message)])


def _cel_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pruned(default: Any, node: Schema) -> Any:
    """`default` without what is None, and without what the defaults of the nested fields say already."""
    if isinstance(default, list):
        return [_pruned(item, node.get("items", {})) for item in default]
    if not isinstance(default, dict):
        return default
    result = {}
    for key, value in default.items():
        child = node.get("properties", {}).get(key, node.get("additionalProperties", {}))
        kept = _pruned(value, child)
        if kept is not None and kept != child.get("default"):
            result[key] = kept
    return result


def unwrapped(text: str) -> str:
    """A docstring as `kubectl explain` should print it: a line a paragraph; list items and indented lines stay."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines: list[str] = []
        for line in block.splitlines():
            if lines and not re.match(r"(\s{4}|[-*] |\d+\. )", line):
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(line.rstrip())
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _ordered(node: Schema) -> Schema:
    extensions = sorted(key for key in node if key.startswith(_EXTENSION))
    return {key: node[key] for key in (*_BEFORE, *_BOUNDS, *extensions, *_CHILDREN) if key in node}
