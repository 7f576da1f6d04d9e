from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import pytest

from corral import history, kube, store
from corral.agent.lease import Lease

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)


class OneLease(kube.Kube):
    """An API server of one Lease. `writes` counts those that took effect."""

    def __init__(self) -> None:
        self.lease: kube.Object | None = None
        self.version = 100
        self.writes = 0
        self.lose_answer = False

    async def get(self, where: kube.Collection, namespace: str | None, name: str) -> kube.Object | None:
        return self.lease

    async def create(self, where: kube.Collection, obj: kube.Object) -> kube.Object:
        return self._keep({"uid": "l"}, obj)

    async def patch(
        self, where: kube.Collection, seen: Mapping[str, Any], body: kube.Object, *, subresource: str | None = None
    ) -> kube.Object:
        if self.lease is None:
            raise kube.ApiRefused("PATCH", "not found", 404)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise kube.ApiConflict("PATCH", "it has been modified", 409)
        kept = self._keep(self.lease["metadata"], body)
        if self.lose_answer:
            self.lose_answer = False
            raise kube.ApiUnavailable("PATCH", "the API server does not answer")
        return kept

    def _keep(self, metadata: kube.Object, obj: kube.Object) -> kube.Object:
        self.version += 1
        self.writes += 1
        self.lease = {"metadata": metadata | {"resourceVersion": str(self.version)}, "spec": obj["spec"]}
        return self.lease


@pytest.fixture
def api() -> OneLease:
    return OneLease()


@pytest.fixture
def seen(api: OneLease) -> history.History:
    return history.History(api, store.Store())


@pytest.fixture
def lease(api: OneLease, seen: history.History) -> Lease:
    return Lease(api, seen, "corral-host-h1", "h1", lambda: NOW)


async def test_it_is_made_and_then_renewed_in_one_write_each(
    lease: Lease, api: OneLease, seen: history.History
) -> None:
    for writes in (1, 2, 3):
        await lease.renew()
        assert api.writes == writes
    assert not seen.rewritten.is_set()


async def test_another_hand_and_a_lost_answer_are_no_other_history(
    lease: Lease, api: OneLease, seen: history.History
) -> None:
    await lease.renew()
    assert api.lease is not None
    api._keep(api.lease["metadata"], api.lease)
    await lease.renew()
    api.lose_answer = True
    with pytest.raises(kube.ApiUnavailable):
        await lease.renew()
    await lease.renew()
    assert not seen.rewritten.is_set()


@pytest.mark.parametrize("versions_go_on", [True, False], ids=["caught up", "behind"])
async def test_a_backup_that_was_put_back_shows_in_the_lease(
    lease: Lease, api: OneLease, seen: history.History, *, versions_go_on: bool
) -> None:
    """However many others have written meanwhile: this one has not."""
    await lease.renew()
    backup = api.lease
    await lease.renew()
    api.lease, api.version = backup, 5000 if versions_go_on else 101
    await lease.renew()
    assert seen.rewritten.is_set()


async def test_a_lease_that_is_not_there_any_more_was_put_back_to_before_it(
    lease: Lease, api: OneLease, seen: history.History
) -> None:
    await lease.renew()
    api.lease = None
    await lease.renew()
    assert seen.rewritten.is_set()
    assert api.lease is not None
