"""Thousands of manifests at once against a real API server, and the wait until each that it took is decided."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from corral import kube, reasons
from corral.api import objects, v1alpha1

from .hostile_manifests import Case
from .manifests import KINDS
from .simulated_cloud import said

AT_ONCE = 24
FOR_NOBODY = frozenset({"Instance", "IPAllocation"})
"""Kinds that stand for a VirtualMachine: the controller removes those of one that is not there."""

_RESOURCES = {one.kind.kind: one for one in v1alpha1.RESOURCES}
_ON_ITS_WAY = {"Provisioning", "ImageFetching", "WaitingForEarlier", "Starting", "ShuttingDown"}
_NAMES_A_FIELD = re.compile(r"\bspec\b|\bmetadata\b|\bObjectMeta\.|\bstatus\b")
_OF_CODE = re.compile(
    r"Traceback|\bself\b|pydantic|validation error|object at 0x|<class|Error\(|Exception|corral\.(?!dev)|NoneType"
)
"""What no person should read: names of classes and modules, and traces."""

Made = tuple[str, str, str]
"""Kind, namespace, name."""


@dataclass
class Account:
    """What became of the manifests, by kind."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unnamed: list[str] = field(default_factory=list)
    not_parsed: list[str] = field(default_factory=list)
    admitted: dict[Made, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{'kind':20} tried refused admitted"]
        admitted = Counter(kind for kind, _, _ in self.admitted)
        lines += [
            f"{kind:20} {self.tried[kind]:5} {self.refused[kind]:7} {admitted[kind]:8}" for kind in sorted(self.tried)
        ]
        return "\n".join([*lines, f"{'all':20} {self.tried.total():5} {self.refused.total():7} {admitted.total():8}"])


class Flood:
    """An administrator without manners: what it sends goes over the wire as it is written."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api: kube.Kube,
        prefix: str,
        namespace: str,
        for_nobody: frozenset[str] = FOR_NOBODY,
    ) -> None:
        self._for_nobody = for_nobody
        self.account = Account()
        self._session = session
        self._api = api
        self._prefix = prefix
        self._namespace = namespace
        self._numbers = iter(range(10**6))

    async def create(self, cases: Iterable[Case]) -> None:
        """Send all of them; what the API server takes is counted, and read by our models."""
        await self._each(cases, self._create)

    async def patch(self, changes: Iterable[tuple[Made, str, Case]]) -> None:
        """Merge each case's spec, or status, into what was made."""
        await self._each(changes, self._patch)

    @staticmethod
    async def _each(values: Iterable[Any], act: Any) -> None:
        left = iter(values)

        async def work() -> None:
            for value in left:
                await act(value)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(work())

    async def _create(self, case: Case) -> None:
        where = KINDS[case.kind]
        name = f"{self._prefix}-{next(self._numbers)}"
        namespace = self._namespace if where.namespaced else ""
        named = {"name": name} | ({"namespace": namespace} if namespace else {}) | json.loads(case.metadata)
        # The spec stays as it is written: JSON can say more than a dict of ours.
        envelope = json.dumps({"apiVersion": where.api_version, "kind": where.kind, "metadata": named})
        body = f'{envelope[:-1]}, "spec": {case.spec}}}'
        answer = await self._send("POST", where.path(namespace or None), body, "application/json", case)
        if answer is not None:
            made = answer["metadata"]
            self.account.admitted[case.kind, made.get("namespace", ""), made["name"]] = case.what
            self._read(answer, case)

    async def _patch(self, change: tuple[Made, str, Case]) -> None:
        (kind, namespace, name), subresource, case = change
        part = subresource or "spec"
        path = KINDS[kind].path(namespace or None, name, subresource or None)
        body = f'{{"{part}": {case.spec}}}'
        answer = await self._send("PATCH", path, body, "application/merge-patch+json", case)
        if answer is not None:
            self.account.admitted[kind, namespace, name] += f", then {part}: {case.what}"
            self._read(answer, case)

    async def _send(self, method: str, path: str, body: str, kind: str, case: Case) -> kube.Object | None:
        self.account.tried[case.kind] += 1
        async with self._session.request(
            method, f"{self._api.server}{path}?fieldValidation=Strict", data=body, headers={"Content-Type": kind}
        ) as response:
            answer: kube.Object = await response.json()
        if response.status < 300:
            return answer
        self.account.refused[case.kind] += 1
        message = str(answer.get("message", ""))
        assert response.status < 500, f"{case.kind} {case.what}: {message}"
        if not _NAMES_A_FIELD.search(message) and not _is_of_json(response.status, message):
            self.account.unnamed.append(f"{case.kind} {case.what}: {response.status} {message}")
        return None

    def _read(self, answer: kube.Object, case: Case) -> None:
        resource = _RESOURCES[case.kind]
        try:
            objects.parsed(answer, resource.spec, resource.status or objects.schema.Observed)
        except objects.NotUnderstood as error:
            self.account.not_parsed.append(f"{case.kind} {case.what}: {error}")

    # What came of it.

    async def decided(self, within: float) -> None:
        """Wait until everything that was taken is decided, or gone where it stands for nobody."""
        deadline = time.monotonic() + within
        while left := await self._undecided():
            if time.monotonic() > deadline:
                some = [f"{key} ({self.account.admitted[key]}): {why}" for key, why in list(left.items())[:10]]
                raise AssertionError(f"{len(left)} are not decided, such as:\n" + "\n".join(some))
            await asyncio.sleep(0.5)

    async def _undecided(self) -> dict[Made, str]:
        left: dict[Made, str] = {}
        for kind in {kind for kind, _, _ in self.account.admitted}:
            if _RESOURCES[kind].status is None and kind != "IPAllocation":
                continue
            found = {key: obj async for key, obj in self._all(kind)}
            for key in self.account.admitted:
                if key[0] == kind and (why := self._why_undecided(kind, found.get(key))):
                    left[key] = why
        return left

    def _why_undecided(self, kind: str, obj: kube.Object | None) -> str:
        if kind in self._for_nobody:
            is_going = obj is None or "deletionTimestamp" in obj["metadata"]
            return "" if is_going else "it stands for nobody, and is still there"
        if kind == "HostState":
            return ""
        if obj is None:
            return "it is gone"
        status = obj.get("status", {})
        if status.get("observedGeneration") != obj["metadata"]["generation"]:
            return f"observed {status.get('observedGeneration')} of {obj['metadata']['generation']}"
        ready = said(obj, "Ready")
        if ready is None or (ready[0] != "True" and ready[1] in _ON_ITS_WAY):
            return f"Ready is {ready}"
        return ""

    async def _all(self, kind: str) -> AsyncIterator[tuple[Made, kube.Object]]:
        async for page in self._api.pages(KINDS[kind]):
            for obj in page:
                yield (kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]), obj

    async def told(self) -> Counter[str]:
        """How often each reason is told of what was taken; every one is of the catalogue, and in words for people."""
        counts: Counter[str] = Counter()
        for kind in {kind for kind, _, _ in self.account.admitted}:
            async for key, obj in self._all(kind):
                if key not in self.account.admitted:
                    continue
                for condition in obj.get("status", {}).get("conditions", ()):
                    assert condition["reason"] in reasons.CATALOGUE, (key, condition)
                    assert not _OF_CODE.search(condition["message"]), (key, condition)
                if (ready := said(obj, "Ready")) is not None:
                    counts[f"{kind} {ready[0]} {ready[1]}"] += 1
        return counts

    async def remove(self) -> None:
        """Delete everything that was taken, VirtualMachines first."""
        order = sorted(self.account.admitted, key=lambda key: key[0] != "VirtualMachine")

        async def one(key: Made) -> None:
            kind, namespace, name = key
            found = await self._api.get(KINDS[kind], namespace or None, name)
            if found is not None:
                await self._api.delete(KINDS[kind], found)
                if found["metadata"].get("finalizers"):
                    with contextlib.suppress(kube.ApiRefused):
                        await self._api.patch(KINDS[kind], found, {"metadata": {"finalizers": []}})

        await self._each(order, one)


def _is_of_json(status: int, message: str) -> bool:
    """Whether the API server could not even read it: then there is no field to name."""
    return status == 400 and ("cannot unmarshal number" in message or "invalid character" in message)


@contextlib.asynccontextmanager
async def flood(
    api: kube.Kube, prefix: str, namespace: str, for_nobody: frozenset[str] = FOR_NOBODY
) -> AsyncIterator[Flood]:
    """A flood under names with this prefix, in this namespace; nothing is left of it."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE, ssl=api.ssl_context)
    async with aiohttp.ClientSession(connector=connector, headers=await api.headers()) as session:
        made = Flood(session, api, prefix, namespace, for_nobody)
        try:
            yield made
        finally:
            await made.remove()


def fail_on(findings: list[str], what: str) -> None:
    """Fail with the first few findings, if there are any."""
    if findings:
        pytest.fail(f"{len(findings)} {what}, such as:\n" + "\n".join(findings[:12]))
