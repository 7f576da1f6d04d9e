"""A service as the text that is kept of it, and back: `parse(render(service)) == service`. Pure."""

from __future__ import annotations

import dataclasses
import json

from corral_drivers import errors
from corral_drivers.dhcp import names
from corral_drivers.dhcp.model import Answer, Service

_TEXT = frozenset({"interface", "mac", "hostname"})
_LISTS = frozenset({"addresses", "dns_servers", "search_domains"})
_FIELDS = frozenset(field.name for field in dataclasses.fields(Answer))


def render(service: Service) -> str:
    """JSON, the same for the same service."""
    content = {"owner": service.owner, "answers": [dataclasses.asdict(answer) for answer in service.answers]}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def parse(owner: str, text: str) -> Service:
    """Read what `render` has written for this owner. Raises ValueError for anything else."""
    try:
        content = json.loads(text)
        service = Service(owner, tuple(_answer(one) for one in content["answers"]))
        names.check(service)
    except (LookupError, TypeError, AttributeError, RecursionError, errors.Rejected) as error:
        raise ValueError(f"what {owner} is answered is not kept as it was written") from error
    if content != json.loads(render(service)):
        raise ValueError(f"what {owner} is answered is not kept as it was written")
    return service


def _answer(content: dict[str, object]) -> Answer:
    if content.keys() != _FIELDS:
        raise TypeError("other fields than an answer has")
    mtu, leads_out = content["mtu"], content["leads_out"]
    if not isinstance(mtu, int) or not isinstance(leads_out, bool):
        raise TypeError("a number or a truth value is none")
    text = {name: _text(content[name]) for name in _TEXT}
    lists = {name: _lists(content[name]) for name in _LISTS}
    return Answer(**text, **lists, mtu=mtu, leads_out=leads_out)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is none")
    return value


def _lists(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("a list is none")
    return tuple(_text(one) for one in value)
