"""What references lead to in tests of resolve, and a VirtualMachine to lead there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from corral.api import objects
from corral.api.v1alpha1 import image, ippool, network, references, virtualmachine, virtualmachineclass

SUM = "a" * 64


def an_image(**spec: Any) -> image.ImageSpec:
    source = {"url": "http://images.test/x", "sha256": SUM}
    return image.ImageSpec.model_validate({"source": source, "format": "qcow2", **spec})


def a_network(*pools: str, **spec: Any) -> network.NetworkSpec:
    return network.NetworkSpec.model_validate({"poolRefs": [{"name": pool} for pool in pools], **spec})


@dataclass
class Known:
    """Objects by kind, namespace and name; a cloud that has one of each."""

    classes: dict[str, tuple[int, str]] = field(default_factory=lambda: {"small": (2, "512Mi")})
    firmware: dict[str, str] = field(default_factory=dict)
    """Of classes that say one."""

    images: dict[tuple[str, str], image.ImageSpec] = field(
        default_factory=lambda: {("", "debian"): an_image(), ("shop", "own"): an_image(defaultSize="3Gi")}
    )
    networks: dict[tuple[str, str], network.NetworkSpec] = field(
        default_factory=lambda: {("", "default"): a_network("pool"), ("shop", "back"): a_network("pool", mtu=9000)}
    )
    pools: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"pool": ("10.7.0.0/24",)})

    def vm_class(self, name: str) -> virtualmachineclass.VirtualMachineClassSpec | None:
        found = self.classes.get(name)
        if found is None:
            return None
        said = {"cpu": found[0], "memory": found[1], "firmware": self.firmware.get(name)}
        return virtualmachineclass.VirtualMachineClassSpec.model_validate(said)

    def image(self, ref: references.ImageRef, namespace: str) -> image.ImageSpec | None:
        return self.images.get((namespace if ref.kind == "Image" else "", ref.name))

    def network(self, ref: references.NetworkRef, namespace: str) -> network.NetworkSpec | None:
        return self.networks.get((namespace if ref.kind == "Network" else "", ref.name))

    def pool(self, name: str) -> ippool.IPPoolSpec | None:
        found = self.pools.get(name)
        return None if found is None else ippool.IPPoolSpec(prefixes=found)


def machine(*, name: str = "web", namespace: str = "shop", **spec: Any) -> Any:
    """A VirtualMachine as it came from the API; what is not said is small and ordinary."""
    whole = {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "debian"}} | spec
    whole = {key: value for key, value in whole.items() if value is not None}
    metadata = {"namespace": namespace, "name": name, "uid": "6f1c1f9e-5df5-4f3f-9d2c-8a5b0d4a7f11", "generation": 1}
    return objects.parsed(
        {"metadata": metadata, "spec": whole},
        virtualmachine.VirtualMachineSpec,
        virtualmachine.VirtualMachineStatus,
    )
