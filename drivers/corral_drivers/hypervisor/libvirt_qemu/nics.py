"""A living guest's NIC, taken out and plugged in again; `domains` calls it in a thread.

QEMU holds a tap by a descriptor. Where the tap was removed, one made anew under its name is another, and neither
libvirt nor QEMU can give a NIC another end while it is plugged in. The guest sees its NIC go and come back, with the
same MAC at the same PCI address.
"""

from __future__ import annotations

import libvirt
from lxml import etree

from corral_drivers import errors
from corral_drivers.hypervisor import plan
from corral_drivers.hypervisor.libvirt_qemu import parse
from corral_drivers.hypervisor.model import Cause


def replug(found: libvirt.virDomain, step: plan.Replug) -> None:
    """Nothing where the guest is off. Raises `Unavailable` while it does not let go of the NIC, as in its boot."""
    if not found.isActive():
        return
    defined = _on(found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), step.tap)
    if defined is None:
        raise errors.Rejected(Cause.FAILED, f"{step}: no such NIC is defined")
    held = _on(found.XMLDesc(), step.tap)
    if held is not None:
        # libvirt gives the guest five seconds, and does not say that it took longer.
        found.detachDeviceFlags(held, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        if _on(found.XMLDesc(), step.tap) is not None:
            raise errors.Unavailable(Cause.DEVICE_BUSY, f"{step}: the guest does not let go of it yet")
    found.attachDeviceFlags(defined, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _on(xml: str, tap: str) -> str | None:
    """The element of the NIC on this tap, as a document of its own."""
    for element in parse.read(xml).root.iterfind("devices/interface"):
        target = element.find("target")
        if target is not None and target.get("dev") == tap:
            return etree.tostring(element, encoding="unicode", with_tail=False)
    return None
