"""What must be true of a cloud in the end, however it came there: told by the API and by the hosts, compared."""

from __future__ import annotations

import collections
from collections.abc import Collection

from corral import kube
from corral.controller import world

from .simulated_cloud import SimulatedCloud


async def falsehoods(cloud: SimulatedCloud, *, running: Collection[str], halted: Collection[str] = ()) -> list[str]:
    """What is not as it must be where these VirtualMachines, and no others, are there; empty where all is well."""
    vms = {vm["metadata"]["name"]: vm for vm in await cloud.all(world.VMS)}
    uids = {name: vm["metadata"]["uid"] for name, vm in vms.items()}
    found = []
    if vms.keys() != {*running, *halted}:
        found.append(f"VirtualMachines: {sorted(vms)}")
    instances = await cloud.all(world.INSTANCES)
    owners = collections.Counter(obj["spec"]["owner"]["uid"] for obj in instances)
    if owners != collections.Counter(uids.values()):
        found.append(f"Instances: {[obj['metadata']['name'] for obj in instances]}")
    found += _addresses(vms, await cloud.all(world.ALLOCATIONS))
    placed = {vm["metadata"]["uid"]: _placement(vm).get("host") for vm in vms.values()}
    for metal in cloud.hosts.values():
        here = {uid for uid, host in placed.items() if host == metal.name}
        awake = {uids[name] for name in running if name in uids}
        if metal.running != here & awake:
            found.append(f"{metal.name} runs {sorted(metal.running)}")
        if metal.machine.guests.keys() - here:
            found.append(f"{metal.name} has guests of others: {sorted(metal.machine.guests.keys() - here)}")
        if metal.pool.disks.keys() != here:
            found.append(f"{metal.name} has disks of {sorted(metal.pool.disks)}")
    return found


def _placement(vm: kube.Object) -> kube.Object:
    return vm["status"].get("placement") or {}


def _addresses(vms: dict[str, kube.Object], allocations: list[kube.Object]) -> list[str]:
    wanted = collections.Counter(
        (vm["metadata"]["uid"], one["address"]) for vm in vms.values() for one in _placement(vm).get("addresses", ())
    )
    there = collections.Counter((obj["spec"]["owner"]["uid"], obj["spec"]["address"]) for obj in allocations)
    taken = collections.Counter(address for _, address in there)
    found = [f"address {address} is taken {count} times" for address, count in taken.items() if count > 1]
    return found if there == wanted else [*found, f"addresses: {there} and not {wanted}"]
