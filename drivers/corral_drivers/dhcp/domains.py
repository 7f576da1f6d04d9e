"""DNS names as packets carry them: labels with their lengths, without compression (RFC 1035 3.1). Pure."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_LABEL, _LONGEST_NAME = 63, 255


def is_encodable(name: str) -> bool:
    """Whether it is ASCII without blanks, and its labels and the whole have a length that DNS allows."""
    labels = name.split(".")
    return (
        name.isascii()
        and name.isprintable()
        and " " not in name
        and all(0 < len(label) <= _LONGEST_LABEL for label in labels)
        and len(name) + 2 <= _LONGEST_NAME
    )


def encode(name: str) -> bytes:
    """One name that `is_encodable`."""
    labels = (label.encode("ascii") for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def fitting(names: Iterable[str], room: int) -> bytes:
    """The first of these names, one after the other, as many as have room (in octets) together."""
    encoded = b""
    for name in names:
        one = encode(name)
        if len(encoded) + len(one) > room:
            break
        encoded += one
    return encoded
