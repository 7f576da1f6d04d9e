from __future__ import annotations

import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers import errors, qcow2_header
from corral_drivers.image import check, model
from corral_drivers.image.model import Cause, Format


def header(
    *,
    version: int = 3,
    size: int = 2**30,
    backing_at: int = 0,
    backing_length: int = 0,
    features: int = 0,
    crypt: int = 0,
) -> bytes:
    first = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing_at, backing_length, 16, size, crypt)
    return (first.ljust(72, b"\0") + struct.pack(">QQQII", features, 0, 0, 4, 104)).ljust(512, b"\0")


def with_backing_file(name: bytes) -> bytes:
    head = bytearray(header(backing_at=400, backing_length=len(name)))
    head[400 : 400 + len(name)] = name
    return bytes(head)


@pytest.mark.parametrize("version", [2, 3])
def test_the_virtual_size_of_a_qcow2_is_in_its_header(version: int) -> None:
    assert check.virtual_size(Format.QCOW2, header(version=version, size=7 * 512), 512) == 7 * 512


@pytest.mark.parametrize("declared", [Format.RAW, Format.BLOB])
def test_a_guest_sees_all_bytes_of_what_is_no_qcow2(declared: Format) -> None:
    assert check.virtual_size(declared, header(size=2**40), 512) == 512


@pytest.mark.parametrize(
    ("head", "why"),
    [
        pytest.param(b"", "does not begin as", id="empty"),
        pytest.param(b"<html>not found</html>" * 10, "does not begin as", id="a web page"),
        pytest.param(header()[:71], "cut off", id="half a header"),
        pytest.param(header(version=4), "version 4", id="a version that nobody knows"),
        pytest.param(with_backing_file(b"/etc/shadow"), "has a backing file", id="a file of the host"),
        pytest.param(with_backing_file(b""), "has a backing file", id="a backing file without a name"),
        pytest.param(header(backing_at=2**40, backing_length=9), "outside of the header", id="far away"),
        pytest.param(header(backing_at=8, backing_length=2**31), "outside of the header", id="a name without an end"),
        pytest.param(header(features=4), "in another file", id="an external data file"),
        pytest.param(header(crypt=2), "encrypted", id="encrypted"),
    ],
)
def test_what_a_guest_could_not_or_must_not_use_is_rejected(head: bytes, why: str) -> None:
    with pytest.raises(errors.Rejected, match=why) as caught:
        check.virtual_size(Format.QCOW2, head, len(head))
    assert caught.value.cause is Cause.NOT_AN_IMAGE


@hypothesis.given(junk=st.binary(max_size=600), seed=st.integers(0, 511))
def test_any_bytes_are_a_header_or_a_value_error(junk: bytes, seed: int) -> None:
    for head in (junk, header()[:seed] + junk, b"QFI\xfb" + junk):
        try:
            found = qcow2_header.parse(head)
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
