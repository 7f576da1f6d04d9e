"""Fixtures of the tests that run our processes against a real API server."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import yaml

from corral import access, kube
from corral.api import v1alpha1
from corral.crds import generate
from corral_lab.control_plane import plane

from . import fault_proxy, faulty_cloud, simulated_cloud

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_ROLES = {
    "ClusterRole": kube.Collection(_RBAC, "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": kube.Collection(_RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    "Namespace": kube.NAMESPACES,
    "Role": kube.Collection(_RBAC, "Role", "roles", namespaced=True),
    "RoleBinding": kube.ROLE_BINDINGS,
    **{
        kind: kube.Collection(_ADMISSION, kind, plural, namespaced=False)
        for kind, plural in (
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        )
    },
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
    await install_kinds(admin)


async def install_kinds(admin: kube.Kube) -> None:
    """Have this API server serve every kind of ours."""
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
    await install_roles(admin)


async def install_roles(admin: kube.Kube) -> None:
    """Have this API server know what the controller and the agents may do."""
    for wanted in yaml.safe_load_all(access.manifests()):
        where = _ROLES[wanted["kind"]]
        found = await admin.get(where, wanted["metadata"].get("namespace"), wanted["metadata"]["name"])
        if found is None:
            await admin.create(where, wanted)
        else:
            await admin.patch(where, found, {part: wanted[part] for part in ("rules", "spec") if part in wanted})


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


@pytest_asyncio.fixture(scope="module")
async def proxy(
    control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[fault_proxy.Proxy]:
    """A proxy before the API server; it has bad days only by rules."""
    made = fault_proxy.Proxy(tmp_path_factory.mktemp("proxy"), control_plane.kubeconfig)
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module")
async def faulty_cloud_of_module(
    control_plane: plane.ControlPlane,
    admin: kube.Kube,
    crds: None,
    roles: None,
    proxy: fault_proxy.Proxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[faulty_cloud.FaultyCloud]:
    """A controller and two hosts behind the proxy, for all tests of a module."""
    async with faulty_cloud.running(control_plane, admin, tmp_path_factory.mktemp("hosts"), proxy) as made:
        yield made


@pytest.fixture(name="faulty_cloud")
def _faulty_cloud(
    faulty_cloud_of_module: faulty_cloud.FaultyCloud, proxy: fault_proxy.Proxy
) -> Iterator[faulty_cloud.FaultyCloud]:
    """The same; after each test the proxy passes everything."""
    yield faulty_cloud_of_module
    proxy.rules = []
    proxy.choose = lambda _asked: None
