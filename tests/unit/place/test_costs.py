from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.place import costs
from corral_drivers.hypervisor.libvirt_qemu import render
from corral_drivers.hypervisor.model import Disk, Domain, Mark

MIB = 1 << 20
SMALL = Domain(
    uuid="6f1d2c1e-6a2b-4c57-9d0c-3f1f4f0a7b11",
    name="shop-web",
    mark=Mark("cloud", "host", "shop", "web", "vm", 1),
    cpus=1,
    memory=128 * MIB,
    machine="pc",
    accelerator="tcg",
    console_log="/var/lib/corral/consoles/web.log",
    disks=(Disk("vda", "/var/lib/corral/disks/root.qcow2", "qcow2", 4, "root"),),
    interfaces=(),
)


def mib(value: int) -> float:
    return value / MIB


@pytest.mark.parametrize(
    ("cpus", "memory", "kvm", "tcg"),
    [
        # The lab's guest of 48 MiB has 94 MB resident under emulation; charged is what it may come to.
        (1, 48, 97.1, 129.1),
        (1, 512, 562, 690),
        (2, 4096, 4154, 4410),
        (64, 64 * 1024, 65776, 66032),
    ],
)
def test_a_guest_takes_its_memory_and_what_its_hypervisor_needs(cpus: int, memory: int, kvm: float, tcg: float) -> None:
    cost = costs.cost(cpus, memory * MIB)
    assert mib(cost.memory_on("kvm")) == pytest.approx(kvm, abs=0.1)
    assert mib(cost.memory_on("tcg")) == pytest.approx(tcg, abs=0.1)


@pytest.mark.parametrize("memory", [1, 32, 48, 127, 128, 129, 131, 512, 1000, 1024, 1025, 8192])
def test_the_cache_of_translated_code_is_as_large_as_the_driver_asks_for(memory: int) -> None:
    document = render.render(dataclasses.replace(SMALL, memory=memory * MIB))
    asked = re.search(r"<tb-cache unit='KiB'>([0-9]+)<", document)
    assert asked is not None
    assert costs.cost(1, memory * MIB).emulation == int(asked[1]) * 1024


@pytest.mark.parametrize(("ratio", "charged"), [(1, 3000), (2, 1500), (7, 429), (8, 375), (256, 12)])
def test_virtual_cpus_share_cpus(ratio: int, charged: int) -> None:
    assert costs.cost(3, 64 * MIB, cpu_overcommit=ratio).cpu == charged


def test_memory_may_be_promised_twice_and_what_the_hypervisor_needs_may_not() -> None:
    once, twice = costs.cost(1, 512 * MIB), costs.cost(1, 512 * MIB, memory_percent=200)
    assert once.memory - twice.memory == 256 * MIB
    assert once.emulation == twice.emulation


@given(cpus=st.integers(1, 255), memory=st.integers(1, 2**20), ratio=st.integers(1, 256), percent=st.integers(100, 400))
def test_more_never_costs_less(cpus: int, memory: int, ratio: int, percent: int) -> None:
    def cost(cpus: int, memory: int) -> costs.Cost:
        return costs.cost(cpus, memory * MIB, cpu_overcommit=ratio, memory_percent=percent)

    small, large = cost(cpus, memory), cost(cpus + 1, memory + 1)
    assert 0 < small.cpu <= large.cpu
    for accelerator in ("kvm", "tcg"):
        assert small.memory_on(accelerator) < large.memory_on(accelerator)
    assert small.memory_on("kvm") < small.memory_on("tcg")
