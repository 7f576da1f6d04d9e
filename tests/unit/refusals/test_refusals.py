from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import refusals

TAIL = ": strict decoding error: unknown field"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("kites are grounded", "kites are grounded"),
        ('spec.mac: Invalid value: "hush": should match x', "spec.mac: Invalid value: should match x"),
        ('spec: Invalid value: {"a":{"b":"hush: \\"}"}}: no', "spec: Invalid value: no"),
        ('spec.x[0]: Invalid value: ["hush","hush"]', "spec.x[0]: Invalid value"),
        ('spec.x[1]: Duplicate value: {"name":"eth0"}', 'spec.x[1]: Duplicate value: {"name":"eth0"}'),
        (
            '[a: Invalid value: "hush": no, b: Unsupported value: "y": supported values: "x"]',
            '[a: Invalid value: no, b: Unsupported value: "y": supported values: "x"]',
        ),
        ("spec.mtu: Invalid value: 12: too small", "spec.mtu: Invalid value: 12: too small"),
        ('spec: Invalid value: {"hush', "spec: Invalid value"),
        ('spec: Invalid value: "hush', "spec: Invalid value"),
        ('spec.a: Invalid value: "hu\\"sh": no', "spec.a: Invalid value: no"),
        ('spec: Invalid value: "\\x00\\ahush\\U0001f600": no', "spec: Invalid value: no"),
    ],
)
def test_fields_and_rules_stay_and_values_go(said: str, told: str) -> None:
    assert refusals.without_values(said) == told


@given(value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_whatever_the_value_is_the_rest_stays(value: object) -> None:
    if isinstance(value, str):
        # Twice, as the API server quotes an object that is a string already.
        value = json.dumps(value)
    said = f'Instance "web" is invalid: patch: Invalid value: {json.dumps(value)}{TAIL}'
    assert refusals.without_values(said) == f'Instance "web" is invalid: patch: Invalid value{TAIL}'
