"""The objects that a lab writes itself."""

from __future__ import annotations

from corral_lab import objects
from corral_lab.options import Options


def test_a_host_announces_its_loopbacks_to_both_spines() -> None:
    spec = objects.host("h2", 2, Options(hosts=2).host_loopback(2))["spec"]
    assert spec["bgp"] == {
        "asn": 4200000012,
        "addresses": ["100.87.0.12", "fd00:100:87::c"],
        "neighbors": [{"interface": "up1"}, {"interface": "up2"}],
    }
