from __future__ import annotations

from dataclasses import dataclass, field

from corral.controller import rollcall


@dataclass
class Fleet:
    """Hosts, which have answered or not, at a time that tests set."""

    now: float = 100.0
    answered: set[str] = field(default_factory=set)
    connected: set[str] = field(default_factory=set)

    def begun(self, **hosts: bool) -> rollcall.RollCall:
        made = rollcall.RollCall(lambda: self.now, 60.0)
        made.begin(hosts)
        return made

    def missing(self, call: rollcall.RollCall) -> list[str]:
        return call.missing(
            lambda host, asked: bool(asked) and host in self.answered, lambda host: host in self.connected
        )


def test_nobody_is_asked_before_somebody_needs_it_and_then_once() -> None:
    call = Fleet().begun(h1=True, h2=False)
    assert call.asks == ""
    assert call.ask() == ["h1", "h2"]
    assert call.asks
    assert call.ask() == []


def test_it_is_over_once_all_have_answered_that_could() -> None:
    fleet = Fleet()
    call = fleet.begun(h1=True, h2=True, never_seen=False)
    call.ask()
    assert fleet.missing(call) == ["h1", "h2"]
    fleet.answered.add("h1")
    assert fleet.missing(call) == ["h2"]
    assert not call.is_over
    fleet.answered.add("h2")
    assert fleet.missing(call) == []
    assert call.is_over
    assert call.asks == ""
    assert call.ask() == []


def test_one_that_was_silent_and_answers_now_is_waited_for() -> None:
    fleet = Fleet(connected={"h1"})
    call = fleet.begun(h1=False)
    call.ask()
    assert fleet.missing(call) == ["h1"]


def test_a_silent_one_is_waited_for_so_long_since_the_begin_and_not_since_it_was_asked() -> None:
    fleet = Fleet()
    call = fleet.begun(h1=True)
    fleet.now += 59.0
    call.ask()
    assert fleet.missing(call) == ["h1"]
    fleet.now += 2.0
    assert fleet.missing(call) == []
    assert call.is_over


def test_it_is_quiet_at_first() -> None:
    fleet = Fleet()
    call = fleet.begun(h1=True)
    assert not call.is_quiet
    call.ask()
    assert call.is_quiet
    fleet.now += rollcall.QUIET
    assert not call.is_quiet


def test_two_calls_ask_differently() -> None:
    first, second = Fleet().begun(h1=True), Fleet().begun(h1=True)
    first.ask()
    second.ask()
    assert first.asks != second.asks
