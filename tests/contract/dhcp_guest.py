"""A guest's end of a tap, for the contract of what guests are answered: raw frames, and the clients of distributions.

A veth stands for the tap: its host's end is in this network namespace, its guest's end in one of the guest's own, where
real clients run with files of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess

from corral_drivers.dhcp import frames

MAC, HOST_MAC = "02:00:00:00:00:01", "ee:ee:ee:ee:ee:ee"
GATEWAYS = ("169.254.1.1", "fe80::1", HOST_MAC)
"""Who answers."""


def ip(*words: str) -> str:
    """iproute2's answer."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Wire:
    """The guest's end of one tap, in the host's own network namespace: frames in, frames out."""

    def __init__(self, tap: str, mac: str = MAC) -> None:
        self.tap, self.mac = tap, mac
        peer = f"g{tap}"
        ip("link", "add", tap, "address", HOST_MAC, "type", "veth", "peer", "name", peer, "address", mac)
        for name in (tap, peer):
            pathlib.Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            ip("link", "set", name, "up")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
        self._socket.bind((peer, 3))

    def close(self) -> None:
        self._socket.close()

    def say(self, frame: bytes) -> None:
        """Send it; a frame that the driver's queue has no room for is lost, as on any wire."""
        with contextlib.suppress(OSError):
            self._socket.send(frame)

    async def hear(self, within: float) -> bytes | None:
        """The next frame that the host sent; None where none comes within so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while loop.time() < deadline:
            with contextlib.suppress(BlockingIOError):
                frame, (_, _, kind, *_) = self._socket.recvfrom(2048)
                if kind != socket.PACKET_OUTGOING:
                    return frame
                continue
            await asyncio.sleep(0.002)
        return None

    async def answer(self, within: float) -> bytes | None:
        """The next frame that is not for all on the link: an advertisement that comes by itself is no answer."""
        while frame := await self.hear(within):
            if frame[38:54] != ipaddress.IPv6Address("ff02::1").packed:
                return frame
        return None


def discover(mac: str = MAC, kind: int = 1, options: bytes = b"", **fields: str) -> bytes:
    """A DHCP client's frame: `has` and `to` are addresses."""
    has = ipaddress.IPv4Address(fields.get("has", "0.0.0.0"))
    fixed = struct.pack(
        "!BBBBIHH4s4s4s4s16s192xI", 1, 1, 6, 0, 7, 0, 0, has.packed, *([bytes(4)] * 3), octets(mac), 0x63825363
    )
    body = fixed + bytes([53, 1, kind]) + options + b"\xff"
    header = frames.Header(octets(mac), b"\xff" * 6, has, ipaddress.IPv4Address(fields.get("to", "255.255.255.255")))
    return frames.udp(header, (68, 67), body)


def solicit_router(mac: str = MAC) -> bytes:
    """A router solicitation."""
    header = frames.Header(
        octets(mac), octets("33:33:00:00:00:02"), ipaddress.IPv6Address("fe80::2"), ipaddress.IPv6Address("ff02::2")
    )
    return frames.icmpv6(header, 133, bytes(4) + b"\x01\x01" + octets(mac))


def solicit(mac: str = MAC, kind: int = 1, options: bytes = b"") -> bytes:
    """A DHCPv6 client's frame, with an identity of its own."""
    header = frames.Header(
        octets(mac), octets("33:33:00:01:00:02"), ipaddress.IPv6Address("fe80::2"), ipaddress.IPv6Address("ff02::1:2")
    )
    body = bytes([kind, 0, 0, 7]) + option6(1, b"\0\x03\0\x01" + octets(mac)) + options
    return frames.udp(header, (546, 547), body)


def option6(number: int, value: bytes) -> bytes:
    return struct.pack("!HH", number, len(value)) + value


ASSOCIATION = option6(3, b"\0\0\0\x01" + bytes(8))


class Guest:
    """A machine of its own behind a tap: network, mount and UTS namespace; what clients write stays in `files`."""

    def __init__(self, tap: str, files: pathlib.Path, mac: str = MAC) -> None:
        self.files = files
        files.mkdir(parents=True, exist_ok=True)
        words = ["unshare", "--net", "--mount", "--uts", "sleep", "infinity"]
        self._holder = subprocess.Popen(words)
        self._wait()
        ip(
            "link",
            "add",
            tap,
            "address",
            HOST_MAC,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            mac,
            "netns",
            str(self._holder.pid),
        )
        ip("link", "set", tap, "up")
        ip("address", "add", "fe80::1/64", "dev", tap, "nodad")
        ip("route", "add", "10.77.0.5/32", "dev", tap)
        self.run("ip", "link", "set", "lo", "up")

    def _wait(self) -> None:
        ours = os.stat("/proc/self/ns/uts").st_ino
        while os.stat(f"/proc/{self._holder.pid}/ns/uts").st_ino == ours:
            pass

    def words(self, *words: str) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--uts", *words]

    def run(self, *words: str) -> str:
        """Run a program in the guest that needs no answer of ours."""
        return subprocess.run(self.words(*words), check=True, capture_output=True, text=True).stdout

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """Start a program in the guest, of which this is the process: signals reach it."""
        out = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self.words(*words), stdout=out, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
        )

    async def client(self, *words: str, within: float = 15.0) -> str:
        """Run a client to its end while it is answered: everything that it says."""
        started = await self.start(*words)
        try:
            said, _ = await asyncio.wait_for(started.communicate(), within)
        except TimeoutError:
            raise AssertionError(f"{words} did not end within {within} s") from None
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()
        return said.decode()

    def end(self) -> None:
        """End everything that runs in it, a client that went to the background too."""
        inside = os.stat(f"/proc/{self._holder.pid}/ns/net").st_ino
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "ns/net").stat().st_ino == inside and int(process.name) != self._holder.pid:
                    os.kill(int(process.name), signal.SIGKILL)

    def close(self) -> None:
        self.end()
        self._holder.kill()
        self._holder.wait()


def needs(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/lib/systemd")
    assert found, f"{program} is not installed: scripts/setup installs it"
    return found
