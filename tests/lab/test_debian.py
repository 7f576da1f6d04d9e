"""A whole distribution: Debian 12 with cloud-init, one guest by BIOS and one by UEFI, both booted at the same time."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from corral_lab import paths, progress
from corral_lab.guest import debian as recipe

from .cloud import NETWORK, TENANT, Cloud, Guest, until
from .conftest import remove

pytestmark = pytest.mark.lab

BOOTED_WITHIN = 600.0
"""Quiet, both answer over SSH in a minute: emulated processors are slow on a machine that has other work."""

SECRET = "debian-user-data"
TOLD = "told by a Secret"
MTU = 1400
DNS, SEARCH = "10.99.0.53", "ours.example"


@dataclasses.dataclass(frozen=True, slots=True)
class Shell:
    """A guest with a whole system, by SSH with the key that its manifest names."""

    guest: Guest
    key: pathlib.Path

    def run(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def answers(self) -> bool:
        return self.ssh("true").returncode == 0

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "StrictHostKeyChecking": "accept-new",
            # A guest that makes itself new keys is another one.
            "UserKnownHostsFile": f"{self.key}.{self.guest.name}",
            "IdentitiesOnly": "yes",
        }
        argv = ["ssh", "-F", "none", "-i", str(self.key), *(f"-o{name}={value}" for name, value in options.items())]
        argv += [f"{recipe.USER}@{self.guest.address}", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)

    def booted(self) -> None:
        """Wait until cloud-init has done all that it does."""
        # Not by asking cloud-init, whose interpreter takes an emulated processor as long as a part of the boot.
        done = "/run/cloud-init/result.json"
        until(lambda: self.ssh(f"test -e {done}").returncode == 0, within=BOOTED_WITHIN, every=1.0)
        assert json.loads(self.run(f"cat {done}"))["v1"]["errors"] == []


@pytest.fixture(scope="module")
def image(cloud: Cloud) -> str:
    """The image, offered in the lab; built where it was not."""
    cache = paths.Cache.find(os.environ)
    if not (cache.guest / recipe.key()).exists() and not recipe.can_be_built():
        pytest.skip("apt has no packages of Debian 12 here")
    return cloud.lab.add_debian(progress.silent())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made)], check=True)
    return made


@pytest.fixture(scope="module")
def shells(cloud: Cloud, image: str, key: pathlib.Path) -> Iterator[dict[str, Shell]]:
    """One guest by each firmware, told by a Secret and by its manifest."""
    pool = cloud.api.get(f"clusternetwork.corral.dev/{NETWORK}")["spec"]["poolRefs"]
    network = {"poolRefs": pool, "mtu": MTU, "dnsServers": [DNS], "searchDomains": [SEARCH]}
    user_data = f"#cloud-config\nwrite_files:\n- {{path: /etc/told, content: {TOLD}}}\n"
    metadata = {"name": SECRET, "namespace": TENANT}
    cloud.api.apply(
        _ours("VirtualMachineClass", "debian-uefi", {"cpu": 1, "memory": "512Mi", "firmware": "UEFI"}),
        _ours("Network", "debian", network, namespace=TENANT),
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"text": user_data}},
    )
    common = {
        "imageRef": {"name": image},
        "sshAuthorizedKeys": [key.with_suffix(".pub").read_text().strip()],
        "networks": [{"name": "eth0", "networkRef": {"kind": "Network", "name": "debian"}}],
        "terminationGracePeriodSeconds": 120,
    }
    secret_ref = {"userDataSecretRef": {"name": SECRET, "key": "text"}}
    try:
        cloud.apply("debian-bios", **common, cpu=1, memory="512Mi", cloudInit=secret_ref)
        cloud.apply("debian-uefi", **common, classRef={"name": "debian-uefi"}, cloudInit={"userData": "#!/bin/sh\n"})
        cloud.up("debian-bios", "debian-uefi", within=120)
        made = {name: Shell(cloud.guest(f"debian-{name}"), key) for name in ("bios", "uefi")}
        for shell in made.values():
            shell.booted()
        yield made
    finally:
        remove(cloud, "debian-bios", "debian-uefi")
        cloud.api.run("delete", "vmclass/debian-uefi", f"secret/{SECRET}", "network.corral.dev/debian", "-n", TENANT)


def test_user_data_of_a_secret_arrives(cloud: Cloud, shells: dict[str, Shell]) -> None:
    bios = shells["bios"]
    assert bios.run("cat /etc/told") == TOLD
    assert bios.run("hostname") == "debian-bios"
    assert bios.run("cat /var/lib/cloud/data/instance-id") == f"{bios.guest.uid}-0"
    written = [one for one in cloud.instances() if bios.guest.uid in one]
    spec = cloud.api.get(written[0], "--namespace", f"corral-host-{cloud.host.name}")
    assert TOLD not in json.dumps(spec)


def test_its_network_is_as_its_manifest_says(shells: dict[str, Shell]) -> None:
    bios, uefi = shells["bios"], shells["uefi"]
    assert f"{bios.guest.address}/32" in bios.run("ip -4 -brief address show dev eth0")
    assert bios.run("ip -4 route show default").startswith("default via 169.254.1.1 dev eth0")
    assert f"mtu {MTU}" in bios.run("ip link show dev eth0")
    said = bios.run("resolvectl --no-pager status eth0")
    assert DNS in said
    assert SEARCH in said
    bios.run("ping -c 1 -W 5 169.254.1.1")
    bios.run(f"ping -c 1 -W 5 {uefi.guest.address}")
    uefi.run(f"ping -c 1 -W 5 -s {MTU - 28} -M do {bios.guest.address}")


def test_each_is_started_by_its_firmware(cloud: Cloud, shells: dict[str, Shell]) -> None:
    assert shells["bios"].ssh("test -e /sys/firmware/efi").returncode == 1
    shells["uefi"].run("test -d /sys/firmware/efi/efivars")
    assert any(name.endswith(".fd") for name in cloud.traces(shells["uefi"].guest).files)


def test_its_agent_answers_the_host(cloud: Cloud, shells: dict[str, Shell]) -> None:
    for shell in shells.values():
        said = cloud.virsh("qemu-agent-command", shell.guest.uid, json.dumps({"execute": "guest-ping"}))
        assert json.loads(said) == {"return": {}}


def test_it_shuts_down_by_its_power_button_and_is_the_same_afterwards(cloud: Cloud, shells: dict[str, Shell]) -> None:
    uefi = shells["uefi"]
    before = uefi.run("cat /etc/ssh/ssh_host_ed25519_key.pub /proc/sys/kernel/random/boot_id").splitlines()
    uefi.run("sudo touch /var/lib/cloud/instance/seen; sync")
    cloud.apply_strategy("debian-uefi", "Halted")
    # Well before its grace is over: nothing is powered off here.
    until(lambda: cloud.ready("debian-uefi")["reason"] == "Halted", within=100)
    cloud.apply_strategy("debian-uefi", "Always")
    until(uefi.answers, within=BOOTED_WITHIN, every=1.0)
    after = uefi.run("cat /etc/ssh/ssh_host_ed25519_key.pub /proc/sys/kernel/random/boot_id").splitlines()
    assert after[0] == before[0]
    assert after[1] != before[1]
    uefi.run("test -e /var/lib/cloud/instance/seen")


def _ours(kind: str, name: str, spec: dict[str, object], namespace: str | None = None) -> dict[str, object]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "corral.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
