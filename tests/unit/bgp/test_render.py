"""The rendered configuration: golden files for a person to review, which FRR's own vtysh accepts too."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings

from corral_drivers import errors
from corral_drivers.bgp import exports, lines, simulated
from corral_drivers.bgp.frr import render
from corral_drivers.bgp.model import Cause, Neighbor, Speaker

from .speakers import MARK, SPEAKERS, prefixes, speakers

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", SPEAKERS)
def test_golden(name: str) -> None:
    rendered, file = render.render(SPEAKERS[name], MARK), GOLDEN / f"{name}.conf"
    if os.environ.get("CORRAL_GOLDEN") == "write":
        file.write_text(rendered)
    assert rendered == file.read_text()


@pytest.mark.skipif(shutil.which("vtysh") is None, reason="vtysh is not installed: scripts/setup installs frr")
@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.conf")), ids=lambda file: file.stem)
def test_golden_files_are_valid_to_frr(file: pathlib.Path) -> None:
    checked = subprocess.run(["vtysh", "-C", "-f", str(file)], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Unknown command" not in checked.stdout + checked.stderr


@settings(deadline=None)
@given(speakers, prefixes)
def test_the_prefix_lists_let_out_what_the_rule_says(speaker: Speaker, prefix: str) -> None:
    statements = lines.read(render.render(speaker, MARK))
    assert simulated.lets_out(statements, prefix) == exports.is_exported(speaker, prefix)


@settings(deadline=None)
@given(speakers, prefixes)
def test_who_carries_an_address_is_announced_and_holds_it(speaker: Speaker, prefix: str) -> None:
    address = prefix.split("/", maxsplit=1)[0]
    carrier = exports.carrier(speaker, address)
    if carrier is None:
        assert not exports.is_exported(speaker, f"{address}/{128 if ':' in address else 32}")
    else:
        assert exports.is_exported(speaker, carrier)


def test_the_carrier_of_an_address_is_its_block_or_itself() -> None:
    speaker = SPEAKERS["unnumbered"]
    carriers = {one: exports.carrier(speaker, one) for one in ("10.77.0.5", "10.77.0.200", "10.78.0.1", "fd77::1:0:5")}
    assert carriers == {
        "10.77.0.5": "10.77.0.0/26",
        "10.77.0.200": "10.77.0.200/32",
        "10.78.0.1": None,
        "fd77::1:0:5": "fd77::1:0:5/128",
    }


def test_what_is_announced_and_not_here_is_a_stray() -> None:
    speaker = SPEAKERS["unnumbered"]
    announced = {"10.77.0.0/26", "100.87.0.11/32", "10.77.0.200/32", "10.77.0.201/32", "10.77.0.5/32", "0.0.0.0/0"}
    routed = {"10.77.0.200/32", "10.77.0.5/32"}
    assert exports.strays(speaker, announced, routed) == {"10.77.0.201/32", "10.77.0.5/32", "0.0.0.0/0"}


def test_a_text_is_read_without_what_says_nothing_of_routing() -> None:
    text = """Building configuration...

Current configuration:
!
frr version 8.4.4
frr defaults traditional
hostname vm
debug bgp updates in
log syslog informational
!
interface lo
exit
!
router bgp 64512
 timers bgp 3 9
 !
 address-family ipv4 unicast
  maximum-paths 8
 exit-address-family
exit
!
line vty
 exec-timeout 0 0
exit
end
"""
    assert lines.read(text) == (
        ("router bgp 64512",),
        ("router bgp 64512", "timers bgp 3 9"),
        ("router bgp 64512", "address-family ipv4 unicast"),
        ("router bgp 64512", "address-family ipv4 unicast", "maximum-paths 8"),
    )
    assert lines.defaults(text) == "traditional"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"asn": 0}, "asn 0"),
        ({"asn": 2**32 - 1}, "asn"),
        ({"addresses": ()}, "router id"),
        ({"addresses": ("100.87.0.11/32",)}, "not an address"),
        ({"addresses": ("100.87.0.11", "FD87::11")}, "fd87::11"),
        ({"blocks": ("10.77.0.5/26",)}, "host bits"),
        ({"pools": ("10.77.0.0/24\nrouter bgp 1",)}, "not a prefix"),
        ({"neighbors": (Neighbor(),)}, "either an interface or an address"),
        ({"neighbors": (Neighbor("up1", "192.0.2.1"),)}, "either an interface or an address"),
        ({"neighbors": (Neighbor("up1"), Neighbor("up1", asn=1))}, "twice"),
        ({"neighbors": (Neighbor("up1 bfd"),)}, "no interface has such a name"),
        ({"neighbors": (Neighbor("up1\n"),)}, "no interface has such a name"),
        ({"neighbors": (Neighbor(address="fe80::1"),)}, "link-local"),
        ({"neighbors": (Neighbor("up1", asn=-1),)}, "asn -1"),
        ({"neighbors": (Neighbor("up1", asn=4200000011),)}, "own AS"),
        ({"keepalive": 10, "hold": 9}, "timers"),
        ({"keepalive": 1, "hold": 2}, "timers"),
    ],
)
def test_what_frr_would_not_take_or_echo_otherwise_is_rejected(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.Rejected) as refused:
        render.render(dataclasses.replace(SPEAKERS["unnumbered"], **changes), MARK)
    assert refused.value.cause is Cause.INVALID
    assert said in refused.value.message
