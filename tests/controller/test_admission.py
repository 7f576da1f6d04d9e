"""What the API server itself says to manifests: defaults, and refusals that name the field and the remedy."""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from corral import kube
from corral.api import v1alpha1
from corral.api.v1alpha1 import placement
from corral_lab.programs import recipe

from .manifests import KINDS, NAMESPACE, SUM, manifest

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("crds")]

HTTP = "http://images.test/x"
MAC = "02:00:00:00:00:01"


class Kubectl:
    """kubectl, as an administrator; its home is a folder of the test's."""

    def __init__(self, program: pathlib.Path, kubeconfig: pathlib.Path, home: pathlib.Path) -> None:
        self._program = str(program)
        self._environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home)}

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What it prints; it must succeed."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, complaint = await process.communicate(stdin.encode())
        assert process.returncode == 0, complaint.decode()
        return printed.decode()


@pytest.fixture(scope="module")
def kubectl(programs: recipe.Programs, cluster: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(programs.kubectl, cluster, tmp_path_factory.mktemp("home"))


@pytest_asyncio.fixture(scope="module", autouse=True)
async def namespace(admin: kube.Kube, crds: None) -> AsyncIterator[None]:
    made = await admin.create(kube.NAMESPACES, {"metadata": {"name": NAMESPACE}})
    yield
    await admin.delete(kube.NAMESPACES, made)


@pytest_asyncio.fixture
async def api(admin: kube.Kube) -> AsyncIterator[kube.Kube]:
    """The API; what a test leaves of our kinds in our namespace, or under our names, is removed after it."""
    yield admin
    for where in KINDS.values():
        async for page in admin.pages(where, NAMESPACE if where.namespaced else None):
            for obj in page:
                if where.namespaced or obj["metadata"]["name"].startswith("admission-"):
                    await admin.delete(where, obj)


async def refused(api: kube.Kube, kind: str, obj: kube.Object) -> str:
    """The API server's sentence to this manifest."""
    with pytest.raises(kube.ApiRefused) as raised:
        await api.create(KINDS[kind], obj)
    return raised.value.message


# Every kind.


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Cloud"])
async def test_the_smallest_of_every_kind_is_accepted_and_has_its_defaults(api: kube.Kube, kind: str) -> None:
    where = KINDS[kind]
    answer = await api.create(where, manifest(kind))
    read = await api.get(where, NAMESPACE, "admission-x")
    assert read == answer
    resource = next(one for one in v1alpha1.RESOURCES if one.kind.kind == kind)
    assert answer.get("status") == ({"observedGeneration": -1} if resource.kind.has_status else None)
    # What the API server adds is what our models add, so that both sides mean the same by what is left out.
    model = resource.spec.model_validate(manifest(kind)["spec"])
    assert answer["spec"] == model.wire()


async def test_there_is_one_cloud(api: kube.Kube, kubectl: Kubectl) -> None:
    message = await refused(api, "Cloud", manifest("Cloud"))
    assert "there is one Cloud, and its name is cloud" in message
    cloud = {"apiVersion": "corral.dev/v1alpha1", "kind": "Cloud", "metadata": {"name": "cloud"}, "spec": {}}
    printed = await kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(cloud))
    answer = json.loads(printed)
    assert answer["spec"]["deletionGuard"] == {"sharePercent": 20, "floor": 50, "windowSeconds": 600, "release": ""}


async def test_a_status_that_a_tenant_sends_is_dropped(api: kube.Kube) -> None:
    answer = await api.create(
        KINDS["VirtualMachine"], manifest("VirtualMachine") | {"status": {"printableStatus": "Running"}}
    )
    assert answer["status"] == {"observedGeneration": -1}


# What is refused when it is made: what changes, and what the sentence says.

DISK = {"name": "a", "size": "1Gi"}
ROOT = {"name": "boot", "size": "1Gi", "root": True, "imageRef": {"name": "debian"}}
TERM = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "corral.dev/host"}
OLD = {"cpu": None, "memory": None}
ONE_SIZE = ["spec: Invalid value", "give either spec.classRef, or spec.cpu and spec.memory together, not both"]
ONE_ROOT = ["there is exactly one root disk: give spec.imageRef, or root: true on one of spec.disks, not both"]

VM_REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "memory 0": ({"memory": 0}, ["spec.memory", "too small for any guest: give at least 32Mi, such as 512Mi"]),
    "memory 0 as text": ({"memory": "0"}, ["spec.memory", "too small for any guest: give at least 32Mi"]),
    "memory small": ({"memory": "31Mi"}, ["spec.memory", "give at least 32Mi"]),
    "memory of all": ({"memory": "65Ti"}, ["spec.memory", "at most 64Ti: give less, such as 4Gi"]),
    "memory negative as a number": ({"memory": -1}, ["spec.memory", "greater than or equal to 0"]),
    "memory no quantity": ({"memory": "lots"}, ["spec.memory", "should match"]),
    "memory negative": ({"memory": "-1Gi"}, ["spec.memory", "should match"]),
    "cpu 0": ({"cpu": 0}, ["spec.cpu", "greater than or equal to 1"]),
    "cpu 257": ({"cpu": 257}, ["spec.cpu", "less than or equal to 256"]),
    "class and cpu": ({"classRef": {"name": "small"}}, ONE_SIZE),
    "class and memory": ({"classRef": {"name": "small"}, "cpu": None}, ONE_SIZE),
    "neither": (OLD, ONE_SIZE),
    "cpu alone": ({"memory": None}, ONE_SIZE),
    "two root disks": ({"imageRef": None, "disks": [ROOT, ROOT | {"name": "b"}]}, ONE_ROOT),
    "image and root disk": ({"disks": [ROOT]}, ONE_ROOT),
    "no root disk": ({"imageRef": None, "disks": [DISK]}, ONE_ROOT),
    "no disk": ({"imageRef": None}, ONE_ROOT),
    "blank root": (
        {"imageRef": None, "disks": [DISK | {"root": True}]},
        ["spec.disks[0]", "a blank disk can't be booted from: give the root disk an imageRef"],
    ),
    "root disk of no image": (
        {"imageRef": None, "disks": [ROOT], "rootDisk": {"size": "1Gi"}},
        ["spec.rootDisk", "give spec.imageRef, or remove spec.rootDisk"],
    ),
    "disk named root": (
        {"disks": [DISK | {"name": "root"}]},
        ["spec.disks", "give the one in spec.disks another name"],
    ),
    "duplicate disks": ({"disks": [DISK, DISK]}, ["spec.disks[1]", "Duplicate value", '"a"']),
    "disk of 0": ({"disks": [DISK | {"size": "0"}]}, ["spec.disks[0].size", "more than 0, such as 10Gi"]),
    "disk of all": ({"disks": [DISK | {"size": "99999999P"}]}, ["spec.disks[0].size", "at most 1Pi: give less"]),
    "root disk of 0": ({"rootDisk": {"size": "0Gi"}}, ["spec.rootDisk.size", "more than 0, such as 10Gi"]),
    "root disk of all": ({"rootDisk": {"size": "2Pi"}}, ["spec.rootDisk.size", "at most 1Pi: give less"]),
    "nine disks": ({"disks": [DISK | {"name": f"d{n}"} for n in range(9)]}, ["spec.disks", "at most 8 items"]),
    "disk name long": ({"disks": [DISK | {"name": "d" * 21}]}, ["spec.disks[0].name", "Too long", "20"]),
    "interface name long": (
        {"networks": [{"name": "n" * 16, "networkRef": {"name": "a"}}]},
        ["spec.networks[0].name", "Too long", "15"],
    ),
    "interface lo": (
        {"networks": [{"name": "lo", "networkRef": {"name": "a"}}]},
        ["spec.networks[0].name", "lo is the guest's own loopback: give the interface another name, such as eth0"],
    ),
    "two keys in one": (
        {"sshAuthorizedKeys": ["ssh-ed25519 AAAA a\nssh-ed25519 AAAA b"]},
        ["spec.sshAuthorizedKeys[0]", "should match"],
    ),
    "disk name": ({"disks": [DISK | {"name": "Data"}]}, ["spec.disks[0].name", "should match"]),
    "no networks": ({"networks": []}, ["spec.networks", "at least 1 items"]),
    "duplicate networks": (
        {"networks": [{"networkRef": {"name": "a"}}, {"networkRef": {"name": "b"}}]},
        ["spec.networks[1]", "Duplicate value", '"eth0"'],
    ),
    "network of no kind": (
        {"networks": [{"networkRef": {"name": "a", "kind": "Bridge"}}]},
        ["spec.networks[0].networkRef.kind", 'supported values: "ClusterNetwork", "Network"'],
    ),
    "image without a name": ({"imageRef": {}}, ["spec.imageRef.name", "Required value"]),
    "run strategy": ({"runStrategy": "Sometimes"}, ["spec.runStrategy", 'supported values: "Always", "Halted"']),
    "grace": ({"terminationGracePeriodSeconds": -1}, ["spec.terminationGracePeriodSeconds", "greater than or equal"]),
    "key": ({"sshAuthorizedKeys": ["ssh-rsa"]}, ["spec.sshAuthorizedKeys[0]", "at least 16"]),
    "user data": ({"cloudInit": {"userData": "x" * 32769}}, ["spec.cloudInit.userData", "Too long", "32768"]),
    "user data twice": (
        {"cloudInit": {"userData": "x", "userDataSecretRef": {"name": "mine"}}},
        ["spec.cloudInit", "give either spec.cloudInit.userData or spec.cloudInit.userDataSecretRef, not both"],
    ),
    "key of a secret": (
        {"cloudInit": {"userDataSecretRef": {"name": "mine", "key": "a/b"}}},
        ["spec.cloudInit.userDataSecretRef.key", "should match"],
    ),
    "host selector with a key": (
        {"placement": {"hostSelector": {"matchLabels": {"a b": "x"}}}},
        ["spec.placement.hostSelector.matchLabels", "every key must be of length 1 to 253 and form"],
    ),
    "host selector with a value": (
        {"placement": {"hostSelector": {"matchLabels": {"a": "x y"}}}},
        ["spec.placement.hostSelector.matchLabels.a", "should match"],
    ),
    "In of nothing": (
        {"placement": {"hostSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
        ["spec.placement.hostSelector.matchExpressions[0].values", "In and NotIn need values"],
    ),
    "Exists of something": (
        {"placement": {"hostSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}},
        ["spec.placement.hostSelector.matchExpressions[0].values", "Exists and DoesNotExist have none"],
    ),
    "an operator of nodes": (
        {"placement": {"hostSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}},
        ["matchExpressions[0].operator", 'supported values: "In", "NotIn", "Exists", "DoesNotExist"'],
    ),
    "affinity to a region": (
        {"placement": {"affinity": {"required": [TERM | {"topologyKey": "topology.kubernetes.io/region"}]}}},
        ["spec.placement.affinity.required[0].topologyKey", '"corral.dev/host", "topology.kubernetes.io/zone"'],
    ),
    "affinity to nobody": (
        {"placement": {"affinity": {"required": [{"topologyKey": "corral.dev/host"}]}}},
        ["spec.placement.affinity.required[0].labelSelector", "Required value"],
    ),
    "weight 0": (
        {"placement": {"antiAffinity": {"preferred": [TERM | {"weight": 0}]}}},
        ["spec.placement.antiAffinity.preferred[0].weight", "greater than or equal to 1"],
    ),
    "skew 0": (
        {"placement": {"topologySpreadConstraints": [TERM | {"maxSkew": 0}]}},
        ["spec.placement.topologySpreadConstraints[0].maxSkew", "greater than or equal to 1"],
    ),
    "spread twice": (
        {"placement": {"topologySpreadConstraints": [TERM, TERM | {"maxSkew": 2}]}},
        ["spec.placement.topologySpreadConstraints[1]", "Duplicate value"],
    ),
    "nine terms": (
        {"placement": {"antiAffinity": {"required": [TERM] * 9}}},
        ["spec.placement.antiAffinity.required", "at most 8 items"],
    ),
    "unknown field": ({"flavour": "large"}, ["unknown field", "spec.flavour"]),
    "unknown field deep": ({"disks": [DISK | {"bus": "ide"}]}, ["unknown field", "spec.disks[0].bus"]),
}


@pytest.mark.parametrize("case", VM_REFUSED)
async def test_a_virtual_machine_that_is_refused(api: kube.Kube, case: str) -> None:
    change, says = VM_REFUSED[case]
    message = await refused(api, "VirtualMachine", manifest("VirtualMachine", **change))
    assert [part for part in says if part not in message] == [], message


@pytest.mark.parametrize("name", ["n" * 64, "web.example"])
async def test_a_name_that_is_no_host_name_is_refused(api: kube.Kube, name: str) -> None:
    message = await refused(api, "VirtualMachine", manifest("VirtualMachine", name))
    assert "metadata.name is the guest's host name: at most 63 of a-z, 0-9 and '-', without dots" in message


async def test_the_longest_name_is_accepted(api: kube.Kube) -> None:
    assert await api.create(KINDS["VirtualMachine"], manifest("VirtualMachine", "n" * 63))


@pytest.mark.parametrize("name", ["admission-" + "h" * 42, "admission.h"])
async def test_the_name_of_a_host_that_has_no_room_for_its_namespace_is_refused(api: kube.Kube, name: str) -> None:
    message = await refused(api, "Host", manifest("Host", name))
    assert "metadata.name of a Host is at most 51 of a-z, 0-9 and '-', without dots" in message


async def test_a_host_is_shown_with_its_zone(api: kube.Kube, kubectl: Kubectl) -> None:
    host = manifest("Host")
    host["metadata"]["labels"] = {placement.ZONE: "north"}
    await api.create(KINDS["Host"], host)
    header, row = (await kubectl("get", "hosts.corral.dev", host["metadata"]["name"])).splitlines()
    assert header.split() == ["NAME", "READY", "CPU", "MEMORY", "ALLOCATED", "GUESTS", "ZONE", "ACCELERATOR", "AGE"]
    assert row[header.index("ZONE") :].split()[0] == "north"


SOURCE = {"url": HTTP, "sha256": SUM}
IMAGE_REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "firmware": ({"firmware": "OpenFirmware"}, ["spec.firmware", '"BIOS", "UEFI"']),
    "firmware of a kernel": (
        {
            "firmware": "UEFI",
            "directBoot": {part: {"url": HTTP, "sha256": SUM} for part in ("kernel", "initramfs")},
        },
        ["spec.firmware", "spec.directBoot needs no firmware"],
    ),
    "sha256 short": ({"source": {"url": HTTP, "sha256": SUM[1:]}}, ["spec.source.sha256", "at least 64"]),
    "sha256 upper": ({"source": {"url": HTTP, "sha256": "A" * 64}}, ["spec.source.sha256", "should match"]),
    "no sha256": ({"source": {"url": HTTP}}, ["spec.source.sha256", "Required value"]),
    "url of a file": ({"source": {"url": "file:///etc/passwd", "sha256": SUM}}, ["spec.source.url", "should match"]),
    "url with a space": ({"source": {"url": f"{HTTP} y", "sha256": SUM}}, ["spec.source.url", "should match"]),
    "url with a line": ({"source": {"url": f"{HTTP}\n", "sha256": SUM}}, ["spec.source.url", "should match"]),
    "url of no host": (
        {"source": {"url": "http://[::1/x", "sha256": SUM}},
        ["spec.source.url", "url is no URL: give one such as https://images.example/debian.qcow2"],
    ),
    "url outside of ASCII": ({"source": {"url": f"{HTTP}\u2003", "sha256": SUM}}, ["spec.source.url", "should match"]),
    "default size 0": ({"defaultSize": 0}, ["spec.defaultSize", "more than 0, such as 10Gi; leave it out"]),
    "default size negative": ({"defaultSize": -1}, ["spec.defaultSize", "greater than or equal to 0"]),
    "command line": (
        {"directBoot": {"kernel": SOURCE, "initramfs": SOURCE, "commandLine": "quiet\0"}},
        ["spec.directBoot.commandLine", "should match"],
    ),
    "format": ({"format": "vmdk"}, ["spec.format", 'supported values: "qcow2", "raw"']),
    "no format": ({"format": None}, ["spec.format", "Required value"]),
    "default size": ({"defaultSize": "9999999P"}, ["spec.defaultSize", "at most 1Pi: give less"]),
    "kernel alone": (
        {"directBoot": {"kernel": {"url": HTTP, "sha256": SUM}}},
        ["spec.directBoot.initramfs", "Required"],
    ),
    "user and password": (
        {"source": {"url": "https://me:hush@images.test/x", "sha256": SUM}},
        ["spec.source.url", "has a user or a password", "give one that needs none"],
    ),
    "user": (
        {"source": {"url": "https://token@images.test/x", "sha256": SUM}},
        ["spec.source.url", "has a user or a password"],
    ),
}


@pytest.mark.parametrize("kind", ["Image", "ClusterImage"])
@pytest.mark.parametrize("case", IMAGE_REFUSED)
async def test_an_image_that_is_refused(api: kube.Kube, kind: str, case: str) -> None:
    change, says = IMAGE_REFUSED[case]
    message = await refused(api, kind, manifest(kind, **change))
    assert [part for part in says if part not in message] == [], message


POOL_REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "malformed": (["10.7.0.0"], ["spec.prefixes are IPv4 or IPv6 prefixes such as 10.77.0.0/24"]),
    "no octet": (["10.7.0.256/24"], ["spec.prefixes are IPv4 or IPv6 prefixes"]),
    "IPv4 in IPv6": (["::ffff:10.7.0.0/120"], ["spec.prefixes are IPv4 or IPv6 prefixes"]),
    "a zone": (["fe80::%eth0/64"], ["spec.prefixes are IPv4 or IPv6 prefixes"]),
    "host bits of IPv6": (["fd77::5/64"], ["has host bits set"]),
    "too large for IPv6": (["fd00::/31"], ["larger than a pool can be", "IPv6 /32 or smaller"]),
    "IPv6 twice": (["fd77::/64", "FD77:0::/64"], ["two of spec.prefixes overlap"]),
    "smaller than a block": (["10.7.0.0/27"], ["smaller than a host's block", "spec.blockSize"]),
    "IPv6 smaller than a block": (["10.7.0.0/24", "fd77::/113"], ["smaller than a host's block"]),
    "IPv6 loopback": (["::/112"], ["has addresses that no guest can have", "::/8"]),
    "IPv6 link-local": (["fe80::/64"], ["has addresses that no guest can have", "fe80::/10"]),
    "IPv6 multicast": (["ff02::/64"], ["has addresses that no guest can have", "ff00::/8"]),
    "host bits": (["10.7.0.5/24"], ["has host bits set: write 10.77.0.0/24, not 10.77.0.5/24"]),
    "too large": (["10.0.0.0/11"], ["larger than a pool can be: give /12 or smaller"]),
    "overlap": (
        ["10.7.0.0/16", "10.8.0.0/16", "10.7.3.0/24"],
        ["two of spec.prefixes overlap: give each address once"],
    ),
    "twice": (["10.7.0.0/16", "10.7.0.0/16"], ["two of spec.prefixes overlap: give each address once"]),
    "none": ([], ["spec.prefixes", "at least 1 items"]),
    "link-local": (["169.254.0.0/24"], ["has addresses that no guest can have", "169.254.0.0/16"]),
    "around link-local": (["169.240.0.0/12"], ["has addresses that no guest can have"]),
    "loopback": (["127.1.0.0/24"], ["has addresses that no guest can have"]),
    "multicast": (["239.0.0.0/24"], ["has addresses that no guest can have"]),
    "this network": (["0.0.0.0/12"], ["has addresses that no guest can have"]),
}


@pytest.mark.parametrize("case", POOL_REFUSED)
async def test_a_pool_that_is_refused(api: kube.Kube, case: str) -> None:
    prefixes, says = POOL_REFUSED[case]
    message = await refused(api, "IPPool", manifest("IPPool", prefixes=prefixes))
    assert "spec.prefixes" in message
    assert [part for part in says if part not in message] == [], message


BGP: dict[str, Any] = {"asn": 64513, "addresses": ["100.87.0.11"], "neighbors": [{"interface": "up1"}]}
BGP_REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "asn 0": ({"asn": 0}, ["spec.bgp.asn", "greater than or equal to 1"]),
    "asn of nobody": ({"asn": 4294967295}, ["spec.bgp.asn", "less than or equal to 4294967294"]),
    "no address": ({"addresses": []}, ["spec.bgp.addresses", "at least 1 items"]),
    "prefix": ({"addresses": ["100.87.0.11/32"]}, ["spec.bgp.addresses are IP addresses as 100.87.0.11"]),
    "not shortest": ({"addresses": ["100.87.0.11", "fd87:0::11"]}, ["in their shortest form"]),
    "loopback": ({"addresses": ["127.0.0.1"]}, ["neither loopback nor link-local"]),
    "no IPv4": ({"addresses": ["fd87::11"]}, ["has no IPv4 address: add one, the first is the router id"]),
    "address twice": ({"addresses": ["100.87.0.11", "100.87.0.11"]}, ["names an address twice: remove one"]),
    "no neighbor": ({"neighbors": []}, ["spec.bgp.neighbors", "at least 1 items"]),
    "neither": ({"neighbors": [{"asn": 64512}]}, ["by its interface or by its address: give one of them"]),
    "both": ({"neighbors": [{"interface": "up1", "address": "192.0.2.1"}]}, ["give one of them"]),
    "no interface": ({"neighbors": [{"interface": "up1 bfd"}]}, ["spec.bgp.neighbors[0].interface", "should match"]),
    "link-local": ({"neighbors": [{"address": "fe80::1"}]}, ["for a link-local one give the interface instead"]),
    "interface twice": (
        {"neighbors": [{"interface": "up1"}, {"interface": "up1", "asn": 64512}]},
        ["names an interface or an address twice: remove one"],
    ),
    "address of two": (
        {"neighbors": [{"address": "192.0.2.1"}, {"address": "192.0.2.1", "asn": 64512}]},
        ["names an interface or an address twice: remove one"],
    ),
    "own AS": ({"neighbors": [{"interface": "up1", "asn": 64513}]}, ["give each host an AS of its own"]),
    "timers": ({"timers": {"keepalive": 10, "hold": 9}}, ["spec.bgp.timers.hold is below keepalive"]),
    "hold": ({"timers": {"keepalive": 1, "hold": 2}}, ["spec.bgp.timers.hold", "greater than or equal to 3"]),
}


@pytest.mark.parametrize("case", BGP_REFUSED)
async def test_bgp_that_is_refused(api: kube.Kube, case: str) -> None:
    changes, says = BGP_REFUSED[case]
    message = await refused(api, "Host", manifest("Host", bgp=BGP | changes))
    assert [part for part in says if part not in message] == [], message


async def test_bgp_that_is_accepted_has_its_defaults(api: kube.Kube) -> None:
    neighbors = [{"interface": "eno1.100"}, {"address": "2001:db8::1", "asn": 64512}, {"address": "192.0.2.1"}]
    answer = await api.create(KINDS["Host"], manifest("Host", bgp=BGP | {"neighbors": neighbors}))
    assert answer["spec"]["bgp"] == BGP | {
        "neighbors": neighbors,
        "timers": {"keepalive": 3, "hold": 9},
        "bfd": False,
        "takeOver": False,
    }


REFUSED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "network without pools": ("Network", {"poolRefs": []}, ["spec.poolRefs", "at least 1 items"]),
    "network mtu": ("ClusterNetwork", {"mtu": 1279}, ["spec.mtu", "greater than or equal to 1280"]),
    "network dns": (
        "ClusterNetwork",
        {"dnsServers": ["dns.test"]},
        ["spec.dnsServers", "are IP addresses such as 10.77.0.53"],
    ),
    "class memory": ("VirtualMachineClass", {"memory": "1Mi"}, ["spec.memory", "give at least 32Mi"]),
    "class that promises less": (
        "VirtualMachineClass",
        {"overcommit": {"memoryPercent": 99}},
        ["spec.overcommit.memoryPercent", "greater than or equal to 100"],
    ),
    "class that shares nothing": (
        "VirtualMachineClass",
        {"overcommit": {"cpu": 0}},
        ["spec.overcommit.cpu", "greater than or equal to 1"],
    ),
    "class without cpu": ("VirtualMachineClass", {"cpu": None}, ["spec.cpu", "Required value"]),
    "machine type": ("VirtualMachineClass", {"machineType": "q35"}, ["spec.machineType", 'supported values: "pc"']),
    "host reserved": ("Host", {"reserved": {"memory": "some"}}, ["spec.reserved.memory", "should match"]),
    "host driver": ("Host", {"hypervisor": {"driver": ""}}, ["spec.hypervisor.driver", "at least 1"]),
    "allocation owner": ("IPAllocation", {"owner": None}, ["spec.owner", "Required value"]),
    "class memory of all": ("VirtualMachineClass", {"memory": "65Ti"}, ["spec.memory", "at most 64Ti"]),
    "host reserved negative": ("Host", {"reserved": {"memory": -1}}, ["spec.reserved.memory", "equal to 0"]),
    "block too large": ("IPBlock", {"prefix": "fd77::/64"}, ["spec.prefix is larger than a block can be"]),
    "allocation of no address": ("IPAllocation", {"address": "10.7.0"}, ["spec.address is an IP address"]),
    "instance's owner": (
        "Instance",
        {"owner": {"namespace": "shop", "name": "web", "uid": "../web"}},
        ["spec.owner.uid", "should match"],
    ),
    "instance's address": (
        "Instance",
        {"interfaces": [{"name": "eth0", "mac": MAC, "slot": 16, "mtu": 1500, "addresses": ["10.7.0.1/32"]}]},
        ["spec.interfaces[0]", "addresses and dnsServers are IP addresses such as 10.77.0.5"],
    ),
    "instance mac": (
        "Instance",
        {"interfaces": [{"name": "eth0", "mac": "x" * 17, "slot": 16, "mtu": 1500, "addresses": []}]},
        ["spec.interfaces[0].mac", "should match"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_others_that_are_refused(api: kube.Kube, case: str) -> None:
    kind, change, says = REFUSED[case]
    message = await refused(api, kind, manifest(kind, **change))
    assert [part for part in says if part not in message] == [], message


async def test_a_manifest_without_a_spec_is_refused(api: kube.Kube) -> None:
    assert "spec: Required value" in await refused(api, "VirtualMachine", {"metadata": manifest("Image")["metadata"]})


# What is refused when it changes.

WITH_DISKS = {"rootDisk": {"size": "10Gi"}, "disks": [DISK, DISK | {"name": "b", "imageRef": {"name": "debian"}}]}
CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str]]] = {
    "root disk shrinks": (
        "VirtualMachine",
        WITH_DISKS,
        {"rootDisk": {"size": "9Gi"}},
        ["spec.rootDisk.size", "a disk never shrinks: leave its size as it is, or give more"],
    ),
    "root disk taken away": ("VirtualMachine", WITH_DISKS, {"rootDisk": None}, ["spec.rootDisk", "never shrinks"]),
    "disk shrinks": (
        "VirtualMachine",
        WITH_DISKS,
        {"disks": [DISK | {"size": "1023Mi"}]},
        ["spec.disks[0].size", "a disk never shrinks"],
    ),
    "disk of another image": (
        "VirtualMachine",
        WITH_DISKS,
        {"disks": [{"name": "b", "size": "1Gi", "imageRef": {"name": "other"}}]},
        ["spec.disks[0]", "a disk's imageRef can't change", "give a disk of another name"],
    ),
    "blank disk made of an image": (
        "VirtualMachine",
        WITH_DISKS,
        {"disks": [DISK | {"imageRef": {"name": "debian"}}]},
        ["spec.disks[0]", "a disk's imageRef can't change"],
    ),
    "image": (
        "VirtualMachine",
        {},
        {"imageRef": {"name": "other"}},
        ["spec.imageRef can't change", "make a new VirtualMachine"],
    ),
    "image for a disk": ("VirtualMachine", {}, {"imageRef": None, "disks": [ROOT]}, ["spec.imageRef can't change"]),
    "networks": (
        "VirtualMachine",
        {},
        {"networks": [{"networkRef": {"name": "other"}}]},
        ["spec.networks can't change yet: make a new VirtualMachine"],
    ),
    "image's spec": ("ClusterImage", {}, {"format": "raw"}, ["an image's spec can't change", "under another name"]),
    "pool gives up": (
        "IPPool",
        {"prefixes": ["10.7.0.0/24", "10.8.0.0/24"]},
        {"prefixes": ["10.7.0.0/24"]},
        ["spec.prefixes", "can't be taken from a pool", "add another prefix instead"],
    ),
    "pool's blocks": ("IPPool", {}, {"blockSize": {"ipv4": 27}}, ["spec.blockSize can't change", "another pool"]),
    "block": ("IPBlock", {}, {"host": "h2"}, ["a block never changes hands"]),
    "allocation": ("IPAllocation", {}, {"interface": "eth1"}, ["an allocation never changes hands"]),
    "instance's owner": ("Instance", {}, {"epoch": 2}, ["one placement of one VirtualMachine, for life"]),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_a_change_that_is_refused(api: kube.Kube, case: str) -> None:
    kind, spec, change, says = CHANGES[case]
    made = await api.create(KINDS[kind], manifest(kind, **spec))
    with pytest.raises(kube.ApiRefused) as raised:
        await api.patch(KINDS[kind], made, {"spec": change})
    assert [part for part in says if part not in raised.value.message] == [], raised.value.message


@pytest.mark.parametrize(
    ("kind", "spec", "change"),
    [
        ("VirtualMachine", WITH_DISKS, {"rootDisk": {"size": "11Gi"}, "disks": [DISK | {"size": "2Gi"}]}),
        ("VirtualMachine", {}, {"rootDisk": {"size": "11Gi"}}),
        ("VirtualMachine", {}, {"runStrategy": "Halted"}),
        ("VirtualMachine", {}, {"cpu": None, "memory": None, "classRef": {"name": "small"}}),
        ("IPPool", {}, {"prefixes": ["10.8.0.0/24", "10.7.0.0/24", "fd77::/64"]}),
        ("IPPool", {"prefixes": ["10.7.0.0/30"], "blockSize": {"ipv4": 30}}, {"coolDownSeconds": 0}),
        ("Host", {}, {"maintenance": True}),
    ],
)
async def test_a_change_that_is_accepted(
    api: kube.Kube, kind: str, spec: dict[str, Any], change: dict[str, Any]
) -> None:
    made = await api.create(KINDS[kind], manifest(kind, **spec))
    changed = await api.patch(KINDS[kind], made, {"spec": change})
    assert changed["metadata"]["generation"] == 2


# What a person sees.


@pytest.mark.parametrize(
    ("wide", "header"),
    [((), "NAME STATUS READY HOST IP AGE"), (("-o", "wide"), "NAME STATUS READY HOST IP AGE CLASS REASON")],
)
async def test_the_columns_of_virtual_machines(
    api: kube.Kube, kubectl: Kubectl, wide: tuple[str, ...], header: str
) -> None:
    await api.create(KINDS["VirtualMachine"], manifest("VirtualMachine", "web", **OLD, classRef={"name": "small"}))
    printed = await kubectl("get", "vm.corral.dev", "-n", NAMESPACE, *wide)
    first, row = printed.splitlines()
    assert first.split() == header.split()
    assert row.split()[0] == "web"
    assert ("small" in row) == bool(wide)


async def test_short_names_lead_to_their_kinds(kubectl: Kubectl) -> None:
    printed = await kubectl("api-resources", "--api-group=corral.dev", "--no-headers")
    names: dict[str, set[str]] = {}
    for line in printed.splitlines():
        plural, *shorts, _, _, _ = line.split()
        names[plural] = set(",".join(shorts).split(",")) - {""}
    assert names == {one.kind.plural: set(one.kind.short_names) for one in v1alpha1.RESOURCES}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_field_is_explained(kubectl: Kubectl, kind: str) -> None:
    where = KINDS[kind]
    document = json.loads(await kubectl("get", "crd", f"{where.plural}.corral.dev", "-o", "json"))
    whole = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def mute(schema: dict[str, Any], path: str) -> list[str]:
        below = {f"{path}.{name}": child for name, child in schema.get("properties", {}).items()}
        silent = [one for one, child in below.items() if not child.get("description") and one != ".metadata"]
        deeper = below | ({path: schema["items"]} if "items" in schema else {})
        return silent + [found for one, child in deeper.items() for found in mute(child, one)]

    assert mute(whole, "") == []


async def test_explain_reads_like_documentation(kubectl: Kubectl) -> None:
    printed = await kubectl("explain", "vm.spec", "--api-version=corral.dev/v1alpha1")
    fields = re.findall(r"^  (\w+)\t", printed, re.MULTILINE)
    assert {"classRef", "cpu", "memory", "imageRef", "disks", "networks", "runStrategy"} <= set(fields)
    assert "Always: the guest runs, and is started again when it stops." in " ".join(printed.split())
    tree = await kubectl("explain", "vm.spec", "--recursive", "--api-version=corral.dev/v1alpha1")
    assert re.search(r"networkRef\s.*-required-", tree)


@pytest.mark.parametrize(
    ("kind", "selector", "found"),
    [
        ("VirtualMachine", "spec.runStrategy=Always", True),
        ("VirtualMachine", "spec.runStrategy=Halted", False),
        ("VirtualMachine", "status.placement.host=h1", False),
        ("Instance", "spec.owner.uid=6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f11", True),
        ("Instance", "spec.owner.uid=another", False),
        ("IPAllocation", "spec.owner.uid=6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f11", True),
    ],
)
async def test_field_selectors(api: kube.Kube, kubectl: Kubectl, kind: str, selector: str, found: bool) -> None:
    await api.create(KINDS[kind], manifest(kind))
    printed = await kubectl(
        "get", f"{KINDS[kind].plural}.corral.dev", "-n", NAMESPACE, f"--field-selector={selector}", "-o", "name"
    )
    assert ("admission-x" in printed) == found


async def test_a_machine_is_found_by_its_host_once_it_is_placed(api: kube.Kube, kubectl: Kubectl) -> None:
    made = await api.create(KINDS["VirtualMachine"], manifest("VirtualMachine"))
    await api.patch_status(KINDS["VirtualMachine"], made, {"placement": {"host": "h1", "epoch": 1}})
    printed = await kubectl(
        "get", "vm.corral.dev", "-n", NAMESPACE, "--field-selector=status.placement.host=h1", "-o", "name"
    )
    assert printed.strip() == "virtualmachine.corral.dev/admission-x"
