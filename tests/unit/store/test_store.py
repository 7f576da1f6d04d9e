from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import kube, store

KITES = kube.Collection("/apis/toys.test/v1", "Kite", "kites", namespaced=True)
KEY = kube.Key("kites", "park", "red")


def kite(version: int, uid: str = "u1", name: str = "red", owner: str | None = "ann") -> kube.Object:
    metadata = {"namespace": "park", "name": name, "uid": uid, "resourceVersion": str(version), "managedFields": [1]}
    return {"metadata": metadata, "spec": {} if owner is None else {"owner": owner}}


def owner_of(obj: Mapping[str, Any]) -> str | None:
    owner: str | None = obj["spec"].get("owner")
    return owner


@pytest.fixture
def known() -> store.Store:
    made = store.Store()
    made.index("kites", "owner", owner_of)
    return made


def version(known: store.Store) -> int | None:
    obj = known.get(KEY)
    return None if obj is None else store.version(obj)


def test_the_newer_one_stays_and_the_older_one_is_dropped(known: store.Store) -> None:
    assert known.put(KITES, kite(9))
    assert not known.put(KITES, kite(9))
    assert not known.put(KITES, kite(8))
    assert version(known) == 9
    assert known.put(KITES, kite(10))  # as a number: as text, 10 comes before 9
    assert version(known) == 10


def test_what_nobody_reads_is_not_held(known: store.Store) -> None:
    known.put(KITES, kite(1))
    obj = known.get(KEY)
    assert obj is not None
    assert "managedFields" not in obj["metadata"]


def test_a_doubt_removes_nothing_until_it_is_settled(known: store.Store) -> None:
    known.put(KITES, kite(1))
    known.doubt(KEY)
    assert known.is_doubtful(KEY)
    assert version(known) == 1
    known.settle(KITES, KEY, kite(2))
    assert not known.is_doubtful(KEY)
    assert version(known) == 2


def test_of_what_is_not_known_there_is_no_doubt(known: store.Store) -> None:
    known.doubt(KEY)
    assert not known.is_doubtful(KEY)


def test_a_late_event_of_what_is_gone_does_not_bring_it_back(known: store.Store) -> None:
    known.put(KITES, kite(1))
    known.doubt(KEY)
    known.settle(KITES, KEY, None)
    assert version(known) is None
    assert not known.put(KITES, kite(5))
    assert version(known) is None
    assert known.put(KITES, kite(6, uid="u2"))


def test_another_uid_by_the_name_is_another_object(known: store.Store) -> None:
    known.put(KITES, kite(1))
    known.doubt(KEY)
    known.settle(KITES, KEY, kite(7, uid="u2"))
    assert version(known) == 7
    assert not known.put(KITES, kite(8, uid="u1"))


def test_an_old_answer_does_not_bury_what_came_meanwhile(known: store.Store) -> None:
    """GET answers 404; before anybody reads that, the object is made, and its event is here first."""
    asked = known.ask(KEY)
    known.put(KITES, kite(3))
    known.settle(KITES, KEY, None, asked)
    assert version(known) == 3
    assert known.put(KITES, kite(4))


def test_an_old_answer_does_not_bring_back_what_was_made_anew_meanwhile(known: store.Store) -> None:
    known.put(KITES, kite(1))
    known.doubt(KEY)
    asked = known.ask(KEY)
    known.put(KITES, kite(5, uid="u2"))
    known.settle(KITES, KEY, kite(1), asked)
    assert version(known) == 5
    assert known.put(KITES, kite(6, uid="u2"))


def test_an_old_answer_settles_no_newer_doubt(known: store.Store) -> None:
    known.put(KITES, kite(1))
    known.doubt(KEY)
    asked = known.ask(KEY)
    known.doubt(KEY)
    known.settle(KITES, KEY, kite(1), asked)
    assert known.is_doubtful(KEY)


def test_listeners_are_told_of_every_change_and_of_nothing_else(known: store.Store) -> None:
    told: list[tuple[int | None, int | None]] = []

    def changed(key: kube.Key, old: kube.Object | None, new: kube.Object | None) -> None:
        assert key == KEY
        told.append((None if old is None else store.version(old), None if new is None else store.version(new)))

    known.listen(changed)
    known.put(KITES, kite(1))
    known.put(KITES, kite(1))
    known.put(KITES, kite(2))
    known.doubt(KEY)
    known.settle(KITES, KEY, None)
    known.settle(KITES, KEY, None)
    assert told == [(None, 1), (1, 2), (2, None)]


def test_tombstones_are_bounded(known: store.Store) -> None:
    for number in range(store._TOMBSTONES + 10):
        known.put(KITES, kite(number + 1, uid=f"u{number}"))
        known.settle(KITES, KEY, None)
    assert len(known._gone) == store._TOMBSTONES


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["put", "gone"]),
        st.sampled_from(["red", "blue"]),
        st.integers(1, 3),
        st.sampled_from([None, "ann", "bob"]),
    ),
    max_size=20,
)


@given(acts=ACTS)
def test_indexes_say_what_the_objects_say(acts: list[tuple[str, str, int, str | None]]) -> None:
    known = store.Store()
    known.index("kites", "owner", owner_of)
    for version_, (act, name, uid, owner) in enumerate(acts):
        if act == "put":
            known.put(KITES, kite(version_, f"{name}{uid}", name, owner))
        else:
            known.settle(KITES, kube.Key("kites", "park", name), None)
        objects = dict(known.all("kites"))
        assert known.count("kites") == len(objects)
        for wanted in ("ann", "bob", "nobody"):
            assert known.by("kites", "owner", wanted) == [
                obj for _, obj in sorted(objects.items()) if owner_of(obj) == wanted
            ]
