"""What is said to the kernel about a tap, and how its answers read. Pure: `tap.Taps` sends and receives it.

Layouts: rtnetlink(7), `linux/if_link.h`, `linux/if_addr.h`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from corral_drivers import rtnetlink
from corral_drivers.link.model import GATEWAY6, HOST_MAC, Observed

DELETE_LINK, GET_LINK, SET_LINK, NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 17, 18, 19, 20, 21, 22

_LINK = struct.Struct("=BxHiII")
"""ifinfomsg: family, device type, index, flags, mask of the flags that change."""

_ADDRESS = struct.Struct("=BBBBI")
"""ifaddrmsg: family, prefix length, flags, scope, index of the interface."""

_IFF_UP = 1
_SCOPE_LINK = 253
_NO_DETECTION = 0x02
_GATEWAY6 = ipaddress.IPv6Address(GATEWAY6).packed
_ON_LINK6 = 64
_MAC, _NAME, _MTU, _LINKINFO, _ALIAS, _AF_SPEC, _GROUP, _EXT_MASK, _CARRIER = 1, 3, 4, 18, 20, 26, 27, 29, 33
_INFO_KIND, _INET6_ADDRESS_GENERATION, _ADDRESS_WHOLE, _ADDRESS_LOCAL = 1, 8, 1, 2
_GENERATE_NONE = b"\x01"
_SKIP_STATISTICS = rtnetlink.attribute(_EXT_MASK, rtnetlink.u32(8))


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel shows it; `alias` is empty where nobody set one, `kind` for a piece of hardware."""

    index: int
    name: str
    kind: str
    alias: str
    mtu: int
    mac: str
    up: bool
    carrier: bool

    def seen(self, owner: str, *, gateway: bool) -> Observed:
        """The link as the tap of this owner."""
        return Observed(self.name, owner, self.mtu, self.mac, up=self.up, carrier=self.carrier, gateway=gateway)


def by_name(name: str) -> bytes:
    """For GET_LINK: the interface of this name."""
    return every_link() + rtnetlink.attribute(_NAME, name.encode() + b"\0")


def every_link() -> bytes:
    """For a dump of GET_LINK: everything that this network namespace has."""
    return _LINK.pack(0, 0, 0, 0, 0) + _SKIP_STATISTICS


def every_tap() -> bytes:
    """For a dump of GET_LINK: the interfaces of the tun driver."""
    return every_link() + rtnetlink.attribute(_LINKINFO, rtnetlink.attribute(_INFO_KIND, b"tun\0"))


def fit(index: int, mtu: int, mark: str) -> bytes:
    """For SET_LINK: the mark, the host's MAC, the MTU, and no IPv6 address that the kernel makes up by itself."""
    no_address = rtnetlink.attribute(_INET6_ADDRESS_GENERATION, _GENERATE_NONE)
    return (
        _LINK.pack(0, 0, index, 0, 0)
        + rtnetlink.attribute(_ALIAS, mark.encode())
        + rtnetlink.attribute(_MAC, bytes.fromhex(HOST_MAC.replace(":", "")))
        + rtnetlink.attribute(_MTU, rtnetlink.u32(mtu))
        + rtnetlink.attribute(_AF_SPEC, rtnetlink.attribute(socket.AF_INET6, no_address))
    )


def set_up(index: int) -> bytes:
    """For SET_LINK: up. The kernel would set it up before it heeds what `fit` says of IPv6, so they are two."""
    return _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP)


def one(index: int) -> bytes:
    """For DELETE_LINK: this interface."""
    return _LINK.pack(0, 0, index, 0, 0)


def in_group(index: int, group: int) -> bytes:
    """For SET_LINK: put it into a group."""
    return _LINK.pack(0, 0, index, 0, 0) + rtnetlink.attribute(_GROUP, rtnetlink.u32(group))


def whole_group(group: int) -> bytes:
    """For DELETE_LINK: every interface of the group."""
    return _LINK.pack(0, 0, 0, 0, 0) + rtnetlink.attribute(_GROUP, rtnetlink.u32(group))


def mentions_group(shown: Iterable[bytes], group: int) -> bool:
    """Whether any of the links, as a dump shows them, may be in the group: cheap, and never a wrong no."""
    needle = rtnetlink.attribute(_GROUP, rtnetlink.u32(group))
    return any(needle in body for body in shown)


def gateway(address: ipaddress.IPv4Address, index: int) -> bytes:
    """For NEW_ADDRESS: the address alone, of link scope: never a source towards others."""
    return _ADDRESS.pack(socket.AF_INET, address.max_prefixlen, 0, _SCOPE_LINK, index) + rtnetlink.attribute(
        _ADDRESS_LOCAL, address.packed
    )


def gateway6(index: int) -> bytes:
    """For NEW_ADDRESS: the gateway of IPv6, usable at once: that nobody else has it need not be found out first."""
    return (
        _ADDRESS.pack(socket.AF_INET6, _ON_LINK6, _NO_DETECTION, _SCOPE_LINK, index)
        + rtnetlink.attribute(_ADDRESS_LOCAL, _GATEWAY6)
        + rtnetlink.attribute(_ADDRESS_WHOLE, _GATEWAY6)
    )


def addresses6(index: int) -> bytes:
    """For a dump of GET_ADDRESS: the IPv6 addresses of this interface."""
    return _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, index)


def parse_gateway6(body: bytes) -> int | None:
    """The number of the interface that an answer to GET_ADDRESS, or a watch, shows the IPv6 gateway on; or None."""
    family, length, _, _, index = _ADDRESS.unpack_from(body)
    found = rtnetlink.attributes(body, _ADDRESS.size).get(_ADDRESS_WHOLE)
    return int(index) if (family, length, found) == (socket.AF_INET6, _ON_LINK6, _GATEWAY6) else None


def by_index(index: int) -> bytes:
    """For GET_LINK: the interface of this number."""
    return _LINK.pack(0, 0, index, 0, 0) + _SKIP_STATISTICS


def parse(body: bytes) -> Link:
    """An answer to GET_LINK."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = rtnetlink.attributes(body, _LINK.size)
    info = rtnetlink.attributes(found.get(_LINKINFO, b""), 0)
    return Link(
        index=index,
        name=_text(found.get(_NAME, b"")),
        kind=_text(info.get(_INFO_KIND, b"")),
        alias=_text(found.get(_ALIAS, b"")),
        mtu=rtnetlink.number(found.get(_MTU, b"")),
        mac=found.get(_MAC, b"").hex(":"),
        up=bool(flags & _IFF_UP),
        carrier=bool(rtnetlink.number(found.get(_CARRIER, b""))),
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
