"""The control plane's parts by themselves: certificates, ports, kubeconfigs, command lines, and the CLI's sentences."""

from __future__ import annotations

import base64
import datetime
import random
import socket
import stat
from pathlib import Path

import pytest
import typer.testing
import yaml
from cryptography import x509

from corral_lab import cli, errors, paths
from corral_lab.control_plane import components, kubeconfig, pki, ports
from corral_lab.programs import recipe

NOW = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)
PROGRAMS = recipe.Programs(*(Path("/programs") / name for name in ("etcd", "apiserver", "controllers", "kubectl")))


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_certificate_names_user_groups_and_addresses_and_is_vouched_for(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path, "ca", NOW)
    client = _read(authority.issue("user", pki.Identity("ada", ("tenants", "testers"))).certificate)
    server = _read(authority.issue("server", pki.Identity("api", served_at=("10.1.2.3", "localhost"))).certificate)
    assert client.subject.rfc4514_string() == "CN=ada,O=testers,O=tenants"
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    for one in (client, server):
        one.verify_directly_issued_by(_read(authority.pair.certificate))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_certificate_is_kept_while_it_will_do(tmp_path: Path) -> None:
    wanted = pki.Identity("api", served_at=("10.1.2.3",))
    before = pki.Authority(tmp_path, "ca", NOW).issue("server", wanted).certificate.read_bytes()
    later = pki.Authority(tmp_path, "ca", NOW + datetime.timedelta(days=300))
    assert later.issue("server", wanted).certificate.read_bytes() == before
    moved = later.issue("server", pki.Identity("api", served_at=("10.1.2.4",)))
    assert moved.certificate.read_bytes() != before


def test_after_a_year_everything_is_renewed_and_old_holders_still_verify(tmp_path: Path) -> None:
    first = pki.Authority(tmp_path, "ca", NOW)
    old_ca = _read(first.pair.certificate)
    key = first.issue("server", pki.Identity("api")).key.read_bytes()
    a_year_on = NOW + datetime.timedelta(days=366)
    renewed = pki.Authority(tmp_path, "ca", a_year_on).issue("server", pki.Identity("api"))
    assert renewed.key.read_bytes() == key
    assert _read(renewed.certificate).not_valid_after_utc > a_year_on
    _read(renewed.certificate).verify_directly_issued_by(old_ca)


def test_ports_are_kept_unless_a_stranger_has_one() -> None:
    rng = random.Random(1)
    first = ports.choose({}, frozenset(), "127.0.0.1", rng)
    assert len(set(first.wire().values())) == 4
    assert ports.choose(first.wire(), frozenset(), "127.0.0.1", rng) == first
    with socket.create_server(("127.0.0.1", first.api)):
        assert ports.choose(first.wire(), frozenset({"api"}), "127.0.0.1", rng) == first
        second = ports.choose(first.wire(), frozenset(), "127.0.0.1", rng)
    assert second.api != first.api
    assert second.wire() == first.wire() | {"api": second.api}


def test_an_address_of_another_machine_is_refused_with_the_remedy() -> None:
    with pytest.raises(errors.LabError, match=r"192\.0\.2\.1 is not on this machine") as raised:
        ports.choose({}, frozenset(), "192.0.2.1", random.Random(1))
    assert "--address" in raised.value.next_step


def test_a_kubeconfig_embeds_all_that_it_needs(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path, "ca", NOW)
    pair = authority.issue("ada", pki.Identity("ada"))
    rendered = kubeconfig.render(kubeconfig.Cluster("https://h:1", authority.pair.certificate), "ada", pair)
    config = yaml.safe_load(rendered)
    assert config["clusters"][0]["cluster"]["server"] == "https://h:1"
    embedded = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    assert embedded == pair.certificate.read_bytes()
    assert str(tmp_path) not in rendered


def test_another_address_changes_the_command_lines_of_server_and_clients_only(tmp_path: Path) -> None:
    lab, chosen = paths.LabDir.at(tmp_path), ports.Ports(1, 2, 3, 4)
    here, there = (
        {
            daemon.name: daemon.fingerprint
            for daemon in components.daemons(components.Site(lab, address, chosen), PROGRAMS)
        }
        for address in ("127.0.0.1", "fd00::1")
    )
    assert {name for name in here if here[name] != there[name]} == {"kube-apiserver", "kube-controller-manager"}
    assert components.Site(lab, "fd00::1", chosen).url == "https://[fd00::1]:3"


def test_the_cli_says_in_a_sentence_what_is_wrong_and_exits_with_1(tmp_path: Path) -> None:
    runner = typer.testing.CliRunner()
    told = runner.invoke(cli.app, ["status", "--dir", str(tmp_path / "none")])
    assert told.exit_code == 1
    assert f"There is no lab in {tmp_path / 'none'}." in told.output
    assert "Next: Bring one up: `corral lab up`." in told.output
    assert runner.invoke(cli.app, ["down", "--dir", str(tmp_path / "none")]).exit_code == 0
    for name, said in (
        ("slackware", "There is no recipe of an image 'slackware'."),
        ("debian-12", "There is no lab in"),
    ):
        told = runner.invoke(cli.app, ["image", name, "--dir", str(tmp_path / "none")])
        assert told.exit_code == 1
        assert said in told.output
