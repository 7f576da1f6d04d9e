"""The contract of a host's routing daemons: the simulated ones and FRR's keep the same promises."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from corral_drivers import errors
from corral_drivers.bgp import exports, lines, plan, port, simulated
from corral_drivers.bgp.frr import driver
from corral_drivers.bgp.model import Cause, Neighbor, Observed, Path, Speaker

from .routers import DAEMONS, Router, cabled, eventually

SPEAKER = Speaker(
    asn=4200000011,
    addresses=("100.87.0.11", "fd87::11"),
    neighbors=(Neighbor("up1"), Neighbor("up2")),
    keepalive=1,
    hold=3,
    blocks=("10.77.0.0/26", "fd77::/112"),
    pools=("10.77.0.0/24", "10.78.0.0/24", "fd77::/64"),
)
OWN = {"100.87.0.11/32", "fd87::11/128"}
BLOCKS = {"10.77.0.0/26", "fd77::/112"}
INSIDE = {"10.77.0.5/32", "10.77.0.16/28", "fd77::5/128"}
"""Longer prefixes of the host's own blocks: the fabric needs none of them."""

AWAY = {"10.77.0.200/32", "10.78.0.9/32", "fd77::1:5/128"}
"""Single addresses of the pools, in none of the host's own blocks."""

OTHER = {"10.77.0.64/26", "192.0.2.0/24", "203.0.113.7/32", "2001:db8::7/128"}
"""What is nobody's business."""

ROUTER = ("router bgp 4200000011",)


class Ground(Protocol):
    """The daemons that a driver works on, seen from outside."""

    def driver(self, cloud: str = "c10d", host: str = "4057") -> port.Bgp:
        """A driver that remembers nothing."""
        ...

    def route(self, prefix: str) -> None:
        """The kernel gets a route of our protocol."""
        ...

    def unroute(self, prefix: str) -> None:
        """The kernel loses it."""
        ...

    def by_hand(self, *statements: str) -> None:
        """Somebody configures bgpd, in the words of vtysh."""
        ...

    def write_file(self, text: str | None) -> None:
        """Somebody writes, or removes, the file that the daemons start from."""
        ...

    def stop(self, daemon: str) -> None:
        """A daemon ends."""
        ...

    def start_empty(self, daemon: str) -> None:
        """It is there again, and has read no file."""
        ...


class Simulation:
    """The simulated world."""

    def __init__(self) -> None:
        self._routes: set[str] = set()
        self._world = simulated.World(kernel=lambda: self._routes, answers=lambda name: name in ("up1", "up2"))

    def driver(self, cloud: str = "c10d", host: str = "4057") -> port.Bgp:
        return simulated.Simulated(port.Settings(cloud, host), world=self._world)

    def route(self, prefix: str) -> None:
        self._routes.add(prefix)

    def unroute(self, prefix: str) -> None:
        self._routes.discard(prefix)

    def by_hand(self, *statements: str) -> None:
        above: Path = ()
        for statement in statements:
            if statement.startswith("router bgp"):
                self._world.give("bgpd", (statement,))
                above = (statement,)
            elif statement.startswith("no "):
                self._world.take("bgpd", (*above, statement.removeprefix("no ")))
            else:
                self._world.give("bgpd", (*above, statement))

    def write_file(self, text: str | None) -> None:
        self._world.file = text

    def stop(self, daemon: str) -> None:
        del self._world.running[daemon]

    def start_empty(self, daemon: str) -> None:
        self._world.running[daemon] = {}


class Daemons:
    """FRR in a network namespace, with a spine at the other ends of its cables."""

    def __init__(self, host: Router, spine: Router) -> None:
        self.host = host
        self.spine = spine
        host.stop("bgpd", "zebra", "bfdd")
        host.file.unlink(missing_ok=True)
        host.ip("nexthop", "flush", "proto", "11")
        for family in ("-4", "-6"):
            for protocol in ("199", "bgp"):
                host.ip(family, "route", "flush", "proto", protocol)
            host.ip(family, "address", "flush", "dev", "lo", "scope", "global")
        host.start("zebra", "bgpd")

    def driver(self, cloud: str = "c10d", host: str = "4057", within: float = 10.0) -> port.Bgp:
        return driver.Frr(port.Settings(cloud, host, str(self.host.folder), str(self.host.file), within))

    def route(self, prefix: str) -> None:
        self.host.ip("route", "add", "blackhole", prefix, "proto", "199")

    def unroute(self, prefix: str) -> None:
        self.host.ip("route", "delete", "blackhole", prefix, "proto", "199")

    def by_hand(self, *statements: str) -> None:
        self.host.say(*statements)

    def write_file(self, text: str | None) -> None:
        if text is None:
            self.host.file.unlink()
        else:
            self.host.file.write_text(text)

    def stop(self, daemon: str) -> None:
        self.host.stop(daemon)

    def start_empty(self, daemon: str) -> None:
        kept = self.host.file.read_text() if self.host.file.exists() else None
        self.host.file.unlink(missing_ok=True)
        self.host.start(daemon)
        if kept is not None:
            self.host.file.write_text(kept)


@pytest.fixture(scope="module")
def cables() -> Iterator[tuple[Router, Router]]:
    if not (DAEMONS / "bgpd").exists():
        pytest.skip("FRR is not installed: scripts/setup installs the Debian package frr")
    with cabled() as both:
        yield both


@pytest.fixture(params=["simulated", pytest.param("frr", marks=pytest.mark.lab)])
def ground(request: pytest.FixtureRequest) -> Ground:
    if request.param == "simulated":
        return Simulation()
    return Daemons(*request.getfixturevalue("cables"))


@pytest.fixture
def daemons(cables: tuple[Router, Router]) -> Daemons:
    return Daemons(*cables)


async def converge(bgp: port.Bgp, speaker: Speaker | None, *, take_over: bool = False) -> plan.Plan:
    """Observe, plan, apply."""
    steps = plan.plan(bgp.render(speaker, take_over=take_over), await bgp.observe())
    for step in steps.steps:
        await bgp.apply(step)
    return steps


async def awaited(bgp: port.Bgp, *names: str) -> None:
    """Until there is a session with each of these."""
    begun = time.monotonic()
    while not set(names) <= {one.neighbor for one in await bgp.sessions() if one.is_established}:
        assert time.monotonic() - begun < 20, await bgp.sessions()
        time.sleep(0.05)


async def told(bgp: port.Bgp, expected: set[str]) -> None:
    """Until exactly this is announced."""
    begun = time.monotonic()
    while (found := await bgp.announced()) != expected:
        assert time.monotonic() - begun < 20, sorted(found ^ expected)
        time.sleep(0.05)


async def test_what_is_applied_is_observed_and_then_nothing_is_left_to_do(ground: Ground) -> None:
    bgp = ground.driver()
    speaker = dataclasses.replace(
        SPEAKER, neighbors=(*SPEAKER.neighbors, Neighbor(address="192.0.2.1", asn=64512), Neighbor(address="fd99::1"))
    )
    assert await converge(bgp, speaker)
    desired, observed = bgp.render(speaker), await bgp.observe()
    assert (set(observed.bgpd), set(observed.zebra)) == (set(desired.bgpd), set(desired.zebra))
    assert observed.file == desired.file
    assert not await converge(bgp, speaker)
    assert not await converge(ground.driver(), speaker)


async def test_every_step_may_be_taken_twice(ground: Ground) -> None:
    bgp = ground.driver()
    for speaker in (SPEAKER, dataclasses.replace(SPEAKER, blocks=(), neighbors=SPEAKER.neighbors[:1]), None):
        for step in plan.plan(bgp.render(speaker), await bgp.observe()).steps:
            await bgp.apply(step)
            await bgp.apply(step)
        assert not await converge(bgp, speaker)


async def test_nothing_is_left_of_who_falls_silent(ground: Ground) -> None:
    await converge(ground.driver(), SPEAKER)
    bgp = ground.driver()
    assert await converge(bgp, None)
    observed = await bgp.observe()
    assert (observed.zebra, observed.bgpd, lines.read(observed.file or "")) == ((), (), ())
    assert not await converge(bgp, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": ("10.77.0.128/26", "10.77.0.0/26", "fd77::/112")},
        {"blocks": ()},
        {"pools": ("10.77.0.0/24", "fd77::/64", "10.79.0.0/24")},
        {"keepalive": 60, "hold": 180},
        {"keepalive": 3, "hold": 30},
        {"addresses": ("100.87.0.12", "100.87.0.11", "fd87::12")},
        {"neighbors": (Neighbor("up1", asn=4200000001), Neighbor("up3"))},
        {"neighbors": (Neighbor("up10"), Neighbor(address="192.0.2.1", asn=64512))},
        {"asn": 64600},
    ],
    ids=lambda changes: ",".join(f"{name}={len(str(value))}" for name, value in changes.items()),
)
async def test_any_change_is_made_in_one_round_and_back(ground: Ground, changes: dict[str, object]) -> None:
    bgp, other = ground.driver(), dataclasses.replace(SPEAKER, **changes)  # type: ignore[arg-type]
    for speaker in (SPEAKER, other, SPEAKER)[: 2 if "neighbors" in changes else 3]:
        # A neighbor that comes back within milliseconds of its end crashes bgpd 8.4.4 one time in some hundred.
        assert await converge(bgp, speaker)
        assert not await converge(bgp, speaker)


@pytest.mark.parametrize(
    "statements",
    [
        (*ROUTER, "no neighbor up1"),
        (*ROUTER, "bgp always-compare-med"),
        ("no ip prefix-list corral-export-4 seq 10 permit 100.87.0.11/32",),
        ("ip prefix-list leak seq 5 permit any",),
        (f"no {ROUTER[0]}",),
    ],
    ids=lambda words: words[-1],
)
async def test_what_is_changed_by_hand_is_put_back(ground: Ground, statements: tuple[str, ...]) -> None:
    if statements[-1] == "no neighbor up1" and isinstance(ground, Simulation):
        statements = (*ROUTER, "no neighbor up1 interface remote-as external")
    elif statements[-1] == "no neighbor up1":
        statements = (*ROUTER, "no neighbor up1 interface")
    bgp = ground.driver()
    await converge(bgp, SPEAKER)
    ground.by_hand(*statements)
    if isinstance(ground, Daemons) and "neighbor" in statements[-1]:
        # As above: a person and a periodic look are never that fast.
        time.sleep(1)
    assert await converge(bgp, SPEAKER)
    assert not await converge(bgp, SPEAKER)


async def test_a_foreign_configuration_that_runs_is_refused_until_told(ground: Ground) -> None:
    ground.by_hand("router bgp 64999", "neighbor up1 interface remote-as external")
    bgp = ground.driver()
    await refused(bgp, SPEAKER)
    assert not await converge(bgp, None)
    assert await converge(bgp, SPEAKER, take_over=True)
    assert not await converge(bgp, SPEAKER)


async def test_a_foreign_file_is_refused_until_told(ground: Ground) -> None:
    ground.write_file("frr version 8.4.4\nip route 192.0.2.0/24 blackhole\n")
    bgp = ground.driver()
    await refused(bgp, SPEAKER)
    assert await converge(bgp, SPEAKER, take_over=True)
    assert not await converge(bgp, SPEAKER)


async def test_a_file_that_says_nothing_is_nobodys(ground: Ground) -> None:
    ground.write_file("# default to using syslog\nlog syslog informational\n")
    assert await converge(ground.driver(), SPEAKER)
    assert not await converge(ground.driver(), SPEAKER)


@pytest.mark.parametrize("other", [("c2", "4057"), ("c10d", "h2")])
async def test_what_another_cloud_or_host_configured_is_refused(ground: Ground, other: tuple[str, str]) -> None:
    await converge(ground.driver(*other), SPEAKER)
    await refused(ground.driver(), SPEAKER)
    assert not await converge(ground.driver(), None)
    assert not await converge(ground.driver(*other), SPEAKER)


async def refused(bgp: port.Bgp, speaker: Speaker) -> None:
    """As foreign, and everything stays as it was."""
    before = await bgp.observe()
    with pytest.raises(errors.Rejected) as why:
        await converge(bgp, speaker)
    assert why.value.cause is Cause.FOREIGN
    assert await bgp.observe() == before


async def test_either_mark_is_enough_to_know_ones_own(ground: Ground) -> None:
    bgp = ground.driver()
    await converge(bgp, SPEAKER)
    ground.write_file("frr version 8.4.4\nip route 192.0.2.0/24 blackhole\n")
    await converge(bgp, SPEAKER)
    ground.stop("bgpd")
    ground.start_empty("bgpd")
    # Another router than zebra still has the addresses of: by the file it is known that they are ours.
    other = dataclasses.replace(SPEAKER, addresses=("100.87.0.13",))
    assert await converge(bgp, other)
    assert not await converge(bgp, other)


@pytest.mark.parametrize("daemon", ["zebra", "bgpd"])
async def test_a_daemon_that_does_not_run_is_said(ground: Ground, daemon: str) -> None:
    bgp = ground.driver()
    ground.stop(daemon)
    with pytest.raises(errors.Unavailable) as why:
        await bgp.observe()
    assert why.value.cause is Cause.NOT_RUNNING
    assert daemon in why.value.message
    if daemon == "bgpd":
        for look in (bgp.sessions, bgp.announced):
            with pytest.raises(errors.Unavailable):
                await look()
    ground.start_empty(daemon)
    assert await converge(bgp, SPEAKER)


async def test_without_a_configuration_there_is_no_session_and_nothing_is_announced(ground: Ground) -> None:
    bgp = ground.driver()
    assert await bgp.sessions() == ()
    assert await bgp.announced() == frozenset()


async def test_announced_is_each_block_and_what_is_away_from_its_block_and_nothing_else(ground: Ground) -> None:
    bgp = ground.driver()
    for prefix in BLOCKS | INSIDE | AWAY | OTHER:
        ground.route(prefix)
    await converge(bgp, SPEAKER)
    await awaited(bgp, "up1", "up2")
    await told(bgp, OWN | BLOCKS | AWAY)
    assert {prefix for prefix in OWN | BLOCKS | INSIDE | AWAY | OTHER if exports.is_exported(SPEAKER, prefix)} == (
        OWN | BLOCKS | AWAY
    )
    ground.unroute("10.78.0.9/32")
    ground.unroute("10.77.0.0/26")
    await told(bgp, OWN | (BLOCKS | AWAY) - {"10.78.0.9/32", "10.77.0.0/26"})
    # Another host has the block now: what is still here of it is told one by one.
    await converge(bgp, dataclasses.replace(SPEAKER, blocks=("fd77::/112",)))
    await told(bgp, OWN | {"fd77::/112", "10.77.0.5/32"} | AWAY - {"10.78.0.9/32"})


async def test_a_session_that_is_not_there_is_told_as_such(ground: Ground) -> None:
    bgp = ground.driver()
    await converge(bgp, dataclasses.replace(SPEAKER, neighbors=(Neighbor("up1"), Neighbor("up9"))))
    await awaited(bgp, "up1")
    await told(bgp, OWN)
    first, second = await bgp.sessions()
    assert (first.neighbor, first.is_established, first.sent > 0, first.since > 0) == ("up1", True, True, True)
    assert (second.neighbor, second.is_established, second.since) == ("up9", False, 0)


async def test_what_no_daemon_would_take_is_rejected(ground: Ground) -> None:
    for changes in ({"addresses": ("fd87::11",)}, {"blocks": ("10.77.0.1/26",)}, {"asn": 0}):
        with pytest.raises(errors.Rejected) as why:
            ground.driver().render(dataclasses.replace(SPEAKER, **changes))  # type: ignore[arg-type]
        assert why.value.cause is Cause.INVALID


async def test_a_simulated_step_fails_where_it_is_told_to() -> None:
    failure = errors.Unavailable(Cause.FAILED, "told to")
    bgp = simulated.Simulated(
        port.Settings("c10d", "4057"), fail_at=lambda step: failure if isinstance(step, plan.Write) else None
    )
    with pytest.raises(errors.Unavailable):
        await converge(bgp, SPEAKER)
    observed = await bgp.observe()
    assert observed.bgpd
    assert observed.file is None


@pytest.mark.lab
async def test_the_fabric_has_what_is_announced_and_the_host_believes_no_nonsense(daemons: Daemons) -> None:
    bgp = daemons.driver()
    for prefix in BLOCKS | AWAY | INSIDE | OTHER:
        daemons.route(prefix)
    # The fabric claims to have that last block too.
    await converge(bgp, dataclasses.replace(SPEAKER, blocks=(*SPEAKER.blocks, "10.77.9.0/26")))
    await awaited(bgp, "up1", "up2")
    eventually(lambda: set(daemons.spine.routes()) == OWN | BLOCKS | AWAY)
    # Over both cables, either way.
    eventually(lambda: len(daemons.spine.routes()["10.77.0.0/26"].get("nexthops", ())) == 2)
    learnt = {"0.0.0.0/0", "10.77.5.0/26", "2001:db8:ffff::/48"}
    eventually(lambda: set(daemons.host.routes()) == learnt)
    eventually(lambda: len(daemons.host.routes()["10.77.5.0/26"].get("nexthops", ())) == 2)
    # What the host says of itself, path MTU among it, comes from an address that the fabric knows.
    for target, own in (("10.77.5.1", "100.87.0.11"), ("2001:db8:ffff::1", "fd87::11")):
        (way,) = json.loads(daemons.host.ip("-json", "route", "get", target))
        assert way["prefsrc"] == own
    assert await bgp.announced() == OWN | BLOCKS | AWAY, "the host is a way from one neighbor to the other"


@pytest.mark.lab
async def test_a_change_keeps_sessions_and_withdraws_nothing(daemons: Daemons) -> None:
    bgp = daemons.driver()
    for prefix in (*BLOCKS, *AWAY):
        daemons.route(prefix)
    await converge(bgp, SPEAKER)
    await awaited(bgp, "up1", "up2")
    eventually(lambda: set(daemons.spine.routes()) == OWN | BLOCKS | AWAY)
    before = {one.neighbor: one.since for one in await bgp.sessions()}
    with without_loss(lambda: set(daemons.spine.routes()), OWN | BLOCKS | AWAY):
        daemons.route("10.77.0.128/26")
        await converge(bgp, dataclasses.replace(SPEAKER, blocks=("10.77.0.128/26", *SPEAKER.blocks)))
        eventually(lambda: "10.77.0.128/26" in daemons.spine.routes())
        time.sleep(1.5)
        await converge(bgp, dataclasses.replace(SPEAKER, pools=("10.70.0.0/24", *SPEAKER.pools)))
        eventually(lambda: "10.77.0.128/26" not in daemons.spine.routes())
    after = {one.neighbor: one.since for one in await bgp.sessions() if one.is_established}
    assert all(abs(after[name] - since) <= 2 for name, since in before.items())


@pytest.mark.lab
@pytest.mark.parametrize("restarted", [("bgpd",), ("zebra", "bgpd")], ids="+".join)
async def test_a_crash_of_the_daemons_loses_no_route(daemons: Daemons, restarted: tuple[str, ...]) -> None:
    bgp = daemons.driver()
    for prefix in BLOCKS:
        daemons.route(prefix)
    await converge(bgp, SPEAKER)
    await awaited(bgp, "up1", "up2")
    learnt = {"0.0.0.0/0", "10.77.5.0/26", "10.77.9.0/26", "2001:db8:ffff::/48"}
    eventually(lambda: set(daemons.spine.routes()) >= OWN | BLOCKS)
    eventually(lambda: set(daemons.host.routes()) == learnt)
    # Where bgpd alone begins anew, FRR drops what it had learnt a moment (0.1 s) before it learns it again.
    kept = learnt if "zebra" in restarted else set()
    with (
        without_loss(lambda: set(daemons.spine.routes()), OWN | BLOCKS),
        without_loss(lambda: set(daemons.host.routes()), kept),
    ):
        daemons.host.stop(*restarted)
        daemons.host.start(*restarted)
        await awaited(bgp, "up1", "up2")
        time.sleep(1)
    eventually(lambda: set(daemons.host.routes()) == learnt)
    assert not await converge(bgp, SPEAKER), "the file says the same"


class without_loss:  # noqa: N801 - reads as what it says
    """Look all the time, in a thread, whether all that should be there is."""

    def __init__(self, look: Callable[[], set[str]], expected: set[str]) -> None:
        self._look = look
        self._expected = expected
        self._over = threading.Event()
        self._lost: list[tuple[float, set[str]]] = []
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._begun = time.monotonic()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        if error[0] is None:
            assert not self._lost

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            if missing := self._expected - self._look():
                self._lost.append((time.monotonic() - self._begun, missing))


@pytest.mark.lab
async def test_a_former_file_stays_beside_ours_and_frr_may_read_ours(daemons: Daemons) -> None:
    foreign = "frr version 8.4.4\nip route 192.0.2.0/24 blackhole\n"
    daemons.write_file(foreign)
    daemons.host.file.chmod(0o600)
    bgp = daemons.driver()
    await converge(bgp, SPEAKER, take_over=True)
    assert pathlib.Path(f"{daemons.host.file}.before-corral").read_text() == foreign
    await converge(bgp, dataclasses.replace(SPEAKER, blocks=()))
    assert pathlib.Path(f"{daemons.host.file}.before-corral").read_text() == foreign
    assert daemons.host.file.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in daemons.host.folder.glob(".*")) == []


@pytest.mark.lab
async def test_bfd_needs_its_daemon(daemons: Daemons) -> None:
    bgp, speaker = daemons.driver(), dataclasses.replace(SPEAKER, bfd=True)
    with pytest.raises(errors.Unavailable) as why:
        await converge(bgp, speaker)
    assert (why.value.cause, "bfdd" in why.value.message) == (Cause.NOT_RUNNING, True)
    assert await bgp.observe() == Observed((), (), None)
    daemons.host.start("bfdd")
    await converge(bgp, speaker)
    assert not await converge(bgp, speaker)
    await awaited(bgp, "up1", "up2")


@pytest.mark.lab
async def test_other_defaults_of_frr_are_refused_with_the_remedy(daemons: Daemons) -> None:
    daemons.host.stop("bgpd")
    daemons.host.start("bgpd", options=("-F", "datacenter"))
    with pytest.raises(errors.Unavailable) as why:
        await daemons.driver().observe()
    assert why.value.cause is Cause.UNSUPPORTED
    assert "frr_profile" in why.value.message


@pytest.mark.lab
async def test_a_daemon_that_hangs_is_said(daemons: Daemons) -> None:
    process = int((daemons.host.folder / "bgpd.pid").read_text())
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(errors.Unavailable) as why:
            await daemons.driver(within=0.3).observe()
        assert why.value.cause is Cause.NOT_ANSWERING
    finally:
        os.kill(process, signal.SIGCONT)
