"""What the credentials of an agent and of the controller can't do: by RBAC, and by the admission policies beyond it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from corral import kube
from corral.api import v1alpha1
from corral.api.v1alpha1 import instance
from corral.controller import world
from corral_lab import errors, kubectl
from corral_lab.control_plane import plane

from .simulated_cloud import CONTROLLER, PATIENCE, SimulatedCloud, allow_deletion, until

pytestmark = pytest.mark.api

SECRETS = kube.Collection("/api/v1", "Secret", "secrets", namespaced=True)
CONFIG_MAPS = kube.Collection("/api/v1", "ConfigMap", "configmaps", namespaced=True)
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
CLUSTER_BINDINGS = kube.Collection(_RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False)
FORBIDDEN_BY_ROLE = 'cannot {} resource "{}" in API group'


@dataclass(frozen=True)
class Stage:
    """A cloud with a guest `web`, and the API as its host's agent, as the controller, and as an administrator."""

    cloud: SimulatedCloud
    admin: kube.Kube
    agent: kube.Kube
    controller: kube.Kube
    host: str
    other: str
    shell: kubectl.Kubectl

    @property
    def place(self) -> str:
        return f"corral-host-{self.host}"

    @property
    def elsewhere(self) -> str:
        return f"corral-host-{self.other}"

    async def instance(self) -> kube.Object:
        """The Instance of the guest, as it is now."""
        (found,) = [one for one in await self.cloud.all(world.INSTANCES) if one["spec"]["owner"]["name"] == "web"]
        return found

    async def vm(self) -> kube.Object:
        found = await self.cloud.get(world.VMS, "web")
        assert found is not None
        return found


@pytest_asyncio.fixture(scope="module")
async def stage(
    shared_cloud: SimulatedCloud, control_plane: plane.ControlPlane, admin: kube.Kube
) -> AsyncIterator[Stage]:
    await shared_cloud.vm("web")
    (vm,) = await shared_cloud.ready("web")
    host = vm["status"]["placement"]["host"]
    (other,) = set(shared_cloud.hosts) - {host}
    lab = control_plane.lab
    shell = kubectl.Kubectl(control_plane.programs.kubectl, lab.kubeconfig, lab.kubectl_cache)
    async with contextlib.AsyncExitStack() as stack:
        agent, controller = [
            await kube.Kube.connect(str(control_plane.kubeconfig(user)), user_agent="corral-tests")
            for user in (f"corral:agent:{host}", CONTROLLER)
        ]
        stack.push_async_callback(agent.close)
        stack.push_async_callback(controller.close)
        made = Stage(shared_cloud, admin, agent, controller, host, other, shell)
        await in_force(made)
        yield made
        await shared_cloud.empty()


async def in_force(made: Stage) -> None:
    """Wait until the API server has taken up the policies, which it does a moment after they are made."""

    def refused(*what: str) -> bool:
        try:
            made.shell.run("delete", *what, "--dry-run=server")
        except errors.LabError:
            return True
        return False

    async def look() -> bool:
        kinds = await asyncio.to_thread(refused, "crd", "clouds.corral.dev")
        return kinds and await asyncio.to_thread(refused, "namespace", made.elsewhere)

    # All that there are are taken up at once, and these two were made last.
    await until(look, bool)


async def refused(work: Awaitable[object], *words: str) -> None:
    """The API server refuses it as forbidden, with these words."""
    with pytest.raises(kube.ApiRefused) as raised:
        await work
    assert raised.value.status == 403, raised.value.message
    for word in words:
        assert word in raised.value.message


async def listed(api: kube.Kube, where: kube.Collection, namespace: str | None = None) -> None:
    async for _ in api.pages(where, namespace):
        pass


class TestAgent:
    """With the credential of one host's agent."""

    @pytest.mark.parametrize("where", [world.INSTANCES, world.HOST_STATES, kube.LEASES, SECRETS, world.VMS])
    async def test_lists_nothing_of_the_cluster_or_of_another_host(self, stage: Stage, where: kube.Collection) -> None:
        for namespace in (None, stage.elsewhere, "kube-system"):
            await refused(listed(stage.agent, where, namespace), FORBIDDEN_BY_ROLE.format("list", where.plural))

    async def test_reads_nothing_elsewhere(self, stage: Stage) -> None:
        state = stage.agent.get(world.HOST_STATES, stage.elsewhere, stage.other)
        await refused(state, FORBIDDEN_BY_ROLE.format("get", "hoststates"))
        await refused(stage.agent.get(world.VMS, stage.cloud.namespace, "web"), "cannot get")
        await refused(stage.agent.get(SECRETS, stage.cloud.namespace, "any"), "cannot get")
        await refused(stage.agent.get(SECRETS, stage.elsewhere, "any"), "cannot get")
        await refused(stage.agent.get(world.HOSTS, None, stage.host), "cannot get")
        await refused(stage.agent.get(kube.LEASES, stage.place, "another"), "cannot get")

    async def test_watches_nothing_of_tenants(self, stage: Stage) -> None:
        said = await asyncio.to_thread(
            stage.shell.run, "auth", "can-i", "--list", "--no-headers", f"--as=corral:agent:{stage.host}"
        )
        # What every user may ask about itself and the API server; nothing of ours.
        assert "corral.dev" not in said
        assert "watch" not in said

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"spec": {"cpu": 2}}, "an agent changes no spec"),
            ({"metadata": {"labels": {"team": "x"}}}, "an agent changes no label"),
            ({"metadata": {"annotations": {"corral.dev/allow-deletion": "true"}}}, "no annotation"),
            ({"metadata": {"ownerReferences": []}}, ""),
            (
                {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]}},
                "an agent changes no owner",
            ),
            ({"metadata": {"finalizers": [instance.FINALIZER, "corral.dev/mine"]}}, "finalizers"),
            ({"metadata": {"finalizers": []}}, "finalizers"),
        ],
    )
    async def test_changes_nothing_but_a_status(self, stage: Stage, body: kube.Object, words: str) -> None:
        seen = await stage.instance()
        if not words:
            # What changes nothing is no change.
            await stage.agent.patch(world.INSTANCES, seen, body)
            return
        await refused(
            stage.agent.patch(world.INSTANCES, seen, body),
            "ValidatingAdmissionPolicy 'corral-agent-status-only'",
            words,
        )
        assert (await stage.instance())["metadata"]["generation"] == seen["metadata"]["generation"]

    async def test_by_way_of_the_status_it_changes_nothing_else(self, stage: Stage) -> None:
        seen = await stage.instance()
        body = {
            "metadata": {"labels": {"team": "x"}, "finalizers": [], "ownerReferences": []},
            "spec": {"cpu": 7},
            "status": {"observedGeneration": seen["status"]["observedGeneration"]},
        }
        after = await stage.agent.patch(world.INSTANCES, seen, body, subresource="status")
        assert after["spec"] == seen["spec"]
        for field in ("labels", "finalizers", "ownerReferences"):
            assert after["metadata"].get(field) == seen["metadata"].get(field)

    async def test_lets_go_of_a_deleted_instance_and_takes_no_other_finalizer(self, stage: Stage) -> None:
        like = (await stage.instance())["spec"]
        # Its owner is nobody's: neither the agent nor the controller has anything to do for it.
        spec = {**like, "owner": {**like["owner"], "uid": "no-such-guest"}, "runStrategy": "Halted"}
        metadata = {"name": "left", "namespace": stage.place, "finalizers": ["corral.test/keep", instance.FINALIZER]}
        made = await stage.admin.create(world.INSTANCES, {"metadata": metadata, "spec": spec})
        await stage.admin.delete(world.INSTANCES, made)

        async def look() -> Any:
            found = await stage.admin.get(world.INSTANCES, stage.place, "left")
            assert found is not None
            return found

        # The agent of the cloud does what it may.
        left = await until(look, lambda found: found["metadata"]["finalizers"] == ["corral.test/keep"])
        none = {"metadata": {"finalizers": []}}
        await refused(stage.agent.patch(world.INSTANCES, left, none), "corral-agent-status-only", "and no other")
        await stage.admin.patch(world.INSTANCES, left, none)

    async def test_makes_and_deletes_no_object(self, stage: Stage) -> None:
        seen = await stage.instance()
        metadata = {"name": "mine", "namespace": stage.place}
        made = stage.agent.create(world.INSTANCES, {"metadata": metadata, "spec": seen["spec"]})
        await refused(made, FORBIDDEN_BY_ROLE.format("create", "instances"))
        await refused(stage.agent.delete(world.INSTANCES, seen), FORBIDDEN_BY_ROLE.format("delete", "instances"))
        await refused(stage.agent.create(SECRETS, {"metadata": metadata}), "cannot create")
        await refused(stage.agent.create(CONFIG_MAPS, {"metadata": metadata}), "cannot create")

    async def test_writes_no_status_of_another_host(self, stage: Stage) -> None:
        other = await stage.admin.get(world.HOST_STATES, stage.elsewhere, stage.other)
        assert other is not None
        body = {"status": {"observedGeneration": 0}}
        patch = stage.agent.patch(world.HOST_STATES, other, body, subresource="status")
        await refused(patch, FORBIDDEN_BY_ROLE.format("patch", "hoststates/status"))

    async def test_writes_nothing_elsewhere_whatever_is_bound_to_it(self, stage: Stage) -> None:
        user = f"corral:agent:{stage.host}"
        binding = await stage.admin.create(CLUSTER_BINDINGS, bound("slip", user, "cluster-admin"))
        try:
            other = await stage.admin.get(world.HOST_STATES, stage.elsewhere, stage.other)
            assert other is not None
            await until(lambda: may(stage.agent.get(world.HOSTS, None, stage.host)), bool)
            body = {"status": {"observedGeneration": 0}}
            patch = stage.agent.patch(world.HOST_STATES, other, body, subresource="status")
            await refused(patch, "'corral-agent-place'", "only in the namespace of its own host", stage.place)
            vm = await stage.vm()
            await refused(stage.agent.delete(world.VMS, vm), "ValidatingAdmissionPolicy 'corral-agent-")
            await refused(stage.agent.delete(world.INSTANCES, await stage.instance()), "'corral-agent-status-only'")
        finally:
            await stage.admin.delete(CLUSTER_BINDINGS, binding)
            await until(lambda: may(stage.agent.get(world.HOSTS, None, stage.host)), lambda it: not it)

    async def test_has_one_lease_in_its_own_name(self, stage: Stage) -> None:
        metadata = {"name": "another", "namespace": stage.place, "labels": {"corral.dev/agent": stage.host}}
        await refused(stage.agent.create(kube.LEASES, {"metadata": metadata}), "corral-agent-lease", "one Lease")
        lease = await stage.agent.get(kube.LEASES, stage.place, "corral-agent")
        assert lease is not None
        body = {"metadata": {"labels": {"corral.dev/agent": stage.other}}}
        await refused(stage.agent.patch(kube.LEASES, lease, body), "corral-agent-lease", "own host's name")
        await refused(stage.agent.delete(kube.LEASES, lease), "cannot delete")


async def test_a_refusal_is_told_without_the_object_that_the_api_server_quotes(stage: Stage) -> None:
    """As after an upgrade in which the agent came before its kinds."""
    await stage.cloud.vm("quoted", cloudInit={"userData": "#!/bin/sh\necho hush-hush\n"})
    await stage.cloud.ready("quoted")
    (seen,) = [obj for obj in await stage.cloud.all(world.INSTANCES) if obj["spec"]["owner"]["name"] == "quoted"]
    assert "hush-hush" in json.dumps(seen["spec"])
    with pytest.raises(kube.ApiRefused) as raised:
        await stage.admin.patch(world.INSTANCES, seen, {"status": {"tomorrow": 1}}, subresource="status")
    assert 'unknown field "status.tomorrow"' in raised.value.message
    assert "hush-hush" not in str(raised.value)
    await stage.cloud.delete("quoted")


class TestController:
    """With the controller's credential."""

    async def test_changes_and_deletes_nothing_of_a_tenant(self, stage: Stage) -> None:
        vm = await stage.vm()
        patch = stage.controller.patch(world.VMS, vm, {"spec": {"runStrategy": "Halted"}})
        await refused(patch, FORBIDDEN_BY_ROLE.format("patch", "virtualmachines"))
        await refused(stage.controller.delete(world.VMS, vm), FORBIDDEN_BY_ROLE.format("delete", "virtualmachines"))
        by_status = {"spec": {"runStrategy": "Halted"}, "metadata": {"labels": {"a": "b"}}, "status": {}}
        after = await stage.controller.patch(world.VMS, vm, by_status, subresource="status")
        assert after["spec"] == vm["spec"]
        assert "labels" not in after["metadata"]

    async def test_writes_no_status_of_an_agents(self, stage: Stage) -> None:
        patch = stage.controller.patch(world.INSTANCES, await stage.instance(), {"status": {}}, subresource="status")
        await refused(patch, FORBIDDEN_BY_ROLE.format("patch", "instances/status"))

    async def test_lists_no_secrets(self, stage: Stage) -> None:
        for namespace in (None, stage.cloud.namespace, stage.place, "kube-system"):
            await refused(listed(stage.controller, SECRETS, namespace), FORBIDDEN_BY_ROLE.format("list", "secrets"))

    async def test_binds_the_agents_role_to_the_hosts_own_agent_and_nothing_else(self, stage: Stage) -> None:
        def bind(namespace: str, user: str, role: str) -> Awaitable[object]:
            made = bound("slip", user, role)
            made["metadata"]["namespace"] = namespace
            return stage.controller.create(kube.ROLE_BINDINGS, made)

        agent = f"corral:agent:{stage.host}"
        await refused(bind(stage.place, agent, "cluster-admin"), "is attempting to grant RBAC permissions")
        place = "ValidatingAdmissionPolicy 'corral-controller-place'"
        await refused(bind(stage.place, f"corral:agent:{stage.other}", "corral-agent"), place, "own host")
        await refused(bind(stage.place, "mallory", "corral-agent"), place, "own host")
        await refused(bind(stage.cloud.namespace, agent, "corral-agent"), place, "corral-host-NAME")

    async def test_makes_namespaces_of_hosts_only(self, stage: Stage) -> None:
        made = stage.controller.create(kube.NAMESPACES, {"metadata": {"name": f"{stage.cloud.prefix}-mine"}})
        await refused(made, "corral-controller-place", "of hosts only")
        found = await stage.admin.get(kube.NAMESPACES, None, stage.place)
        assert found is not None
        await refused(stage.controller.delete(kube.NAMESPACES, found), "cannot delete")

    async def test_makes_no_secret_that_could_be_a_token(self, stage: Stage) -> None:
        binding = await stage.admin.create(CLUSTER_BINDINGS, bound("slip", CONTROLLER, "cluster-admin"))
        try:
            await until(lambda: may(stage.controller.get(SECRETS, "kube-system", "any")), bool)
            token = {
                "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "default"}},
                "type": "kubernetes.io/service-account-token",
            }
            for namespace, words in ((stage.place, "of the type Opaque"), ("kube-system", "corral-host-NAME")):
                token["metadata"]["namespace"] = namespace  # type: ignore[index]
                await refused(stage.controller.create(SECRETS, token), "corral-controller-place", words)
        finally:
            await stage.admin.delete(CLUSTER_BINDINGS, binding)


class TestNobodyBySlip:
    """Not even with all rights."""

    async def test_a_kind_stays_until_its_annotation_says_otherwise(self, stage: Stage) -> None:
        await asyncio.to_thread(kept, stage.shell, "crd", "instances.corral.dev", "corral-keep-kinds")

    async def test_all_kinds_at_once_stay_as_well(self, stage: Stage) -> None:
        with pytest.raises(errors.LabError) as raised:
            await asyncio.to_thread(stage.shell.run, "delete", "crd", "--all", "--dry-run=server")
        for one in v1alpha1.RESOURCES:
            assert f'"{one.kind.crd_name}" is forbidden: ValidatingAdmissionPolicy' in str(raised.value)

    async def test_a_hosts_namespace_stays_until_its_annotation_says_otherwise(self, stage: Stage) -> None:
        await asyncio.to_thread(kept, stage.shell, "namespace", stage.place, "corral-keep-hosts")

    async def test_what_is_allowed_goes_and_is_gone(self, stage: Stage) -> None:
        name = f"corral-host-{stage.cloud.prefix}-gone"
        made = await stage.admin.create(kube.NAMESPACES, {"metadata": {"name": name}})
        await refused(stage.admin.delete(kube.NAMESPACES, made), "corral-keep-hosts", f"annotate namespace {name}")
        await stage.admin.delete(kube.NAMESPACES, await allow_deletion(stage.admin, kube.NAMESPACES, made))
        await until(lambda: stage.admin.get(kube.NAMESPACES, None, name), lambda found: found is None, PATIENCE * 4)

    async def test_other_kinds_and_namespaces_are_nobodys_business(self, stage: Stage) -> None:
        made = await stage.admin.create(kube.NAMESPACES, {"metadata": {"name": f"{stage.cloud.prefix}-free"}})
        await stage.admin.delete(kube.NAMESPACES, made)


def test_users_are_in_no_group_but_that_of_all_who_are_somebody(control_plane: plane.ControlPlane) -> None:
    for user in (CONTROLLER, "corral:agent:h1"):
        api = kubectl.Kubectl(
            control_plane.programs.kubectl, control_plane.kubeconfig(user), control_plane.lab.kubectl_cache
        )
        said = json.loads(api.run("auth", "whoami", "--output", "json"))["status"]["userInfo"]
        assert (said["username"], said["groups"]) == (user, ["system:authenticated"])


def bound(name: str, user: str, role: str) -> kube.Object:
    """A binding of a ClusterRole to a user."""
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


async def may(work: Awaitable[object]) -> bool:
    """Whether the API server allows it."""
    try:
        await work
    except kube.ApiRefused:
        return False
    return True


def kept(shell: kubectl.Kubectl, kind: str, name: str, policy: str) -> None:
    """It can't be deleted, what refuses it says what to type, and with that it could be."""
    with pytest.raises(errors.LabError) as raised:
        shell.run("delete", kind, name, "--dry-run=server")
    said = str(raised.value)
    assert policy in said
    annotate = f"annotate {kind} {name} corral.dev/allow-deletion=true"
    assert annotate in said
    shell.run(*annotate.split())
    try:
        assert "deleted" in shell.run("delete", kind, name, "--dry-run=server")
    finally:
        shell.run(*annotate.replace("=true", "-").split())
