"""The guest's kernel modules: what a module says it needs, and the order that follows."""

from __future__ import annotations

import lzma
import pathlib

from hypothesis import given
from hypothesis import strategies as st

from corral_lab.guest import modules


def _module(depends: str) -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


def test_a_module_says_what_it_needs() -> None:
    assert modules.dependencies(_module("virtio,virtio_ring")) == ("virtio", "virtio_ring")
    assert modules.dependencies(_module("")) == ()
    assert modules.dependencies(b"no modinfo") == ()


@given(st.lists(st.lists(st.integers(0, 50), max_size=4), min_size=1, max_size=12), st.data())
def test_each_is_loaded_once_and_after_what_it_needs(drawn: list[list[int]], data: st.DataObject) -> None:
    # A module may need only those of lower number, so that there is no circle.
    needs = {str(n): tuple(str(each % n) for each in below) if n else () for n, below in enumerate(drawn)}
    wanted = data.draw(st.lists(st.sampled_from(sorted(needs)), min_size=1))

    order = modules.load_order(wanted, needs.__getitem__)

    assert len(set(order)) == len(order)
    assert set(wanted) <= set(order)
    for place, name in enumerate(order):
        assert set(needs[name]) <= set(order[:place])


def test_compressed_files_and_dashes_are_read_and_built_in_modules_are_left_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "kernel/drivers").mkdir(parents=True)
    (tmp_path / "kernel/drivers/virtio-blk.ko.xz").write_bytes(lzma.compress(_module("virtio,built_in")))
    (tmp_path / "kernel/drivers/virtio.ko").write_bytes(_module(""))
    (tmp_path / "kernel/drivers/other.ko").write_bytes(_module(""))

    found = modules.collect(tmp_path, ("virtio_blk", "isofs"))

    assert list(found) == ["virtio", "virtio_blk"]
    assert found["virtio_blk"] == _module("virtio,built_in")
