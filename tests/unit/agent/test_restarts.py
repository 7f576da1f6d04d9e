from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.agent import restarts


def lives(*lengths: float) -> tuple[restarts.History, float]:
    """The history of a guest that lived so long after each start, started again as soon as it may be."""
    history, now = restarts.History(), 1000.0
    for length in lengths:
        now += restarts.pause(history, now)
        history = restarts.after_start(history, now)
        now += length
        history = restarts.after_stop(history, now)
    return history, now


def test_two_short_lives_are_borne_and_the_third_costs_a_pause() -> None:
    for short in ([], [1.0], [1.0, 1.0]):
        assert restarts.pause(*lives(*short)) == 0.0
    assert restarts.pause(*lives(1.0, 1.0, 1.0)) == 10.0


def test_pauses_grow_up_to_five_minutes() -> None:
    assert [restarts.pause(*lives(*[1.0] * count)) for count in range(3, 11)] == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_long_life_wins_trust_back() -> None:
    history, now = lives(1.0, 1.0, 1.0, 31.0)
    assert restarts.pause(history, now) == 0.0
    assert not history.keeps_stopping


def test_a_guest_that_kept_stopping_is_on_trial_until_it_has_lived_long_enough() -> None:
    history, now = lives(1.0, 1.0, 1.0)
    assert restarts.trial(history, now) == 0.0
    started = restarts.after_start(history, now + 10)
    assert restarts.trial(started, now + 12) == 28.0
    assert restarts.trial(started, now + 41) == 0.0


def test_a_stop_counts_once_and_one_without_a_start_of_ours_not_at_all() -> None:
    history, now = lives(1.0)
    assert restarts.after_stop(history, now + 5) == history
    assert restarts.after_stop(restarts.History(), now) == restarts.History()


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0, 1000))
def test_a_pause_is_bounded_and_ends(lengths: list[float], later: float) -> None:
    history, now = lives(*lengths)
    pause = restarts.pause(history, now)
    assert 0.0 <= pause <= 300.0
    assert restarts.pause(history, now + pause) < 1e-6
    assert restarts.pause(history, now + later) <= pause
