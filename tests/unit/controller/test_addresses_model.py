"""Never one address twice: two controllers at once that see late and die anywhere, and a backup that is put back.

The controllers are the real ones, pass by pass and request by request; the API server and the hosts are models. Time
goes on only while no pass is older than a lease: that is what the fence sees to.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Coroutine
from typing import Any

import hypothesis
import pytest
import structlog
from hypothesis import stateful
from hypothesis import strategies as st

from corral import allocate, kube
from corral.controller import claim, process, world

from .small_server import Line, Server, finished

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
HOSTS = ("h1", "h2")
NAMES = tuple(f"vm-{number}" for number in range(5))
FOUR = "10.7.0.0/29"
"""Six addresses in blocks of four: two for each host, less the first and the last."""

ASKED = ("10.7.0.2", "10.7.0.5", "fd77::3")
WHO = st.integers(0, 1)
NAME = st.sampled_from(NAMES)


class Controller:
    """One that believes it leads; its pass is driven from outside, and it may die at any request."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server, self.clock = server, clock
        self.line = Line(server)
        server.lines.append(self.line)
        self.keys: dict[kube.Key, None] = {}
        self.work: Coroutine[Any, Any, float | None] | None = None
        self.world = process.make_world(
            self.line, now=clock, roll_call_within=math.inf, block_idle_for=120.0, silent_after=math.inf
        )
        self.world.clock = lambda: NOW
        self.world.tell = lambda key, _after: self.keys.__setitem__(key, None)
        finished(process.fill(self.world))
        self.line.events.clear()
        self.line.gated = True

    def die(self) -> None:
        """In the middle of whatever it does."""
        if self.work is not None:
            self.work.close()
        self.server.lines.remove(self.line)

    def begin(self, key: kube.Key) -> None:
        """Begin a pass, unless one is under way."""
        if self.work is None:
            self.keys.pop(key, None)
            self.work = process.reconcile(self.world, key)
            self.step()

    def step(self) -> None:
        """Go on to the next request, or to hear its answer."""
        if self.work is None:
            return
        try:
            self.work.send(None)
        except (StopIteration, kube.ApiError):
            self.work = None

    def finish(self) -> None:
        """Go on to the end of the pass."""
        while self.work is not None:
            self.step()

    def hear(self, number: int) -> None:
        """What the watches tell next."""
        for _ in range(min(number, len(self.line.events))):
            event, key, obj = self.line.events.popleft()
            if key[0] in _WATCHED:
                process.deliver(self.world, _WATCHED[key[0]], event, obj)


_WATCHED = {where.plural: where for where in process.COLLECTIONS}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Cloud(stateful.RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        self.server, self.clock = Server(), Clock()
        self.guests: dict[str, dict[str, tuple[str, int, tuple[tuple[str, str], ...]]]] = {name: {} for name in HOSTS}
        """What runs on each host: by uid its name, epoch, and addresses by interface."""
        self.kept = None
        self._furnish()
        self.server.made = self._made
        self.controllers = [Controller(self.server, self.clock) for _ in range(2)]
        for who in (0, 1):
            self.call_the_roll(who)

    def _furnish(self) -> None:
        image = {"source": {"url": "http://images.test/x", "sha256": "a" * 64}, "format": "qcow2"}
        pool = {"prefixes": [FOUR, "fd77::/125"], "blockSize": {"ipv4": 30, "ipv6": 126}}
        self._make(world.CLOUDS, "cloud", {"deletionGuard": {"floor": 1_000_000}})
        self._make(world.CLUSTER_IMAGES, "debian", image)
        self._make(world.POOLS, "pool", pool)
        self._make(world.CLUSTER_NETWORKS, "default", {"poolRefs": [{"name": "pool"}]})
        for name in HOSTS:
            self._make(world.HOSTS, name, {"hypervisor": {"driver": "simulated"}, "reserved": {"memory": "0"}})
            lease = {"name": "corral-agent", "namespace": f"corral-host-{name}", "labels": {"corral.dev/agent": name}}
            spec = {"renewTime": "2026-01-31T12:00:00Z"}
            self.server.serve("POST", kube.LEASES.path(lease["namespace"]), {"metadata": lease, "spec": spec})

    def _make(self, where: kube.Collection, name: str, spec: kube.Object, namespace: str | None = None) -> None:
        metadata = {"name": name} | ({} if namespace is None else {"namespace": namespace})
        self.server.serve("POST", where.path(namespace), {"metadata": metadata, "spec": spec})

    # What must hold.

    def _made(self, key: tuple[str, str, str], obj: kube.Object) -> None:
        if key[0] == world.INSTANCES.plural:
            taken = self._taken(but=obj["spec"]["owner"]["uid"])
            for nic in obj["spec"]["interfaces"]:
                assert [address for address in nic["addresses"] if address in taken] == [], (key, taken)
        if key[0] == world.BLOCKS.plural:
            assert key[2] == allocate.block_name(obj["spec"]["prefix"])
            announced = {
                prefix: state["metadata"]["name"]
                for state in self.server.of(world.HOST_STATES.plural)
                for prefix in state["spec"].get("blocks", ())
            }
            if self.kept is None:
                assert announced.get(obj["spec"]["prefix"], obj["spec"]["host"]) == obj["spec"]["host"]

    def _taken(self, but: str) -> dict[str, str]:
        """Who uses which address: by an Instance, or by a guest that runs whatever the API says."""
        taken = {}
        for obj in self.server.of(world.INSTANCES.plural):
            for nic in obj["spec"]["interfaces"]:
                taken |= dict.fromkeys(nic["addresses"], obj["spec"]["owner"]["uid"])
        for running in self.guests.values():
            for uid, (_, _, addresses) in running.items():
                taken |= {address: uid for _, address in addresses}
        return {address: uid for address, uid in taken.items() if uid != but}

    @stateful.invariant()
    def a_guest_has_an_address_of_each_family_that_the_ledger_says_is_its(self) -> None:
        if self.kept is not None:
            return
        ledger = {obj["spec"]["address"]: obj["spec"]["owner"]["uid"] for obj in self.server.of("ipallocations")}
        for obj in self.server.of(world.INSTANCES.plural):
            (nic,) = obj["spec"]["interfaces"]
            assert sorted(map(allocate.version, nic["addresses"])) == [4, 6]
            assert {ledger.get(address) for address in nic["addresses"]} == {obj["spec"]["owner"]["uid"]}

    # What tenants do.

    @stateful.rule(name=NAME, asks=st.one_of(st.none(), st.sampled_from(ASKED)))
    def create(self, name: str, asks: str | None) -> None:
        nic = {"networkRef": {"name": "default"}} | ({} if asks is None else {"addresses": [asks]})
        spec = {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "debian"}, "networks": [nic]}
        self._make(world.VMS, name, spec, "shop")

    @stateful.rule(name=NAME)
    def delete(self, name: str) -> None:
        self.server.serve("DELETE", world.VMS.path("shop", name), None)

    # What controllers do.

    @stateful.rule(who=WHO, name=NAME)
    def begin(self, who: int, name: str) -> None:
        self.controllers[who].hear(1000)
        self.controllers[who].begin(kube.Key(world.VMS.plural, "shop", name))

    @stateful.rule(who=WHO, name=NAME)
    def converge(self, who: int, name: str) -> None:
        self.controllers[who].finish()
        self.controllers[who].begin(kube.Key(world.VMS.plural, "shop", name))
        self.controllers[who].finish()

    @stateful.rule(who=WHO, times=st.integers(1, 6))
    def step(self, who: int, times: int) -> None:
        for _ in range(times):
            self.controllers[who].step()

    @stateful.rule(who=WHO)
    def hear(self, who: int, number: int = 1000) -> None:
        self.controllers[who].hear(number)

    @stateful.rule(names=st.permutations(NAMES), order=st.lists(WHO, min_size=4, max_size=40))
    def race(self, names: list[str], order: list[int]) -> None:
        """Each controller is about a machine of its own, and neither hears of the other."""
        for who in (0, 1):
            self.create(names[who], None)
            self.controllers[who].finish()
            self.controllers[who].hear(1000)
        for who in order:
            if self.controllers[who].work is None:
                self.controllers[who].begin(kube.Key(world.VMS.plural, "shop", names[who]))
            self.controllers[who].step()

    @stateful.rule(who=WHO)
    def settle(self, who: int) -> None:
        """One controller and the hosts do all that there is to do."""
        for _ in range(2):
            self.controllers[who].hear(1000)
            self.do_what_was_told(who)
            for name in HOSTS:
                self.run_guests(name)

    @stateful.rule(who=WHO, host_too=st.booleans())
    def later(self, who: int, host_too: bool) -> None:
        """What rested rests no more; perhaps a host has been asleep meanwhile."""
        self.time_passes(61.0)
        for _ in range(2):
            for name in NAMES:
                self.converge(who, name)
            if host_too:
                self.settle(who)
            self.time_passes(61.0)

    @stateful.rule(who=WHO)
    def do_what_was_told(self, who: int) -> None:
        controller = self.controllers[who]
        controller.finish()
        for key in list(controller.keys):
            controller.begin(key)
            controller.finish()

    @stateful.rule(who=WHO)
    def look_at_blocks(self, who: int) -> None:
        controller = self.controllers[who]
        controller.finish()
        for obj in self.server.of(world.BLOCKS.plural):
            controller.begin(kube.key_of(world.BLOCKS, obj))
            controller.finish()

    @stateful.rule(who=WHO)
    def die(self, who: int) -> None:
        self.controllers[who].die()
        self.controllers[who] = Controller(self.server, self.clock)

    @stateful.rule(who=WHO)
    def call_the_roll(self, who: int) -> None:
        """Have it over, so that something is placed."""
        controller = self.controllers[who]
        controller.finish()
        for _ in range(2):
            controller.world.roll_call.ask()
            for name in HOSTS:
                controller.begin(kube.Key(world.HOSTS.plural, "", name))
                controller.finish()
                self.report(name)
            controller.hear(1000)
            # Another controller asks with a value of its own, and then nobody has answered this one.
            claim.awaited(controller.world)

    @stateful.rule(seconds=st.sampled_from([20.0, 61.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        """Whoever is in the middle of something has lost the lead by then, and writes no more."""
        for who, controller in enumerate(self.controllers):
            if controller.work is not None:
                self.die(who)
        self.clock.now += seconds

    # What hosts do.

    @stateful.rule(name=st.sampled_from(HOSTS))
    def run_guests(self, name: str) -> None:
        for obj in self.server.of(world.INSTANCES.plural):
            if obj["metadata"]["namespace"] != f"corral-host-{name}":
                continue
            owner = obj["spec"]["owner"]
            path = world.INSTANCES.path(obj["metadata"]["namespace"], obj["metadata"]["name"])
            if "deletionTimestamp" in obj["metadata"]:
                self.guests[name].pop(owner["uid"], None)
                self.server.serve("PATCH", path, {"metadata": {"finalizers": []}})
                continue
            addresses = tuple((nic["name"], one) for nic in obj["spec"]["interfaces"] for one in nic["addresses"])
            self.guests[name][owner["uid"]] = (f"shop/{owner['name']}", obj["spec"]["epoch"], addresses)
            status = {"observedGeneration": obj["metadata"]["generation"]}
            self.server.serve("PATCH", f"{path}/status", {"status": status})

    @stateful.rule(name=st.sampled_from(HOSTS))
    def report(self, name: str) -> None:
        """The HostState's status, as of this moment: with every guest of which no Instance tells."""
        path = world.HOST_STATES.path(f"corral-host-{name}", name)
        code, state = self.server.serve("GET", path, None)
        if code != 200:
            return
        known = {obj["spec"]["owner"]["uid"] for obj in self.server.of(world.INSTANCES.plural)}
        orphans = [
            {
                "uid": uid,
                "name": called,
                "kinds": ["domain"],
                "epoch": epoch,
                "addresses": [{"interface": nic, "address": address} for nic, address in addresses],
            }
            for uid, (called, epoch, addresses) in self.guests[name].items()
            if uid not in known
        ]
        status = {
            "observedGeneration": state["metadata"]["generation"],
            "capacity": {"cpu": 64, "memory": "64Gi"},
            "orphans": orphans,
            "orphanCount": len(orphans),
            "conditions": [
                {
                    "type": "HypervisorReady",
                    "status": "True",
                    "reason": "Answering",
                    "message": "",
                    "lastTransitionTime": "2026-01-31T12:00:00Z",
                    "observedGeneration": 1,
                }
            ],
        }
        self.server.serve("PATCH", f"{path}/status", {"status": status})

    # What happens to etcd.

    backups = stateful.Bundle("backups")

    @stateful.rule(target=backups)
    def backup(self) -> Any:
        return self.server.backup()

    @stateful.rule(kept=backups, name=NAME)
    def restore_and_create(self, kept: Any, name: str) -> None:
        """Somebody is quick."""
        self.restore(kept)
        self.create(name, None)
        for who in (0, 1):
            self.hear(who)
            self.converge(who, name)

    @stateful.rule(kept=backups)
    def restore(self, kept: Any) -> None:
        """The API is as it was; what runs on hosts runs on."""
        for controller in self.controllers:
            controller.die()
        self.kept = kept
        self.server.restore(kept)
        self.controllers = [Controller(self.server, self.clock) for _ in range(2)]


TestCloud = Cloud.TestCase
TestCloud.settings = hypothesis.settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def running(cloud: Cloud) -> dict[str, set[str]]:
    """The addresses of each guest that runs, by its name."""
    guests = [guest for host in cloud.guests.values() for guest in host.values()]
    assert len({name for name, _, _ in guests}) == len(guests)
    return {name.removeprefix("shop/"): {one for _, one in addresses} for name, _, addresses in guests}


def test_the_model_gets_guests_to_run_and_gives_their_addresses_again(cloud: Cloud) -> None:
    """That nothing is ever given twice means little of a cloud that gives nothing."""
    for name in NAMES[:3]:
        cloud.create(name, None)
    cloud.settle(0)
    assert set(running(cloud)) == set(NAMES[:3])
    cloud.delete(NAMES[0])
    cloud.settle(0)
    assert set(running(cloud)) == set(NAMES[1:3])
    assert len(cloud.server.of(world.ALLOCATIONS.plural)) == 6, "they rest"
    cloud.time_passes(61.0)
    cloud.converge(0, NAMES[0])
    assert len(cloud.server.of(world.ALLOCATIONS.plural)) == 4


def test_two_that_choose_the_same_address_at_once_do_not_both_get_it(cloud: Cloud) -> None:
    cloud.race([*NAMES], [0, 1] * 20)
    for who in (0, 1):
        cloud.settle(who)
    first, second = (running(cloud)[name] for name in NAMES[:2])
    assert not first & second


def test_an_address_is_not_free_while_its_instance_is_there_however_long(cloud: Cloud) -> None:
    cloud.create(NAMES[0], None)
    cloud.settle(0)
    (had,) = running(cloud).values()
    cloud.delete(NAMES[0])
    cloud.hear(0)
    for _ in range(3):
        cloud.time_passes(61.0)
        cloud.converge(0, NAMES[0])
    for name in NAMES[1:]:
        cloud.create(name, None)
        cloud.hear(0)
        cloud.converge(0, name)
    for name in HOSTS:
        cloud.run_guests(name)
    assert set(running(cloud)) == set(NAMES[1:])
    assert not set().union(*running(cloud).values()) & had


def test_a_pass_that_goes_on_late_finds_its_addresses_resting(cloud: Cloud) -> None:
    """The lead went over in the middle of it, and its machine is gone: the rest keeps its addresses from others."""
    cloud.create(NAMES[0], None)
    cloud.hear(0)
    cloud.controllers[0].begin(kube.Key(world.VMS.plural, "shop", NAMES[0]))
    while len(cloud.server.of(world.ALLOCATIONS.plural)) < 2:
        cloud.controllers[0].step()
    had = {obj["spec"]["address"] for obj in cloud.server.of(world.ALLOCATIONS.plural)}
    cloud.delete(NAMES[0])
    cloud.hear(1)
    cloud.converge(1, NAMES[0])
    cloud.create(NAMES[1], None)
    cloud.hear(1)
    cloud.converge(1, NAMES[1])
    cloud.controllers[0].finish()
    cloud.settle(0)
    for name in HOSTS:
        cloud.run_guests(name)
    assert not running(cloud)[NAMES[1]] & had


def test_what_a_lost_guest_runs_with_is_given_to_nobody_after_a_backup_was_put_back(cloud: Cloud) -> None:
    kept = cloud.server.backup()
    cloud.create(NAMES[0], None)
    cloud.settle(0)
    (had,) = running(cloud).values()
    cloud.restore(kept)
    cloud.create(NAMES[1], None)
    cloud.hear(0)
    cloud.converge(0, NAMES[1])
    assert cloud.server.of(world.INSTANCES.plural) == [], "nobody has said yet what runs"
    cloud.call_the_roll(0)
    cloud.converge(0, NAMES[1])
    cloud.settle(0)
    assert running(cloud)[NAMES[0]] == had
    assert not running(cloud)[NAMES[1]] & had


def test_a_record_of_a_backup_is_older_than_the_guest_that_was_given_its_address_since(cloud: Cloud) -> None:
    cloud.create(NAMES[0], None)
    cloud.hear(0)
    cloud.controllers[0].begin(kube.Key(world.VMS.plural, "shop", NAMES[0]))
    while not cloud.server.of(world.ALLOCATIONS.plural):
        cloud.controllers[0].step()
    kept = cloud.server.backup()
    cloud.controllers[0].finish()
    cloud.delete(NAMES[0])
    cloud.settle(0)
    cloud.later(0, host_too=True)
    cloud.create(NAMES[1], None)
    cloud.settle(0)
    had = running(cloud)[NAMES[1]]
    cloud.restore(kept)
    (record,) = [vm["status"]["placement"]["addresses"] for vm in cloud.server.of(world.VMS.plural)]
    assert {one["address"] for one in record} & had, "else it shows nothing"
    cloud.call_the_roll(0)
    cloud.converge(0, NAMES[0])
    cloud.settle(0)
    assert running(cloud)[NAMES[1]] == had
    assert not running(cloud)[NAMES[0]] & had


def test_an_empty_block_is_returned_and_its_host_has_let_go_of_it_before(cloud: Cloud) -> None:
    cloud.create(NAMES[0], None)
    cloud.settle(0)
    cloud.delete(NAMES[0])
    cloud.settle(0)
    cloud.later(0, host_too=True)
    assert len(cloud.server.of(world.BLOCKS.plural)) == 2
    cloud.look_at_blocks(0)
    cloud.time_passes(200.0)
    cloud.look_at_blocks(0)
    for name in HOSTS:
        cloud.controllers[0].begin(kube.Key(world.HOSTS.plural, "", name))
        cloud.controllers[0].finish()
    assert all(state["spec"]["blocks"] == [] for state in cloud.server.of(world.HOST_STATES.plural))
    cloud.look_at_blocks(0)
    assert len(cloud.server.of(world.BLOCKS.plural)) == 2, "its agent has not answered"
    for name in HOSTS:
        cloud.report(name)
    cloud.hear(0)
    cloud.look_at_blocks(0)
    assert cloud.server.of(world.BLOCKS.plural) == []
