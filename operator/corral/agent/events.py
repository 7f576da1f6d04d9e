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

Watch = Callable[[], Awaitable[Callable[[], None]]]
"""How a room is watched; what it returns ends it."""

log = structlog.get_logger(__name__)


async def listen(made: Rooms, sync: Sync, changed_rules: Callable[[], None]) -> contextlib.ExitStack:
    """Hear of every room until what is returned is closed; the hypervisor is heard until its driver is closed.

    `changed_rules` is called where somebody else changed the firewall's, which are of all guests together.
    """
    made.hypervisor.watch(sync.changed)
    rooms: tuple[tuple[str, Watch], ...] = (
        ("storage", lambda: made.storage.watch(sync.touched, sync.look)),
        ("seed", lambda: made.seeds.watch(sync.touched, sync.look)),
        ("link", lambda: made.links.watch(sync.touched, sync.look)),
        ("routing", lambda: made.routing.watch(sync.touched_over, sync.look)),
        ("firewall", lambda: made.firewall.watch(changed_rules)),
        ("dhcp", lambda: made.dhcp.watch(sync.touched, sync.look)),
    )
    with contextlib.ExitStack() as heard:
        for name, watch in rooms:
            try:
                heard.callback(await watch())
            except errors.DriverError as error:
                log.warning("changes by hand are found by the periodic look alone", room=name, why=error.message)
        return heard.pop_all()
