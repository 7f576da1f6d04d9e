"""An API server in a few lines, for models of controllers: unique names, uids, versions, compare-and-set, finalizers.

`Server` is what everybody talks to; `Line` is one process' connection to it, the real client up to the socket. A
request of a gated line waits twice, before it is served and before its answer is heard, for who drives the coroutine.
"""

from __future__ import annotations

import copy
import itertools
import json
import urllib.parse
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any, TypeVar

from corral import kube

ResultT = TypeVar("ResultT")
Key = tuple[str, str, str]
"""Plural, namespace, name."""


class Server:
    """Objects by key. `made` is called with each object that is about to be made."""

    def __init__(self) -> None:
        self.objects: dict[Key, kube.Object] = {}
        self.version = 0
        self.lines: list[Line] = []
        self.made: Callable[[Key, kube.Object], None] = lambda _key, _obj: None
        self._uids = itertools.count(1)

    def of(self, plural: str) -> list[kube.Object]:
        """All of a kind."""
        return [obj for key, obj in sorted(self.objects.items()) if key[0] == plural]

    def backup(self) -> tuple[dict[Key, kube.Object], int]:
        """Everything, with its versions."""
        return copy.deepcopy(self.objects), self.version

    def restore(self, kept: tuple[dict[Key, kube.Object], int]) -> None:
        """Everything as it was, and versions are given out again."""
        objects, self.version = kept
        self.objects = copy.deepcopy(objects)

    def serve(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        """Status and body of the answer."""
        key, subresource = _parsed(path)
        match method:
            case "GET" if not key[2]:
                found = [obj for obj in self.of(key[0]) if key[1] in ("", obj["metadata"].get("namespace"))]
                return 200, {"items": found, "metadata": {"resourceVersion": str(self.version)}}
            case "GET":
                return (200, self.objects[key]) if key in self.objects else _refused(404)
            case "POST":
                return self._create(key, body or {})
            case "PATCH":
                return self._patch(key, body or {}, subresource)
            case _:
                return self._delete(key, (body or {}).get("preconditions", {}).get("uid"))

    def _create(self, key: Key, body: Mapping[str, Any]) -> tuple[int, Any]:
        obj = copy.deepcopy(dict(body))
        key = (key[0], key[1], obj["metadata"]["name"])
        if key in self.objects:
            return _refused(409)
        self.made(key, obj)
        obj["metadata"] |= {"uid": f"uid-{next(self._uids)}", "generation": 1}
        obj["metadata"]["creationTimestamp"] = f"2026-01-31T{self.version:010}Z"
        return 201, self._store(key, obj, "ADDED")

    def _patch(self, key: Key, body: Mapping[str, Any], subresource: str) -> tuple[int, Any]:
        if key not in self.objects:
            return _refused(404)
        seen, metadata = self.objects[key], body.get("metadata", {})
        if any(
            metadata.get(name, seen["metadata"][name]) != seen["metadata"][name] for name in ("uid", "resourceVersion")
        ):
            return _refused(409)
        obj = copy.deepcopy(seen)
        for part in ("status",) if subresource else ("spec",):
            if part in body:
                obj[part] = _merged(obj.get(part, {}), body[part])
        if "finalizers" in metadata and not subresource:
            obj["metadata"]["finalizers"] = metadata["finalizers"]
        if obj == seen:
            return 200, seen
        if obj.get("spec") != seen.get("spec"):
            obj["metadata"]["generation"] += 1
        if "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers"):
            return 200, self._remove(key)
        return 200, self._store(key, obj, "MODIFIED")

    def _delete(self, key: Key, uid: str | None) -> tuple[int, Any]:
        if key not in self.objects:
            return _refused(404)
        obj = copy.deepcopy(self.objects[key])
        if uid not in (None, obj["metadata"]["uid"]):
            return _refused(409)
        if obj["metadata"].get("finalizers"):
            if "deletionTimestamp" in obj["metadata"]:
                return 200, self.objects[key]
            obj["metadata"] |= {"deletionTimestamp": "now", "generation": obj["metadata"]["generation"] + 1}
            return 200, self._store(key, obj, "MODIFIED")
        return 200, self._remove(key)

    def _store(self, key: Key, obj: kube.Object, event: str) -> kube.Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self._tell(event, key, obj)
        return obj

    def _remove(self, key: Key) -> kube.Object:
        obj = copy.deepcopy(self.objects.pop(key))
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", key, obj)
        return {"kind": "Status"}

    def _tell(self, event: str, key: Key, obj: kube.Object) -> None:
        for line in self.lines:
            line.events.append((event, key, copy.deepcopy(obj)))


class Line(kube.Kube):
    """One process' connection; `events` are what its watches have not told yet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._counted = None
        self.gated = False
        self.events: deque[tuple[str, Key, kube.Object]] = deque()

    async def _answered(
        self,
        method: str,
        path: str,
        *,
        body: kube.Object | None,
        query: dict[str, str] | None,
        headers: dict[str, str] | None,
    ) -> tuple[int, bytes]:
        if self.gated:
            await _Gate()
        status, answer = self._server.serve(method, path, body)
        text = json.dumps(answer).encode()
        if self.gated:
            await _Gate()
        return status, text


class _Gate:
    def __await__(self) -> Generator[None, None, None]:
        yield


def finished(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        result: ResultT = end.value
        return result
    raise AssertionError("it waits")


def _parsed(path: str) -> tuple[Key, str]:
    parts = [urllib.parse.unquote(part) for part in path.split("/")[3 if path.startswith("/api/") else 4 :]]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = [*parts, "", ""][:3]
    return (plural, namespace, name), subresource


def _merged(have: Any, want: Any) -> Any:
    """RFC 7386."""
    if not isinstance(want, Mapping):
        return copy.deepcopy(want)
    merged = dict(have) if isinstance(have, Mapping) else {}
    for key, value in want.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _refused(status: int) -> tuple[int, Any]:
    return status, {"message": f"refused with {status}"}
