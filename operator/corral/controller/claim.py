"""The claim of a VirtualMachine on a host and on addresses: chosen and reserved in one turn, then written.

The placement in the status is written first, by compare-and-set; after it the addresses are entered in the ledger of
the API, where each has a name that only one can have. `controller.virtualmachine` calls this, and the
process at its start.
"""

from __future__ import annotations

import structlog

from corral import allocate, kube, place
from corral.api import objects, quantities
from corral.api.v1alpha1 import host, virtualmachine
from corral.conclude import conditions
from corral.conclude import host as conclude_host
from corral.conclude import virtualmachine as conclude
from corral.controller import addresses, blocks, ledger
from corral.controller import host as controller_host
from corral.controller.world import ALLOCATIONS, HOST_STATES, HOSTS, VMS, StoreLookup, World
from corral.resolve import instance as resolve_instance
from corral.resolve import requirements as resolve

VirtualMachine = conclude.VirtualMachine
Placement = virtualmachine.Placement

log = structlog.get_logger(__name__)


def recall(world: World, raw: kube.Object) -> None:
    """Count what a VirtualMachine claimed before this process began, and has no Instance for yet."""
    try:
        vm = objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)
    except objects.NotUnderstood:
        return
    placement = vm.status.placement
    owned = world.placed(vm.namespace, vm.name)
    if placement is None or any(obj["spec"]["owner"]["uid"] == vm.uid for obj in owned):
        return
    needs = resolve.requirements(vm.spec, vm.namespace, StoreLookup(world.store))
    cpu, memory = (0, 0) if isinstance(needs, resolve.Unmet) else (needs.cpu, needs.memory)
    charge = ledger.Charge(placement.host, cpu, memory)
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in placement.addresses))


def choose(world: World, vm: VirtualMachine, needs: resolve.Requirements) -> Placement | conditions.Fact:
    """A host and addresses, reserved in the ledger; or why there are none."""
    world.ledger.release(vm.uid)
    found = world.orphans.of(vm.uid)
    if found is None:
        where = place.place(place.Need(needs.cpu, needs.memory), _candidates(world))
        if isinstance(where, place.Nowhere):
            return conditions.false("Scheduled", "NoHostFits", str(where))
        host_name = where.host
    else:
        host_name = found.host
    chosen = addresses.choose(world, vm, needs, host_name, found)
    if isinstance(chosen, conditions.Fact):
        return chosen
    epochs = (1, _epoch(vm), 0 if found is None else found.epoch)
    placement = Placement(host=host_name, epoch=max(epochs), addresses=chosen)
    charge = ledger.Charge(placement.host, needs.cpu, needs.memory)
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in chosen))
    if found is not None:
        log.warning("a guest whose record was lost is taken back", vm=f"{vm.namespace}/{vm.name}", host=host_name)
    return placement


async def write(world: World, vm: VirtualMachine, placement: Placement) -> VirtualMachine:
    """Write the placement, only onto the VirtualMachine as it was read: the loser of a race reads again.

    Before it the blocks that its addresses are of, so that none is given of a block that nobody knows.
    The VirtualMachine as this left it. Raises `kube.ApiError`; where the write may have taken effect, what was reserved
    stays so until the next look.
    """
    observed = conclude.Observed(placed(placement), placement, world.heartbeats.fact(placement.host))
    status, _ = conclude.conclude(vm, observed, world.clock())
    try:
        for one in placement.addresses:
            await blocks.ensure(world, one.address, placement.host)
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


def holds(world: World, vm: VirtualMachine, placement: Placement, needs: resolve.Requirements) -> bool:
    """Whether a placement without Instance can be gone by.

    It has an address for each interface, those that are asked for among them, and none beside: a status may be written
    by hand. None is of somebody else's guest that was lost, which has it since then. And no host has a guest of it that
    was placed then or later, elsewhere or with other addresses: that one runs, and the record is older.
    """
    wanted = {need.name for need in needs.interfaces}
    if {one.interface for one in placement.addresses} != wanted:
        return False
    has = {(one.interface, one.address) for one in placement.addresses}
    if any((need.name, address) not in has for need in needs.interfaces for address in need.addresses):
        return False
    if any(world.orphans.holder(one.address) not in (None, vm.uid) for one in placement.addresses):
        return False
    lost = world.orphans.of(vm.uid)
    if lost is None or lost.epoch < placement.epoch:
        return True
    runs_with = {one for one in lost.addresses if one.interface in wanted}
    return lost.host == placement.host and runs_with <= set(placement.addresses)


def awaited(world: World) -> tuple[str, ...]:
    """The hosts that must first say what they run, before anything without an Instance is placed."""
    if world.roll_call.is_over:
        return ()
    for name in world.roll_call.ask():
        world.tell(kube.Key(HOSTS.plural, "", name), 0.0)
    return tuple(
        world.roll_call.missing(
            lambda name, asked: controller_host.has_answered(world, name, asked),
            lambda name: world.heartbeats.fact(name).holds,
        )
    )


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


def _epoch(vm: VirtualMachine) -> int:
    return 0 if vm.status.placement is None else vm.status.placement.epoch
