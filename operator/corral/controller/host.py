"""Host: a namespace, the rights of its agent, and the HostState that tells the agent what it serves."""

from __future__ import annotations

import structlog

from corral import kube
from corral.api import objects
from corral.api.v1alpha1 import bgp, host
from corral.conclude import host as conclude
from corral.controller import agents, blocks
from corral.controller.world import CLOUD_KEY, CLOUDS, HOST_STATES, HOSTS, World
from corral.resolve import bgp as resolve_bgp
from corral.resolve import instance as resolve_instance

AGENT_ROLE = "corral-agent"
"""The ClusterRole that an agent has in its host's namespace, and nowhere else."""

RIVALS_ASKED_EVERY = 5.0
"""Seconds after which a Host looks again whether another one still has what it asks for."""

log = structlog.get_logger(__name__)


def agent_user(name: str) -> str:
    """The user name that an agent must authenticate as."""
    return f"corral:agent:{name}"


async def reconcile(world: World, key: kube.Key) -> float | None:
    """Give the host's agent its place, and tell what it says."""
    raw = await world.current(HOSTS, key)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None
    cloud = await world.current(CLOUDS, CLOUD_KEY)
    if cloud is None:
        return 1.0
    one = objects.parsed(raw, host.HostSpec, host.HostStatus)
    rival = _rival(world, one)
    state = await _furnish(world, one, cloud["metadata"]["uid"], None if rival else one.spec.bgp)
    said = objects.status_of(state, host.HostStateStatus)
    if said.observed_generation >= 0 and not world.heartbeats.fact(one.name).holds:
        # Who has just spoken is heard at once, and not only when all are next asked.
        await agents.look(world, resolve_instance.namespace(one.name))
    has_spoken = said.observed_generation >= 0
    facts = said.facts if has_spoken else one.status.facts
    observed = conclude.Observed(
        agent=world.heartbeats.fact(one.name),
        state=said if has_spoken else None,
        allocated=world.candidates.allocated(one.name, facts.accelerator),
        rival=rival,
    )
    status, look_again = conclude.conclude(one, observed, world.clock())
    if rival:
        look_again = min(look_again or RIVALS_ASKED_EVERY, RIVALS_ASKED_EVERY)
    if status.orphans != one.status.orphans:
        world.tell(CLOUD_KEY, 0.0)
    await world.write_status(HOSTS, raw, status)
    return look_again


def connected(world: World) -> dict[str, bool]:
    """Every Host, and whether it was last said of its agent that it answers."""
    said = {key.name: raw.get("status", {}).get("conditions", ()) for key, raw in world.store.all(HOSTS.plural)}
    return {
        name: any(one.get("type") == "AgentConnected" and one.get("status") == "True" for one in told)
        for name, told in said.items()
    }


async def mend(world: World) -> None:
    """Give back to every agent the rights that somebody took from it. Raises `kube.ApiError`."""
    for key, _ in world.store.all(HOSTS.plural):
        namespace = resolve_instance.namespace(key.name)
        if world.store.get(kube.Key(HOST_STATES.plural, namespace, key.name)) is None:
            continue
        if await world.api.get(kube.ROLE_BINDINGS, namespace, AGENT_ROLE) is None:
            log.warning("an agent's rights were gone, and are given back", host=key.name)
            await _create(world, kube.ROLE_BINDINGS, _binding(namespace, key.name))


def has_answered(world: World, name: str, asked: str) -> bool:
    """Whether this host has answered the roll call `asked`; one that is no Host any more need not."""
    if world.store.get(kube.Key(HOSTS.plural, "", name)) is None:
        return True
    state = world.store.get(kube.Key(HOST_STATES.plural, resolve_instance.namespace(name), name))
    if state is None or state["spec"].get("rollCall") != asked:
        return False
    status = state.get("status", {})
    return "marks" not in status and int(status.get("observedGeneration", -1)) >= int(state["metadata"]["generation"])


def _told(world: World) -> dict[str, resolve_bgp.Identity]:
    """As whom each Host that there is was told to speak BGP; looked at without parsing, for there may be a thousand."""
    found = {}
    for key, raw in world.store.all(HOST_STATES.plural):
        told = raw["spec"].get("bgp")
        if told and world.store.get(kube.Key(HOSTS.plural, "", key.name)) is not None:
            found[key.name] = resolve_bgp.Identity(told["asn"], frozenset(told["addresses"]))
    return found


def _rival(world: World, one: conclude.Host) -> str:
    asked = one.spec.bgp
    if asked is None:
        return ""
    return resolve_bgp.rival(one.name, resolve_bgp.Identity(asked.asn, frozenset(asked.addresses)), _told(world))


async def _furnish(world: World, one: conclude.Host, cloud: str, speaks: bgp.Bgp | None) -> kube.Object:
    """Namespace, RoleBinding and HostState of the host; made in this order, so that the last one shows that all are."""
    namespace = resolve_instance.namespace(one.name)
    spec = host.HostStateSpec(
        cloud=cloud,
        host=one.uid,
        hypervisor=one.spec.hypervisor,
        bgp=speaks,
        blocks=blocks.of_host(world, one.name),
        pools=blocks.of_pools(world),
    ).wire()
    state = await world.current(HOST_STATES, kube.Key(HOST_STATES.plural, namespace, one.name))
    if state is not None:
        spec |= _marks(state, cloud)
        spec["rollCall"] = world.roll_call.asks or state["spec"].get("rollCall", "")
    if state is None:
        await _create(
            world, kube.NAMESPACES, {"metadata": {"name": namespace, "labels": {"corral.dev/host": one.name}}}
        )
        await _create(world, kube.ROLE_BINDINGS, _binding(namespace, one.name))
        await _create(world, HOST_STATES, {"metadata": {"name": one.name, "namespace": namespace}, "spec": spec})
        state = await world.api.get(HOST_STATES, namespace, one.name)
        if state is None:
            raise kube.ApiConflict(f"GET {namespace}/{one.name}", "the HostState vanished while it was made")
    elif state["spec"] != spec:
        with world.doubting(HOST_STATES, state):
            state = await world.api.patch(HOST_STATES, state, {"spec": kube.merge_patch(state["spec"], spec)})
    world.store.put(HOST_STATES, state)
    return state


def _marks(state: kube.Object, cloud: str) -> dict[str, str]:
    """Marks are for life: with a Cloud or Host that was made anew, every guest there would be a stranger's.

    A HostState that was lost and made anew learns them from its agent, where they are of this Cloud.
    """
    told = objects.status_of(state, host.HostStateStatus).marks
    if told is not None and told.cloud == cloud:
        return {"cloud": told.cloud, "host": told.host}
    return {mark: state["spec"][mark] for mark in ("cloud", "host")}


async def _create(world: World, where: kube.Collection, obj: kube.Object) -> None:
    try:
        await world.api.create(where, obj)
    except kube.ApiConflict:
        return


def _binding(namespace: str, name: str) -> kube.Object:
    return {
        "metadata": {"name": AGENT_ROLE, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": AGENT_ROLE},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": agent_user(name)}],
    }
