"""What the agent keeps on its host's disk: what its host is, and of every Instance that it was given the last state.

It is read where the API server is away after a reboot, and where the API server no longer knows of a guest that runs
here. The agent's process makes one, beside the rooms.

A file is there whole or not at all, and readable by root alone: a seed may hold secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pydantic
import structlog

from corral import kube
from corral.api.v1alpha1 import host, instance

_METADATA = ("name", "namespace", "uid", "generation", "finalizers", "deletionTimestamp")
_SUFFIX = ".json"

log = structlog.get_logger(__name__)


class NotKept(Exception):  # noqa: N818 - reads as what it says
    """What should be kept, or forgotten, could not be: `args[0]` says what and why."""


class Kept:
    """One file an Instance in the folder `instances` of `folder`, by its owner's uid, and the host's in `host.json`.

    Who calls sees to it that of one owner only one is kept or forgotten at a time.
    """

    def __init__(self, folder: str) -> None:
        self._host = pathlib.Path(folder) / f"host{_SUFFIX}"
        self._folder = pathlib.Path(folder) / "instances"
        self._written: dict[pathlib.Path, str] = {}
        self._lock = threading.Lock()

    async def keep(self, obj: kube.Object) -> None:
        """Keep this Instance as it is; no write where it is kept so already. Another epoch replaces it.

        Its status is not kept. Raises `NotKept`.
        """
        metadata = {name: obj["metadata"][name] for name in _METADATA if name in obj["metadata"]}
        await self._write(self._file(obj["spec"]["owner"]["uid"]), {"metadata": metadata, "spec": obj["spec"]})

    async def forget(self, owner: str) -> None:
        """Nothing is left of this owner on the host: keep nothing of it. Raises `NotKept` where it stays."""
        await asyncio.to_thread(self._remove, self._file(owner))

    async def disown(self, obj: kube.Object) -> None:
        """The API server knows this Instance no more: keep it for who takes its guest back, but start nothing by it.

        Nothing where another one of its owner is kept, or none. Raises `NotKept`.
        """
        path = self._file(obj["spec"]["owner"]["uid"])
        found = await asyncio.to_thread(_read, path)
        if found is not None and found.get("metadata", {}).get("uid") == obj["metadata"]["uid"]:
            await self._write(path, found | {"spec": found["spec"] | {"startWithoutAPI": False}})

    def all(self) -> Iterator[kube.Object]:
        """Every Instance that is kept; a file that can't be read is said and passed over. Reads files: it blocks.

        Each is an object as it came, without status, and older than any that the API server knows.
        """
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            found = _read(path)
            if found is None:
                continue
            try:
                metadata, spec = found["metadata"], found["spec"]
                named = all(isinstance(metadata[name], str) for name in ("name", "namespace", "uid"))
                owned = self._file(spec["owner"]["uid"]) == path and isinstance(spec["epoch"], int)
            except (KeyError, TypeError, ValueError):
                named = owned = False
            if named and owned:
                yield {
                    "apiVersion": kube.collection(instance.RESOURCE).api_version,
                    "kind": instance.RESOURCE.kind.kind,
                    "metadata": metadata | {"resourceVersion": "0"},
                    "spec": spec,
                }
            else:
                _pass_over(path, "it is no Instance, or another one than its name says")

    async def keep_host(self, spec: host.HostStateSpec) -> None:
        """Keep what this host is. Raises `NotKept`."""
        await self._write(self._host, spec.wire())

    def host(self) -> host.HostStateSpec | None:
        """What this host was when the API server was last asked; None where that was never, or can't be read.

        Reads a file: it blocks.
        """
        found = _read(self._host)
        if found is None:
            return None
        try:
            return host.HostStateSpec.model_validate(found)
        except pydantic.ValidationError:
            _pass_over(self._host, "it is no HostState's spec")
            return None

    def _file(self, owner: str) -> pathlib.Path:
        return self._folder / f"{urllib.parse.quote(owner, safe='')}{_SUFFIX}"

    async def _write(self, path: pathlib.Path, content: dict[str, Any]) -> None:
        data = json.dumps(content, sort_keys=True).encode()
        if self._written.get(path) != _sum(data):
            await asyncio.to_thread(self._replace, path, data)

    def _replace(self, path: pathlib.Path, data: bytes) -> None:
        try:
            with self._lock:
                if not _holds(path, data):
                    # Others than root must come through the folder of everything, to the guests' disks.
                    self._host.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                    _replace(path, data)
                self._written[path] = _sum(data)
        except OSError as error:
            raise NotKept(f"keep {path}: {error.strerror or error}") from error

    def _remove(self, path: pathlib.Path) -> None:
        try:
            with self._lock:
                self._written.pop(path, None)
                # What a write that was killed has left goes too.
                for each in (_partial(path), path):
                    each.unlink(missing_ok=True)
                if path.parent.exists():
                    _sync(path.parent)
        except OSError as error:
            raise NotKept(f"forget {path}: {error.strerror or error}") from error


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _partial(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.new")


def _holds(path: pathlib.Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False


def _replace(path: pathlib.Path, data: bytes) -> None:
    """Through another name, and onto the disk before it gets its own: a power cut leaves the old one or the new one."""
    partial = _partial(path)
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
    partial.replace(path)
    _sync(path.parent)


def _sync(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _pass_over(path, str(error))
        return None
    if not isinstance(found, dict):
        _pass_over(path, "it holds no object")
        return None
    return found


def _pass_over(path: pathlib.Path, why: str) -> None:
    log.warning("a file that was kept can't be read, and is passed over", file=str(path), why=why)
