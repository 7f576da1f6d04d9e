"""When a Secret that is missing is looked for again."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from corral.api import objects
from corral.api.v1alpha1 import virtualmachine
from corral.controller import userdata

SINCE = datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.UTC)


def machine(since: str = "2026-01-31T12:00:00Z", **spec: Any) -> userdata.VirtualMachine:
    """A VirtualMachine that is not scheduled since noon."""
    told = {"type": "Scheduled", "status": "False", "reason": "x", "lastTransitionTime": since}
    return objects.parsed(
        {
            "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 1},
            "spec": {"cpu": 1, "memory": "64Mi", "imageRef": {"name": "debian"}} | spec,
            "status": {"conditions": [told]},
        },
        virtualmachine.VirtualMachineSpec,
        virtualmachine.VirtualMachineStatus,
    )


@pytest.mark.parametrize(("waited", "again"), [(-10, 5), (0, 5), (5, 5), (12, 12), (60, 60), (86400, 60)])
def test_the_longer_it_is_missing_the_later_it_is_looked_for(waited: float, again: float) -> None:
    vm = machine(cloudInit={"userDataSecretRef": {"name": "mine"}})
    assert userdata.again(vm, SINCE + datetime.timedelta(seconds=waited)) == again


def test_without_a_secret_only_a_change_helps() -> None:
    assert userdata.again(machine(), SINCE) is None
    assert userdata.again(machine(cloudInit={"userData": "x"}), SINCE) is None


def test_a_time_that_no_calendar_has_is_no_time() -> None:
    vm = machine(since="0000-01-01T00:00:00Z", cloudInit={"userDataSecretRef": {"name": "mine"}})
    assert userdata.again(vm, SINCE) == 5
