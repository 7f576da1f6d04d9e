"""The firewall in the agent: before the tap, after everything else, and as a whole when it was changed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from typing import Any

import pytest

from corral import kube
from corral.agent import desired
from corral_drivers import errors
from corral_drivers.firewall import model as firewall
from corral_drivers.firewall import plan as firewall_plan
from corral_drivers.firewall import port as firewall_port

from . import simulated_host
from .simulated_host import CLOUD, HOST, OWNER, Agent, Host, nothing_fails, spec, wire

TABLE = firewall_port.Settings(CLOUD, HOST).table
OTHER = "1c0e4c3a-6f0e-4d5b-9a51-0123456789ab"
FAILURE = errors.Unavailable(firewall.Cause.REFUSED, "no")


def instance(owner: str = OWNER, **changes: Any) -> dict[str, Any]:
    """An Instance as the API server has it."""
    known = wire(**changes)
    known["owner"] = known["owner"] | {"uid": owner}
    return {"metadata": {"name": owner, "namespace": "corral-host-h1", "uid": f"of-{owner}"}, "spec": known}


def owners(host: Host) -> set[str]:
    rules = host.firewall.tables.get(TABLE)
    return set() if rules is None else set(rules.owners())


async def running(host: Host | None = None) -> tuple[Host, Agent]:
    host = host or Host()
    host.instances.append(instance())
    agent = Agent(host)
    assert (await agent.converge(spec(), passes=2)).holds
    return host, agent


async def test_a_guest_may_send_from_what_its_spec_says() -> None:
    host, _ = await running()
    sources = {one.key for one in host.firewall.tables[TABLE].everything() if one.of in ("sources4", "sources6")}
    first, second = (desired.tap_name(OWNER, name) for name in ("eth0", "eth1"))
    assert sources == {
        (first, "02:00:00:00:00:01", "10.77.0.5"),
        (first, "02:00:00:00:00:01", "fe80::ff:fe00:1"),
        (second, "02:00:00:00:00:02", "10.78.0.5"),
        (second, "02:00:00:00:00:02", "fd00::5"),
        (second, "02:00:00:00:00:02", "fe80::ff:fe00:2"),
    }


def test_every_tap_has_the_name_of_one() -> None:
    assert desired.tap_name(OWNER, "eth0").startswith(firewall_port.Settings(CLOUD, HOST).prefix)


async def test_the_tap_comes_after_its_rules_and_goes_before_them() -> None:
    host, order = Host(), list[str]()

    def note(step: object) -> None:
        order.append(type(step).__module__.split(".")[1])

    host.fail_at = note
    host.instances.append(instance())
    agent = Agent(host)
    await agent.converge(spec(), passes=2)
    assert order.index("firewall") < order.index("link")
    order.clear()
    assert (await agent.converge(spec(runStrategy="Halted"), passes=3)).holds
    assert order.index("link") < order.index("firewall")
    assert owners(host) == set()


async def test_where_the_rules_can_not_be_set_no_tap_is_made() -> None:
    host = Host(fail_at=lambda step: FAILURE if isinstance(step, firewall_plan.Lay) else None)
    outcome = await Agent(host).converge(spec(), passes=2)
    assert (outcome.firewall.reason, outcome.firewall.retry) == ("FirewallFailed", True)
    assert (outcome.link.reason, outcome.hypervisor.reason) == ("WaitingForEarlier", "WaitingForEarlier")
    assert not host.links.interfaces
    host.fail_at = nothing_fails
    assert (await Agent(host).converge(spec(), passes=2)).holds


async def test_nothing_of_a_guest_is_left_and_the_others_rules_stay() -> None:
    host, agent = await running()
    other = spec(owner={"namespace": "shop", "name": "db", "uid": OTHER})
    await agent.filters.converge(other, agent.made.firewall.apply)
    while not (await agent.remove(grace=0)).holds:
        await asyncio.sleep(0)
    assert owners(host) == {OTHER}


async def test_a_removal_that_fails_is_told_and_done_the_next_time() -> None:
    host, agent = await running()
    host.fail_at = lambda step: FAILURE if isinstance(step, firewall_plan.Change) else None
    outcome = await agent.remove(grace=0)
    assert outcome.firewall.reason == "FirewallFailed"
    assert not outcome.holds
    host.fail_at = nothing_fails
    assert (await Agent(host).remove(grace=0)).holds
    assert host.empty()


async def test_an_element_that_somebody_removed_is_put_back_and_counted() -> None:
    host, agent = await running()
    element = next(one for one in host.firewall.tables[TABLE].everything() if one.of == "sources4")
    for look in (agent.filters.whole, lambda: agent.converge(spec())):
        host.put_back.clear()
        host.firewall.lose(TABLE, element)
        await look()
        assert element in host.firewall.tables[TABLE].everything()
        assert host.put_back == ["firewall"]


async def test_rules_that_are_gone_are_laid_for_all_guests_in_one_step() -> None:
    host, agent = await running()
    host.instances.append(instance(OTHER))
    await agent.filters.whole()
    assert host.put_back == [], "a guest that came is nobody's mischief"
    before, taken = host.firewall.tables[TABLE].everything(), host.steps
    host.firewall.flush(TABLE)
    await agent.filters.whole()
    assert host.firewall.tables[TABLE].everything() == before
    assert (host.steps - taken, host.put_back) == (1, ["firewall"])
    await agent.filters.whole()
    assert host.steps - taken == 1


async def test_the_pass_of_one_guest_lays_the_rules_of_all() -> None:
    host = Host()
    host.instances += [instance(), instance(OTHER)]
    assert (await Agent(host).converge(spec(), passes=2)).holds
    assert owners(host) == {OWNER, OTHER}


async def test_what_has_no_instance_keeps_its_rules() -> None:
    host, agent = await running()
    before = host.firewall.tables[TABLE].everything()
    host.instances.clear()
    await agent.filters.whole()
    await Agent(host).filters.whole()
    assert host.firewall.tables[TABLE].everything() == before


async def test_what_was_kept_of_an_orphan_gives_it_its_rules_back(tmp_path: pathlib.Path) -> None:
    host = Host(state=str(tmp_path))
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / f"{OTHER}.json").write_text(json.dumps(instance(OTHER)))
    _, agent = await running(host)
    assert owners(host) == {OWNER, OTHER}
    # As long as the rules are there, nothing is made of what was kept.
    await agent.filters.remove(OTHER)
    await agent.filters.whole()
    assert owners(host) == {OWNER}


@pytest.mark.parametrize(
    "other",
    [
        instance(OTHER, runStrategy="Halted"),
        instance(OTHER, epoch="one"),
        {**instance(OTHER), "metadata": {**instance(OTHER)["metadata"], "deletionTimestamp": "2026-11-24T00:00:00Z"}},
    ],
    ids=["off", "not understood", "removed"],
)
async def test_of_who_is_not_to_run_the_whole_changes_nothing(other: dict[str, Any]) -> None:
    host, agent = await running()
    host.instances.append(other)
    await agent.filters.whole()
    assert owners(host) == {OWNER}
    await agent.filters.converge(spec(owner={"namespace": "s", "name": "d", "uid": OTHER}), agent.made.firewall.apply)
    before = host.firewall.tables[TABLE].everything()
    await agent.filters.whole()
    assert host.firewall.tables[TABLE].everything() == before


async def test_it_looks_when_it_is_woken_and_again_where_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.agent.filtering._FIRST_RETRY", 0.0)
    monkeypatch.setattr("corral.agent.filtering.GATHERED_FOR", 0.0)
    failures = iter([FAILURE, FAILURE])
    host = Host(fail_at=lambda step: next(failures, None) if isinstance(step, firewall_plan.Lay) else None)
    host.instances.append(instance())
    agent = Agent(host)
    looking = asyncio.create_task(agent.filters.run())
    await asyncio.sleep(0.02)
    assert not owners(host)
    agent.filters.wake()
    async with asyncio.timeout(5):
        while owners(host) != {OWNER}:
            await asyncio.sleep(0.01)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking


BGP = {"asn": 4200000011, "addresses": ["100.87.0.11", "fd87::11"], "neighbors": [{"interface": "up1"}]}


def heard(agent: Agent, **changes: Any) -> None:
    """The store takes in a HostState."""
    metadata = {"name": "h1", "namespace": "corral-host-h1", "uid": "u", "generation": 1}
    obj = {"metadata": metadata, "spec": simulated_host.TOLD.wire() | changes}
    agent.filters.took(kube.Key("hoststates", "corral-host-h1", "h1"), None, obj)


def elements(host: Host, *sets: str) -> set[tuple[str, str]]:
    """Key and data of the elements of these sets."""
    return {(one.key[0], one.data) for one in host.firewall.tables[TABLE].everything() if one.of in sets}


async def test_a_guest_behind_nat_is_seen_by_its_hosts_address_and_waits_where_that_has_none() -> None:
    host = Host()
    veiled = spec(interfaces=[nic | {"nat": nic["name"] == "eth1"} for nic in wire()["interfaces"]])
    agent = Agent(host)
    outcome = await agent.converge(veiled, passes=2)
    assert (outcome.firewall.reason, state(host)) == ("NoAddressForNat", None)
    heard(agent, bgp=BGP)
    assert (await agent.converge(veiled, passes=2)).holds
    tap = desired.tap_name(OWNER, "eth1")
    assert elements(host, "nat4", "nat6") == {(tap, "100.87.0.11"), (tap, "fd87::11")}


async def test_the_clouds_own_prefixes_follow_the_host_state_and_that_is_nobodys_doing() -> None:
    host, agent = await running()
    await agent.filters.whole()
    assert elements(host, "cloud4", "cloud6") == {("10.77.0.0/24", "")}
    heard(agent, pools=["10.77.0.0/24", "10.79.0.0/24", "fd77::/64"])
    await agent.filters.whole()
    assert elements(host, "cloud4", "cloud6") == {("10.77.0.0/24", ""), ("10.79.0.0/24", ""), ("fd77::/64", "")}
    assert host.put_back == []


def state(host: Host) -> object:
    """What the guest was seen doing; None where there is none."""
    guest = host.machine.guests.get(OWNER)
    return None if guest is None else guest.state
