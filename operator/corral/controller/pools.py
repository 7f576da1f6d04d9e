"""Pools: keeps the space of addresses current with the pools and blocks of the store.

Beside it what is in memory alone of a block: since when nobody has an address of it, and who is about to write it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from corral import kube, store
from corral.allocate import space as spaces
from corral.api import objects, schema
from corral.api.v1alpha1 import ippool


class Pools:
    """`pools` and `blocks` are the plurals of IPPool and IPBlock; `now` is in seconds of a steady clock."""

    def __init__(
        self,
        known: store.Store,
        space: spaces.Space,
        *,
        pools: str,
        blocks: str,
        now: Callable[[], float],
        idle_for: float,
    ) -> None:
        self._space = space
        self._pools, self._blocks = pools, blocks
        self._now = now
        self._idle_for = idle_for
        self._idle_since: dict[str, float] = {}
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        known.listen(self._changed)

    def making(self, name: str) -> asyncio.Lock:
        """Who writes the block of this name: one at a time."""
        return self._making[name]

    def idle_left(self, name: str) -> float:
        """For how many seconds the block, which is empty, is kept; the first question begins that time."""
        return max(self._idle_since.setdefault(name, self._now()) + self._idle_for - self._now(), 0.0)

    def is_used(self, name: str) -> None:
        """Somebody has an address of the block, or it is gone."""
        self._idle_since.pop(name, None)

    def _changed(self, key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        if key.plural == self._pools:
            if (
                old is None
                or new is None
                or old["spec"] != new["spec"]
                or old["metadata"]["uid"] != new["metadata"]["uid"]
            ):
                self._pool_changed(key.name, new)
        elif key.plural == self._blocks:
            if old is not None and (new is None or old["spec"] != new["spec"]):
                self.is_used(key.name)
                self._space.no_block(old["spec"]["prefix"])
            if new is None:
                self._making.pop(key.name, None)
            else:
                self._space.block(new["spec"]["prefix"], new["spec"]["host"])

    def _pool_changed(self, name: str, new: kube.Object | None) -> None:
        self._space.no_pool(name)
        if new is None:
            return
        try:
            spec = objects.parsed(new, ippool.IPPoolSpec, schema.Observed).spec
            lengths = (spec.block_size.ipv4, spec.block_size.ipv6)
            self._space.pool(name, spec.prefixes, lengths, age(new))
        except (objects.NotUnderstood, ValueError):
            # Its own status says so, and it gives nothing.
            return


def age(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Which of two pools was there first: the smaller one."""
    return obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]
