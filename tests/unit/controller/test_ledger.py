from __future__ import annotations

import copy

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from corral import kube, store
from corral.allocate import space
from corral.controller import ledger, world
from corral.place import costs

from .things import a_machine, an_allocation, an_instance

HOSTS = ("h1", "h2")
UIDS = ("u1", "u2", "u3")
ADDRESSES = ("10.7.0.1", "10.7.0.2", "10.7.0.3")
EPOCHS = (1, 2)
UID, EPOCH, HOST = st.sampled_from(UIDS), st.sampled_from(EPOCHS), st.sampled_from(HOSTS)


def begun() -> tuple[store.Store, ledger.Ledger]:
    known = store.Store()
    return known, ledger.Ledger(
        known,
        space.Space(),
        machines="virtualmachines",
        instances="instances",
        allocations="ipallocations",
        host_prefix="corral-host-",
    )


def charge(host: str, memory: int) -> ledger.Charge:
    """What a guest of one CPU and so much memory takes."""
    return ledger.Charge(host, costs.cost(1, memory, cpu_overcommit=8))


def gone(known: store.Store, where: kube.Collection, obj: kube.Object) -> None:
    known.settle(where, kube.key_of(where, obj), None)


class Bookkeeping(stateful.RuleBasedStateMachine):
    """Claims and what becomes of them, in any order, against a count from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.ledger = begun()
        self.instances: dict[tuple[str, int], tuple[kube.Object, ledger.Charge]] = {}
        self.allocations: dict[str, tuple[kube.Object, str]] = {}
        self.reserved: dict[str, tuple[int, ledger.Charge, tuple[str, ...]]] = {}
        self.known_taken = {host: ledger.Taken() for host in HOSTS}
        self.told: set[str] = set()
        self.claims: dict[str, str | None] = {}
        self.ledger.listen(self.told.add, self.claims.__setitem__)

    @stateful.rule(
        uid=UID, epoch=EPOCH, host=HOST, memory=st.integers(1, 9), addresses=st.sets(st.sampled_from(ADDRESSES))
    )
    def reserve(self, uid: str, epoch: int, host: str, memory: int, addresses: set[str]) -> None:
        free = tuple(sorted(one for one in addresses if self.ledger.holder(one) in (None, uid)))
        self.ledger.reserve(uid, epoch, charge(host, memory), free)
        self.reserved[uid] = (epoch, charge(host, memory), free)

    @stateful.rule(uid=UID)
    def release(self, uid: str) -> None:
        self.ledger.release(uid)
        self.reserved.pop(uid, None)

    @stateful.rule(uid=UID, epoch=EPOCH, host=HOST, memory=st.integers(1, 9))
    def write_instance(self, uid: str, epoch: int, host: str, memory: int) -> None:
        if (uid, epoch) in self.instances:
            host = self.instances[uid, epoch][1].host  # its namespace never changes
        obj = an_instance(uid, host=host, epoch=epoch, memory=memory, own_uid=f"i-{uid}-{epoch}")
        obj["metadata"]["uid"] += obj["metadata"]["resourceVersion"] if (uid, epoch) not in self.instances else ""
        if (uid, epoch) in self.instances:
            obj["metadata"]["uid"] = self.instances[uid, epoch][0]["metadata"]["uid"]
        assert self.known.put(world.INSTANCES, obj)
        self.instances[uid, epoch] = (obj, charge(host, memory))

    @stateful.rule(uid=UID, epoch=EPOCH)
    def lose_instance(self, uid: str, epoch: int) -> None:
        if (uid, epoch) in self.instances:
            gone(self.known, world.INSTANCES, self.instances.pop((uid, epoch))[0])

    @stateful.rule(uid=UID, address=st.sampled_from(ADDRESSES))
    def allocate(self, uid: str, address: str) -> None:
        if address not in self.allocations:
            obj = an_allocation(uid, address)
            obj["metadata"]["uid"] += obj["metadata"]["resourceVersion"]
            assert self.known.put(world.ALLOCATIONS, obj)
            self.allocations[address] = (obj, uid)

    @stateful.rule(address=st.sampled_from(ADDRESSES))
    def free(self, address: str) -> None:
        if address in self.allocations:
            gone(self.known, world.ALLOCATIONS, self.allocations.pop(address)[0])

    @stateful.invariant()
    def memory_is_counted_once(self) -> None:
        charges = {key: taken for key, (_, taken) in self.instances.items()}
        for uid, (epoch, taken, _) in self.reserved.items():
            charges.setdefault((uid, epoch), taken)
        # A reservation whose Instance came and went is over in all but name: it counts as nothing or as itself.
        for host in HOSTS:
            least = sum(taken.cost.memory for _, taken in self.instances.values() if taken.host == host)
            most = sum(taken.cost.memory for taken in charges.values() if taken.host == host)
            assert least <= self.ledger.taken(host).memory <= most

    @stateful.invariant()
    def who_listens_knows_every_host_that_changed(self) -> None:
        now = {host: copy.copy(self.ledger.taken(host)) for host in HOSTS}
        changed = {host for host in HOSTS if now[host] != self.known_taken[host]}
        assert changed <= self.told
        self.known_taken = now
        self.told.clear()

    @stateful.invariant()
    def who_listens_knows_every_claim(self) -> None:
        claims = {uid: host for uid, host in self.claims.items() if host is not None}
        assert claims == {uid: taken.host for uid, (_, taken, _) in self.reserved.items()}

    @stateful.invariant()
    def addresses_have_one_holder(self) -> None:
        for address in ADDRESSES:
            holder = self.ledger.holder(address)
            if address in self.allocations:
                assert holder == self.allocations[address][1]
            else:
                claims = {uid for uid, (_, _, addresses) in self.reserved.items() if address in addresses}
                assert holder in claims if claims else holder is None

    def teardown(self) -> None:
        for uid in list(self.reserved):
            self.release(uid)
        for host in HOSTS:
            stored = ledger.Taken()
            for _, taken in self.instances.values():
                if taken.host == host:
                    stored.add(taken.cost, 1)
            assert self.ledger.taken(host) == stored
        for uid, epoch in list(self.instances):
            self.lose_instance(uid, epoch)
        for address in list(self.allocations):
            self.free(address)
        assert [self.ledger.taken(host) for host in HOSTS] == [ledger.Taken(), ledger.Taken()]
        assert [self.ledger.holder(address) for address in ADDRESSES] == [None, None, None]


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = hypothesis.settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_claim_becomes_an_instance_and_is_counted_once() -> None:
    known, book = begun()
    book.reserve("u1", 1, charge("h1", 100), ("10.7.0.1",))
    assert (book.taken("h1").guests, book.holder("10.7.0.1")) == (1, "u1")
    known.put(world.ALLOCATIONS, an_allocation("u1", "10.7.0.1"))
    known.put(world.INSTANCES, an_instance("u1", memory=100))
    assert book.taken("h1").guests == 1
    book.release("u1")
    assert (book.taken("h1").guests, book.holder("10.7.0.1")) == (1, "u1")


def test_a_claim_that_failed_leaves_nothing() -> None:
    _, book = begun()
    book.reserve("u1", 1, charge("h1", 100), ("10.7.0.1",))
    book.release("u1")
    book.release("u1")
    assert (book.taken("h1").guests, book.holder("10.7.0.1")) == (0, None)


def test_a_claim_of_a_machine_that_vanished_is_over() -> None:
    known, book = begun()
    vm = a_machine("web", uid="u1")
    known.put(world.VMS, vm)
    book.reserve("u1", 1, charge("h1", 100), ("10.7.0.1",))
    gone(known, world.VMS, vm)
    assert (book.taken("h1").guests, book.holder("10.7.0.1")) == (0, None)


def test_one_machine_that_ends_a_claim_leaves_the_others_addresses() -> None:
    _, book = begun()
    book.reserve("u1", 1, charge("h1", 100), ("10.7.0.1",))
    book.reserve("u2", 1, charge("h1", 100), ("10.7.0.1",))
    book.release("u1")
    assert book.holder("10.7.0.1") == "u2"


def test_what_a_class_promises_more_than_once_is_counted_in_part() -> None:
    known, book = begun()
    obj = an_instance("u1", memory=400 << 20)
    obj["spec"] |= {"cpu": 4, "overcommit": {"cpu": 4, "memoryPercent": 200}}
    known.put(world.INSTANCES, obj)
    assert book.taken("h1").of_all() == costs.cost(4, 400 << 20, cpu_overcommit=4, memory_percent=200)
    assert (book.taken("h1").cpu, book.taken("h1").virtual_cpus) == (1000, 4)
