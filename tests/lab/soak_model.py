"""What the soak wants, and what it does next: pure, and the same again from the same seed.

`soak` carries it out. A round is a few verbs of tenants and a few faults, in an order and at times that the seed alone
decides; the model after a round says what must be true once everything is quiet.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass

MOST = 5
"""Guests at once: each takes a second of processor time to boot."""

_LONGEST_PAUSE = 1.5
_CALM = 0.7


@dataclass(frozen=True, slots=True)
class Machine:
    """A VirtualMachine that must be there. `life` tells those that had the same name apart; `token` is its data."""

    name: str
    life: int
    running: bool = True

    @property
    def token(self) -> str:
        return f"{self.name}-{self.life}"


Model = Mapping[str, Machine]


@dataclass(frozen=True, slots=True)
class Verb:
    """What a tenant does: create, halt, start, delete, or replace (delete and create at once)."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the table in `soak_faults`; `victim` names a guest where it hits one, `lasts` is in seconds."""

    kind: str
    victim: str
    lasts: float


@dataclass(frozen=True, slots=True)
class Round:
    """What happens, in order, each after a pause in seconds; and the model that must come true."""

    actions: tuple[tuple[float, Verb | Fault], ...]
    after: Model

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(action for _, action in self.actions if isinstance(action, Fault))

    @property
    def verbs(self) -> tuple[Verb, ...]:
        return tuple(action for _, action in self.actions if isinstance(action, Verb))


def compose(seed: int, number: int, before: Model, faults: Mapping[str, float]) -> Round:
    """The round of this number. `faults` are the kinds that may happen, by their weight."""
    # Each round has its own stream: what a round does never depends on how much chance an earlier one took.
    chance = random.Random(f"{seed}/{number}")
    model = dict(before)
    verbs: list[Verb] = []
    for _ in range(chance.randint(1, 3)):
        verb = _verb(chance, model, {verb.name for verb in verbs})
        if verb is not None:
            model = dict(_applied(model, verb, number))
            verbs.append(verb)
    kinds = chance.choices(tuple(faults), tuple(faults.values()), k=chance.randint(1, 3))
    # Mostly who runs and is left alone by its tenant: a fault on who is being made or removed hits nothing as often.
    calm = sorted(name for name, one in before.items() if one.running and model.get(name) == one)
    victims = calm if calm and chance.random() < _CALM else sorted(before) or sorted(model)
    struck = [Fault(kind, chance.choice(victims), chance.uniform(1.0, 8.0)) for kind in dict.fromkeys(kinds)]
    actions: list[Verb | Fault] = [*verbs, *struck]
    chance.shuffle(actions)
    return Round(tuple((chance.uniform(0.0, _LONGEST_PAUSE), action) for action in actions), model)


def _verb(chance: random.Random, model: Model, used: set[str]) -> Verb | None:
    there = sorted(set(model) - used)
    choices: list[Verb] = []
    if len(model) < MOST:
        free = next(f"soak-{number}" for number in range(2 * MOST) if f"soak-{number}" not in {*model, *used})
        choices += [Verb("create", free)] * (3 if len(model) < 3 else 1)
    for name in there:
        choices += [Verb("halt" if model[name].running else "start", name), Verb("delete", name), Verb("replace", name)]
    return chance.choice(choices) if choices else None


def _applied(model: Model, verb: Verb, number: int) -> Model:
    match verb.kind:
        case "create" | "replace":
            return {**model, verb.name: Machine(verb.name, number)}
        case "delete":
            return {name: machine for name, machine in model.items() if name != verb.name}
        case kind:
            return {**model, verb.name: dataclasses.replace(model[verb.name], running=kind == "start")}
