"""What a lab is made of: how many hosts, and the prefixes that it takes of this machine's address space.

`corral lab up`, the demo and the tests choose them; the rest of the lab asks here for every address. Pure.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral_lab import errors

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

SPINES = 2
"""How many spines a fabric has: with one, the loss of one would be the loss of all."""

_MANAGEMENT = ipaddress.IPv4Network("100.88.0.0/24")
_GUESTS = ipaddress.IPv4Network("10.77.0.0/24")
_LOOPBACKS = ipaddress.IPv4Network("100.87.0.0/24")
_FIRST_SPINE, _FIRST_HOST = 2, 11


def twin(prefix: ipaddress.IPv4Network) -> ipaddress.IPv6Network:
    """The IPv6 prefix that goes with an IPv4 one where none is asked for: 10.77.0.0/24 has fd00:10:77::/64.

    Three octets as a unique local prefix (RFC 4193), so that a person reads one from the other and labs whose IPv4
    prefixes differ have others here too. The RFC wants a random one; a lab's leaves no machine.
    """
    first, second, third, _ = str(prefix.network_address).split(".")
    return ipaddress.IPv6Network(f"fd00:{first}:{second}:{third}::/64")


@dataclass(frozen=True, slots=True)
class Loopback:
    """The two addresses by which the fabric knows a host, a spine, or this machine."""

    v4: ipaddress.IPv4Address
    v6: ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Options:
    """What a lab is made of. Two labs side by side differ in every prefix."""

    hosts: int = 1
    management: ipaddress.IPv4Network = _MANAGEMENT
    guests: ipaddress.IPv4Network = _GUESTS
    loopbacks: ipaddress.IPv4Network = _LOOPBACKS
    asked_guests6: ipaddress.IPv6Network | None = None
    asked_loopbacks6: ipaddress.IPv6Network | None = None

    @property
    def guests6(self) -> ipaddress.IPv6Network:
        """The guests' IPv6 prefix: the one asked for, or the twin of their IPv4 prefix."""
        return self.asked_guests6 or twin(self.guests)

    @property
    def loopbacks6(self) -> ipaddress.IPv6Network:
        """The loopbacks' IPv6 prefix, likewise."""
        return self.asked_loopbacks6 or twin(self.loopbacks)

    @property
    def address(self) -> ipaddress.IPv4Address:
        """The machine's end of the management network: where the API server and the image server listen."""
        return self.management.network_address + 1

    def host_address(self, number: int) -> ipaddress.IPv4Address:
        """The management address of the host of this number, from 1."""
        return self.management.network_address + 10 + number

    @property
    def machine_loopback(self) -> Loopback:
        """The machine's addresses on the fabric: what guests see a person's shell come from."""
        return self._loopback(1)

    def spine_loopback(self, number: int) -> Loopback:
        """The loopback addresses of the spine of this number, from 1."""
        return self._loopback(_FIRST_SPINE + number - 1)

    def host_loopback(self, number: int) -> Loopback:
        """The loopback addresses of the host of this number, from 1."""
        return self._loopback(_FIRST_HOST + number - 1)

    @property
    def fabric(self) -> dict[str, Prefix]:
        """The prefixes that this machine reaches by way of the spines, and what each is called."""
        return {
            "prefix of the guests": self.guests,
            "IPv6 prefix of the guests": self.guests6,
            "prefix of the loopbacks": self.loopbacks,
            "IPv6 prefix of the loopbacks": self.loopbacks6,
        }

    def check(self) -> None:
        """Raises `errors.LabError` for prefixes that can't be had together, or are too small."""
        named: dict[str, Prefix] = {"management prefix": self.management, **self.fabric}
        for (one, first), (other, second) in itertools.combinations(named.items(), 2):
            if first.overlaps(second):
                raise errors.LabError(
                    f"The {one} {first} and the {other} {second} overlap.",
                    next_step="Give prefixes that share no address, such as --management 100.99.0.0/24 "
                    "--guests 10.99.0.0/24 --loopbacks 100.98.0.0/24.",
                )
        last = self.host_loopback(self.hosts)
        taken: tuple[tuple[str, Prefix, object, str], ...] = (
            ("management prefix", self.management, self.host_address(self.hosts), "--management 100.99.0.0/24"),
            ("prefix of the loopbacks", self.loopbacks, last.v4, "--loopbacks 100.98.0.0/24"),
            ("IPv6 prefix of the loopbacks", self.loopbacks6, last.v6, "--loopbacks6 fd00:98::/64"),
        )
        for what, prefix, address, example in taken:
            if address not in prefix:
                raise errors.LabError(
                    f"The {what} {prefix} is too small for {self.hosts} host(s).",
                    next_step=f"Give a larger one, such as {example}.",
                )

    def wire(self) -> dict[str, Any]:
        """As the lab remembers it, in JSON values; `read` is the way back."""
        v6 = {"guests6": self.asked_guests6, "loopbacks6": self.asked_loopbacks6}
        return {
            "hosts": self.hosts,
            "management": str(self.management),
            "guests": str(self.guests),
            "loopbacks": str(self.loopbacks),
            **{name: prefix and str(prefix) for name, prefix in v6.items()},
        }

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Options:
        """What `wire` wrote; a lab that an earlier version brought up has the defaults of what it did not know."""
        v6 = [kept.get(name) and ipaddress.IPv6Network(kept[name]) for name in ("guests6", "loopbacks6")]
        return cls(
            int(kept["hosts"]),
            ipaddress.IPv4Network(kept["management"]),
            ipaddress.IPv4Network(kept["guests"]),
            ipaddress.IPv4Network(kept.get("loopbacks", _LOOPBACKS)),
            *v6,
        )

    def __str__(self) -> str:
        prefixes = {"management": self.management, "guests": self.guests, "loopbacks": self.loopbacks}
        named = {**prefixes, "guests6": self.guests6, "loopbacks6": self.loopbacks6}
        return f"{self.hosts} host(s), " + ", ".join(f"{name} {prefix}" for name, prefix in named.items())

    def _loopback(self, offset: int) -> Loopback:
        return Loopback(self.loopbacks.network_address + offset, self.loopbacks6.network_address + offset)
