"""Random verbs and random faults on real guests, and what must hold after each quiet moment.

`make soak MINUTES=n` runs it for so long on a lab of its own; in the suite it is a few rounds of a fixed seed. A
failure tells the seed: `make soak MINUTES=n SEED=s` does the same again, round by round. FAULTS=… names the only
kinds that may happen, with commas between them.
"""

from __future__ import annotations

import os
import random
import time

import pytest
import rich.console

from . import soak_model
from .cloud import Cloud
from .soak import Soak, Told
from .soak_faults import FAULTS

_SUITE_SEED, _SUITE_ROUNDS = 4, 3
_SAY = rich.console.Console(soft_wrap=True).print
_WEIGHTS = {name: kind.weight for name, kind in FAULTS.items()}


def test_a_seed_decides_everything() -> None:
    def rounds(seed: int) -> list[soak_model.Round]:
        model: soak_model.Model = {}
        done = []
        for number in range(50):
            done.append(soak_model.compose(seed, number, model, _WEIGHTS))
            model = done[-1].after
        return done

    assert rounds(1) == rounds(1)
    assert rounds(1) != rounds(2)
    assert max(len(one.after) for one in rounds(1)) <= soak_model.MOST
    assert {fault.kind for seed in range(4) for one in rounds(seed) for fault in one.faults} == set(FAULTS)
    assert {verb.kind for one in rounds(1) for verb in one.verbs} == {"create", "halt", "start", "delete", "replace"}


@pytest.mark.lab
def test_whatever_happens_it_comes_to_rest_as_it_was_asked_to(cloud: Cloud) -> None:
    minutes = float(os.environ.get("CORRAL_SOAK_MINUTES", "0"))
    seed = int(os.environ.get("CORRAL_SOAK_SEED") or (random.randrange(10**6) if minutes else _SUITE_SEED))
    chosen = [name for name in os.environ.get("CORRAL_SOAK_FAULTS", "").split(",") if name]
    weights = {name: _WEIGHTS[name] for name in chosen or _WEIGHTS}
    until = time.monotonic() + 60 * minutes
    _SAY(f"\nseed {seed}")
    soak, model, number = Soak(cloud), dict[str, soak_model.Machine](), 0
    try:
        while time.monotonic() < until if minutes else number < _SUITE_ROUNDS:
            todo = soak_model.compose(seed, number, model, weights)
            _SAY(f"round {number}:", *(f"{action.kind} {_whom(action)}" for _, action in todo.actions), sep="\n    ")
            soak.round(todo, model)
            model, number = dict(todo.after), number + 1
    except BaseException:
        _SAY(f"Seed {seed} broke in round {number}. Again: make soak MINUTES={minutes or 5:.0f} SEED={seed}")
        raise
    else:
        soak.clear(model)
    finally:
        _SAY(_table(soak.told))


def _whom(action: soak_model.Verb | soak_model.Fault) -> str:
    return action.name if isinstance(action, soak_model.Verb) else f"({action.victim}, {action.lasts:.1f} s)"


def _table(told: Told) -> str:
    lines = [
        f"{told.rounds} rounds, {told.checks} times proven; verbs: {dict(told.verbs)}",
        "fault, times, missed, s to rest: median, most",
    ]
    for kind, times in sorted(told.healed.items()):
        ordered = sorted(times)
        most = f"{ordered[len(ordered) // 2]:.1f} {ordered[-1]:.1f}"
        lines.append(f"  {kind:20} {told.faults[kind]:4} {told.missed[kind]:4}   {most}")
    return "\n".join(lines)
