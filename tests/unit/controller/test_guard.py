from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.controller import guard


def make(*, share: float = 0.2, floor: int = 3, window: float = 100.0) -> guard.Guard:
    made = guard.Guard()
    made.limits = guard.Limits(share, floor, window)
    return made


def asked(one: guard.Guard, count: int, *, fleet: int = 0, now: float = 0.0, first: int = 0) -> list[bool]:
    return [one.may_remove(f"u{number}", fleet=fleet, now=now) for number in range(first, first + count)]


def test_the_floor_may_go_whatever_the_share() -> None:
    assert asked(make(), 5) == [True, True, True, False, False]


def test_the_share_is_of_the_fleet_as_it_was() -> None:
    one = make()
    said = [one.may_remove(f"u{number}", fleet=99 - number, now=0.0) for number in range(40)]
    assert said.count(True) == 19  # the one that asks is of the fleet no more
    assert said == sorted(said, reverse=True)
    assert one.held == 21


def test_asking_again_counts_once_and_says_the_same() -> None:
    one = make()
    first = asked(one, 5)
    assert asked(one, 5) == first
    assert one.held == 2


def test_the_window_passes() -> None:
    one = make()
    assert asked(one, 3) == [True] * 3
    assert asked(one, 1, first=3, now=100.0) == [True]


def test_what_is_held_waits_for_a_person_and_not_for_the_window() -> None:
    one = make()
    asked(one, 4)
    assert asked(one, 1, first=3, now=9999.0) == [False]
    assert one.held_since == 0.0
    # The rest of an accident is part of it.
    assert asked(one, 1, first=7, now=9999.0) == [False]


def test_a_person_lets_go_what_is_held_and_nothing_that_comes_later() -> None:
    one = make()
    asked(one, 5)
    assert one.release() == ("u3", "u4")
    assert (one.held, one.held_since) == (0, None)
    assert asked(one, 2, first=3) == [True, True]
    assert asked(one, 1, first=5, now=50.0) == [False]
    assert one.held_since == 50.0


def test_what_is_gone_or_came_back_is_forgotten() -> None:
    one = make()
    asked(one, 5)
    for uid in ("u3", "u4", "u4", "never"):
        one.forget(uid)
    assert (one.held, one.held_since) == (0, None)


def test_what_was_held_before_we_began_is_held_still_and_so_is_what_comes() -> None:
    one = make()
    one.hold("u9", 10.0)
    one.hold("u9", 20.0)
    assert (one.held, one.held_since) == (1, 10.0)
    assert asked(one, 1, now=9999.0) == [False]
    assert one.release() == ("u9", "u0")
    assert asked(one, 1, first=9, now=9999.0) == [True]


def test_a_release_that_was_used_up_is_no_licence() -> None:
    one = make()
    asked(one, 4)
    one.release()
    one.forget("u3")
    assert asked(one, 1, first=3) == [False]


@given(
    share=st.floats(0.01, 1),
    floor=st.integers(1, 10),
    asks=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=60),
)
def test_within_a_window_no_more_than_both_limits_allow(share: float, floor: int, asks: list[tuple[int, int]]) -> None:
    one, now, fleet = make(share=share, floor=floor), 0.0, 31
    granted: dict[str, float] = {}
    for number, pause in asks:
        now += pause
        uid = f"u{number}"
        if one.may_remove(uid, fleet=fleet, now=now):
            granted.setdefault(uid, now)
        recent = [time for time in granted.values() if time > now - 100.0]
        assert len(recent) <= max(floor, int(share * (fleet + len(granted) + one.held)) + 1)
