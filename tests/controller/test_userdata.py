"""User data in a tenant's Secret: read by its name, copied for one host alone, and what is said where there is none."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from corral import kube
from corral.controller import userdata, world

from .simulated_cloud import SimulatedCloud, message, until

pytestmark = pytest.mark.api

REF = {"userDataSecretRef": {"name": "mine", "key": "cloud.cfg"}}
PASSWORD = "hunter2-of-the-tenant"
TEXT = f"#cloud-config\npassword: {PASSWORD}\n"


class Tenant:
    """Secrets of the tenant's namespace, and what became of them."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self.cloud = cloud

    async def keeps(self, content: str | bytes, key: str = "cloud.cfg") -> kube.Object:
        """Have the Secret `mine` with this content."""
        await self.keeps_none()
        raw = content.encode() if isinstance(content, str) else content
        metadata = {"name": "mine", "namespace": self.cloud.namespace}
        return await self.cloud.admin.create(
            kube.SECRETS, {"metadata": metadata, "data": {key: base64.b64encode(raw).decode()}}
        )

    async def keeps_none(self) -> None:
        if found := await self.cloud.admin.get(kube.SECRETS, self.cloud.namespace, "mine"):
            await self.cloud.admin.delete(kube.SECRETS, found)

    async def copies(self) -> list[kube.Object]:
        """What there is of user data in the hosts' namespaces."""
        found = [
            obj
            for host in self.cloud.hosts
            async for page in self.cloud.admin.pages(kube.SECRETS, f"corral-host-{host}")
            for obj in page
        ]
        return [obj for obj in found if obj["metadata"]["name"].startswith(f"{self.cloud.namespace}.")]


@pytest_asyncio.fixture
async def tenant(lent_cloud: SimulatedCloud) -> AsyncIterator[Tenant]:
    yield Tenant(lent_cloud)
    await Tenant(lent_cloud).keeps_none()


async def test_a_copy_is_beside_its_instance_immutable_and_owned_by_it(tenant: Tenant) -> None:
    cloud = tenant.cloud
    await tenant.keeps(TEXT)
    await cloud.vm("web", cloudInit=REF)
    (vm,) = await cloud.ready("web")
    (copy,) = [one for one in await tenant.copies() if vm["metadata"]["uid"] in one["metadata"]["name"]]
    (instance,) = await cloud.all(world.INSTANCES)
    assert copy["immutable"] is True
    assert copy["type"] == "Opaque"
    assert base64.b64decode(copy["data"][userdata.KEY]).decode() == TEXT
    assert copy["metadata"]["name"] == instance["metadata"]["name"] == instance["spec"]["seed"]["userDataSecret"]
    (owner,) = copy["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Instance", instance["metadata"]["uid"])
    metal = cloud.hosts[vm["status"]["placement"]["host"]]
    assert metal.seeds.seeds[vm["metadata"]["uid"]].user_data == TEXT
    for told in (vm, instance):
        assert PASSWORD not in json.dumps(told)


async def test_a_secret_that_is_missing_is_looked_for_until_it_is_there(tenant: Tenant) -> None:
    cloud = tenant.cloud
    await cloud.vm("web", cloudInit=REF)
    vm = await cloud.says("web", "UserDataSecretMissing")
    assert message(vm).startswith(f"There is no Secret mine in namespace {cloud.namespace}")
    assert "placement" not in vm["status"]
    # Nobody tells of it: it is looked for again in five seconds.
    await tenant.keeps(TEXT)
    await cloud.ready("web", patience=30)


async def test_a_secret_without_the_key_is_told(tenant: Tenant) -> None:
    await tenant.keeps(TEXT, key="another")
    await tenant.cloud.vm("web", cloudInit=REF)
    vm = await tenant.cloud.says("web", "UserDataSecretMissing")
    assert message(vm).startswith("Secret mine has no key cloud.cfg: see spec.cloudInit.userDataSecretRef")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"#cloud-config\npassword: *{PASSWORD}\n", "key cloud.cfg of Secret mine line 2 column 11"),
        (f"#cloud-config\n- {PASSWORD}\n", "key cloud.cfg of Secret mine line 2 column 1"),
        (PASSWORD.encode() + b"\xff", "key cloud.cfg of Secret mine is no UTF-8 text"),
        ("x" * 65537, "key cloud.cfg of Secret mine has 65537 bytes"),
    ],
)
async def test_malformed_user_data_of_a_secret_is_told_without_a_word_of_it(
    tenant: Tenant, content: str | bytes, said: str
) -> None:
    await tenant.keeps(content)
    await tenant.cloud.vm("web", cloudInit=REF)
    vm = await tenant.cloud.says("web", "UserDataMalformed")
    assert message(vm).startswith(said)
    assert PASSWORD not in json.dumps(vm)
    assert not await tenant.cloud.all(world.INSTANCES)


async def test_malformed_user_data_of_a_manifest_is_told_by_its_line_and_mended_by_it(tenant: Tenant) -> None:
    cloud = tenant.cloud
    await cloud.vm("web", cloudInit={"userData": "#cloud-config\npackages:\n- nginx\n runcmd: x\n"})
    vm = await cloud.says("web", "UserDataMalformed")
    assert message(vm).startswith("spec.cloudInit.userData line 4 column 8: ")
    assert message(await cloud.says("web", "UserDataMalformed", kind="Stalled", status="True"))
    await cloud.patch(world.VMS, "web", {"cloudInit": {"userData": "#cloud-config\npackages: [nginx]\n"}})
    await cloud.ready("web")


async def test_a_controller_that_died_before_the_copy_makes_it_when_it_is_back(tenant: Tenant) -> None:
    cloud = tenant.cloud
    await tenant.keeps(TEXT)
    await asyncio.gather(*(cloud.stop_agent(metal) for metal in cloud.hosts.values()))
    await cloud.vm("web", cloudInit=REF)
    vm = await until(lambda: cloud.get(world.VMS, "web"), lambda vm: "placement" in vm.get("status", {}))
    uid = vm["metadata"]["uid"]

    async def copy() -> list[kube.Object]:
        return [one for one in await tenant.copies() if uid in one["metadata"]["name"]]

    (made,) = await until(copy, lambda found: len(found) == 1)
    await cloud.kill_controller()
    # As if it had died between the two writes.
    await cloud.admin.delete(kube.SECRETS, made)
    await cloud.start_controller()
    (again,) = await until(copy, lambda found: len(found) == 1)
    assert again["data"] == made["data"]
    for metal in cloud.hosts.values():
        cloud.start_agent(metal)
    await cloud.ready("web")


async def test_a_guest_that_was_told_needs_neither_secret_any_more(tenant: Tenant) -> None:
    cloud = tenant.cloud
    await tenant.keeps(TEXT)
    await cloud.vm("web", cloudInit=REF)
    (vm,) = await cloud.ready("web")
    await tenant.keeps_none()
    for copy in await tenant.copies():
        await cloud.admin.delete(kube.SECRETS, copy)
    await cloud.stop_controller()
    await cloud.start_controller()
    await cloud.patch(world.VMS, "web", {"runStrategy": "Halted"})
    await cloud.ready("web", reason="Halted")
    await cloud.patch(world.VMS, "web", {"runStrategy": "Always"})
    await cloud.ready("web")
    assert not [one for one in await tenant.copies() if vm["metadata"]["uid"] in one["metadata"]["name"]]


@pytest.mark.parametrize("who", ["controller", "agent"])
async def test_nobody_lists_or_watches_secrets(tenant: Tenant, who: str) -> None:
    cloud = tenant.cloud
    name = next(iter(cloud.hosts))
    user: dict[str, Any] = {"controller": "corral:controller", "agent": f"corral:agent:{name}"}
    api = await kube.Kube.connect(str(cloud.kubeconfig(user[who])), user_agent="corral-tests")
    try:
        for namespace in (None, cloud.namespace, f"corral-host-{name}"):
            with pytest.raises(kube.ApiRefused, match="cannot list resource"):
                _ = [page async for page in api.pages(kube.SECRETS, namespace)]
        if who == "agent":
            with pytest.raises(kube.ApiRefused, match="cannot get resource"):
                await api.get(kube.SECRETS, cloud.namespace, "mine")
    finally:
        await api.close()
