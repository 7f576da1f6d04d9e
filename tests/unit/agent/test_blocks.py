from __future__ import annotations

from corral import kube, store
from corral.agent import blocks
from corral.agent.instance import INSTANCES
from corral_drivers import errors
from corral_drivers.routing import model, plan, port, simulated

from .simulated_host import wire


class Ground:
    """A host's routing, the Instances that are known, and how often something was put back."""

    def __init__(self) -> None:
        self.world = simulated.World()
        self.known = store.Store()
        self.put_back = 0
        self.fails: set[str] = set()
        self.blocks = self.agent()

    def agent(self) -> blocks.Blocks:
        """One that remembers nothing."""
        rooms = simulated.Simulated(port.Settings(), world=self.world, fail_at=self._fail)
        return blocks.Blocks(rooms, self.known, self._back)

    def _back(self) -> None:
        self.put_back += 1

    def _fail(self, step: object) -> errors.DriverError | None:
        touched = isinstance(step, plan.SetBlackhole | plan.RemoveBlackhole) and step.blackhole.prefix in self.fails
        return errors.Rejected(model.Cause.PREFIX_TAKEN, "taken") if touched else None

    def has(self, *prefixes: str) -> bool:
        return self.world.blackholes == {(port.Settings().table, prefix) for prefix in prefixes}

    def guest(self) -> kube.Object:
        """Known from now on: it has 10.77.0.5, 10.78.0.5 and fd00::5."""
        metadata = {"name": "a", "namespace": "corral-host-h1", "uid": "1", "resourceVersion": "1"}
        obj = {"metadata": metadata, "spec": wire()}
        self.known.put(INSTANCES, obj)
        return obj


async def test_each_block_has_a_blackhole_and_what_is_returned_has_none() -> None:
    ground = Ground()
    assert await ground.blocks.converge(["10.77.0.0/26", "fd77::/112"]) is None
    assert ground.has("10.77.0.0/26", "fd77::/112")
    await ground.blocks.converge(["10.77.0.64/26"])
    assert ground.has("10.77.0.64/26")
    assert ground.put_back == 0


async def test_the_blackhole_stays_while_a_guest_has_an_address_in_it() -> None:
    ground = Ground()
    await ground.blocks.converge(["10.77.0.0/26", "10.77.0.64/26", "fd00::/112"])
    guest = ground.guest()
    await ground.blocks.converge([])
    assert ground.has("10.77.0.0/26", "fd00::/112")
    ground.known.settle(INSTANCES, kube.key_of(INSTANCES, guest), None)
    await ground.agent().converge([])
    assert ground.has()


async def test_what_somebody_removed_is_put_back_and_counted() -> None:
    ground = Ground()
    await ground.blocks.converge(["10.77.0.0/26"])
    ground.world.blackholes.clear()
    await ground.blocks.converge(["10.77.0.0/26"])
    assert ground.has("10.77.0.0/26")
    assert ground.put_back == 1
    ground.world.blackholes.clear()
    await ground.agent().converge(["10.77.0.0/26"])
    assert ground.put_back == 1, "a new agent can't tell somebody's hand from a reboot"


async def test_at_the_start_nothing_is_removed() -> None:
    ground = Ground()
    await ground.blocks.converge(["10.77.0.0/26"])
    assert await ground.agent().begin(["10.77.0.64/26"]) is None
    assert ground.has("10.77.0.0/26", "10.77.0.64/26")


async def test_one_that_fails_keeps_no_other_and_is_tried_again() -> None:
    ground = Ground()
    ground.fails = {"10.77.0.0/26"}
    assert await ground.blocks.converge(["10.77.0.0/26", "10.77.0.64/26"]) == blocks.RETRIED_AFTER
    assert ground.has("10.77.0.64/26")
    ground.fails = set()
    assert await ground.blocks.converge(["10.77.0.0/26", "10.77.0.64/26"]) is None
    assert ground.has("10.77.0.0/26", "10.77.0.64/26")
    assert ground.put_back == 0
