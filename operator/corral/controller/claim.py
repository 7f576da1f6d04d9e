"""The claim of a VirtualMachine on a host and on addresses: chosen and reserved in one turn, then written.

The placement in the status is written first, by compare-and-set; after it the addresses are entered in the ledger of
the API, where each has a name that only one can have. `controller.virtualmachine` calls this, and the
process at its start.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral import allocate, kube, place
from corral.api import objects, quantities
from corral.api.v1alpha1 import host, virtualmachine
from corral.conclude import conditions
from corral.conclude import host as conclude_host
from corral.conclude import virtualmachine as conclude
from corral.controller import ledger
from corral.controller.world import ALLOCATIONS, HOST_STATES, HOSTS, INSTANCES, OWNER, VMS, StoreLookup, World
from corral.resolve import instance as resolve_instance
from corral.resolve import requirements as resolve

VirtualMachine = conclude.VirtualMachine
Placement = virtualmachine.Placement


def recall(world: World, raw: kube.Object) -> None:
    """Count what a VirtualMachine claimed before this process began, and has no Instance for yet."""
    try:
        vm = objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)
    except objects.NotUnderstood:
        return
    placement = vm.status.placement
    owned = world.store.by(INSTANCES.plural, OWNER, f"{vm.namespace}/{vm.name}")
    if placement is None or any(obj["spec"]["owner"]["uid"] == vm.uid for obj in owned):
        return
    needs = resolve.requirements(vm.spec, vm.namespace, StoreLookup(world.store))
    cpu, memory = (0, 0) if isinstance(needs, resolve.Unmet) else (needs.cpu, needs.memory)
    charge = ledger.Charge(placement.host, cpu, memory)
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in placement.addresses))


def choose(world: World, vm: VirtualMachine, needs: resolve.Requirements) -> Placement | conditions.Fact:
    """A host and addresses, reserved in the ledger; or why there are none."""
    world.ledger.release(vm.uid)
    where = place.place(place.Need(needs.cpu, needs.memory), _candidates(world))
    if isinstance(where, place.Nowhere):
        return conditions.false("Scheduled", "NoHostFits", str(where))
    addresses: list[virtualmachine.PlacedAddress] = []
    for need in needs.interfaces:
        address = _address(world, vm, need, [placed.address for placed in addresses])
        if address is None:
            pools = ", ".join(pool.name for pool in need.pools)
            detail = f"No address is free for interface {need.name}: IPPools {pools} are full"
            return conditions.false("Scheduled", "PoolExhausted", detail)
        addresses.append(virtualmachine.PlacedAddress(interface=need.name, address=address))
    placement = Placement(host=where.host, epoch=1, addresses=tuple(addresses))
    charge = ledger.Charge(where.host, needs.cpu, needs.memory)
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in addresses))
    return placement


async def write(world: World, vm: VirtualMachine, placement: Placement) -> VirtualMachine:
    """Write the placement, only onto the VirtualMachine as it was read: the loser of a race reads again.

    The VirtualMachine as this left it. Raises `kube.ApiError`; where the write may have taken effect, what was reserved
    stays so until the next look.
    """
    observed = conclude.Observed(placed(placement), placement, world.heartbeats.fact(placement.host))
    status, _ = conclude.conclude(vm, observed, world.clock())
    try:
        await world.write_status(VMS, vm.raw, status, unchanged=True)
    except (kube.ApiConflict, kube.ApiRefused):
        world.ledger.release(vm.uid)
        raise
    raw = world.store.get(kube.Key(VMS.plural, vm.namespace, vm.name))
    if raw is None or raw["metadata"]["uid"] != vm.uid:
        raise kube.ApiConflict(f"PATCH {vm.namespace}/{vm.name}", "the VirtualMachine vanished while it was placed")
    return objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)


def placed(placement: Placement) -> conditions.Fact:
    """Scheduled, of a VirtualMachine with this placement."""
    return conditions.true("Scheduled", "Placed", f"Host {placement.host} is to run the guest")


def fits(placement: Placement, needs: resolve.Requirements) -> bool:
    """Whether the placement has an address for each interface, and none beside: a status may be written by hand."""
    return {one.interface for one in placement.addresses} == {need.name for need in needs.interfaces}


async def take_addresses(world: World, vm: VirtualMachine, needs: resolve.Requirements, placement: Placement) -> bool:
    """Enter every address of the placement in the ledger of the API; False where somebody else has one."""
    interfaces = {need.name: need for need in needs.interfaces}
    for one in placement.addresses:
        key = kube.Key(ALLOCATIONS.plural, "", allocate.ledger_name(one.address))
        seen = world.store.get(key)
        if seen is not None:
            seen = await world.current(ALLOCATIONS, key)
        if seen is None:
            seen = await _allocate(world, vm, interfaces[one.interface], one, key.name)
        if seen is None or seen["spec"]["owner"]["uid"] != vm.uid:
            return False
    return True


async def _allocate(
    world: World, vm: VirtualMachine, need: resolve.InterfaceNeed, one: virtualmachine.PlacedAddress, name: str
) -> kube.Object | None:
    of = (pool.name for pool in need.pools if allocate.contains(pool.prefixes, one.address))
    spec = {
        "address": one.address,
        # An address is kept for life, also where its network has other pools by now.
        "poolRef": {"name": next(of, need.pools[0].name)},
        "networkRef": need.network_ref.wire(),
        "owner": {"namespace": vm.namespace, "name": vm.name, "uid": vm.uid},
        "interface": one.interface,
    }
    try:
        made: kube.Object | None = await world.api.create(ALLOCATIONS, {"metadata": {"name": name}, "spec": spec})
    except kube.ApiConflict:
        made = await world.api.get(ALLOCATIONS, None, name)
    if made is not None:
        world.store.put(ALLOCATIONS, made)
    return made


def _candidates(world: World) -> list[place.Candidate]:
    return [_candidate(world, key.name, raw) for key, raw in world.store.all(HOSTS.plural)]


def _candidate(world: World, name: str, raw: kube.Object) -> place.Candidate:
    state = world.store.get(kube.Key(HOST_STATES.plural, resolve_instance.namespace(name), name))
    try:
        spec = objects.parsed(raw, host.HostSpec, host.HostStatus).spec
        said = None if state is None else objects.status_of(state, host.HostStateStatus)
    except objects.NotUnderstood:
        return place.Candidate(name, 0, 0, refuses="not understood")
    if "deletionTimestamp" in raw["metadata"] or spec.maintenance:
        return place.Candidate(name, 0, 0, refuses="in maintenance")
    if said is None or not world.heartbeats.fact(name).holds or not _hypervisor_answers(said):
        return place.Candidate(name, 0, 0, refuses="not ready")
    free = conclude_host.allocatable(spec, said.capacity)
    return place.Candidate(name, free.cpu, quantities.to_bytes(free.memory) - world.ledger.memory_taken(name))


def _hypervisor_answers(said: host.HostStateStatus) -> bool:
    return any(one.type == "HypervisorReady" and one.status == "True" for one in said.conditions)


def _address(world: World, vm: VirtualMachine, need: resolve.InterfaceNeed, chosen: Sequence[str]) -> str | None:
    """The address that the interface has already, or the first free one of its pools."""
    for obj in world.store.by(ALLOCATIONS.plural, OWNER, f"{vm.namespace}/{vm.name}"):
        if obj["spec"]["owner"]["uid"] == vm.uid and obj["spec"]["interface"] == need.name:
            return str(obj["spec"]["address"])
    for pool in need.pools:
        address = allocate.allocate(
            pool.prefixes, lambda one: one in chosen or world.ledger.holder(one) not in (None, vm.uid)
        )
        if address is not None:
            return address
    return None
