from __future__ import annotations

import pytest

from corral import kube
from corral.api import v1alpha1

VMS = next(kube.collection(one) for one in v1alpha1.RESOURCES if one.kind.kind == "VirtualMachine")
HOSTS = next(kube.collection(one) for one in v1alpha1.RESOURCES if one.kind.kind == "Host")


@pytest.mark.parametrize(
    ("where", "parts", "path"),
    [
        (VMS, (None,), "/apis/corral.dev/v1alpha1/virtualmachines"),
        (VMS, ("shop",), "/apis/corral.dev/v1alpha1/namespaces/shop/virtualmachines"),
        (VMS, ("shop", "web"), "/apis/corral.dev/v1alpha1/namespaces/shop/virtualmachines/web"),
        (VMS, ("shop", "web", "status"), "/apis/corral.dev/v1alpha1/namespaces/shop/virtualmachines/web/status"),
        (HOSTS, (None, "h1"), "/apis/corral.dev/v1alpha1/hosts/h1"),
        (HOSTS, ("ignored", "h1"), "/apis/corral.dev/v1alpha1/hosts/h1"),
        (kube.NAMESPACES, (None, "shop"), "/api/v1/namespaces/shop"),
        (kube.LEASES, ("x", "a/../b"), "/apis/coordination.k8s.io/v1/namespaces/x/leases/a%2F..%2Fb"),
        (kube.LEASES, ("/x", "/y"), "/apis/coordination.k8s.io/v1/namespaces/%2Fx/leases/%2Fy"),
    ],
)
def test_paths(where: kube.Collection, parts: tuple[str | None, ...], path: str) -> None:
    assert where.path(*parts) == path


def test_versions() -> None:
    assert [VMS.api_version, kube.NAMESPACES.api_version] == ["corral.dev/v1alpha1", "v1"]


def test_keys_say_which() -> None:
    assert str(kube.Key("hosts", "", "h1")) == "hosts/h1"
    assert str(kube.key_of(VMS, {"metadata": {"namespace": "shop", "name": "web"}})) == "virtualmachines/shop/web"
