"""The soak's hands and eyes: carries a round out on a real lab, waits until all is quiet, and proves what must hold.

`test_soak` runs it. What a round does comes from `soak_model`, how a fault is struck from `soak_faults`. Everything
that is compared is read from the host, the guests and the API, never from what this module did.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

from corral_lab import errors

from .cloud import TENANT, Cloud, Guest
from .soak_faults import FAULTS, MISSED, End
from .soak_model import Fault, Machine, Model, Round, Verb

QUIET_WITHIN = 240.0
"""Seconds from the end of a round's last fault until everything is as it should be."""

_HOSTS = ("hosts", "hoststates")
_STILL = 6.0
"""Seconds without a write: a host tells of itself every five."""
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(slots=True)
class Told:
    """What the soak did and found so far. Times are seconds from the last act of a round to quiet."""

    rounds: int = 0
    verbs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    healed: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    checks: int = 0


class Broken(AssertionError):  # noqa: N818 - reads as what it says
    """What was wrong when all should have been quiet."""


class Soak:
    """One soak on one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._placed: dict[str, Guest] = {}
        self._addresses: dict[str, str] = {}
        self._written: set[str] = set()
        self._read_to = {path: path.stat().st_size for path in self._log_files()}
        self._ending = futures.ThreadPoolExecutor(max_workers=4, thread_name_prefix="soak")
        self.told = Told()

    def round(self, todo: Round, before: Model) -> None:
        """Carry the round out and prove what must hold after it. Raises `Broken`."""
        pids = self._pids(before)
        ends: list[futures.Future[None]] = []
        stopped: set[str] = set()
        struck: list[str] = []
        for pause, action in todo.actions:
            time.sleep(pause)
            if isinstance(action, Verb):
                self._do(action, todo.after)
                stopped.add(action.name)
            else:
                hit = self._strike(action, before, ends)
                stopped |= hit or set()
                struck += [action.kind] if hit is not None else []
        for end in ends:
            end.result()
        took = self._until_quiet(todo.after)
        self.told.rounds += 1
        for kind in struck:
            self.told.healed[kind].append(took)
        self._prove(todo.after, {name: pid for name, pid in pids.items() if name not in stopped})

    def clear(self, model: Model) -> None:
        """Delete every guest of the soak, and wait until nothing is left of them."""
        self._patiently(lambda: self._cloud.delete(*model))
        self._until_quiet({})

    # Verbs, by kubectl, as a tenant would: again until the API server takes them.

    def _do(self, verb: Verb, after: Model) -> None:
        self.told.verbs[verb.kind] += 1
        match verb.kind:
            case "create":
                self._patiently(lambda: self._cloud.apply(verb.name, **_spec(after[verb.name])))
            case "delete":
                self._patiently(lambda: self._cloud.delete(verb.name))
            case "replace":
                self._patiently(lambda: self._cloud.delete(verb.name))
                self._patiently(lambda: self._cloud.apply(verb.name, **_spec(after[verb.name])))
            case kind:
                strategy = "Always" if kind == "start" else "Halted"
                self._patiently(lambda: self._cloud.apply_strategy(verb.name, strategy))

    def _patiently(self, act: Callable[[], None]) -> None:
        self._until(lambda: _tried(act), "kubectl did not succeed")

    # Faults.

    def _strike(self, fault: Fault, before: Model, ends: list[futures.Future[None]]) -> set[str] | None:
        """Strike; whose process may end by it, None where there was nothing to hit."""
        kind = FAULTS[fault.kind]
        end = kind.strike(self._cloud, self._placed.get(fault.victim))
        if end is MISSED:
            self.told.missed[fault.kind] += 1
            return None
        self.told.faults[fault.kind] += 1
        if end is not None:
            # Beside what comes next: a tenant's verb may wait for just that.
            ends.append(self._ending.submit(_after, fault.lasts, end))
        return {"none": set(), "victim": {fault.victim}, "all": set(before)}[kind.stops]

    # Quiet.

    def _until_quiet(self, model: Model) -> float:
        """How many seconds it took until all was right, and stayed so."""
        begun = right = time.monotonic()
        wrong: list[str] = []
        still: tuple[int, float] = (-1, 0.0)

        def is_quiet() -> bool:
            """As it should be, and for a while nobody has written: a host's own report may follow later."""
            nonlocal still, right
            with contextlib.suppress(errors.LabError, OSError, AssertionError, KeyError):
                was_wrong, wrong[:] = wrong != [], list(self._wrong(model))
                if was_wrong and not wrong:
                    right = time.monotonic()
                if (writes := len(self._cloud.writes())) != still[0]:
                    still = (writes, time.monotonic())
                return not wrong and time.monotonic() - still[1] > _STILL
            return False

        self._until(is_quiet, "it never came to rest", wrong)
        traces = self._cloud.traces()
        time.sleep(_STILL)
        if wrong := list(self._wrong(model)):
            raise Broken(f"it was at rest, and did not stay so: {wrong}")
        if self._cloud.traces() != traces:
            raise Broken(f"the host changed though nothing happened: {traces} became {self._cloud.traces()}")
        new = Counter(self._cloud.writes()[still[0] :])
        # How many prefixes the fabric tells a host is told at most once a minute, and so perhaps just now.
        if any(times > (one[2].split("/")[0] in _HOSTS) for one, times in new.items()):
            raise Broken(f"there were writes though nothing happened: {dict(new)}")
        return right - begun

    def _wrong(self, model: Model) -> Iterator[str]:
        """What is not yet as the model says; the cheapest questions first."""
        listed = self._cloud.api.get("vm.corral.dev", "--namespace", TENANT)["items"]
        seen = {one["metadata"]["name"]: one for one in listed}
        if seen.keys() != model.keys():
            yield f"VirtualMachines {sorted(seen)} instead of {sorted(model)}"
            return
        for name, machine in model.items():
            conditions = {one["type"]: one for one in seen[name].get("status", {}).get("conditions", ())}
            ready = conditions.get("Ready", {})
            reason = "Running" if machine.running else "Halted"
            at = seen[name]["status"]["observedGeneration"] == seen[name]["metadata"]["generation"]
            if not at or (ready.get("status"), ready.get("reason")) != ("True", reason):
                yield f"{name} is not {reason}: {ready.get('reason')} {ready.get('message')}"
                return
            self._placed[name] = self._cloud.guest(name)
        for name in self._placed.keys() - model.keys():
            del self._placed[name]
        yield from self._unlike(model)

    def _unlike(self, model: Model) -> Iterator[str]:
        """Where the host is not what the API says."""
        guests = self._placed
        running = {guests[name].uid for name, machine in model.items() if machine.running}
        found = self._cloud.traces()
        owners = {uid for file in found.files for uid in _UID.findall(file)}
        uids = {guest.uid for guest in guests.values()}
        if found.domains != uids:
            yield f"domains {sorted(found.domains)} instead of {sorted(uids)}"
        if found.running != running or len(found.processes) != len(running):
            yield f"running {sorted(found.running)} by {sorted(found.processes)} instead of {sorted(running)}"
        taps = sorted(guest.tap for guest in guests.values() if guest.uid in running)
        if sorted(line.split()[0] for line in found.links if _is_tap(line)) != taps:
            yield f"taps {sorted(found.links)} instead of {taps}"
        addresses = {guest.address for guest in guests.values() if guest.uid in running}
        routed = {line.split()[0] for line in found.routes if any(tap in line.split() for tap in taps)}
        if routed != addresses:
            yield f"routes to {sorted(routed)} instead of {sorted(addresses)}"
        if not owners <= uids:
            yield f"files of {sorted(owners - uids)}, who are no more"
        taken = {name.rpartition("/")[2] for name in self._cloud.allocations()}
        if len(taken) != len(guests):
            yield f"{sorted(taken)} are allocated to {len(guests)} guests"
        if len(self._cloud.instances()) != len(guests):
            yield f"{sorted(self._cloud.instances())} stand for {len(guests)} guests"

    # Proof.

    def _prove(self, model: Model, pids: dict[str, frozenset[int]]) -> None:
        """What must hold of every guest, whatever happened."""
        addresses = Counter(guest.address for guest in self._placed.values())
        if doubled := [address for address, count in addresses.items() if count > 1]:
            raise Broken(f"addresses that two guests have: {doubled}")
        for name, machine in model.items():
            guest = self._placed[name]
            if self._addresses.setdefault(machine.token, guest.address) != guest.address:
                raise Broken(f"{name} had {self._addresses[machine.token]}, and has {guest.address} now")
            if machine.running:
                self._prove_alive(guest, machine)
            if name in pids and machine.running and (now := self._cloud.traces(guest).processes) != pids[name]:
                raise Broken(f"{name} was touched by nothing, and its QEMU is {now} instead of {pids[name]}")
        self._prove_logs()
        self.told.checks += 1

    def _prove_alive(self, guest: Guest, machine: Machine) -> None:
        """The guest at its address is this one, and has its data."""
        if (said := guest.get()) != guest.name:
            raise Broken(f"{guest.address} is {guest.name}'s, and {said} answers there")
        if machine.token not in self._written:
            guest.post("/cgi-bin/write?name=token", machine.token.encode())
            self._written.add(machine.token)
        if (data := guest.get("/data/token")) != machine.token:
            raise Broken(f"{guest.name} has {data!r} on its disk instead of {machine.token!r}")

    def _prove_logs(self) -> None:
        for path in self._log_files():
            with path.open(encoding="utf-8", errors="replace") as log:
                log.seek(self._read_to.get(path, 0))
                said = log.read()
                self._read_to[path] = log.tell()
            for word in ("Traceback", "nobody foresaw"):
                if word in said:
                    at = said.index(word)
                    raise Broken(f"{path.name} has: {said[max(0, at - 500) : at + 3000]}")

    def _log_files(self) -> list[pathlib.Path]:
        agent = self._cloud.host.log("agent")
        return [path for path in (agent, self._cloud.lab.folder.logs / "controller.log") if path.exists()]

    def _pids(self, model: Model) -> dict[str, frozenset[int]]:
        return {
            name: self._cloud.traces(self._placed[name]).processes for name, machine in model.items() if machine.running
        }

    def _until(self, true: Callable[[], bool], what: str, wrong: list[str] | None = None) -> None:
        begun = time.monotonic()
        while not true():
            if time.monotonic() - begun > QUIET_WITHIN:
                raise Broken(f"{what} in {QUIET_WITHIN:.0f} s: {wrong or ''}")
            time.sleep(0.3)


def _after(seconds: float, end: End) -> None:
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        end()


def _tried(act: Callable[[], None]) -> bool:
    try:
        act()
    except errors.LabError as error:
        # What the API server refuses for good would be refused for ever: only its absence is waited for.
        if "invalid" in error.sentence:
            raise
        return False
    return True


def _spec(machine: Machine) -> dict[str, object]:
    return {"terminationGracePeriodSeconds": 3, "disks": [{"name": "data", "size": f"{16 + machine.life % 16}Mi"}]}


def _is_tap(line: str) -> bool:
    return line.startswith("ct")
