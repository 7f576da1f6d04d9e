"""Where the cache and a lab lie, what the lab remembers, and what is never deleted."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_lab import errors, files, paths, state


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"CORRAL_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/corral"),
        ({"CORRAL_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/corral"),
    ],
)
def test_the_cache_is_where_the_nearest_variable_says(environ: Mapping[str, str], root: str) -> None:
    cache = paths.Cache.find(environ)
    assert cache.root == Path(root)
    assert cache.programs("v1.37.2") == Path(root) / "programs" / "v1.37.2"
    assert cache.guest == Path(root) / "guest"


def test_a_labs_paths_do_not_depend_on_the_current_folder_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.LabDir.at(Path(".lab")).kubeconfig == tmp_path / ".lab" / "kubeconfig"


def test_keys_data_and_logs_are_their_owners_alone(tmp_path: Path) -> None:
    lab = paths.LabDir.at(tmp_path / "lab")
    lab.create()
    lab.create()
    for folder in (lab.pki, lab.etcd, lab.logs, lab.run, lab.kubeconfigs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_only_a_lab_is_made_a_lab_and_only_a_lab_is_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    elsewhere = paths.LabDir.at(tmp_path)
    with pytest.raises(errors.LabError, match="is not empty, and no lab"):
        elsewhere.create()
    with pytest.raises(errors.LabError, match="holds no lab"):
        elsewhere.remove()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_removed_lab_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    lab = paths.LabDir.at(tmp_path / "lab")
    lab.create()
    lab.remove()
    lab.remove()
    assert list(tmp_path.iterdir()) == []


def test_each_part_remembers_its_own_section(tmp_path: Path) -> None:
    lab = paths.LabDir.at(tmp_path / "lab")
    assert state.read(lab, "hosts") == {}
    lab.create()
    state.write(lab, "hosts", {"count": 1})
    state.write(lab, "controlPlane", {"address": "127.0.0.1"})
    state.write(lab, "hosts", {"count": 2})
    assert state.read(lab, "hosts") == {"count": 2}
    assert state.read(lab, "controlPlane") == {"address": "127.0.0.1"}


def test_a_broken_state_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    lab = paths.LabDir.at(tmp_path / "lab")
    lab.create()
    lab.state.write_text("{")
    with pytest.raises(errors.LabError, match=r"state\.json is not JSON") as raised:
        state.read(lab, "hosts")
    assert str(lab.state) in raised.value.next_step


def test_a_replaced_file_has_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    files.replace(key, "old", mode=0o644)
    files.replace(key, b"new")
    assert key.read_text() == "new"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [key]
