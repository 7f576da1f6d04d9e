"""How fast a host is chosen in a large cloud, beside the floor of a bare `min` over its hosts.

Run it by hand: `python -m pytest tests/bench/bench_place.py -s` with `CORRAL_BENCH_HOSTS` (1000 unless told) and
`CORRAL_BENCH_VMS` (20000, placed before). No API server: only what the controller does between two of its requests,
on its own store, ledger and census. A row places so many guests one after the other, and counts each with all that
a placement changes: the reservation, the record, the Instance. Times are of the process' CPU.
"""

from __future__ import annotations

import datetime
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import placement, virtualmachine
from corral.conclude import conditions
from corral.controller import candidates, heartbeats, ledger, process, world
from corral.resolve import requirements

HOSTS = int(os.environ.get("CORRAL_BENCH_HOSTS", "1000"))
VMS = int(os.environ.get("CORRAL_BENCH_VMS", "20000"))
PLACED = 1000
"""Guests a row."""

_APPS, _ZONES = 1000, 10
_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_VERSIONS = itertools.count(1)
_NEEDS = requirements.Requirements(1, 512 << 20, "pc", (), ())
_READY = {"type": "HypervisorReady", "status": "True", "reason": "HypervisorAnswers", "message": ""}


def _made(where: kube.Collection, name: str, namespace: str = "", **rest: Any) -> kube.Object:
    metadata = {"name": name, "uid": f"{namespace}/{name}", "resourceVersion": str(next(_VERSIONS)), "generation": 1}
    metadata |= {"namespace": namespace} if namespace else {}
    return {"metadata": metadata | {"labels": rest.pop("labels", {})}, "spec": {}, **rest}


def _cloud() -> world.World:
    api: Any = None  # nothing here asks it
    here = process.make_world(api)
    leases = []
    for number in range(HOSTS):
        name = f"host-{number:04}"
        labels = {placement.ZONE: f"zone-{number % _ZONES}", "disk": "ssd" if number % 2 else "hdd"}
        here.store.put(world.HOSTS, _made(world.HOSTS, name, labels=labels))
        status = {
            "observedGeneration": 1,
            "capacity": {"cpu": 128, "memory": "1Ti"},
            "facts": {"accelerator": "kvm"},
            "conditions": [_READY | {"lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }
        here.store.put(world.HOST_STATES, _made(world.HOST_STATES, name, f"corral-host-{name}", status=status))
        lease = _made(world.HOSTS, heartbeats.NAME, f"corral-host-{name}", labels={heartbeats.LABEL: name})
        leases.append(lease | {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    here.heartbeats.take(leases, now=0.0, wall=_NOW)
    return here


def _machine(number: int, asked: kube.Object | None) -> kube.Object:
    labels = {"app": f"app-{number % _APPS}", "number": str(number), "team": f"team-{number % 7}"}
    spec = {"cpu": 1, "memory": "512Mi", "imageRef": {"name": "x"}} | ({} if asked is None else {"placement": asked})
    return _made(world.VMS, f"vm-{number}", "shop", labels=labels, spec=spec)


def _place(here: world.World, raw: kube.Object) -> float:
    """Place a guest as a pass of the controller does; in how many seconds its host was chosen."""
    here.store.put(world.VMS, raw)
    vm = objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)
    began = time.process_time()
    host = candidates.choose(here.candidates, here.census, vm, _NEEDS)
    took = time.process_time() - began
    assert not isinstance(host, conditions.Fact), host
    here.ledger.reserve(vm.uid, 1, ledger.Charge(host, candidates.cost(_NEEDS)), ())
    here.store.put(world.VMS, _renewed(raw) | {"status": {"placement": {"host": host, "epoch": 1}}})
    owner = {"namespace": "shop", "name": vm.name, "uid": vm.uid}
    spec = {"owner": owner, "epoch": 1, "cpu": 1, "memory": 512 << 20}
    here.store.put(world.INSTANCES, _made(world.INSTANCES, f"{vm.name}.1", f"corral-host-{host}", spec=spec))
    here.ledger.release(vm.uid)
    return took


def _renewed(raw: kube.Object) -> kube.Object:
    return raw | {"metadata": raw["metadata"] | {"resourceVersion": str(next(_VERSIONS))}}


def _selector(number: int) -> kube.Object:
    return {"matchLabels": {"app": f"app-{number % _APPS}"}}


def _apart(number: int) -> kube.Object:
    return {"antiAffinity": {"required": [{"labelSelector": _selector(number), "topologyKey": placement.HOST}]}}


def _spread(number: int) -> kube.Object:
    term = {"labelSelector": _selector(number), "topologyKey": placement.ZONE}
    return {
        "hostSelector": {"matchLabels": {"disk": "ssd"}},
        "topologySpreadConstraints": [term | {"maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule"}],
    }


def _crowd(number: int) -> kube.Object:
    team = {"matchLabels": {"team": f"team-{number % 7}"}}
    return {"antiAffinity": {"preferred": [{"labelSelector": team, "topologyKey": placement.ZONE, "weight": 1}]}}


Row = tuple[str, Callable[[int], kube.Object | None]]
ROWS: tuple[Row, ...] = (
    ("asks for nothing", lambda _number: None),
    ("apart from its app, by host", _apart),
    ("SSD hosts, its app over zones", _spread),
    ("rather not near its team (1/7 of all)", _crowd),
)


def _floor(here: world.World) -> float:
    hosts = here.candidates.all()
    began = time.process_time()
    for _ in range(PLACED):
        min(hosts, key=lambda host: (-host.free_memory, host.name))
    return (time.process_time() - began) / PLACED


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    here = _cloud()
    began = time.process_time()
    for number in range(VMS):
        _place(here, _machine(number, _apart(number) if number % 2 else None))
    filled = time.process_time() - began
    numbers = itertools.count(VMS)
    rows = []
    for what, asks in ROWS:
        began, chosen = time.process_time(), 0.0
        for number in itertools.islice(numbers, PLACED):
            chosen += _place(here, _machine(number, asks(number)))
        whole = (time.process_time() - began) / PLACED
        choice = 1e3 * chosen / PLACED
        rows.append(f"{what:<40}{choice:>9.2f} ms a choice{1e3 * whole:>9.2f} ms with the books{1 / whole:>9.0f} /s")
    floor = _floor(here)
    rows.append(f"{'floor: min over the hosts':<40}{1e3 * floor:>9.2f} ms{1 / floor:>41.0f} /s")
    with capsys.disabled():
        print(f"\n{HOSTS} hosts; {VMS} guests, half apart from their app, placed in {filled:.1f} s")  # noqa: T201 - a benchmark's result
        print("\n".join(rows))  # noqa: T201
