"""The space of addresses: what pools have, which host has which block, what is taken. Pure; derived from the store.

`controller.ledger` and `controller.blocks` keep it current, and `controller.addresses` asks it. Nothing is scanned by
its size: what is taken is a bitmap a page of 256 addresses, so that the first free address of a block is found in a few
steps however many there are, and in whatever order pools, blocks and addresses become known.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from corral import allocate

_PAGE = 8
"""A page is the addresses that differ in so many last bits."""

_LARGEST = {4: 20, 6: 112}
"""The shortest prefixes of blocks."""

_ALL = (1 << (1 << _PAGE)) - 1

Refused = Callable[[str], bool]
"""Whether an address that nobody has taken may not be given all the same."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A free address, and the prefix of the block that its host needs first; None where it is in another's block."""

    address: str
    block: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """Of one family of a pool: addresses that guests can have, how many are taken, blocks, and hosts that have them."""

    addresses: int
    taken: int
    blocks: int
    hosts: int

    def __str__(self) -> str:
        return f"{self.taken} of {self.addresses} addresses are taken, in {self.blocks} blocks of {self.hosts} hosts"


@dataclass(slots=True)
class _Prefix:
    """A pool's prefix, cut into cells of a block's size: how many blocks lie in each, and where free ones begin."""

    network: allocate.Network
    length: int
    kept: frozenset[int]
    used: Counter[int] = field(default_factory=Counter)
    hint: int = 0

    @property
    def step(self) -> int:
        """How many addresses a cell has, as a number of bits."""
        return self.network.max_prefixlen - self.length

    def cells(self, block: allocate.Network) -> range:
        """The cells that a block has addresses of."""
        if block.version != self.network.version or not block.overlaps(self.network):
            return range(0)
        base = int(self.network.network_address)
        first, last = int(block.network_address) - base, int(block.broadcast_address) - base
        return range(max(first, 0) >> self.step, (min(last, self.network.num_addresses - 1) >> self.step) + 1)

    def use(self, block: allocate.Network) -> None:
        self.used.update(self.cells(block))

    def leave(self, block: allocate.Network) -> None:
        for cell in self.cells(block):
            self.used[cell] -= 1
            if self.used[cell] <= 0:
                del self.used[cell]
                self.hint = min(self.hint, cell)

    def free(self) -> Iterator[allocate.Network]:
        """Cells without a block, the lowest first."""
        cells = 1 << (self.length - self.network.prefixlen)
        while self.hint < cells and self.hint in self.used:
            self.hint += 1
        for cell in range(self.hint, cells):
            if cell not in self.used:
                yield self.cell(cell)

    def cell(self, index: int) -> allocate.Network:
        first = int(self.network.network_address) + (index << self.step)
        return type(self.network)((first, self.length))


@dataclass(slots=True)
class _Pool:
    prefixes: tuple[_Prefix, ...]
    age: tuple[str, str]
    gives: bool = True


class Space:
    """Pools, blocks and what is taken of them."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._blocks: dict[allocate.Network, str] = {}
        self._of_host: defaultdict[str, set[allocate.Network]] = defaultdict(set)
        self._shut: set[allocate.Network] = set()
        self._lengths: Counter[tuple[int, int]] = Counter()
        self._taken: Counter[tuple[int, int]] = Counter()
        self._pages: dict[tuple[int, int], int] = {}

    # What is known.

    def pool(self, name: str, prefixes: Iterable[str], lengths: tuple[int, int], age: tuple[str, str]) -> None:
        """There is this pool; `lengths` are those of its blocks' prefixes, IPv4 and IPv6. The younger of two that
        overlap gives nothing. Raises ValueError where a prefix is none.
        """
        networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
        made = tuple(_prefix(one, lengths) for one in networks)
        for one in made:
            for block in self._blocks:
                one.use(block)
        self._pools[name] = _Pool(made, age)
        self._compare()

    def no_pool(self, name: str) -> None:
        """There is no such pool."""
        self._pools.pop(name, None)
        self._compare()

    def block(self, prefix: str, host: str) -> None:
        """This host has the block, or is about to. What is larger than a block can be is none."""
        network = ipaddress.ip_network(prefix)
        if network.prefixlen < _LARGEST[network.version]:
            return
        if self._blocks.get(network) == host:
            return
        self.no_block(prefix)
        self._blocks[network] = host
        self._of_host[host].add(network)
        self._lengths[network.version, network.prefixlen] += 1
        for one in self._all_prefixes():
            one.use(network)

    def no_block(self, prefix: str) -> None:
        """Nobody has the block."""
        network = ipaddress.ip_network(prefix)
        self._shut.discard(network)
        host = self._blocks.pop(network, None)
        if host is None:
            return
        self._of_host[host].discard(network)
        if not self._of_host[host]:
            del self._of_host[host]
        self._lengths -= Counter({(network.version, network.prefixlen): 1})
        for one in self._all_prefixes():
            one.leave(network)

    def shut(self, prefix: str) -> None:
        """Nothing more is given of the block: it is being returned."""
        self._shut.add(ipaddress.ip_network(prefix))

    def open(self, prefix: str) -> bool:
        """The block is not being returned after all; whether it was."""
        network = ipaddress.ip_network(prefix)
        was_shut = network in self._shut
        self._shut.discard(network)
        return was_shut

    def take(self, address: str) -> None:
        """Somebody has the address, or is about to; as often as there are reasons."""
        where, bit = _place(address)
        self._taken[address_key(address)] += 1
        self._pages[where] = self._pages.get(where, 0) | bit

    def free(self, address: str) -> None:
        """One reason less."""
        key = address_key(address)
        self._taken[key] -= 1
        if self._taken[key] > 0:
            return
        del self._taken[key]
        where, bit = _place(address)
        left = self._pages.get(where, 0) & ~bit
        if left:
            self._pages[where] = left
        else:
            self._pages.pop(where, None)

    # What may be asked.

    def gives(self, pool: str) -> bool:
        """Whether the pool is there, and no earlier one overlaps it."""
        return pool in self._pools and self._pools[pool].gives

    def pool_at(self, address: str) -> str | None:
        """The pool that gives this address."""
        parsed = ipaddress.ip_address(address)
        for name, pool in self._pools.items():
            if pool.gives and any(parsed in one.network for one in pool.prefixes):
                return name
        return None

    def is_empty(self, prefix: str) -> bool:
        """Whether nobody has an address of the prefix."""
        network = ipaddress.ip_network(prefix)
        return not any(self._pages.get((network.version, page), 0) & mask for page, mask in _pages(network))

    def of_host(self, host: str) -> list[str]:
        """The blocks of a host that are not being returned."""
        return list(allocate.ordered(map(str, self._of_host.get(host, set()) - self._shut)))

    def block_at(self, address: str) -> tuple[str, str] | None:
        """The block that the address is in, and whose it is."""
        parsed = ipaddress.ip_address(address)
        for version, length in self._lengths:
            if version == parsed.version:
                network = ipaddress.ip_network(f"{parsed}/{length}", strict=False)
                if network in self._blocks:
                    return str(network), self._blocks[network]
        return None

    def offer(self, pool: str, version: int, host: str, is_refused: Refused) -> Offer | None:
        """The first free address of the host's own blocks, or else of the first block that is nobody's."""
        prefixes = self._giving(pool, version)
        own = sorted(self._of_host.get(host, set()) - self._shut, key=lambda one: int(one.network_address))
        for one in prefixes:
            for block in own:
                if one.cells(block) and (found := self._first(block, one, is_refused)):
                    return Offer(found, str(block))
        for one in prefixes:
            for block in one.free():
                if found := self._first(block, one, is_refused):
                    return Offer(found, str(block))
        return None

    def borrow(self, pool: str, version: int, is_refused: Refused) -> Offer | None:
        """A free address of the block that has the most of them, whose ever it is."""
        found = [
            (-self._free_in(block, one), int(block.network_address), one, block)
            for one in self._giving(pool, version)
            for block in self._blocks.keys() - self._shut
            if one.cells(block)
        ]
        for _, _, one, block in sorted(found, key=lambda entry: entry[:2]):
            if address := self._first(block, one, is_refused):
                return Offer(address, None)
        return None

    def asked(self, pool: str, address: str, host: str) -> Offer:
        """What a host needs for this free address of the pool: its own block, a new one, or none, where it is in
        another's.
        """
        if (at := self.block_at(address)) is not None:
            return Offer(address, at[0] if at[1] == host else None)
        parsed = ipaddress.ip_address(address)
        for one in self._giving(pool, parsed.version):
            if parsed in one.network:
                cell = (int(parsed) - int(one.network.network_address)) >> one.step
                return Offer(address, None if cell in one.used else str(one.cell(cell)))
        return Offer(address, None)

    def is_kept_back(self, pool: str, address: str) -> bool:
        """Whether the address is one of its pool's prefix that no guest gets."""
        parsed = ipaddress.ip_address(address)
        prefixes = self._pools[pool].prefixes if pool in self._pools else ()
        return any(parsed in one.network and int(parsed) in one.kept for one in prefixes)

    def count(self, pool: str, version: int) -> Count:
        """What the pool has of a family."""
        prefixes = [one for one in self._pools[pool].prefixes if one.network.version == version]
        blocks = [block for block in self._blocks if any(one.cells(block) for one in prefixes)]
        return Count(
            addresses=allocate.capacity(str(one.network) for one in prefixes),
            taken=sum(self._taken_in(one.network) for one in prefixes),
            blocks=len(blocks),
            hosts=len({self._blocks[block] for block in blocks}),
        )

    def _giving(self, pool: str, version: int) -> list[_Prefix]:
        if not self.gives(pool):
            return []
        return [one for one in self._pools[pool].prefixes if one.network.version == version]

    def _all_prefixes(self) -> Iterator[_Prefix]:
        return (one for pool in self._pools.values() for one in pool.prefixes)

    def _compare(self) -> None:
        earlier: list[str] = []
        for pool in sorted(self._pools.values(), key=lambda one: one.age):
            own = [str(one.network) for one in pool.prefixes]
            pool.gives = allocate.overlapping(own, earlier) is None
            earlier += own

    def _first(self, block: allocate.Network, within: _Prefix, is_refused: Refused) -> str | None:
        for page, mask in _pages(_common(block, within.network)):
            free = mask & ~self._pages.get((block.version, page), 0)
            while free:
                value = (page << _PAGE) + (free & -free).bit_length() - 1
                address = str(type(block.network_address)(value))
                if value not in within.kept and not is_refused(address):
                    return address
                free &= free - 1
        return None

    def _free_in(self, block: allocate.Network, within: _Prefix) -> int:
        common = _common(block, within.network)
        first, last = int(common.network_address), int(common.broadcast_address)
        kept = sum(first <= one <= last for one in within.kept)
        return common.num_addresses - kept - self._taken_in(common)

    def _taken_in(self, network: allocate.Network) -> int:
        first, last = int(network.network_address) >> _PAGE, int(network.broadcast_address) >> _PAGE
        if last - first < len(self._pages):
            shown = ((self._pages.get((network.version, page), 0), mask) for page, mask in _pages(network))
            return sum((bits & mask).bit_count() for bits, mask in shown)
        # Of a prefix that has more pages than anybody has taken addresses of, only those are looked at.
        return sum(
            bits.bit_count()
            for (version, page), bits in self._pages.items()
            if version == network.version and first <= page <= last
        )


def address_key(address: str) -> tuple[int, int]:
    """The address by its family and its number."""
    parsed = ipaddress.ip_address(address)
    return parsed.version, int(parsed)


def _place(address: str) -> tuple[tuple[int, int], int]:
    version, value = address_key(address)
    return (version, value >> _PAGE), 1 << (value & ((1 << _PAGE) - 1))


def _pages(network: allocate.Network) -> Iterator[tuple[int, int]]:
    """The pages that a prefix is on, each with the bits that are of the prefix."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if last >> _PAGE == first >> _PAGE:
        width = last - first + 1
        yield first >> _PAGE, ((1 << width) - 1) << (first & ((1 << _PAGE) - 1))
        return
    for page in range(first >> _PAGE, (last >> _PAGE) + 1):
        yield page, _ALL


def _common(one: allocate.Network, other: allocate.Network) -> allocate.Network:
    """The smaller of two prefixes that overlap: one lies in the other."""
    return max(one, other, key=lambda network: network.prefixlen)


def _prefix(network: allocate.Network, lengths: tuple[int, int]) -> _Prefix:
    """A prefix that is smaller than a block is one block."""
    asked = lengths[0] if network.version == 4 else lengths[1]
    return _Prefix(network, max(asked, network.prefixlen), allocate.kept_back(network))
