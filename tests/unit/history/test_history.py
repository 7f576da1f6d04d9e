from __future__ import annotations

import asyncio

import pytest

from corral import history, kube, store

KITES = kube.Collection("/apis/toys.test/v1", "Kite", "kites", namespaced=True)
KEY = kube.Key("kites", "park", "red")


class Told(kube.Kube):
    """An API server of which only the version of a collection is asked; it fails as often as `failures` says."""

    def __init__(self) -> None:
        self.version = 100
        self.failures = 0
        self.asked = asyncio.Event()

    async def revision(self, where: kube.Collection, namespace: str | None = None) -> int:
        assert (where, namespace) == (KITES, "park")
        self.asked.set()
        if self.failures:
            self.failures -= 1
            raise kube.ApiUnavailable("GET", "the API server does not answer")
        return self.version


def kite(version: int, uid: str = "u1") -> kube.Object:
    return {"metadata": {"namespace": "park", "name": "red", "uid": uid, "resourceVersion": str(version)}}


@pytest.fixture
def api() -> Told:
    return Told()


@pytest.fixture
def known() -> store.Store:
    made = store.Store()
    made.put(KITES, kite(100))
    return made


@pytest.fixture
def seen(api: Told, known: store.Store) -> history.History:
    return history.History(api, known, "park")


async def asked(seen: history.History, api: Told) -> None:
    """A watch went on, and whatever that brings about is over."""
    task = asyncio.create_task(seen.keep())
    seen.resumed(KITES)
    await api.asked.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()


@pytest.mark.parametrize(("version", "rewritten"), [(99, True), (100, False), (101, False)])
async def test_a_collection_is_never_older_than_what_was_seen_of_it(
    seen: history.History, api: Told, *, version: int, rewritten: bool
) -> None:
    api.version = version
    await asked(seen, api)
    assert seen.rewritten.is_set() == rewritten


async def test_what_was_dropped_as_old_or_is_gone_counts_as_seen(
    seen: history.History, api: Told, known: store.Store
) -> None:
    known.put(KITES, kite(105, "u1"))
    known.settle(KITES, KEY, None)
    known.put(KITES, kite(110, "u1"))
    assert known.newest("kites") == 110
    api.version = 109
    await asked(seen, api)
    assert seen.rewritten.is_set()


async def test_an_api_server_that_does_not_answer_is_asked_again(seen: history.History, api: Told) -> None:
    api.version, api.failures = 99, 1
    task = asyncio.create_task(seen.keep())
    seen.resumed(KITES)
    async with asyncio.timeout(30):
        await seen.rewritten.wait()
    task.cancel()


@pytest.mark.parametrize(
    ("listed", "rewritten"),
    [
        (kite(99), True),
        (kite(100), False),
        (kite(101), False),
        (kite(50, "u2"), False),
        (None, False),
    ],
    ids=["older", "same", "newer", "another by the name", "none"],
)
def test_an_object_is_never_older_than_it_was(
    seen: history.History, known: store.Store, *, listed: kube.Object | None, rewritten: bool
) -> None:
    seen.compare(dict(known.all("kites")), {} if listed is None else {KEY: listed})
    assert seen.rewritten.is_set() == rewritten


def test_what_was_proven_gone_never_comes_back(seen: history.History, known: store.Store) -> None:
    known.settle(KITES, KEY, None)
    seen.took(KITES, kite(120, "u2"))
    assert not seen.rewritten.is_set()
    seen.took(KITES, kite(120, "u1"))
    assert seen.rewritten.is_set()


@pytest.mark.parametrize("which", ["stop", "rewritten"])
async def test_a_beginning_ends_with_the_process_or_with_its_history(seen: history.History, which: str) -> None:
    stop, ended = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(seen.ends(stop, ended))
    await asyncio.sleep(0)
    assert not ended.is_set()
    (stop if which == "stop" else seen.rewritten).set()
    async with asyncio.timeout(10):
        await ended.wait()
    await task
