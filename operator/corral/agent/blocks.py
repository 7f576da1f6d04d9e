"""The blocks of this host: a blackhole for each, so that what is for no guest of it is dropped, and not sent back.

`agent.host` calls it with what the HostState says, and `agent.process` once at the start, when nobody may be there yet
to say anything. A block that is this host's no more keeps its blackhole while a guest here has an address of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import structlog

from corral import store
from corral.agent.instance import INSTANCES
from corral_drivers import errors
from corral_drivers.routing import model, plan
from corral_drivers.routing import port as routing_port

RETRIED_AFTER = 5.0
"""Seconds after which what failed is tried again."""

log = structlog.get_logger(__name__)


class Blocks:
    """`known` has the Instances of this host; `put_back` is called when a blackhole that was there has to be remade."""

    def __init__(self, routing: routing_port.Routing, known: store.Store, put_back: Callable[[], None]) -> None:
        self._routing = routing
        self._store = known
        self._put_back = put_back
        self._held: frozenset[model.Blackhole] = frozenset()

    async def begin(self, prefixes: Iterable[str]) -> float | None:
        """Make those that are missing, and remove none: whose guests are here is not known yet."""
        return await self._settle(lambda seen: {*seen, *map(model.Blackhole, prefixes)})

    async def converge(self, prefixes: Iterable[str]) -> float | None:
        """Have these, and those in which guests have addresses; in how many seconds to try again what failed."""
        wanted = frozenset(map(model.Blackhole, prefixes))
        return await self._settle(lambda seen: wanted | {one for one in seen if self._is_used(one)})

    async def _settle(self, wanted: Callable[[Iterable[model.Blackhole]], Iterable[model.Blackhole]]) -> float | None:
        failed = None
        try:
            seen = await self._routing.blackholes()
            steps = plan.plan_blackholes(wanted(seen), seen).steps
        except errors.DriverError as error:
            log.warning("the blocks of this host could not be looked at", cause=error.cause.value, why=error.message)
            return RETRIED_AFTER
        done = set(wanted(seen))
        for step in steps:
            try:
                await self._routing.apply(step)
            except errors.DriverError as error:
                # The others are none the worse for it.
                log.warning("a step failed", cause=error.cause.value, why=error.message)
                failed = RETRIED_AFTER
                done -= {step.blackhole} if isinstance(step, plan.SetBlackhole) else set()
            else:
                self._note(step)
        self._held = frozenset(done)
        return failed

    def _note(self, step: plan.Step) -> None:
        if isinstance(step, plan.SetBlackhole) and step.blackhole in self._held:
            log.warning("put back what was changed on the host", room="routing", step=str(step))
            self._put_back()
        else:
            log.info("a block of addresses", step=str(step))

    def _is_used(self, blackhole: model.Blackhole) -> bool:
        network = ipaddress.ip_network(blackhole.prefix)
        for _, obj in self._store.all(INSTANCES.plural):
            for nic in obj["spec"].get("interfaces", ()):
                if any(_in(address, network) for address in nic.get("addresses", ())):
                    return True
        return False


def _in(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False
