"""Render kubeconfigs: everything embedded, so that the file alone is enough wherever it is carried."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml

from corral_lab.control_plane import pki

_NAME = "corral-lab"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The API server as a client must know it: its URL, and the certificate of the authority to trust."""

    url: str
    authority: Path


def render(cluster: Cluster, user: str, client: pki.Pair) -> str:
    """The kubeconfig, as YAML, of `user` with the certificate `client`."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": _NAME,
                    "cluster": {"server": cluster.url, "certificate-authority-data": _embedded(cluster.authority)},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _embedded(client.certificate),
                        "client-key-data": _embedded(client.key),
                    },
                }
            ],
            "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": user}}],
            "current-context": _NAME,
        },
        sort_keys=False,
    )


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
