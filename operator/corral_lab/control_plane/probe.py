"""Ask a component whether it is ready, over HTTPS with the lab's certificates. `plane` waits by it and shows it."""

from __future__ import annotations

import http.client
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from corral_lab.control_plane import pki


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, whom to trust, and as whom."""

    address: str
    port: int
    path: str
    authority: Path
    client: pki.Pair


def what_is_missing(endpoint: Endpoint, *, timeout: float = 2.0) -> str | None:
    """None from a component that is ready, else why it is not, in a few words."""
    trust = ssl.create_default_context(cafile=str(endpoint.authority))
    trust.load_cert_chain(endpoint.client.certificate, endpoint.client.key)
    connection = http.client.HTTPSConnection(endpoint.address, endpoint.port, timeout=timeout, context=trust)
    try:
        connection.request("GET", endpoint.path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return "it does not answer yet"
    finally:
        connection.close()
    if answer.status == http.client.OK:
        return None
    # The API server's list of checks: the failed ones begin with [-].
    failed = re.findall(r"^\[-\](\S+)", body, re.MULTILINE)
    return f"waiting for {', '.join(failed[:3])}" if failed else f"it answers {answer.status}"
