"""The local store: every object that this process watches, as new as any answer or event has shown it.

Events lag behind the answers to our own writes; the store takes in both and keeps the newer one by resourceVersion, so
that a pass reads its own writes. A DELETED event removes nothing here: it raises a doubt, which only a GET can settle.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from corral import kube

Index = Callable[[Mapping[str, Any]], str | None]
_TOMBSTONES = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """What a question to the API server is about: the uid that was known, and which doubt there was; None for none."""

    uid: str | None
    doubt: int | None


class Store:
    """Objects by key, and by what indexes say of them."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[kube.Key, kube.Object]] = defaultdict(dict)
        self._doubts: dict[kube.Key, int] = {}
        self._serial = itertools.count(1)
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._newest: dict[str, int] = {}
        self._indexes: dict[tuple[str, str], Index] = {}
        self._indexed: dict[tuple[str, str], dict[str, dict[kube.Key, None]]] = {}
        self._listeners: list[Callable[[kube.Key, kube.Object | None, kube.Object | None], None]] = []

    def index(self, plural: str, name: str, value: Index) -> None:
        """From now on `by(plural, name, value)` finds objects by what `value` says of them."""
        self._indexes[plural, name] = value
        self._indexed[plural, name] = defaultdict(dict)

    def listen(self, changed: Callable[[kube.Key, kube.Object | None, kube.Object | None], None]) -> None:
        """Call `changed(key, old, new)` at every change, in the same turn of the event loop."""
        self._listeners.append(changed)

    def put(self, where: kube.Collection, obj: kube.Object) -> bool:
        """Take in an object from an event or an answer. False where the store has it or a newer one, or saw it gone."""
        key, uid = kube.key_of(where, obj), obj["metadata"]["uid"]
        self._newest[where.plural] = max(self.newest(where.plural), version(obj))
        if uid in self._gone:
            return False
        old = self._objects[where.plural].get(key)
        if old is not None and version(old) >= version(obj):
            return False
        self._replace(key, old, kube.without_noise(obj))
        return True

    def get(self, key: kube.Key) -> kube.Object | None:
        """The object, None where there is none."""
        return self._objects[key.plural].get(key)

    def all(self, plural: str) -> Iterator[tuple[kube.Key, kube.Object]]:
        """Every object of a kind; the store may change meanwhile."""
        return iter(list(self._objects[plural].items()))

    def count(self, plural: str) -> int:
        """How many objects of a kind there are."""
        return len(self._objects[plural])

    def newest(self, plural: str) -> int:
        """The highest resourceVersion that was seen of this kind, also of what is gone or was dropped as old."""
        return self._newest.get(plural, 0)

    def by(self, plural: str, name: str, value: str) -> list[kube.Object]:
        """The objects of which the index says this value, in the order of their keys."""
        keys = self._indexed[plural, name].get(value, {})
        return [self._objects[plural][key] for key in sorted(keys)]

    def doubt(self, key: kube.Key) -> None:
        """Somebody says that the object is gone: whoever acts on it must ask the API server first."""
        if key in self._objects[key.plural]:
            self._doubts[key] = next(self._serial)

    def is_doubtful(self, key: kube.Key) -> bool:
        """Whether somebody says that the object is gone."""
        return key in self._doubts

    def ask(self, key: kube.Key) -> Question:
        """What is known and doubted of the key now: take it before the API server is asked, for `settle`."""
        seen = self._objects[key.plural].get(key)
        return Question(None if seen is None else seen["metadata"]["uid"], self._doubts.get(key))

    def settle(
        self, where: kube.Collection, key: kube.Key, answer: kube.Object | None, asked: Question | None = None
    ) -> None:
        """The API server's answer to a doubt: the object as it is, or None for one that is gone.

        `asked` is from before the answer was asked for: while it was under way, events may have told of another object
        by the same name, or raised a doubt that it does not settle. Without, it is about what is known now.
        """
        asked = asked or self.ask(key)
        if self._doubts.get(key) == asked.doubt:
            self._doubts.pop(key, None)
        old = self._objects[key.plural].get(key)
        was_asked = old is not None and asked.uid == old["metadata"]["uid"]
        if old is not None and was_asked and (answer is None or answer["metadata"]["uid"] != asked.uid):
            self.bury(old["metadata"]["uid"])
            self._replace(key, old, None)
        if answer is not None:
            self.put(where, answer)

    def is_buried(self, uid: str) -> bool:
        """Whether the object of this uid is proven gone."""
        return uid in self._gone

    def bury(self, uid: str) -> None:
        """The object of this uid is proven gone: a late event must not bring it back."""
        self._gone[uid] = None
        if len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)

    def _replace(self, key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        objects = self._objects[key.plural]
        if new is None:
            objects.pop(key, None)
        else:
            objects[key] = new
        for (plural, name), value in self._indexes.items():
            if plural == key.plural:
                said = None if old is None else value(old)
                self._reindex(self._indexed[plural, name], key, said, None if new is None else value(new))
        for changed in self._listeners:
            changed(key, old, new)

    @staticmethod
    def _reindex(index: dict[str, dict[kube.Key, None]], key: kube.Key, old: str | None, new: str | None) -> None:
        if old is not None and old != new:
            index[old].pop(key, None)
            if not index[old]:
                del index[old]
        if new is not None:
            index[new][key] = None


def version(obj: Mapping[str, Any]) -> int:
    """An object's resourceVersion as a number; Kubernetes defines their order since 1.35 (KEP-5504)."""
    return int(obj["metadata"]["resourceVersion"])
