from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import queue

from . import leaping_clock

Reconcile = Callable[[str], Awaitable[float | None]]


class Expected(Exception):  # noqa: N818
    """What a reconcile may raise without a trace."""


class Seen:
    """A reconcile that keeps when each key came, does what `script` says next, and takes `takes` seconds."""

    def __init__(self, *script: float | Exception | None, takes: float = 0.0) -> None:
        self.calls: list[tuple[float, str]] = []
        self.script = list(script)
        self.takes = takes
        self.running: Counter[str] = Counter()
        self.most = 0

    async def __call__(self, key: str) -> float | None:
        self.calls.append((round(asyncio.get_running_loop().time(), 3), key))
        self.running[key] += 1
        assert self.running[key] == 1, f"{key} runs twice at once"
        self.most = max(self.most, self.running.total())
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.running[key] -= 1
        said = self.script.pop(0) if self.script else None
        if isinstance(said, Exception):
            raise said
        return said

    @property
    def keys(self) -> list[str]:
        return [key for _, key in self.calls]

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.calls]


def make(reconcile: Reconcile, *, workers: int = 1, deadline: float = 10.0, spread: float = 1.0) -> queue.Queue[str]:
    settings = queue.Settings(workers=workers, deadline=deadline, first_delay=1.0, longest_delay=8.0)
    return queue.Queue(reconcile, settings, expected=(Expected,), spread=lambda: spread)


@contextlib.asynccontextmanager
async def working(waiting: queue.Queue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(waiting.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def passed(seen: Seen, seconds: float, *keys: str, workers: int = 1, spread: float = 1.0) -> Seen:
    """What was seen `seconds` after these keys were added, in this order and at once."""

    async def main() -> None:
        waiting = make(seen, workers=workers, spread=spread)
        async with working(waiting):
            for key in keys:
                waiting.add(key)
            await asyncio.sleep(seconds)

    leaping_clock.run(main)
    return seen


def test_keys_come_in_the_order_in_which_they_were_added_and_once() -> None:
    assert passed(Seen(), 1, "b", "a", "b", "c", "a").keys == ["b", "a", "c"]


def test_workers_share_the_keys() -> None:
    seen = passed(Seen(takes=1.0), 5, *"abcdef", workers=3)
    assert seen.times == [0, 0, 0, 1, 1, 1]
    assert seen.most == 3


def test_a_key_that_is_added_while_it_runs_runs_once_more_afterwards() -> None:
    seen = Seen(takes=2.0)

    async def main() -> None:
        waiting = make(seen, workers=4)
        async with working(waiting):
            waiting.add("a")
            await asyncio.sleep(1)
            for _ in range(3):
                waiting.add("a")
            await asyncio.sleep(20)

    leaping_clock.run(main)
    assert seen.times == [0, 2]


def test_of_several_delays_the_earliest_counts() -> None:
    seen = Seen()

    async def main() -> None:
        waiting = make(seen)
        async with working(waiting):
            for after in (7.0, 3.0, 5.0):
                waiting.add("a", after)
            await asyncio.sleep(20)

    leaping_clock.run(main)
    assert seen.times == [3]


def test_at_once_takes_the_place_of_later() -> None:
    seen = Seen()

    async def main() -> None:
        waiting = make(seen)
        async with working(waiting):
            waiting.add("a", 3.0)
            waiting.add("a")
            await asyncio.sleep(20)

    leaping_clock.run(main)
    assert seen.times == [0]


def test_what_reconcile_returns_is_when_it_looks_again() -> None:
    assert passed(Seen(5.0, 0.5), 20, "a").times == [0, 5, 5.5]


def test_no_time_at_all_is_no_busy_loop() -> None:
    assert passed(Seen(0.0, -1.0), 20, "a").times == [0, 0.01, 0.02]


def test_delays_double_up_to_the_longest() -> None:
    assert passed(Seen(*(Expected() for _ in range(6))), 60, "a").times == [0, 1, 3, 7, 15, 23, 31]


def test_delays_are_spread_over_their_second_half() -> None:
    assert passed(Seen(Expected(), Expected()), 60, "a", spread=0.0).times == [0, 0.5, 1.5]


def test_success_begins_the_delays_anew() -> None:
    assert passed(Seen(Expected(), Expected(), 1.0, Expected()), 60, "a").times == [0, 1, 3, 4, 5]


def test_success_begins_the_delays_anew_also_where_a_later_pass_is_due_already() -> None:
    seen = Seen(Expected(), Expected(), None, Expected(), takes=0.5)

    async def main() -> None:
        waiting = make(seen)
        async with working(waiting):
            waiting.add("a")
            await asyncio.sleep(4.25)  # while the third pass runs, the one that succeeds
            waiting.add("a", 5.0)
            await asyncio.sleep(20)

    leaping_clock.run(main)
    assert seen.times == [0, 1.5, 4, 9.25, 10.75]


def test_news_comes_before_the_delay_is_over_and_does_not_forget_the_failures() -> None:
    seen = Seen(Expected(), Expected(), Expected())

    async def main() -> None:
        waiting = make(seen)
        async with working(waiting):
            waiting.add("a")
            await asyncio.sleep(0.25)
            waiting.add("a")
            await asyncio.sleep(20)

    leaping_clock.run(main)
    assert seen.times == [0, 0.25, 2.25, 6.25]


def test_a_defect_on_one_key_is_no_end_of_the_others() -> None:
    seen = passed(Seen(ValueError("nobody foresaw this")), 60, "a", "b")
    assert seen.keys == ["a", "b", "a"]


def test_what_takes_longer_than_its_deadline_is_cut_and_tried_again() -> None:
    seen = Seen(takes=100.0)

    async def main() -> None:
        waiting = make(seen, deadline=10.0)
        async with working(waiting):
            waiting.add("a")
            waiting.add("b")
            await asyncio.sleep(25)

    leaping_clock.run(main)
    assert seen.calls == [(0, "a"), (10, "b"), (20, "a")]
    assert seen.running.total() == 0


def test_idle_is_when_nothing_is_ready_or_running() -> None:
    seen = Seen(takes=1.0)

    async def main() -> None:
        waiting = make(seen)
        await waiting.idle()
        async with working(waiting):
            waiting.add("later", 50.0)
            waiting.add("a")
            waiting.add("b")
            assert waiting.depth == 2
            await waiting.idle()
            assert asyncio.get_running_loop().time() == pytest.approx(2)
            assert waiting.depth == 0

    leaping_clock.run(main)


def test_every_pass_is_told_with_what_came_of_it_and_how_long_it_took() -> None:
    seen = Seen(None, Expected(), None, ValueError(), None, 3.0, takes=2.0)
    ended: list[tuple[str, str, float]] = []

    async def main() -> None:
        settings = queue.Settings(workers=1, deadline=10.0, first_delay=1.0)
        made = queue.Queue(
            seen,
            settings,
            expected=(Expected,),
            spread=lambda: 1.0,
            ended=lambda key, outcome, seconds: ended.append((key, outcome, round(seconds, 3))),
        )
        async with working(made):
            for key in ("a", "b", "c", "d"):
                made.add(key)
                await asyncio.sleep(20)
            seen.takes = 60.0
            made.add("e")
            await asyncio.sleep(11)

    leaping_clock.run(main)
    assert ended == [
        ("a", "done", 2.0),
        ("b", "failed", 2.0),
        ("b", "done", 2.0),
        ("c", "defect", 2.0),
        ("c", "done", 2.0),
        ("d", "again", 2.0),
        ("d", "done", 2.0),
        ("e", "late", 10.0),
    ]


def test_the_oldest_is_who_waits_longest_for_a_worker() -> None:
    seen = Seen(takes=4.0)

    async def main() -> None:
        waiting = make(seen)
        assert waiting.oldest == 0
        async with working(waiting):
            waiting.add("a")
            await asyncio.sleep(1)
            waiting.add("b")
            waiting.add("later", 50.0)
            await asyncio.sleep(1)
            waiting.add("c")
            assert waiting.oldest == pytest.approx(1)
            await asyncio.sleep(3)
            # b has its turn.
            assert waiting.oldest == pytest.approx(3)
            await waiting.idle()
            assert waiting.oldest == 0

    leaping_clock.run(main)


def test_when_it_ends_nothing_runs_and_no_timer_is_left() -> None:
    seen = Seen(takes=5.0)

    async def main() -> None:
        waiting = make(seen)
        async with working(waiting):
            waiting.add("a")
            waiting.add("b")
            waiting.add("c", 3.0)
            await asyncio.sleep(1)
        assert seen.running.total() == 0
        await asyncio.sleep(100)
        assert seen.keys == ["a"]

    leaping_clock.run(main)


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.3, 1.0, 4.0]), st.sampled_from([0.0, 0.2, 2.5])),
    max_size=20,
)


@given(steps=STEPS, script=st.lists(st.sampled_from(["well", "fails", "soon"]), max_size=20), workers=st.integers(1, 3))
def test_whatever_is_added_a_pass_begins_after_its_time_and_never_two_of_a_key(
    steps: list[tuple[str, float, float]], script: list[str], workers: int
) -> None:
    words: dict[str, float | Exception | None] = {"well": None, "fails": Expected(), "soon": 0.5}
    seen = Seen(*(words[word] for word in script), takes=0.7)
    due: dict[str, float] = {}

    async def main() -> None:
        waiting = make(seen, workers=workers)
        async with working(waiting):
            for key, after, pause in steps:
                waiting.add(key, after)
                due[key] = max(due.get(key, 0.0), asyncio.get_running_loop().time())
                await asyncio.sleep(pause)
            await asyncio.sleep(400)
            await waiting.idle()
            assert waiting.depth == 0

    leaping_clock.run(main)
    last = {key: time for time, key in seen.calls}
    assert last.keys() == due.keys()
    assert all(last[key] >= round(added, 3) for key, added in due.items())
