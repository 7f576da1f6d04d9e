"""A seed as the three texts of NoCloud. Pure; `parse` reads them back, and `nocloud` puts them on a disk.

Sources: cloud-init's pages on the NoCloud datasource and on network-config version 2, and netplan's reference. A
default route is written `0.0.0.0/0` or `::/0`: netplan before 0.103 and cloud-init before 22.3 do not know `default`
(canonical/cloud-init, issue 3988), and Debian 12's 22.4 refuses it for its own renderers. Those two (networkd and
ifupdown) make `::/64` of `::/0`: such a guest has its way out over IPv6 by its host's router advertisement. Strings of
anything but printable ASCII are double-quoted on one line, so that a guest's small parser need not know YAML's other
forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from corral_drivers import errors
from corral_drivers.seed.model import Cause, Nic, Route, Seed, everything

META_DATA = "meta-data"
USER_DATA = "user-data"
NETWORK_CONFIG = "network-config"

_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_ONE_LINE = 2**31


class _Dumper(yaml.SafeDumper):
    """Block style; and a MAC is always quoted, because YAML 1.1 takes one of digits for a number of base 60."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    is_plain = text.isascii() and text.isprintable() and not _MAC.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _string)


def texts(seed: Seed) -> dict[str, str]:
    """The files of the seed by name. Raises `errors.Rejected` where two interfaces have one name."""
    return {META_DATA: meta_data(seed), USER_DATA: seed.user_data, NETWORK_CONFIG: network_config(seed)}


def meta_data(seed: Seed) -> str:
    content: dict[str, Any] = {"instance-id": seed.instance_id, "local-hostname": seed.hostname}
    if seed.ssh_authorized_keys:
        content["public-keys"] = list(seed.ssh_authorized_keys)
    return _yaml(content)


def network_config(seed: Seed) -> str:
    ethernets = {nic.name: _ethernet(nic) for nic in seed.nics}
    if len(ethernets) != len(seed.nics):
        raise errors.Rejected(Cause.FAILED, f"the seed of {seed.owner} has two interfaces of one name")
    return _yaml({"version": 2, "ethernets": ethernets})


def _ethernet(nic: Nic) -> dict[str, Any]:
    content: dict[str, Any] = {"match": {"macaddress": nic.mac}, "set-name": nic.name, "mtu": nic.mtu}
    if nic.addresses:
        content["addresses"] = list(nic.addresses)
    if nic.routes:
        content["routes"] = [_route(route) for route in nic.routes]
    servers = {"addresses": list(nic.dns_servers), "search": list(nic.search_domains)}
    if named := {key: value for key, value in servers.items() if value}:
        content["nameservers"] = named
    return content


def _route(route: Route) -> dict[str, Any]:
    to = everything(route.via) if route.to == "default" else route.to
    return {"to": to, "via": route.via, "on-link": True}


def _yaml(content: Mapping[str, Any]) -> str:
    text: str = yaml.dump(content, Dumper=_Dumper, default_flow_style=False, sort_keys=False, width=_ONE_LINE)
    return text
