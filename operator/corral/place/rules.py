"""What a VirtualMachine wants of its host and of its neighbours, as values that can be compared and counted by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.api.v1alpha1 import placement, selectors

Labels = Mapping[str, str]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One thing that must hold of labels."""

    key: str
    operator: selectors.Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Labels) -> bool:
        """Whether it does."""
        value = labels.get(self.key)
        if self.operator == "In":
            return value in self.values
        if self.operator == "NotIn":
            return value not in self.values
        return (value is not None) == (self.operator == "Exists")


@dataclass(frozen=True, slots=True)
class Selector:
    """Which labels are meant: those of which all of this holds."""

    requirements: tuple[Requirement, ...] = ()

    def selects(self, labels: Labels) -> bool:
        """Whether they are meant."""
        return all(one.holds(labels) for one in self.requirements)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Labels of which one must be there for it to select anything; empty where there is no such set."""
        named = [one for one in self.requirements if one.operator == "In"]
        if not named:
            return ()
        fewest = min(named, key=lambda one: len(one.values))
        return tuple((fewest.key, value) for value in fewest.values)


ALL = Selector()


@dataclass(frozen=True, slots=True)
class Term:
    """Other VirtualMachines, and how near is near."""

    selector: Selector
    topology_key: str


@dataclass(frozen=True, slots=True)
class Wish:
    """Other VirtualMachines that it should be near to, each worth `weight`; far from where that is negative."""

    term: Term
    weight: int


@dataclass(frozen=True, slots=True)
class Spread:
    """No place has more than `max_skew` more of these than the one with the fewest; if not `strict`, rather not."""

    term: Term
    max_skew: int
    strict: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """All that a VirtualMachine wants; the empty ones want nothing."""

    hosts: Selector = ALL
    near: tuple[Term, ...] = ()
    far: tuple[Term, ...] = ()
    wishes: tuple[Wish, ...] = ()
    spread: tuple[Spread, ...] = ()

    @property
    def selectors(self) -> frozenset[Selector]:
        """Every selector of VirtualMachines: whom must be counted."""
        terms = (*self.near, *self.far, *(one.term for one in self.wishes), *(one.term for one in self.spread))
        return frozenset(term.selector for term in terms)


ANY = Rules()


def selector(said: selectors.LabelSelector | None) -> Selector:
    """The selector that was said; two that say the same are equal."""
    if said is None:
        return ALL
    named = {Requirement(key, "In", (value,)) for key, value in said.match_labels.items()}
    others = {Requirement(one.key, one.operator, tuple(sorted(set(one.values)))) for one in said.match_expressions}
    return Selector(tuple(sorted(named | others)))


def rules(said: placement.PlacementRules | None) -> Rules:
    """The rules that a VirtualMachine's spec says."""
    if said is None:
        return ANY
    near, far = said.affinity or placement.Affinity(), said.anti_affinity or placement.Affinity()
    wishes = [(one, one.weight) for one in near.preferred] + [(one, -one.weight) for one in far.preferred]
    return Rules(
        hosts=selector(said.host_selector),
        near=tuple(_term(one) for one in near.required),
        far=tuple(_term(one) for one in far.required),
        wishes=tuple(Wish(_term(one), weight) for one, weight in wishes),
        spread=tuple(
            Spread(_term(one), one.max_skew, one.when_unsatisfiable == "DoNotSchedule")
            for one in said.topology_spread_constraints
        ),
    )


def _term(
    said: placement.AffinityTerm | placement.WeightedAffinityTerm | placement.TopologySpreadConstraint,
) -> Term:
    return Term(selector(said.label_selector), said.topology_key)
