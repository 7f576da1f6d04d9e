from __future__ import annotations

import itertools
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corral.api.v1alpha1 import instance, virtualmachine
from corral.resolve import instance as resolve
from corral.resolve import requirements

from .catalogue import SUM, Known, an_image, machine

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")


def placed(*addresses: tuple[str, str], epoch: int = 1) -> virtualmachine.Placement:
    return virtualmachine.Placement(
        host="h1",
        epoch=epoch,
        addresses=tuple(
            virtualmachine.PlacedAddress(interface=interface, address=address) for interface, address in addresses
        ),
    )


def spec_of(vm: Any, before: instance.InstanceSpec | None = None, known: Known | None = None) -> instance.InstanceSpec:
    needs = requirements.requirements(vm.spec, vm.namespace, known or Known())
    assert isinstance(needs, requirements.Requirements)
    return resolve.instance_spec(vm, needs, placed(("eth0", "10.7.0.5")), before)


def with_disks(*names: str) -> Any:
    return machine(disks=[{"name": name, "size": "1Gi"} for name in names])


@given(wanted=st.lists(st.lists(st.sampled_from(NAMES), unique=True, max_size=8), min_size=1, max_size=6))
def test_slots_are_for_life_and_nobody_elses(wanted: list[list[str]]) -> None:
    before: instance.InstanceSpec | None = None
    for names in wanted:
        made = spec_of(with_disks(*names), before)
        slots = {disk.name: disk.slot for disk in made.disks}
        had = {} if before is None else {disk.name: disk.slot for disk in before.disks}
        assert [disk.name for disk in made.disks] == ["root", *names]
        assert all(slots[name] == had[name] for name in slots.keys() & had.keys())
        every = [*slots.values(), made.seed_slot, *(nic.slot for nic in made.interfaces)]
        assert len(set(every)) == len(every)
        assert spec_of(with_disks(*names), made) == made
        before = made


def test_as_many_disks_and_interfaces_as_the_api_allows_have_slots() -> None:
    networks = [{"name": f"eth{number}", "networkRef": {"name": "default"}} for number in range(8)]
    vm = machine(disks=[{"name": name, "size": "1Gi"} for name in NAMES], networks=networks)
    made = spec_of(vm)
    assert (len(made.disks), len(made.interfaces)) == (9, 8)
    macs = [nic.mac for nic in made.interfaces]
    assert len(set(macs)) == 8


@given(uid=st.uuids(), other=st.uuids(), interface=st.sampled_from(["eth0", "eth1"]))
def test_a_mac_is_a_machines_own_and_for_life(uid: object, other: object, interface: str) -> None:
    mac = resolve.mac(str(uid), interface)
    assert mac == resolve.mac(str(uid), interface)
    assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", mac)  # locally administered, one receiver
    assert uid == other or mac != resolve.mac(str(other), interface)
    assert mac != resolve.mac(str(uid), "eth9")


def test_an_interface_has_its_own_addresses_and_what_its_network_says() -> None:
    vm = machine(
        networks=[
            {"name": "eth0", "networkRef": {"name": "default"}},
            {"name": "lan", "networkRef": {"name": "back", "kind": "Network"}},
        ]
    )
    needs = requirements.requirements(vm.spec, "shop", Known())
    assert isinstance(needs, requirements.Requirements)
    where = placed(("lan", "10.7.0.9"), ("eth0", "10.7.0.5"), ("lan", "10.7.0.10"))
    made = resolve.instance_spec(vm, needs, where, None)
    assert [(nic.name, nic.mtu, nic.addresses) for nic in made.interfaces] == [
        ("eth0", 1500, ("10.7.0.5",)),
        ("lan", 9000, ("10.7.0.9", "10.7.0.10")),
    ]


def test_the_kernel_is_the_root_disks() -> None:
    source = {"url": "http://images.test/k", "sha256": SUM}
    boot = {"kernel": source, "initramfs": source, "commandLine": "quiet"}
    known = Known(images={("", "debian"): an_image(directBoot=boot)})
    made = spec_of(machine(), known=known)
    assert made.boot is not None
    assert (made.boot.command_line, made.boot.kernel.format) == ("quiet", "blob")
    assert spec_of(machine()).boot is None


def test_a_disk_stays_what_it_was_made_from_and_only_grows() -> None:
    source = {"url": "http://images.test/k", "sha256": SUM}
    first = Known(images={("", "debian"): an_image(directBoot={"kernel": source, "initramfs": source})})
    other = Known(images={("", "debian"): an_image(format="raw", defaultSize="1Gi")})
    made = spec_of(machine(rootDisk={"size": "5Gi"}), known=first)
    again = spec_of(machine(rootDisk={"size": "4Gi"}), made, other)
    assert (again.disks, again.boot) == (made.disks, made.boot)
    assert spec_of(machine(rootDisk={"size": "6Gi"}), made, other).disks[0].size == 6 << 30


def test_where_a_reference_leads_nowhere_the_guest_can_still_be_halted() -> None:
    made = spec_of(machine(cpu=4))
    halted = resolve.as_it_stands(machine(runStrategy="Halted", terminationGracePeriodSeconds=5), made)
    assert (halted.run_strategy, halted.termination_grace_period_seconds, halted.cpu) == ("Halted", 5, 4)
    assert (halted.disks, halted.interfaces, halted.owner) == (made.disks, made.interfaces, made.owner)


def test_what_the_tenant_wrote_is_in_the_seed() -> None:
    vm = machine(cloudInit={"userData": "#cloud-config"}, sshAuthorizedKeys=["ssh-ed25519 AAAA"], runStrategy="Halted")
    made = spec_of(vm)
    assert made.seed.user_data == "#cloud-config"
    assert made.seed.ssh_authorized_keys == ("ssh-ed25519 AAAA",)
    assert (made.seed.instance_id, made.seed.hostname) == (f"{vm.uid}-0", "web")
    assert made.run_strategy == "Halted"


def test_a_guest_that_should_run_is_started_by_its_host_alone_and_no_other() -> None:
    running = spec_of(machine())
    assert running.start_without_api
    assert running.wire()["startWithoutAPI"] is True
    assert not spec_of(machine(runStrategy="Halted")).start_without_api
    assert not resolve.as_it_stands(machine(runStrategy="Halted"), running).start_without_api


def test_it_comes_back_from_the_wire() -> None:
    made = spec_of(with_disks("a", "b"))
    assert instance.InstanceSpec.model_validate(made.wire()) == made


def test_names_fit_and_differ_by_epoch() -> None:
    longest = machine(name="n" * 63, namespace="s" * 63)
    names = [resolve.name(longest, epoch) for epoch in (1, 2, 2**63)]
    assert len(set(names)) == 3
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    assert all(len(name) <= 253 and re.fullmatch(rf"{label}(\.{label})*", name) for name in names)


def test_names_of_different_machines_differ() -> None:
    pairs = itertools.product(("a", "a-b"), ("c", "b-c"))
    names = {resolve.name(machine(namespace=namespace, name=name), 1) for namespace, name in pairs}
    assert len(names) == 4


def test_a_hosts_namespace_is_a_label() -> None:
    assert resolve.namespace("h1") == "corral-host-h1"
    assert len(resolve.namespace("h" * 51)) == 63


def test_firmware_is_for_life() -> None:
    known = Known(firmware={"small": "UEFI"})
    vm = machine(cpu=None, memory=None, classRef={"name": "small"})
    made = spec_of(vm, known=known)
    assert made.firmware == "UEFI"
    assert spec_of(vm, made, Known()).firmware == "UEFI"
    assert spec_of(vm, spec_of(vm), known).firmware == "BIOS"


def test_user_data_of_a_secret_stands_in_no_instance_and_its_name_does() -> None:
    vm = machine(cloudInit={"userDataSecretRef": {"name": "mine"}})
    made = spec_of(vm)
    assert (made.seed.user_data, made.seed.user_data_secret) == ("", resolve.name(vm, 1))


def test_where_user_data_is_from_is_for_life_once_a_secret_is_in_it() -> None:
    asked = {"userDataSecretRef": {"name": "mine"}}
    secret, inline, none = machine(cloudInit=asked), machine(cloudInit={"userData": "#a"}), machine()
    for first, later in itertools.product((secret, inline, none), repeat=2):
        before = spec_of(first)
        after = spec_of(later, before)
        stands = resolve.as_it_stands(later, before)
        assert after.seed == stands.seed
        assert (after.seed == before.seed) or secret not in (first, later)


def test_another_instance_id_would_set_a_guest_up_anew() -> None:
    vm = machine()
    made = spec_of(vm)
    older = made.model_copy(update={"seed": made.seed.model_copy(update={"instance_id": vm.uid})})
    assert made.seed.instance_id == f"{vm.uid}-0"
    assert spec_of(vm, older).seed.instance_id == vm.uid
