"""Every example is taken by the API server, on a lab that is up, as a user would apply it."""

from __future__ import annotations

import pathlib

import pytest

from .cloud import Cloud

pytestmark = pytest.mark.lab

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml")))
def test_an_example_is_taken(cloud: Cloud, name: str) -> None:
    said = cloud.api.run("apply", "--server-side", "--dry-run=server", "--filename", str(EXAMPLES / name))
    assert "serverside-applied (server dry run)" in said
