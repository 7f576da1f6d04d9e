"""What a guest costs its host: CPU and memory, with what is promised more than once, and what its hypervisor needs."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 2**20

# Bytes of a QEMU that runs nothing, with a disk and a NIC: 37 MiB resident as measured (QEMU 7.2), of which guests of a
# host share 21. The rest is for the buffers of its devices, such as qcow2's of a disk's layout.
_PROCESS = 48 * _MIB

# Bytes a virtual CPU: measured are 0.2 MiB of a thread that has not run.
_VIRTUAL_CPU = _MIB

# A page table has 8 bytes for each 4 KiB.
_PAGES = 512

# The bounds of QEMU's cache of translated code, as the driver libvirt-qemu asks for it: a test compares the two.
_CACHE_LEAST, _CACHE_MOST = 32 * _MIB, 256 * _MIB
_EMULATING = "tcg"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guest costs: `cpu` is in thousandths of a CPU, memory in bytes, `virtual_cpus` is what the guest sees.

    `emulation` is what it takes on top where its host has no KVM.
    """

    virtual_cpus: int
    cpu: int
    memory: int
    emulation: int = 0

    def memory_on(self, accelerator: str) -> int:
        """Bytes that a host with this accelerator is charged with."""
        return self.memory + (self.emulation if accelerator == _EMULATING else 0)


NOTHING = Cost(0, 0, 0)


def cost(virtual_cpus: int, memory: int, *, cpu_overcommit: int = 1, memory_percent: int = 100) -> Cost:
    """What a guest of this size costs, of whose CPUs and memory so much is promised; what its hypervisor needs is not.

    `cpu_overcommit` is how many virtual CPUs share a CPU, `memory_percent` how much memory is promised in percent.
    """
    return Cost(
        virtual_cpus=virtual_cpus,
        cpu=-(-1000 * virtual_cpus // cpu_overcommit),
        memory=-(-100 * memory // memory_percent) + _PROCESS + virtual_cpus * _VIRTUAL_CPU + memory // _PAGES,
        emulation=min(max(memory // (4 * _MIB) * _MIB, _CACHE_LEAST), _CACHE_MOST),
    )
