"""User data of a Secret, and UEFI, as a guest on a host in memory has them."""

from __future__ import annotations

import base64
import dataclasses
import pathlib
from typing import Any

import pytest

from corral import kube
from corral.api.v1alpha1 import instance
from corral_drivers.seed import plan as seed_plan

from .simulated_host import OWNER, Agent, Host, spec

SECRET = "shop.web.1"
TEXT = "#cloud-config\npassword: hünter2\n"


def told(**seed: Any) -> instance.InstanceSpec:
    return spec(seed={"instanceId": "web-1", "hostname": "web", "userDataSecret": SECRET, **seed})


def secret(value: str | bytes = TEXT) -> dict[str, Any]:
    raw = value.encode() if isinstance(value, str) else value
    return {"data": {"userData": base64.b64encode(raw).decode()}}


async def test_a_guest_waits_for_its_secret_and_is_told_what_is_in_it() -> None:
    host = Host()
    agent = Agent(host)
    waits = await agent.converge(told(), passes=2)
    assert (waits.seed.holds, waits.seed.reason, waits.hypervisor.holds) == (False, "WaitingForEarlier", False)
    assert waits.seed.look_again is not None
    assert not host.seeds.seeds
    host.secrets[SECRET] = secret()
    assert (await agent.converge(told())).holds
    assert host.seeds.seeds[OWNER].user_data == TEXT


async def test_a_guest_that_was_told_needs_its_secret_no_more() -> None:
    host = Host(secrets={SECRET: secret()})
    assert (await Agent(host).converge(told(), passes=2)).holds
    for left in ({}, {SECRET: secret("#cloud-config\nother: 1\n")}):
        host.secrets = left
        assert (await Agent(host).converge(told())).holds
        assert host.seeds.seeds[OWNER].user_data == TEXT
    # And a seed that is lost is made again as soon as the Secret can be had.
    await Agent(host).made.seeds.apply(seed_plan.Remove(OWNER))
    host.secrets = {}
    assert (await Agent(host).converge(told())).seed.reason == "WaitingForEarlier"
    host.secrets = {SECRET: secret()}
    assert (await Agent(host).converge(told())).holds


async def test_a_guest_that_is_built_anew_is_told_what_its_new_secret_says() -> None:
    host = Host(secrets={SECRET: secret()})
    assert (await Agent(host).converge(told(), passes=2)).holds
    host.secrets = {SECRET: secret("#cloud-config\nother: 1\n")}
    assert (await Agent(host).converge(told(instanceId="web-2"))).holds
    assert "other" in host.seeds.seeds[OWNER].user_data


@pytest.mark.parametrize("broken", [{}, {"data": None}, {"data": {"userData": "!"}}, secret(b"hunter2\xff")], ids=str)
async def test_a_secret_that_is_none_is_a_reason_without_a_word_of_it(broken: dict[str, Any]) -> None:
    outcome = await Agent(Host(secrets={SECRET: broken})).converge(told())
    assert outcome.seed.reason == "SeedFailed"
    assert "hunter2" not in outcome.seed.detail
    assert SECRET in outcome.seed.detail


class Silent(Host):
    """A host whose agent can't reach the API server."""

    async def read_secret(self, name: str) -> dict[str, Any] | None:
        raise kube.ApiUnavailable(f"GET {name}", "the API server does not answer")


async def test_without_api_server_the_secret_is_asked_for_again() -> None:
    outcome = await Agent(Silent()).converge(told())
    assert (outcome.seed.reason, outcome.seed.retry) == ("SeedFailed", True)
    assert "does not answer" in outcome.seed.detail


async def test_a_uefi_guest_has_the_hosts_firmware_and_variables_of_its_own(tmp_path: pathlib.Path) -> None:
    host = Host(state=str(tmp_path))
    agent = Agent(host)
    assert (await agent.converge(spec(firmware="UEFI"), passes=2)).holds
    domain = host.machine.guests[OWNER].persistent
    assert domain is not None
    assert domain.uefi is not None
    variables = pathlib.Path(domain.uefi.variables)
    assert domain.uefi.firmware == host.machine.facts.uefi
    assert variables == tmp_path / "uefi" / f"{OWNER}.fd"

    # What the hypervisor would have removed, had it still known of the guest.
    variables.parent.mkdir()
    variables.touch()
    assert (await agent.remove(grace=0)).holds
    assert not variables.exists()


async def test_a_host_without_uefi_says_what_it_lacks_and_looks_again() -> None:
    host = Host()
    can = host.machine.facts
    host.machine.facts = dataclasses.replace(can, uefi=None)
    agent = Agent(host)
    outcome = await agent.converge(spec(firmware="UEFI"), passes=2)
    assert (outcome.hypervisor.reason, outcome.storage.holds) == ("HostUnsupported", True)
    assert "ovmf" in outcome.hypervisor.detail
    assert OWNER not in host.machine.guests
    host.machine.facts = can
    assert (await agent.converge(spec(firmware="UEFI"))).holds
