"""Manifests by the thousand, the same for the same seed: from the schemas of our kinds, and hostile ones by hand.

A hand-made one is a good manifest with one place changed, so that whatever goes wrong is small already. The good ones
(`BASES`) have every field of every kind: a test fails when a new field has no place in them.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis
from hypothesis import strategies as st

from corral.api import v1alpha1
from corral.crds import generate

from .hostile_values import OTHERS, RAW, TEXTS

Path = tuple[str | int, ...]
Spec = dict[str, Any]

SEED = int(os.environ.get("CORRAL_FUZZ_SEED", "20260723"))
"""Another one makes other manifests; a failure names the one that it was found with."""

TIMES = int(os.environ.get("CORRAL_FUZZ_TIMES", "1"))
"""How many times as many as usual."""

OWNER_UID = "6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f11"
_MARK = "@raw@"
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKqv tenant@shop"
_SUM = "c" * 64


@dataclass(frozen=True, slots=True)
class Names:
    """Of what is there: a manifest may lead somewhere. `digest` is of an image that is there."""

    small: str
    image: str
    pool: str
    net: str


@dataclass(frozen=True, slots=True)
class Case:
    """One manifest as it goes over the wire, but for its name; `what` says how it came about."""

    kind: str
    what: str
    spec: str
    metadata: str = "{}"


def bases(names: Names) -> dict[str, tuple[Spec, ...]]:
    """Good specs of every kind, which together have every field."""
    source = {"url": "http://images.example/a?b=c", "sha256": _SUM}
    image = {
        "source": source,
        "format": "qcow2",
        "defaultSize": "2Gi",
        "firmware": "BIOS",
        "directBoot": {"kernel": source, "initramfs": source, "commandLine": "console=ttyS0"},
    }
    owner = {"namespace": "nobody", "name": "web", "uid": OWNER_UID}
    file = source | {"format": "qcow2"}
    network = {
        "poolRefs": [{"name": names.pool}],
        "mtu": 1500,
        "nat": False,
        "dnsServers": ["10.0.0.53"],
        "searchDomains": ["shop.example"],
    }
    bgp = {
        "asn": 4200000011,
        "addresses": ["100.87.0.11", "fd87::11"],
        "neighbors": [{"interface": "up1"}, {"address": "192.0.2.1", "asn": 64512}],
        "timers": {"keepalive": 3, "hold": 9},
        "bfd": True,
        "takeOver": False,
    }
    nic = {
        "name": "eth0",
        "mac": "02:00:00:00:00:01",
        "slot": 16,
        "mtu": 1500,
        "addresses": ["10.99.200.1"],
        "nat": False,
        "dnsServers": ["10.0.0.53"],
        "searchDomains": ["shop.example"],
    }
    instance: Spec = {
        "owner": owner,
        "epoch": 1,
        "cpu": 1,
        "memory": 64 << 20,
        "overcommit": {"cpu": 8, "memoryPercent": 100},
        "machineType": "pc",
        "firmware": "BIOS",
        "disks": [{"name": "root", "size": 1 << 30, "slot": 3, "image": file}],
        "seedSlot": 12,
        "interfaces": [nic],
        "boot": {"kernel": file, "initramfs": file, "commandLine": "quiet"},
        "seed": {
            "instanceId": "i-1",
            "hostname": "web",
            "sshAuthorizedKeys": [_KEY],
            "userData": "#cloud-config\n{}\n",
        },
        "runStrategy": "Always",
        "startWithoutAPI": False,
        "terminationGracePeriodSeconds": 0,
    }
    selector = {
        "matchLabels": {"shop.example/app": "nobody"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}],
    }
    # No host here has a zone: a good one that is far from everybody still leaves room for all others.
    term = {"labelSelector": selector, "topologyKey": "topology.kubernetes.io/zone"}
    placement = {
        "hostSelector": {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]},
        "affinity": {"required": [], "preferred": [term | {"weight": 1}]},
        "antiAffinity": {"required": [term], "preferred": [term | {"weight": 100}]},
        "topologySpreadConstraints": [term | {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}],
    }
    near = {"affinity": {"required": [term]}, "hostSelector": selector}
    return {
        "Cloud": ({"deletionGuard": {"sharePercent": 100, "floor": 1_000_000, "windowSeconds": 600, "release": "x"}},),
        "Host": (
            {"hypervisor": {"driver": "simulated"}, "reserved": {"memory": "1Gi"}, "maintenance": True, "bgp": bgp},
        ),
        "HostState": (
            {
                "cloud": "c",
                "host": "h",
                "hypervisor": {"driver": "simulated"},
                "rollCall": "1",
                "bgp": bgp,
                "blocks": ["10.99.203.0/26"],
                "pools": ["10.99.203.0/24"],
            },
        ),
        "ClusterImage": (image,),
        "Image": (image,),
        "Instance": (instance, instance | {"seed": instance["seed"] | {"userData": "", "userDataSecret": "none"}}),
        "IPAllocation": (
            {
                "address": "10.99.201.1",
                "poolRef": {"name": names.pool},
                "networkRef": {"kind": "Network", "name": names.net},
                "owner": owner | {"name": "db", "uid": "6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f12"},
                "interface": "eth0",
            },
        ),
        "IPBlock": ({"prefix": "10.99.202.0/26", "poolRef": {"name": names.pool}, "host": "no-host"},),
        "IPPool": (
            {
                "prefixes": ["10.96.0.0/24", "fd96::/64"],
                "blockSize": {"ipv4": 27, "ipv6": 120},
                "coolDownSeconds": 1,
            },
        ),
        "ClusterNetwork": (network,),
        "Network": (network,),
        "VirtualMachine": (
            {
                "classRef": {"name": names.small},
                "imageRef": {"kind": "ClusterImage", "name": names.image},
                "rootDisk": {"size": "3Gi"},
                "disks": [{"name": "data", "size": "1Gi"}],
                "networks": [{"name": "eth0", "networkRef": {"kind": "ClusterNetwork", "name": names.net}}],
                "cloudInit": {"userData": "#cloud-config\n{}\n"},
                "sshAuthorizedKeys": [_KEY],
                "placement": placement,
                "runStrategy": "Always",
                "terminationGracePeriodSeconds": 0,
            },
            {
                "cpu": 1,
                "memory": "64Mi",
                "disks": [
                    {
                        "name": "boot",
                        "size": "3Gi",
                        "root": True,
                        "imageRef": {"kind": "ClusterImage", "name": names.image},
                    }
                ],
                "networks": [{"networkRef": {"name": names.net}, "addresses": ["10.64.200.7"]}],
                "cloudInit": {"userDataSecretRef": {"name": "user-data", "key": "user-data"}},
                "placement": near,
                "terminationGracePeriodSeconds": 0,
            },
        ),
        "VirtualMachineClass": (
            {
                "cpu": 1,
                "memory": "64Mi",
                "overcommit": {"cpu": 8, "memoryPercent": 100},
                "machineType": "pc",
                "firmware": "BIOS",
            },
        ),
    }


@functools.cache
def schemas() -> dict[str, Mapping[str, Any]]:
    """The schema of every kind, as the API server has it."""
    found = {}
    for one in v1alpha1.RESOURCES:
        crd = generate.crd(one.kind, one.spec, one.status, one.description)
        found[one.kind.kind] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return found


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in a value, the value itself first."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def fields(schema: Mapping[str, Any], path: str = "spec") -> Iterator[str]:
    """Every field of a schema, such as `spec.disks[].name`."""
    yield path
    for name, child in schema.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from fields(schema["items"], f"{path}[]")


def shown(path: Path) -> str:
    """A place as the API server writes it: `spec.disks[0].name`."""
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _put(spec: Spec, path: Path, value: Any) -> Spec:
    if not path:
        return value  # type: ignore[no-any-return]
    changed = copy.deepcopy(spec)
    at: Any = changed
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return changed


def _schema_at(schema: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    for part in path:
        if isinstance(part, int):
            schema = schema["items"]
        else:
            schema = schema.get("properties", {}).get(part) or schema["additionalProperties"]
    return schema


def _without(spec: Spec, path: Path) -> Spec:
    changed = copy.deepcopy(spec)
    at: Any = changed
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    return changed


def by_hand(kind: str, base: Spec) -> Iterator[Case]:
    """One change to a good spec: every text in every field of text, other types and no value everywhere."""
    schema = schemas()[kind]["spec"]
    for path in places(base):
        here, where = _schema_at(schema, path), shown(path)
        values = [*OTHERS, *_around_the_bounds(here)]
        if here.get("type") == "string" or here.get("x-kubernetes-int-or-string"):
            values += TEXTS
        for value in values:
            yield Case(kind, f"{where} = {_short(value)}", json.dumps(_put(base, path, value)))
        for raw in RAW:
            whole = json.dumps(_put(base, path, _MARK)).replace(f'"{_MARK}"', raw)
            yield Case(kind, f"{where} = {raw}, raw", whole)
        if path:
            yield Case(kind, f"without {where}", json.dumps(_without(base, path)))
        if here.get("type") == "object":
            for name in ("unknown", "", "\0", "a.b", "<x>", "__class__", "x" * 500):
                yield Case(kind, f"{where} has {_short(name)}", json.dumps(_put(base, (*path, name), "x")))


def of_metadata(kind: str, base: Spec) -> Iterator[Case]:
    """Hostile metadata beside a good spec."""
    spec = json.dumps(base)
    for text in TEXTS:
        for what in ({"labels": {"a": text}}, {"labels": {text: "a"}}, {"annotations": {"a": text}}):
            yield Case(kind, f"metadata {_short(what)}", spec, json.dumps(what))
        yield Case(kind, f"annotations {_short(text)}", spec, json.dumps({"annotations": {text: "a"}}))
        yield Case(kind, f"name {_short(text)}", spec, json.dumps({"name": text}))
    for value in OTHERS:
        for field in ("name", "labels", "annotations", "finalizers", "ownerReferences", "namespace", "generateName"):
            yield Case(kind, f"metadata.{field} = {_short(value)}", spec, json.dumps({field: value}))


def _around_the_bounds(schema: Mapping[str, Any]) -> Iterator[Any]:
    if "maxLength" in schema:
        yield "a" * schema["maxLength"]
        yield "\u20ac" * schema["maxLength"]
        yield "a" * (schema["maxLength"] + 1)
    if "minimum" in schema:
        yield from (schema["minimum"] - 1, schema["minimum"])
    if "maximum" in schema:
        yield from (schema["maximum"], schema["maximum"] + 1)
    if schema.get("type") == "integer" or schema.get("x-kubernetes-int-or-string"):
        yield from (1, -(2**63), 10**15)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}… ({len(text)} characters)"


# From the schemas alone.

_ANY_TEXT = st.characters(exclude_categories=("Cs",))
_TIMES = st.sampled_from([text for text in TEXTS if text[4:5] == "-"] + ["2026-01-31T12:00:00Z"])


def value_of(schema: Mapping[str, Any], leads: Mapping[str, str], name: str = "") -> st.SearchStrategy[Any]:
    """Anything that this schema admits; `leads` are names of what is there, by the field that refers to it."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(-(2**62), 2**62) | _text(schema) | st.sampled_from(["1Gi", "100Mi", 64 << 20])
    made: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)),
        "string": lambda: _TIMES if schema.get("format") == "date-time" else _text(schema),
        "array": lambda: _list(schema, leads, name),
        "object": lambda: _object(schema, leads, name),
    }
    return made[schema["type"]]()


def _text(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", 64)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: low <= len(text) <= high)
    texts = st.text(_ANY_TEXT, min_size=low, max_size=min(high, max(low, 40)))
    return texts | st.sampled_from([text for text in TEXTS if low <= len(text) <= high])


def _list(schema: Mapping[str, Any], leads: Mapping[str, str], name: str) -> st.SearchStrategy[Any]:
    keys = schema.get("x-kubernetes-list-map-keys")
    low = schema.get("minItems", 0)
    key: Callable[[Any], Any] | None = None
    if keys:
        key = lambda item: tuple(item.get(one) for one in keys)  # noqa: E731 - one line says it
    return st.lists(
        value_of(schema["items"], leads, name),
        min_size=low,
        max_size=min(schema.get("maxItems", 3), max(low, 3)),
        unique_by=key,
    )


def _object(schema: Mapping[str, Any], leads: Mapping[str, str], name: str) -> st.SearchStrategy[Any]:
    required = schema.get("required", ())
    children = {
        field: st.just(leads[name]) | value_of(child, leads, field)
        if field == "name" and name in leads
        else value_of(child, leads, field)
        for field, child in schema.get("properties", {}).items()
    }
    if "additionalProperties" in schema:
        # What keys may look like, a rule says, which the API server holds them against.
        keys = st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9})?", fullmatch=True) | st.sampled_from(TEXTS)
        return st.dictionaries(keys, value_of(schema["additionalProperties"], leads), max_size=2)
    return st.fixed_dictionaries(
        {field: child for field, child in children.items() if field in required},
        optional={field: child for field, child in children.items() if field not in required},
    )


def drawn(strategy: st.SearchStrategy[Any], count: int, seed: int = SEED) -> list[Any]:
    """So many values of a strategy, the same ones for the same seed."""
    found: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
        deadline=None,
    )
    @hypothesis.given(strategy)
    def draw(value: Any) -> None:
        found.append(value)

    draw()
    return found


def from_schema(kind: str, names: Names, count: int) -> Iterator[Case]:
    """Specs that the schema admits; whether the rules do, and what comes of them, is to be seen."""
    leads = {"classRef": names.small, "imageRef": names.image, "networkRef": names.net, "poolRefs": names.pool}
    for number, spec in enumerate(drawn(value_of(schemas()[kind]["spec"], leads), count * TIMES)):
        yield Case(kind, f"drawn by the schema, number {number} of seed {SEED}", json.dumps(spec))


def statuses(kind: str, count: int) -> Iterator[Case]:
    """Statuses that the schema admits, of a kind that has one."""
    leads: Mapping[str, str] = {}
    for number, status in enumerate(drawn(value_of(schemas()[kind]["status"], leads), count)):
        yield Case(kind, f"status number {number} of seed {SEED}", json.dumps(status))


def sampled(cases: Iterator[Case], count: int, seed: int = SEED) -> list[Case]:
    """So many of the cases, in another order, the same ones for the same seed."""
    every = list(cases)
    return random.Random(seed).sample(every, min(count * TIMES, len(every)))
