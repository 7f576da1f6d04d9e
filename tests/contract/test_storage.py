"""What every implementation of `corral_drivers.storage.port` does, and what the one of qcow2 files does beside."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from corral_drivers import errors
from corral_drivers.storage import plan, port, qcow2, simulated
from corral_drivers.storage.model import Capacity, Cause, Disk, Standing
from corral_drivers.storage.plan import Create, Grow, Remove

from .hearing import hearing

GIB = 2**30
MIB = 2**20


class Rig:
    """One pool and its images: makes drivers on it, as one process and its successor do."""

    def __init__(self, folder: pathlib.Path, *, real: bool) -> None:
        self.folder = folder / "pool"
        self.image = str(folder / "image.qcow2")
        self.raw = str(folder / "image.raw")
        self._real = real
        self._world = simulated.World()
        if real:
            qemu_img("create", "-f", "qcow2", self.image, str(GIB))
            pathlib.Path(self.raw).write_bytes(b"\0" * 4096)

    def open(self, *, cloud: str = "cloud-1", host: str = "host-1") -> port.Storage:
        settings = port.Settings(cloud=cloud, host=host, folder=str(self.folder))
        if self._real:
            return qcow2.Qcow2(settings)
        sizes = {self.image: GIB, self.raw: 4096}
        return simulated.Simulated(settings, world=self._world, image_size=sizes.get)

    def rename(self, owner: str, name: str, to: str) -> None:
        """Someone renames the disk's file to this path of the pool, or deletes it where that is empty."""
        if self._real:
            file = self.folder / owner / f"{name}.qcow2"
            file.rename(self.folder / to) if to else file.unlink()
        else:
            self._world.rename(owner, name)

    def lose(self, owner: str, name: str) -> None:
        """Someone destroys all there is of the disk."""
        if self._real:
            for file in self.folder.rglob(f"{owner}/{name}.qcow2"):
                file.unlink()
        else:
            self._world.lose(owner, name)


def qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["simulated", "real"])
def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Rig:
    return Rig(tmp_path, real=request.param == "real")


@pytest.fixture
def real(tmp_path: pathlib.Path) -> Rig:
    return Rig(tmp_path, real=True)


async def converge(pool: port.Storage, *desired: Disk) -> plan.Plan:
    owners = {disk.owner for disk in desired}
    observed = [disk for owner in sorted(owners) for disk in await pool.observe(owner)]
    steps = plan.plan(desired, observed)
    for step in steps.steps:
        await pool.apply(step)
    return steps


async def sizes(pool: port.Storage, owner: str) -> dict[str, int]:
    return {disk.name: disk.size for disk in await pool.observe(owner)}


async def test_an_empty_pool_has_room_and_no_disks(rig: Rig) -> None:
    pool = rig.open()
    assert await pool.owners() == frozenset()
    assert await pool.observe("u1") == ()
    capacity = await pool.capacity()
    assert 0 < capacity.available <= capacity.total


async def test_what_is_made_is_observed_also_by_a_successor(rig: Rig) -> None:
    desired = [
        Disk("u1", "root", 2 * GIB, rig.image, "qcow2"),
        Disk("u1", "data", 10 * MIB),
        Disk("u2", "root", 8192, rig.raw, "raw"),
    ]
    await converge(rig.open(), *desired)
    pool = rig.open()
    data, root = await pool.observe("u1")
    assert (data.name, data.size, data.base, data.format) == ("data", 10 * MIB, None, pool.format)
    assert (root.name, root.size, root.base, root.format) == ("root", 2 * GIB, rig.image, pool.format)
    assert root.path == pool.path("u1", "root")
    assert 0 < root.allocated < MIB
    assert await pool.owners() == {"u1", "u2"}
    assert not await converge(pool, *desired)


async def test_every_step_may_come_twice(rig: Rig) -> None:
    pool = rig.open()
    for _ in range(2):
        await pool.apply(Create(Disk("u1", "root", GIB, rig.image, "qcow2")))
        assert await sizes(pool, "u1") == {"root": GIB}
    for _ in range(2):
        await pool.apply(Grow("u1", "root", 2 * GIB))
        assert await sizes(pool, "u1") == {"root": 2 * GIB}
    for _ in range(2):
        await pool.apply(Remove("u1", "root"))
        assert await sizes(pool, "u1") == {}
        assert await pool.owners() == frozenset()


async def test_a_size_that_is_no_whole_sector_is_rounded_up_and_stays_converged(rig: Rig) -> None:
    pool = rig.open()
    await converge(pool, Disk("u1", "data", 10_001))
    assert await sizes(pool, "u1") == {"data": 10_240}
    assert not await converge(pool, Disk("u1", "data", 10_001))
    await converge(pool, Disk("u1", "data", 10_241))
    assert await sizes(pool, "u1") == {"data": 10_752}
    assert not await converge(pool, Disk("u1", "data", 10_241))


async def test_removal_takes_one_owners_disks_and_no_others(rig: Rig) -> None:
    pool = rig.open()
    await converge(pool, Disk("u1", "root", MIB), Disk("u1", "data", MIB), Disk("u2", "root", MIB))
    for step in plan.plan_removal(await pool.observe("u1")).steps:
        await pool.apply(step)
    assert await pool.observe("u1") == ()
    assert await pool.owners() == {"u2"}


async def test_many_at_once_are_all_made(rig: Rig) -> None:
    pool = rig.open()
    disks = [Disk(f"u{number}", "root", GIB, rig.image, "qcow2") for number in range(12)]
    await asyncio.gather(*(pool.apply(Create(disk)) for disk in disks))
    assert await pool.owners() == {disk.owner for disk in disks}


async def test_the_same_disk_twice_at_once_is_made_once(rig: Rig) -> None:
    pool = rig.open()
    step = Create(Disk("u1", "root", GIB, rig.image, "qcow2"))
    await asyncio.gather(*(pool.apply(step) for _ in range(4)))
    assert await sizes(pool, "u1") == {"root": GIB}


async def test_a_clone_smaller_than_its_image_is_rejected(rig: Rig) -> None:
    pool = rig.open()
    for disk in (Disk("u1", "root", GIB - 512, rig.image, "qcow2"), Disk("u1", "root", 3584, rig.raw, "raw")):
        with pytest.raises(errors.Rejected, match="fewer than") as caught:
            await pool.apply(Create(disk))
        assert caught.value.cause is Cause.SMALLER_THAN_IMAGE
    assert await pool.owners() == frozenset()


async def test_a_clone_of_an_image_that_is_not_here_waits(rig: Rig) -> None:
    pool = rig.open()
    with pytest.raises(errors.NotReady, match="waits for its image") as caught:
        await pool.apply(Create(Disk("u1", "root", GIB, "/nowhere/image.qcow2", "qcow2")))
    assert caught.value.cause is Cause.IMAGE_MISSING
    assert await pool.owners() == frozenset()


async def test_a_disk_is_never_made_smaller_nor_one_that_is_not_there_larger(rig: Rig) -> None:
    pool = rig.open()
    await pool.apply(Create(Disk("u1", "data", 2 * MIB)))
    with pytest.raises(errors.Rejected, match="can't shrink") as caught:
        await pool.apply(Grow("u1", "data", MIB))
    assert caught.value.cause is Cause.SHRINK_REFUSED
    assert await sizes(pool, "u1") == {"data": 2 * MIB}
    with pytest.raises(errors.Unavailable, match="not there"):
        await pool.apply(Grow("u1", "other", MIB))


async def test_another_clouds_or_hosts_pool_is_left_alone(rig: Rig) -> None:
    await converge(rig.open(), Disk("u1", "root", MIB))
    for stranger in (rig.open(cloud="cloud-2"), rig.open(host="host-2")):
        calls = (
            stranger.observe("u1"),
            stranger.owners(),
            stranger.capacity(),
            stranger.apply(Create(Disk("u9", "root", MIB))),
            stranger.apply(Remove("u1", "root")),
        )
        for call in calls:
            with pytest.raises(errors.Rejected, match="not this host's pool") as caught:
                await call
            assert caught.value.cause is Cause.POOL_FOREIGN
    assert await rig.open().owners() == {"u1"}


@pytest.mark.parametrize("name", ["../root", "/etc/shadow", "", ".root", "a\0b", ".."])
async def test_a_name_that_is_a_path_is_rejected(rig: Rig, name: str) -> None:
    pool = rig.open()
    for owner, disk in ((name, "root"), ("u1", name)):
        for step in (Create(Disk(owner, disk, MIB)), Grow(owner, disk, MIB), Remove(owner, disk)):
            with pytest.raises(errors.Rejected) as caught:
                await pool.apply(step)
            assert caught.value.cause is Cause.FAILED
        with pytest.raises(errors.Rejected):
            pool.path(owner, disk)
    with pytest.raises(errors.Rejected):
        await pool.observe(name)


async def test_a_simulated_pool_fails_where_it_is_told_and_when_it_is_full() -> None:
    settings = port.Settings("c", "h", "/pool")
    error = errors.Unavailable(Cause.FAILED, "the disk is broken")
    broken = simulated.Simulated(settings, fail_at=lambda step: error if isinstance(step, Grow) else None)
    await broken.apply(Create(Disk("u1", "root", MIB)))
    with pytest.raises(errors.Unavailable, match="broken"):
        await broken.apply(Grow("u1", "root", 2 * MIB))
    small = simulated.Simulated(settings, total=300 * 2**10)
    await small.apply(Create(Disk("u1", "root", MIB)))
    with pytest.raises(errors.Unavailable) as caught:
        await small.apply(Create(Disk("u2", "root", MIB)))
    assert caught.value.cause is Cause.NO_SPACE
    await small.apply(Remove("u1", "root"))
    assert await small.capacity() == Capacity(300 * 2**10, 300 * 2**10)
    await small.apply(Create(Disk("u2", "root", MIB)))


async def test_a_disk_is_what_qemu_says_it_is_and_for_root_alone(real: Rig) -> None:
    pool = real.open()
    await pool.apply(Create(Disk("u1", "root", 2 * GIB, real.image, "qcow2")))
    file = pathlib.Path(pool.path("u1", "root"))
    assert file == real.folder / "u1" / "root.qcow2"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said = qemu_img("info", str(file))
    assert f"backing file: {real.image}" in said
    assert "backing file format: qcow2" in said
    assert f"virtual size: 2 GiB ({2 * GIB} bytes)" in said
    assert "No errors were found" in qemu_img("check", str(file))


async def test_what_a_guest_wrote_survives_create_and_grow(real: Rig) -> None:
    pool = real.open()
    step = Create(Disk("u1", "root", GIB, real.image, "qcow2"))
    await pool.apply(step)
    file = pool.path("u1", "root")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", file], check=True, capture_output=True)
    await real.open().apply(step)
    await pool.apply(Grow("u1", "root", 2 * GIB))
    read = ["qemu-io", "-f", "qcow2", "-c", "read -P 7 1M 64k", file]
    assert "verification failed" not in subprocess.run(read, check=True, capture_output=True, text=True).stdout
    (disk,) = await pool.observe("u1")
    assert disk.allocated > 256 * 2**10


@pytest.mark.parametrize("to", ["u1/root.old.qcow2", "u1/root.bak", "root.qcow2", "u2/mine.qcow2", ""])
async def test_a_disk_whose_file_was_renamed_or_deleted_is_found_and_put_back(rig: Rig, to: str) -> None:
    pool, disk = rig.open(), Disk("u1", "root", GIB, rig.image, "qcow2")
    await converge(pool, disk, Disk("u2", "data", MIB))
    (before,) = await pool.observe("u1")
    rig.rename("u1", "root", to)
    assert await pool.observe("u1") == (replace(before, standing=Standing.ASTRAY),)
    assert await pool.owners() == {"u1", "u2"}
    assert (await converge(rig.open(), disk)).steps == (plan.PutBack("u1", "root"),)
    assert await pool.observe("u1") == (before,)
    assert await sizes(pool, "u2") == {"data": MIB}
    assert not await converge(pool, disk)


async def test_a_disk_that_is_lost_altogether_is_not_there(rig: Rig) -> None:
    pool, disk = rig.open(), Disk("u1", "root", MIB)
    await converge(pool, disk, Disk("u1", "data", MIB))
    rig.lose("u1", "root")
    assert await sizes(pool, "u1") == {"data": MIB}
    with pytest.raises(errors.Rejected, match="no empty one is made") as caught:
        plan.plan([disk], await pool.observe("u1"), had={"root": pool.path("u1", "root")})
    assert caught.value.cause is Cause.DISK_MISSING


async def test_a_watch_tells_whose_disk_was_touched(rig: Rig) -> None:
    pool = rig.open()
    await converge(pool, Disk("u1", "root", MIB), Disk("u2", "root", MIB))
    async with hearing(pool) as heard:
        await pool.observe("u1")
        await pool.observe("u2")

        async def rename() -> None:
            rig.rename("u1", "root", "elsewhere")

        await heard.only("u1", rename)
        rig.lose("u2", "root")
        await heard.of("u2")
    heard.clear()
    await converge(pool, Disk("u1", "root", MIB))
    assert heard == []


async def test_a_renamed_disk_is_the_same_file_with_what_was_written_meanwhile(real: Rig) -> None:
    pool, disk = real.open(), Disk("u1", "root", MIB)
    await pool.apply(Create(disk))
    file = pathlib.Path(pool.path("u1", "root"))
    with file.open("r+b") as living:
        real.rename("u1", "root", "u1/other.qcow2")
        living.seek(0, 2)
        living.write(b"written while its name was gone")
    await converge(pool, disk)
    assert file.read_bytes().endswith(b"written while its name was gone")
    assert [path.name for path in file.parent.iterdir()] == ["root.qcow2"]


async def test_a_folder_of_disks_that_was_moved_comes_back(real: Rig) -> None:
    pool, disks = real.open(), (Disk("u1", "root", MIB), Disk("u1", "data", MIB))
    await converge(pool, *disks)
    before = await pool.observe("u1")
    async with hearing(pool) as heard:
        await pool.observe("u1")
        (real.folder / "u1").rename(real.folder / "moved")
        await heard.of("u1")
    await converge(pool, *disks)
    assert await pool.observe("u1") == before
    assert list((real.folder / "moved").iterdir()) == []


async def test_a_disk_without_a_second_name_gets_one(real: Rig) -> None:
    pool, disk = real.open(), Disk("u1", "root", MIB)
    await pool.apply(Create(disk))
    shutil.rmtree(real.folder / ".kept")
    assert (await converge(pool, disk)).steps == (plan.Keep("u1", "root"),)
    real.rename("u1", "root", "")
    assert (await converge(pool, disk)).steps == (plan.PutBack("u1", "root"),)


async def test_a_file_that_was_put_in_a_disks_place_is_the_disk_and_the_former_stays(real: Rig) -> None:
    pool, disk = real.open(), Disk("u1", "root", MIB)
    await pool.apply(Create(disk))
    file = pathlib.Path(pool.path("u1", "root"))
    restored = real.folder / "u1" / "restored"
    restored.write_bytes(file.read_bytes() + b"restored")
    former = file.stat().st_ino
    restored.rename(file)
    assert (await converge(pool, disk)).steps == (plan.Keep("u1", "root"),)
    real.rename("u1", "root", "")
    await converge(pool, disk)
    assert file.read_bytes().endswith(b"restored")
    assert former in {path.stat().st_ino for path in (real.folder / ".kept" / "u1").iterdir()}
    await pool.apply(Remove("u1", "root"))
    assert not list(real.folder.rglob("u1"))


@pytest.mark.parametrize("to", ["u1/other.qcow2", "other", "u2/other.qcow2", ""])
async def test_removal_takes_a_disk_wherever_its_name_is(real: Rig, to: str) -> None:
    pool = real.open()
    await converge(pool, Disk("u1", "root", MIB), Disk("u2", "root", MIB))
    real.rename("u1", "root", to)
    for step in plan.plan_removal(await pool.observe("u1")).steps:
        await pool.apply(step)
    assert {str(path.relative_to(real.folder)) for path in real.folder.rglob("*") if path.is_file()} == {
        ".corral-pool.json",
        "u2/root.qcow2",
        ".kept/u2/root.qcow2",
    }


async def test_a_disk_that_was_half_made_or_half_removed_is_no_other_disk(real: Rig) -> None:
    pool, disk = real.open(), Disk("u1", "root", MIB)
    await pool.apply(Create(disk))
    inode = pathlib.Path(pool.path("u1", "root")).stat().st_ino
    # As after a death between its two names, at its creation and at its removal alike.
    real.rename("u1", "root", "")
    await real.open().apply(Create(disk))
    assert pathlib.Path(pool.path("u1", "root")).stat().st_ino == inode
    real.rename("u1", "root", "")
    assert plan.plan_removal(await real.open().observe("u1")).steps == (Remove("u1", "root"),)


@pytest.fixture
def guest() -> Iterator[Callable[[str], None]]:
    """Opens a disk and holds QEMU's lock on it, as a running guest does."""
    running: list[subprocess.Popen[str]] = []

    def start(path: str) -> None:
        process = subprocess.Popen(
            ["qemu-io", "-f", "qcow2", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        process.stdout.readline()

    yield start
    for process in running:
        process.communicate("quit\n", timeout=10)


async def test_a_disk_in_use_does_not_grow_and_is_still_observed(real: Rig, guest: Callable[[str], None]) -> None:
    pool = real.open()
    await pool.apply(Create(Disk("u1", "root", MIB)))
    guest(pool.path("u1", "root"))
    with pytest.raises(errors.Unavailable, match="in use by a running guest") as caught:
        await pool.apply(Grow("u1", "root", 2 * MIB))
    assert caught.value.cause is Cause.FAILED
    assert await sizes(pool, "u1") == {"root": MIB}


async def test_a_folder_of_others_is_no_pool_and_an_empty_file_system_is(real: Rig) -> None:
    real.folder.mkdir()
    (real.folder / "lost+found").mkdir()
    (real.folder / "holiday.jpg").write_text("mine")
    with pytest.raises(errors.Rejected, match="holds files and has no mark"):
        await real.open().apply(Create(Disk("u1", "root", MIB)))
    assert sorted(file.name for file in real.folder.iterdir()) == ["holiday.jpg", "lost+found"]
    (real.folder / "holiday.jpg").unlink()
    assert await real.open().owners() == frozenset()


async def test_a_mark_that_was_half_written_is_no_hindrance_and_one_that_is_damaged_is(real: Rig) -> None:
    real.folder.mkdir()
    (real.folder / ".corral-pool.json.new").write_text('{"clo')
    assert await real.open().owners() == frozenset()
    assert (real.folder / ".corral-pool.json").exists()
    (real.folder / ".corral-pool.json").write_text('{"clo')
    with pytest.raises(errors.Rejected) as caught:
        await real.open().owners()
    assert caught.value.cause is Cause.POOL_FOREIGN


async def test_no_folder_stays_of_a_removal_that_was_killed(real: Rig) -> None:
    storage = real.open()
    await storage.apply(Create(Disk("u1", "root", GIB)))
    # Killed between the first name and its folder, and then between the second name and its own.
    (real.folder / "u1" / "root.qcow2").unlink()
    storage = real.open()
    for step in plan.plan_removal(await storage.observe("u1")).steps:
        await storage.apply(step)
    (real.folder / ".kept" / "u1").mkdir()
    assert await real.open().observe("u1") == ()
    assert list(real.folder.rglob("u1")) == []


async def test_what_a_killed_process_left_is_cleared_by_its_successor(real: Rig) -> None:
    await real.open().apply(Create(Disk("u1", "root", MIB)))
    partial = real.folder / ".partial"
    (partial / "77-0.qcow2").write_bytes(b"half")
    pool = real.open()
    await pool.apply(Create(Disk("u2", "root", MIB)))
    assert list(partial.iterdir()) == []
    assert await pool.owners() == {"u1", "u2"}


async def test_files_of_others_beside_disks_are_unseen_and_stay(real: Rig) -> None:
    pool = real.open()
    await pool.apply(Create(Disk("u1", "root", MIB)))
    notes = real.folder / "u1" / "notes.txt"
    notes.write_text("mine")
    (real.folder / "u1" / "link.qcow2").symlink_to(real.image)
    (real.folder / "empty").mkdir()
    assert await sizes(pool, "u1") == {"root": MIB}
    async with hearing(pool) as heard:
        await pool.observe("u1")
        notes.write_text("still mine")
        notes.rename(notes.with_name("notes"))
        (real.folder / "notes").write_text("mine")

        async def rename() -> None:
            real.rename("u1", "root", "u1/notes.qcow2")

        await heard.only("u1", rename)
        # Of the disk's old name and its new one; of the notes nothing.
        assert len(heard) == 2
    await pool.apply(Remove("u1", "root"))
    assert await pool.owners() == frozenset()
    assert (real.folder / "u1" / "notes").read_text() == "still mine"
    assert (real.folder / "notes").read_text() == "mine"


async def test_a_disk_whose_header_is_lost_is_said_and_not_made_again(real: Rig) -> None:
    pool = real.open()
    await pool.apply(Create(Disk("u1", "root", MIB)))
    file = pathlib.Path(pool.path("u1", "root"))
    file.write_bytes(b"\0" * 4096)
    with pytest.raises(errors.Unavailable, match=r"can't read root\.qcow2"):
        await pool.observe("u1")
    await pool.apply(Create(Disk("u1", "root", MIB)))
    assert file.read_bytes() == b"\0" * 4096


@pytest.mark.parametrize(("base", "declared"), [("image.qcow2", "qcow2"), ("/x/image.qcow2", None), ("/x/i", "vmdk")])
async def test_a_base_that_would_have_to_be_guessed_is_rejected(real: Rig, base: str, declared: str | None) -> None:
    with pytest.raises(errors.Rejected, match="absolute path"):
        await real.open().apply(Create(Disk("u1", "root", GIB, base, declared)))


async def test_a_qemu_img_that_hangs_or_is_missing_is_unavailable(
    real: Rig, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = port.Settings("cloud-1", "host-1", str(real.folder))
    pool = qcow2.Qcow2(settings, deadline=0.2)
    slow = tmp_path / "bin" / "qemu-img"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=":")
    with pytest.raises(errors.Unavailable, match=r"did not end within 0\.2 seconds"):
        await pool.apply(Create(Disk("u1", "root", MIB)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.Unavailable, match="qemu-img is not installed"):
        await pool.apply(Create(Disk("u1", "root", MIB)))
    assert await pool.owners() == frozenset()
    assert list((real.folder / ".partial").iterdir()) == []


@pytest.mark.lab
async def test_a_full_pool_is_said_and_nothing_half_is_left(real: Rig) -> None:
    real.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "corral-test", str(real.folder)], check=True)
    try:
        pool = real.open()
        await pool.apply(Create(Disk("u1", "root", GIB, real.image, "qcow2")))
        with pytest.raises(errors.Unavailable) as caught:
            await converge(pool, *(Disk(owner, "root", GIB, real.image, "qcow2") for owner in ("u2", "u3", "u4")))
        assert caught.value.cause is Cause.NO_SPACE
        assert {"u1"} <= await pool.owners() < {"u1", "u2", "u3", "u4"}
        assert list((real.folder / ".partial").iterdir()) == []
    finally:
        subprocess.run(["umount", str(real.folder)], check=True)
