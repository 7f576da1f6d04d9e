"""What a spine's daemons are told: text out of values, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import jinja2

from corral_lab.options import Loopback

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - FRR's configuration is no HTML, and what goes into it are addresses and our own names
)


def zebra(number: int) -> str:
    """The configuration of zebra on the spine of this number, from 1. Source: FRR's documentation, "Zebra"."""
    return _TEMPLATES.get_template("zebra.conf.j2").render(name=f"s{number}")


def bgpd(number: int, own: Loopback, machine: Loopback, hosts: Iterable[str]) -> str:
    """The configuration of bgpd on the spine of this number, whose interfaces are called as the `hosts` at their ends.

    It passes on what each host announces of itself, with two equal ways where there are two, and tells them the way to
    its own loopback and to this machine. Source: FRR's documentation, "BGP".
    """
    values = {"name": f"s{number}", "asn": 4200000000 + number, "own": own, "machine": machine, "hosts": tuple(hosts)}
    return _TEMPLATES.get_template("bgpd.conf.j2").render(values)
