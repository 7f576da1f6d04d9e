"""Whatever text stands in a domain comes back from its XML as it was, or is refused before there is any XML."""

from __future__ import annotations

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.hypervisor.libvirt_qemu import parse, render
from corral_drivers.hypervisor.model import DirectBoot, Domain

from . import samples

HOSTILE = ("\0", "\x1b[31m", "\x85", "\r\n", "\t", "\ufffe", "\uffff", "\U0001fffe", "\x7f")
FINE = (
    "]]>",
    "<!--",
    "&lt;",
    "'\"",
    "\u202e",
    "\U0001f525",
    "\u2028",
    "{{ 7*7 }}",
    "%s",
    "${HOME}",
    "<!DOCTYPE x>",
    "\xa0",
)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.sampled_from([*HOSTILE, *FINE])


def with_text(text: str) -> Domain:
    """A domain that has this text wherever it may have any."""
    sample = samples.DIRECT
    mark = dataclasses.replace(
        sample.mark, cloud=f"c{text}", host=f"h{text}", namespace=f"n{text}", name=f"m{text}", uid=f"u{text}"
    )
    path = f"/x{text}"
    disks = tuple(dataclasses.replace(disk, path=path) for disk in sample.disks)
    name = f"d{text}".replace("/", "")
    boot = DirectBoot(path, path, f"x{text}")
    return dataclasses.replace(sample, name=name, mark=mark, console_log=path, disks=disks, boot=boot)


@hypothesis.given(text=TEXT)
def test_any_text_comes_back_or_is_refused(text: str) -> None:
    domain = with_text(text)
    try:
        xml = render.render(domain)
    except errors.Rejected:
        return
    assert parse.read(xml).stored() == domain


@pytest.mark.parametrize("text", HOSTILE)
def test_what_xml_can_not_carry_is_refused(text: str) -> None:
    with pytest.raises(errors.Rejected, match="characters that XML can't carry"):
        render.render(with_text(text))


@pytest.mark.parametrize("text", FINE)
def test_what_xml_can_carry_is_no_matter_how_odd(text: str) -> None:
    domain = with_text(text)
    assert parse.read(render.render(domain)).stored() == domain
