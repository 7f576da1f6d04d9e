"""Reading what libvirt 9.0 gave back, as recorded, and what nobody should have written."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from lxml import etree

from corral_drivers.hypervisor.libvirt_qemu import parse, render

from . import samples

GOLDEN = pathlib.Path(__file__).parent / "golden"


def test_what_libvirt_stored_is_the_domain() -> None:
    document = parse.read((GOLDEN / "direct-stored.xml").read_text())
    assert not document.is_live
    assert document.deviation() == ""
    assert document.stored() == document.domain == samples.DIRECT


def test_what_a_living_guest_runs_with_is_the_domain() -> None:
    document = parse.read((GOLDEN / "direct-live.xml").read_text())
    assert document.is_live
    assert document.domain == samples.DIRECT


def test_a_domain_without_our_mark_is_nobodys() -> None:
    document = parse.read("<domain type='xen'><name>x</name></domain>")
    assert (document.mark, document.domain, document.stored()) == (None, None, None)


def test_a_document_of_nothing_but_the_mark_is_no_crash() -> None:
    mark = f"<c:domain xmlns:c='{render.NAMESPACE}' cloud='a' host='b'/>"
    document = parse.read(f"<domain type='lxc' id='1'><metadata>{mark}</metadata></domain>")
    assert document.mark is not None
    assert (document.mark.cloud, document.mark.host, document.mark.name, document.mark.epoch) == ("a", "b", "", -1)
    assert document.domain is not None
    assert (document.domain.accelerator, document.domain.memory, document.domain.cpus) == ("lxc", -1024, -1)
    assert document.stored() is None


@pytest.mark.parametrize(
    ("written", "instead", "path"),
    [
        ("<acpi/>", "", "domain/features/acpi"),
        ("cache='none'", "cache='unsafe'", "domain/devices/disk"),
        ("<on_crash>destroy", "<on_crash>preserve", "domain/on_crash"),
        ("<audio id='1' type='none'/>", "<tpm model='tpm-tis'/>", "devices/tpm"),
    ],
)
def test_an_edit_is_named(written: str, instead: str, path: str) -> None:
    stored = (GOLDEN / "direct-stored.xml").read_text()
    assert written in stored
    assert parse.read(stored.replace(written, instead, 1)).deviation() == path


def test_entities_are_neither_resolved_nor_fetched() -> None:
    hostile = "<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><domain><name>&e;</name></domain>"
    document = parse.read(hostile)
    assert document.root.findtext("name") in (None, "")
    assert etree.tostring(document.root).count(b"&e;") == 1


def test_a_change_of_any_field_is_seen() -> None:
    domain = samples.DIRECT
    changes: dict[str, object] = {"cpus": 2, "memory": 1 << 30, "disks": (), "interfaces": (), "boot": None}
    changes["uefi"] = samples.UEFI.uefi
    texts = {"name": "other", "machine": "pc-i440fx-7.1", "accelerator": "kvm", "console_log": "/elsewhere"}
    for field, value in (changes | texts).items():
        changed = dataclasses.replace(domain, **{field: value})  # type: ignore[arg-type]  # a row of the table
        assert parse.read(render.render(changed)).stored() == changed != domain
