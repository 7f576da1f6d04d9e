"""A lab as its tests see it: what they write to the API, what guests answer, what a host really has.

`conftest` makes one for the whole run.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from corral.agent import desired
from corral_lab import demo, kubectl, lab
from corral_lab.host import namespace

CLASS, NETWORK, POOL, IMAGE = "lab-test", "lab-test", "lab-test", "lab"
TENANT = "lab-test"
READY_WITHIN = 60.0


def until(true: Callable[[], object], *, within: float = 15.0, every: float = 0.1) -> float:
    """Wait for it, and say how many seconds that took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < within, "it did not happen in time"
        time.sleep(every)
    return time.monotonic() - begun


@dataclass(frozen=True, slots=True)
class Traces:
    """What is on a host of all guests, or of one: how tests compare states.

    `domains` and `running` are uuids as libvirt tells them, `processes` pids of QEMU, `links`, `routes` and
    `neighbours` iproute2's own lines without the blackholes of blocks, which are the host's, `filters` sets of the
    firewall and the taps in them, `files` paths below the agent's folder without the image cache.
    """

    domains: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    processes: frozenset[int] = frozenset()
    links: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()
    neighbours: frozenset[str] = frozenset()
    filters: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


NOTHING = Traces()

_PREFIXES = "jsonpath={.items[*].spec.prefix}"


@dataclass(frozen=True, slots=True)
class Guest:
    """A VirtualMachine that was placed: its name, its uid and its first address."""

    name: str
    uid: str
    address: str

    @property
    def tap(self) -> str:
        return desired.tap_name(self.uid, "eth0")

    def get(self, path: str = "/") -> str:
        """What the guest's own web server says; it may still be booting."""
        return demo.answers(self.address, path)

    def meta(self) -> Any:
        """What the guest sees of itself."""
        return json.loads(self.get("/meta.json"))

    def post(self, path: str, body: bytes = b"") -> str:
        """The same with a body; the guest answers already."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.address}{path}", data=body, timeout=10) as answer:
            return str(answer.read().decode().strip())

    def fetches(self, other: Guest) -> str:
        """What the other guest's web server says to this guest."""
        return self.asks(other.address)

    def asks(self, address: str) -> str:
        """What the web server at this address says to this guest."""
        return self.post(f"/cgi-bin/fetch?{address}")

    def pings(self) -> bool:
        ping = ["ping", "-c", "1", "-W", "2", self.address]
        return subprocess.run(ping, capture_output=True, timeout=10, check=False).returncode == 0

    def is_silent(self) -> bool:
        """Whether its web server does not answer now."""
        try:
            self.post("/index.txt")
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return True
        return False


@dataclass(frozen=True, slots=True)
class Cloud:
    """One lab, with a class, a pool, a network and a namespace for tests, seen from its host of this number."""

    lab: lab.Lab
    api: kubectl.Kubectl
    number: int = 1

    @property
    def host(self) -> namespace.Host:
        return self.lab.host(self.number)

    @property
    def address(self) -> str:
        """The machine's address that hosts reach."""
        options = self.lab.options()
        assert options is not None
        return str(options.address)

    def apply(self, name: str, **spec: Any) -> None:
        """Apply a VirtualMachine: small, with the lab's image, on the tests' network, but for what `spec` says."""
        self.apply_all([name], **spec)

    def apply_all(self, names: Iterable[str], **spec: Any) -> None:
        """The same for several, in one go."""
        whole = {
            "imageRef": {"name": IMAGE},
            "networks": [{"name": "eth0", "networkRef": {"name": NETWORK}}],
            "terminationGracePeriodSeconds": 20,
        } | spec
        if "memory" not in whole:
            whole.setdefault("classRef", {"name": CLASS})
        self.api.apply(*(_object("VirtualMachine", name, whole) for name in names))

    def image(self, name: str, url: str, sha256: str) -> None:
        """Apply an Image of the tests' namespace that boots as the lab's does, from another disk."""
        boot = self.api.get(f"clusterimage.corral.dev/{IMAGE}")["spec"]["directBoot"]
        source = {"url": url, "sha256": sha256}
        self.api.apply(_object("Image", name, {"source": source, "format": "qcow2", "directBoot": boot}))

    def vm(self, name: str) -> Any:
        return self.api.get(f"vm.corral.dev/{name}", "--namespace", TENANT)

    def ready(self, name: str) -> Any:
        """The condition Ready of the VirtualMachine, or an empty one."""
        conditions = self.vm(name).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Ready"), {"status": "", "reason": "", "message": ""})

    def up(self, *names: str, within: float = READY_WITHIN) -> None:
        """Wait until these VirtualMachines are Ready."""
        what = [f"vm.corral.dev/{name}" for name in names]
        self.api.wait("condition=Ready", *what, "--namespace", TENANT, seconds=within)

    def halted(self, name: str) -> None:
        """Have it off, and wait until it is."""
        self.apply_strategy(name, "Halted")
        until(lambda: self.ready(name)["reason"] == "Halted", within=READY_WITHIN)

    def apply_strategy(self, name: str, strategy: str) -> None:
        patch = json.dumps({"spec": {"runStrategy": strategy}})
        self.api.run("patch", f"vm.corral.dev/{name}", "--namespace", TENANT, "--type=merge", "--patch", patch)

    def guest(self, name: str) -> Guest:
        """The VirtualMachine as it was placed."""
        found = self.vm(name)
        address = found["status"]["placement"]["addresses"][0]["address"]
        return Guest(name, found["metadata"]["uid"], address)

    def delete(self, *names: str) -> None:
        what = [f"vm.corral.dev/{name}" for name in names]
        self.api.run("delete", *what, "--namespace", TENANT, "--ignore-not-found", limit=30)

    def allocations(self) -> frozenset[str]:
        """The addresses that are taken, as the ledger names them."""
        return frozenset(self.api.run("get", "ipallocations.corral.dev", "--output", "name").split())

    def blocks(self) -> frozenset[str]:
        """The blocks of addresses of the host, by prefix."""
        where = ("--field-selector", f"spec.host={self.host.name}")
        return frozenset(self.api.run("get", "ipblocks.corral.dev", *where, "--output", _PREFIXES).split())

    def instances(self) -> frozenset[str]:
        where = ("--namespace", f"corral-host-{self.host.name}")
        return frozenset(self.api.run("get", "instances.corral.dev", *where, "--output", "name").split())

    def on_host(self, *command: str) -> str:
        """Run a program on the host, and return what it prints."""
        done = subprocess.run(self.host.command(command), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tries_on_host(self, *command: str) -> bool:
        """Run a program on the host; whether it succeeded, in half a minute."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return (
                subprocess.run(self.host.command(command), capture_output=True, timeout=30, check=False).returncode == 0
            )
        return False

    def virsh(self, *arguments: str) -> str:
        return self.on_host("virsh", "--quiet", "--connect", "qemu:///system", *arguments)

    def qemu(self, guest: Guest) -> int:
        """The pid of the guest's QEMU."""
        (pid,) = self.traces(guest).processes
        return pid

    def traces(self, guest: Guest | None = None) -> Traces:
        """What is on the host now: of all guests, or of one."""
        state = self.host.folder / "corral"
        # Unlike rglob, walk bears that a folder goes meanwhile.
        kept = ((pathlib.Path(here).relative_to(state), names) for here, _, names in os.walk(state))
        found = Traces(
            domains=frozenset(self.virsh("list", "--all", "--uuid").split()),
            running=frozenset(self.virsh("list", "--uuid").split()),
            processes=frozenset(pid for pid in self.host.processes() if _is_qemu(pid)),
            links=_lines(self.on_host("ip", "-brief", "link")),
            routes=frozenset(
                line
                for line in _lines(self.on_host("ip", "route", "show", "table", "main"))
                if not line.startswith("blackhole ")
            ),
            neighbours=_lines(self.on_host("ip", "neighbour", "show", "nud", "permanent")),
            filters=frozenset(_filters(self.on_host("nft", "--json", "list", "ruleset"))),
            files=frozenset(str(here / name) for here, names in kept for name in names if here.name != "images"),
        )
        return found if guest is None else _only(found, guest)

    def cached_images(self) -> frozenset[str]:
        """Names of the disk images in the host's cache, whole and half-made ones; kernels come and stay beside them."""
        names = (path.name for path in (self.host.folder / "corral" / "images").glob("*"))
        return frozenset(name for name in names if not name.endswith(".blob"))

    def writes(self) -> list[tuple[str, str, str]]:
        """Every write by Corral so far, but the signs of life: who, which verb, which object."""
        audit = self.lab.folder.logs / "audit.log"
        events = (json.loads(line) for line in audit.read_text().splitlines())
        return [
            (event["user"]["username"], event["verb"], f"{ref['resource']}/{ref.get('name', '')}")
            for event in events
            if event["user"]["username"].startswith("corral:") and (ref := event["objectRef"])["resource"] != "leases"
        ]


def objects(*prefixes: str) -> list[dict[str, Any]]:
    """What the tests' VirtualMachines refer to."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANT}},
        _object("VirtualMachineClass", CLASS, {"cpu": 1, "memory": "96Mi"}, None),
        _object("IPPool", POOL, {"prefixes": list(prefixes), "coolDownSeconds": 0}, None),
        _object("ClusterNetwork", NETWORK, {"poolRefs": [{"name": POOL}]}, None),
    ]


def _object(kind: str, name: str, spec: dict[str, Any], where: str | None = TENANT) -> dict[str, Any]:
    metadata = {"name": name} | ({} if where is None else {"namespace": where})
    return {"apiVersion": "corral.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _lines(text: str) -> frozenset[str]:
    return frozenset(" ".join(line.split()) for line in text.splitlines())


def _filters(ruleset: str) -> Iterator[str]:
    """Of each tap in a set of the firewall, the set and the tap."""
    for item in json.loads(ruleset)["nftables"]:
        shown = item.get("set") or item.get("map") or {}
        for tap in re.findall(r"\bct[0-9a-f]{12}\b", json.dumps(shown.get("elem", []))):
            yield f"{shown['name']} {tap}"


def _is_qemu(pid: int) -> bool:
    return "qemu-system" in _command(pid)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read().replace("\0", " ")
    return ""


def _only(found: Traces, guest: Guest) -> Traces:
    def about(lines: Iterable[str], *words: str) -> frozenset[str]:
        return frozenset(line for line in lines if any(word in line.split() for word in words))

    return Traces(
        domains=found.domains & {guest.uid},
        running=found.running & {guest.uid},
        processes=frozenset(pid for pid in found.processes if guest.uid in _command(pid)),
        links=about(found.links, guest.tap),
        routes=about(found.routes, guest.tap, guest.address),
        neighbours=about(found.neighbours, guest.tap, guest.address),
        filters=about(found.filters, guest.tap),
        files=frozenset(name for name in found.files if guest.uid in name),
    )
