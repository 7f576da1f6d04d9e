"""The three texts of NoCloud back into a seed: `parse(render(seed)) == seed`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from corral_drivers.seed import render
from corral_drivers.seed.model import Nic, Route, Seed

# The same language; libyaml reads it ten times as fast, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def seed(owner: str, texts: Mapping[str, str]) -> Seed:
    """Read the files of `render.texts`. Raises ValueError for what `render` can't have written."""
    try:
        meta = yaml.load(texts[render.META_DATA], _Loader)  # noqa: S506 - either is a safe one
        network = yaml.load(texts[render.NETWORK_CONFIG], _Loader)  # noqa: S506 - either is a safe one
        return Seed(
            owner=owner,
            instance_id=_text(meta["instance-id"]),
            hostname=_text(meta["local-hostname"]),
            nics=tuple(_nic(name, content) for name, content in network["ethernets"].items()),
            ssh_authorized_keys=_list(meta, "public-keys"),
            user_data=texts[render.USER_DATA],
        )
    except (yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"the seed of {owner} is not as it was written") from error


def _nic(name: str, content: Mapping[str, Any]) -> Nic:
    nameservers = content.get("nameservers", {})
    return Nic(
        name=_text(name),
        mac=_text(content["match"]["macaddress"]),
        mtu=int(content["mtu"]),
        addresses=_list(content, "addresses"),
        routes=tuple(Route(to=_text(route["to"]), via=_text(route["via"])) for route in content.get("routes", [])),
        dns_servers=_list(nameservers, "addresses"),
        search_domains=_list(nameservers, "search"),
    )


def _list(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_text(item) for item in content.get(key, []))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
