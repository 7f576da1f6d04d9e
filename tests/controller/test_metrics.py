"""What both processes tell Prometheus, while they work against a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client import parser

from corral import kube, metrics, scrape
from corral_drivers import errors
from corral_drivers.storage import model as storage
from corral_lab.control_plane import plane

from . import simulated_cloud
from .simulated_cloud import SimulatedCloud, until

pytestmark = pytest.mark.api


class Scraped:
    """One answer of `/metrics`, as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in parser.text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that carry these labels."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.families[name].samples}


def free() -> str:
    """An address to serve at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


async def read(address: str) -> Scraped:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        return Scraped(await answer.text())


@pytest_asyncio.fixture(scope="module")
async def served(
    control_plane: plane.ControlPlane,
    admin: kube.Kube,
    crds: None,
    roles: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[SimulatedCloud, str, str]]:
    """A cloud of one host, and where its controller's and its agent's metrics are."""
    async with simulated_cloud.running(control_plane, admin, tmp_path_factory.mktemp("hosts"), hosts=1) as cloud:
        addresses = free(), free()
        await cloud.stop_controller()
        await cloud.start_controller(metrics=addresses[0])
        (metal,) = cloud.hosts.values()
        await cloud.stop_agent(metal)
        cloud.start_agent(metal, metrics=addresses[1])
        await until(lambda: answers(addresses), bool)
        yield cloud, *addresses


async def answers(addresses: tuple[str, ...]) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        for address in addresses:
            await read(address)
        return True
    return False


async def test_what_a_virtual_machine_costs_is_counted(served: tuple[SimulatedCloud, str, str]) -> None:
    cloud, controller, agent = served
    before, agent_before = await read(controller), await read(agent)
    cloud.mark()
    await cloud.vm("web")
    await cloud.ready("web")
    await asyncio.sleep(0.5)
    after, agent_after = await read(controller), await read(agent)

    def more(name: str, *, of_agent: bool = False, **labels: str) -> float:
        new, old = (agent_after, agent_before) if of_agent else (after, before)
        return new.value(name, **labels) - old.value(name, **labels)

    assert more("corral_reconciles_total", kind="virtualmachines", outcome="done") >= 1
    assert more("corral_reconcile_seconds_count", kind="virtualmachines") >= 1
    # The API server counts the same.
    told = cloud.writes()
    for verb, resource, code in (
        ("create", "instances", "201"),
        ("create", "ipallocations", "201"),
        ("patch", "virtualmachines/status", "200"),
    ):
        counted = more("corral_api_requests_total", verb=verb, resource=resource, code=code)
        assert counted == told[f"{verb} {resource}"] >= 1
    assert more("corral_api_requests_total", of_agent=True, verb="patch", resource="instances/status", code="200") == 1
    assert more("corral_api_request_seconds_count", verb="create") >= 2
    assert more("corral_reconciles_total", of_agent=True, kind="instances") >= 1
    for room, call in (("hypervisor", "observe"), ("hypervisor", "start"), ("storage", "create"), ("link", "ensure")):
        counted = more("corral_outside_calls_total", of_agent=True, room=room, call=call, outcome="done")
        assert counted >= 1, (room, call, sorted(agent_after.labels("corral_outside_calls", "call")))
        assert more("corral_outside_call_seconds_count", of_agent=True, room=room, call=call) >= counted


async def test_how_production_is_doing(served: tuple[SimulatedCloud, str, str]) -> None:
    cloud, controller, agent = served
    await cloud.vm("up")
    await cloud.vm("nowhere", classRef={"name": cloud.named("none")})
    await cloud.ready("up")
    await cloud.says("nowhere", "ClassNotFound")
    running = await read(controller)
    assert running.value("corral_virtual_machines", status="Running") >= 1
    assert running.value("corral_virtual_machines", status="Pending") >= 1
    assert running.value("corral_hosts", ready="True") == 1
    assert "corral_removals_held" in running.families
    assert running.value("corral_removals_held") == 0
    for text in (running, await read(agent)):
        assert text.value("corral_build_info") == 1
        assert text.value("process_resident_memory_bytes") > 0
        assert text.value("corral_queue_depth") >= 0
        assert "corral_queue_oldest_seconds" in text.families
        assert text.value("corral_drift_put_back_total") == 0
    # An agent does not speak for the fleet.
    assert "corral_virtual_machines" not in (await read(agent)).families


async def test_a_failing_room_is_counted_by_what_it_said(served: tuple[SimulatedCloud, str, str]) -> None:
    cloud, _, agent = served
    (metal,) = cloud.hosts.values()
    broken = errors.Unavailable(storage.Cause.FAILED, "the disk is full")
    metal.fail_at = lambda step: broken if "storage" in type(step).__module__ else None
    await cloud.vm("stuck")

    async def failures() -> float:
        return (await read(agent)).value("corral_outside_calls_total", room="storage", outcome="unavailable")

    await until(failures, lambda count: count >= 1)
    metal.fail_at = lambda _: None
    await cloud.ready("stuck")


async def test_a_refusal_of_the_api_server_is_counted_by_its_code(served: tuple[SimulatedCloud, str, str]) -> None:
    cloud, controller, _ = served
    absent = {"verb": "get", "code": "404"}
    before = (await read(controller)).value("corral_api_requests_total", **absent)
    await cloud.vm("brief")
    await cloud.ready("brief")
    await cloud.delete("brief")

    async def look() -> float:
        return (await read(controller)).value("corral_api_requests_total", **absent)

    # A removal needs the API server's word that there is no such VirtualMachine.
    await until(look, lambda count: count > before)


async def test_no_label_has_the_name_of_an_object(served: tuple[SimulatedCloud, str, str]) -> None:
    cloud, *addresses = served
    await cloud.vm("web-2")
    await cloud.ready("web-2")
    for address in addresses:
        text = await read(address)
        values = {
            value
            for family in text.families.values()
            for sample in family.samples
            for label, value in sample.labels.items()
            if label != "le"
        }
        assert not [value for value in values if cloud.prefix in value or value.startswith("web")]
        series = sum(len(family.samples) for family in text.families.values())
        assert series < 1500


async def test_a_port_that_is_taken_is_said(served: tuple[SimulatedCloud, str, str]) -> None:
    _, controller, _ = served
    with pytest.raises(scrape.NotServed, match=r"metrics can't be served at 127\.0\.0\.1:\d+: .*in use"):
        async with scrape.serving(controller, metrics.Metrics().registry):
            pytest.fail("two serve at one port")
