from __future__ import annotations

import dataclasses
import random as randomness

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.storage import names, plan
from corral_drivers.storage.model import Cause, Disk, Observed, Standing, whole_sectors
from corral_drivers.storage.plan import Create, Grow, Keep, PutBack, Remove

OWNERS = st.sampled_from(["u1", "u2", "u3"])
NAMES = st.sampled_from(["root", "data", "logs"])
SIZES = st.integers(0, 10_000)
STANDINGS = st.sampled_from(Standing)
BASES = st.sampled_from([(None, None), ("/images/a.qcow2", "qcow2"), ("/images/b.raw", "raw")])


def disk(owner: str, name: str, size: int, base: tuple[str | None, str | None]) -> Disk:
    return Disk(owner, name, size, *base)


def seen(disk: Disk) -> Observed:
    return Observed(disk.owner, disk.name, f"/pool/{disk.name}", "qcow2", whole_sectors(disk.size), 0, disk.base)


def key(disk: Disk | Observed) -> tuple[str, str]:
    return disk.owner, disk.name


DISKS = st.lists(st.builds(disk, OWNERS, NAMES, SIZES, BASES), unique_by=key)


def applied(observed: list[Observed], steps: plan.Plan) -> list[Observed]:
    disks = {key(disk): disk for disk in observed}
    for step in steps.steps:
        match step:
            case Create(disk):
                assert key(disk) not in disks
                disks[key(disk)] = seen(disk)
            case Grow(owner, name, size):
                assert disks[owner, name].size < whole_sectors(size)
                assert disks[owner, name].standing is not Standing.ASTRAY
                disks[owner, name] = seen(Disk(owner, name, size, disks[owner, name].base))
            case PutBack(owner, name) | Keep(owner, name):
                assert disks[owner, name].standing is not Standing.IN_PLACE
                disks[owner, name] = dataclasses.replace(disks[owner, name], standing=Standing.IN_PLACE)
            case Remove(owner, name):
                del disks[owner, name]
    return list(disks.values())


@hypothesis.given(desired=DISKS, before=DISKS, data=st.data())
def test_after_the_plan_every_disk_is_there_and_large_enough_and_none_went(
    desired: list[Disk], before: list[Disk], data: st.DataObject
) -> None:
    sizes = {key(disk): disk.size for disk in desired}
    hypothesis.assume(all(disk.size <= sizes.get(key(disk), disk.size) for disk in before))
    observed = [dataclasses.replace(seen(disk), standing=data.draw(STANDINGS)) for disk in before]
    after = applied(observed, plan.plan(desired, observed))
    assert {key(disk): disk.size for disk in after} == {
        key(disk): whole_sectors(disk.size) for disk in (*before, *desired)
    }
    assert {disk.base for disk in observed} <= {disk.base for disk in after}
    assert not plan.plan(desired, after)


@hypothesis.given(desired=DISKS)
def test_what_is_there_needs_no_plan(desired: list[Disk]) -> None:
    assert not plan.plan(desired, map(seen, desired))


@hypothesis.given(desired=DISKS, random=st.randoms())
def test_the_order_of_the_input_does_not_matter(desired: list[Disk], random: randomness.Random) -> None:
    shuffled = list(desired)
    random.shuffle(shuffled)
    some = [seen(disk) for disk in desired[::2]]
    assert plan.plan(shuffled, some[::-1]) == plan.plan(desired, some)


@hypothesis.given(before=DISKS)
def test_removal_takes_all_that_it_is_given_and_nothing_else(before: list[Disk]) -> None:
    observed = [seen(disk) for disk in before]
    assert applied(observed, plan.plan_removal(observed[::2])) == observed[1::2]
    assert not plan.plan_removal([])


@hypothesis.given(desired=DISKS, before=DISKS, had=st.sets(NAMES))
def test_no_disk_is_made_for_a_guest_that_had_it(desired: list[Disk], before: list[Disk], had: set[str]) -> None:
    where = {name: f"/pool/{name}" for name in had}
    there = {key(disk) for disk in before}
    observed = [dataclasses.replace(seen(disk), size=0) for disk in before]
    if any(disk.name in had and key(disk) not in there for disk in desired):
        with pytest.raises(errors.Rejected, match="no empty one is made") as caught:
            plan.plan(desired, observed, had=where)
        assert caught.value.cause is Cause.DISK_MISSING
    else:
        assert plan.plan(desired, observed, had=where) == plan.plan(desired, observed)


def test_a_disk_never_shrinks() -> None:
    with pytest.raises(errors.Rejected, match="can't shrink") as caught:
        plan.plan([Disk("u1", "root", 1024)], [seen(Disk("u1", "root", 1536))])
    assert caught.value.cause is Cause.SHRINK_REFUSED


def test_a_plan_reads_well() -> None:
    desired = [Disk("u1", "root", 2048, "/images/a.qcow2", "qcow2"), Disk("u1", "data", 512), Disk("u1", "logs", 1024)]
    astray = dataclasses.replace(seen(Disk("u1", "logs", 512)), standing=Standing.ASTRAY)
    steps = plan.plan(desired, [astray])
    assert str(steps).splitlines() == [
        "put u1/logs back in its place",
        "create u1/data, 512 bytes, blank",
        "create u1/root, 2048 bytes, a clone of /images/a.qcow2",
        "grow u1/logs to 1024 bytes",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\0b", "a\n", "-q", "a" * 129, "é"])
def test_a_name_that_is_more_than_a_file_name_is_rejected(name: str) -> None:
    with pytest.raises(errors.Rejected, match="can't be") as caught:
        names.check("u1", name)
    assert caught.value.cause is Cause.FAILED


def test_uids_and_disk_names_are_taken() -> None:
    names.check("f3b1c2d4-0000-4000-8000-000000000001", "root", "data-1", "0", "a" * 128)
