"""The claim of a VirtualMachine on a host and on addresses: chosen and reserved in one turn, then written.

The placement in the status is written first, by compare-and-set; after it the addresses are entered in the ledger of
the API, where each has a name that only one can have. `controller.virtualmachine` calls this, and the
process at its start.
"""

from __future__ import annotations

import structlog

from corral import allocate, kube
from corral.api import objects
from corral.api.v1alpha1 import virtualmachine
from corral.conclude import conditions
from corral.conclude import virtualmachine as conclude
from corral.controller import addresses, blocks, candidates, ledger
from corral.controller import host as controller_host
from corral.controller.world import ALLOCATIONS, HOSTS, VMS, StoreLookup, World
from corral.place import costs
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
    cost = costs.NOTHING if isinstance(needs, resolve.Unmet) else candidates.cost(needs)
    charge = ledger.Charge(placement.host, cost)
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in placement.addresses))


def choose(world: World, vm: VirtualMachine, needs: resolve.Requirements) -> Placement | conditions.Fact:
    """A host and addresses, reserved in the ledger; or why there are none."""
    world.ledger.release(vm.uid)
    found = world.orphans.of(vm.uid)
    if found is None:
        where = candidates.choose(world.candidates, world.census, vm, needs)
        if isinstance(where, conditions.Fact):
            return where
        host_name = where
    else:
        host_name = found.host
    given = addresses.choose(world, vm, needs, host_name, found)
    if isinstance(given, conditions.Fact):
        return given
    epochs = (1, _epoch(vm), 0 if found is None else found.epoch)
    placement = Placement(host=host_name, epoch=max(epochs), addresses=given)
    charge = ledger.Charge(placement.host, candidates.cost(needs))
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in given))
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


def _epoch(vm: VirtualMachine) -> int:
    return 0 if vm.status.placement is None else vm.status.placement.epoch
