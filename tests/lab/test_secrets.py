"""Secrets that a tenant gives are nowhere but in what they were given in, and in files that root alone reads.

They are planted in real guests, in every way that a tenant has, and on ways that fail; then everything that people or
collectors read is searched. A new way to give a secret is a new entry of `PLANTED`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import signal
import stat
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from corral_lab import process, progress
from corral_lab.control_plane import components
from corral_lab.guest import serve
from corral_lab.host import programs
from corral_lab.lab import AGENT, CONTROLLER, METRICS_PORT

from .cloud import TENANT, Cloud, until
from .conftest import remove

pytestmark = pytest.mark.lab

PLANTED = {name: f"hush-{name}-{secrets.token_hex(8)}" for name in ("password", "key", "token", "broken", "secret")}
"""What must not be found again: a password and a private key in user data, a token in an image's url, the same in a
document that can't be parsed, and in a Secret."""

DATA = f"""\
#cloud-config
chpasswd:
  list: |
    root:{PLANTED["password"]}
write_files:
- path: /root/.ssh/id_ed25519
  content: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    {PLANTED["key"]}
    -----END OPENSSH PRIVATE KEY-----
"""
BROKEN = f"#cloud-config\nusers: [\n  {PLANTED['broken']}: }}\n"
OPTIONS = ("--verbose", "--log-format", "json")


@dataclass
class Found:
    """Where secrets were found, and where they were looked for."""

    leaks: list[str] = field(default_factory=list)
    looked_at: int = 0

    def search(self, where: str, text: str | bytes) -> None:
        self.looked_at += 1
        content = text.encode() if isinstance(text, str) else text
        self.leaks += [f"{name} in {where}" for name, secret in PLANTED.items() if secret.encode() in content]


@pytest.fixture(scope="module")
def talkative(cloud: Cloud) -> Iterator[Cloud]:
    """The lab whose controller and agent log all they can, as JSON; afterwards as before."""
    try:
        _processes(cloud, *OPTIONS)
        yield cloud
    finally:
        _processes(cloud)


@pytest.fixture(scope="module")
def planted(talkative: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Guests with secrets that run, that fail in each way there is, and whose agent is killed meanwhile."""
    cloud, names = talkative, ["hush", "absent", "broken", "sealed"]
    # Nothing of it is on the host yet: each was said with its url.
    folder = tmp_path_factory.mktemp("images")
    with _server(cloud, folder) as url:
        try:
            cloud.image("hush-absent", f"{url}/absent.qcow2?token={PLANTED['token']}", "0" * 64)
            cloud.api.apply(_secret("sealed"))
            cloud.apply("hush", cloudInit={"userData": DATA})
            cloud.apply("broken", cloudInit={"userData": BROKEN})
            cloud.apply("sealed", cloudInit={"userDataSecretRef": {"name": "sealed"}})
            cloud.apply("absent", imageRef={"kind": "Image", "name": "hush-absent"}, cloudInit={"userData": DATA})
            cloud.up("hush", "sealed")
            until(lambda: cloud.ready("absent")["reason"].startswith("Image"), within=30)
            until(lambda: cloud.ready("broken")["reason"] == "UserDataMalformed", within=30)
            _disturb(cloud)
            cloud.up("hush", "sealed")
            yield cloud
        finally:
            remove(cloud, *names)
            cloud.api.run("delete", "image.corral.dev/hush-absent", "--namespace", TENANT, "--ignore-not-found")
            cloud.api.run("delete", "secret/sealed", "--namespace", TENANT, "--ignore-not-found")


def test_no_log_has_a_secret(planted: Cloud) -> None:
    found = Found()
    logs = [*planted.lab.folder.logs.glob("*"), *planted.host.logs.glob("*")]
    libvirt = [*planted.host.own("/var/log/libvirt").rglob("*.log")]
    for path in [*logs, *libvirt]:
        found.search(str(path), path.read_bytes())
    names = {path.name for path in logs}
    assert {"controller.log", "agent.log", "audit.log", "libvirtd.log"} <= names
    assert any("qemu" in str(path) for path in libvirt)
    assert found.leaks == []


def test_no_object_has_a_secret_but_where_it_was_given(planted: Cloud) -> None:
    """No status, label, owner, Event or Lease; and what came in a Secret is in no spec either."""
    found = Found()
    kinds = planted.api.run("api-resources", "--api-group=corral.dev", "--output=name").split()
    kinds += ["leases.coordination.k8s.io", "namespaces", "events", "events.events.k8s.io"]
    for obj in planted.api.get(",".join(kinds), "--all-namespaces")["items"]:
        where = f"{obj['kind']} {obj['metadata']['name']}"
        found.search(where, json.dumps({part: value for part, value in obj.items() if part != "spec"}))
        assert PLANTED["secret"] not in json.dumps(obj), where
    assert found.looked_at > 20
    assert found.leaks == []


def test_no_argument_list_or_environment_has_a_secret(planted: Cloud) -> None:
    found = Found()
    for pid in (path.name for path in pathlib.Path("/proc").glob("[0-9]*")):
        for part in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                found.search(f"{part} of {_command(pid)}", pathlib.Path("/proc", pid, part).read_bytes())
    assert found.leaks == []


def test_files_that_have_one_are_roots_alone(planted: Cloud) -> None:
    """On the host: the seed, and what the agent keeps of an Instance; nowhere else."""
    have: set[str] = set()
    open_to_others: list[str] = []
    for here, _, names in os.walk(planted.host.folder):
        for path in (pathlib.Path(here) / name for name in names):
            # Gone meanwhile, or no file that anybody can read, as a namespace's.
            with contextlib.suppress(OSError):
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode) and any(secret.encode() in path.read_bytes() for secret in PLANTED.values()):
                    have.add("/".join(path.relative_to(planted.host.folder).parts[:2]))
                    open_to_others += [f"{path} {stat.filemode(mode)}"] if mode & 0o077 else []
    assert open_to_others == []
    assert have == {"corral/seeds", "corral/instances"}


def test_the_metrics_have_none(planted: Cloud) -> None:
    found = Found()
    # Of each where it is served: on the host's loopback, and at the machine's management address.
    read = (
        "import sys, urllib.request as u; print(u.build_opener(u.ProxyHandler({})).open(sys.argv[1]).read().decode())"
    )
    agent = planted.on_host(sys.executable, "-c", read, f"http://127.0.0.1:{METRICS_PORT}/metrics")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    controller = opener.open(f"http://{planted.address}:{METRICS_PORT}/metrics").read().decode()
    assert 'corral_outside_calls_total{call="observe"' in agent
    assert 'corral_virtual_machines{status="Running"}' in controller
    found.search("metrics", agent + controller)
    assert found.leaks == []


def test_logs_are_one_json_object_a_line_with_the_same_keys(planted: Cloud) -> None:
    for path in (planted.lab.folder.logs / "controller.log", planted.host.log(AGENT)):
        # Before, it logged for people.
        lines = [line for line in path.read_text().splitlines() if line.startswith("{")]
        events = [json.loads(line) for line in lines]
        assert len(events) > 3
        for event in events:
            assert {"event", "level", "logger", "timestamp"} <= event.keys()
            assert "\n" not in event["event"]
            assert not {"exc_info", "_record", "_from_structlog"} & event.keys()


def _secret(name: str) -> dict[str, Any]:
    data = yaml.safe_dump({"password": PLANTED["secret"]})
    metadata = {"name": name, "namespace": TENANT}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {"userData": f"#cloud-config\n{data}"},
    }


def _processes(cloud: Cloud, *options: str) -> None:
    """Have controller and agent run with these options."""
    process.stop(cloud.lab.folder.run / f"{CONTROLLER}.pid")
    cloud.lab.start_controller(*options)
    programs.stop(cloud.host, AGENT)
    cloud.lab.start_agent(1, *options)


def _disturb(cloud: Cloud) -> None:
    """A seed that is not what it was, an agent that is killed, an API server that is away."""
    guest = cloud.guest("hush")
    (cloud.host.folder / "corral" / "seeds" / f"{guest.uid}.iso").write_bytes(b"no seed at all")
    running = programs.find(cloud.host, AGENT)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: programs.find(cloud.host, AGENT) is None)
    process.stop(components.pid_file(cloud.lab.folder, components.API_SERVER), deadline=3.0)
    cloud.lab.start_agent(1, *OPTIONS)
    until(lambda: "does not answer" in cloud.host.log(AGENT).read_text().rpartition("metrics are served")[2])
    cloud.lab.control_plane().start(progress.silent())


@contextlib.contextmanager
def _server(cloud: Cloud, folder: pathlib.Path) -> Iterator[str]:
    """A server of images, which has none, on the machine's own address."""
    with serve.Server((cloud.address, 0), folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{cloud.address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _command(pid: str) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc", pid, "comm").read_text().strip()
    return pid
