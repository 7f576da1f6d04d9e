"""The file server of the guest's images, over a real socket."""

from __future__ import annotations

import http.client
import pathlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_lab.guest import serve

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[serve.Server]:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "root.qcow2").write_bytes(CONTENT)
    (folder / "inner").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("no")
    other = tmp_path / "more"
    other.mkdir()
    (other / "debian.qcow2").write_bytes(CONTENT[::-1])
    with serve.Server(("127.0.0.1", 0), folder, other) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _ask(server: serve.Server, method: str, path: str, asked: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    try:
        connection.request(method, path, headers={"Range": asked} if asked else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_a_file_is_served_whole(server: serve.Server) -> None:
    status, headers, body = _ask(server, "GET", "/root.qcow2")

    assert (status, body) == (200, CONTENT)
    assert headers["Accept-Ranges"] == "bytes"


def test_every_folder_is_served(server: serve.Server) -> None:
    status, _, body = _ask(server, "GET", "/debian.qcow2")

    assert (status, body) == (200, CONTENT[::-1])


def test_head_tells_the_size_and_sends_nothing(server: serve.Server) -> None:
    status, headers, body = _ask(server, "HEAD", "/root.qcow2")

    assert (status, headers["Content-Length"], body) == (200, str(len(CONTENT)), b"")


@pytest.mark.parametrize(
    ("asked", "content_range", "body"),
    [
        ("bytes=0-3", "bytes 0-3/1024", CONTENT[:4]),
        ("bytes=1000-", "bytes 1000-1023/1024", CONTENT[1000:]),
        ("bytes=-10", "bytes 1014-1023/1024", CONTENT[-10:]),
        ("bytes=1020-9999", "bytes 1020-1023/1024", CONTENT[1020:]),
    ],
)
def test_a_range_is_a_part(server: serve.Server, asked: str, content_range: str, body: bytes) -> None:
    status, headers, got = _ask(server, "GET", "/root.qcow2", asked)

    assert (status, headers["Content-Range"], got) == (206, content_range, body)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=-0", "bytes=5-2"])
def test_a_range_beyond_the_file_is_refused(server: serve.Server, asked: str) -> None:
    status, headers, _ = _ask(server, "GET", "/root.qcow2", asked)

    assert (status, headers["Content-Range"]) == (416, "bytes */1024")


@pytest.mark.parametrize("path", ["/", "/secret", "/../secret", "/%2e%2e/secret", "/link", "/inner", "//etc/passwd"])
def test_nothing_outside_the_folder_is_served(server: serve.Server, path: str) -> None:
    assert _ask(server, "GET", path)[0] == 404


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 50))
def test_a_range_never_leaves_the_file(first: int, last: int, size: int) -> None:
    part = serve.byte_range(f"bytes={first}-{last}", size)

    assert (part is None) == (first >= size or last < first)
    assert part is None or part == range(first, min(last + 1, size))
