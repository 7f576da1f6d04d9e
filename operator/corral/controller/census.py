"""The census: which VirtualMachines are on which hosts, counted by the selectors that VirtualMachines choose by.

Kept current from the store and from the ledger's claims, so that a placement counts nothing: a selector is counted
from when the first VirtualMachine says it until the last one has ceased to, and a change of a VirtualMachine reaches
only the selectors that one of its labels leads to. A VirtualMachine counts where its placement says, from when its
host is chosen until it is deleted; what is left of its guest then counts no more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic

from corral import kube, place, store
from corral.api.v1alpha1 import placement
from corral.controller import ledger
from corral.place import rules as placing

KeyT = TypeVar("KeyT")
InnerT = TypeVar("InnerT")


@dataclass(frozen=True, slots=True)
class _Guest:
    """A VirtualMachine, on a host or on its way to one; None before."""

    labels: placing.Labels
    rules: placing.Rules
    host: str | None


@dataclass(slots=True)
class _Watched:
    """A selector that somebody chooses by: by how many, whom it selects on each host, and who keeps those away."""

    users: int = 0
    guests: Counter[str] = field(default_factory=Counter)
    keepers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


class _Town:
    """The VirtualMachines of one namespace: no other's matter to them."""

    def __init__(self) -> None:
        self._placed: dict[str, _Guest] = {}
        self._having: defaultdict[placing.Pair, dict[str, None]] = defaultdict(dict)
        self._watched: dict[placing.Selector, _Watched] = {}
        self._led_to: defaultdict[placing.Pair | None, dict[placing.Selector, None]] = defaultdict(dict)

    @property
    def is_empty(self) -> bool:
        return not self._placed and not self._watched

    def join(self, uid: str, guest: _Guest) -> None:
        """Count a VirtualMachine, and from now on whom its rules select."""
        for selector in guest.rules.selectors:
            self._watch(selector)
        if guest.host is None:
            return
        self._placed[uid] = guest
        for pair in guest.labels.items():
            self._having[pair][uid] = None
        self._count(guest, guest.host, 1)

    def leave(self, uid: str, guest: _Guest) -> None:
        """Undo what `join` did with the same guest."""
        if guest.host is not None:
            self._count(guest, guest.host, -1)
            for pair in guest.labels.items():
                _drop(self._having, pair, uid)
            del self._placed[uid]
        for selector in guest.rules.selectors:
            self._unwatch(selector)

    def around(self, labels: placing.Labels, selectors: Iterable[placing.Selector]) -> place.Around:
        """Who is where, for a VirtualMachine with these labels that chooses by these selectors."""
        keepers = tuple(
            (topology_key, dict(hosts))
            for selector in sorted(self._selecting(labels), key=lambda one: one.requirements)
            for topology_key, hosts in sorted(self._watched[selector].keepers.items())
        )
        return place.Around({one: self._guests(one) for one in selectors}, keepers)

    def _guests(self, selector: placing.Selector) -> place.Guests:
        watched = self._watched.get(selector)
        # The spec of a VirtualMachine may be newer than what its pass began with.
        return self._counted(selector) if watched is None else dict(watched.guests)

    def _count(self, guest: _Guest, host: str, times: int) -> None:
        for selector in self._selecting(guest.labels):
            _add(self._watched[selector].guests, host, times)
        for term in guest.rules.far:
            keepers = self._watched[term.selector].keepers
            _add(keepers[term.topology_key], host, times)
            if not keepers[term.topology_key]:
                del keepers[term.topology_key]

    def _watch(self, selector: placing.Selector) -> None:
        if selector not in self._watched:
            self._watched[selector] = _Watched(guests=self._counted(selector))
            for pair in selector.pairs or (None,):
                self._led_to[pair][selector] = None
        self._watched[selector].users += 1

    def _unwatch(self, selector: placing.Selector) -> None:
        watched = self._watched[selector]
        watched.users -= 1
        if not watched.users:
            del self._watched[selector]
            for pair in selector.pairs or (None,):
                _drop(self._led_to, pair, selector)

    def _counted(self, selector: placing.Selector) -> Counter[str]:
        """Whom a selector selects, of those that one of its labels leads to."""
        pairs = selector.pairs
        uids = {uid for pair in pairs for uid in self._having.get(pair, ())} if pairs else self._placed
        selected = (self._placed[uid] for uid in uids)
        return Counter(one.host for one in selected if one.host is not None and selector.selects(one.labels))

    def _selecting(self, labels: placing.Labels) -> Iterator[placing.Selector]:
        """The selectors that select these labels."""
        for pair in (None, *labels.items()):
            for selector in self._led_to.get(pair, ()):
                if selector.selects(labels):
                    yield selector


class Census:
    """Every namespace's VirtualMachines; `machines` is the plural of VirtualMachine."""

    def __init__(self, known: store.Store, book: ledger.Ledger, *, machines: str) -> None:
        self._known = known
        self._machines = machines
        self._towns: defaultdict[str, _Town] = defaultdict(_Town)
        self._guests: dict[str, tuple[kube.Key, _Guest]] = {}
        self._claimed: dict[str, str] = {}
        self._stirred: dict[str, bool] = {}
        known.listen(self._changed)
        book.listen(lambda _host: None, self._claim)

    def around(self, uid: str, namespace: str, labels: placing.Labels, rules: placing.Rules) -> place.Around:
        """Who is where, for the VirtualMachine of this uid, which does not count for itself."""
        if namespace not in self._towns:
            return place.Around({one: {} for one in rules.selectors})
        town = self._towns[namespace]
        _, itself = self._guests.get(uid, (None, None))
        if itself is None or itself.host is None:
            return town.around(labels, rules.selectors)
        town.leave(uid, itself)
        try:
            return town.around(labels, rules.selectors)
        finally:
            town.join(uid, itself)

    def stirred(self) -> Mapping[str, bool]:
        """Namespaces in which somebody came, went or changed since they were last asked for.

        True where it may matter to VirtualMachines that ask for nothing, because who was there keeps others away.
        """
        stirred, self._stirred = self._stirred, {}
        return stirred

    def _changed(self, key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        if key.plural != self._machines:
            return
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self._replace(old["metadata"]["uid"], key, None)
        if new is not None:
            self._replace(new["metadata"]["uid"], key, self._guest(old, new))

    def _guest(self, old: kube.Object | None, new: kube.Object) -> _Guest:
        asked, uid = new["spec"].get("placement"), new["metadata"]["uid"]
        _, before = self._guests.get(uid, (None, None))
        # Of most changes nothing here is other than it was, and reading rules takes its time.
        is_known = before is not None and old is not None and old["spec"].get("placement") == asked
        rules = before.rules if before is not None and is_known else _rules(asked)
        host = (new.get("status", {}).get("placement") or {}).get("host")
        return _Guest(new["metadata"].get("labels", {}), rules, self._claimed.get(uid, host))

    def _claim(self, uid: str, host: str | None) -> None:
        if host is None:
            self._claimed.pop(uid, None)
        else:
            self._claimed[uid] = host
        if uid not in self._guests:
            return
        key, _ = self._guests[uid]
        raw = self._known.get(key)
        if raw is not None and raw["metadata"]["uid"] == uid:
            self._replace(uid, key, self._guest(raw, raw))

    def _replace(self, uid: str, key: kube.Key, after: _Guest | None) -> None:
        _, before = self._guests.get(uid, (key, None))
        if before == after:
            return
        town = self._towns[key.namespace]
        if before is not None:
            town.leave(uid, before)
            del self._guests[uid]
        if after is not None:
            town.join(uid, after)
            self._guests[uid] = (key, after)
        if town.is_empty:
            del self._towns[key.namespace]
        self._note(key.namespace, before, after)

    def _note(self, namespace: str, before: _Guest | None, after: _Guest | None) -> None:
        was_there = before is not None and before.host is not None
        if was_there or (after is not None and after.host is not None):
            loosens = before is not None and was_there and bool(before.rules.far)
            self._stirred[namespace] = self._stirred.get(namespace, False) or loosens


def _rules(asked: Mapping[str, Any] | None) -> placing.Rules:
    if asked is None:
        return placing.ANY
    try:
        return placing.rules(placement.PlacementRules.model_validate(asked))
    except pydantic.ValidationError:
        # Its own status says so, and it is placed nowhere.
        return placing.ANY


def _add(counts: Counter[str], host: str, times: int) -> None:
    counts[host] += times
    if not counts[host]:
        del counts[host]


def _drop(kept: dict[KeyT, dict[InnerT, None]], key: KeyT, inner: InnerT) -> None:
    """Leave nothing empty behind."""
    del kept[key][inner]
    if not kept[key]:
        del kept[key]
