from __future__ import annotations

import re

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api import quantities, schema

PATTERN = str(pydantic.TypeAdapter(schema.Quantity).json_schema(mode="serialization")["pattern"])


@given(value=st.integers(0, 2**63))
def test_a_number_of_bytes_comes_back(value: int) -> None:
    assert quantities.to_bytes(quantities.from_bytes(value)) == value


@given(value=st.integers(0, 2**63))
def test_what_we_write_the_api_accepts(value: int) -> None:
    assert re.match(PATTERN, quantities.from_bytes(value))


@given(text=st.from_regex(PATTERN.replace("$", r"\Z"), fullmatch=True).filter(lambda text: len(text) < 28))
def test_what_the_api_accepts_is_understood(text: str) -> None:
    assert quantities.to_bytes(text) >= 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("1", 1), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 3 * 2**29), ("0.1", 1), ("2P", 2 * 10**15)],
)
def test_quantities(text: str, value: int) -> None:
    assert quantities.to_bytes(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "-1", "1e3", "1m", "1iK", "1KiB", "NaN", "Infinity", "1_0", ".5"])
def test_what_is_no_quantity_of_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity of bytes such as 512Mi"):
        quantities.to_bytes(text)


def test_a_bare_number_is_a_quantity_of_bytes_and_a_truth_value_is_none() -> None:
    adapter = pydantic.TypeAdapter(schema.Quantity)
    assert adapter.validate_python(512) == "512"
    for refused in (True, -1, 1.5, None):
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(refused)
