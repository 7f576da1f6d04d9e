"""Routes and neighbours in the kernel, for the host in whose network namespace the process runs.

*Ours* is what carries our protocol number, 199: a route of it in the table of the settings, a permanent neighbour
entry of it. A restarted process with no memory finds both in the kernel's dumps; what carries another number is foreign
and is never replaced nor removed. The one exception is a neighbour entry for an address that we are told to set: what
the kernel learnt about it by itself gives way. Routes are of link scope and of the best metric, so that one that the
fabric tells of may stand beside ours and loses; a blackhole has the next metric. The agent constructs the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

from corral_drivers import errors, rtnetlink
from corral_drivers.routing import messages, values
from corral_drivers.routing.model import Blackhole, Cause, Neighbour, Route, Table
from corral_drivers.routing.plan import (
    RemoveBlackhole,
    RemoveNeighbour,
    RemoveRoute,
    SetBlackhole,
    SetNeighbour,
    SetRoute,
    Step,
)
from corral_drivers.routing.port import Settings

ResultT = TypeVar("ResultT")

_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ESRCH})
_NO_INTERFACE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENETDOWN})
_INVALID = frozenset({errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})

_WATCHED = rtnetlink.Group.IPV4_ROUTE | rtnetlink.Group.IPV6_ROUTE | rtnetlink.Group.NEIGHBOUR

_FEW = 8
"""Up to how many interfaces the kernel is asked one by one (0.3 ms each with 1,000 routes) before all are read."""


class Kernel:
    """The real tables of one host."""

    def __init__(self, settings: Settings) -> None:
        self._table = settings.table
        self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="corral-routing")

    async def observe(self, interfaces: Iterable[str] | None = None) -> Table:
        return await self._run(_observe, self._table, None if interfaces is None else frozenset(interfaces))

    async def blackholes(self) -> tuple[Blackhole, ...]:
        return await self._run(_blackholes, self._table)

    async def apply(self, step: Step) -> None:
        match step:
            case SetNeighbour(neighbour):
                await self._run(_set_neighbour, neighbour, values.address(neighbour))
            case SetRoute(route):
                await self._run(_set_route, route, values.network(route), self._table)
            case RemoveRoute(route):
                await self._run(_remove_route, route, values.network(route), self._table)
            case RemoveNeighbour(neighbour):
                await self._run(_remove_neighbour, neighbour, values.address(neighbour))
            case SetBlackhole(blackhole):
                await self._run(_set_blackhole, values.network(blackhole), self._table)
            case RemoveBlackhole(blackhole):
                await self._run(_remove_blackhole, values.network(blackhole), self._table)

    async def watch(self, changed: Callable[[str], None], missed: Callable[[], None]) -> Callable[[], None]:
        def heard(kind: int, body: bytes) -> None:
            index = messages.concerned(kind, body, self._table)
            if index == 0:
                changed("")
                return
            # Where the interface has gone as well there is no name any more, and nothing to put back over it.
            with contextlib.suppress(OSError):
                if index is not None:
                    changed(socket.if_indextoname(index))

        with _conversation("watch the tables"):
            return rtnetlink.Watch(_WATCHED, heard, missed).close

    async def _run(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _observe(table: int, interfaces: frozenset[str] | None) -> Table:
    with _conversation("read the tables") as kernel:
        named = _indices(interfaces)
        asked = list(named) if interfaces is not None and len(named) <= _FEW else [None]
        routes = {
            Route(str(found.network), named[found.index])
            for family in messages.FAMILIES
            for index in asked
            for found in _our_routes(kernel, family, table, index)
            if found.index in named
        }
        neighbours = {
            Neighbour(str(found.address), found.mac, named[found.index])
            for family in messages.FAMILIES
            for index in asked
            for body in kernel.dump(messages.GET_NEIGHBOUR, messages.neighbours(family, index))
            if (found := messages.parse_neighbour(body)) and found.index in named
        }
    return Table(tuple(sorted(routes)), tuple(sorted(neighbours)))


def _indices(interfaces: frozenset[str] | None) -> dict[int, str]:
    """The interfaces that exist, by their index."""
    if interfaces is None:
        return dict(socket.if_nameindex())
    return {index: name for name in interfaces if (index := _index_if_there(name))}


def _our_routes(
    kernel: rtnetlink.Socket, family: socket.AddressFamily, table: int, index: int | None
) -> list[messages.IndexedRoute]:
    try:
        shown = kernel.dump(messages.GET_ROUTE, messages.routes(family, table, index))
    except OSError as error:
        # A table is there with its first route, an interface may just have gone.
        if error.errno in _GONE:
            return []
        raise
    return [found for body in shown if (found := messages.parse_route(body, table))]


def _set_route(route: Route, network: messages.Network, table: int) -> None:
    operation = f"route {route.prefix} over {route.interface}"
    with _conversation(operation) as kernel:
        asked = messages.IndexedRoute(network, _index(route.interface, operation))
        body = messages.route(asked, table)
        try:
            kernel.change(messages.NEW_ROUTE, body, rtnetlink.Flag.CREATE | rtnetlink.Flag.EXCLUSIVE)
        except FileExistsError as error:
            family = socket.AF_INET if network.version == 4 else socket.AF_INET6
            there = [one for one in _our_routes(kernel, family, table, None) if one.network == network]
            if not there:
                raise errors.Rejected(
                    Cause.PREFIX_TAKEN, f"{operation}: a route of another protocol holds this prefix"
                ) from error
            if asked not in there:
                kernel.change(messages.NEW_ROUTE, body, rtnetlink.Flag.CREATE | rtnetlink.Flag.REPLACE)


def _remove_route(route: Route, network: messages.Network, table: int) -> None:
    with _conversation(f"remove route {route.prefix} over {route.interface}") as kernel:
        if index := _index_if_there(route.interface):
            asked = messages.IndexedRoute(network, index)
            _unless_gone(kernel, messages.DELETE_ROUTE, messages.route(asked, table))


def _blackholes(table: int) -> tuple[Blackhole, ...]:
    with _conversation("read the blackholes") as kernel:
        found = [one for family in messages.FAMILIES for one in _holes(kernel, family, table)]
    return tuple(sorted(Blackhole(str(one)) for one in found))


def _holes(kernel: rtnetlink.Socket, family: socket.AddressFamily, table: int) -> list[messages.Network]:
    try:
        shown = kernel.dump(messages.GET_ROUTE, messages.blackholes(family, table))
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise
    return [found for body in shown if (found := messages.parse_blackhole(body, table))]


def _set_blackhole(network: messages.Network, table: int) -> None:
    operation = f"blackhole {network}"
    with _conversation(operation) as kernel:
        flags = rtnetlink.Flag.CREATE | rtnetlink.Flag.EXCLUSIVE
        try:
            kernel.change(messages.NEW_ROUTE, messages.blackhole(network, table), flags)
        except FileExistsError as error:
            family = socket.AF_INET if network.version == 4 else socket.AF_INET6
            if network not in _holes(kernel, family, table):
                raise errors.Rejected(
                    Cause.PREFIX_TAKEN, f"{operation}: a route of another protocol holds this prefix"
                ) from error


def _remove_blackhole(network: messages.Network, table: int) -> None:
    with _conversation(f"remove blackhole {network}") as kernel:
        _unless_gone(kernel, messages.DELETE_ROUTE, messages.blackhole(network, table))


def _set_neighbour(neighbour: Neighbour, address: messages.Address) -> None:
    operation = f"neighbour {neighbour.address} on {neighbour.interface}"
    with _conversation(operation) as kernel:
        asked = messages.IndexedNeighbour(address, neighbour.mac, _index(neighbour.interface, operation))
        flags = rtnetlink.Flag.CREATE | rtnetlink.Flag.REPLACE
        kernel.change(messages.NEW_NEIGHBOUR, messages.neighbour(asked), flags)


def _remove_neighbour(neighbour: Neighbour, address: messages.Address) -> None:
    """The kernel would remove an entry whatever its protocol, so it is looked at first."""
    with _conversation(f"remove neighbour {neighbour.address} on {neighbour.interface}") as kernel:
        index = _index_if_there(neighbour.interface)
        if index is None:
            return
        one = messages.one_neighbour(address, index)
        try:
            body = kernel.get(messages.GET_NEIGHBOUR, one)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        if messages.parse_neighbour(body):
            _unless_gone(kernel, messages.DELETE_NEIGHBOUR, one)


def _index(interface: str, operation: str) -> int:
    index = _index_if_there(interface)
    if index is None:
        raise errors.NotReady(Cause.INTERFACE_MISSING, f"{operation}: there is no such interface yet")
    return index


def _index_if_there(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


def _unless_gone(kernel: rtnetlink.Socket, kind: int, body: bytes) -> None:
    try:
        kernel.change(kind, body)
    except OSError as error:
        if error.errno not in _GONE:
            raise


@contextlib.contextmanager
def _conversation(operation: str) -> Iterator[rtnetlink.Socket]:
    """A socket, and the kernel's refusals in the house's words."""
    try:
        with rtnetlink.Socket() as kernel:
            yield kernel
    except OSError as error:
        message = f"{operation}: {error.strerror}"
        if error.errno in _NO_INTERFACE:
            raise errors.NotReady(Cause.INTERFACE_MISSING, message) from error
        word = errors.Rejected if error.errno in _INVALID else errors.Unavailable
        raise word(Cause.FAILED, message) from error
