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

_TCG_CACHE = 32 << 20  # bytes of translated code a guest: QEMU's default, 1 GiB, is more than most guests have
_RNG_SLOT = 2  # where libvirt would keep room for a video card

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
    return _TEMPLATE.render(domain=domain, namespace=NAMESPACE, tcg_cache=_TCG_CACHE, rng_slot=_RNG_SLOT)
