from __future__ import annotations

import datetime

from corral import deadlines, kube
from corral.conclude import conditions
from corral.controller import heartbeats

WALL = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
SILENT = deadlines.AGENT_SILENT_AFTER


def lease(version: int, *, age: float | None = 0.0, host: str = "h1", name: str = "agent") -> kube.Object:
    spec = {} if age is None else {"renewTime": (WALL - datetime.timedelta(seconds=age)).isoformat()}
    metadata = {"name": name, "namespace": f"corral-host-{host}", "resourceVersion": str(version)}
    return {"metadata": metadata | {"labels": {heartbeats.LABEL: host}}, "spec": spec}


def take(beats: heartbeats.Heartbeats, *leases: kube.Object, now: float) -> set[str]:
    return beats.take(leases, now=now, wall=WALL)


def fact(beats: heartbeats.Heartbeats, host: str = "h1") -> tuple[str, str]:
    told: conditions.Fact = beats.fact(host)
    return told.status, told.reason


def test_of_a_host_without_a_lease_nobody_heard() -> None:
    assert fact(heartbeats.Heartbeats()) == ("Unknown", "AgentNotSeen")


def test_a_fresh_lease_is_an_agent_that_answers() -> None:
    beats = heartbeats.Heartbeats()
    assert take(beats, lease(1), now=5.0) == {"h1"}
    assert fact(beats) == ("True", "Answering")
    assert take(beats, lease(1), now=6.0) == set()


def test_an_old_lease_at_our_start_is_a_silent_agent() -> None:
    for old in (lease(1, age=SILENT), lease(1, age=None)):
        beats = heartbeats.Heartbeats()
        assert take(beats, old, now=5.0) == set()
        assert fact(beats) == ("Unknown", "AgentSilent")


def test_a_lease_that_does_not_move_falls_silent_and_one_that_moves_comes_back() -> None:
    beats = heartbeats.Heartbeats()
    take(beats, lease(1), now=0.0)
    assert take(beats, lease(1), now=SILENT - 1) == set()
    assert take(beats, lease(1), now=SILENT) == {"h1"}
    assert fact(beats) == ("Unknown", "AgentSilent")
    assert take(beats, lease(2), now=SILENT + 1) == {"h1"}
    assert fact(beats) == ("True", "Answering")


def test_once_it_moves_the_hosts_own_clock_does_not_matter() -> None:
    beats = heartbeats.Heartbeats()
    take(beats, lease(1, age=-9999.0), now=0.0)
    assert fact(beats) == ("True", "Answering")
    take(beats, lease(2, age=9999.0), now=10.0)
    assert take(beats, lease(2, age=9999.0), now=10.0 + SILENT - 1) == set()
    assert fact(beats) == ("True", "Answering")


def test_of_two_leases_of_a_host_one_that_moves_is_enough_and_two_that_do_not_are_silence() -> None:
    beats = heartbeats.Heartbeats()
    for now in (0.0, SILENT - 1):
        take(beats, lease(1), lease(2, name="other"), now=now)
    assert take(beats, lease(1), lease(2, name="other"), now=SILENT) == {"h1"}
    assert fact(beats) == ("Unknown", "AgentSilent")
    assert take(beats, lease(1), lease(3, name="other"), now=SILENT) == {"h1"}


def test_a_lease_that_is_deleted_falls_silent() -> None:
    beats = heartbeats.Heartbeats()
    take(beats, lease(1), lease(1, host="h2"), now=0.0)
    assert take(beats, lease(2, host="h2"), now=SILENT) == {"h1"}
    assert fact(beats, "h2") == ("True", "Answering")


def test_a_time_that_no_calendar_has_is_as_good_as_none() -> None:
    beats = heartbeats.Heartbeats()
    strange = lease(1)
    strange["spec"]["renewTime"] = "0000-01-01T00:00:00.000000Z"
    assert take(beats, strange, now=5.0) == set()
    assert fact(beats) == ("Unknown", "AgentSilent")
    assert take(beats, lease(2), now=6.0) == {"h1"}
