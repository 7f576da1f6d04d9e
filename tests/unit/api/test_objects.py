from __future__ import annotations

from typing import Any

import pytest

from corral.api import objects, v1alpha1
from corral.api.v1alpha1 import virtualmachine

GOOD: dict[str, Any] = {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "debian"}}


def parsed(spec: Any, status: Any = None, **metadata: Any) -> Any:
    raw = {"metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 2, **metadata}, "spec": spec}
    if status is not None:
        raw["status"] = status
    return objects.parsed(raw, virtualmachine.VirtualMachineSpec, virtualmachine.VirtualMachineStatus)


def test_an_object_as_it_comes() -> None:
    vm = parsed(GOOD, {"observedGeneration": -1})
    assert (vm.namespace, vm.name, vm.uid, vm.generation, vm.is_deleted) == ("shop", "web", "u", 2, False)
    assert vm.spec.run_strategy == "Always"
    assert vm.spec.networks[0].network_ref.name == "default"
    assert parsed(GOOD, deletionTimestamp="2026-01-31T12:00:00Z").is_deleted


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cpu": 0}, "spec.cpu"),
        ({"memory": "lots"}, "spec.memory"),
        ({"imageRef": {}}, "spec.imageRef.name"),
        ({"imageRef": {"name": "x", "kind": "Thing"}}, "spec.imageRef.kind"),
        ({"disks": [{"name": "a", "size": "1Gi"}, {"name": "b"}]}, "spec.disks.1.size"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds"),
        ({"flavour": "large"}, "spec.flavour"),
    ],
)
def test_what_is_not_understood_names_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(objects.NotUnderstood) as raised:
        parsed({**GOOD, **change})
    where, _, what = raised.value.args[0].partition(": ")
    assert where == field
    assert what
    assert "pydantic" not in what


def test_a_status_of_a_newer_author_is_understood() -> None:
    assert parsed(GOOD, {"observedGeneration": 3, "moonPhase": "full"}).status.observed_generation == 3


def test_a_status_that_is_not_understood_is_as_good_as_none() -> None:
    assert parsed(GOOD, {"placement": {"host": "h1", "epoch": 0}}).status == virtualmachine.VirtualMachineStatus()


def test_a_spec_that_is_no_mapping_is_not_understood() -> None:
    with pytest.raises(objects.NotUnderstood, match=r"^spec: "):
        parsed(None)


def test_a_model_comes_back_from_the_wire() -> None:
    spec = parsed({**GOOD, "disks": [{"name": "data", "size": "1Gi"}]}).spec
    assert virtualmachine.VirtualMachineSpec.model_validate(spec.wire()) == spec


def test_no_two_kinds_share_a_name() -> None:
    kinds = [one.kind for one in v1alpha1.RESOURCES]
    names = [name for one in kinds for name in (one.plural, *one.short_names)]
    assert len(set(names)) == len(names)
