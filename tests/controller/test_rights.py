"""The rights and policies that are shipped, as files: accepted by the API server, and none that nobody uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from corral import access, kube
from corral.api import v1alpha1
from corral.controller import world
from corral_lab.control_plane import plane

from .simulated_cloud import CONTROLLER, PATIENCE, SimulatedCloud, until

pytestmark = pytest.mark.api

SECRETS = kube.Collection("/api/v1", "Secret", "secrets", namespaced=True)
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES = kube.Collection(_ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False)
_WRITES = {"create", "update", "patch", "delete", "deletecollection"}


async def test_the_api_server_finds_nothing_wrong_with_the_policies(admin: kube.Kube, roles: None) -> None:
    names = [one["metadata"]["name"] for one in documents("ValidatingAdmissionPolicy")]
    assert names == [one["spec"]["policyName"] for one in documents("ValidatingAdmissionPolicyBinding")]
    for name in names:

        async def look(name: str = name) -> Any:
            found = await admin.get(POLICIES, None, name)
            assert found is not None
            return found

        # Types are checked a moment after.
        found = await until(look, lambda one: one.get("status", {}).get("observedGeneration"), PATIENCE * 2)
        assert found["status"].get("typeChecking", {}).get("expressionWarnings", []) == []


def test_the_controller_reads_our_kinds_and_each_of_them() -> None:
    plurals = {one.kind.plural for one in v1alpha1.RESOURCES}
    for rule in rules("corral-controller"):
        if rule["apiGroups"] == ["corral.dev"] and "list" in rule["verbs"]:
            assert set(rule["resources"]) == plurals
            return
    pytest.fail("the controller lists no kind of ours")


async def test_every_write_that_is_granted_is_made(shared_cloud: SimulatedCloud, admin: kube.Kube) -> None:
    """A right that nobody uses is gone."""
    cloud = shared_cloud
    spec = {"poolRefs": [{"name": cloud.named("pool")}]}
    for where, wanted in ((world.NETWORKS, spec), (world.IMAGES, cloud.image("own"))):
        await admin.create(where, {"metadata": {"name": "own", "namespace": cloud.namespace}, "spec": wanted})
    data = {"metadata": {"name": "own", "namespace": cloud.namespace}, "stringData": {"userData": "#!/bin/sh\n"}}
    await admin.create(SECRETS, data)
    await cloud.vm("short", cloudInit={"userDataSecretRef": {"name": "own"}})
    (vm,) = await cloud.ready("short")
    host = vm["status"]["placement"]["host"]
    (other,) = set(cloud.hosts) - {host}
    await cloud.patch(world.VMS, "short", {"runStrategy": "Halted"})
    await cloud.ready("short", reason="Halted")
    await cloud.delete("short")
    agent = f"corral:agent:{host}"

    # Empty blocks are returned soon.
    await cloud.stop_controller()
    await cloud.start_controller(block_idle_for=0.2)
    await until(lambda: cloud.all(world.BLOCKS), lambda found: not found)

    async def look() -> dict[str, set[str]]:
        made = list(writes(cloud.control_plane))
        left = {user: granted(role) for user, role in ((CONTROLLER, "corral-controller"), (agent, "corral-agent"))}
        return {user: wanted - {what for who, what in made if who == user} for user, wanted in left.items()}

    # A HostState's spec follows its Host's; its agent takes that up when it starts anew.
    for driver in ("libvirt-qemu", "simulated"):
        await cloud.patch(world.HOSTS, other, {"hypervisor": {"driver": driver}})
        await until(
            lambda: admin.get(world.HOST_STATES, f"corral-host-{other}", other),
            lambda state, driver=driver: state is not None and state["spec"]["hypervisor"]["driver"] == driver,
        )
    await until(look, lambda left: not any(left.values()))


def documents(*kinds: str) -> list[Any]:
    """What is shipped, of these kinds."""
    return [one for one in yaml.safe_load_all(access.manifests()) if one["kind"] in kinds]


def rules(role: str) -> Iterator[Any]:
    for one in documents("ClusterRole", "Role"):
        if one["metadata"]["name"] == role:
            yield from one["rules"]


def granted(role: str) -> set[str]:
    """Writes that this role allows, as `verb resource`."""
    return {
        f"{verb} {resource}"
        for rule in rules(role)
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb in _WRITES
    }


def writes(control_plane: plane.ControlPlane) -> Iterator[tuple[str, str]]:
    """Who wrote what so far, by the API server's own account."""
    with control_plane.audit_log.open(encoding="utf-8") as log:
        for line in log:
            if line.endswith("\n"):
                event = json.loads(line)
                what = event["objectRef"]
                resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
                yield event["user"]["username"], f"{event['verb']} {resource}"
