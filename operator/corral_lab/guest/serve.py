"""Serves the guest's images over HTTP, so that hosts fetch them in the lab as from any image source.

`corral lab up` starts it as a daemon: `python -m corral_lab.guest.serve --folder F --address A --port P`, with a folder
more for each image. It answers GET and HEAD, whole or one byte range (RFC 9110, section 14), of the files that lie in
these folders themselves; all else is a 404.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import io
import pathlib
import re
import signal
import sys
from typing import Any, BinaryIO

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Handler(http.server.BaseHTTPRequestHandler):
    """One request. `Server` holds the folders."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        sys.stderr.write(f"{self.log_date_time_string()} {self.address_string()} {format % args}\n")

    def _answer(self, *, with_body: bool) -> None:
        name = self.path.partition("?")[0].removeprefix("/")
        # Only names that the folder itself lists: no path, link or dot leads out of it.
        path = self.server.images().get(name)
        if path is None:
            self.send_error(404)
            return
        with path.open("rb") as stream:
            size = path.stat().st_size
            asked = self.headers.get("Range")
            part = byte_range(asked, size) if asked else range(size)
            if part is None:
                self._head(416, 0, {"Content-Range": f"bytes */{size}"})
                return
            extra = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}"} if asked else {}
            self._head(206 if asked else 200, len(part), extra)
            if with_body:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    stream.seek(part.start)
                    _copy(stream, self.wfile, len(part))

    def _head(self, status: int, length: int, extra: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    """Listens on `address` (host, port; port 0 is chosen free) for the files of `folders`, which share no name."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], *folders: pathlib.Path) -> None:
        super().__init__(address, Handler)
        self.folders = folders

    def images(self) -> dict[str, pathlib.Path]:
        """What may be fetched, by name."""
        found = (path for folder in self.folders for path in folder.iterdir())
        return {path.name: path for path in found if path.is_file() and not path.is_symlink()}


def byte_range(asked: str, size: int) -> range | None:
    """The bytes of a file of `size` that a Range header asks for; None where it can't be met, or asks for several."""
    found = _RANGE.fullmatch(asked.strip())
    if not found or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        part = range(max(0, size - int(last)), size)
    else:
        part = range(int(first), min(size, int(last) + 1) if last else size)
    return part if part else None


def _copy(source: BinaryIO, target: io.BufferedIOBase, length: int) -> None:
    while length > 0 and (chunk := source.read(min(length, _CHUNK))):
        target.write(chunk)
        length -= len(chunk)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the lab's guest images over HTTP.")
    parser.add_argument("--folder", type=pathlib.Path, required=True, action="append")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Server((options.address, options.port), *options.folder) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
