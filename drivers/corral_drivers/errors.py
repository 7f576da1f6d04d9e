"""The three words a driver says when it can't do a step, and nothing else crosses a driver's edge.

Each carries a `cause` from the enum of its port, from which `corral.conclude` picks the reason that a person reads, and
a sentence that names the operation and the object. The original exception stays as `__cause__` for the log.
"""

from __future__ import annotations

import enum


class DriverError(Exception):
    """What all three have in common; catch it where the agent concludes, never inside a driver."""

    def __init__(self, cause: enum.StrEnum, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message


class NotReady(DriverError):  # noqa: N818 - the three words of the house, not "…Error"
    """What the step needs is on its way: wait, nobody is at fault."""


class Unavailable(DriverError):  # noqa: N818
    """The world outside failed (a daemon, a server, a full disk): the same step is tried again with back-off."""


class Rejected(DriverError):  # noqa: N818
    """This can't be done as it is asked: wait for another spec."""
