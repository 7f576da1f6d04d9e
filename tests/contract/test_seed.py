"""What every implementation of `corral_drivers.seed.port` does, and what the one on files does beside."""

from __future__ import annotations

import pathlib
import stat
from collections.abc import Callable

import pytest

from corral_drivers import errors
from corral_drivers.seed import nocloud, plan, port, simulated
from corral_drivers.seed.model import Cause, Nic, Route, Seed
from corral_drivers.seed.plan import Remove, Write

from .hearing import hearing

Open = Callable[[], port.Seeds]

NIC = Nic("eth0", "52:54:00:11:22:33", 1500, ("10.77.0.5/32",), (Route("default", "169.254.1.1"),))
WEB = Seed("u1", "u1-1", "web", (NIC,), ("ssh-ed25519 AAAA demo",), "#cloud-config\nruncmd: ['echo é']\n")
DB = Seed("u2", "u2-1", "db", ())


@pytest.fixture(params=["simulated", "real"])
def open_seeds(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Open:
    """Makes drivers that share one world, as one process and its successor do."""
    settings = port.Settings(folder=str(tmp_path / "seeds"))
    world = simulated.World()
    if request.param == "simulated":
        return lambda: simulated.Simulated(settings, world=world)
    return lambda: nocloud.NoCloud(settings)


async def converge(seeds: port.Seeds, desired: Seed | None, owner: str) -> plan.Plan:
    steps = plan.plan(desired, await seeds.observe(owner), owner)
    for step in steps.steps:
        await seeds.apply(step)
    return steps


async def test_an_empty_host_has_no_seeds(open_seeds: Open) -> None:
    seeds = open_seeds()
    assert await seeds.owners() == frozenset()
    assert await seeds.observe("u1") is None


@pytest.mark.parametrize("seed", [WEB, DB], ids=["full", "bare"])
async def test_what_is_written_is_observed_also_by_a_successor(open_seeds: Open, seed: Seed) -> None:
    await converge(open_seeds(), seed, seed.owner)
    successor = open_seeds()
    assert await successor.observe(seed.owner) == seed
    assert await successor.owners() == {seed.owner}
    assert not await converge(successor, seed, seed.owner)


async def test_a_watch_tells_whose_seed_was_written_or_removed(open_seeds: Open) -> None:
    seeds = open_seeds()
    await seeds.apply(Write(DB))
    async with hearing(seeds) as heard:
        await seeds.observe("u1")
        await open_seeds().apply(Write(WEB))
        await heard.of("u1")
        assert set(heard) == {"u1"}
        await open_seeds().apply(Remove("u2"))
        await heard.of("u2")
    heard.clear()
    await seeds.apply(Remove("u1"))
    assert heard == []


async def test_a_seed_that_was_written_to_by_hand_is_heard_of_and_put_back(tmp_path: pathlib.Path) -> None:
    seeds = nocloud.NoCloud(port.Settings(folder=str(tmp_path)))
    await converge(seeds, WEB, "u1")
    async with hearing(seeds) as heard:
        await seeds.observe("u1")
        (tmp_path / "notes.txt").write_text("mine")
        pathlib.Path(seeds.path("u1")).write_bytes(b"another")
        await heard.of("u1")
        assert set(heard) == {"u1"}
    await converge(seeds, WEB, "u1")
    assert await seeds.observe("u1") == WEB


async def test_a_watch_that_was_told_too_much_at_once_says_that_it_missed_some(tmp_path: pathlib.Path) -> None:
    seeds = nocloud.NoCloud(port.Settings(folder=str(tmp_path)))
    most = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    async with hearing(seeds) as heard:
        await seeds.observe("u1")
        # The event loop does not come to read meanwhile.
        for number in range(most):
            (tmp_path / f"{number % 2}").symlink_to("nowhere")
            (tmp_path / f"{number % 2}").unlink()
        await heard.of("missed")


async def test_every_step_may_come_twice(open_seeds: Open) -> None:
    seeds = open_seeds()
    for _ in range(2):
        await seeds.apply(Write(WEB))
        assert await seeds.observe("u1") == WEB
    for _ in range(2):
        await seeds.apply(Remove("u1"))
        assert await seeds.observe("u1") is None
        assert await seeds.owners() == frozenset()


async def test_a_change_replaces_one_seed_and_no_other(open_seeds: Open) -> None:
    seeds = open_seeds()
    await converge(seeds, WEB, "u1")
    await converge(seeds, DB, "u2")
    changed = Seed("u1", "u1-2", "web", ())
    await converge(seeds, changed, "u1")
    assert (await seeds.observe("u1"), await seeds.observe("u2")) == (changed, DB)
    await converge(seeds, None, "u1")
    assert await seeds.owners() == {"u2"}


@pytest.mark.parametrize("owner", ["../u1", "/etc/x", "", ".u1", "a\0b", ".."])
async def test_an_owner_that_is_a_path_is_rejected(open_seeds: Open, owner: str) -> None:
    seeds = open_seeds()
    for step in (Write(Seed(owner, "a", "b", ())), Remove(owner)):
        with pytest.raises(errors.Rejected) as caught:
            await seeds.apply(step)
        assert caught.value.cause is Cause.FAILED
    with pytest.raises(errors.Rejected):
        await seeds.observe(owner)
    with pytest.raises(errors.Rejected):
        seeds.path(owner)


async def test_a_simulated_host_fails_where_it_is_told() -> None:
    error = errors.Unavailable(Cause.NO_SPACE, "the disk is full")
    seeds = simulated.Simulated(port.Settings("/seeds"), fail_at=lambda step: error if step == Write(DB) else None)
    await seeds.apply(Write(WEB))
    with pytest.raises(errors.Unavailable, match="full"):
        await seeds.apply(Write(DB))
    assert await seeds.owners() == {"u1"}


async def test_a_seed_is_one_file_for_root_alone_and_the_same_bytes_each_time(tmp_path: pathlib.Path) -> None:
    seeds = nocloud.NoCloud(port.Settings(str(tmp_path)))
    await seeds.apply(Write(WEB))
    file = pathlib.Path(seeds.path("u1"))
    before = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [file]
    await seeds.apply(Write(WEB))
    assert file.read_bytes() == before


async def test_files_of_others_are_unseen_and_stay(tmp_path: pathlib.Path) -> None:
    foreign = [tmp_path / name for name in ("notes.txt", ".hidden.iso", "u1.iso.bak")]
    for file in foreign:
        file.write_text("mine")
    (tmp_path / "folder.iso").mkdir()
    (tmp_path / "link.iso").symlink_to(foreign[0])
    seeds = nocloud.NoCloud(port.Settings(str(tmp_path)))
    await seeds.apply(Write(WEB))
    assert await seeds.owners() == {"u1"}
    await seeds.apply(Remove("u1"))
    assert [file.read_text() for file in foreign] == ["mine"] * 3


async def test_what_a_killed_process_left_and_what_is_damaged_is_written_anew(tmp_path: pathlib.Path) -> None:
    seeds = nocloud.NoCloud(port.Settings(str(tmp_path)))
    (tmp_path / ".u1.new").write_bytes(b"half")
    pathlib.Path(seeds.path("u1")).write_bytes(b"\0" * 40_000)
    assert await seeds.observe("u1") is None
    await converge(seeds, WEB, "u1")
    assert await seeds.observe("u1") == WEB
    assert [file.name for file in tmp_path.iterdir()] == ["u1.iso"]


async def test_a_guest_that_reads_a_seed_keeps_it_whole_when_it_is_replaced(tmp_path: pathlib.Path) -> None:
    seeds = nocloud.NoCloud(port.Settings(str(tmp_path)))
    await seeds.apply(Write(WEB))
    with open(seeds.path("u1"), "rb") as reader:
        before = pathlib.Path(seeds.path("u1")).read_bytes()
        await seeds.apply(Write(Seed("u1", "u1-2", "web", ())))
        assert reader.read() == before


async def test_text_that_is_no_unicode_is_rejected_and_nothing_is_left(tmp_path: pathlib.Path) -> None:
    seeds = nocloud.NoCloud(port.Settings(str(tmp_path)))
    with pytest.raises(errors.Rejected, match="no Unicode"):
        await seeds.apply(Write(Seed("u1", "a", "b", (), (), "\ud800")))
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_none_is_unavailable(tmp_path: pathlib.Path) -> None:
    (tmp_path / "seeds").write_text("a file")
    seeds = nocloud.NoCloud(port.Settings(str(tmp_path / "seeds")))
    with pytest.raises(errors.Unavailable, match="can't write the seed of u1") as caught:
        await seeds.apply(Write(WEB))
    assert caught.value.cause is Cause.FAILED
    assert isinstance(caught.value.__cause__, OSError)
