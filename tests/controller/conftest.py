"""Fixtures of the tests that run our processes against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from corral import kube
from corral.api import v1alpha1
from corral.crds import generate
from corral_lab.control_plane import plane

_CRDS = kube.Collection(
    "/apis/apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)


@pytest_asyncio.fixture(scope="session")
async def admin(control_plane: plane.ControlPlane) -> AsyncIterator[kube.Kube]:
    """The API as an administrator."""
    api = await kube.Kube.connect(str(control_plane.lab.kubeconfig), user_agent="corral-tests")
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
