"""Fixtures of the tests that run our processes against a real API server."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml

from corral import access, kube
from corral.api import v1alpha1
from corral.crds import generate
from corral_lab.control_plane import plane

from . import simulated_cloud

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ROLES = {
    "ClusterRole": kube.Collection(_RBAC, "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": kube.Collection(_RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
}
_CRDS = kube.Collection(
    "/apis/apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)


@pytest_asyncio.fixture(scope="session")
async def admin(cluster: pathlib.Path) -> AsyncIterator[kube.Kube]:
    """The API as an administrator."""
    api = await kube.Kube.connect(str(cluster), user_agent="corral-tests")
    yield api
    await api.close()


@pytest_asyncio.fixture(scope="session")
async def crds(admin: kube.Kube) -> None:
    """Every kind of ours, as the generator renders it, accepted and served by the API server."""
    for resource in v1alpha1.RESOURCES:
        wanted = generate.crd(resource.kind, resource.spec, resource.status, resource.description)
        found = await admin.get(_CRDS, None, resource.kind.crd_name)
        if found is None:
            await admin.create(_CRDS, wanted)
        else:
            await admin.patch(_CRDS, found, {"spec": wanted["spec"]})
    for resource in v1alpha1.RESOURCES:
        async with asyncio.timeout(30):
            await _served(admin, resource.kind.crd_name)


async def _served(api: kube.Kube, name: str) -> None:
    while True:
        found = await api.get(_CRDS, None, name)
        conditions = (found or {}).get("status", {}).get("conditions", [])
        if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
            return
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="session")
async def roles(admin: kube.Kube) -> None:
    """What the controller and the agents may do, and no more."""
    for wanted in yaml.safe_load_all(access.manifests()):
        where = _ROLES[wanted["kind"]]
        found = await admin.get(where, None, wanted["metadata"]["name"])
        if found is None:
            await admin.create(where, wanted)
        else:
            await admin.patch(where, found, {"rules": wanted["rules"]} if "rules" in wanted else {})


@pytest_asyncio.fixture
async def cloud(
    control_plane: plane.ControlPlane, admin: kube.Kube, crds: None, roles: None, tmp_path: pathlib.Path
) -> AsyncIterator[simulated_cloud.SimulatedCloud]:
    """The controller and two hosts in memory, with a class, an image, a pool and a network."""
    async with simulated_cloud.running(control_plane, admin, tmp_path) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def shared_cloud(
    control_plane: plane.ControlPlane,
    admin: kube.Kube,
    crds: None,
    roles: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[simulated_cloud.SimulatedCloud]:
    """One cloud for all tests of a module, where each leaves it as it was: empty, with its controller running."""
    folder = tmp_path_factory.mktemp("hosts")
    async with simulated_cloud.running(control_plane, admin, folder) as made:
        yield made


@pytest_asyncio.fixture
async def lent_cloud(shared_cloud: simulated_cloud.SimulatedCloud) -> AsyncIterator[simulated_cloud.SimulatedCloud]:
    """The shared cloud, empty again after the test."""
    shared_cloud.mark()
    yield shared_cloud
    await shared_cloud.empty()
