"""What happens on the host, as its rooms tell it: each wakes the guest that it is about. `agent.process` opens it.

Without events everything still comes right: the periodic look finds what they would have told of, only later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import structlog

from corral.agent.rooms import Rooms
from corral.agent.sync import Sync
from corral_drivers import errors

Watch = Callable[[Callable[[str], None], Callable[[], None]], Awaitable[Callable[[], None]]]
"""How a room is watched: whom it tells, and what it calls where some was missed; what it returns ends it."""

log = structlog.get_logger(__name__)


async def listen(made: Rooms, sync: Sync) -> contextlib.ExitStack:
    """Hear of every room until what is returned is closed; the hypervisor is heard until its driver is closed."""
    made.hypervisor.watch(sync.changed)
    rooms: tuple[tuple[str, Watch, Callable[[str], None]], ...] = (
        ("storage", made.storage.watch, sync.touched),
        ("seed", made.seeds.watch, sync.touched),
        ("link", made.links.watch, sync.touched),
        ("routing", made.routing.watch, sync.touched_over),
        ("dhcp", made.dhcp.watch, sync.touched),
    )
    with contextlib.ExitStack() as heard:
        for name, watch, touched in rooms:
            try:
                heard.callback(await watch(touched, sync.look))
            except errors.DriverError as error:
                log.warning("changes by hand are found by the periodic look alone", room=name, why=error.message)
        return heard.pop_all()
