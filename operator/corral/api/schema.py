"""How a pydantic model says what only a CRD needs: scope, columns, CEL rules, bounded types.

Every model of `corral.api.v1alpha1` uses these; `corral.crds` turns them into CustomResourceDefinitions. Nothing here
knows Kubernetes' client or kopf.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
import pydantic.alias_generators

GROUP = "corral.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`: priority 0 is always shown, 1 with `-o wide`."""

    name: str
    json_path: str
    type: Literal["string", "integer", "date", "boolean"] = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule (`x-kubernetes-validations`) on the model that carries it.

    `rule` is evaluated with `self` (and `oldSelf`, which makes it a transition rule); `message` names the field and
    the remedy, as a tenant reads it from `kubectl apply`. `field_path` (such as `.memory`) points at the field.
    """

    rule: str
    message: str
    field_path: str | None = None
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"] = "FieldValueInvalid"
    """Not FieldValueDuplicate: with it the API server tells nobody the message."""

    optional_old_self: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What the API server must know of a kind beside its schema."""

    kind: str
    plural: str
    scope: Literal["Cluster", "Namespaced"]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    """JSON paths of `spec` or `status` fields that a field selector may name, such as `.spec.owner.uid`."""

    rules: tuple[Rule, ...] = ()
    """CEL rules on the whole object; `self.metadata.name` may be read, and nothing else of the metadata."""

    has_status: bool = True

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def crd_name(self) -> str:
        return f"{self.plural}.{GROUP}"


class Model(pydantic.BaseModel):
    """The parent of every model: camelCase on the wire, frozen, nothing unknown accepted.

    A class sets `rules: ClassVar[tuple[Rule, ...]]` for CEL rules on itself.
    """

    model_config = pydantic.ConfigDict(
        alias_generator=pydantic.alias_generators.to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """The model as it stands in a manifest: camelCase, and without what is unset or None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Observed(Model):
    """The parent of every status and of what it holds: what a newer author wrote is passed over."""

    model_config = pydantic.ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind with its models: all that the CRD generator and the API port need of it."""

    kind: Kind
    spec: type[Model]
    status: type[Observed] | None
    description: str


# Bounded types. Every string and list of the API has a bound, because CEL's cost is estimated from the bounds.
Name = Annotated[str, pydantic.Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS label (RFC 1123), 63 characters at most: names of networks, disks, interfaces."""

ObjectName = Annotated[
    str,
    pydantic.Field(
        min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    ),
]
"""A DNS subdomain (RFC 1123): the name of any Kubernetes object."""

Uid = Annotated[str, pydantic.Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?$")]
"""The uid of an object: marks and files on hosts are named after it."""

_QuantityText = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]{1,19}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
    ),
]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    _QuantityText,
    pydantic.BeforeValidator(_as_text, json_schema_input_type=Annotated[int, pydantic.Field(ge=0)] | _QuantityText),
    pydantic.Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""A Kubernetes quantity of bytes, such as `512Mi` or `2Gi`, or a bare number; in rules it is `string(self.…)`."""

Sha256 = Annotated[str, pydantic.Field(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, pydantic.Field(min_length=8, max_length=2048, pattern=r"^https?://[0-9A-Za-z_\[][!-~]*$")]
"""An http or https URL in printable ASCII: what else a path or a query has is percent-encoded."""

CommandLine = Annotated[str, pydantic.Field(max_length=2048, pattern=r"^[ -~]*$")]
"""A kernel's command line: printable ASCII."""

SshKey = Annotated[str, pydantic.Field(min_length=16, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+\n?$")]
"""A public SSH key, on one line."""

DiskName = Annotated[str, pydantic.Field(min_length=1, max_length=20, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A disk's name: the guest sees it as the disk's serial, which has 20 characters."""

InterfaceName = Annotated[str, pydantic.Field(min_length=1, max_length=15, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""An interface's name: a Linux guest has no longer ones."""

Sentence = Annotated[str, pydantic.Field(max_length=1024)]
Address = Annotated[str, pydantic.Field(min_length=2, max_length=45)]
Prefix = Annotated[str, pydantic.Field(min_length=4, max_length=49)]


def _told(value: str) -> str:
    datetime.datetime.fromisoformat(value.removesuffix("Z"))
    return value


Time = Annotated[
    str,
    pydantic.Field(
        max_length=32,
        pattern=r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        json_schema_extra={"format": "date-time"},
    ),
    pydantic.AfterValidator(_told),
]
"""An RFC 3339 time in UTC, such as `2026-01-31T12:00:00Z`."""
