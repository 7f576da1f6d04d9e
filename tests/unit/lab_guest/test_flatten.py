"""What the guest understands of a seed's YAML, read by the awk of this machine as by busybox's in the guest."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import corral_lab.guest

_PROGRAM = pathlib.Path(corral_lab.guest.__file__).parent / "files" / "flatten.awk"
_AWKS = [[awk] for awk in ("awk",) if shutil.which(awk)] + [
    [busybox, "awk"] for busybox in ("busybox",) if shutil.which(busybox)
]


def _flatten(text: str, awk: list[str] = _AWKS[0]) -> list[str]:
    done = subprocess.run([*awk, "-f", _PROGRAM], input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _expected(value: object, path: str = "") -> list[str]:
    children: list[tuple[object, object]]
    match value:
        case dict():
            children = list(value.items())
        case list():
            children = list(enumerate(value))
        case _:
            return [f"{path}={value}"]
    return [line for key, each in children for line in _expected(each, f"{path}.{key}" if path else str(key))]


NETWORK = """\
# a comment
version: 2
ethernets:
  nic0:
    match:
      macaddress: "52:54:00:00:00:01"
    addresses:
    - 10.77.0.5/32
    - 'fd00::5/128'
    nameservers:
      addresses: [10.0.0.53, "fd00::53"]
    routes:
    - to: default
      via: 169.254.1.1
      on-link: true
    -
      to: ::/0
      via: fe80::1
  nic1:
    mtu: 1450
"""


@pytest.mark.parametrize("awk", _AWKS, ids=lambda awk: awk[0])
def test_every_accepted_form_is_flattened(awk: list[str]) -> None:
    assert _flatten(NETWORK, awk) == [
        "version=2",
        "ethernets.nic0.match.macaddress=52:54:00:00:00:01",
        "ethernets.nic0.addresses.0=10.77.0.5/32",
        "ethernets.nic0.addresses.1=fd00::5/128",
        "ethernets.nic0.nameservers.addresses.0=10.0.0.53",
        "ethernets.nic0.nameservers.addresses.1=fd00::53",
        "ethernets.nic0.routes.0.to=default",
        "ethernets.nic0.routes.0.via=169.254.1.1",
        "ethernets.nic0.routes.0.on-link=true",
        "ethernets.nic0.routes.1.to=::/0",
        "ethernets.nic0.routes.1.via=fe80::1",
        "ethernets.nic1.mtu=1450",
    ]


_names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
_scalars = st.from_regex(r"[a-z0-9][a-z0-9:./-]{0,20}[a-z0-9]", fullmatch=True)
_documents = st.dictionaries(
    _names,
    st.recursive(
        _scalars,
        lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(_names, inner, min_size=1, max_size=3),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(_documents)
def test_what_pyyaml_writes_in_block_style_is_read_back(document: dict[str, object]) -> None:
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=1000)

    assert _flatten(text) == _expected(document)
