"""The rendered XML: golden files for a person to review, which libvirt's own schema accepts too.

After a meant change, `CORRAL_GOLDEN=write` writes them anew; the difference is what a review looks at.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess

import hypothesis
import pytest

from corral_drivers import errors
from corral_drivers.hypervisor.libvirt_qemu import parse, render
from corral_drivers.hypervisor.model import Domain

from . import samples, strategies

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", samples.ALL)
def test_golden(name: str) -> None:
    rendered = render.render(samples.ALL[name])
    file = GOLDEN / f"{name}.xml"
    if os.environ.get("CORRAL_GOLDEN") == "write":
        file.write_text(rendered)
    assert rendered == file.read_text()


@pytest.mark.skipif(shutil.which("virt-xml-validate") is None, reason="virt-xml-validate (libvirt-clients) is missing")
@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.xml")), ids=lambda file: file.stem)
def test_golden_files_are_valid_to_libvirt(file: pathlib.Path) -> None:
    validated = subprocess.run(["virt-xml-validate", str(file), "domain"], capture_output=True, text=True, check=False)
    assert validated.returncode == 0, validated.stderr + validated.stdout


@hypothesis.given(domain=strategies.domains())
def test_every_admitted_domain_is_read_back(domain: Domain) -> None:
    document = parse.read(render.render(domain))
    assert document.stored() == domain
    assert not document.is_live


@pytest.mark.parametrize("letter", ["\0", "\n", "\t", "\x7f", "\x1b", "\x85", "\ud800", "\ufffe", "\uffff"], ids=ascii)
@pytest.mark.parametrize("place", ["name", "console_log", "cloud", "disk", "kernel", "command line"])
def test_text_that_xml_cannot_carry_is_refused(letter: str, place: str) -> None:
    direct, text = samples.DIRECT, f"/x{letter}"
    assert direct.boot is not None
    faulty = {
        "name": dataclasses.replace(direct, name=f"x{letter}"),
        "console_log": dataclasses.replace(direct, console_log=text),
        "cloud": dataclasses.replace(direct, mark=dataclasses.replace(direct.mark, cloud=text)),
        "disk": dataclasses.replace(direct, disks=(dataclasses.replace(direct.disks[0], path=text),)),
        "kernel": dataclasses.replace(direct, boot=dataclasses.replace(direct.boot, kernel=text)),
        "command line": dataclasses.replace(direct, boot=dataclasses.replace(direct.boot, command_line=text)),
    }
    with pytest.raises(errors.Rejected, match="XML can't carry"):
        render.render(faulty[place])
