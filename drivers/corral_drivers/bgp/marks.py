"""Whose a configuration is. The mark stands in the file's first line, and in the daemon itself as a description.

Either alone is enough for a restarted agent: `write memory` by hand removes the one, a restart of bgpd the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral_drivers import errors
from corral_drivers.bgp.model import Cause, Desired, Lines, Observed

EXPORT = "corral-export"
IMPORT = "corral-import"

_PREFIX = "corral:"
_COMMENT = "! "
_DESCRIPTION = "description "
MARKED = f"route-map {EXPORT}-4 permit 10"
"""The statement whose description is the mark: the first that is made and the last that goes."""


def mark(cloud: str, host: str) -> str:
    """The mark of what one cloud's agent configured on one of its hosts."""
    return f"{_PREFIX}{cloud}:{host}"


def is_ours(observed: Observed, mark: str) -> bool:
    """Whether the daemons or their file carry this mark."""
    return mark in _marks(observed)


def check(desired: Desired, observed: Observed, statements: Lines) -> None:
    """Refuse a foreign configuration; `statements` are those of the observed file.

    Without any mark, it is foreign where it has a statement that we would not make. Raises `errors.Rejected` (FOREIGN).
    """
    if desired.take_over:
        return
    if others := sorted(_marks(observed) - {desired.mark}):
        raise errors.Rejected(
            Cause.FOREIGN, f"FRR's configuration was made for another Cloud or Host: its mark is {others[0]}"
        )
    if is_ours(observed, desired.mark):
        return
    for where, lines in (("zebra", observed.zebra), ("bgpd", observed.bgpd), ("its file", statements)):
        for path in lines:
            if path not in desired.lines:
                raise errors.Rejected(
                    Cause.FOREIGN, f"FRR has a configuration that is not ours: in {where} stands {': '.join(path)!r}"
                )


def _marks(observed: Observed) -> set[str]:
    return {*_running(observed.bgpd), *_written(observed.file or "")}


def _running(lines: Lines) -> Iterator[str]:
    for path in lines:
        if len(path) == 2 and path[0] == MARKED and path[1].startswith(_DESCRIPTION + _PREFIX):
            yield path[1].removeprefix(_DESCRIPTION)


def _written(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith(_COMMENT + _PREFIX):
            yield line.removeprefix(_COMMENT).strip()
