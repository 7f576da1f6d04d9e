"""Taps in the kernel, for the host in whose network namespace the process runs.

*Ours* is what the interface's alias says: `corral:<cloud>:<host>:<owner>`. A restarted process with no memory finds
its taps by it in a dump of all taps; an interface of any other alias, or of none, is foreign and stays. A tap is made
persistent only after it is marked, so that no death in between leaves one that nobody knows.

libvirt opens such a tap by its name: `<interface type='ethernet'><target dev='…' managed='no'/>`. The agent constructs
the driver, and awaits the steps of one owner one after the other.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import fcntl
import ipaddress
import itertools
import os
import pathlib
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import TypeVar

from corral_drivers import errors, rtnetlink
from corral_drivers.link import messages, names
from corral_drivers.link.model import Cause, Observed, Tap
from corral_drivers.link.plan import Ensure, Step
from corral_drivers.link.port import Settings

ResultT = TypeVar("ResultT")

_TUN = "/dev/net/tun"
_SYSCTL = pathlib.Path("/proc/sys/net")
_SET_INTERFACE, _SET_PERSIST = 0x400454CA, 0x400454CB
_INTERFACE = struct.Struct("=16sH22x")
"""ifreq as TUNSETIFF reads it (`linux/if_tun.h`): name and flags."""

_TAP, _NO_PACKET_INFORMATION, _VIRTIO_HEADER, _EXCLUSIVE = 0x0002, 0x1000, 0x4000, 0x8000
_FLAGS = _TAP | _NO_PACKET_INFORMATION | _VIRTIO_HEADER
"""As libvirt and QEMU open it for virtio; one queue."""

_WATCHED = rtnetlink.Group.LINK | rtnetlink.Group.IPV6_ADDRESS

_SILENT = frozenset({"1", "2", "8"})
"""Values of arp_ignore (`ip-sysctl.rst`) with which an address of lo answers on no other interface."""

_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_INVALID = frozenset({errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP})

_DOOMED = 0x636F7272
"""The first group that may hold taps on their way out; never one that any interface is in."""

_BATCH = 256
"""How many taps go at once: the kernel's lock is held for about 0.3 ms each."""


@dataclass(slots=True)
class _Removal:
    """A tap that is to go: whether someone saw to it, how that failed, and whether nobody waits for it any more."""

    name: str
    done: bool = False
    error: Exception | None = None
    withdrawn: bool = False


class Taps:
    """The real links of one host. Observing costs 10 µs a tap that the host has, whoever's it is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = names.mark(settings, "")
        # One thread: the kernel takes link changes one by one anyway, and our own looks and changes never cross.
        self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="corral-link")
        self._removals: collections.deque[_Removal] = collections.deque()

    async def prepare(self) -> None:
        await self._run(_prepare, self._settings.gateway)

    async def observe(self, owner: str) -> tuple[Observed, ...]:
        mark = names.mark(self._settings, owner)
        return tuple(sorted(await self._run(_seen, mark, owner)))

    async def owners(self) -> frozenset[str]:
        ours = await self._run(_marked, self._prefix)
        return frozenset(link.alias.removeprefix(self._prefix) for link in ours)

    async def apply(self, step: Step) -> None:
        if isinstance(step, Ensure):
            names.check(step.tap, self._settings)
            await self._run(_ensure, step.tap, names.mark(self._settings, step.tap.owner))
        else:
            await self._remove(step.name)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        needle = self._prefix.encode()

        def heard(kind: int, body: bytes) -> None:
            alias = ""
            if kind in (messages.NEW_ADDRESS, messages.DELETE_ADDRESS):
                alias = _alias_at(messages.parse_gateway6(body))
            elif needle in body:
                alias = messages.parse(body).alias
            if alias.startswith(self._prefix):
                changed(alias.removeprefix(self._prefix))

        try:
            return rtnetlink.Watch(_WATCHED, heard, missed).close
        except OSError as error:
            raise _refusal("watch the taps", error) from error

    async def _remove(self, name: str) -> None:
        """Removals that are asked for while the kernel is at one go together: alone, each takes it 17 ms."""
        removal = _Removal(name)
        self._removals.append(removal)
        try:
            await self._run(self._remove_waiting, removal)
        finally:
            removal.withdrawn = True
        if isinstance(removal.error, OSError):
            raise _refusal(f"remove tap {name}", removal.error) from removal.error
        if removal.error:
            raise removal.error

    def _remove_waiting(self, asked: _Removal) -> None:
        while not asked.done:
            batch = [self._removals.popleft() for _ in range(min(len(self._removals), _BATCH))]
            error: Exception | None = None
            try:
                _delete({removal.name for removal in batch if not removal.withdrawn}, self._prefix)
            except Exception as failure:  # whatever it is, each who waits for one of the batch must hear of it
                error = failure
            for removal in batch:
                removal.done, removal.error = True, error

    async def _run(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _prepare(gateway: str) -> None:
    operation = f"prepare the gateway {gateway}"
    try:
        _forward()
        with rtnetlink.Socket() as kernel:
            loopback = messages.parse(kernel.get(messages.GET_LINK, messages.by_name("lo"))).index
            kernel.change(messages.SET_LINK, messages.set_up(loopback))
            address = messages.gateway(ipaddress.IPv4Address(gateway), loopback)
            with contextlib.suppress(FileExistsError):
                kernel.change(messages.NEW_ADDRESS, address, rtnetlink.Flag.CREATE | rtnetlink.Flag.EXCLUSIVE)
    except OSError as error:
        raise _refusal(operation, error) from error
    except ValueError as error:
        raise errors.Rejected(Cause.FAILED, f"{operation}: it is not an IPv4 address") from error
    ignored = (_SYSCTL / "ipv4/conf/all/arp_ignore").read_text().strip()
    if ignored in _SILENT:
        raise errors.Unavailable(
            Cause.UNSUPPORTED,
            f"{operation}: no guest can find it while net.ipv4.conf.all.arp_ignore is {ignored}; set it to 0",
        )


def _forward() -> None:
    """Written only where it differs: a container may show /proc/sys read-only, and well set."""
    forward = _SYSCTL / "ipv4/ip_forward"
    if forward.read_text().strip() != "1":
        forward.write_text("1")
    with contextlib.suppress(FileNotFoundError):
        _forward_ipv6(_SYSCTL / "ipv6/conf")


def _forward_ipv6(conf: pathlib.Path) -> None:
    """A router takes no router advertisement where accept_ra is 1, and forgets what it has learnt of them.

    What the host's own uplinks live by goes on: 2 says that they take them all the same (`ip-sysctl.rst`). One that
    comes later is its operator's to set so; taps take none (`_fit`).
    """
    forward = conf / "all/forwarding"
    if forward.read_text().strip() != "0":
        return
    for accepts in conf.glob("*/accept_ra"):
        with contextlib.suppress(FileNotFoundError):
            if accepts.parent.name not in ("all", "default", "lo") and accepts.read_text().strip() == "1":
                accepts.write_text("2")
    forward.write_text("1")


def _marked(mark: str) -> list[messages.Link]:
    """The taps whose alias starts with the mark; the others are not even decoded."""
    needle = mark.encode()
    try:
        with rtnetlink.Socket() as kernel:
            shown = kernel.dump(messages.GET_LINK, messages.every_tap())
    except OSError as error:
        raise _refusal("list the taps", error) from error
    taps = (messages.parse(body) for body in shown if needle in body)
    return [tap for tap in taps if tap.alias.startswith(mark)]


def _seen(mark: str, owner: str) -> list[Observed]:
    """The taps with just this mark, and whether each has the IPv6 gateway."""
    ours = [link for link in _marked(mark) if link.alias == mark]
    if not ours:
        return []
    try:
        with rtnetlink.Socket() as kernel:
            return [link.seen(owner, gateway=_has_gateway(kernel, link)) for link in ours]
    except OSError as error:
        raise _refusal("look at the taps", error) from error


def _has_gateway(kernel: rtnetlink.Socket, link: messages.Link) -> bool:
    try:
        shown = kernel.dump(messages.GET_ADDRESS, messages.addresses6(link.index))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return any(messages.parse_gateway6(body) == link.index for body in shown) or not _knows_ipv6(link.name)


def _knows_ipv6(name: str) -> bool:
    """Whether the interface may have IPv6 addresses: not where somebody turned that off, for good or for all."""
    try:
        return (_SYSCTL / "ipv6/conf" / name / "disable_ipv6").read_text().strip() == "0"
    except FileNotFoundError:
        return False


def _alias_at(index: int | None) -> str:
    """Whose interface it is; empty where it is nobody's, or gone."""
    if index is None:
        return ""
    try:
        with rtnetlink.Socket() as kernel:
            return messages.parse(kernel.get(messages.GET_LINK, messages.by_index(index))).alias
    except OSError:
        return ""


def _ensure(tap: Tap, mark: str) -> None:
    try:
        with rtnetlink.Socket() as kernel:
            link = _look(kernel, tap.name)
            if link is None:
                _make(kernel, tap, mark)
            elif link.kind == "tun" and link.alias == mark:
                _fit(kernel, link.index, tap, mark)
            else:
                raise names.taken(tap.name, link.alias)
    except OSError as error:
        raise _refusal(f"make tap {tap.name}", error) from error


def _make(kernel: rtnetlink.Socket, tap: Tap, mark: str) -> None:
    """The tap lives as long as our descriptor until it is marked and persistent."""
    with _tun(tap.name) as descriptor:
        fcntl.ioctl(descriptor, _SET_INTERFACE, _INTERFACE.pack(tap.name.encode(), _FLAGS | _EXCLUSIVE))
        _fit(kernel, socket.if_nametoindex(tap.name), tap, mark)
        fcntl.ioctl(descriptor, _SET_PERSIST, 1)


@contextlib.contextmanager
def _tun(name: str) -> Iterator[int]:
    try:
        descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise errors.Unavailable(
            Cause.UNSUPPORTED, f"make tap {name}: {_TUN} can't be opened: {error.strerror}"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fit(kernel: rtnetlink.Socket, index: int, tap: Tap, mark: str) -> None:
    kernel.change(messages.SET_LINK, messages.fit(index, tap.mtu, mark))
    # A guest that says it is a router must not give its host a default route.
    with contextlib.suppress(FileNotFoundError):
        (_SYSCTL / "ipv6/conf" / tap.name / "accept_ra").write_text("0")
    kernel.change(messages.SET_LINK, messages.set_up(index))
    if _knows_ipv6(tap.name):
        with contextlib.suppress(FileExistsError):
            flags = rtnetlink.Flag.CREATE | rtnetlink.Flag.EXCLUSIVE
            kernel.change(messages.NEW_ADDRESS, messages.gateway6(index), flags)


def _look(kernel: rtnetlink.Socket, name: str) -> messages.Link | None:
    try:
        return messages.parse(kernel.get(messages.GET_LINK, messages.by_name(name)))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _delete(doomed: Collection[str], prefix: str) -> None:
    """Remove what of these is ours: one by its index, more as a group that nothing else is in."""
    with rtnetlink.Socket() as kernel:
        links = [link for name in doomed if (link := _look(kernel, name))]
        ours = [link.index for link in links if link.kind == "tun" and link.alias.startswith(prefix)]
        if len(ours) == 1:
            _unless_gone(kernel, messages.DELETE_LINK, messages.one(ours[0]))
        elif ours:
            shown = kernel.dump(messages.GET_LINK, messages.every_link())
            group = next(group for group in itertools.count(_DOOMED) if not messages.mentions_group(shown, group))
            for index in ours:
                _unless_gone(kernel, messages.SET_LINK, messages.in_group(index, group))
            _unless_gone(kernel, messages.DELETE_LINK, messages.whole_group(group))


def _unless_gone(kernel: rtnetlink.Socket, kind: int, body: bytes) -> None:
    try:
        kernel.change(kind, body)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _refusal(operation: str, error: OSError) -> errors.DriverError:
    """The kernel's refusal in the house's words; what it calls invalid stays so until it is asked for otherwise."""
    word = errors.Rejected if error.errno in _INVALID else errors.Unavailable
    cause = Cause.UNSUPPORTED if error.errno in _FORBIDDEN else Cause.FAILED
    return word(cause, f"{operation}: {error.strerror}")
