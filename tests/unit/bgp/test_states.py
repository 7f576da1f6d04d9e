"""What bgpd says of its neighbors, as FRR 8.4 says it."""

from __future__ import annotations

import json

import pytest

from corral_drivers import errors
from corral_drivers.bgp.frr import states
from corral_drivers.bgp.model import Session

SUMMARY = {
    "ipv4Unicast": {
        "routerId": "100.87.0.11",
        "peers": {
            "up2": {"state": "Active", "peerUptimeMsec": 0, "pfxRcd": 0, "pfxSnt": 0},
            "up1": {
                "state": "Established",
                "peerUptimeMsec": 4000,
                "peerUptimeEstablishedEpoch": 1795502062,
                "pfxRcd": 3,
                "pfxSnt": 2,
            },
        },
    },
    "ipv6Unicast": {
        "peers": {
            "up1": {"state": "Established", "peerUptimeEstablishedEpoch": 1795502062, "pfxRcd": 1, "pfxSnt": 1},
            "2001:db8::1": {"state": "Idle"},
        }
    },
}


def test_both_families_of_a_session_are_counted_together() -> None:
    assert states.sessions(json.dumps(SUMMARY)) == (
        Session("2001:db8::1", "Idle"),
        Session("up1", "Established", since=1795502062, received=4, sent=3),
        Session("up2", "Active"),
    )


@pytest.mark.parametrize("text", ["", "{}\n", "% BGP instance not found\n", "[]"])
def test_without_a_configuration_there_is_nobody(text: str) -> None:
    assert states.sessions(text) == ()
    assert states.announced(text) == frozenset()


def test_what_is_announced_is_read() -> None:
    routes = {"advertisedRoutes": {"10.77.0.0/26": {"prefixLen": 26}, "fd77::/112": {}}, "totalPrefixCounter": 2}
    assert states.announced(json.dumps(routes)) == {"10.77.0.0/26", "fd77::/112"}


@pytest.mark.parametrize("text", ["Segmentation fault", '{"ipv4Unicast":'])
def test_an_answer_that_is_none_is_said(text: str) -> None:
    with pytest.raises(errors.Unavailable):
        states.sessions(text)
