from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import place
from corral.api.v1alpha1.placement import HOST, ZONE
from corral.place import costs, rules

WEB, DB = ({"app": "web"}, {"app": "db"})
COST = costs.Cost(virtual_cpus=2, cpu=250, memory=100, emulation=20)


def selector(labels: rules.Labels) -> rules.Selector:
    return rules.Selector(tuple(sorted(rules.Requirement(key, "In", (value,)) for key, value in labels.items())))


def term(labels: rules.Labels, topology_key: str = HOST) -> rules.Term:
    return rules.Term(selector(labels), topology_key)


def host(name: str, zone: str | None = None, *, memory: int = 1000, **rest: Any) -> place.Candidate:
    """A host with room; its labels are its name, its zone, and those that are given."""
    labels = {HOST: name, **({} if zone is None else {ZONE: zone}), **rest.pop("labels", {})}
    usual = {"cpus": 4, "free_cpu": 4000, "accelerator": "kvm"}
    return place.Candidate(name, free_memory=memory, labels=labels, **(usual | rest))


def need(labels: rules.Labels = WEB, **asked: Any) -> place.Need:
    return place.Need(COST, rules.Rules(**asked), labels)


def around(*keepers: tuple[str, place.Guests], web: place.Guests = {}, db: place.Guests = {}) -> place.Around:  # noqa: B006 - nobody changes it
    return place.Around({selector(WEB): web, selector(DB): db}, keepers)


def placed(wanted: place.Need, hosts: list[place.Candidate], who: place.Around = place.NOBODY) -> str | dict[str, str]:
    """The host's name, or why not."""
    found = place.place(wanted, hosts, who)
    return found.host if isinstance(found, place.Placed) else {name: str(cause) for name, cause in found.why.items()}


# Tables.

ZONED = [host("a1", "a"), host("a2", "a"), host("b1", "b"), host("none")]
TWO_ZONES = ZONED[:3]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, None),
        ({"refuses": place.Cause.MAINTENANCE}, "in maintenance"),
        ({"cpus": 1}, "too few CPUs"),
        ({"free_cpu": 249}, "too little CPU"),
        ({"free_cpu": 250}, None),
        ({"free_memory": 99}, "too little memory"),
        ({"free_memory": 100}, None),
        ({"free_memory": 119, "accelerator": "tcg"}, "too little memory"),
        ({"free_memory": 120, "accelerator": "tcg"}, None),
    ],
)
def test_what_a_host_must_have(changes: dict[str, Any], cause: str | None) -> None:
    one = dataclasses.replace(host("h1"), **changes)
    assert placed(need(), [one]) == ("h1" if cause is None else {"h1": cause})


def test_a_host_selector_is_about_labels_and_the_hosts_own_name() -> None:
    fast = host("fast", labels={"disk": "ssd"}, memory=200)
    hosts = [fast, host("h1", "a"), host("h2", "b")]
    assert placed(need(hosts=selector({"disk": "ssd"})), hosts) == "fast"
    assert placed(need(hosts=selector({HOST: "h1"})), hosts) == "h1"
    assert placed(need(hosts=selector({ZONE: "b"})), hosts) == "h2"
    assert placed(need(hosts=selector({ZONE: "c"})), hosts) == dict.fromkeys(
        ("fast", "h1", "h2"), "outside the hostSelector"
    )


NEAR_HOST, NEAR_ZONE = need(near=(term(DB),)), need(near=(term(DB, ZONE),))
NOT_NEAR = "not near those of the affinity"


@pytest.mark.parametrize(
    ("wanted", "who", "where"),
    [
        (NEAR_HOST, around(db={"a2": 1}), "a2"),
        (NEAR_HOST, around(), dict.fromkeys(("a1", "a2", "b1", "none"), NOT_NEAR)),
        (NEAR_ZONE, around(db={"b1": 3}), "b1"),
        (NEAR_ZONE, around(db={"a2": 1}), "a1"),
        (
            NEAR_ZONE,
            around(),
            {"a1": NOT_NEAR, "a2": NOT_NEAR, "b1": NOT_NEAR, "none": "without a zone"},
        ),
        # The first of those that want to be together may be anywhere; the second follows it.
        (need(near=(term(WEB, ZONE),)), around(), "a1"),
        (need(near=(term(WEB, ZONE),)), around(web={"b1": 1}), "b1"),
        # Where the only other one is on what is no Host any more, there is nowhere to follow it to.
        (need(near=(term(WEB),)), around(web={"gone": 1}), dict.fromkeys(("a1", "a2", "b1", "none"), NOT_NEAR)),
        # All terms hold.
        (need(near=(term(DB, ZONE), term(WEB))), around(db={"a1": 1}, web={"a2": 1, "b1": 1}), "a2"),
    ],
)
def test_affinity(wanted: place.Need, who: place.Around, where: Any) -> None:
    assert placed(wanted, ZONED, who) == where


FAR_HOST, FAR_ZONE = need(far=(term(WEB),)), need(far=(term(WEB, ZONE),))
TOO_NEAR = "near those of the antiAffinity"


@pytest.mark.parametrize(
    ("wanted", "who", "where"),
    [
        (FAR_HOST, around(), "a1"),
        (FAR_HOST, around(web={"a1": 1, "a2": 1}), "b1"),
        (
            FAR_HOST,
            around(web={"a1": 1, "a2": 1, "b1": 2, "none": 1}),
            dict.fromkeys(("a1", "a2", "b1", "none"), TOO_NEAR),
        ),
        (FAR_ZONE, around(web={"a2": 1}), "b1"),
        # A host without a zone is in nobody's zone.
        (FAR_ZONE, around(web={"a2": 1, "b1": 1}), "none"),
        (FAR_ZONE, around(web={"none": 1}), "a1"),
        # Those that keep it away, whatever it asks for itself.
        (need(), around((HOST, {"a1": 1})), "a2"),
        (need(), around((ZONE, {"a2": 1})), "b1"),
        (need(), around((ZONE, {"a2": 1}), (HOST, {"b1": 1})), "none"),
    ],
)
def test_anti_affinity(wanted: place.Need, who: place.Around, where: Any) -> None:
    assert placed(wanted, ZONED, who) == where


def spread(max_skew: int = 1, *, strict: bool = True, key: str = ZONE, **asked: Any) -> place.Need:
    return need(spread=(rules.Spread(term(WEB, key), max_skew, strict),), **asked)


BEYOND = "beyond maxSkew"


@pytest.mark.parametrize(
    ("wanted", "who", "where"),
    [
        (spread(), around(), "a1"),
        (spread(), around(web={"a1": 1}), "b1"),
        (spread(), around(web={"a1": 1, "b1": 1}), "a1"),
        (spread(2), around(web={"a1": 1}), "a1"),
        (spread(2), around(web={"a1": 2}), "b1"),
        # It counts itself only where its own labels are meant.
        (spread(labels=DB), around(web={"a1": 1}), "a1"),
        (spread(labels=DB), around(web={"a1": 2}), "b1"),
        (spread(key=HOST), around(web={"a1": 1, "b1": 1, "none": 1}), "a2"),
        # Places that it could never be in do not count.
        (spread(hosts=selector({ZONE: "a"})), around(web={"a1": 7}), "a1"),
        (spread(strict=False), around(web={"a1": 1, "b1": 1}), "a1"),
        (spread(strict=False), around(web={"a1": 5, "b1": 4}), "b1"),
    ],
)
def test_spread(wanted: place.Need, who: place.Around, where: Any) -> None:
    assert placed(wanted, ZONED, who) == where


def test_a_zone_that_takes_nobody_counts_where_it_spreads() -> None:
    full = [*TWO_ZONES[:2], dataclasses.replace(TWO_ZONES[2], refuses=place.Cause.NOT_READY), host("none")]
    assert placed(spread(), full, around(web={"a1": 1})) == {
        "a1": BEYOND,
        "a2": BEYOND,
        "b1": "not ready",
        "none": "without a zone",
    }


def wish(weight: int, labels: rules.Labels = DB, key: str = HOST) -> rules.Wish:
    return rules.Wish(term(labels, key), weight)


@pytest.mark.parametrize(
    ("wanted", "who", "where"),
    [
        (need(), around(), "big"),
        (need(wishes=(wish(1),)), around(db={"small": 1}), "small"),
        (need(wishes=(wish(-1),)), around(db={"big": 1}), "small"),
        (need(wishes=(wish(1),)), around(db={"small": 1, "big": 2}), "big"),
        (need(wishes=(wish(3), wish(-1, WEB))), around(db={"small": 1}, web={"small": 2}), "small"),
        (need(wishes=(wish(1), wish(-1, WEB))), around(db={"small": 1}, web={"small": 2}), "big"),
        (need(wishes=(wish(1, key=ZONE),)), around(db={"other": 1}), "other"),
        # What is wished comes before what spreads, and that before memory.
        (spread(strict=False, wishes=(wish(1),)), around(web={"small": 4}, db={"small": 1}), "small"),
        (spread(strict=False), around(web={"big": 1}), "other"),
    ],
)
def test_scores(wanted: place.Need, who: place.Around, where: str) -> None:
    hosts = [host("big", "a", memory=900), host("small", "a", memory=500), host("other", "b", memory=300)]
    assert placed(wanted, hosts, who) == where


def test_the_most_memory_is_left_after_what_the_guest_takes_there() -> None:
    emulating = host("emulating", memory=810, accelerator="tcg")
    assert placed(need(), [emulating, host("kvm", memory=795)]) == "kvm"
    assert placed(need(), [emulating, host("kvm", memory=789)]) == "emulating"


def test_among_equals_the_name_decides() -> None:
    assert placed(need(), [host("b"), host("c"), host("a")]) == "a"


# What is said of nowhere.


@pytest.mark.parametrize(
    ("why", "sentence", "listed"),
    [
        ({}, "0/0 hosts: there is no Host yet", ""),
        (
            {
                "a": place.Cause.MEMORY,
                "b": place.Cause.CPUS,
                "c": place.Cause.MEMORY,
                "d": place.Cause.MAINTENANCE,
            },
            "0/4 hosts: 2 too little memory, 1 in maintenance, 1 too few CPUs",
            "a, c: too little memory; b: too few CPUs; d: in maintenance",
        ),
    ],
)
def test_nowhere_says_why_not(why: dict[str, place.Cause], sentence: str, listed: str) -> None:
    assert str(place.Nowhere(why)) == sentence
    assert place.Nowhere(why).hosts(200) == listed


def test_many_hosts_are_named_as_far_as_there_is_room() -> None:
    why = {f"host-{number:03}": place.Cause.NOT_READY for number in range(1000)}
    assert place.Nowhere(why).hosts(62) == "host-000, host-001, host-002 and 997 more: not ready"
    why["alone"] = place.Cause.CPU
    assert place.Nowhere(why).hosts(120).endswith("more: not ready; alone: too little CPU")


@given(
    names=st.lists(st.text("abc-", min_size=1, max_size=51), unique=True, max_size=40),
    data=st.data(),
    longest=st.integers(0, 400),
)
def test_the_list_of_hosts_has_its_length(names: list[str], data: st.DataObject, longest: int) -> None:
    why = {name: data.draw(st.sampled_from(place.Cause)) for name in names}
    assert len(place.Nowhere(why).hosts(longest)) <= longest
    assert place.Nowhere(why).hosts(10_000).count(",") == len(names) - len(set(why.values())) if names else True


# Laws.

NAMES = [f"h{number}" for number in range(6)]
LABELS = st.sampled_from([WEB, DB, {}])
TERMS = st.builds(term, LABELS, st.sampled_from([HOST, ZONE]))
CANDIDATE = st.builds(
    host,
    name=st.sampled_from(NAMES),
    zone=st.sampled_from(["a", "b", None]),
    memory=st.integers(50, 160),
    cpus=st.integers(1, 4),
    free_cpu=st.integers(0, 600),
    accelerator=st.sampled_from(["kvm", "tcg"]),
    labels=st.sampled_from([{}, {"disk": "ssd"}]),
    refuses=st.sampled_from([None, None, None, place.Cause.MAINTENANCE]),
)
CANDIDATES = st.lists(CANDIDATE, unique_by=lambda one: one.name, max_size=6)
RULES = st.builds(
    rules.Rules,
    hosts=st.sampled_from([rules.ALL, rules.ALL, selector({"disk": "ssd"})]),
    near=st.lists(TERMS, max_size=1).map(tuple),
    far=st.lists(TERMS, max_size=1).map(tuple),
    wishes=st.lists(st.builds(rules.Wish, TERMS, st.sampled_from([-3, 1, 2])), max_size=2).map(tuple),
    spread=st.lists(st.builds(rules.Spread, TERMS, st.integers(1, 2), st.booleans()), max_size=2).map(tuple),
)
NEEDS = st.builds(place.Need, st.just(COST), RULES, LABELS)
GUESTS = st.dictionaries(st.sampled_from([*NAMES, "gone"]), st.integers(1, 3), max_size=3)
AROUND = st.builds(
    place.Around,
    st.fixed_dictionaries({selector(one): GUESTS for one in (WEB, DB, {})}),
    st.lists(st.tuples(st.sampled_from([HOST, ZONE]), GUESTS), max_size=1).map(tuple),
)


def where(one: place.Candidate, key: str) -> str | None:
    return one.labels.get(key)


class Judge:
    """Whether a host may not be taken, said in another way than the code says it: host by host, from scratch."""

    def __init__(self, wanted: place.Need, hosts: list[place.Candidate], who: place.Around) -> None:
        self.wanted, self.asked, self.hosts, self.who = wanted, wanted.rules, hosts, who

    def refuses(self, one: place.Candidate) -> bool:
        return (
            self._room(one)
            or not self.asked.hosts.selects(one.labels)
            or any(self._lonely(one, near) for near in self.asked.near)
            or self._crowded(one)
            or any(self._uneven(one, even) for even in self.asked.spread if even.strict)
        )

    def _count(self, selected: place.Guests, key: str, at: str | None) -> int:
        there = {each.name: where(each, key) for each in self.hosts} | ({"gone": "gone"} if key == HOST else {})
        return sum(number for name, number in selected.items() if name in there and there[name] == at)

    def _room(self, one: place.Candidate) -> bool:
        memory = COST.memory + (COST.emulation if one.accelerator == "tcg" else 0)
        return bool(one.refuses) or one.cpus < 2 or one.free_cpu < 250 or one.free_memory < memory

    def _lonely(self, one: place.Candidate, near: rules.Term) -> bool:
        selected, at = self.who.guests[near.selector], where(one, near.topology_key)
        first = not selected and near.selector.selects(self.wanted.labels)
        return at is None or not (first or self._count(selected, near.topology_key, at))

    def _crowded(self, one: place.Candidate) -> bool:
        keepers = [(far.topology_key, self.who.guests[far.selector]) for far in self.asked.far]
        return any(
            where(one, key) is not None and self._count(selected, key, where(one, key))
            for key, selected in [*keepers, *self.who.keepers]
        )

    def _uneven(self, one: place.Candidate, even: rules.Spread) -> bool:
        key, selected = even.term.topology_key, self.who.guests[even.term.selector]
        eligible = {where(each, key) for each in self.hosts if self.asked.hosts.selects(each.labels)}
        least = min((self._count(selected, key, at) for at in eligible if at is not None), default=0)
        mine = self._count(selected, key, where(one, key)) + even.term.selector.selects(self.wanted.labels)
        return where(one, key) is None or mine - least > even.max_skew


@given(wanted=NEEDS, hosts=CANDIDATES, who=AROUND)
def test_a_guest_is_placed_where_nothing_refuses_it_and_nowhere_only_where_everything_does(
    wanted: place.Need, hosts: list[place.Candidate], who: place.Around
) -> None:
    found = place.place(wanted, hosts, who)
    judge = Judge(wanted, hosts, who)
    fitting = {one.name for one in hosts if not judge.refuses(one)}
    if isinstance(found, place.Placed):
        assert found.host in fitting
    else:
        assert not fitting
        assert found.why.keys() == {one.name for one in hosts}


@given(wanted=NEEDS, hosts=CANDIDATES, who=AROUND, data=st.data())
def test_the_order_of_hosts_does_not_matter(
    wanted: place.Need, hosts: list[place.Candidate], who: place.Around, data: st.DataObject
) -> None:
    assert place.place(wanted, hosts, who) == place.place(wanted, data.draw(st.permutations(hosts)), who)


@given(wanted=NEEDS, hosts=CANDIDATES, who=AROUND, more=st.integers(0, 100), data=st.data())
def test_more_room_never_makes_it_fail(
    wanted: place.Need, hosts: list[place.Candidate], who: place.Around, more: int, data: st.DataObject
) -> None:
    if not isinstance(place.place(wanted, hosts, who), place.Placed):
        return
    larger = [
        dataclasses.replace(one, cpus=one.cpus + 1, free_cpu=one.free_cpu + more, free_memory=one.free_memory + more)
        if data.draw(st.booleans())
        else one
        for one in hosts
    ]
    assert isinstance(place.place(wanted, larger, who), place.Placed)


@given(wanted=NEEDS, hosts=CANDIDATES, who=AROUND)
def test_nowhere_counts_every_host_once(wanted: place.Need, hosts: list[place.Candidate], who: place.Around) -> None:
    found = place.place(wanted, hosts, who)
    if isinstance(found, place.Nowhere) and hosts:
        counted = str(found).partition(": ")[2].split(", ")
        assert sum(int(part.split()[0]) for part in counted) == len(hosts)
