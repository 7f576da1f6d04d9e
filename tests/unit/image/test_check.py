from __future__ import annotations

import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers import errors, qcow2_header
from corral_drivers.image import check, model
from corral_drivers.image.model import Cause, Format

CLUSTER = 2**16


def header(**changes: int) -> bytes:
    """The first 512 bytes of a file that `LENGTH` bytes of qcow2 could begin with, but for what is given."""
    said = {
        "version": 3,
        "backing_at": 0,
        "backing_length": 0,
        "cluster_bits": 16,
        "size": 2**30,
        "crypt": 0,
        "l1_size": 2,
        "l1_at": 3 * CLUSTER,
        "refcounts_at": CLUSTER,
        "refcount_clusters": 1,
        "snapshots": 0,
        "snapshots_at": 0,
        "features": 0,
        "refcount_order": 4,
        "own_length": 104,
        "extension": 0,
        "extension_length": 0,
    } | changes
    values = list(said.values())
    first = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", *values[:12])
    more = struct.pack(">QQQII", said["features"], 0, 0, said["refcount_order"], said["own_length"])
    return (first + more + struct.pack(">II", *values[15:])).ljust(512, b"\0")


LENGTH = 4 * CLUSTER


def with_backing_file(name: bytes) -> bytes:
    head = bytearray(header(backing_at=400, backing_length=len(name)))
    head[400 : 400 + len(name)] = name
    return bytes(head)


@pytest.mark.parametrize("version", [2, 3])
def test_the_virtual_size_of_a_qcow2_is_in_its_header(version: int) -> None:
    assert check.virtual_size(Format.QCOW2, header(version=version, size=7 * 512), LENGTH) == 7 * 512


def test_a_guest_sees_all_bytes_of_what_is_no_qcow2() -> None:
    assert check.virtual_size(Format.BLOB, header(size=2**40), 512) == 512
    assert check.virtual_size(Format.RAW, b"\0" * 512, 512) == 512


def test_a_raw_image_that_is_a_qcow2_is_told_its_format() -> None:
    with pytest.raises(errors.Rejected, match="say format: qcow2") as caught:
        check.virtual_size(Format.RAW, header(), LENGTH)
    assert caught.value.cause is Cause.NOT_AN_IMAGE


@pytest.mark.parametrize("size", [2**50 + 512, 2**60, 2**64 - 1])
def test_a_guest_that_would_see_more_than_any_disk_has_is_told_so(size: int) -> None:
    entries = min(-(-size // 2**38), 2**22)
    head = header(size=size, cluster_bits=21, l1_size=entries, l1_at=2**21, refcounts_at=2**21)
    with pytest.raises(errors.Rejected) as caught:
        check.virtual_size(Format.QCOW2, head, 2**26)
    # So large that no table of QEMU's covers it, or merely larger than a disk.
    assert caught.value.cause is (Cause.TOO_LARGE if size <= 2**60 else Cause.NOT_AN_IMAGE)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        pytest.param(b"", "does not begin as", id="empty"),
        pytest.param(b"<html>not found</html>" * 10, "does not begin as", id="a web page"),
        pytest.param(header()[:71], "does not begin as", id="half a header"),
        pytest.param(header()[:103], "cut off", id="most of a header"),
        pytest.param(header(version=4), "version 4", id="a version that nobody knows"),
        pytest.param(with_backing_file(b"/etc/shadow"), "has a backing file", id="a file of the host"),
        pytest.param(with_backing_file(b""), "has a backing file", id="a backing file without a name"),
        pytest.param(header(backing_at=2**40, backing_length=9), "outside of the header", id="far away"),
        pytest.param(header(backing_at=8, backing_length=2**31), "outside of the header", id="a name without an end"),
        pytest.param(header(features=4), "in another file", id="an external data file"),
        pytest.param(header(crypt=2), "encrypted", id="encrypted"),
        pytest.param(header(extension=0x44415441, extension_length=8), "in another file", id="a data file by name"),
        pytest.param(header(features=1 << 9), "newer qcow2 .0x200", id="a feature that nobody knows"),
        pytest.param(header(features=2), "corrupt: mend it", id="corrupt"),
        pytest.param(header(cluster_bits=8), "clusters of 2.8 bytes", id="small clusters"),
        pytest.param(header(cluster_bits=63), "clusters of 2.63 bytes", id="clusters of everything"),
        pytest.param(header(refcount_order=7), "reference counts of 2.7", id="wide reference counts"),
        pytest.param(header(own_length=8), "8 bytes long", id="a header shorter than itself"),
        pytest.param(header(own_length=2**32 - 8), "bytes long", id="a header without an end"),
        pytest.param(header(own_length=105), "105 bytes long", id="an odd header"),
        pytest.param(header(l1_size=2**32 - 1), "entries of the first table", id="a table of everything"),
        pytest.param(header(l1_size=1), "1 entries of the first table", id="a table too short for the size"),
        pytest.param(header(l1_at=3 * CLUSTER + 8), "a table where", id="a table beside its cluster"),
        pytest.param(header(l1_at=2**60), "a table where", id="a table far away"),
        pytest.param(header(refcounts_at=4 * CLUSTER), "a table where", id="reference counts beyond the end"),
        pytest.param(header(refcount_clusters=2**31), "clusters of reference", id="reference counts of everything"),
        pytest.param(header(refcount_clusters=0), "0 clusters of reference", id="no reference counts"),
        pytest.param(header(snapshots=2**32 - 1), "4294967295 snapshots", id="snapshots without end"),
        pytest.param(header(snapshots=1, snapshots_at=2**40), "a table where", id="a snapshot far away"),
        pytest.param(header(extension=7, extension_length=2**32 - 1), "longer than", id="an endless extension"),
        pytest.param(header(extension=7, extension_length=500), "longer than", id="an extension over the end"),
    ],
)
def test_what_a_guest_could_not_or_must_not_use_is_rejected(head: bytes, why: str) -> None:
    with pytest.raises(errors.Rejected, match=why) as caught:
        check.virtual_size(Format.QCOW2, head, LENGTH)
    assert caught.value.cause is Cause.NOT_AN_IMAGE


@hypothesis.given(junk=st.binary(max_size=600), seed=st.integers(0, 511))
def test_any_bytes_are_a_header_or_a_value_error(junk: bytes, seed: int) -> None:
    for head in (junk, header()[:seed] + junk, b"QFI\xfb" + junk):
        try:
            found = qcow2_header.scrutinize(head, LENGTH)
        except ValueError:
            continue
        assert found.version in (2, 3)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a.qcow2", "https://example.org/a.qcow2"),
        ("https://user:word@example.org:8443/a?token=s#f", "https://example.org:8443/a"),
        ("http://[::1", "a url that can't be read"),
        (f"http://example.org/{'a' * 2000}", f"http://example.org/{'a' * 180}…"),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, expected: str) -> None:
    assert model.shown(url) == expected
