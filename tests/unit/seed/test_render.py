from __future__ import annotations

import ipaddress
import os
import pathlib
import subprocess
import sys

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.seed import iso, parse, render
from corral_drivers.seed.model import Nic, Route, Seed

GOLDEN = pathlib.Path(__file__).parent / "golden"

ONE = Seed(
    owner="0f7c5e1a-0000-4000-8000-000000000001",
    instance_id="0f7c5e1a-0000-4000-8000-000000000001-1",
    hostname="web-0",
    nics=(
        Nic(
            name="eth0",
            mac="52:54:00:11:22:33",
            mtu=1500,
            addresses=("10.77.0.5/32",),
            routes=(Route("default", "169.254.1.1"),),
        ),
    ),
    ssh_authorized_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample demo@example.org",),
    user_data="#cloud-config\npackages: [nginx]\n",
)

MANY = Seed(
    owner="u2",
    instance_id="u2-7",
    hostname="db",
    nics=(
        Nic(
            name="eth0",
            mac="0a:fe:00:00:00:01",
            mtu=9000,
            addresses=("10.77.0.6/32", "fd00:77::6/128"),
            routes=(Route("default", "169.254.1.1"), Route("default", "fe80::1"), Route("10.1.0.0/16", "169.254.1.1")),
            dns_servers=("10.0.0.53", "fd00::53"),
            search_domains=("example.org",),
        ),
        Nic(name="eth1", mac="0a:fe:00:00:00:02", mtu=1450, addresses=(), routes=()),
    ),
)

SIX = Seed(
    owner="u6",
    instance_id="u6-0",
    hostname="six",
    nics=(Nic("eth0", "0a:fe:00:00:00:06", 1420, ("fd00:77::6/128",), (Route("default", "fe80::1"),), ("fd00::53",)),),
)

HOSTILE = Seed(
    owner="u3",
    instance_id="yes",
    hostname="a: b\n---\nruncmd: [reboot]",
    nics=(
        Nic(
            name="null",
            mac="52:54:00:00:00:00",
            mtu=68,
            addresses=("1.5",),
            routes=(),
            search_domains=("naïve", "\x00\x85\u2028'\"\\", "- x # y"),
        ),
    ),
    ssh_authorized_keys=("*alias", "&anchor", "!!python/object:os.system x", "12:30:45", ""),
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ADDRESSES = st.lists(TEXT | st.ip_addresses().map(ipaddress.ip_interface).map(str), max_size=3).map(tuple)
ROUTES = st.lists(
    st.builds(
        Route,
        st.just("default") | st.sampled_from(["0.0.0.0/0", "::/0", "10.0.0.0/8"]) | TEXT,
        st.ip_addresses().map(str) | TEXT,
    ),
    max_size=3,
).map(tuple)
NICS = st.lists(
    st.builds(Nic, TEXT, TEXT, st.integers(0, 70_000), ADDRESSES, ROUTES, ADDRESSES, ADDRESSES),
    max_size=3,
    unique_by=lambda nic: nic.name,
).map(tuple)
SEEDS = st.builds(Seed, st.just("u1"), TEXT, TEXT, NICS, st.lists(TEXT, max_size=3).map(tuple), TEXT)


@pytest.mark.parametrize("file", [render.META_DATA, render.NETWORK_CONFIG, render.USER_DATA])
@pytest.mark.parametrize(("name", "seed"), [("one", ONE), ("many", MANY), ("six", SIX), ("hostile", HOSTILE)])
def test_the_texts_are_the_golden_ones(name: str, seed: Seed, file: str) -> None:
    assert render.texts(seed)[file] == (GOLDEN / f"{name}.{file}").read_bytes().decode()


@hypothesis.given(seed=SEEDS)
@hypothesis.example(seed=HOSTILE)
def test_what_is_rendered_reads_back(seed: Seed) -> None:
    assert parse.seed(seed.owner, render.texts(seed)) == seed


@hypothesis.given(seed=SEEDS)
@hypothesis.example(seed=HOSTILE)
def test_the_yaml_is_plain_data_one_value_a_line(seed: Seed) -> None:
    for text in (render.meta_data(seed), render.network_config(seed)):
        assert text.isascii()
        assert yaml.safe_load(text) == yaml.load(text, yaml.CSafeLoader)
    keys = yaml.safe_load(render.meta_data(seed)).get("public-keys", [])
    assert render.meta_data(seed).count("\n") == 2 + bool(keys) + len(keys)


@hypothesis.given(files=st.fixed_dictionaries({"meta-data": TEXT, "user-data": TEXT, "network-config": TEXT}))
@hypothesis.example(files={"meta-data": "", "user-data": "é\r\n\0" * 5_000, "network-config": ""})
def test_an_image_has_its_files_and_they_its_bytes(files: dict[str, str]) -> None:
    image = iso.pack(files)
    assert iso.unpack(image, tuple(files)) == files
    assert iso.pack(files) == image


def test_an_image_is_the_same_at_another_time_in_another_place() -> None:
    program = (
        "import sys, time; from corral_drivers.seed import iso; time.sleep(1.1);"
        "sys.stdout.buffer.write(iso.pack({'meta-data': 'a', 'user-data': '', 'network-config': 'b'}))"
    )
    here = iso.pack({"meta-data": "a", "user-data": "", "network-config": "b"})
    there = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TZ": "Asia/Kathmandu"},
    )
    assert there.stdout == here


def test_an_image_says_what_a_guest_looks_for() -> None:
    image = iso.pack(render.texts(ONE))
    assert image[16 * 2048 + 1 : 16 * 2048 + 6] == b"CD001"
    assert image[16 * 2048 + 40 : 16 * 2048 + 72] == b"cidata".ljust(32)
    for name in (b"meta-data", b"user-data", b"network-config"):
        assert name in image
        assert name.decode().encode("utf-16-be") in image


@hypothesis.given(cut=st.integers(0, 70_000), junk=st.binary(max_size=40), at=st.integers(0, 70_000))
@hypothesis.settings(max_examples=200)
def test_a_damaged_image_is_a_value_error_or_a_seed(cut: int, junk: bytes, at: int) -> None:
    whole = iso.pack(render.texts(ONE))
    for image in (whole[:cut], whole[:at] + junk + whole[at + len(junk) :]):
        try:
            parse.seed("u1", iso.unpack(image, ("meta-data", "user-data", "network-config")))
        except ValueError:
            continue


@pytest.mark.parametrize("text", ["", "[]", "a: b", "version: 2\nethernets: 3", "{", "ethernets: {eth0: {mtu: x}}"])
def test_texts_of_somebody_else_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"not as it was written|invalid literal"):
        parse.seed("u1", {"meta-data": "instance-id: a\nlocal-hostname: b", "user-data": "", "network-config": text})


def test_two_interfaces_of_one_name_are_rejected() -> None:
    nic = Nic("eth0", "52:54:00:11:22:33", 1500, (), ())
    with pytest.raises(errors.Rejected, match="two interfaces"):
        render.texts(Seed("u1", "u1-1", "web", (nic, nic)))
