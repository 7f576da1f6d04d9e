"""Elements as they are in tables, indexed by tap and owner, so that one guest's are found without a look at all others.

The simulated world is one; the real driver keeps one as its picture of the kernel's tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from corral_drivers.firewall import sets
from corral_drivers.firewall.model import Element

ValueT = TypeVar("ValueT")


class RuleSet:
    """What is in our tables. A key is in a set once, as in the kernel."""

    def __init__(self, elements: Iterable[Element] = ()) -> None:
        self._by_key: dict[tuple[str, tuple[str, ...]], Element] = {}
        self._by_interface: defaultdict[str, set[Element]] = defaultdict(set)
        self._interfaces: defaultdict[str, set[str]] = defaultdict(set)
        self.names: dict[str, int] = {}
        for element in elements:
            self.add(element)

    def add(self, element: Element) -> None:
        """Put it in; one of the same key goes."""
        self.remove(element)
        self._by_key[element.of, element.key] = element
        if tap := sets.interface(element):
            self._by_interface[tap].add(element)
        if element.of == "guests":
            self._interfaces[element.comment].add(element.key[0])
        if element.of == "names":
            self.names[element.comment] = int(element.key[0])

    def remove(self, element: Element) -> None:
        """Take out what has its key, if anything."""
        former = self._by_key.pop((element.of, element.key), None)
        if former is None:
            return
        if tap := sets.interface(former):
            _discard(self._by_interface, tap, former)
        if former.of == "guests":
            _discard(self._interfaces, former.comment, former.key[0])
        if former.of == "names" and self.names.get(former.comment) == int(former.key[0]):
            del self.names[former.comment]

    def held(self, element: Element) -> Element | None:
        """What has this element's key."""
        return self._by_key.get((element.of, element.key))

    def of(self, owner: str) -> frozenset[Element]:
        """All elements of the owner's taps."""
        taps = self._interfaces.get(owner, ())
        return frozenset(element for tap in taps for element in self._by_interface.get(tap, ()))

    def everything(self) -> frozenset[Element]:
        """All elements."""
        return frozenset(self._by_key.values())

    def owners(self) -> frozenset[str]:
        """Everyone who has a tap here."""
        return frozenset(self._interfaces)

    def change(self, remove: Iterable[Element], add: Iterable[Element]) -> None:
        """One transaction's worth."""
        for element in remove:
            self.remove(element)
        for element in add:
            self.add(element)


def _discard(index: dict[str, set[ValueT]], key: str, value: ValueT) -> None:
    index[key].discard(value)
    if not index[key]:
        del index[key]
