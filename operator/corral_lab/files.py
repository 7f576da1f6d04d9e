"""Write a file whole or not at all, and hold a lock: for state, keys, kubeconfigs and pid files, which others read."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Put `content` at `path` with `mode`, so that a reader sees the old file or the new one, never a part."""
    raw = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(raw)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(lock: Path) -> Iterator[None]:
    """Wait for, then hold, the lock that `lock` stands for. The kernel frees it when its holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
