"""VirtualMachine: requirements, placement by compare-and-set, addresses, Instance, status.

Each step is found done or is done now; a controller killed between any two finds the rest to do. The placement in the
status is the one record of where a guest is; an Instance of the same uid without a record is the record.
"""

from __future__ import annotations

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import instance, virtualmachine
from corral.conclude import conditions
from corral.conclude import virtualmachine as conclude
from corral.controller import claim, removal, userdata
from corral.controller.world import INSTANCES, VMS, StoreLookup, World
from corral.resolve import instance as resolve_instance
from corral.resolve import requirements as resolve

_ANEW = 0.05
_CONTESTED = 5.0
_SOON, _LATER = 0.1, 1.0
"""Seconds between two looks at who has answered the roll call: at first, and when it takes its time."""

VirtualMachine = conclude.VirtualMachine
Instance = objects.Object[instance.InstanceSpec, instance.InstanceStatus]


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Make the host run what the VirtualMachine says, and the VirtualMachine say what the host runs."""
    if world.store.is_doubtful(key):
        await world.current(VMS, key)
    waiting = await removal.remove_leftovers(world, key)
    raw = world.store.get(key)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return waiting
    vm = objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)
    look_again = await _converge(world, vm)
    return _earlier(waiting, look_again)


async def _converge(world: World, vm: VirtualMachine) -> float | None:
    standing = _standing(world, vm)
    made = () if standing is None else [disk.name for disk in standing.spec.disks]
    needs = resolve.requirements(vm.spec, vm.namespace, StoreLookup(world.store), made)
    placement = _placement(vm, standing)
    if isinstance(needs, resolve.Unmet):
        if standing is not None:
            # It can't grow into a class that is not there, and still it can be halted.
            standing = await _change(world, standing, resolve_instance.as_it_stands(vm, standing.spec))
        unmet = conditions.false("Scheduled", needs.reason, needs.detail)
        return await _conclude(world, vm, unmet, placement, standing)
    if standing is None and (silent := claim.awaited(world)):
        return await _await(world, vm, placement, silent)
    content = None if standing is not None else await userdata.read(world, vm)
    if isinstance(content, conditions.Fact):
        return _earlier(await _conclude(world, vm, content, placement, None), userdata.again(vm, world.clock()))
    if placement is None or (standing is None and not claim.holds(world, vm, placement, needs)):
        chosen = claim.choose(world, vm, needs)
        if isinstance(chosen, conditions.Fact):
            # A claim that comes to nothing is told to nobody.
            contested = _CONTESTED if chosen.reason == "AddressTaken" else None
            return _earlier(await _conclude(world, vm, chosen, None, None), contested)
        placement = chosen
        vm = await claim.write(world, vm, placement)
    if not await claim.take_addresses(world, vm, needs, placement):
        return await _give_up(world, vm, placement, standing)
    if standing is None:
        standing = await _create(world, vm, needs, placement)
    standing = await _change(world, standing, resolve_instance.instance_spec(vm, needs, placement, standing.spec))
    world.ledger.release(vm.uid)
    lacks = await userdata.ensure(world, vm, standing, content)
    look_again = await _conclude(world, vm, lacks or claim.placed(placement), placement, standing)
    return look_again if lacks is None else _earlier(look_again, userdata.again(vm, world.clock()))


async def _await(
    world: World, vm: VirtualMachine, placement: virtualmachine.Placement | None, silent: tuple[str, ...]
) -> float | None:
    """Nothing is placed before hosts have said what they run: a guest of this one may be on one of them."""
    if world.roll_call.is_quiet:
        return _SOON
    others = f", nor have {len(silent) - 1} others" if len(silent) > 1 else ""
    detail = f"Host {silent[0]} has not said yet what it runs{others}"
    look_again = await _conclude(world, vm, conditions.false("Scheduled", "WaitingForHosts", detail), placement, None)
    return _LATER if look_again is None else min(look_again, _LATER)


def _earlier(*waits: float | None) -> float | None:
    return min((after for after in waits if after is not None), default=None)


def _standing(world: World, vm: VirtualMachine) -> Instance | None:
    """The Instance of this uid with the highest epoch, None where there is none."""
    owned = world.placed(vm.namespace, vm.name)
    mine = [obj for obj in owned if obj["spec"]["owner"]["uid"] == vm.uid]
    if not mine:
        return None
    return _instance(max(mine, key=lambda obj: int(obj["spec"]["epoch"])))


def _placement(vm: VirtualMachine, standing: Instance | None) -> virtualmachine.Placement | None:
    """The record, until there is an Instance: then that one's word counts, for a guest may run by it."""
    if standing is None:
        return vm.status.placement
    return virtualmachine.Placement(
        host=standing.namespace.removeprefix(resolve_instance.namespace("")),
        epoch=standing.spec.epoch,
        addresses=tuple(
            virtualmachine.PlacedAddress(interface=nic.name, address=address)
            for nic in standing.spec.interfaces
            for address in nic.addresses
        ),
    )


async def _give_up(
    world: World, vm: VirtualMachine, placement: virtualmachine.Placement, standing: Instance | None
) -> float | None:
    """Somebody else has an address of the placement: choose anew, unless a guest runs with it."""
    world.ledger.release(vm.uid)
    if standing is not None:
        return await _conclude(world, vm, conditions.false("Scheduled", "AddressTaken"), placement, standing)
    status = vm.status.model_copy(update={"placement": None})
    await world.write_status(VMS, vm.raw, status, unchanged=True)
    return _ANEW


async def _create(
    world: World, vm: VirtualMachine, needs: resolve.Requirements, placement: virtualmachine.Placement
) -> Instance:
    """The Instance of this placement, made now or found made."""
    spec = resolve_instance.instance_spec(vm, needs, placement, None)
    name, namespace = resolve_instance.name(vm, placement.epoch), resolve_instance.namespace(placement.host)
    metadata = {"name": name, "namespace": namespace, "finalizers": [instance.FINALIZER]}
    try:
        raw = await world.api.create(INSTANCES, {"metadata": metadata, "spec": spec.wire()})
    except kube.ApiConflict:
        found = await world.api.get(INSTANCES, namespace, name)
        if found is None:
            raise
        raw = found
    world.store.put(INSTANCES, raw)
    return _instance(raw)


async def _change(world: World, standing: Instance, wanted: instance.InstanceSpec) -> Instance:
    """The Instance with this spec, by one PATCH or none."""
    if wanted == standing.spec or standing.is_deleted:
        return standing
    difference = kube.merge_patch(standing.raw["spec"], wanted.wire())
    with world.doubting(INSTANCES, standing.raw):
        raw = await world.api.patch(INSTANCES, standing.raw, {"spec": difference})
    world.store.put(INSTANCES, raw)
    return _instance(raw)


def _instance(raw: kube.Object) -> Instance:
    return objects.parsed(raw, instance.InstanceSpec, instance.InstanceStatus)


async def _conclude(
    world: World,
    vm: VirtualMachine,
    scheduled: conditions.Fact,
    placement: virtualmachine.Placement | None,
    standing: Instance | None,
) -> float | None:
    answered = standing is not None and standing.status.observed_generation == standing.generation
    observed = conclude.Observed(
        scheduled=scheduled,
        placement=placement,
        agent=None if placement is None else world.heartbeats.fact(placement.host),
        instance=standing.status if standing is not None and answered else None,
    )
    status, look_again = conclude.conclude(vm, observed, world.clock())
    await world.write_status(VMS, vm.raw, status)
    return look_again
