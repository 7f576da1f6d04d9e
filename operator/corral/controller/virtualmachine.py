"""VirtualMachine: requirements, placement by compare-and-set, addresses, Instance, status.

Each step is found done or is done now; a controller killed between any two finds the rest to do. The placement in the
status is the one record of where a guest is; an Instance of the same uid without a record is the record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from corral import allocate, kube, place
from corral.api import objects, quantities
from corral.api.v1alpha1 import host, instance, virtualmachine
from corral.conclude import conditions
from corral.conclude import host as conclude_host
from corral.conclude import virtualmachine as conclude
from corral.controller import ledger, removal
from corral.controller.world import ALLOCATIONS, HOST_STATES, HOSTS, INSTANCES, OWNER, VMS, StoreLookup, World
from corral.resolve import instance as resolve_instance
from corral.resolve import requirements as resolve

VirtualMachine = conclude.VirtualMachine
Instance = objects.Object[instance.InstanceSpec, instance.InstanceStatus]


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Make the host run what the VirtualMachine says, and the VirtualMachine say what the host runs."""
    raw = await world.current(VMS, key)
    waiting = await removal.remove_leftovers(world, key, None if raw is None else raw["metadata"]["uid"])
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return waiting
    try:
        vm = objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)
    except objects.NotUnderstood as error:
        await _not_understood(world, raw, str(error))
        return waiting
    look_again = await _converge(world, vm)
    return min((after for after in (waiting, look_again) if after is not None), default=None)


async def _converge(world: World, vm: VirtualMachine) -> float | None:
    standing = _standing(world, vm)
    placement = vm.status.placement or (None if standing is None else _recorded(standing))
    needs = resolve.requirements(vm.spec, vm.namespace, StoreLookup(world.store))
    if isinstance(needs, resolve.Unmet):
        unmet = conditions.false("Scheduled", needs.reason, needs.detail)
        return await _conclude(world, vm, unmet, placement, standing)
    if placement is None:
        chosen = _choose(world, vm, needs)
        if isinstance(chosen, conditions.Fact):
            return await _conclude(world, vm, chosen, None, None)
        placement = chosen
        try:
            await _claim(world, vm, placement)
        except BaseException:
            world.ledger.release(vm.uid)
            raise
        vm = _read(world, vm)
    if not await _take_addresses(world, vm, needs, placement):
        return await _give_up_placement(world, vm, standing)
    standing = await _write_instance(world, vm, needs, placement, standing)
    world.ledger.release(vm.uid)
    return await _conclude(world, vm, _placed(placement), placement, standing)


def _standing(world: World, vm: VirtualMachine) -> Instance | None:
    """The Instance of this uid with the highest epoch, None where there is none."""
    owned = world.store.by(INSTANCES.plural, OWNER, f"{vm.namespace}/{vm.name}")
    mine = [obj for obj in owned if obj["spec"]["owner"]["uid"] == vm.uid]
    if not mine:
        return None
    newest = max(mine, key=lambda obj: int(obj["spec"]["epoch"]))
    return objects.parsed(newest, instance.InstanceSpec, instance.InstanceStatus)


def _recorded(standing: Instance) -> virtualmachine.Placement:
    """The placement as the Instance has it: where the record is missing, this one wins."""
    return virtualmachine.Placement(
        host=standing.namespace.removeprefix(resolve_instance.namespace("")),
        epoch=standing.spec.epoch,
        addresses=tuple(
            virtualmachine.PlacedAddress(interface=nic.name, address=address)
            for nic in standing.spec.interfaces
            for address in nic.addresses
        ),
    )


def _choose(
    world: World, vm: VirtualMachine, needs: resolve.Requirements
) -> virtualmachine.Placement | conditions.Fact:
    """A host and addresses, reserved in the ledger; or why there are none."""
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
    placement = virtualmachine.Placement(host=where.host, epoch=1, addresses=tuple(addresses))
    charge = ledger.Charge(where.host, needs.cpu, needs.memory)
    world.ledger.reserve(vm.uid, placement.epoch, charge, tuple(placed.address for placed in addresses))
    return placement


def _candidates(world: World) -> list[place.Candidate]:
    return [_candidate(world, key.name, raw) for key, raw in world.store.all(HOSTS.plural)]


def _candidate(world: World, name: str, raw: kube.Object) -> place.Candidate:
    state = world.store.get(kube.Key(HOST_STATES.plural, resolve_instance.namespace(name), name))
    try:
        spec = objects.parsed(raw, host.HostSpec, host.HostStatus).spec
        said = None if state is None else objects.parsed(state, host.HostStateSpec, host.HostStateStatus).status
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


async def _claim(world: World, vm: VirtualMachine, placement: virtualmachine.Placement) -> None:
    """Write the placement, only onto the VirtualMachine as it was read: the loser of a race reads again."""
    observed = conclude.Observed(_placed(placement), placement, world.heartbeats.fact(placement.host))
    status, _ = conclude.conclude(vm, observed, world.clock())
    await world.write_status(VMS, vm.raw, status, unchanged=True)


def _placed(placement: virtualmachine.Placement) -> conditions.Fact:
    return conditions.true("Scheduled", "Placed", f"Host {placement.host} is to run the guest")


def _read(world: World, vm: VirtualMachine) -> VirtualMachine:
    """The VirtualMachine as our own write left it."""
    raw = world.store.get(kube.Key(VMS.plural, vm.namespace, vm.name))
    if raw is None or raw["metadata"]["uid"] != vm.uid:
        return vm
    return objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)


async def _take_addresses(
    world: World, vm: VirtualMachine, needs: resolve.Requirements, placement: virtualmachine.Placement
) -> bool:
    """Enter every address of the placement in the ledger of the API; False where somebody else has one."""
    refs = {need.name: need for need in needs.interfaces}
    for placed in placement.addresses:
        name = allocate.ledger_name(placed.address)
        seen = world.store.get(kube.Key(ALLOCATIONS.plural, "", name))
        if seen is None:
            seen = await _allocate(world, vm, refs[placed.interface], placed, name)
        if seen is None or seen["spec"]["owner"]["uid"] != vm.uid:
            return False
    return True


async def _allocate(
    world: World,
    vm: VirtualMachine,
    need: resolve.InterfaceNeed,
    placed: virtualmachine.PlacedAddress,
    name: str,
) -> kube.Object | None:
    pool = next(pool.name for pool in need.pools if allocate.contains(pool.prefixes, placed.address))
    spec = {
        "address": placed.address,
        "poolRef": {"name": pool},
        "networkRef": need.network_ref.wire(),
        "owner": {"namespace": vm.namespace, "name": vm.name, "uid": vm.uid},
        "interface": placed.interface,
    }
    try:
        made: kube.Object | None = await world.api.create(ALLOCATIONS, {"metadata": {"name": name}, "spec": spec})
    except kube.ApiConflict:
        made = await world.api.get(ALLOCATIONS, None, name)
    if made is not None:
        world.store.put(ALLOCATIONS, made)
    return made


async def _give_up_placement(world: World, vm: VirtualMachine, standing: Instance | None) -> float | None:
    """Somebody else has an address of the placement: choose anew, unless a guest runs with it."""
    world.ledger.release(vm.uid)
    if standing is not None:
        fact = conditions.false("Scheduled", "AddressTaken")
        return await _conclude(world, vm, fact, vm.status.placement, standing)
    status = vm.status.model_copy(update={"placement": None})
    await world.write_status(VMS, vm.raw, status, unchanged=True)
    return 0.05


async def _write_instance(
    world: World,
    vm: VirtualMachine,
    needs: resolve.Requirements,
    placement: virtualmachine.Placement,
    standing: Instance | None,
) -> Instance:
    """The Instance as it should be: made, changed in one PATCH, or left alone."""
    before = None if standing is None else standing.spec
    wanted = resolve_instance.instance_spec(vm, needs, placement, before)
    if standing is None:
        name, namespace = resolve_instance.name(vm, placement.epoch), resolve_instance.namespace(placement.host)
        metadata = {"name": name, "namespace": namespace, "finalizers": [instance.FINALIZER]}
        try:
            raw = await world.api.create(INSTANCES, {"metadata": metadata, "spec": wanted.wire()})
        except kube.ApiConflict:
            found = await world.api.get(INSTANCES, namespace, name)
            if found is None:
                raise
            world.store.put(INSTANCES, found)
            return await _write_instance(world, vm, needs, placement, _instance(found))
    elif wanted != before and not standing.is_deleted:
        difference = kube.merge_patch(standing.raw["spec"], wanted.wire())
        raw = await world.api.patch(INSTANCES, standing.raw, {"spec": difference})
    else:
        return standing
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


async def _not_understood(world: World, raw: kube.Object, detail: str) -> None:
    status = virtualmachine.VirtualMachineStatus.model_validate(raw.get("status", {}))
    vm = dataclasses.replace(
        objects.parsed({**raw, "spec": {"cpu": 1, "memory": "1Gi"}}, virtualmachine.VirtualMachineSpec, type(status)),
        raw=raw,
    )
    await _conclude(
        world, vm, conditions.false("Scheduled", "SpecNotUnderstood", detail), status.placement, _standing(world, vm)
    )
