"""The roll call: before a new controller places anything, every host says what it runs that no Instance tells of.

After a backup was put back, a VirtualMachine may have lost its record while its guest runs on, and what the API has of
the hosts is as old as the backup. So the first VirtualMachine that needs a host, or an address, has each HostState ask
for a new report, and waits for it; it and all others of this controller's time as leader wait no more once every host
has answered. An agent lists its Instances after it was asked, and so its answer counts from then on, whatever it has
missed before. It costs two writes a host, once, and nothing where nothing is placed.

Asked are the hosts that were there when this controller began, and that answered then, or answer now. One that stays
silent is waited for only so long: it can't be asked, and must not hold up all the others for good.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

QUIET = 1.0
"""Seconds in which nobody is told that there is a roll call: it is over by then, unless a host is slow."""


class RollCall:
    """The roll call of one time as leader. `now` is in seconds of a steady clock."""

    def __init__(self, now: Callable[[], float], patience: float) -> None:
        self._now = now
        self._patience = patience
        self._id = uuid.uuid4().hex
        self._began = now()
        self._asked: float | None = None
        self._awaited: dict[str, bool] = {}
        self._is_over = False

    def begin(self, hosts: dict[str, bool]) -> None:
        """These hosts are there, and whether their agents were said to answer: this is when this controller begins."""
        self._began, self._awaited = self._now(), dict(hosts)

    @property
    def asks(self) -> str:
        """What a HostState must ask with now; empty while nobody needs an answer, and once all are there."""
        return "" if self._asked is None or self._is_over else self._id

    @property
    def is_over(self) -> bool:
        """Whether nobody is waited for any more."""
        return self._is_over

    @property
    def is_quiet(self) -> bool:
        """Whether it has begun only just now."""
        return self._asked is not None and self._now() - self._asked < QUIET

    def ask(self) -> list[str]:
        """Somebody needs the answers. The hosts whose HostStates must ask now: all of them, the first time."""
        if self._is_over or self._asked is not None:
            return []
        self._asked = self._now()
        return list(self._awaited)

    def missing(self, has_answered: Callable[[str, str], bool], is_connected: Callable[[str], bool]) -> list[str]:
        """The hosts whose answer is waited for; `has_answered(host, asked)` is also so for a host that is gone."""
        for name in list(self._awaited):
            if has_answered(name, self._id):
                del self._awaited[name]
        missing = [name for name, was_connected in self._awaited.items() if was_connected or is_connected(name)]
        if missing and self._now() - self._began > self._patience:
            log.warning(
                "hosts did not say what they run in time: what was placed there before a backup may be placed anew",
                hosts=missing,
            )
            missing = []
        self._is_over = not missing
        return missing
