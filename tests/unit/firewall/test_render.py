"""The rules as text: golden files for a person to review, which `nft -c -f` accepts too.

After a meant change, `CORRAL_GOLDEN=write` writes them anew; the difference is what a review looks at.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from dataclasses import replace

import pytest

from corral_drivers.firewall import plan
from corral_drivers.firewall.model import Observed
from corral_drivers.firewall.nft import render

from . import samples

GOLDEN = pathlib.Path(__file__).parent / "golden"


def laid() -> plan.Lay:
    (step, *_) = plan.plan(samples.SHARED, samples.TAPS, Observed()).steps
    assert isinstance(step, plan.Lay)
    return step


def changed() -> plan.Change:
    """Of the second guest another address, and the third gone."""
    there = laid().elements
    names = {one.comment: int(one.key[0]) for one in there if one.of == "names"}
    seen = Observed(laid=True, judged=True, elements=frozenset(there), names=names)
    taps = (samples.TAPS[0], replace(samples.TAPS[1], addresses=("10.77.0.8",)))
    (step, _) = plan.plan(samples.SHARED, taps, seen).steps
    assert isinstance(step, plan.Change)
    return step


RENDERED = {
    "empty": lambda: render.base(samples.SETTINGS),
    "laid": lambda: render.laid(samples.SETTINGS, laid().elements),
    "changed": lambda: render.changed(samples.SETTINGS, changed().remove, changed().add),
}


@pytest.mark.parametrize("name", RENDERED)
def test_golden(name: str) -> None:
    rendered = RENDERED[name]()
    file = GOLDEN / f"{name}.nft"
    if os.environ.get("CORRAL_GOLDEN") == "write":
        file.write_text(rendered)
    assert rendered == file.read_text()


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft (package nftables) is missing")
@pytest.mark.skipif(os.geteuid() != 0, reason="nft asks the kernel, which wants root")
def test_golden_files_are_valid_to_nftables() -> None:
    texts = [(GOLDEN / f"{name}.nft").read_text() for name in ("laid", "changed")]
    for text in (texts[0], "".join(texts), (GOLDEN / "empty.nft").read_text()):
        checked = subprocess.run(["nft", "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_a_plan_prints_for_a_person() -> None:
    assert str(plan.Plan((changed(),))) == (
        "remove 1 of arp_macs, 2 of arp_sources, 1 of guests, 1 of homes4, 1 of macs, 1 of open_in, 1 of open_out, "
        "1 of solicits, 2 of sources4, 1 of sources6, 1 of targets; add 1 of arp_sources, 1 of homes4, 1 of sources4"
    )
