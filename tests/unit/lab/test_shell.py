"""What a shell is told of a lab, and for whom."""

from __future__ import annotations

import ipaddress
import pathlib
import subprocess

import pytest

from corral_lab import paths, shell

PREFIXES = (ipaddress.IPv4Network("100.88.0.0/24"), ipaddress.IPv4Network("10.77.0.0/24"))


def _sourced(environ: dict[str, str]) -> list[str]:
    text = shell.render(paths.LabDir(pathlib.Path("/a lab")), pathlib.Path("/some tools/kubectl"), PREFIXES)
    typed = text + 'printf "%s\\n" "$KUBECONFIG" "$PATH" "${no_proxy-none}" "${NO_PROXY-none}"'
    done = subprocess.run(["/bin/sh", "-euc", typed], env=environ, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_shell_without_a_proxy_gets_no_exceptions() -> None:
    assert _sourced({"PATH": "/bin"}) == ["/a lab/kubeconfig", "/some tools:/bin", "none", "none"]


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_behind_a_proxy_the_lab_is_reached_directly(proxy: str) -> None:
    direct = "100.88.0.0/24,10.77.0.0/24"
    assert _sourced({"PATH": "/bin", proxy: "http://proxy"})[2:] == [direct] * 2
    assert _sourced({"PATH": "/bin", proxy: "http://proxy", "no_proxy": "here"})[2:] == [f"{direct},here"] * 2


def test_the_person_is_who_typed_sudo() -> None:
    assert shell.Person.find({"SUDO_UID": "1000", "SUDO_GID": "100"}) == shell.Person(1000, 100)
    assert shell.Person.find({"SUDO_UID": "1000"}) is None
    assert shell.Person.find({}) is None
