from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from corral import kube
from corral.api.v1alpha1 import network
from corral.controller import process
from corral.controller.world import INSTANCES, NETWORKS

from .things import made

STATUS = network.NetworkStatus(observed_generation=1)
KEY = kube.Key("networks", "shop", "net")


class Overtaken(kube.Kube):
    """An API server to which somebody else wrote between our look and our PATCH; `meanwhile` is what, merged in."""

    def __init__(self, **meanwhile: Any) -> None:
        self._meanwhile = meanwhile

    async def patch(
        self, where: kube.Collection, seen: Mapping[str, Any], body: kube.Object, *, subresource: str | None = None
    ) -> kube.Object:
        metadata = {**seen["metadata"], "resourceVersion": "9", **self._meanwhile.get("metadata", {})}
        status = {**seen.get("status", {}), **self._meanwhile.get("status", {}), **body["status"]}
        return {**seen, "metadata": metadata, "status": status}


@pytest.mark.parametrize(
    ("meanwhile", "looked_at"),
    [
        pytest.param({}, [], id="nobody did"),
        pytest.param({"metadata": {"generation": 2}}, [KEY], id="another spec"),
        pytest.param({"status": {"other": 1}}, [KEY], id="a status by hand"),
        pytest.param({"metadata": {"labels": {"a": "b"}}}, [], id="a label"),
    ],
)
async def test_what_was_written_meanwhile_is_looked_at_for_no_event_will_tell(
    meanwhile: dict[str, Any], looked_at: list[kube.Key]
) -> None:
    world = process.make_world(Overtaken(**meanwhile))
    told: list[kube.Key] = []
    world.tell = lambda key, _after: told.append(key)
    seen = made(NETWORKS, "net", namespace="shop", metadata={"generation": 1})
    world.store.put(NETWORKS, seen)
    await world.write_status(NETWORKS, seen, STATUS)
    assert told == looked_at


def test_an_instance_stands_for_a_virtual_machine_only_in_a_hosts_namespace() -> None:
    world = process.make_world(Overtaken())
    owner = {"namespace": "shop", "name": "web", "uid": "u"}
    for namespace in ("shop", "corral-host-a"):
        world.store.put(
            INSTANCES,
            made(
                INSTANCES,
                "web-1",
                namespace=namespace,
                spec={"owner": owner, "cpu": 1, "memory": 1, "epoch": 1, "interfaces": []},
            ),
        )
    assert [one["metadata"]["namespace"] for one in world.placed("shop", "web")] == ["corral-host-a"]
