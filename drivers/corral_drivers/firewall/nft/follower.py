"""Whose changes of the rule set were made since a look: what is of other tables makes no look at ours necessary.

On a host where others change rules all day (containers' networks, bans), each of their transactions makes another
generation; to read thousands of elements anew for each would cost more than all of our own work.
"""

from __future__ import annotations

import errno
import select
import socket
import time

from corral_drivers import rtnetlink
from corral_drivers.firewall.nft import netfilter

_RECEIVE = 32 * 1024
_WITHIN = 0.1
"""Seconds that a transaction may take from its generation to its end, which is told last."""


class Follower:
    """Hears of all transactions from now on, for one thread. Raises OSError where it can't.

    Its sockets stay open: when one of this protocol is closed, the kernel first ends what the last transaction has left
    to do (5 to 30 ms after elements were removed).
    """

    def __init__(self, table: str) -> None:
        self._table = table.encode()
        self._heard: dict[int, bool] = {}
        self._touched = False
        self._kernel = rtnetlink.Socket(netfilter.NETLINK_NETFILTER)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, netfilter.NETLINK_NETFILTER)
        rtnetlink.widen(self._socket)
        self._socket.bind((0, netfilter.TABLE_CHANGES))

    def __del__(self) -> None:
        for one in ("_kernel", "_socket"):
            if hasattr(self, one):
                getattr(self, one).close()

    def generation(self) -> int:
        """How often the rule set was changed until now."""
        number, _ = netfilter.generation(self._kernel.get(netfilter.GET_GENERATION, netfilter.generation_asked()))
        return number

    def is_untouched(self, since: int, until: int, own: int) -> bool:
        """Whether all transactions after `since` up to `until` are known, and none but thread `own` changed ours."""
        deadline = time.monotonic() + _WITHIN
        while self._hear(own) and until not in self._heard:
            if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
        known = [self._heard.get(generation) for generation in range(since + 1, until + 1)]
        self._forget(until)
        return bool(known) and all(touched is False for touched in known)

    def pass_over(self, until: int, own: int) -> None:
        """What is up to this generation is known otherwise: make room for more."""
        self._hear(own)
        self._forget(until)

    def _forget(self, until: int) -> None:
        self._heard = {generation: touched for generation, touched in self._heard.items() if generation > until}

    def _hear(self, own: int) -> bool:
        """Take in all that there is; False where the kernel had to drop some."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._heard.clear()
                self._touched = True
                return False
            for kind, body in rtnetlink.messages(data):
                if kind == netfilter.NEW_GENERATION:
                    number, task = netfilter.generation(body)
                    self._heard[number] = self._touched and task != own
                    self._touched = False
                elif not self._touched:
                    self._touched = netfilter.is_of(kind, body, self._table)
