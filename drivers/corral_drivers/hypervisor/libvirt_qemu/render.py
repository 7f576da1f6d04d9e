"""Write a domain as libvirt's XML (https://libvirt.org/formatdomain.html). Pure; `domains` and `parse` call it.

The document is written the way libvirt prints it (KiB, explicit PCI addresses, no default left to libvirt that a newer
one could decide otherwise), so that what libvirt stores can be held against it.
"""

from __future__ import annotations

import jinja2

from corral_drivers.hypervisor import admit
from corral_drivers.hypervisor.model import Domain

NAMESPACE = "https://corral.dev/libvirt/domain/1"
"""The XML namespace of our mark in a domain's metadata."""

_RNG_SLOT = 2  # where libvirt would keep room for a video card
_CHANNEL_SLOT = 30  # of the channel by which the guest's own agent is asked; the one before q35's chipset

# Bytes of translated code a guest: QEMU's default, 1 GiB, is more than most guests have; a small cache is translated
# anew again and again. A distribution boots with 57 s of processor time on 256 MiB, and with 80 s on 32 MiB.
_TCG_CACHE_LEAST, _TCG_CACHE_MOST = 32 << 20, 256 << 20

_TEMPLATE = jinja2.Environment(
    loader=jinja2.PackageLoader("corral_drivers.hypervisor.libvirt_qemu", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
).get_template("domain.xml.j2")


def render(domain: Domain) -> str:
    """The document that defines `domain`. Raises `errors.Rejected` for what `admit.check` refuses."""
    admit.check(domain)
    return _TEMPLATE.render(
        domain=domain,
        namespace=NAMESPACE,
        tcg_cache=_tcg_cache(domain.memory),
        rng_slot=_RNG_SLOT,
        channel_slot=_CHANNEL_SLOT,
    )


def _tcg_cache(memory: int) -> int:
    """A quarter of the guest's memory, in whole MiB, within bounds."""
    return min(max((memory >> 22) << 20, _TCG_CACHE_LEAST), _TCG_CACHE_MOST)
