"""Read a domain back from libvirt's XML. Pure; `domains` calls it.

The law: what libvirt stores of `render(domain)` parses to `domain` (with the machine's version in place of its family).
A living guest is read by the fields of `Domain` only. A stored definition is held to the whole of what we render as
well, processor, clock and random numbers included: one that was edited by hand, beyond what a `Domain` can say, or
that has a device we would never give it, is read as absent, and so the plan defines it anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from corral_drivers import errors
from corral_drivers.hypervisor.libvirt_qemu import render
from corral_drivers.hypervisor.model import DirectBoot, Disk, Domain, Firmware, Interface, Mark, Uefi

_MARK = f"metadata/{{{render.NAMESPACE}}}domain"
_ADDED_BY_LIBVIRT = frozenset({"emulator", "controller", "input", "audio", "watchdog"})
"""Devices that libvirt gives a domain unasked; any other that we did not render was put there by hand."""

_NO_SLOT = -1


@dataclass(frozen=True, slots=True)
class Document:
    """One XML of a domain. `is_live` tells the document of a living guest from a stored definition."""

    root: etree._Element

    @property
    def is_live(self) -> bool:
        return self.root.get("id") is not None

    @property
    def mark(self) -> Mark | None:
        """Whose the domain is; None without our element. What is missing in it is empty, and so differs."""
        return mark(self.root.find(_MARK))

    @property
    def domain(self) -> Domain | None:
        """The fields of the domain; None where it has no mark. What a `Domain` can't say is read as something else."""
        found = self.mark
        return None if found is None else _domain(self.root, found)

    def stored(self) -> Domain | None:
        """The domain, if libvirt holds all of what we render for it and no other device; else None."""
        return None if self.deviation() else self.domain

    def deviation(self) -> str:
        """Where the document is not what we would render for its own domain: a path, empty where it is."""
        domain = self.domain
        if domain is None:
            return "metadata"
        try:
            rendered = read(render.render(domain)).root
        except errors.Rejected as refused:
            return refused.message
        return _missing(self.root, rendered) or _added(self.root, rendered)


def read(xml: str) -> Document:
    """The document of libvirt's `XMLDesc`: no entity is resolved and nothing is fetched for it."""
    # A parser a call: lxml's are not to be shared by threads.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return Document(etree.fromstring(xml.encode(), parser))


def mark(element: etree._Element | None) -> Mark | None:
    """The mark that our element of the metadata holds, None without one."""
    if element is None:
        return None
    texts = {name: element.get(name, "") for name in ("cloud", "host", "namespace", "name", "uid")}
    return Mark(**texts, epoch=_number(element.get("epoch")))


def _domain(root: etree._Element, found: Mark) -> Domain:
    kernel = root.findtext("os/kernel")
    boot = None
    if kernel is not None:
        boot = DirectBoot(kernel, root.findtext("os/initrd") or "", root.findtext("os/cmdline") or "")
    kind = root.get("type", "")
    return Domain(
        uuid=root.findtext("uuid") or "",
        name=root.findtext("name") or "",
        mark=found,
        cpus=_number(root.findtext("vcpu")),
        memory=_number(root.findtext("memory")) * 1024,
        machine=_attribute(root, "os/type", "machine"),
        accelerator="tcg" if kind == "qemu" else kind,
        console_log=_attribute(root, "devices/serial/log", "file"),
        disks=tuple(_disk(element) for element in root.iterfind("devices/disk")),
        interfaces=tuple(_interface(element) for element in root.iterfind("devices/interface")),
        boot=boot,
        uefi=_uefi(root),
    )


def _uefi(root: etree._Element) -> Uefi | None:
    code = root.findtext("os/loader")
    if code is None:
        return None
    return Uefi(Firmware(code, _attribute(root, "os/nvram", "template")), root.findtext("os/nvram") or "")


def _disk(element: etree._Element) -> Disk:
    return Disk(
        target=_attribute(element, "target", "dev"),
        path=_attribute(element, "source", "file"),
        format=_attribute(element, "driver", "type"),
        slot=_slot(element),
        serial=element.findtext("serial") or "",
        read_only=element.find("readonly") is not None,
    )


def _interface(element: etree._Element) -> Interface:
    return Interface(
        tap=_attribute(element, "target", "dev"),
        mac=_attribute(element, "mac", "address"),
        mtu=_number(_attribute(element, "mtu", "size")),
        slot=_slot(element),
    )


def _slot(element: etree._Element) -> int:
    address = element.find("address[@type='pci']")
    if address is None or any(_number(address.get(part)) for part in ("domain", "bus", "function")):
        return _NO_SLOT
    return _number(address.get("slot"))


def _attribute(element: etree._Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")


def _number(text: str | None) -> int:
    """Decimal or `0x` hexadecimal, as libvirt prints both; -1 for what is no number."""
    try:
        return int(text or "", 0)
    except ValueError:
        return -1


def _missing(seen: etree._Element, rendered: etree._Element) -> str:
    """The path of the first element of `rendered` that `seen` lacks: libvirt adds to what it is given."""
    is_other = any(seen.get(name) != value for name, value in rendered.attrib.items())
    is_leaf = len(rendered) == 0  # around children, text is only how the document is indented
    if seen.tag != rendered.tag or is_other or (is_leaf and (seen.text or "") != (rendered.text or "")):
        return _name(rendered)
    rest = list(seen)
    for child in rendered:
        twin = next((other for other in rest if not _missing(other, child)), None)
        if twin is None:
            return f"{_name(rendered)}/{_closest(seen, child)}"
        rest.remove(twin)
    return ""


def _closest(seen: etree._Element, child: etree._Element) -> str:
    """The most exact path to what is missing: into the only element of this tag, if there is one."""
    twins = seen.findall(str(child.tag))
    return _missing(twins[0], child) if len(twins) == 1 else _name(child)


def _added(seen: etree._Element, rendered: etree._Element) -> str:
    devices, ours = seen.find("devices"), rendered.find("devices")
    if devices is None or ours is None:
        return "devices"
    tags = [str(device.tag) for device in devices]
    own = [str(device.tag) for device in ours]
    foreign = (tag for tag in tags if tag not in _ADDED_BY_LIBVIRT and tags.count(tag) > own.count(tag))
    return next((f"devices/{tag}" for tag in foreign), "")


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname
