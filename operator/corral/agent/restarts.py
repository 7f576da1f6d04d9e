"""When a guest that stopped by itself is started again: at once, unless it keeps doing that.

Pure: `agent.power` notes starts and stops, and asks how long to wait. Losing the history at a restart of the agent only
starts the guest sooner. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

SHORT_LIFE = 30.0
"""A guest that stops by itself sooner than this after its start has not really started."""

PATIENCE = 3
"""How many short lives in a row are borne without a pause."""

_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 300.0


@dataclass(frozen=True, slots=True)
class History:
    """The last start that we gave the guest, when it was seen stopped after it, and how many short lives in a row."""

    started: float | None = None
    stopped: float | None = None
    short_lives: int = 0

    @property
    def keeps_stopping(self) -> bool:
        """Whether its patience is used up."""
        return self.short_lives >= PATIENCE


def after_start(history: History, now: float) -> History:
    """The history once we started the guest."""
    return dataclasses.replace(history, started=now, stopped=None)


def after_stop(history: History, now: float) -> History:
    """The history once the guest is seen stopped, though it should run; a stop counts once."""
    if history.started is None or history.stopped is not None:
        return history
    short = now - history.started < SHORT_LIFE
    return dataclasses.replace(history, stopped=now, short_lives=history.short_lives + 1 if short else 0)


def pause(history: History, now: float) -> float:
    """How many seconds from now the guest may be started."""
    if history.stopped is None or not history.keeps_stopping:
        return 0.0
    length = min(_FIRST_PAUSE * 2.0 ** min(history.short_lives - PATIENCE, 16), _LONGEST_PAUSE)
    return max(0.0, history.stopped + length - now)


def trial(history: History, now: float) -> float:
    """How many seconds a guest that kept stopping must still live to be trusted again."""
    if history.started is None or history.stopped is not None or not history.keeps_stopping:
        return 0.0
    return max(0.0, history.started + SHORT_LIFE - now)
