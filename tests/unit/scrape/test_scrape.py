from __future__ import annotations

import pytest

from corral import scrape


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [("127.0.0.1:9180", ("127.0.0.1", 9180)), ("[::1]:9180", ("::1", 9180)), ("localhost:1", ("localhost", 1))],
)
def test_an_address_has_a_host_and_a_port(address: str, endpoint: tuple[str, int]) -> None:
    assert scrape.endpoint(address) == endpoint


@pytest.mark.parametrize("address", ["", "9180", ":9180", "127.0.0.1", "127.0.0.1:", "h:0", "h:65536", "h:x", "h:٣"])
def test_what_is_no_address_and_port_is_said(address: str) -> None:
    with pytest.raises(scrape.NotServed, match="is no address and port"):
        scrape.endpoint(address)
