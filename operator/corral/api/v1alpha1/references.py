"""How one object names another: `fooRef{name}`, and the owner of what stands in a host's namespace."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from corral.api import schema

MAP_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Owner(schema.Model):
    """Whom this object stands for. Owner references can't cross namespaces, so the spec says it."""

    namespace: schema.Name
    """Namespace of the owner."""

    name: schema.ObjectName
    """Name of the owner."""

    uid: schema.Uid
    """UID of the owner: another object of the same name is another owner."""


class ClassRef(schema.Model):
    """A VirtualMachineClass, by name."""

    name: schema.ObjectName
    """Name of a VirtualMachineClass."""


class ImageRef(schema.Model):
    """A ClusterImage, or an Image of the same namespace, by name."""

    kind: Literal["ClusterImage", "Image"] = "ClusterImage"
    """ClusterImage for one that the whole cloud shares, Image for one of this namespace."""

    name: schema.ObjectName
    """Name of the image."""


class NetworkRef(schema.Model):
    """A ClusterNetwork, or a Network of the same namespace, by name."""

    kind: Literal["ClusterNetwork", "Network"] = "ClusterNetwork"
    """ClusterNetwork for one that the whole cloud shares, Network for one of this namespace."""

    name: schema.ObjectName
    """Name of the network."""


class PoolRef(schema.Model):
    """An IPPool, by name."""

    name: schema.ObjectName
    """Name of an IPPool."""


PoolRefs = Annotated[tuple[PoolRef, ...], pydantic.Field(min_length=1, max_length=8, json_schema_extra=MAP_BY_NAME)]
