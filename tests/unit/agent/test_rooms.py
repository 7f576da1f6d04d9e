from __future__ import annotations

import pytest

from corral.agent import rooms


def test_a_driver_that_nobody_installed_is_named() -> None:
    with pytest.raises(rooms.NoSuchDriver, match="no hypervisor driver called 'abacus' is installed here"):
        rooms.build("abacus", rooms.Place("c", "h", "test:///default", "/state"))


@pytest.mark.parametrize("driver", ["simulated", "libvirt-qemu"])
async def test_the_rooms_of_our_own_drivers(driver: str) -> None:
    made = rooms.build(driver, rooms.Place("c", "h", "test:///default", "/state"))
    assert made.storage.format
    assert made.seeds.path("u1").startswith("/state/seeds/")
    await made.close()
