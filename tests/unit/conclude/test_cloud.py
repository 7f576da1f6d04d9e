from __future__ import annotations

import pytest

from corral.api import objects
from corral.api.v1alpha1 import cloud
from corral.conclude import cloud as conclude

from .said import NOW, message, raw, told

THE_CLOUD = objects.parsed(raw({}, None, name="cloud", namespace=""), cloud.CloudSpec, cloud.CloudStatus)


@pytest.mark.parametrize(
    ("observed", "line"),
    [
        (conclude.Observed(0, None, 3, ()), "healthy"),
        (conclude.Observed(0, None, 0, ()), "no hosts yet"),
        (conclude.Observed(0, None, 3, ("h2", "h3")), "2/3 hosts not ready: h2"),
        (conclude.Observed(7, NOW, 3, ("h2",)), "7 removals held, 1/3 hosts not ready: h2"),
        (conclude.Observed(0, None, 3, (), {"h1": 1}), "1 orphan on h1"),
        (conclude.Observed(0, None, 3, ("h3",), {"h2": 1, "h1": 2}), "1/3 hosts not ready: h3, 3 orphans on 2 hosts"),
    ],
)
def test_the_health_of_everything_in_a_line(observed: conclude.Observed, line: str) -> None:
    assert conclude.conclude(THE_CLOUD, observed, NOW)[0].printable_status == line


def test_the_line_fits_whatever_hosts_are_called() -> None:
    observed = conclude.Observed(10**9, NOW, 10**9, ("h" * 51,) * 9)
    assert len(conclude.conclude(THE_CLOUD, observed, NOW)[0].printable_status) <= 128


def test_removals_that_are_held_say_how_to_let_them_go() -> None:
    status, _ = conclude.conclude(THE_CLOUD, conclude.Observed(7, NOW, 1, ()), NOW)
    assert told(status.conditions)["Ready"] == ("False", "RemovalsHeld")
    assert (status.held_removals, status.held_since) == (7, "2026-01-31T12:00:00Z")
    text = message(status.conditions, "Ready")
    assert text.startswith("7 removals look like an accident")
    assert """-p '{"spec":{"deletionGuard":{"release":"VALUE OF status.heldSince"}}}'""" in text


def test_orphans_are_counted_and_no_fault_of_the_controller() -> None:
    status, _ = conclude.conclude(THE_CLOUD, conclude.Observed(0, None, 3, (), {"h2": 1, "h1": 2}), NOW)
    assert status.orphans == 3
    assert told(status.conditions)["Ready"] == ("True", "Healthy")


def test_where_nothing_is_held_there_is_no_time_of_it() -> None:
    status, look_again = conclude.conclude(THE_CLOUD, conclude.Observed(0, None, 1, ()), NOW)
    assert (status.held_since, status.held_removals, look_again) == (None, 0, None)
    assert told(status.conditions)["Ready"] == ("True", "Healthy")
