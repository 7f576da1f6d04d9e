"""An API server of one namespace in memory: enough of it to count and to lose writes."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from typing import Any

from corral import kube
from corral.agent.instance import INSTANCES

from .simulated_host import wire

NAMESPACE = "corral-host-h1"


class KeptApi(kube.Kube):
    """Instances by name; `writes` are the bodies that were taken, in order, `asked` how many were sent.

    While it is `away` it takes none; `fail_next` is what the next one fails with.
    """

    def __init__(self) -> None:
        self.objects: dict[str, kube.Object] = {}
        self.writes: list[kube.Object] = []
        self.asked = 0
        self.away = False
        self.fail_next: kube.ApiError | None = None
        self._version = 100

    def put(self, name: str = "i", uid: str = "iu", **changes: Any) -> kube.Object:
        """Create an Instance, or give the one of this name another spec."""
        before = self.objects.get(name)
        metadata: kube.Object = {"finalizers": ["corral.dev/instance"], "generation": 0}
        metadata |= before["metadata"] if before else {}
        metadata |= {"name": name, "namespace": NAMESPACE, "uid": uid, "generation": metadata["generation"] + 1}
        status = before["status"] if before else {"observedGeneration": -1}
        return self._keep({"metadata": metadata, "spec": wire(**changes), "status": status})

    def mark_deleted(self, name: str = "i") -> kube.Object:
        """What DELETE does to an object with a finalizer."""
        obj = self.objects[name]
        obj["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
        return self._keep(obj)

    async def get(self, where: kube.Collection, namespace: str | None, name: str) -> kube.Object | None:
        assert where == INSTANCES
        return copy.deepcopy(self.objects.get(name))

    async def pages(
        self,
        where: kube.Collection,
        namespace: str | None = None,
        *,
        metadata_only: bool = False,
        label_selector: str | None = None,
    ) -> AsyncIterator[list[kube.Object]]:
        if where == INSTANCES:
            for obj in list(self.objects.values()):
                yield [{"metadata": copy.deepcopy(obj["metadata"])} if metadata_only else copy.deepcopy(obj)]

    async def patch(
        self, where: kube.Collection, seen: Mapping[str, Any], body: kube.Object, *, subresource: str | None = None
    ) -> kube.Object:
        self.asked += 1
        self._fail()
        obj = self.objects.get(seen["metadata"]["name"])
        if obj is None or obj["metadata"]["uid"] != seen["metadata"]["uid"]:
            raise kube.ApiRefused("PATCH", "not found", 404)
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, obj["metadata"]["resourceVersion"]):
            raise kube.ApiConflict("PATCH", "it has been modified", 409)
        self.writes.append(body)
        merged = self._keep(_merged(obj, body))
        if "deletionTimestamp" in merged["metadata"] and not merged["metadata"]["finalizers"]:
            del self.objects[merged["metadata"]["name"]]
        return merged

    def _fail(self) -> None:
        failure, self.fail_next = self.fail_next, None
        if failure is None and self.away:
            failure = kube.ApiUnavailable("PATCH", "the API server does not answer")
        if failure is not None:
            raise failure

    def _keep(self, obj: kube.Object) -> kube.Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[obj["metadata"]["name"]] = obj
        return copy.deepcopy(obj)


def _merged(have: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping) or not isinstance(have, Mapping):
        return copy.deepcopy(patch)
    merged = {key: value for key, value in have.items() if patch.get(key, value) is not None}
    return merged | {key: _merged(have.get(key, {}), value) for key, value in patch.items() if value is not None}
