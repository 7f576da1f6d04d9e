"""Find out by trying whether KVM runs guest code on this machine; `driver` asks once a process.

`/dev/kvm` alone says little: under some hypervisors it is there, can be opened, and runs only kernels made for it. That
is known by a processor without VMX or SVM, which KVM for any kernel needs; it may well run what is tried here, and then
stop a guest half way through its boot (`kvm_pvm` was seen to). Where the processor has them, a boot sector is run under
the firmware: from real mode it turns on paging and 64-bit mode, as a guest's kernel does, and ends QEMU through its
debug-exit device with a number that it computes there. That takes 0.2 s where KVM works.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

_KVM = Path("/dev/kvm")
_PROCESSORS = Path("/proc/cpuinfo")
_EXTENSIONS = re.compile(r"^flags\s*:.*\b(vmx|svm)\b", re.MULTILINE)
_PORT = 0xF4
_ANSWER = 0x21
_EXIT_STATUS = _ANSWER << 1 | 1  # what isa-debug-exit makes of a byte written to its port

# Intel 64 and IA-32 SDM, vol. 3, 10.8.5 "Initializing IA-32e Mode"; the sector is loaded at 0x7c00.
_CODE = bytes.fromhex(
    "fa"  #                   cli
    "31c0 8ed8 8ec0 8ed0"  #  xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax
    "bc0070"  #               mov sp,0x7000
    "fc bf0010 b90018 f3ab"  # cld; mov di,0x1000; mov cx,0x1800; rep stosw     clears the three page tables
    "c70600100320"  #         mov word [0x1000],0x2003                          level 4 → level 3
    "c70600200330"  #         mov word [0x2000],0x3003                          level 3 → level 2
    "c70600308300"  #         mov word [0x3000],0x0083                          2 MiB, where they are
    "66b820000000 0f22e0"  #  mov eax,0x20; mov cr4,eax                         physical address extension
    "66b800100000 0f22d8"  #  mov eax,0x1000; mov cr3,eax
    "66b9800000c0 0f32"  #    mov ecx,0xc0000080; rdmsr
    "660d00010000 0f30"  #    or eax,0x100; wrmsr                               long mode enable
    "0f0116907c"  #           lgdt [0x7c90]
    "0f20c0 660d01000080"  #  mov eax,cr0; or eax,0x80000001                    protection and paging
    "0f22c0"  #               mov cr0,eax
    "ea5f7c0800"  #           jmp 8:0x7c5f                                      64-bit code from here
    "48b88877665544332211"  # mov rax,0x1122334455667788
    "50 5b"  #                push rax; pop rbx
    "48c1eb38 80c310"  #      shr rbx,56; add bl,0x10                           0x21, by 64-bit arithmetic only
    "88d8 e6f4"  #            mov al,bl; out 0xf4,al
    "f4 ebfd"  #              hlt, for ever
)
_DESCRIPTORS = bytes.fromhex("0000000000000000 00000000009a2000")  # at 0x7c80: none, and 64-bit code
_DESCRIPTORS_AT = bytes.fromhex("0f00 807c0000")  # at 0x7c90: limit, address
_SECTOR = ((_CODE.ljust(0x80, b"\0") + _DESCRIPTORS + _DESCRIPTORS_AT).ljust(510, b"\0")) + b"\x55\xaa"


def detect(qemu: str = "qemu-system-x86_64", *, deadline_s: float = 15.0, processors: Path = _PROCESSORS) -> str:
    """`kvm` if a guest with the host's processor runs to its end under KVM within `deadline_s` seconds, else `tcg`.

    `qemu` is a path, or a name on PATH. The deadline is generous because a busy machine with KVM must not be taken for
    one without; where KVM does not work it mostly fails at once. Blocks; leaves no file, and no process for longer than
    the deadline, even where the caller is killed. Never raises for a machine without KVM or QEMU: what can't be tried
    does not work. `processors` is cpuinfo as proc(5) has it.
    """
    if not _KVM.exists() or not _EXTENSIONS.search(processors.read_text()):
        return "tcg"
    return "kvm" if runs(qemu, ("-accel", "kvm", "-cpu", "host"), deadline_s=deadline_s) else "tcg"


def runs(qemu: str, accelerator: tuple[str, ...], *, deadline_s: float) -> bool:
    """Whether the boot sector gave its answer under QEMU with these arguments."""
    with tempfile.NamedTemporaryFile(prefix="corral-accelerator-") as sector:
        sector.write(_SECTOR)
        sector.flush()
        drive = f"file={sector.name.replace(',', ',,')},format=raw,if=floppy,readonly=on"
        machine = ("-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
        exit_device = ("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1")
        # The bound is a process of its own: whoever waits here may be killed.
        bound = ("timeout", "--signal=KILL", f"{deadline_s:f}")
        try:
            ended = subprocess.run(  # noqa: S603 - our own argument list
                (*bound, qemu, *accelerator, *machine, *exit_device, "-drive", drive, "-boot", "a"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except OSError:
            return False
    return ended.returncode == _EXIT_STATUS
