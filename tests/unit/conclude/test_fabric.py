from __future__ import annotations

import pytest

from corral.api.v1alpha1 import host
from corral.conclude import conditions, fabric, hoststate
from corral.conclude import host as conclude_host
from corral.conclude import instance as rooms
from corral_drivers import errors
from corral_drivers.bgp import model as bgp
from corral_drivers.bgp.model import Session

from .said import NOW, told, was
from .test_host import ANSWERING, a_host
from .test_hoststate import conclude, found

UP1 = Session("up1", "Established", since=1795502062, received=3, sent=2)
UP2 = Session("up2", "Established", since=1795502060)
BGP = {"asn": 64512, "addresses": ["100.87.0.11"], "neighbors": [{"interface": "up1"}]}


def well(*sessions: Session) -> fabric.Found:
    return fabric.Found(rooms.HOLDS, sessions)


@pytest.mark.parametrize(
    ("what", "said", "words"),
    [
        (well(UP1, UP2), ("True", "FabricConnected"), ""),
        (well(UP1, Session("up2", "Active")), ("True", "NeighborsMissing"), "1 of 2 BGP sessions are established, not"),
        (well(Session("up1", "Idle"), Session("up2", "Active")), ("False", "FabricUnreachable"), "with up1, up2"),
        (
            fabric.Found(rooms.HOLDS, (UP1,), ("10.7.0.1/32",)),
            ("True", "AnnouncedTooMuch"),
            "not on the host: 1, 10.7.0.1/32",
        ),
        (well(), ("False", "FabricUnreachable"), ""),
        (fabric.Found(rooms.HOLDS, None), ("False", "FabricUnreachable"), ""),
        (fabric.UNSEEN, ("Unknown", "Provisioning"), ""),
    ],
)
def test_what_is_said_of_the_fabric(what: fabric.Found, said: tuple[str, str], words: str) -> None:
    fact = fabric.fact(what, ())
    assert ((fact.status, fact.reason), words in fact.detail) == (said, True)


@pytest.mark.parametrize("cause", bgp.Cause)
def test_a_room_that_fails_says_why_and_sessions_stay_as_told(cause: bgp.Cause) -> None:
    before = conclude(found(fabric=well(UP1, UP2)))
    room = rooms.failed(errors.Unavailable(cause, "bgpd does not run"))
    status = conclude(found(fabric=fabric.Found(room, None)), before)
    assert status.bgp == before.bgp
    assert told(status.conditions)["FabricReady"] == ("False", room.reason)
    assert "bgpd does not run" in status.conditions[1].message


def test_until_somebody_looks_it_is_told_as_it_was() -> None:
    before = conclude(found(fabric=well(UP1, Session("up2", "Active"))))
    assert conclude(found(fabric=fabric.UNSEEN), before) == before


def test_a_host_that_speaks_no_bgp_says_nothing_of_it() -> None:
    status = conclude(found(), conclude(found(fabric=well(UP1))))
    assert status.bgp is None
    assert "FabricReady" not in told(status.conditions)


def test_what_flickers_is_told_as_it_was() -> None:
    before = conclude(found(fabric=well(UP1, Session("up2", "Active"))))
    jitter = Session("up1", "Established", since=UP1.since + 1, received=3, sent=2)
    assert conclude(found(fabric=well(jitter, Session("up2", "Connect"))), before) == before
    again = Session("up1", "Established", since=UP1.since + 60, received=3, sent=2)
    after = conclude(found(fabric=well(again, Session("up2", "Idle"))), before)
    assert after.bgp is not None
    assert before.bgp is not None
    assert fabric.differs(after.bgp, before.bgp)
    assert (after.bgp.established, after.bgp.sessions[1].state) == ("1/2", "Down")


def test_numbers_of_prefixes_are_no_news() -> None:
    before, after = (
        fabric.status(well(one, UP2), None) for one in (UP1, Session("up1", "Established", UP1.since, received=9))
    )
    assert before != after
    assert not fabric.differs(before, after)


def test_a_host_is_ready_where_somebody_hears_it() -> None:
    for sessions, said in (((UP1,), "True"), ((Session("up1", "Idle"),), "False")):
        state = conclude(found(fabric=well(*sessions)))
        status, _ = conclude_host.conclude(a_host(bgp=BGP), conclude_host.Observed(ANSWERING, state), NOW)
        assert told(status.conditions)["Ready"][0] == told(status.conditions)["FabricReady"][0] == said
        assert status.bgp == state.bgp


def test_an_agent_that_says_nothing_of_bgp_is_awaited_and_a_host_without_bgp_is_not() -> None:
    state = host.HostStateStatus(observed_generation=1, conditions=(was("HypervisorReady", "True"),))
    observed = conclude_host.Observed(ANSWERING, state)
    status, _ = conclude_host.conclude(a_host(bgp=BGP), observed, NOW)
    assert told(status.conditions)["FabricReady"] == ("Unknown", "Provisioning")
    status, _ = conclude_host.conclude(a_host(), observed, NOW)
    assert told(status.conditions)["Ready"][0] == "True"
    assert status.bgp is None
    status, _ = conclude_host.conclude(
        a_host(bgp=BGP), conclude_host.Observed(conditions.unknown("AgentConnected", "AgentNotSeen"), None), NOW
    )
    assert told(status.conditions)["FabricReady"] == ("Unknown", "AgentNotSeen")


def test_what_another_host_has_is_told_instead() -> None:
    observed = conclude_host.Observed(
        ANSWERING, conclude(found(fabric=well(UP1))), rival="spec.bgp.asn 64512 is Host a's"
    )
    status, _ = conclude_host.conclude(a_host(bgp=BGP), observed, NOW)
    assert told(status.conditions)["FabricReady"] == told(status.conditions)["Ready"] == ("False", "BgpTaken")


def test_a_foreign_configuration_is_final_for_the_host() -> None:
    room = rooms.failed(errors.Rejected(bgp.Cause.FOREIGN, "FRR has a configuration that is not ours"))
    state = hoststate.conclude(
        found(fabric=fabric.Found(room, None)), hoststate.Asked(1, "h1", "0.1"), host.HostStateStatus(), NOW
    )
    status, _ = conclude_host.conclude(a_host(bgp=BGP), conclude_host.Observed(ANSWERING, state), NOW)
    assert told(status.conditions)["Stalled"] == ("True", "FrrForeign")
    assert "takeOver" in status.conditions[2].message
