"""Choose the control plane's ports, so that labs stand side by side and each keeps its own across restarts."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from corral_lab import errors

_LOOPBACK = "127.0.0.1"
# Below the range that Linux gives to outgoing connections, which would take the port of a lab that is down.
_FIRST, _LAST = 20000, 32767


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports: `api` at the lab's management address, the others on loopback."""

    etcd: int
    etcd_peer: int
    api: int
    controllers: int

    def wire(self) -> dict[str, int]:
        return asdict(self)


def choose(remembered: Mapping[str, int], in_use: frozenset[str], address: str, rng: random.Random) -> Ports:
    """Keep each remembered port that can still be had, and choose the others freely.

    `remembered` is an earlier `Ports.wire()`, or empty. `in_use` names the ports that our own running programs hold.
    Raises `errors.LabError` where `address` is not one of this machine.
    """
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        at = address if field.name == "api" else _LOOPBACK
        port = remembered.get(field.name)
        if port is None or not (field.name in in_use or is_free(at, port)):
            port = _any_free(at, frozenset({*remembered.values(), *chosen.values()}), rng)
        chosen[field.name] = port
    return Ports(**chosen)


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server that linger in TIME_WAIT do not hinder a new one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise errors.LabError(
                    f"The address {address} is not on this machine, so the API server can't listen there.",
                    next_step="Give an address of this machine with --address; `ip address` lists them.",
                ) from error
            return False
    return True


def _any_free(address: str, taken: frozenset[int], rng: random.Random) -> int:
    for _ in range(200):
        port = rng.randint(_FIRST, _LAST)
        if port not in taken and is_free(address, port):
            return port
    raise errors.LabError(
        f"No free TCP port between {_FIRST} and {_LAST} at {address} was found in 200 attempts.",
        next_step="See `ss -ltn` for what holds them.",
    )
