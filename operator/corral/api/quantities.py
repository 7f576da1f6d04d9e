"""Kubernetes quantities of bytes, as numbers and back."""

from __future__ import annotations

import decimal
import re

MIB = 2**20

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}


def to_bytes(quantity: str) -> int:
    """A quantity such as `1.5Gi` in bytes, rounded up. Raises `ValueError` for what is none."""
    said = _QUANTITY.fullmatch(quantity)
    if said is None or said[2] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a quantity of bytes such as 512Mi")
    value = decimal.Decimal(said[1]) * _SUFFIXES[said[2]]
    return int(value.to_integral_value(decimal.ROUND_CEILING))


def from_bytes(value: int) -> str:
    """Bytes as the shortest quantity that says the same."""
    for suffix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if value and value % _SUFFIXES[suffix] == 0:
            return f"{value // _SUFFIXES[suffix]}{suffix}"
    return str(value)
