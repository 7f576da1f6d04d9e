from __future__ import annotations

import json
import pathlib
import stat
from typing import Any

import pytest
import structlog.testing

from corral import kube
from corral.agent import kept
from corral.api.v1alpha1 import host

from .kept_api import NAMESPACE
from .simulated_host import OWNER as UID
from .simulated_host import wire


def instance(uid: str = "iu", **changes: Any) -> kube.Object:
    metadata = {"name": "i", "namespace": NAMESPACE, "uid": uid, "generation": 3, "resourceVersion": "77"}
    spec = wire(**changes)
    return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 3}}


def files(folder: pathlib.Path) -> dict[str, int]:
    """Every file below, with when it was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


async def test_what_is_kept_is_read_back_by_another_process(tmp_path: pathlib.Path) -> None:
    await kept.Kept(str(tmp_path)).keep(instance())
    (found,) = kept.Kept(str(tmp_path)).all()
    assert found["spec"] == wire()
    assert found["metadata"] == {
        "name": "i",
        "namespace": NAMESPACE,
        "uid": "iu",
        "generation": 3,
        "resourceVersion": "0",
    }
    assert "status" not in found


async def test_only_root_may_read_it_and_everybody_may_pass_to_what_lies_beside(tmp_path: pathlib.Path) -> None:
    state = tmp_path / "state"
    await kept.Kept(str(state)).keep(instance())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state, *state.rglob("*"))}
    assert modes == {"state": 0o755, "instances": 0o700, f"{UID}.json": 0o600}


async def test_what_is_kept_already_is_not_written_again_whatever_its_status(tmp_path: pathlib.Path) -> None:
    first = kept.Kept(str(tmp_path))
    await first.keep(instance())
    before = files(tmp_path)
    again = instance() | {"status": {"observedGeneration": 4}}
    again["metadata"]["resourceVersion"] = "99"
    await first.keep(again)
    await kept.Kept(str(tmp_path)).keep(again)
    assert files(tmp_path) == before


@pytest.mark.parametrize("changes", [{"epoch": 2}, {"runStrategy": "Halted"}])
async def test_another_spec_takes_the_place_of_the_one_before(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    one = kept.Kept(str(tmp_path))
    await one.keep(instance())
    await one.keep(instance("another", **changes))
    (found,) = kept.Kept(str(tmp_path)).all()
    assert (found["metadata"]["uid"], found["spec"]) == ("another", wire(**changes))


async def test_a_mark_of_deletion_is_kept_too(tmp_path: pathlib.Path) -> None:
    one, obj = kept.Kept(str(tmp_path)), instance()
    await one.keep(obj)
    obj["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    await one.keep(obj)
    (found,) = kept.Kept(str(tmp_path)).all()
    assert found["metadata"]["deletionTimestamp"] == "2026-01-31T12:00:00Z"


async def test_what_is_forgotten_is_gone_and_may_be_kept_again(tmp_path: pathlib.Path) -> None:
    one = kept.Kept(str(tmp_path))
    await one.forget(UID)
    await one.keep(instance())
    await one.forget(UID)
    await one.forget(UID)
    assert files(tmp_path) == {}
    await one.keep(instance())
    assert len(list(one.all())) == 1


async def test_a_write_that_was_killed_leaves_the_old_state_and_is_no_hindrance(tmp_path: pathlib.Path) -> None:
    one = kept.Kept(str(tmp_path))
    await one.keep(instance())
    left = tmp_path / "instances" / f".{UID}.json.new"
    left.write_text('{"metadata": {"na')
    (found,) = kept.Kept(str(tmp_path)).all()
    assert found["spec"] == wire()
    await kept.Kept(str(tmp_path)).keep(instance(epoch=2))
    assert set(files(tmp_path)) == {f"instances/{UID}.json"}
    left.write_text("")
    await one.forget(UID)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"metadata": null, "spec": 7}',
        json.dumps({"metadata": {"name": "i", "namespace": "n", "uid": 7}, "spec": wire()}).encode(),
        json.dumps({"metadata": instance()["metadata"], "spec": wire(epoch="one")}).encode(),
    ],
)
async def test_a_file_that_cannot_be_read_is_said_and_passed_over(tmp_path: pathlib.Path, garbage: bytes) -> None:
    owner = {"namespace": "shop", "name": "other", "uid": "other"}
    await kept.Kept(str(tmp_path)).keep(instance(owner=owner))
    (tmp_path / "instances" / f"{UID}.json").write_bytes(garbage)
    with structlog.testing.capture_logs() as said:
        (found,) = kept.Kept(str(tmp_path)).all()
    assert found["spec"]["owner"] == owner
    assert [line["file"] for line in said] == [str(tmp_path / "instances" / f"{UID}.json")]


async def test_a_file_under_another_owners_name_is_not_believed(tmp_path: pathlib.Path) -> None:
    await kept.Kept(str(tmp_path)).keep(instance())
    (tmp_path / "instances" / f"{UID}.json").rename(tmp_path / "instances" / "somebody.json")
    assert list(kept.Kept(str(tmp_path)).all()) == []


@pytest.mark.parametrize("uid", ["../../evil", "..", ".", "a/b", ""])
async def test_no_uid_leads_out_of_the_folder(tmp_path: pathlib.Path, uid: str) -> None:
    one = kept.Kept(str(tmp_path / "state"))
    await one.keep(instance(owner={"namespace": "shop", "name": "web", "uid": uid}))
    assert all(path.parent == tmp_path / "state" / "instances" for path in tmp_path.rglob("*.json"))
    assert [found["spec"]["owner"]["uid"] for found in one.all()] == [uid]
    await one.forget(uid)
    assert files(tmp_path) == {}


async def test_what_can_not_be_kept_is_an_error_that_says_where(tmp_path: pathlib.Path) -> None:
    (tmp_path / "instances").write_text("in the way")
    with pytest.raises(kept.NotKept, match=rf"^keep {tmp_path}/instances/{UID}.json: "):
        await kept.Kept(str(tmp_path)).keep(instance())
    (tmp_path / "instances").unlink()
    (tmp_path / "instances" / f"{UID}.json").mkdir(parents=True)
    with pytest.raises(kept.NotKept, match=rf"^forget {tmp_path}/instances/{UID}.json: "):
        await kept.Kept(str(tmp_path)).forget(UID)


async def test_the_hosts_own_state_is_kept_beside(tmp_path: pathlib.Path) -> None:
    spec = host.HostStateSpec.model_validate({"cloud": "c", "host": "h", "hypervisor": {"driver": "simulated"}})
    one = kept.Kept(str(tmp_path))
    assert one.host() is None
    await one.keep_host(spec)
    assert kept.Kept(str(tmp_path)).host() == spec
    (tmp_path / "host.json").write_text('{"cloud": 7}')
    assert one.host() is None
