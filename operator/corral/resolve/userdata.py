"""Whether user data can be taken by cloud-init, before a guest is made that would never do what it says. Pure.

Only a cloud-config is looked into: cloud-init reads it as YAML, and where it can't it says so in a log of the guest's
that nobody reads. Scripts, MIME parts, includes and templates (`## template: jinja`) are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from corral.resolve.requirements import Unmet

LARGEST = 64 * 2**10
"""Bytes that user data of a Secret may have."""

_CLOUD_CONFIG = "#cloud-config"
_OTHER_FORMATS = ("#cloud-config-archive", "#cloud-config-jsonp")
_DEEPEST = 64
_EMPTY = frozenset({"", "~", "null", "Null", "NULL"})
# Events, and not the values: an alias costs nothing then, however many times it is used. libyaml, where there is one.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Malformed(Exception):  # noqa: N818 - caught in this module
    """What is wrong, and at which line and column, counted from 0."""

    def __init__(self, what: str, line: int, column: int) -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.column = column

    @classmethod
    def at(cls, mark: Any, what: str) -> _Malformed:
        """At PyYAML's mark or libyaml's, which have no type in common."""
        return cls(what, mark.line, mark.column)


def text(value: bytes, where: str) -> str | Unmet:
    """The text that a Secret's value is, or why it is none, without a word of it; `where` names Secret and key."""
    if len(value) > LARGEST:
        sizes = f"{len(value)} bytes, and user data has {LARGEST} at most"
        return Unmet("UserDataMalformed", f"{where} has {sizes}")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        return Unmet("UserDataMalformed", f"{where} is no UTF-8 text: see byte {error.start + 1}")


def fault(user_data: str, where: str, *, is_secret: bool) -> Unmet | None:
    """Why this is no cloud-config though it begins as one, with line and column; nothing of a secret one is quoted."""
    head = user_data.lstrip().lower()
    if not head.startswith(_CLOUD_CONFIG) or head.startswith(_OTHER_FORMATS):
        return None
    try:
        _check(user_data)
    except _Malformed as found:
        # YAML's own sentence may have words of the text in it.
        what = "this is no YAML that cloud-init can read" if is_secret else found.what
        return Unmet("UserDataMalformed", f"{where} line {found.line + 1} column {found.column + 1}: {what}")
    return None


def _check(user_data: str) -> None:
    depth, anchors, is_first = 0, set[str](), True
    for event in _events(user_data):
        if isinstance(event, yaml.AliasEvent) and event.anchor not in anchors:
            raise _Malformed.at(event.start_mark, f"there is no anchor &{event.anchor} before this alias")
        if isinstance(event, yaml.NodeEvent):
            if is_first:
                _check_root(event)
            elif depth == 0:
                raise _Malformed.at(event.start_mark, "a second document begins here: cloud-init takes one")
            is_first = False
            if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
                anchors.add(event.anchor)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise _Malformed.at(event.start_mark, f"this is nested more than {_DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_root(event: yaml.NodeEvent) -> None:
    is_empty = isinstance(event, yaml.ScalarEvent) and event.value in _EMPTY and not event.style
    if not (is_empty or isinstance(event, yaml.MappingStartEvent)):
        raise _Malformed.at(event.start_mark, "a cloud-config is a mapping, such as `packages: [nginx]`")


def _events(user_data: str) -> Iterator[yaml.Event]:
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(user_data):
        before = user_data[: bad.start()]
        line = before.count("\n")
        raise _Malformed("YAML allows no such character", line, len(before) - before.rfind("\n") - 1)
    try:
        yield from yaml.parse(user_data, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise _Malformed.at(error.problem_mark or error.context_mark, told) from error
