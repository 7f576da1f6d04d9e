"""The smallest manifest of every kind that the API server accepts, for tests of admission."""

from __future__ import annotations

import copy
from typing import Any

from corral import kube
from corral.api import v1alpha1

SUM = "a" * 64
NAMESPACE = "admission"

_SOURCE = {"url": "http://images.test/debian.qcow2", "sha256": SUM}
_OWNER = {"namespace": "shop", "name": "web", "uid": "6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f11"}
_SPECS: dict[str, dict[str, Any]] = {
    "Cloud": {},
    "Host": {},
    "HostState": {"cloud": "c", "host": "h", "hypervisor": {}},
    "ClusterImage": {"source": _SOURCE, "format": "qcow2"},
    "Image": {"source": _SOURCE, "format": "raw"},
    "Instance": {
        "owner": _OWNER,
        "epoch": 1,
        "cpu": 1,
        "memory": 64 << 20,
        "machineType": "pc",
        "disks": [{"name": "root", "size": 0, "slot": 3}],
        "seedSlot": 12,
        "interfaces": [],
        "seed": {"instanceId": "i", "hostname": "web"},
        "runStrategy": "Always",
        "terminationGracePeriodSeconds": 30,
    },
    "IPAllocation": {
        "address": "10.7.0.1",
        "poolRef": {"name": "pool"},
        "networkRef": {"name": "default"},
        "owner": _OWNER,
        "interface": "eth0",
    },
    "IPBlock": {"prefix": "10.7.0.0/26", "poolRef": {"name": "pool"}, "host": "h1"},
    "IPPool": {"prefixes": ["10.7.0.0/24"]},
    "ClusterNetwork": {"poolRefs": [{"name": "pool"}]},
    "Network": {"poolRefs": [{"name": "pool"}]},
    "VirtualMachine": {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "debian"}},
    "VirtualMachineClass": {"cpu": 1, "memory": "64Mi"},
}
KINDS = {one.kind.kind: kube.collection(one) for one in v1alpha1.RESOURCES}


def manifest(kind: str, name: str = "admission-x", **spec: Any) -> kube.Object:
    """A manifest of this kind; what is given takes the place of the spec's fields, None takes them away."""
    metadata = {"name": name} | ({"namespace": NAMESPACE} if KINDS[kind].namespaced else {})
    whole = {key: value for key, value in (_SPECS[kind] | spec).items() if value is not None}
    return copy.deepcopy({"metadata": metadata, "spec": whole})
