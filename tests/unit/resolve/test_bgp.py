from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.resolve import bgp as resolve


def asks(asn: int, *addresses: str) -> resolve.Identity:
    return resolve.Identity(asn, frozenset(addresses))


A, B = asks(64512, "100.87.0.1", "fd87::1"), asks(64513, "100.87.0.2", "fd87::2")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (B, ""),
        (asks(64512, "100.87.0.2"), "spec.bgp.asn 64512 is Host a's already"),
        (asks(64513, "100.87.0.2", "fd87::1"), "fd87::1 of spec.bgp.addresses is Host a's already"),
    ],
)
def test_who_asks_for_what_another_has_is_told(asked: resolve.Identity, said: str) -> None:
    assert resolve.rival("b", asked, {"a": A}) == said
    # Also where it had something else until now, and whatever the names are.
    assert resolve.rival("0", asked, {"a": A, "0": B}) == said


def test_who_has_it_keeps_it() -> None:
    assert resolve.rival("a", A, {"a": A}) == ""
    assert resolve.rival("z", A, {"z": A, "b": B}) == ""


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([A, B, asks(64514, "100.87.0.1")]), min_size=1))
def test_of_those_who_were_told_the_same_one_keeps_it(told: dict[str, resolve.Identity]) -> None:
    kept = {name: one for name, one in told.items() if not resolve.rival(name, one, told)}
    assert kept, "nobody is left"
    for name, one in kept.items():
        assert not any(other != name and (one.asn == has.asn) for other, has in kept.items())
        assert not any(other != name and set(one.addresses) & set(has.addresses) for other, has in kept.items())
