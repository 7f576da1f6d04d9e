"""A guest that does not look at its seed: all that it knows, its host has answered on its tap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_lab.host import programs
from corral_lab.lab import AGENT

from .cloud import IMAGE, TENANT, Cloud, Guest, until
from .conftest import Make

pytestmark = pytest.mark.lab


@pytest.fixture
def seedless(cloud: Cloud, make: Make) -> Iterator[Guest]:
    """A guest of the lab's image, whose command line says that the seed is not to be looked at."""
    spec = cloud.api.get(f"clusterimage.corral.dev/{IMAGE}")["spec"]
    boot = spec["directBoot"]
    spec |= {"directBoot": boot | {"commandLine": boot["commandLine"] + " corral.seed=ignored"}}
    metadata = {"name": "seedless", "namespace": TENANT}
    cloud.api.apply({"apiVersion": "corral.dev/v1alpha1", "kind": "Image", "metadata": metadata, "spec": spec})
    yield make("seedless", imageRef={"kind": "Image", "name": "seedless"})
    cloud.api.run("delete", "image.corral.dev/seedless", "--namespace", TENANT)


def console(cloud: Cloud, guest: Guest) -> str:
    return (cloud.host.folder / "corral" / "console" / f"{guest.uid}.log").read_text(errors="replace")


def test_it_comes_up_by_what_its_host_answers(cloud: Cloud, seedless: Guest) -> None:
    # Its web server says its host name, which nobody but DHCP has told it.
    assert seedless.get() == "seedless"
    meta = seedless.meta()
    assert (meta["hostname"], meta["instance_id"]) == ("seedless", "")
    assert f"{seedless.address}/32" in meta["addresses"]
    assert "no look at the seed" in console(cloud, seedless)
    assert f"lease of {seedless.address} obtained" in console(cloud, seedless)


def test_one_that_boots_while_no_agent_runs_is_answered_once_one_does(cloud: Cloud, seedless: Guest) -> None:
    assert seedless.get() == "seedless"
    programs.stop(cloud.host, AGENT)
    try:
        # The living guest needs nobody.
        assert seedless.pings()
        cloud.virsh("reset", seedless.uid)
        until(lambda: console(cloud, seedless).count("corral-guest: ready") == 2, within=60)
        assert seedless.is_silent()
    finally:
        cloud.lab.start_agent(1)
    until(lambda: not seedless.is_silent(), within=20)
