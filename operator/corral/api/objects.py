"""An object as it came from the API, parsed: what of its metadata we need, its spec, its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic

from corral.api import schema

SpecT = TypeVar("SpecT", bound=schema.Model)
StatusT = TypeVar("StatusT", bound=schema.Observed)


class NotUnderstood(Exception):  # noqa: N818 - it is a finding, told to whoever wrote the object
    """The API server admitted the object, and our models don't: `args[0]` names the first field and what is wrong."""


@dataclass(frozen=True, slots=True)
class Object(Generic[SpecT, StatusT]):
    """A parsed object; `namespace` is empty where its kind has none, `raw` is the object as it came."""

    namespace: str
    name: str
    uid: str
    generation: int
    is_deleted: bool
    spec: SpecT
    status: StatusT
    raw: Mapping[str, Any]


def parsed(raw: Mapping[str, Any], spec: type[SpecT], status: type[StatusT]) -> Object[SpecT, StatusT]:
    """Parse an object of this kind. Raises `NotUnderstood` for its spec; a status is told anew whatever it was."""
    metadata = raw["metadata"]
    return Object(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        is_deleted="deletionTimestamp" in metadata,
        spec=_spec(spec, raw.get("spec", {})),
        status=status_of(raw, status),
        raw=raw,
    )


def status_of(raw: Mapping[str, Any], status: type[StatusT]) -> StatusT:
    """The status of an object as it was last written; empty where it can't be read, by hand or by another version."""
    try:
        return status.model_validate(raw.get("status", {}))
    except pydantic.ValidationError:
        return status()


def _spec(model: type[SpecT], value: Any) -> SpecT:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(["spec", *(str(part) for part in first["loc"])])
        raise NotUnderstood(f"{field}: {first['msg']}") from error
