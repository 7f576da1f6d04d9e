"""The API port: what the controller, the agent and the command ask of the Kubernetes API, and its errors in our words.

Objects are plain dicts as they stand on the wire; who needs values parses them with the models of `corral.api`. Writes
use strict field validation: what the API server would prune is an error of ours, not silence.
"""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config import kube_config

from corral import metrics, refusals
from corral.api import schema

Object = dict[str, Any]
PAGE = 500
_STRICT = {"fieldValidation": "Strict"}


class ApiError(Exception):
    """A request that the API server did not carry out; `message` is its own sentence."""

    def __init__(self, request: str, message: str, status: int | None = None) -> None:
        super().__init__(f"{request}: {message}")
        self.request = request
        self.message = message
        self.status = status


class ApiUnavailable(ApiError):  # noqa: N818 - named as drivers' three words are
    """The API server is away, overloaded, or its answer was lost: the write may have taken effect. Look again."""


class ApiFenced(ApiUnavailable):
    """This process may not write now: it was not sent. Who may write looks at everything anew."""


class ApiConflict(ApiError):  # noqa: N818
    """The object is another one than was read, or exists already. Look again."""


class ApiRefused(ApiError):  # noqa: N818
    """The API server refuses the request as it is: forbidden or invalid. The same request is refused again."""


class NotConfigured(Exception):  # noqa: N818 - reads as what it says
    """There is no way to reach an API server: `args[0]` says what is wrong with what was given."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Where the objects of one kind are: `root` is `/api/v1` or `/apis/GROUP/VERSION`."""

    root: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return self.root.removeprefix("/apis/").removeprefix("/api/")

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of the collection, or of one object in it; a namespaced one without namespace is all namespaces'."""
        parts = ["namespaces", namespace] if self.namespaced and namespace is not None else []
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join([self.root, *(urllib.parse.quote(part, safe="") for part in parts)])


def collection(resource: schema.Resource) -> Collection:
    """The collection of one of our own kinds."""
    kind = resource.kind
    return Collection(f"/apis/{schema.API_VERSION}", kind.kind, kind.plural, namespaced=kind.scope == "Namespaced")


SECRETS = Collection("/api/v1", "Secret", "secrets", namespaced=True)
NAMESPACES = Collection("/api/v1", "Namespace", "namespaces", namespaced=False)
LEASES = Collection("/apis/coordination.k8s.io/v1", "Lease", "leases", namespaced=True)
ROLE_BINDINGS = Collection("/apis/rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", namespaced=True)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object: the plural of its kind, its namespace (empty where the kind has none), its name."""

    plural: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.plural}/{self.namespace}/{self.name}" if self.namespace else f"{self.plural}/{self.name}"


def key_of(where: Collection, obj: Mapping[str, Any]) -> Key:
    """The key of an object of this collection."""
    return Key(where.plural, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


class Kube:
    """A connection to the API server, with a bounded pool. Close it after use."""

    def __init__(self, api: client.ApiClient, timeout: float = 30.0) -> None:
        self._api = api
        self._counted: metrics.Metrics | None = None
        self._may_write: Callable[[], bool] | None = None
        self._timeout = timeout

    def fence(self, may_write: Callable[[], bool]) -> None:
        """Ask before each write from here on, right before it is sent; where it may not be, it is an `ApiFenced`."""
        self._may_write = may_write

    def count(self, counted: metrics.Metrics) -> None:
        """Count every request from here on."""
        self._counted = counted

    @classmethod
    async def connect(
        cls, kubeconfig: str | None, *, user_agent: str, connections: int = 32, timeout: float = 30.0
    ) -> Self:
        """Connect by a kubeconfig, or from inside a cluster where there is none. Raises `NotConfigured`.

        `timeout` is in how many seconds a request must have its answer.
        """
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = connections
        await _configure(configuration, kubeconfig)
        api = client.ApiClient(configuration)
        # The library writes keys that stand in a kubeconfig to temporary files and removes them at its exit, which a
        # killed process does not come to. They are loaded now.
        kube_config._cleanup_temp_files()
        api.user_agent = user_agent
        return cls(api, timeout)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._api.close()

    @property
    def server(self) -> str:
        """The API server's URL, for who must open a session of its own."""
        return str(self._api.configuration.host)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Whom we trust and who we are, likewise."""
        context: ssl.SSLContext = self._api.rest_client.ssl_context
        return context

    async def headers(self) -> dict[str, str]:
        """The bearer token, where there is one, likewise."""
        token = await self._api.configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token} if token else {}

    async def get(self, where: Collection, namespace: str | None, name: str) -> Object | None:
        """The object as it is now; None where the API server says that there is none."""
        try:
            return await self._request("GET", where.path(namespace, name))
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    async def pages(
        self,
        where: Collection,
        namespace: str | None = None,
        *,
        metadata_only: bool = False,
        label_selector: str | None = None,
    ) -> AsyncIterator[list[Object]]:
        """Every object, a page at a time, as of one moment."""
        accept = "application/json"
        if metadata_only:
            accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        query = {"limit": str(PAGE)} | ({"labelSelector": label_selector} if label_selector else {})
        while True:
            page = await self._request("GET", where.path(namespace), query=query, headers={"Accept": accept})
            # Items of a list carry no kind of their own; an empty list of metadata has null for its items.
            yield [{"apiVersion": where.api_version, "kind": where.kind, **item} for item in page["items"] or ()]
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def revision(self, where: Collection, namespace: str | None = None) -> int:
        """The resourceVersion of the collection as it is now: none of an object in it is higher."""
        page = await self._request("GET", where.path(namespace), query={"limit": "1"})
        return int(page["metadata"]["resourceVersion"])

    async def create(self, where: Collection, obj: Object) -> Object:
        """Make the object. Raises `ApiConflict` where there is one of its name."""
        body = {"apiVersion": where.api_version, "kind": where.kind, **obj}
        return await self._request("POST", where.path(obj["metadata"].get("namespace")), body=body, query=dict(_STRICT))

    async def patch(
        self, where: Collection, seen: Mapping[str, Any], body: Object, *, subresource: str | None = None
    ) -> Object:
        """Merge `body` into the object that was seen as `seen`: another uid by the same name is an `ApiConflict`."""
        metadata = {**body.get("metadata", {}), "uid": seen["metadata"]["uid"]}
        return await self._request(
            "PATCH",
            where.path(seen["metadata"].get("namespace"), seen["metadata"]["name"], subresource),
            body={**body, "metadata": metadata},
            query=dict(_STRICT),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    async def patch_status(
        self, where: Collection, seen: Mapping[str, Any], status: Object, *, unchanged: bool = False
    ) -> Object:
        """Make the object's status `status`, in one PATCH of what differs; no request where nothing does.

        With `unchanged`, an object that somebody wrote since it was seen is an `ApiConflict`: compare and set.
        """
        difference = merge_patch(seen.get("status", {}), status)
        if not difference:
            return dict(seen)
        body: Object = {"status": difference}
        if unchanged:
            body["metadata"] = {"resourceVersion": seen["metadata"]["resourceVersion"]}
        return await self.patch(where, seen, body, subresource="status")

    async def delete(self, where: Collection, seen: Mapping[str, Any]) -> Object | None:
        """Delete the object that was seen, and none that has its name since. Gone already is well.

        What is left of it until its finalizers are gone; None where nothing is.
        """
        path = where.path(seen["metadata"].get("namespace"), seen["metadata"]["name"])
        try:
            answer = await self._request("DELETE", path, body={"preconditions": {"uid": seen["metadata"]["uid"]}})
        except ApiRefused as error:
            if error.status != 404:
                raise
            return None
        # The object itself, or a Status that says that it is gone.
        return answer if answer.get("kind") == where.kind and answer["metadata"].get("finalizers") else None

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Object:
        begun, code = time.monotonic(), "unanswered"
        try:
            status, text = await self._answered(method, path, body=body, query=query, headers=headers)
            code = str(status)
        finally:
            if self._counted is not None:
                self._counted.requested(*_counted_as(method, path), code, time.monotonic() - begun)
        request = f"{method} {path}"
        if 200 <= status < 300:
            return _answer(request, text)
        raise _error(request, status, text)

    async def _answered(
        self,
        method: str,
        path: str,
        *,
        body: Object | None,
        query: dict[str, str] | None,
        headers: dict[str, str] | None,
    ) -> tuple[int, bytes]:
        """Status and body of the API server's answer. Raises `ApiUnavailable` where there is none."""
        try:
            prepared = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": "application/json", **(headers or {})},
                body=body,
                auth_settings=["BearerToken"],
            )
            if method != "GET" and self._may_write is not None and not self._may_write():
                raise ApiFenced(f"{method} {path}", "it was not sent, because this process may not write now")
            response = await self._api.call_api(*prepared, _request_timeout=self._timeout)
            return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(f"{method} {path}", "the API server does not answer") from error


def _counted_as(method: str, path: str) -> tuple[str, str]:
    """Verb and resource of a request as RBAC has them: no name of an object is in it."""
    parts = path.split("/")[3 if path.startswith("/api/") else 4 :]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    named = len(parts) > 1
    verb = {"GET": "get" if named else "list", "POST": "create"}.get(method, method.lower())
    return verb, "/".join(parts[:1] + parts[2:])


def _answer(request: str, text: bytes) -> Object:
    try:
        answer: Object = json.loads(text)
    except ValueError as error:
        raise ApiUnavailable(request, "the API server's answer is no JSON: something else answers for it") from error
    return answer


def _is_there(kubeconfig: str) -> bool:
    # As kubectl has it, KUBECONFIG may name several files, of which some need not exist.
    return any(os.path.isfile(path) for path in kubeconfig.split(os.pathsep))


async def _configure(configuration: client.Configuration, kubeconfig: str | None) -> None:
    if kubeconfig is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise NotConfigured("no kubeconfig is given, and this is no Pod of a cluster") from error
        return
    if not _is_there(kubeconfig):
        raise NotConfigured(f"there is no kubeconfig {kubeconfig}")
    try:
        await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    except (config.ConfigException, TypeError, ValueError, yaml.YAMLError) as error:
        # The library takes the file for what it should be, and stumbles over what is in it.
        raise NotConfigured(f"{kubeconfig} is no kubeconfig, or names no cluster and user to use") from error


def _error(request: str, status: int, text: bytes) -> ApiError:
    try:
        message = refusals.without_values(str(json.loads(text)["message"]))
    except (ValueError, KeyError, TypeError):
        message = f"the API server answers {status}"
    # 410: a page that was read from too long ago.
    if status in {409, 410}:
        return ApiConflict(request, message, status)
    if status == 429 or status >= 500:
        return ApiUnavailable(request, message, status)
    return ApiRefused(request, message, status)


def merge_patch(have: Mapping[str, Any], want: Mapping[str, Any]) -> Object:
    """The smallest JSON merge patch (RFC 7386) that makes `have` into `want`; empty where they are equal."""
    patch: Object = {key: None for key in have if key not in want}
    for key, value in want.items():
        old = have.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            inner = merge_patch(old, value)
            if inner:
                patch[key] = inner
        elif key not in have or old != value:
            patch[key] = value
    return patch


def is_overtaken(seen: Mapping[str, Any], written: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether somebody else wrote between what was seen and what our PATCH of the status answered.

    No event will tell: it is older than the answer. The spec is another one then, or the status is not what we meant.
    """
    before, after = (obj["metadata"].get("generation") for obj in (seen, written))
    return bool(before != after or written.get("status", {}) != status)


def without_noise(obj: Object) -> Object:
    """The object without what nobody here reads and everybody would hold in memory."""
    obj.get("metadata", {}).pop("managedFields", None)
    return obj
