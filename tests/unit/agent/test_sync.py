from __future__ import annotations

from corral import history, kube, queue, store
from corral.agent.host import HOST_STATES
from corral.agent.instance import INSTANCES, OWNER
from corral.agent.sync import Sync

from .kept_api import NAMESPACE, KeptApi
from .simulated_host import OWNER as UID

REPORT = kube.Key(HOST_STATES.plural, NAMESPACE, "h1")


class Woken(queue.Queue[kube.Key]):
    """A queue that only keeps what it was given."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def add(self, key: kube.Key, after: float = 0.0) -> None:
        self.keys.append(key.name)

    def taken(self) -> list[str]:
        keys, self.keys = sorted(set(self.keys)), []
        return keys


def begun() -> tuple[KeptApi, store.Store, Woken, Sync]:
    api, known, woken = KeptApi(), store.Store(), Woken()
    known.index("instances", OWNER, lambda obj: str(obj["spec"]["owner"]["uid"]))
    return api, known, woken, Sync(api, known, history.History(api, known, NAMESPACE), woken, REPORT)


def key(name: str) -> kube.Key:
    return kube.Key("instances", NAMESPACE, name)


async def test_the_first_list_fills_the_store_and_wakes_nobody() -> None:
    api, known, woken, sync = begun()
    api.put("a", "u1")
    await sync.fill()
    assert known.get(key("a")) is not None
    assert woken.taken() == []
    sync.look()
    assert woken.taken() == ["a"]


async def test_what_the_host_has_for_itself_wakes_the_report_alone() -> None:
    api, _, woken, sync = begun()
    api.put("a", "u1")
    await sync.fill()
    sync.touched_over("eth7")
    assert woken.taken() == []
    sync.touched_over("")
    assert woken.taken() == ["h1"]


async def test_an_event_that_is_no_news_wakes_nobody() -> None:
    api, _, woken, sync = begun()
    obj = api.put("a", "u1")
    sync.deliver(INSTANCES, "ADDED", obj)
    assert woken.taken() == ["a"]
    sync.deliver(INSTANCES, "MODIFIED", obj)
    assert woken.taken() == []


async def test_a_deletion_that_is_told_is_a_doubt_and_no_proof() -> None:
    api, known, woken, sync = begun()
    obj = api.put("a", "u1")
    sync.deliver(INSTANCES, None, obj)
    sync.deliver(INSTANCES, "DELETED", obj)
    assert known.is_doubtful(key("a"))
    assert known.get(key("a")) is not None
    assert woken.taken() == ["a"]


async def test_a_change_on_the_host_wakes_its_owners_instances_and_the_report() -> None:
    api, _, woken, sync = begun()
    sync.deliver(INSTANCES, None, api.put("a", "u1"))
    sync.deliver(INSTANCES, None, api.put("b", "u2", owner={"namespace": "x", "name": "y", "uid": "other"}))
    woken.taken()
    sync.changed(UID)
    assert woken.taken() == ["a", "h1"]
    sync.changed("nobody's")
    assert woken.taken() == ["h1"]


async def test_the_sweep_finds_what_the_watch_missed() -> None:
    api, known, woken, sync = begun()
    for name in ("gone", "changed", "same"):
        sync.deliver(INSTANCES, None, api.put(name, f"u-{name}"))
    woken.taken()
    del api.objects["gone"]
    api.put("changed", "u-changed", cpu=4)
    api.put("new", "u-new")
    await sync.sweep()
    assert woken.taken() == ["changed", "gone", "new"]
    assert known.is_doubtful(key("gone"))
    assert known.get(key("changed"))["spec"]["cpu"] == 4  # type: ignore[index]
    assert known.get(key("new")) is not None
    known.settle(INSTANCES, key("gone"), None)
    await sync.sweep()
    assert woken.taken() == []
