"""Domains for property tests: everything that `admit` lets through, texts with every character that XML can carry."""

from __future__ import annotations

import itertools
import uuid

from hypothesis import strategies as st

from corral_drivers.hypervisor import admit
from corral_drivers.hypervisor.model import DirectBoot, Disk, Domain, Firmware, Interface, Mark, Uefi

_XML = st.characters(exclude_categories=("Cc", "Cs")).filter(lambda letter: ord(letter) & 0xFFFE != 0xFFFE)
_LETTERS = _XML | st.sampled_from("'\"<>& ,;=]]>")
_TEXT = st.text(_LETTERS, max_size=20)
_PATH = _TEXT.map(lambda text: f"/{text}")
_NAME = st.text(_LETTERS.filter(lambda letter: letter != "/"), min_size=1, max_size=20).filter(
    lambda name: bool(name.strip()) and not name.startswith(".")
)
_SERIAL = st.text("abcXYZ019_.+-", min_size=1, max_size=20)
_MAC = st.binary(min_size=5, max_size=5).map(lambda tail: ":".join(f"{byte:02x}" for byte in b"\x52" + tail))
_TAP = st.text("abcXYZ019_-", min_size=1, max_size=13).map(lambda tail: f"t{tail}")
_TARGETS = [f"vd{a}" for a in "abcdefghijklmnopqrstuvwxyz"] + ["vdaa", "vdab", "vdba"]


@st.composite
def domains(draw: st.DrawFn, accelerators: tuple[str, ...] = ("tcg", "kvm")) -> Domain:
    """A domain that `admit.check` accepts, with up to four disks and four NICs."""
    slots = draw(st.lists(st.sampled_from(admit.SLOTS), min_size=8, max_size=8, unique=True))
    targets = sorted(draw(st.sets(st.sampled_from(_TARGETS), max_size=4)), key=lambda one: (len(one), one))
    macs = draw(st.lists(_MAC, max_size=4, unique=True))
    formats, flags = st.sampled_from(("qcow2", "raw")), st.booleans()
    disks = tuple(
        Disk(target, draw(_PATH), draw(formats), slot, draw(_SERIAL), draw(flags))
        for target, slot in zip(targets, slots, strict=False)
    )
    interfaces = tuple(
        Interface(draw(_TAP), mac, draw(st.integers(68, 65535)), slot)
        for mac, slot in zip(macs, itertools.islice(slots, 4, None), strict=False)
    )
    return Domain(
        uuid=str(uuid.UUID(bytes=draw(st.binary(min_size=16, max_size=16)))),
        name=draw(_NAME),
        mark=draw(st.builds(Mark, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, st.integers(0, 1 << 31))),
        cpus=draw(st.integers(1, 64)),
        memory=draw(st.integers(1, 1 << 20)) << 20,
        machine=draw(st.sampled_from(("pc", "pc-i440fx-7.2", "q35", "pc-q35-7.1"))),
        accelerator=draw(st.sampled_from(accelerators)),
        console_log=draw(_PATH),
        disks=disks,
        interfaces=interfaces,
        boot=draw(st.none() | st.builds(DirectBoot, _PATH, st.just("") | _PATH, _TEXT)),
        uefi=draw(st.none() | st.builds(Uefi, st.builds(Firmware, _PATH, _PATH), _PATH)),
    )
