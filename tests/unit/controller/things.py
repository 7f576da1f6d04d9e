"""Objects as the API gives them, for tests of the controller's parts."""

from __future__ import annotations

import itertools
from typing import Any

from corral import allocate, kube
from corral.controller import world

_VERSIONS = itertools.count(1)


def made(where: kube.Collection, name: str, *, namespace: str = "", uid: str = "", **rest: Any) -> kube.Object:
    """An object of this collection, newer than any that was made before."""
    metadata: dict[str, Any] = {"name": name, "uid": uid or f"{where.plural}-{name}"}
    metadata |= {"namespace": namespace} if namespace else {}
    metadata |= {"resourceVersion": str(next(_VERSIONS)), "generation": 1}
    return {"metadata": metadata | rest.pop("metadata", {}), "spec": {}, **rest}


def owner(uid: str, name: str = "web") -> dict[str, str]:
    return {"namespace": "shop", "name": name, "uid": uid}


def an_instance(uid: str, *, host: str = "h1", epoch: int = 1, memory: int = 100, **rest: Any) -> kube.Object:
    """The Instance of the machine of this uid."""
    return made(
        world.INSTANCES,
        f"shop.web.{uid}.{epoch}",
        namespace=f"corral-host-{host}",
        uid=rest.pop("own_uid", ""),
        spec={"owner": owner(uid), "epoch": epoch, "cpu": 1, "memory": memory},
        **rest,
    )


def an_allocation(uid: str, address: str) -> kube.Object:
    """What says that the machine of this uid has the address."""
    spec = {"address": address, "poolRef": {"name": "pool"}, "owner": owner(uid), "interface": "eth0"}
    return made(world.ALLOCATIONS, "v4-" + address.replace(".", "-"), uid=f"a-{uid}-{address}", spec=spec)


def a_pool(name: str, *prefixes: str, **spec: Any) -> kube.Object:
    """An IPPool, older than any that is made after it."""
    pool = made(world.POOLS, name, spec={"prefixes": list(prefixes), **spec})
    pool["metadata"]["creationTimestamp"] = f"2026-01-31T12:{int(pool['metadata']['resourceVersion']):06}Z"
    return pool


def a_block(prefix: str, host: str, pool: str = "pool") -> kube.Object:
    """What says that the host has the block."""
    spec = {"prefix": prefix, "poolRef": {"name": pool}, "host": host}
    return made(world.BLOCKS, allocate.block_name(prefix), spec=spec)


def a_machine(name: str, *, uid: str = "", status: Any = None, **spec: Any) -> kube.Object:
    return made(world.VMS, name, namespace="shop", uid=uid, spec=spec, status=status or {})
