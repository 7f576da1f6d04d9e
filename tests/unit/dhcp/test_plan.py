from __future__ import annotations

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.dhcp import frames, kept, names, plan, sockets, table
from corral_drivers.dhcp.model import Answer, Service

from .test_respond import ANSWERS, SAID, UNTIMED

SERVICES = st.builds(Service, st.sampled_from(["u1", "u2"]), st.lists(ANSWERS, max_size=1).map(tuple))


@UNTIMED
@hypothesis.given(desired=st.none() | SERVICES, observed=st.none() | SERVICES)
def test_the_laws_of_a_plan(desired: Service | None, observed: Service | None) -> None:
    assert not plan.plan(desired, desired, "u1")
    steps = plan.plan(desired, observed, "u1")
    assert bool(steps) == (desired != observed)
    assert len(steps.steps) <= 1
    for step in steps.steps:
        assert step == (plan.Silence("u1") if desired is None else plan.Serve(desired))


def test_a_plan_prints_for_a_person() -> None:
    assert str(plan.plan(Service("u1", (SAID,)), None, "u1")) == "answer u1 over tap0"
    assert str(plan.plan(None, Service("u1", (SAID,)), "u1")) == "answer u1 no more"


@UNTIMED
@hypothesis.given(service=SERVICES)
def test_what_is_kept_reads_back(service: Service) -> None:
    try:
        names.check(service)
    except errors.Rejected:
        with pytest.raises(ValueError, match="not kept"):
            kept.parse(service.owner, kept.render(service))
        return
    assert kept.parse(service.owner, kept.render(service)) == service
    with pytest.raises(ValueError, match="not kept"):
        kept.parse("another", kept.render(service))


WHOLE = json.loads(kept.render(Service("u1", (SAID,))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"owner": "u1"}',
        '{"owner": "u1", "answers": [{}]}',
        '{"owner": "u1", "answers": [3]}',
        json.dumps({**WHOLE, "more": 1}),
        *(
            json.dumps({**WHOLE, "answers": [{**WHOLE["answers"][0], **change}]})
            for change in (
                {"mtu": True},
                {"mtu": "1420"},
                {"mtu": 1e3},
                {"leads_out": 1},
                {"mac": 3},
                {"addresses": "10.0.0.1"},
                {"addresses": [3]},
                {"addresses": ["10.0.0.1/24"]},
                {"hostname": "a b"},
                {"more": 1},
            )
        ),
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_what_somebody_else_wrote_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"not kept|Expecting"):
        kept.parse("u1", text)


def test_a_table_never_has_two_owners_on_one_interface() -> None:
    made = table.Table()
    made.put(Service("u1", (SAID,)))
    with pytest.raises(errors.Rejected):
        made.put(Service("u2", (SAID,)))
    assert made.owners() == {"u1"}
    made.put(Service("u1", ()))
    made.put(Service("u2", (SAID,)))
    assert made.answer("tap0") == SAID
    made.drop("u1")
    made.drop("nobody")
    assert made.answer("tap0") == SAID
    assert made.service("u1") is None


@pytest.mark.parametrize("kind", [frames.IPV4, frames.IPV6])
@pytest.mark.parametrize("muted", [0, 1, 100, 500])
def test_every_jump_of_the_filter_ends_in_it(kind: int, muted: int) -> None:
    instructions = sockets.program(kind, range(muted))
    for at, (_, yes, no, _) in enumerate(instructions):
        assert 0 <= yes <= 255
        assert 0 <= no <= 255
        assert at + 1 + max(yes, no) < len(instructions) or at == len(instructions) - 1
    assert instructions[-1] == (6, 0, 0, 0)


def test_an_answer_is_by_family() -> None:
    mixed = Answer("t", "m", 1500, ("fd00::1", "10.0.0.2", "10.0.0.3"), True, "h", ("fd00::53", "10.0.0.53"))
    assert str(mixed.ipv4) == "10.0.0.2"
    assert [str(one) for one in (*mixed.ipv6, *mixed.dns_ipv4, *mixed.dns_ipv6)] == ["fd00::1", "10.0.0.53", "fd00::53"]
