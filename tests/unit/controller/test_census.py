from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from corral import kube, place, store
from corral.allocate import space as spaces
from corral.api.v1alpha1 import placement
from corral.controller import census, ledger, world
from corral.place import costs, rules

from .things import made

HOSTS, NAMES, SPACES = ("h1", "h2", "h3"), ("a", "b", "c"), ("shop", "bank")
COST = costs.cost(1, 1)

SELECTORS: list[dict[str, Any]] = [
    {},
    {"matchLabels": {"app": "web"}},
    {"matchLabels": {"app": "web", "tier": "1"}},
    {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]},
    {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
]
TERMS = st.builds(
    lambda selector, key: {"labelSelector": selector, "topologyKey": key},
    st.sampled_from(SELECTORS),
    st.sampled_from([placement.HOST, placement.ZONE]),
)
PLACEMENTS = st.none() | st.builds(
    lambda near, far, wished: {"affinity": {"required": near, "preferred": wished}, "antiAffinity": {"required": far}},
    st.lists(TERMS, max_size=1),
    st.lists(TERMS, max_size=2),
    st.lists(TERMS, max_size=1),
)
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["web", "db", "1"]))


def begun() -> tuple[store.Store, ledger.Ledger, census.Census]:
    known = store.Store()
    book = ledger.Ledger(
        known,
        spaces.Space(),
        machines="virtualmachines",
        instances="instances",
        allocations="ipallocations",
        host_prefix="corral-host-",
    )
    return known, book, census.Census(known, book, machines="virtualmachines")


def a_machine(
    name: str, host: str | None = None, *, namespace: str = "shop", uid: str = "", **rest: Any
) -> kube.Object:
    asked = rest.pop("placement", None)
    return made(
        world.VMS,
        name,
        namespace=namespace,
        uid=uid or f"{namespace}-{name}",
        metadata={"labels": rest.pop("labels", {})},
        spec={} if asked is None else {"placement": asked},
        status={} if host is None else {"placement": {"host": host, "epoch": 1}},
    )


def read(obj: kube.Object) -> rules.Rules:
    asked = obj["spec"].get("placement")
    return rules.ANY if asked is None else rules.rules(placement.PlacementRules.model_validate(asked))


class Counting(stateful.RuleBasedStateMachine):
    """VirtualMachines that come, change, are claimed and go, in any order, against a count from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.book, self.census = begun()
        self.machines: dict[tuple[str, str], kube.Object] = {}
        self.claims: dict[str, str] = {}
        self.lives = 0

    @stateful.rule(
        namespace=st.sampled_from(SPACES),
        name=st.sampled_from(NAMES),
        labels=LABELS,
        asked=PLACEMENTS,
        host=st.none() | st.sampled_from(HOSTS),
    )
    def write(self, namespace: str, name: str, labels: dict[str, str], asked: Any, host: str | None) -> None:
        seen = self.machines.get((namespace, name))
        self.lives += seen is None
        uid = f"u{self.lives}" if seen is None else seen["metadata"]["uid"]
        obj = a_machine(name, host, namespace=namespace, uid=uid, labels=labels, placement=asked)
        assert self.known.put(world.VMS, obj)
        self.machines[namespace, name] = obj

    @stateful.rule(which=st.sampled_from([(space, name) for space in SPACES for name in NAMES]))
    def lose(self, which: tuple[str, str]) -> None:
        obj = self.machines.pop(which, None)
        if obj is not None:
            self.known.settle(world.VMS, kube.key_of(world.VMS, obj), None)
            self.claims.pop(obj["metadata"]["uid"], None)

    @stateful.rule(
        which=st.sampled_from([(space, name) for space in SPACES for name in NAMES]), host=st.sampled_from(HOSTS)
    )
    def claim(self, which: tuple[str, str], host: str) -> None:
        if which in self.machines:
            uid = self.machines[which]["metadata"]["uid"]
            self.book.reserve(uid, 1, ledger.Charge(host, COST), ())
            self.claims[uid] = host

    @stateful.rule(which=st.sampled_from([(space, name) for space in SPACES for name in NAMES]))
    def end_claim(self, which: tuple[str, str]) -> None:
        if which in self.machines:
            uid = self.machines[which]["metadata"]["uid"]
            self.book.release(uid)
            self.claims.pop(uid, None)

    def _others(self, namespace: str, uid: str) -> list[tuple[kube.Object, str]]:
        found = []
        for (space, _), obj in self.machines.items():
            where = self.claims.get(obj["metadata"]["uid"]) or obj["status"].get("placement", {}).get("host")
            if space == namespace and obj["metadata"]["uid"] != uid and where is not None:
                found.append((obj, where))
        return found

    @stateful.invariant()
    def everyone_is_counted_once_and_nobody_by_itself(self) -> None:
        for (namespace, _), obj in self.machines.items():
            uid, labels, asked = obj["metadata"]["uid"], obj["metadata"]["labels"], read(obj)
            around = self.census.around(uid, namespace, labels, asked)
            others = self._others(namespace, uid)
            for selector in asked.selectors:
                selected = Counter(where for one, where in others if selector.selects(one["metadata"]["labels"]))
                assert around.guests[selector] == selected
            keepers: Counter[tuple[str, str]] = Counter()
            for one, where in others:
                for term in read(one).far:
                    if term.selector.selects(labels):
                        keepers[term.topology_key, where] += 1
            told: Counter[tuple[str, str]] = Counter()
            for topology_key, hosts in around.keepers:
                for host, number in hosts.items():
                    told[topology_key, host] += number
            assert told == keepers
            assert all(hosts for _, hosts in around.keepers)

    @stateful.invariant()
    def a_stranger_sees_everybody(self) -> None:
        asked = rules.Rules(near=tuple(rules.Term(read_selector(one), placement.HOST) for one in SELECTORS))
        for namespace in SPACES:
            around = self.census.around("nobody", namespace, {}, asked)
            everyone = self._others(namespace, "nobody")
            for selector in asked.selectors:
                selected = Counter(where for one, where in everyone if selector.selects(one["metadata"]["labels"]))
                assert around.guests[selector] == selected

    def teardown(self) -> None:
        for which in list(self.machines):
            self.end_claim(which)
            self.lose(which)
        assert not self.census._towns, "what nobody asks for any more is not kept"
        assert not self.census._guests


def read_selector(said: dict[str, Any]) -> rules.Selector:
    asked = placement.PlacementRules.model_validate({"hostSelector": said})
    return rules.selector(asked.host_selector)


TestCounting = Counting.TestCase
TestCounting.settings = hypothesis.settings(max_examples=80, stateful_step_count=25, deadline=None)

WEB = {"app": "web"}
FAR = {"antiAffinity": {"required": [{"labelSelector": {"matchLabels": WEB}, "topologyKey": placement.HOST}]}}


def test_who_is_on_the_way_counts_where_it_goes_until_the_record_says_more() -> None:
    known, book, counted = begun()
    known.put(world.VMS, a_machine("a", labels=WEB, placement=FAR))
    selector = read_selector({"matchLabels": WEB})
    asked = rules.Rules(far=(rules.Term(selector, placement.HOST),))

    def seen() -> place.Guests:
        return counted.around("another", "shop", WEB, asked).guests[selector]

    assert seen() == {}
    book.reserve("shop-a", 1, ledger.Charge("h1", COST), ())
    assert seen() == {"h1": 1}
    known.put(world.VMS, a_machine("a", "h1", labels=WEB, placement=FAR))
    book.release("shop-a")
    assert seen() == {"h1": 1}
    # A claim that fails leaves nothing.
    book.reserve("shop-a", 2, ledger.Charge("h2", COST), ())
    assert seen() == {"h2": 1}
    book.release("shop-a")
    assert seen() == {"h1": 1}


def test_namespaces_are_stirred_by_who_comes_and_goes() -> None:
    known, _, counted = begun()
    known.put(world.VMS, a_machine("a", labels=WEB))
    assert counted.stirred() == {}
    known.put(world.VMS, a_machine("a", "h1", labels=WEB))
    known.put(world.VMS, a_machine("a", "h1", namespace="bank", placement=FAR))
    assert counted.stirred() == {"shop": False, "bank": False}
    assert counted.stirred() == {}
    known.put(world.VMS, a_machine("a", "h1", labels={"app": "db"}))
    # Who keeps others away and does so no more matters to those, too, that ask for nothing.
    known.put(world.VMS, a_machine("a", "h1", namespace="bank"))
    assert counted.stirred() == {"shop": False, "bank": True}
    gone = a_machine("a", namespace="bank")
    known.settle(world.VMS, kube.key_of(world.VMS, gone), None)
    assert counted.stirred() == {"bank": False}


def test_a_placement_that_nobody_understands_asks_for_nothing() -> None:
    known, _, counted = begun()
    known.put(world.VMS, a_machine("a", "h1", labels=WEB, placement={"antiAffinity": "everything"}))
    assert counted.around("another", "shop", WEB, rules.ANY) == place.Around()
