"""What somebody changes on a host by hand is put back: heard of at once, or found by looking alone. And it is counted.

A row of the table is one thing that can be changed; a feature that keeps something new on a host adds its row.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from corral_lab.host import programs
from corral_lab.lab import AGENT, METRICS_PORT

from .cloud import Cloud, Guest, until
from .conftest import remove

pytestmark = pytest.mark.lab

WITHIN = 2.0
"""Seconds within which all is as it was, on a machine that has a processor for it."""

PATIENCE = 30.0

FOREIGN = """\
<domain type='qemu'>
  <name>foreign</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
</domain>
"""

MODES = {
    "events": ("--look-every", "0"),
    "look": ("--look-every", "1", "--no-events"),
}
"""How the agent runs: what it hears is all it has, and the other way round."""


@dataclass(slots=True)
class Scene:
    """A guest that runs and one that is off, and what was so of the first before somebody came."""

    cloud: Cloud
    guest: Guest
    halted: Guest
    pid: int = 0
    inodes: dict[pathlib.Path, int] = field(default_factory=dict)

    def disk(self, guest: Guest) -> pathlib.Path:
        return self.cloud.host.folder / "corral" / "disks" / guest.uid / "root.qcow2"

    @property
    def seed(self) -> pathlib.Path:
        return self.cloud.host.folder / "corral" / "seeds" / f"{self.guest.uid}.iso"

    @property
    def answers(self) -> pathlib.Path:
        return self.cloud.host.folder / "corral" / "dhcp" / f"{self.guest.uid}.json"

    def remember(self) -> None:
        self.pid = self.cloud.qemu(self.guest)
        self.inodes = {self.disk(guest): self.disk(guest).stat().st_ino for guest in (self.guest, self.halted)}

    def ip(self, *words: str) -> str:
        return self.cloud.on_host("ip", *words)

    def block(self) -> str:
        """The block of addresses that the guest's is of."""
        blocks = self.cloud.blocks()
        return next(
            block for block in blocks if ipaddress.ip_address(self.guest.address) in ipaddress.ip_network(block)
        )

    def definition(self, guest: Guest) -> str:
        """As libvirt stores it; empty where it stores none."""
        stored = self.cloud.virsh("list", "--all", "--persistent", "--uuid").split()
        return self.cloud.virsh("dumpxml", "--inactive", guest.uid) if guest.uid in stored else ""

    def edit(self, guest: Guest) -> None:
        """Define it with more processors than it should have."""
        file = self.cloud.host.folder / "edited.xml"
        file.write_text(re.sub(r"(<vcpu[^>]*>)\d+", r"\g<1>3", self.definition(guest)))
        self.cloud.virsh("define", str(file))
        file.unlink()

    def runs_on(self) -> bool:
        """Whether the guest's process is the one that it was."""
        return self.pid in self.cloud.traces(self.guest).processes

    def is_same_disk(self, guest: Guest) -> bool:
        disk = self.disk(guest)
        names = {path.name for path in disk.parent.iterdir() if path.stat().st_ino == self.inodes[disk]}
        return names == {disk.name}

    def pings(self) -> bool:
        ping = ["ping", "-c", "1", "-W", "0.2", self.guest.address]
        return subprocess.run(ping, capture_output=True, timeout=10, check=False).returncode == 0

    def filters(self) -> frozenset[str]:
        return self.cloud.traces(self.guest).filters

    def forget_source(self) -> None:
        """Have the firewall not know any more what the guest sends from."""
        shown = json.loads(self.cloud.on_host("nft", "--json", "list", "ruleset"))["nftables"]
        (known,) = [item["set"] for item in shown if item.get("set", {}).get("name") == "sources4"]
        (key,) = [one["concat"] for one in known["elem"] if self.guest.tap in one["concat"]]
        self.cloud.on_host("nft", "delete", "element", "inet", known["table"], "sources4", "{", " . ".join(key), "}")

    def is_held(self) -> bool:
        """Whether the guest has the other end of its tap."""
        shown = self.cloud.tries_on_host("ip", "link", "show", self.guest.tap)
        return shown and "LOWER_UP" in self.ip("link", "show", self.guest.tap)


@dataclass(frozen=True, slots=True)
class Row:
    """Something that somebody changes, how one sees that it is back, and the rooms that count it."""

    name: str
    disturb: Callable[[Scene], object]
    is_back: Callable[[Scene], bool]
    rooms: tuple[str, ...]
    within: float = WITHIN


TABLE = [
    Row(
        "route deleted",
        lambda scene: scene.ip("route", "delete", scene.guest.address),
        lambda scene: scene.guest.tap in scene.ip("route", "show", scene.guest.address),
        ("routing",),
    ),
    Row(
        "neighbour deleted",
        lambda scene: scene.ip("neighbour", "delete", scene.guest.address, "dev", scene.guest.tap),
        lambda scene: scene.guest.address in scene.ip("neighbour", "show", "nud", "permanent"),
        ("routing",),
    ),
    Row(
        "rules flushed",
        lambda scene: scene.cloud.on_host("nft", "flush", "ruleset"),
        lambda scene: bool(scene.filters()) and scene.pings(),
        ("firewall",),
    ),
    Row(
        "element of the firewall removed",
        lambda scene: scene.forget_source(),
        lambda scene: f"sources4 {scene.guest.tap}" in scene.filters() and scene.pings(),
        ("firewall",),
    ),
    Row(
        "blackhole deleted",
        lambda scene: scene.ip("route", "delete", "blackhole", scene.block()),
        lambda scene: scene.block() in scene.ip("route", "show", "type", "blackhole"),
        ("routing",),
    ),
    Row(
        "IPv6 gateway deleted",
        lambda scene: scene.ip("address", "delete", "fe80::1/64", "dev", scene.guest.tap),
        lambda scene: "fe80::1/64" in scene.ip("-6", "address", "show", "dev", scene.guest.tap),
        ("link",),
    ),
    Row("seed removed", lambda scene: scene.seed.unlink(), lambda scene: scene.seed.exists(), ("seed",)),
    Row("answers removed", lambda scene: scene.answers.unlink(), lambda scene: scene.answers.exists(), ("dhcp",)),
    Row(
        "answers edited",
        lambda scene: scene.answers.write_text(scene.answers.read_text().replace('"mtu"', '"utm"')),
        lambda scene: '"mtu"' in scene.answers.read_text(),
        ("dhcp",),
    ),
    Row(
        "disk renamed",
        lambda scene: scene.disk(scene.guest).rename(scene.disk(scene.guest).with_name("old.qcow2")),
        lambda scene: scene.is_same_disk(scene.guest),
        ("storage",),
    ),
    Row(
        "disk deleted",
        lambda scene: scene.disk(scene.guest).unlink(),
        lambda scene: scene.is_same_disk(scene.guest),
        ("storage",),
    ),
    Row(
        "disk of a halted guest renamed",
        lambda scene: scene.disk(scene.halted).rename(scene.disk(scene.halted).with_name("old")),
        lambda scene: scene.is_same_disk(scene.halted),
        ("storage",),
    ),
    Row(
        "undefined",
        lambda scene: scene.cloud.virsh("undefine", scene.guest.uid),
        lambda scene: bool(scene.definition(scene.guest)),
        ("hypervisor",),
    ),
    Row(
        "edited",
        lambda scene: scene.edit(scene.guest),
        lambda scene: ">1</vcpu>" in scene.definition(scene.guest),
        ("hypervisor",),
    ),
    Row(
        "halted guest undefined",
        lambda scene: scene.cloud.virsh("undefine", scene.halted.uid),
        lambda scene: bool(scene.definition(scene.halted)),
        ("hypervisor",),
    ),
    Row(
        "halted guest edited",
        lambda scene: scene.edit(scene.halted),
        lambda scene: ">1</vcpu>" in scene.definition(scene.halted),
        ("hypervisor",),
    ),
    Row(
        "tap deleted",
        lambda scene: scene.ip("link", "delete", scene.guest.tap),
        Scene.is_held,
        ("hypervisor", "link", "routing"),
    ),
    Row(
        "NIC detached",
        lambda scene: scene.cloud.virsh("detach-interface", scene.guest.uid, "ethernet", "--live"),
        Scene.is_held,
        ("hypervisor",),
        # A guest lets go of a NIC when it likes, and none is plugged in more often than every five seconds.
        within=10.0,
    ),
]
"""None of these ends the guest; one that does follows on its own."""

DESTROYED = Row(
    "destroyed",
    lambda scene: scene.cloud.virsh("destroy", scene.guest.uid),
    lambda scene: scene.cloud.virsh("domstate", scene.guest.uid).strip() == "running",
    ("hypervisor",),
)


@pytest.fixture(scope="module")
def guests(cloud: Cloud) -> Iterator[Scene]:
    """The guests of this module; each test leaves one running and one off."""
    names = ["drifting", "drifting-halted"]
    try:
        cloud.apply(names[0])
        cloud.apply(names[1], runStrategy="Halted")
        cloud.up(names[0])
        until(lambda: cloud.ready(names[1])["reason"] == "Halted", within=60)
        scene = Scene(cloud, cloud.guest(names[0]), cloud.guest(names[1]))
        assert scene.guest.get() == names[0]
        yield scene
    finally:
        remove(cloud, *names)


@pytest.fixture(scope="module")
def agent(cloud: Cloud, guests: Scene) -> Iterator[Callable[[str], None]]:
    """Has the agent run as a mode has it, until it has seen that all is well; afterwards it is as it was."""

    def run(mode: str) -> None:
        programs.stop(cloud.host, AGENT)
        cloud.lab.start_agent(1, *MODES[mode])
        # Of each guest one pass at least, which finds it as it should be.
        until(lambda: _passes(cloud) >= 2, within=PATIENCE)
        cloud.up(guests.guest.name)

    try:
        yield run
    finally:
        programs.stop(cloud.host, AGENT)
        cloud.lab.start_agent(1)


@pytest.fixture(scope="module", params=MODES)
def mode(agent: Callable[[str], None], request: pytest.FixtureRequest) -> str:
    agent(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], float]]:
    """Seconds from each change until it was put back, shown when all are known."""
    taken: dict[tuple[str, str], float] = {}
    yield taken
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n\nseconds until put back            events    look")  # noqa: T201 - what the test is for
        for row in dict.fromkeys(name for name, _ in taken):
            shown = (f"{taken[row, mode]:8.2f}" if (row, mode) in taken else " " * 8 for mode in MODES)
            print(f"{row:32}{''.join(shown)}")  # noqa: T201


@pytest.fixture(scope="module")
def foreign(cloud: Cloud, guests: Scene) -> Iterator[Callable[[], object]]:
    """Things of others among ours; called, it tells all that can be seen of them."""
    state = cloud.host.folder / "corral"
    files = [state / "disks" / "notes.txt", guests.disk(guests.guest).with_name("notes.txt"), state / "seeds" / "notes"]
    other_mark = f"corral:other-cloud:other-host:{guests.guest.uid}"
    definitions = {"foreign": FOREIGN, "others": _of_another_cloud(guests)}

    def shown() -> object:
        return (
            [file.read_text() for file in files],
            [guests.ip("-details", "link", "show", tap) for tap in ("foreign0", "foreign1")],
            guests.ip("route", "show", "proto", "static"),
            guests.ip("neighbour", "show", "dev", "foreign0"),
            [cloud.virsh("dumpxml", "--inactive", name) + cloud.virsh("domstate", name) for name in definitions],
        )

    try:
        for file in files:
            file.write_text("mine")
        for tap, alias in (("foreign0", "uplink"), ("foreign1", other_mark)):
            guests.ip("tuntap", "add", "dev", tap, "mode", "tap")
            guests.ip("link", "set", "dev", tap, "alias", alias, "up")
        guests.ip("route", "add", "10.254.7.0/24", "dev", "foreign0", "proto", "static")
        guests.ip(
            "neighbour", "add", "10.254.7.7", "lladdr", "02:00:00:00:00:07", "dev", "foreign0", "nud", "permanent"
        )
        for name, xml in definitions.items():
            file = cloud.host.folder / f"{name}.xml"
            file.write_text(xml)
            cloud.virsh("define", str(file))
            file.unlink()
        cloud.virsh("start", "foreign", "--paused")
        yield shown
    finally:
        cloud.tries_on_host("virsh", "destroy", "foreign")
        for name in definitions:
            cloud.tries_on_host("virsh", "undefine", name)
        for tap in ("foreign0", "foreign1"):
            cloud.tries_on_host("ip", "link", "delete", tap)
        for file in files:
            file.unlink(missing_ok=True)


@pytest.fixture
def scene(guests: Scene, mode: str) -> Scene:
    guests.remember()
    return guests


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_what_is_changed_by_hand_is_put_back_while_the_guest_runs_on(
    scene: Scene, mode: str, row: Row, figures: dict[tuple[str, str], float], foreign: Callable[[], object]
) -> None:
    others = foreign()
    figures[row.name, mode] = took = _put_back(scene, row)
    if row.is_back is Scene.is_held:
        figures[f"{row.name}, until it pings", mode] = took + until(scene.pings, within=PATIENCE, every=0.02)
    assert scene.runs_on()
    assert scene.guest.get() == scene.guest.name
    assert foreign() == others


def test_a_guest_that_is_ended_by_hand_runs_again(
    scene: Scene, mode: str, figures: dict[tuple[str, str], float], foreign: Callable[[], object]
) -> None:
    others, boots = foreign(), scene.guest.meta()["boots"]
    figures[DESTROYED.name, mode] = _put_back(scene, DESTROYED)
    until(lambda: scene.guest.meta()["boots"] == boots + 1, within=60)
    assert foreign() == others


def test_a_disk_that_is_destroyed_is_told_and_not_made_anew(scene: Scene) -> None:
    disk, name = scene.disk(scene.halted), scene.halted.name
    saved = scene.cloud.host.folder / "saved"
    second = disk.parents[1] / ".kept" / disk.parent.name / disk.name
    second.unlink()
    disk.rename(saved)
    until(lambda: scene.cloud.ready(name)["reason"] == "DiskMissing", within=PATIENCE)
    assert f"disk root was at {disk} and is gone" in scene.cloud.ready(name)["message"]
    assert not disk.exists()
    saved.rename(disk)
    until(lambda: scene.cloud.ready(name)["reason"] == "Halted", within=PATIENCE)
    assert second.samefile(disk)


def _put_back(scene: Scene, row: Row) -> float:
    """Disturb, and return how long it takes until all is as it was, and counted."""
    before = _counted(scene.cloud)
    row.disturb(scene)
    took = until(lambda: row.is_back(scene), within=PATIENCE, every=0.02)
    until(lambda: all(_counted(scene.cloud).get(room, 0) > before.get(room, 0) for room in row.rooms))
    strain = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert took < row.within * strain
    return took


def _of_another_cloud(scene: Scene) -> str:
    """A definition like that of the halted guest, by another name and uuid, marked by another cloud."""
    xml = scene.definition(scene.halted).replace(scene.halted.uid, str(uuid.uuid5(uuid.NAMESPACE_DNS, "others")))
    return re.sub(r" cloud='[^']*'", " cloud='other-cloud'", re.sub(r"<name>[^<]*", "<name>others", xml))


def _counted(cloud: Cloud) -> dict[str, float]:
    """How often something was put back, by room."""
    return {
        room: float(value)
        for room, value in re.findall(r'^corral_drift_put_back_total\{room="(\w+)"\} (\S+)', _metrics(cloud), re.M)
    }


def _passes(cloud: Cloud) -> float:
    """How many passes over Instances the agent has made."""
    counts = re.findall(r'^corral_reconciles_total\{kind="instances",outcome="done"\} (\S+)', _metrics(cloud), re.M)
    return sum(map(float, counts))


def _metrics(cloud: Cloud) -> str:
    address = f"http://127.0.0.1:{METRICS_PORT}/metrics"
    return cloud.on_host("curl", "--silent", "--show-error", "--retry", "20", "--retry-connrefused", address)
