"""Fixtures of the tests with real guests: one lab for the whole run."""

from __future__ import annotations

import ipaddress
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from corral_lab import lab, paths, progress
from corral_lab.options import Options

from .cloud import NOTHING, TENANT, Cloud, Guest, objects, until

MANAGEMENT = ipaddress.IPv4Network("100.89.0.0/24")
GUESTS = ipaddress.IPv4Network("10.78.0.0/24")
LOOPBACKS = ipaddress.IPv4Network("100.86.0.0/24")

Make = Callable[..., Guest]


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A lab of one host; that of `$CORRAL_TEST_LAB` is left running."""
    cache = paths.Cache.find(os.environ)
    kept = os.environ.get("CORRAL_TEST_LAB")
    folder = pathlib.Path(kept) if kept else tmp_path_factory.mktemp("lab")
    own = lab.Lab(paths.LabDir.at(folder), cache)
    try:
        options = own.options() or Options(management=MANAGEMENT, guests=GUESTS, loopbacks=LOOPBACKS)
        api = own.kubectl() if kept else own.up(options, progress.silent())
        api.apply(*objects(str(options.guests)))
        yield Cloud(own, api)
    finally:
        if not kept:
            own.down(keep=False)


@pytest.fixture
def make(cloud: Cloud) -> Iterator[Make]:
    """Make guests that go with the test: `make(name, **spec)` waits until it is Ready."""
    names: list[str] = []

    def one(name: str, **spec: object) -> Guest:
        names.append(name)
        cloud.apply(name, **spec)
        cloud.up(name)
        return cloud.guest(name)

    yield one
    remove(cloud, *names)


def remove(cloud: Cloud, *names: str) -> None:
    """Delete the VirtualMachines, and wait until nothing is left of them."""
    if not names:
        return
    listed = cloud.api.get("vm.corral.dev", "--namespace", TENANT)["items"]
    placed = {one["metadata"]["name"] for one in listed if "placement" in one.get("status", {})}
    guests = [cloud.guest(name) for name in names if name in placed]
    cloud.delete(*names)
    until(lambda: all(cloud.traces(guest) == NOTHING for guest in guests), within=60)
