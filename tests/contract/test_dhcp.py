"""The contract of what guests are answered: the simulated driver and the packet sockets keep the same promises.

What real clients make of the answers is in `test_dhcp_clients`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from corral_drivers import errors
from corral_drivers.dhcp import plan, port, responder, simulated, sockets
from corral_drivers.dhcp.model import Answer, Cause, Service

from .dhcp_guest import GATEWAYS, MAC, Wire, discover, solicit, solicit_router
from .hearing import hearing
from .network import private_network, without_raw_sockets

OWNER, OTHER, OTHER_MAC = "owner-1", "owner-2", "02:00:00:00:00:02"
TAP = Answer("tap0", MAC, 1420, ("10.77.0.5", "fd77::5"), leads_out=True, hostname="web-0")
OTHER_TAP = dataclasses.replace(TAP, interface="tap1", mac=OTHER_MAC, addresses=("10.77.0.6", "fd77::6"))
SERVICE, OTHER_SERVICE = Service(OWNER, (TAP,)), Service(OTHER, (OTHER_TAP,))
CHANGED = Service(OWNER, (dataclasses.replace(TAP, addresses=("10.77.0.7",)),))

SOON, NEVER = 5.0, 0.3
"""Seconds: until what must come has come, and after which what does not come never comes."""


class Ground(Protocol):
    """Where a driver works, seen from outside."""

    def driver(self, advertise_every: float = 1800.0) -> port.Dhcp:
        """A driver that remembers nothing; what it answers ends with the ground."""
        ...

    async def ask(self, tap: str, frame: bytes) -> bytes | None:
        """What the guest on this tap (tap0 or tap1) gets for this frame."""
        ...

    def spoil(self, owner: str) -> None:
        """Someone changes what is kept of this owner."""
        ...

    def drop(self, owner: str) -> None:
        """Someone removes what is kept of this owner."""
        ...

    def deafened(self) -> contextlib.AbstractContextManager[None]:
        """For as long as the block is, no driver may begin to hear guests."""
        ...


class Simulation:
    """The simulated world."""

    def __init__(self) -> None:
        self._world = simulated.World()

    def driver(self, advertise_every: float = 1800.0) -> port.Dhcp:
        return simulated.Simulated(port.Settings("/dhcp", *GATEWAYS, advertise_every), world=self._world)

    async def ask(self, tap: str, frame: bytes) -> bytes | None:
        return self._world.ask(tap, frame)

    def spoil(self, owner: str) -> None:
        self._world.put(owner, CHANGED)

    def drop(self, owner: str) -> None:
        self._world.put(owner, None)

    @contextlib.contextmanager
    def deafened(self) -> Iterator[None]:
        self._world.deaf = errors.Unavailable(Cause.UNSUPPORTED, "can't hear guests that ask")
        yield
        self._world.deaf = None


class PrivateNetwork:
    """A network namespace of its own with two taps, of which the test holds the guests' ends."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "dhcp"
        self.wires = {"tap0": Wire("tap0", MAC), "tap1": Wire("tap1", OTHER_MAC)}
        self.drivers: list[responder.Responder] = []

    def driver(self, advertise_every: float = 1800.0) -> port.Dhcp:
        settings = port.Settings(str(self.folder), *GATEWAYS, advertise_every, muted_for=1.0)
        self.drivers.append(responder.Responder(settings))
        return self.drivers[-1]

    async def ask(self, tap: str, frame: bytes) -> bytes | None:
        wire = self.wires[tap]
        wire.say(frame)
        return await wire.answer(NEVER)

    def spoil(self, owner: str) -> None:
        (self.folder / f"{owner}.json").write_text("{}")

    def drop(self, owner: str) -> None:
        (self.folder / f"{owner}.json").unlink()

    @contextlib.contextmanager
    def deafened(self) -> Iterator[None]:
        with without_raw_sockets():
            yield


@contextlib.asynccontextmanager
async def network(folder: pathlib.Path) -> AsyncIterator[PrivateNetwork]:
    with private_network():
        made = PrivateNetwork(folder)
        try:
            yield made
        finally:
            for driver in made.drivers:
                await driver.close()
            for wire in made.wires.values():
                wire.close()


@pytest.fixture(params=["simulated", pytest.param("kernel", marks=pytest.mark.lab)])
async def ground(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Ground]:
    if request.param == "simulated":
        yield Simulation()
        return
    async with network(tmp_path) as made:
        yield made


@pytest.fixture
async def kernel(tmp_path: pathlib.Path) -> AsyncIterator[PrivateNetwork]:
    async with network(tmp_path) as made:
        yield made


async def converge(room: port.Dhcp, desired: Service | None, owner: str = OWNER) -> plan.Plan:
    """Observe, plan, apply."""
    steps = plan.plan(desired, await room.observe(owner), owner)
    for step in steps.steps:
        await room.apply(step)
    return steps


def given(offer: bytes | None) -> str:
    """The address that a DHCP server's frame gives; empty where there is none."""
    return "" if offer is None else ".".join(str(octet) for octet in offer[58:62])


async def test_what_is_applied_is_observed_and_then_nothing_is_left_to_do(ground: Ground) -> None:
    room = ground.driver()
    assert await converge(room, SERVICE)
    assert await room.observe(OWNER) == SERVICE
    assert not await converge(room, SERVICE)
    assert await room.owners() == {OWNER}


async def test_every_step_may_be_taken_twice(ground: Ground) -> None:
    room = ground.driver()
    for _ in range(2):
        await room.apply(plan.Serve(SERVICE))
        assert await room.observe(OWNER) == SERVICE
    for _ in range(2):
        await room.apply(plan.Silence(OWNER))
        assert await room.observe(OWNER) is None
    assert await room.owners() == frozenset()


async def test_dhcp_dhcpv6_and_a_solicitation_are_answered_on_the_tap(ground: Ground) -> None:
    await converge(ground.driver(), SERVICE)
    assert given(await ground.ask("tap0", discover())) == "10.77.0.5"
    advertised = await ground.ask("tap0", solicit(options=b"\0\x03\0\x0c\0\0\0\x01" + bytes(8)))
    assert advertised is not None
    assert bytes.fromhex("fd770000000000000000000000000005") in advertised
    router = await ground.ask("tap0", solicit_router())
    assert router is not None
    assert router[54] == 134


async def test_the_answer_is_chosen_by_the_tap_and_the_mac(ground: Ground) -> None:
    room = ground.driver()
    await converge(room, SERVICE)
    await converge(room, OTHER_SERVICE, OTHER)
    assert given(await ground.ask("tap0", discover())) == "10.77.0.5"
    assert given(await ground.ask("tap1", discover(OTHER_MAC))) == "10.77.0.6"
    for frame in (discover(OTHER_MAC), solicit(OTHER_MAC), solicit_router(OTHER_MAC)):
        assert await ground.ask("tap0", frame) is None
    # The sender's MAC is its own, and what it says within is the other's.
    disguised = discover()[:6] + bytes.fromhex("020000000001") + discover(OTHER_MAC)[12:]
    assert await ground.ask("tap0", disguised) is None


async def test_a_guest_is_told_the_new_from_its_next_question_on_and_then_nothing(ground: Ground) -> None:
    room = ground.driver()
    await converge(room, SERVICE)
    await converge(room, CHANGED)
    assert given(await ground.ask("tap0", discover())) == "10.77.0.7"
    assert await ground.ask("tap0", solicit_router()) is None
    await converge(room, None)
    assert await ground.ask("tap0", discover()) is None


async def test_a_new_driver_answers_at_once_as_the_old_one_did(ground: Ground) -> None:
    old = ground.driver()
    await converge(old, SERVICE)
    await old.close()
    assert await ground.ask("tap0", discover()) is None
    new = ground.driver()
    await new.prepare()
    assert given(await ground.ask("tap0", discover())) == "10.77.0.5"
    assert await new.owners() == {OWNER}
    assert not await converge(new, SERVICE)


async def test_what_someone_changed_or_removed_by_hand_is_put_back_and_answered_meanwhile(ground: Ground) -> None:
    room = ground.driver()
    await converge(room, SERVICE)
    for disturb in (ground.spoil, ground.drop):
        disturb(OWNER)
        assert await room.observe(OWNER) is None
        assert given(await ground.ask("tap0", discover())) == "10.77.0.5"
        assert await room.owners() == {OWNER}
        assert await converge(room, SERVICE)
        assert await room.observe(OWNER) == SERVICE


async def test_an_interface_has_one_owner(ground: Ground) -> None:
    room = ground.driver()
    await converge(room, SERVICE)
    with pytest.raises(errors.Rejected) as refused:
        await room.apply(plan.Serve(Service(OTHER, (dataclasses.replace(OTHER_TAP, interface="tap0"),))))
    assert refused.value.cause is Cause.INTERFACE_TAKEN
    assert given(await ground.ask("tap0", discover())) == "10.77.0.5"
    assert await room.owners() == {OWNER}


@pytest.mark.parametrize(
    "wrong",
    [
        {"interface": "sixteen-letters-"},
        {"interface": ".."},
        {"mac": "02:00:00:00:00"},
        {"mtu": 67},
        {"addresses": ("10.77.0.300",)},
        {"addresses": ("10.77.0.5/32",)},
        {"dns_servers": tuple(f"10.0.0.{last}" for last in range(9))},
        {"search_domains": ("a..example",)},
        {"hostname": "w" * 64},
    ],
    ids=str,
)
async def test_what_no_packet_could_say_is_rejected(ground: Ground, wrong: dict[str, object]) -> None:
    room = ground.driver()
    with pytest.raises(errors.Rejected):
        await room.apply(plan.Serve(Service(OWNER, (dataclasses.replace(TAP, **wrong),))))  # type: ignore[arg-type]
    assert await room.owners() == frozenset()


@pytest.mark.parametrize("owner", ["", "../x", ".hidden", "a/b", "x" * 129])
async def test_an_owner_is_no_path(ground: Ground, owner: str) -> None:
    room = ground.driver()
    for work in (room.observe(owner), room.apply(plan.Serve(Service(owner, ()))), room.apply(plan.Silence(owner))):
        with pytest.raises(errors.Rejected):
            await work


async def test_a_watch_tells_whose_answers_were_touched(ground: Ground) -> None:
    room = ground.driver()
    async with hearing(room) as heard:
        for service in (SERVICE, OTHER_SERVICE):
            await converge(room, service, service.owner)
        await heard.of(OTHER)
        await asyncio.sleep(0.05)
        heard.clear()

        async def remove() -> None:
            ground.drop(OTHER)

        await heard.only(OTHER, remove)
        ground.spoil(OWNER)
        await heard.of(OWNER)


async def test_closing_twice_is_closing_once_and_a_closed_one_begins_anew(ground: Ground) -> None:
    room = ground.driver()
    await converge(room, SERVICE)
    for _ in range(2):
        await room.close()
    assert await room.observe(OWNER) == SERVICE
    assert given(await ground.ask("tap0", discover())) == "10.77.0.5"


async def test_a_host_that_may_not_hear_says_so_and_answers_once_it_may(ground: Ground) -> None:
    old = ground.driver()
    for service in (SERVICE, OTHER_SERVICE):
        await converge(old, service, service.owner)
    await old.close()
    room = ground.driver()
    with ground.deafened():
        # What only takes away needs no right to hear.
        assert await room.owners() == {OWNER, OTHER}
        await room.apply(plan.Silence(OTHER))
        for work in (room.prepare(), room.observe(OWNER), room.apply(plan.Serve(SERVICE))):
            with pytest.raises(errors.Unavailable) as refused:
                await work
            assert refused.value.cause is Cause.UNSUPPORTED
    assert await room.observe(OWNER) == SERVICE
    assert given(await ground.ask("tap0", discover())) == "10.77.0.5"
    assert await ground.ask("tap1", discover(OTHER_MAC)) is None
    assert await room.owners() == {OWNER}


async def test_a_simulated_step_fails_where_it_is_told_to() -> None:
    failure = errors.Unavailable(Cause.FAILED, "told to")
    room = simulated.Simulated(port.Settings("/dhcp", *GATEWAYS), fail_at=lambda step: failure)
    with pytest.raises(errors.Unavailable):
        await room.apply(plan.Serve(SERVICE))
    assert await room.owners() == frozenset()


@pytest.mark.lab
async def test_an_answer_leaves_by_its_own_tap_only_to_its_own_mac(kernel: PrivateNetwork) -> None:
    room = kernel.driver()
    await converge(room, SERVICE)
    await converge(room, OTHER_SERVICE, OTHER)
    answer = await kernel.ask("tap0", solicit_router())
    assert answer is not None
    assert answer[:6] == bytes.fromhex("020000000001")
    assert answer[6:12] == bytes.fromhex("eeeeeeeeeeee")
    other = kernel.wires["tap1"]
    while frame := await other.hear(NEVER):
        # Its own advertisement, which nobody asked for.
        assert frame[:6] == bytes.fromhex("020000000002")


@pytest.mark.lab
async def test_what_nobody_asked_for_is_advertised_at_once_and_again(kernel: PrivateNetwork) -> None:
    await converge(kernel.driver(advertise_every=0.5), SERVICE)
    wire = kernel.wires["tap0"]
    for _ in range(2):
        frame = await wire.hear(SOON)
        assert frame is not None
        assert frame[54] == 134


@pytest.mark.lab
async def test_a_guest_that_asks_without_end_keeps_nobody_waiting_and_is_heard_again(kernel: PrivateNetwork) -> None:
    room = kernel.driver()
    await converge(room, SERVICE)
    await converge(room, OTHER_SERVICE, OTHER)
    flood, begun = kernel.wires["tap0"], time.monotonic()
    answered, asked = 0, 0
    while time.monotonic() < begun + 0.8:
        for _ in range(100):
            flood.say(discover())
        asked += 100
        while await flood.answer(0.001):
            answered += 1
    assert given(await kernel.ask("tap1", discover(OTHER_MAC))) == "10.77.0.6"
    assert asked > 10 * answered
    assert sockets.AT_ONCE / 2 < answered <= sockets.AT_ONCE + sockets.A_SECOND
    while not await kernel.ask("tap0", discover()):
        assert time.monotonic() < begun + 2 * SOON


@pytest.mark.lab
async def test_nothing_that_is_malformed_ends_the_answering(kernel: PrivateNetwork) -> None:
    await converge(kernel.driver(), SERVICE)
    wire, whole = kernel.wires["tap0"], (discover(), solicit(), solicit_router())
    for frame in whole:
        for cut in range(14, len(frame), 13):
            wire.say(frame[:cut])
        await asyncio.sleep(0)
    assert given(await kernel.ask("tap0", discover())) == "10.77.0.5"


@pytest.mark.lab
async def test_two_sockets_serve_however_many_taps(kernel: PrivateNetwork) -> None:
    room = kernel.driver()
    answers = tuple(dataclasses.replace(TAP, interface=f"t{number}") for number in range(8))
    await converge(room, Service(OWNER, answers))
    await converge(room, OTHER_SERVICE, OTHER)
    opened = pathlib.Path("/proc/thread-self/net/packet").read_text().splitlines()[1:]
    # And one of each wire of this test's own.
    assert len(opened) - len(kernel.wires) == 2


@pytest.mark.lab
async def test_a_file_of_another_name_is_neither_read_nor_touched(kernel: PrivateNetwork) -> None:
    room = kernel.driver()
    await converge(room, SERVICE)
    foreign = kernel.folder / "README"
    foreign.write_text("mine")
    assert await room.owners() == {OWNER}
    await converge(room, None)
    await room.apply(plan.Silence("README"))
    assert foreign.read_text() == "mine"
    assert list(kernel.folder.iterdir()) == [foreign]
