"""The lab's control plane as its users meet it: real programs, real certificates, and what a `kill -9` does to them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral_lab import errors, paths, progress
from corral_lab.control_plane import components, plane
from corral_lab.programs import recipe

pytestmark = pytest.mark.api

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def own_plane(programs: recipe.Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[plane.ControlPlane]:
    """A control plane that a test may break."""
    own = plane.ControlPlane(paths.LabDir.at(tmp_path_factory.mktemp("own")), programs)
    try:
        own.start(progress.silent())
        yield own
    finally:
        own.stop()


def _kubectl(of: plane.ControlPlane, kubeconfig: Path | None = None) -> Kubectl:
    environ = os.environ | {"KUBECONFIG": str(kubeconfig or of.lab.kubeconfig), "KUBECACHEDIR": str(of.lab.run)}

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(of.programs.kubectl), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done

    return run


def _create_and_delete_namespace(of: plane.ControlPlane) -> None:
    """Only a working controller manager lets this end; by its own grace period it takes five seconds."""
    kubectl = _kubectl(of)
    kubectl("create", "namespace", "lab-test-deleted")
    kubectl("create", "configmap", "inside", "-n", "lab-test-deleted")
    kubectl("delete", "namespace", "lab-test-deleted", "--timeout=30s")
    assert kubectl("get", "namespace", "lab-test-deleted", "--ignore-not-found").stdout == ""


def test_all_components_are_ready(control_plane: plane.ControlPlane) -> None:
    seen = control_plane.status()
    assert [(one.name, one.missing) for one in seen] == [(name, None) for name in components.NAMES]
    assert all(one.memory > 10_000_000 for one in seen)


def test_kubectl_and_server_are_of_the_recipes_version(control_plane: plane.ControlPlane) -> None:
    said = json.loads(_kubectl(control_plane)("version", "-o", "json").stdout)
    minor = ".".join(str(part) for part in recipe.Recipe.read().minor)
    assert minor == "1.37"
    assert [said[side]["major"] + "." + said[side]["minor"] for side in ("clientVersion", "serverVersion")] == [
        minor
    ] * 2


def test_a_second_start_changes_nothing_and_is_quick(control_plane: plane.ControlPlane) -> None:
    before = [one.pid for one in control_plane.status()]
    begun = time.monotonic()
    control_plane.start(progress.silent())
    assert time.monotonic() - begun < 1.0
    assert [one.pid for one in control_plane.status()] == before


def test_a_deleted_namespace_goes_with_what_is_in_it(control_plane: plane.ControlPlane) -> None:
    _create_and_delete_namespace(control_plane)


def test_a_user_has_the_rights_of_its_groups_and_no_more(control_plane: plane.ControlPlane) -> None:
    nobody = _kubectl(control_plane, control_plane.kubeconfig("corral:test", ("tenants",)))
    who = json.loads(nobody("auth", "whoami", "-o", "json").stdout)["status"]["userInfo"]
    assert who["username"] == "corral:test"
    assert sorted(who["groups"]) == ["system:authenticated", "tenants"]
    refused = nobody("get", "namespaces", check=False)
    assert refused.returncode == 1
    assert 'User "corral:test" cannot list resource "namespaces"' in refused.stderr


def test_no_stranger_is_let_in(control_plane: plane.ControlPlane, tmp_path: Path) -> None:
    config = json.loads(_kubectl(control_plane)("config", "view", "--raw", "-o", "json").stdout)
    config["users"][0]["user"] = {"token": "made-up"}
    stranger = tmp_path / "stranger"
    stranger.write_text(json.dumps(config))
    refused = _kubectl(control_plane, stranger)("get", "--raw", "/readyz", check=False)
    assert refused.returncode == 1
    assert "Unauthorized" in refused.stderr


def test_the_audit_log_names_who_wrote_and_no_reader(control_plane: plane.ControlPlane) -> None:
    kubectl = _kubectl(control_plane)
    kubectl("create", "configmap", "lab-test-audited")
    kubectl("get", "configmap", "lab-test-audited")
    kubectl("delete", "configmap", "lab-test-audited")
    lines = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines()]
    mine = [
        (line["user"]["username"], line["verb"], line["responseStatus"]["code"])
        for line in lines
        if line.get("objectRef", {}).get("name") == "lab-test-audited"
    ]
    assert mine == [("corral-lab-admin", "create", 201), ("corral-lab-admin", "delete", 200)]
    assert {line["verb"] for line in lines}.isdisjoint({"get", "list", "watch"})


@pytest.mark.parametrize("name", components.NAMES)
def test_a_killed_component_is_brought_back_with_its_data(own_plane: plane.ControlPlane, name: str) -> None:
    kubectl = _kubectl(own_plane)
    kubectl("create", "configmap", f"before-{name}", "--from-literal=kept=yes")
    before = {one.name: one.pid for one in own_plane.status()}
    pid = before[name]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    own_plane.start(progress.silent())

    after = {one.name: one.pid for one in own_plane.status() if one.ready}
    assert {one for one in components.NAMES if before[one] != after[one]} == {name}
    assert kubectl("get", "configmap", f"before-{name}", "-o", "jsonpath={.data.kept}").stdout == "yes"
    kubectl("create", "configmap", f"after-{name}")
    if name == components.CONTROLLERS:
        _create_and_delete_namespace(own_plane)


def _version(kubectl: Kubectl) -> int:
    """The newest resourceVersion there is."""
    listed = json.loads(kubectl("get", "--raw", "/api/v1/configmaps?limit=1").stdout)
    return int(listed["metadata"]["resourceVersion"])


def test_a_backup_that_is_put_back_takes_the_api_and_its_versions_back(
    own_plane: plane.ControlPlane, tmp_path: Path
) -> None:
    kubectl = _kubectl(own_plane)
    kubectl("create", "configmap", "before-backup")
    own_plane.backup(tmp_path / "backup", progress.silent())
    # More than what an API server writes at its start.
    later = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"after-backup-{n}"}} for n in range(100)]
    (tmp_path / "later.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": later}))
    kubectl("create", "-f", str(tmp_path / "later.json"))
    before = _version(kubectl)

    own_plane.restore(tmp_path / "backup", progress.silent())

    assert "before-backup" in kubectl("get", "configmaps").stdout
    assert "after-backup" not in kubectl("get", "configmaps").stdout
    assert _version(kubectl) < before
    with pytest.raises(errors.LabError, match="there already"):
        own_plane.backup(tmp_path / "backup", progress.silent())
    assert all(one.ready for one in own_plane.status())
    with pytest.raises(errors.LabError, match="no backup"):
        own_plane.restore(tmp_path, progress.silent())
    assert all(one.ready for one in own_plane.status())


def test_another_address_moves_the_api_server_and_its_clients(own_plane: plane.ControlPlane) -> None:
    moved = plane.ControlPlane(own_plane.lab, own_plane.programs, "127.0.0.2")
    moved.start(progress.silent())
    assert moved.url.startswith("https://127.0.0.2:")
    _create_and_delete_namespace(moved)


def test_stop_leaves_no_process_and_no_open_port_and_start_finds_the_data(own_plane: plane.ControlPlane) -> None:
    kubectl = _kubectl(own_plane)
    kubectl("create", "configmap", "before-stop", "--from-literal=kept=yes")
    running = [one.pid for one in own_plane.status()]
    listened_at = [(at.address, at.port) for at in components.endpoints(plane.last_site(own_plane.lab)).values()]

    own_plane.stop()
    own_plane.stop()

    assert not [pid for pid in running if Path(f"/proc/{pid}/exe").exists()]
    for at in listened_at:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(at, timeout=1)
    assert {one.missing for one in own_plane.status()} == {"it does not run"}
    own_plane.start(progress.silent())
    assert kubectl("get", "configmap", "before-stop", "-o", "jsonpath={.data.kept}").stdout == "yes"


def test_a_component_that_can_not_start_is_shown_with_its_log(programs: recipe.Programs, tmp_path: Path) -> None:
    broken = plane.ControlPlane(paths.LabDir.at(tmp_path / "broken"), programs)
    broken.lab.create()
    (broken.lab.etcd / "member").write_text("not a folder")
    try:
        with pytest.raises(errors.LabError) as raised:
            broken.start(progress.silent())
    finally:
        broken.stop()
    assert "etcd stopped" in raised.value.sentence
    assert str(components.log(broken.lab, "etcd")) in raised.value.sentence
    assert "corral lab up" in raised.value.next_step
