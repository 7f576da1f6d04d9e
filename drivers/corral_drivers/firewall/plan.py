"""Which elements to add and to remove, and whether to lay the rules anew. Pure."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from corral_drivers import errors, steps
from corral_drivers.firewall import elements, sets
from corral_drivers.firewall.model import Cause, Element, Observed, Shared, Tap


@dataclass(frozen=True, slots=True)
class Lay:
    """Make both tables anew, with these elements; no packet meets half of it."""

    elements: tuple[Element, ...]

    def __str__(self) -> str:
        return f"lay the rules anew, with {_counted(self.elements)}"


@dataclass(frozen=True, slots=True)
class Change:
    """Remove and add elements, in one transaction."""

    remove: tuple[Element, ...]
    add: tuple[Element, ...]

    def __str__(self) -> str:
        parts = [f"{word} {_counted(some)}" for word, some in (("remove", self.remove), ("add", self.add)) if some]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Sever:
    """End the tracked flows of these taps that are not let through. `everything`: they are all taps of the host."""

    shared: Shared
    taps: tuple[Tap, ...]
    everything: bool = False

    def __str__(self) -> str:
        return f"end the flows of {len(self.taps)} taps that are not let through"


Step = Lay | Change | Sever


Plan = steps.Plan[Step]

_LETS_BY_BEING_THERE = frozenset(
    {
        *("reach4", "reach6", "open_in", "open_out", "policies_in", "policies_out"),
        *("members4", "members6", "remotes4", "remotes6", "grants", "nat4", "nat6"),
    }
)
_TAKES_BY_BEING_THERE = frozenset({"networks", "cloud4", "cloud6", "policies_in", "policies_out"})
"""Also of a new guest: its address may have been another's, whose flows the kernel still knows."""


def plan(shared: Shared, taps: Iterable[Tap], observed: Observed, *, keep: Collection[str] = ()) -> Plan:
    """Order the steps from what the whole host has to what it should have.

    What is there of the owners in `keep`, of whom nobody knows what they should have, stays as it is. Flows end after
    what let them in is gone: the other way round they would begin again.
    """
    desired = tuple(sorted(taps))
    with _rightly_asked():
        ids = elements.numbered(elements.names(shared, desired), observed.names)
        want = elements.of_taps(shared, desired, ids) | elements.of_shared(shared, desired, ids)
    want |= elements.of_names(ids)
    want |= _kept(observed.elements, keep, {str(number) for number in ids.values()})
    want = _one_a_key(want)
    found = _steps(want, observed)
    if _is_limited(desired, want, observed) and (_takes(found) or not observed.judged):
        found += (Sever(shared, desired, everything=True),)
    return Plan(found)


def plan_guest(shared: Shared, taps: Iterable[Tap], observed: Observed) -> Plan:
    """The same for the taps of one owner, by what is observed of that owner: it costs as much as it has taps.

    Only where the rules are laid. What its networks and groups need beside it is the whole host's plan.
    """
    desired = tuple(sorted(taps))
    ids = elements.numbered(elements.names_of_taps(shared, desired), observed.names)
    new = {name: number for name, number in ids.items() if name not in observed.names}
    with _rightly_asked():
        want = elements.of_taps(shared, desired, ids)
    mine = replace(observed, elements=frozenset(one for one in observed.elements if sets.interface(one)), laid=True)
    found = _steps(want | elements.of_names(new), mine)
    if _is_limited(desired, want, mine) and _takes(found):
        found += (Sever(shared, desired),)
    return Plan(found)


@contextlib.contextmanager
def _rightly_asked() -> Iterator[None]:
    """What can't be read as an address or a prefix is refused, as by who writes it."""
    try:
        yield
    except ValueError as error:
        raise errors.Rejected(Cause.FAILED, f"plan the rules: {error}") from error


def _one_a_key(want: frozenset[Element]) -> frozenset[Element]:
    """A map has one element a key: where two taps claim an address, one has it, always the same."""
    if len({(one.of, one.key) for one in want}) == len(want):
        return want
    return frozenset({(one.of, one.key): one for one in sorted(want, reverse=True)}.values())


def _steps(want: frozenset[Element], observed: Observed) -> tuple[Step, ...]:
    have = observed.elements
    if not observed.laid:
        return (Lay(tuple(sorted(want))),)
    if want == have:
        return ()
    return (Change(remove=tuple(sorted(have - want)), add=tuple(sorted(want - have))),)


def _takes(found: tuple[Step, ...]) -> bool:
    """Whether what is done takes something away from somebody who may be using it."""
    return any(
        isinstance(step, Lay)
        or any(one.of in _LETS_BY_BEING_THERE for one in step.remove)
        or any(one.of in _TAKES_BY_BEING_THERE for one in step.add)
        for step in found
        if not isinstance(step, Sever)
    )


def _is_limited(taps: Collection[Tap], want: frozenset[Element], observed: Observed) -> bool:
    """Whether any flow of theirs could be one that may not be."""
    nat = any(one.of in {"nat4", "nat6"} for one in observed.elements - want)
    return any(nat or tap.network or tap.groups or tap.nat for tap in taps)


def _kept(have: frozenset[Element], keep: Collection[str], desired: Collection[str]) -> set[Element]:
    """What is there of these owners, and of what is shared what only they need: `desired` numbers are cared for."""
    taps = {one.key[0] for one in have if one.of == "guests" and one.comment in keep}
    kept = {one for one in have if sets.interface(one) in taps}
    numbers = {one.data for one in kept if one.of in {"networks", "policies_in", "policies_out"}} - set(desired)
    kept |= {one for one in have if one.of[:-1] in {"reach", "members", "remotes"} and one.key[0] in numbers}
    numbers |= {one.data for one in kept if one.of[:-1] in {"members", "remotes"}}
    return kept | {one for one in have if one.of in {"grants", "names"} and one.key[0] in numbers}


def _counted(some: Iterable[Element]) -> str:
    counts = Counter(element.of for element in some)
    return ", ".join(f"{count} of {name}" for name, count in sorted(counts.items())) or "nothing"
