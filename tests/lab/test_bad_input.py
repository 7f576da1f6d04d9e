"""Mistakes on a real host: each has its reason, nothing is left half-made, and waiting helps where it can."""

from __future__ import annotations

import hashlib
import http.server
import pathlib
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from corral_lab.guest import serve

from .cloud import TENANT, Cloud, until
from .conftest import remove

pytestmark = pytest.mark.lab

Refused = Callable[..., str]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """What the images' server has: a blank disk that no other run has had, and a page in place of one."""
    blank = tmp_path / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(blank), "1M"], check=True)
    with blank.open("ab") as disk:
        disk.write(uuid.uuid4().bytes)
    (tmp_path / "page.qcow2").write_text("<html>Please log in</html>")
    return tmp_path


@pytest.fixture
def server(cloud: Cloud, folder: pathlib.Path) -> Iterator[http.server.HTTPServer]:
    """A server of images on the machine's own address, which hosts reach."""
    with serve.Server((cloud.address, 0), folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def refused(cloud: Cloud) -> Iterator[Refused]:
    """Apply a VirtualMachine that goes with the test, and wait for this reason; returns the message."""
    names: list[str] = []

    def one(name: str, reason: str, **spec: object) -> str:
        names.append(name)
        cloud.apply(name, **spec)
        until(lambda: cloud.ready(name)["reason"] == reason, within=20)
        ready = cloud.ready(name)
        assert ready["status"] == "False"
        assert "Next: " in ready["message"]
        return str(ready["message"])

    yield one
    remove(cloud, *names)


@pytest.fixture
def image(cloud: Cloud) -> Iterator[Callable[[str, str, str], dict[str, object]]]:
    """Make an Image that goes with the test; returns how a VirtualMachine refers to it."""
    names: list[str] = []

    def one(name: str, url: str, sha256: str) -> dict[str, object]:
        names.append(name)
        cloud.image(name, url, sha256)
        return {"imageRef": {"kind": "Image", "name": name}}

    yield one
    for name in names:
        cloud.api.run("delete", f"image.corral.dev/{name}", "--namespace", TENANT)


Make = Callable[[str, str, str], dict[str, object]]


def test_another_sum_than_the_files(
    cloud: Cloud, server: http.server.HTTPServer, image: Make, refused: Refused
) -> None:
    before = cloud.cached_images()
    told = refused("wrong-sum", "ImageChecksumMismatch", **image("wrong-sum", _url(server, "blank.qcow2"), "a" * 64))
    assert "not aaaaaaaaaaaa… as asked for" in told
    assert cloud.cached_images() == before


def test_a_file_that_is_not_there(cloud: Cloud, server: http.server.HTTPServer, image: Make, refused: Refused) -> None:
    before = cloud.cached_images()
    told = refused("no-file", "ImageMissingAtSource", **image("no-file", _url(server, "none.qcow2"), "b" * 64))
    assert "404" in told
    assert cloud.cached_images() == before


def test_a_page_in_place_of_an_image(
    cloud: Cloud, server: http.server.HTTPServer, folder: pathlib.Path, image: Make, refused: Refused
) -> None:
    before = cloud.cached_images()
    spec = image("a-page", _url(server, "page.qcow2"), _sum(folder / "page.qcow2"))
    refused("a-page", "ImageNotAnImage", **spec)
    assert cloud.cached_images() == before


def test_a_server_that_answers_only_later(cloud: Cloud, folder: pathlib.Path, image: Make, refused: Refused) -> None:
    with socket.create_server((cloud.address, 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://{cloud.address}:{port}/blank.qcow2"
    refused("later", "ImageUnreachable", **image("later", url, _sum(folder / "blank.qcow2")))

    with serve.Server((cloud.address, port), folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            cloud.up("later")
        finally:
            server.shutdown()
            thread.join()
    assert cloud.guest("later").get() == "later"


def test_a_disk_that_is_smaller_than_its_image(cloud: Cloud, refused: Refused) -> None:
    refused("too-small", "DiskSmallerThanImage", rootDisk={"size": "1Mi"})
    assert not [name for name in cloud.traces(cloud.guest("too-small")).files if name.startswith("disks/")]


def test_more_memory_than_any_host_has(cloud: Cloud, refused: Refused) -> None:
    refused("too-large", "NoHostFits", cpu=1, memory="1Ti")
    assert "placement" not in cloud.vm("too-large")["status"]


def _url(server: http.server.HTTPServer, name: str) -> str:
    address, port = server.server_address[:2]
    return f"http://{address!s}:{port}/{name}"


def _sum(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
