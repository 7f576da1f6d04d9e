"""The contract of a host's firewall: the simulated one and the kernel's keep the same promises."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from corral_drivers import errors
from corral_drivers.firewall import plan, port, simulated
from corral_drivers.firewall.model import (
    Cause,
    Element,
    Floating,
    Group,
    Network,
    Observed,
    Rule,
    Service,
    Shared,
    Tap,
)
from corral_drivers.firewall.nft import driver, parse

from .hearing import WITHIN
from .network import private_network

SETTINGS = port.Settings(cloud="cloud-1", host="host-1")
OTHERS = port.Settings(cloud="cloud-2", host="host-1")

ONE = Tap("ct0", "owner-1", "02:00:00:00:00:05", ("10.77.0.5", "fd77::5"))
MORE = Tap("ct1", "owner-1", "02:00:00:00:00:06", ("10.78.0.5",))
OTHER = Tap("ct2", "owner-2", "02:00:00:00:00:07", ("10.77.0.7",))

RICH = Shared(
    networks=(
        Network("net-a", ("10.77.0.5", "fd77::5", "10.77.0.8"), ("net-b",)),
        Network("net-b", ("10.77.0.7",), ("net-a",)),
    ),
    groups=(
        Group("web", ("10.77.0.5",), (Rule("0.0.0.0/0", protocol=6, ports=(80, 443)), Rule(group="web")), (Rule(),)),
        Group("pingable", (), (Rule(protocol=1, kind=8), Rule("10.0.0.0/8"), Rule("10.77.0.0/24", protocol=17))),
    ),
    prefixes=("10.77.0.0/16", "10.76.0.0/16", "fd77::/64"),
    direct=("192.0.2.0/24", "fd92::1/128"),
    off_limits=("100.87.0.0/24",),
    floating=(Floating("203.0.113.5", "10.77.0.5"), Floating("fd93::5", "fd77::5")),
    services=(Service(17, 53),),
)
IN_WEB = replace(ONE, network="net-a", groups=("web", "pingable"), nat=("100.87.0.1", "fd87::1"))
IN_NONE = replace(OTHER, network="net-b", groups=("unheard-of",))


class Ground(Protocol):
    """Where a driver works, seen from outside."""

    def driver(self, settings: port.Settings = SETTINGS) -> port.Firewall:
        """A driver that remembers nothing."""
        ...

    def flush(self) -> None:
        """Somebody removes our tables by hand."""
        ...

    def spoil(self) -> None:
        """Somebody changes the rules by hand."""
        ...

    def lose(self, element: Element) -> None:
        """Somebody removes an element by hand."""
        ...


class Simulation:
    """The simulated world."""

    def __init__(self) -> None:
        self._world = simulated.World()

    def driver(self, settings: port.Settings = SETTINGS) -> port.Firewall:
        return simulated.Simulated(settings, world=self._world)

    def flush(self) -> None:
        self._world.flush(SETTINGS.table)

    def spoil(self) -> None:
        self._world.spoil(SETTINGS.table)

    def lose(self, element: Element) -> None:
        self._world.lose(SETTINGS.table, element)


class PrivateNetwork:
    """A network namespace of its own; `nft` is the hand of somebody else, and the independent witness."""

    def driver(self, settings: port.Settings = SETTINGS) -> port.Firewall:
        return driver.Nft(settings)

    def flush(self) -> None:
        nft(f"delete table inet {SETTINGS.table}; delete table arp {SETTINGS.table}")

    def spoil(self) -> None:
        nft(f"flush chain inet {SETTINGS.table} from_guest4")

    def lose(self, element: Element) -> None:
        key = " . ".join(element.key)
        nft(f"delete element inet {SETTINGS.table} {element.of} {{ {key} }}")


def nft(text: str) -> str:
    """nft's answer."""
    return subprocess.run(["nft", *text.split(" ")], check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["simulated", pytest.param("nftables", marks=pytest.mark.lab)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "simulated":
        yield Simulation()
        return
    with private_network():
        yield PrivateNetwork()


@pytest.fixture
def network() -> Iterator[PrivateNetwork]:
    with private_network():
        yield PrivateNetwork()


async def converge(firewall: port.Firewall, shared: Shared, *taps: Tap, keep: tuple[str, ...] = ()) -> plan.Plan:
    """Observe, plan, apply: the whole host."""
    steps = plan.plan(shared, taps, await firewall.observe(), keep=keep)
    for step in steps.steps:
        await firewall.apply(step)
    return steps


async def converge_guest(firewall: port.Firewall, owner: str, shared: Shared, *taps: Tap) -> plan.Plan:
    """The same for one owner."""
    steps = plan.plan_guest(shared, taps, await firewall.observe(owner))
    for step in steps.steps:
        await firewall.apply(step)
    return steps


@pytest.mark.parametrize(
    ("shared", "taps"),
    [(Shared(), ()), (Shared(), (ONE, MORE, OTHER)), (RICH, (IN_WEB, MORE, IN_NONE))],
    ids=["no guests", "guests of no network", "all there is"],
)
async def test_what_is_applied_is_observed_and_then_nothing_is_left_to_do(
    ground: Ground, shared: Shared, taps: tuple[Tap, ...]
) -> None:
    firewall = ground.driver()
    assert await firewall.observe() == Observed()
    assert await converge(firewall, shared, *taps)
    assert not await converge(firewall, shared, *taps)
    assert await firewall.owners() == {tap.owner for tap in taps}


async def test_a_new_process_finds_everything_as_it_is(ground: Ground) -> None:
    await converge(ground.driver(), RICH, IN_WEB, MORE, IN_NONE)
    firewall = ground.driver()
    steps = await converge(firewall, RICH, IN_WEB, MORE, IN_NONE)
    # What went on while nobody looked is judged once; no rule is written.
    assert [type(step) for step in steps.steps] == [plan.Sever]
    assert not await converge(firewall, RICH, IN_WEB, MORE, IN_NONE)


async def test_every_step_may_be_taken_twice(ground: Ground) -> None:
    firewall = ground.driver()
    for shared, taps in ((RICH, (IN_WEB, IN_NONE)), (Shared(), (ONE, OTHER)), (RICH, (MORE,)), (Shared(), ())):
        for step in plan.plan(shared, taps, await firewall.observe()).steps:
            await firewall.apply(step)
            before = await firewall.observe()
            await firewall.apply(step)
            assert await firewall.observe() == before
        assert not plan.plan(shared, taps, await firewall.observe())


async def test_from_anything_to_anything_else(ground: Ground) -> None:
    firewall = ground.driver()
    states: list[tuple[Shared, tuple[Tap, ...]]] = [
        (RICH, (IN_WEB, IN_NONE)),
        (Shared(), (ONE,)),
        (replace(RICH, networks=RICH.networks[:1]), (IN_WEB, replace(OTHER, network="net-a", groups=("web",)))),
        (replace(RICH, groups=RICH.groups[1:]), (IN_WEB,)),
        (replace(RICH, prefixes=("10.0.0.0/8",), floating=(Floating("203.0.113.5", "10.77.0.7"),)), (IN_NONE,)),
    ]
    for shared, taps in (*states, *reversed(states)):
        await converge(firewall, shared, *taps)
        assert not await converge(firewall, shared, *taps)


async def test_one_guest_comes_and_goes_and_nothing_of_another_changes(ground: Ground) -> None:
    firewall = ground.driver()
    await converge(firewall, Shared(), OTHER)
    before = await firewall.observe()
    assert not (await firewall.observe("owner-1")).elements
    steps = await converge_guest(firewall, "owner-1", Shared(), ONE, MORE)
    assert [type(step) for step in steps.steps] == [plan.Change]
    assert not await converge_guest(firewall, "owner-1", Shared(), ONE, MORE)
    assert not await converge(firewall, Shared(), ONE, MORE, OTHER)
    assert await firewall.owners() == {"owner-1", "owner-2"}
    await converge_guest(firewall, "owner-1", Shared())
    assert await firewall.observe() == before


async def test_a_guest_that_is_in_a_network_gets_its_number_by_itself(ground: Ground) -> None:
    firewall = ground.driver()
    await converge(firewall, RICH, IN_NONE)
    await converge_guest(firewall, "owner-1", RICH, IN_WEB)
    numbers = (await firewall.observe()).names
    assert len(set(numbers.values())) == len(numbers)
    await converge(firewall, RICH, IN_WEB, IN_NONE)
    assert numbers.items() <= (await firewall.observe()).names.items()


async def test_what_nobody_knows_is_removed_and_what_is_kept_stays(ground: Ground) -> None:
    firewall = ground.driver()
    await converge(firewall, RICH, IN_WEB, IN_NONE)
    kept = (await firewall.observe("owner-1")).elements
    await converge(firewall, Shared(), OTHER, keep=("owner-1",))
    assert (await firewall.observe("owner-1")).elements == kept
    assert not await converge(firewall, Shared(), OTHER, keep=("owner-1",))
    await converge(firewall, Shared(), OTHER)
    assert not (await firewall.observe("owner-1")).elements
    assert await firewall.owners() == {"owner-2"}


async def test_one_member_more_in_a_group_and_a_network_of_a_thousand_is_one_element_each(ground: Ground) -> None:
    firewall = ground.driver()
    members = tuple(f"10.77.{number // 250 + 1}.{number % 250}" for number in range(1000))

    def shared(*addresses: str) -> Shared:
        rule = Rule(group="web", protocol=6, ports=(80, 80))
        return Shared((Network("net-a", addresses),), (Group("web", addresses, (rule,)),), ("10.77.0.0/16",))

    taps = (replace(ONE, network="net-a", groups=("web",)), replace(OTHER, network="net-a", groups=("web",)))
    await converge(firewall, shared(*members), *taps)
    (more,) = (await converge(firewall, shared(*members, "10.77.9.1"), *taps)).steps
    assert isinstance(more, plan.Change)
    assert (len(more.remove), sorted(one.of for one in more.add)) == (0, ["members4", "reach4"])
    fewer, _ = (await converge(firewall, shared(*members), *taps)).steps
    assert isinstance(fewer, plan.Change)
    assert (sorted(one.of for one in fewer.remove), len(fewer.add)) == (["members4", "reach4"], 0)


async def test_another_clouds_tables_are_neither_seen_nor_touched(ground: Ground) -> None:
    ours, theirs = ground.driver(), ground.driver(OTHERS)
    await converge(theirs, RICH, IN_WEB)
    before = await theirs.observe()
    assert await ours.observe() == Observed()
    await converge(ours, Shared(), OTHER)
    await converge(ours, Shared())
    assert await theirs.observe() == before


async def test_what_was_changed_by_hand_is_put_back(ground: Ground) -> None:
    firewall = ground.driver()
    await converge(firewall, RICH, IN_WEB, MORE, IN_NONE)
    before = await firewall.observe()
    ground.lose(Element("open_in", ("ct1",)))
    ground.lose(Element("cloud4", ("10.76.0.0/15",)))
    (put_back, *_) = (await converge(firewall, RICH, IN_WEB, MORE, IN_NONE)).steps
    assert isinstance(put_back, plan.Change)
    assert len(put_back.add) == 2
    for spoil in (ground.spoil, ground.flush):
        spoil()
        assert not (await firewall.observe()).laid
        (laid, *_) = (await converge(firewall, RICH, IN_WEB, MORE, IN_NONE)).steps
        assert isinstance(laid, plan.Lay)
        assert await firewall.observe() == before


async def test_where_the_rules_are_gone_one_guest_can_not_be_let_in_alone(ground: Ground) -> None:
    firewall = ground.driver()
    with pytest.raises(errors.Unavailable) as refused:
        await converge_guest(firewall, "owner-1", Shared(), ONE)
    assert refused.value.cause is Cause.REFUSED
    assert await firewall.observe() == Observed()


@contextlib.asynccontextmanager
async def hearing(firewall: port.Firewall) -> AsyncIterator[asyncio.Event]:
    heard = asyncio.Event()
    end = await firewall.watch(heard.set)
    try:
        yield heard
    finally:
        end()


async def test_it_tells_of_what_others_change_and_not_of_its_own_steps(ground: Ground) -> None:
    firewall, theirs = ground.driver(), ground.driver(OTHERS)
    async with hearing(firewall) as heard:
        await converge(firewall, Shared(), ONE)
        await converge_guest(firewall, "owner-2", Shared(), OTHER)
        await converge(theirs, Shared(), OTHER)
        await asyncio.sleep(0.1)
        assert not heard.is_set()
        for disturb in (lambda: ground.lose(Element("open_in", ("ct0",))), ground.spoil, ground.flush):
            disturb()
            await asyncio.wait_for(heard.wait(), WITHIN)
            heard.clear()
            await converge(firewall, Shared(), ONE, OTHER)
    ground.flush()
    await asyncio.sleep(0.1)
    assert not heard.is_set()


@pytest.mark.parametrize(
    "wrong",
    [
        replace(ONE, interface="ct0\nflush ruleset"),
        replace(ONE, interface='ct" accept'),
        replace(ONE, interface="c" * 16),
        replace(ONE, mac="02-00-00-00-00-05"),
        replace(ONE, mac="02:00:00:00:00:0A"),
        replace(ONE, addresses=("FD77::5",)),
        replace(ONE, owner='x" }'),
        replace(ONE, nat=("100.87.000.1",)),
        replace(ONE, network="a b"),
    ],
    ids=repr,
)
async def test_what_is_not_canonical_is_rejected_and_nothing_is_changed(ground: Ground, wrong: Tap) -> None:
    firewall = ground.driver()
    await converge(firewall, Shared(), OTHER)
    before = await firewall.observe()
    with pytest.raises(errors.Rejected):
        await converge(firewall, Shared(), wrong, OTHER)
    assert await firewall.observe() == before


async def test_a_simulated_step_fails_where_it_is_told_to() -> None:
    failure = errors.Unavailable(Cause.FAILED, "told to")
    firewall = simulated.Simulated(SETTINGS, fail_at=lambda _: failure)
    with pytest.raises(errors.Unavailable):
        await converge(firewall, Shared(), ONE)
    assert await firewall.observe() == Observed()


@pytest.mark.lab
async def test_a_transaction_that_the_kernel_refuses_changes_nothing(network: PrivateNetwork) -> None:
    firewall = network.driver()
    await converge(firewall, RICH, IN_WEB, OTHER)
    before, text = await firewall.observe(), nft("list ruleset")
    overlapping = Element("cloud4", ("10.77.0.0/24",))
    fine = Element("open_in", ("ct9",))
    for step in (
        plan.Change((), (fine, overlapping)),
        plan.Lay((fine, overlapping, Element("cloud4", ("10.77.0.0/16",)))),
    ):
        with pytest.raises(errors.Unavailable) as refused:
            await firewall.apply(step)
        assert refused.value.cause is Cause.REFUSED
        assert "as before" in refused.value.message
        assert nft("list ruleset") == text
        assert await firewall.observe() == before


@pytest.mark.lab
async def test_a_look_while_somebody_else_changes_other_tables_is_still_right(network: PrivateNetwork) -> None:
    firewall = network.driver()
    await converge(firewall, RICH, IN_WEB)
    nft("add table inet somebody")
    assert not await converge(firewall, RICH, IN_WEB)
    steps = await converge_guest(firewall, "owner-2", RICH, OTHER)
    assert len(steps.steps) == 1
    nft("delete table inet somebody")
    fresh = network.driver()
    assert (await firewall.observe()).elements == (await fresh.observe()).elements


@pytest.mark.lab
async def test_more_changes_by_others_than_the_kernel_keeps_for_us_hide_none_of_ours(network: PrivateNetwork) -> None:
    firewall = network.driver()
    await converge(firewall, RICH, IN_WEB)
    numbers = ", ".join(map(str, range(20_000)))
    for _ in range(2):
        nft("add table inet somebody; add set inet somebody many { type mark; }")
        network.lose(Element("sources4", (IN_WEB.interface, IN_WEB.mac, "10.77.0.5")))
        text = f"add element inet somebody many {{ {numbers} }}\n"
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        nft("delete table inet somebody")
        (put_back, *_) = (await converge(firewall, RICH, IN_WEB)).steps
        assert isinstance(put_back, plan.Change)
        assert [one.of for one in put_back.add] == ["sources4"]
    assert not await converge(firewall, RICH, IN_WEB)


@pytest.mark.lab
async def test_the_sum_of_the_rules_is_the_same_at_every_look(network: PrivateNetwork) -> None:
    firewall = network.driver()
    assert isinstance(firewall, driver.Nft)
    sums = set[str]()
    for _ in range(5):
        await firewall.apply(plan.Lay(()))
        await converge(firewall, RICH, IN_WEB)
        assert (await firewall.observe()).laid
        sums.add(parse.fingerprint(await firewall._run(firewall._listed)))
    assert len(sums) == 1
