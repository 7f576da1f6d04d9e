"""The real agent is killed at each kind of call that it makes to the outside: what the next one leaves is the same.

A verb is a row of `VERBS`. What calls it makes is found out by recording it; each kind is then struck, before and after
it takes effect, in one of the verbs that make it. With `CORRAL_TEST_CRASH=all` it is struck in each of them, at its
first and at its last call, and questions are struck too. Every single call is struck in tests/controller/test_crash.py,
with simulated hosts.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import hashlib
import json
import os
import pathlib
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from corral_lab.guest import serve
from corral_lab.host import programs
from corral_lab.lab import AGENT

from .cloud import TENANT, Cloud, Guest, Traces, until
from .conftest import remove

pytestmark = pytest.mark.lab

EVERYTHING = os.environ.get("CORRAL_TEST_CRASH") == "all"
PATIENCE = 90.0
_BELIEVED = 40
"""How many guests one controller removes in these tests before its guard would take it for an accident."""

_UNMET = 15.0
"""Seconds after which an agent that lives still will not make the call any more."""

_SOCKET = "/run/corral-doomed.sock"
_ROOT = pathlib.Path(__file__).parents[2]


class State(enum.Enum):
    """What a VirtualMachine is before and after a verb; the value is the reason of its Ready."""

    NOTHING = ""
    RUNNING = "Running"
    OFF = "Halted"


@dataclass(frozen=True, slots=True)
class Order:
    """Before or after the `number`-th call of a kind, as `doomed_agent` knows it; `record` is for what it calls."""

    kind: str = ""
    number: int = 1
    moment: str = "before"
    record: str = ""


class Range:
    """One lab whose agent dies to order, and the images that its guests may have."""

    def __init__(self, cloud: Cloud, argv: list[str], folder: pathlib.Path, url: str) -> None:
        self.cloud = cloud
        self.record = folder / "calls.json"
        self._argv = argv
        self._folder = folder
        self._url = url

    def offer(self, name: str) -> None:
        """An Image of this name, which no host has."""
        path = self._folder / f"{name}.qcow2"
        path.write_bytes((self._folder / "blank.qcow2").read_bytes() + secrets.token_bytes(16))
        self.cloud.image(name, f"{self._url}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest())

    def renew(self) -> None:
        """Have the process listen that gives agents their lives, and a controller that has seen nobody vanish yet."""
        self.cloud.lab.restart()
        # A new controller places guests once the hosts have told it what they run: while their agents live.
        self.cloud.apply("herald")
        self.cloud.up("herald", within=PATIENCE)
        remove(self.cloud, "herald")
        programs.start(self.cloud.host, AGENT, self._argv)
        until(self._listens, within=PATIENCE)

    def dies(self, order: Order) -> bool:
        """Have an agent killed there, and by nobody else; False where it never came so far."""
        connection = self._connect()
        assert connection is not None, "nobody listens"
        with connection, connection.makefile("rb") as answer:
            connection.sendall(json.dumps(dataclasses.asdict(order)).encode() + b"\n")
            is_over = bool(select.select([connection], [], [], _UNMET)[0])
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            assert json.loads(answer.readline()) == signal.SIGKILL, f"{order}: the agent ended by itself"
        return is_over

    @contextlib.contextmanager
    def lives(self, order: Order | None = None) -> Iterator[None]:
        """Meanwhile, an agent that nothing happens to."""
        connection = self._connect()
        assert connection is not None, "nobody listens"
        with connection, connection.makefile("rb") as answer:
            connection.sendall(json.dumps(dataclasses.asdict(order or Order())).encode() + b"\n")
            yield
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(PATIENCE)
            status = json.loads(answer.readline())
        assert status == (0 if order is not None and order.record else signal.SIGKILL), "the agent ended by itself"

    def is_heard(self) -> None:
        """See to it that the host counts as living: no guest is placed where all agents died for long enough."""
        host = f"hosts.corral.dev/{self.cloud.host.name}"
        ready = [one["status"] for one in self.cloud.api.get(host)["status"]["conditions"] if one["type"] == "Ready"]
        if ready != ["True"]:
            with self.lives():
                self.cloud.api.wait("condition=Ready", host, seconds=PATIENCE)

    def _listens(self) -> bool:
        connection = self._connect()
        if connection is not None:
            connection.close()
        return connection is not None

    def _connect(self) -> socket.socket | None:
        with contextlib.suppress(OSError):
            return programs.connect(self.cloud.host, _SOCKET, timeout=PATIENCE)
        return None


@dataclass(frozen=True, slots=True)
class Verb:
    """What somebody asks of a VirtualMachine by name."""

    name: str
    begins: State
    ends: State
    act: Callable[[Range, str], object]


def _create(at: Range, name: str, **spec: object) -> None:
    at.cloud.apply(name, **{"terminationGracePeriodSeconds": 1} | spec)


def _fetch(at: Range, name: str) -> None:
    at.offer(name)
    _create(at, name, imageRef={"kind": "Image", "name": name})


def _strategy(strategy: str) -> Callable[[Range, str], object]:
    return lambda at, name: at.cloud.apply_strategy(name, strategy)


VERBS = (
    Verb("create", State.NOTHING, State.RUNNING, _create),
    Verb("fetch", State.NOTHING, State.RUNNING, _fetch),
    Verb("restart", State.RUNNING, State.RUNNING, lambda *_: None),
    Verb("halt", State.RUNNING, State.OFF, _strategy("Halted")),
    Verb("start", State.OFF, State.RUNNING, _strategy("Always")),
    Verb("delete", State.RUNNING, State.NOTHING, lambda at, name: at.cloud.delete(name)),
)


class Story:
    """One guest, from nothing to nothing, through verbs in whose course agents die."""

    def __init__(self, at: Range, name: str) -> None:
        self._at = at
        self._cloud = at.cloud
        self.name = name
        self._guest: Guest | None = None
        self.has_died = False

    def run(self, verb: Verb, order: Order | None = None, record: str = "") -> Traces:
        """The verb, during which one agent dies as ordered, and what is there after the next has done the rest."""
        before = self._processes()
        if self._guest is None:
            self._at.is_heard()
        verb.act(self._at, self.name)
        if self._guest is None:
            until(lambda: "placement" in self._cloud.vm(self.name).get("status", {}), within=PATIENCE)
            self._guest = self._cloud.guest(self.name)
        self.has_died = order is not None and self._at.dies(order)
        between = self._processes()
        with self._at.lives(Order(record=record)):
            until(lambda: self._is(verb.ends), within=PATIENCE, every=0.2)
            until(lambda: len(self._processes()) == (verb.ends is State.RUNNING), within=PATIENCE)
        if verb.ends is State.RUNNING:
            assert {before, between} <= {frozenset(), self._processes()}, "a guest that ran was started anew"
        return self._alike(self._cloud.traces(self._guest))

    def _is(self, state: State) -> bool:
        if state is State.NOTHING:
            return not any(f".{self.name}." in one for one in self._cloud.instances())
        vm = self._cloud.vm(self.name)
        ready = [one["reason"] for one in vm["status"].get("conditions", []) if one["type"] == "Ready"]
        return ready == [state.value] and vm["status"]["observedGeneration"] == vm["metadata"]["generation"]

    def _processes(self) -> frozenset[int]:
        """The pids of the guest's QEMU."""
        return frozenset() if self._guest is None else frozenset(_qemus(self._cloud, self._guest.uid))

    def _alike(self, traces: Traces) -> Traces:
        """The traces with what differs from guest to guest under one name, and processes only counted."""
        assert self._guest is not None
        named = {self._guest.uid: "UID", self._guest.tap: "TAP", self._guest.address: "ADDRESS"}

        def common(lines: frozenset[str]) -> frozenset[str]:
            found = set()
            for line in lines:
                for word, name in named.items():
                    line = line.replace(word, name)  # noqa: PLW2901 - word by word
                found.add(" ".join(_FLEETING.sub("", line).split()))
            return frozenset(found)

        fields = {one.name: getattr(traces, one.name) for one in dataclasses.fields(traces)}
        processes = frozenset(range(len(fields.pop("processes"))))
        return Traces(processes=processes, **{name: common(lines) for name, lines in fields.items()})


def _qemus(cloud: Cloud, uid: str) -> Iterator[int]:
    for pid in cloud.host.processes():
        with contextlib.suppress(OSError):
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            if "qemu-system" in command and uid in command:
                yield pid


_FLEETING = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}|linkdown|UNKNOWN|UP|DOWN|<.*>")
"""What iproute2 says of a link that depends on how far the guest has booted, and its addresses."""


@pytest.fixture(scope="module")
def at(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """The lab with an agent that dies to order in place of its own, which is back afterwards."""
    folder = tmp_path_factory.mktemp("images")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "blank.qcow2"), "1M"], check=True)
    running = programs.find(cloud.host, AGENT)
    assert running is not None
    said = pathlib.Path(f"/proc/{running.pid}/cmdline").read_text().rstrip("\0").split("\0")
    options = said[said.index("run") + 1 :]
    environ = (f"TMPDIR={cloud.lab.folder.temporary}", f"PYTHONPATH={_ROOT}")
    argv = ["env", *environ, sys.executable, "-m", "tests.lab.doomed_agent", _SOCKET, *options]
    with serve.Server((cloud.address, 0), folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            made = Range(cloud, argv, folder, f"http://{cloud.address}:{server.server_address[1]}")
            yield made
        finally:
            cloud.lab.restart()
            server.shutdown()
            thread.join()


def test_death_at_each_kind_of_call_changes_nothing_of_the_end(at: Range) -> None:
    begun = time.monotonic()
    names: list[str] = []
    recorded: dict[Verb, list[str]] = {}
    wanted: dict[Verb, Traces] = {}
    met: collections.Counter[tuple[str, Order]] = collections.Counter()
    try:
        at.renew()
        for number, story in enumerate(_stories({verb: [Order()] for verb in VERBS})):
            guest = Story(at, f"calm-{number}")
            names.append(guest.name)
            for verb, _ in story:
                wanted[verb] = guest.run(verb, record=str(at.record))
                recorded[verb] = json.loads(at.record.read_text())
        empty = at.cloud.traces(), _folders(at.cloud)
        orders = _orders(recorded)
        for number, story in enumerate(_stories(orders), start=1):
            if number % _BELIEVED == 0:
                at.renew()
            guest = Story(at, f"crash-{number}")
            names.append(guest.name)
            for verb, order in story:
                assert guest.run(verb, order) == wanted[verb], f"{verb.name}: {order}"
                if order is not None:
                    met[verb.name, order] += guest.has_died
    finally:
        _print(met, time.monotonic() - begun)
        _clear(at, names)
    assert (at.cloud.traces(), _folders(at.cloud)) == empty
    struck = {order.kind for (_, order), count in met.items() if count}
    assert struck == {order.kind for some in orders.values() for order in some}


def _folders(cloud: Cloud) -> frozenset[str]:
    """Every folder of the agent's."""
    return frozenset(here for here, _, _ in os.walk(cloud.host.folder / "corral"))


def _clear(at: Range, names: list[str]) -> None:
    """Delete what a failure left, with an agent that lives, and the images."""
    listed = at.cloud.api.get("vm.corral.dev", "--namespace", TENANT)["items"]
    there = [one["metadata"]["name"] for one in listed if one["metadata"]["name"] in names]
    if there:
        with at.lives():
            remove(at.cloud, *there)
    if names:
        where = ("--namespace", TENANT, "--ignore-not-found")
        at.cloud.api.run("delete", *(f"image.corral.dev/{name}" for name in names), *where)


def _print(met: collections.Counter[tuple[str, Order]], seconds: float) -> None:
    for (verb, order), count in sorted(met.items(), key=str):
        what = f"{order.moment} {order.kind}" + (f" ({order.number})" if order.number > 1 else "")
        print(f"{verb:<10}{what:<60}{'' if count else 'was not met'}")  # noqa: T201 - figures, shown with -rP
    print(f"{met.total()} deaths of {len(met)} in {seconds:.0f} s")  # noqa: T201


def _orders(recorded: Mapping[Verb, list[str]]) -> dict[Verb, list[Order]]:
    """Which deaths to die in the course of each verb."""
    orders: dict[Verb, list[Order]] = {verb: [] for verb in recorded}
    if EVERYTHING:
        for verb, calls in recorded.items():
            orders[verb] += [order for kind, count in collections.Counter(calls).items() for order in _all(kind, count)]
        return orders
    made = dict.fromkeys(kind for calls in recorded.values() for kind in calls)
    kinds = [kind for kind in made if not kind.startswith(_ASKS) and kind not in _BY_THE_CLOCK]
    # Who is made by few verbs has the first choice of whose least tried one is.
    for kind in sorted(kinds, key=lambda kind: sum(kind in calls for calls in recorded.values())):
        verb = min((verb for verb in recorded if kind in recorded[verb]), key=lambda verb: len(orders[verb]))
        orders[verb] += [Order(kind, moment=moment) for moment in ("before", "after")]
    return orders


_ASKS = "? "
_BY_THE_CLOCK = {"PATCH hoststates/status"}
"""What one agent does in a verb and the next does not, because of when it began."""


def _all(kind: str, count: int) -> list[Order]:
    if kind.startswith(_ASKS):
        return [Order(kind.removeprefix(_ASKS))]
    return [Order(kind, number, moment) for number in sorted({1, count}) for moment in ("before", "after")]


def _stories(orders: Mapping[Verb, list[Order]]) -> Iterator[list[tuple[Verb, Order | None]]]:
    """All orders, each in the course of its verb, as ways of guests from nothing to nothing."""
    left = {verb: list(some) for verb, some in orders.items()}
    while any(left.values()):
        story: list[tuple[Verb, Order | None]] = []
        state = State.NOTHING
        while not story or state is not State.NOTHING:
            waits = [verb for verb in VERBS if left[verb] and all(verb is not past for past, order in story if order)]
            verb = next((verb for verb in waits if verb.begins is state), None)
            if verb is None:
                verb = _way(state, {one.begins for one in waits} - {State.NOTHING} or {State.NOTHING})
                story.append((verb, None))
            else:
                story.append((verb, left[verb].pop(0)))
            state = verb.ends
        yield story


def _way(state: State, wanted: set[State]) -> Verb:
    """The first verb of a shortest way from this state to one of those."""
    ways = [[verb] for verb in VERBS if verb.begins is state is not verb.ends]
    for way in ways:
        if way[-1].ends in wanted:
            return way[0]
        ways += [[*way, verb] for verb in VERBS if verb.begins is way[-1].ends and verb not in way]
    raise AssertionError(f"no verb leads from {state} to {wanted}")
