"""The firewall in the kernel's nftables, for the host in whose network namespace the process runs.

*Ours* are the two tables, of the families inet and arp, that have the cloud's and the host's uid in their name. A
restarted process with no memory finds them by it, and in them whose each tap is (the comment of its element in
`guests`), which number stands for which network, policy or grant (the comments in `names`), and what the rules looked
like when we made them (the comment of number 0). Tables of other names are never read nor touched.

What is in our tables is read once, and from then on followed: the kernel counts the generations of the rule set, and
tells of each whose it was and what it changed. So a look costs one question until somebody else changes ours. The agent
constructs the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

from corral_drivers import errors, rtnetlink
from corral_drivers.firewall import flows, values
from corral_drivers.firewall.model import Cause, Element, Observed
from corral_drivers.firewall.nft import library, netfilter, parse, render
from corral_drivers.firewall.nft.follower import Follower
from corral_drivers.firewall.plan import Change, Lay, Sever, Step
from corral_drivers.firewall.port import Settings
from corral_drivers.firewall.ruleset import RuleSet

ResultT = TypeVar("ResultT")

_LOOKS = 10
_RECORD = ("0",)
"""The number that stands for the rules themselves."""

_FORBIDDEN = "Operation not permitted"


class Nft:
    """The real firewall of one host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # One thread: a transaction of ours never crosses another one, and libnftables wants it so.
        self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="corral-firewall")
        self._libraries: tuple[library.Library, library.Library] | None = None
        self._follower: Follower | None = None
        self._generation: int | None = None
        self._picture: RuleSet | None = None
        self._laid = False
        self._judged = False
        self._writer = 0

    async def observe(self, owner: str | None = None) -> Observed:
        return await self._run(self._observe, owner)

    async def owners(self) -> frozenset[str]:
        return await self._run(self._owners)

    async def apply(self, step: Step) -> None:
        match step:
            case Lay(laid):
                values.check(laid)
                await self._run(self._lay, step)
            case Change(remove, add):
                values.check((*remove, *add))
                await self._run(self._change, step)
            case Sever():
                await self._run(self._sever, step)

    async def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        table = self._settings.table.encode()
        touched = False

        def heard(kind: int, body: bytes) -> None:
            # A transaction is told change by change, and at its end whose it was.
            nonlocal touched
            if kind == netfilter.NEW_GENERATION:
                _, task = netfilter.generation(body)
                if touched and task != self._writer:
                    changed()
                touched = False
            elif not touched:
                touched = netfilter.is_of(kind, body, table)

        with _kernel("watch the rules"):
            watch = rtnetlink.Watch(netfilter.TABLE_CHANGES, heard, changed, netfilter.NETLINK_NETFILTER)
        return watch.close

    async def _run(self, work: Callable[..., ResultT], *arguments: object) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _observe(self, owner: str | None) -> Observed:
        rules = self._look()
        if rules is None:
            return Observed(judged=self._judged)
        found = rules.everything() if owner is None else rules.of(owner)
        return Observed(self._laid, self._judged, found, dict(rules.names))

    def _owners(self) -> frozenset[str]:
        rules = self._look()
        return frozenset() if rules is None else rules.owners()

    def _look(self) -> RuleSet | None:
        """What is in our tables; read anew where anybody else changed them since."""
        for _ in range(_LOOKS):
            before = self._counted()
            if before == self._generation or self._is_untouched(before):
                self._generation = before
                return self._picture
            listing = self._listed()
            if before == self._counted():
                self._generation = before
                self._take(listing)
                return self._picture
        raise errors.Unavailable(Cause.FAILED, "read the rules: they changed under every one of ten looks")

    def _is_untouched(self, now: int) -> bool:
        """Whether nobody but us changed our tables since they were read."""
        if self._generation is None:
            return False
        with _kernel("follow the rules"):
            return self._followed().is_untouched(self._generation, now, self._writer)

    def _counted(self) -> int:
        with _kernel("ask for the generation of the rules"):
            return self._followed().generation()

    def _followed(self) -> Follower:
        if self._follower is None:
            self._follower = Follower(self._settings.table)
        return self._follower

    def _take(self, listing: parse.Json | None) -> None:
        """Picture what is there; without our tables, or with one of two, nothing is."""
        if listing is None:
            self._picture, self._laid = None, False
            return
        found = frozenset(parse.elements(listing))
        records = {one for one in found if one.of == "names" and one.key == _RECORD}
        self._picture = RuleSet(found - records)
        self._laid = {one.comment for one in records} == {self._sum(listing)}

    def _listed(self) -> parse.Json | None:
        _, reader = self._opened()
        table, found = self._settings.table, []
        with _refusals("read the rules"):
            there = {
                item["table"]["family"]
                for item in json.loads(reader.run("list tables"))["nftables"]
                if item.get("table", {}).get("name") == table
            }
            if not {"inet", "arp"} <= there:
                return None
            try:
                for family in ("inet", "arp"):
                    found += json.loads(reader.run(f"list table {family} {table}"))["nftables"]
            except library.NotTaken as error:
                # Gone since we asked: whoever did that made another generation.
                if os.strerror(errno.ENOENT) in str(error):
                    return None
                raise
        return {"nftables": found}

    def _sum(self, listing: parse.Json) -> str:
        """Of what was asked for and of what became of it: another version of either is another sum."""
        asked = hashlib.sha256(render.base(self._settings).encode()).hexdigest()[:32]
        return f"laid:{asked}:{parse.fingerprint(listing)}"

    def _lay(self, step: Lay) -> None:
        self._generation = None
        self._commit(str(step), render.laid(self._settings, step.elements))
        listing = self._listed()
        if listing is None:
            raise errors.Unavailable(Cause.FAILED, f"{step}: somebody removed our tables at once")
        record = Element("names", _RECORD, comment=self._sum(listing))
        self._commit(str(step), render.changed(self._settings, (), (record,)))

    def _change(self, step: Change) -> None:
        rules = self._look()
        if rules is None:
            raise errors.Unavailable(Cause.REFUSED, f"{step}: our tables are not there")
        generation = self._generation
        there = {held for one in (*step.remove, *step.add) if (held := rules.held(one))}
        add = tuple(one for one in step.add if one not in there or one in step.remove)
        keys = {(one.of, one.key) for one in (*step.remove, *add)}
        remove = tuple(one for one in there if (one.of, one.key) in keys)
        if not remove and not add:
            return
        self._commit(str(step), render.changed(self._settings, remove, add))
        # Where somebody else's transaction came between, the next look finds out what it was about.
        rules.change(remove, add)
        if generation is not None and self._counted() == generation + 1:
            self._generation = generation + 1
            self._followed().pass_over(generation + 1, self._writer)

    def _sever(self, step: Sever) -> None:
        court = flows.Court(step.shared, step.taps)
        needles = [netfilter.needle(address) for address in court.addresses]
        with _kernel(str(step)), rtnetlink.Socket(netfilter.NETLINK_NETFILTER) as kernel:
            for body in kernel.dump(netfilter.GET_FLOWS, netfilter.flows_asked()) if needles else ():
                if not any(needle in body for needle in needles):
                    continue
                flow = netfilter.flow(body)
                if flow is not None and court.ends(flow):
                    with contextlib.suppress(FileNotFoundError):
                        kernel.change(netfilter.DELETE_FLOW, netfilter.deleted(body))
        self._judged |= step.everything

    def _commit(self, operation: str, text: str) -> None:
        writer, _ = self._opened()
        with _refusals(operation):
            writer.run(text)

    def _opened(self) -> tuple[library.Library, library.Library]:
        """One to write with, one to read with: in the thread, because they belong to its network namespace."""
        if self._libraries is None:
            # What the kernel calls the process of a generation is the thread. In a container with pids of its own this
            # is another number: then our own steps are heard as well, and a look finds that nothing is to do.
            self._writer = threading.get_native_id()
            self._libraries = library.Library(), library.Library(json=True)
        return self._libraries


@contextlib.contextmanager
def _refusals(operation: str) -> Iterator[None]:
    """What libnftables refuses in the house's words."""
    try:
        yield
    except library.NotTaken as error:
        if _FORBIDDEN in str(error):
            raise errors.Unavailable(Cause.UNSUPPORTED, f"{operation}: {error}") from error
        raise errors.Unavailable(Cause.REFUSED, f"{operation}: {error}; the rules are as before") from error


@contextlib.contextmanager
def _kernel(operation: str) -> Iterator[None]:
    """The kernel's refusals in the house's words."""
    try:
        yield
    except OSError as error:
        forbidden = error.errno in (errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT)
        cause = Cause.UNSUPPORTED if forbidden else Cause.FAILED
        raise errors.Unavailable(cause, f"{operation}: {error.strerror}") from error
