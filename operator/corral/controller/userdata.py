"""User data of a VirtualMachine: looked into before its Instance is made; that of a Secret is copied beside it.

The copy is immutable, in the host's namespace, named as the Instance and owned by it: Kubernetes removes it with the
Instance, and an agent need read nothing of a tenant's. The tenant's Secret is got by its name, never listed or watched;
one that is missing is looked for again. `controller.virtualmachine` calls this; nothing here logs or keeps a text.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import instance, virtualmachine
from corral.conclude import conditions
from corral.conclude import virtualmachine as conclude
from corral.controller.world import World
from corral.resolve import requirements as resolve
from corral.resolve import userdata as resolve_userdata

VirtualMachine = conclude.VirtualMachine
Instance = objects.Object[instance.InstanceSpec, instance.InstanceStatus]

KEY = "userData"
"""The copy's key, whatever the tenant's is."""

_FIRST_LOOK, _LONGEST_WAIT = 5.0, 60.0


def again(vm: VirtualMachine, now: datetime.datetime) -> float | None:
    """In how many seconds to look for the Secret again: the longer it is missing, the later. None without a Secret."""
    if _ref(vm) is None:
        return None
    since = now
    # A status may be written by hand, with a time that no calendar has.
    with contextlib.suppress(ValueError, StopIteration):
        since = conditions.parsed(
            next(one.last_transition_time for one in vm.status.conditions if one.type == "Scheduled")
        )
    return min(max((now - since).total_seconds(), _FIRST_LOOK), _LONGEST_WAIT)


async def read(world: World, vm: VirtualMachine) -> bytes | conditions.Fact | None:
    """Of a VirtualMachine without Instance: what is to be copied, None for nothing, or why no guest is made of it."""
    ref = _ref(vm)
    if world.orphans.of(vm.uid) is not None:
        # Its guest was told long ago.
        return None
    if ref is None:
        text = "" if vm.spec.cloud_init is None else vm.spec.cloud_init.user_data
        return _fact(resolve_userdata.fault(text, "spec.cloudInit.userData", is_secret=False))
    return await _secret(world, vm, ref)


async def ensure(world: World, vm: VirtualMachine, standing: Instance, content: bytes | None) -> conditions.Fact | None:
    """Have the copy that an Instance needs beside it: why it can't be had, None where all is well.

    `content` is what `read` gave, None for an Instance that was made earlier. Raises `kube.ApiError`.
    """
    name = standing.spec.seed.user_data_secret
    if name is None or standing.uid in world.user_data or standing.is_deleted:
        return None
    if content is None and not await _is_copied(world, standing, name) and not _has_its_seed(standing):
        ref = _ref(vm)
        found = None if ref is None else await _secret(world, vm, ref)
        if not isinstance(found, bytes):
            return found or _missing("The VirtualMachine names no Secret any more, and its guest was told nothing yet")
        content = found
    if content is not None:
        await _copy(world, standing, name, content)
    world.user_data.add(standing.uid)
    return None


async def _copy(world: World, standing: Instance, name: str, content: bytes) -> None:
    owner = {
        "apiVersion": standing.raw["apiVersion"],
        "kind": standing.raw["kind"],
        "name": standing.name,
        "uid": standing.uid,
    }
    secret = {
        "metadata": {"name": name, "namespace": standing.namespace, "ownerReferences": [owner]},
        "type": "Opaque",
        "immutable": True,
        "data": {KEY: base64.b64encode(content).decode()},
    }
    try:
        await world.api.create(kube.SECRETS, secret)
    except kube.ApiConflict:
        # An earlier try whose answer was lost; or an Instance of this name is gone, and its copy about to go.
        if not await _is_copied(world, standing, name):
            raise


async def _is_copied(world: World, standing: Instance, name: str) -> bool:
    found = await world.api.get(kube.SECRETS, standing.namespace, name)
    owners = [] if found is None else found["metadata"].get("ownerReferences", [])
    return any(one["uid"] == standing.uid for one in owners)


async def _secret(world: World, vm: VirtualMachine, ref: virtualmachine.UserDataSecretRef) -> bytes | conditions.Fact:
    where = f"key {ref.key} of Secret {ref.name}"
    found = await world.api.get(kube.SECRETS, vm.namespace, ref.name)
    if found is None:
        return _missing(f"There is no Secret {ref.name} in namespace {vm.namespace}")
    encoded = (found.get("data") or {}).get(ref.key)
    if encoded is None:
        return _missing(f"Secret {ref.name} has no key {ref.key}")
    try:
        content = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return _missing(f"{where} is not readable")
    text = resolve_userdata.text(content, where)
    fault = text if isinstance(text, resolve.Unmet) else resolve_userdata.fault(text, where, is_secret=True)
    return _fact(fault) or content


def _missing(detail: str) -> conditions.Fact:
    return conditions.false("Scheduled", "UserDataSecretMissing", f"{detail}: see spec.cloudInit.userDataSecretRef")


def _fact(unmet: resolve.Unmet | None) -> conditions.Fact | None:
    return None if unmet is None else conditions.false("Scheduled", unmet.reason, unmet.detail)


def _ref(vm: VirtualMachine) -> virtualmachine.UserDataSecretRef | None:
    return None if vm.spec.cloud_init is None else vm.spec.cloud_init.user_data_secret_ref


def _has_its_seed(standing: Instance) -> bool:
    return any(one.type == "StorageReady" and one.status == "True" for one in standing.status.conditions)
