"""User data of a guest: what its Instance says, or what is in the Secret beside the Instance.

`agent.guest` asks before it makes a seed. A seed that is there already tells what the guest was told: then the Secret
is not read, so that a guest needs neither it nor the API server any more. Nothing here logs or keeps a text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from corral import kube
from corral.api.v1alpha1 import instance
from corral.conclude.instance import WAITING_FOR_EARLIER, Room
from corral_drivers.seed import model as seed

Read = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The Secret of this name in the host's own namespace, None where there is none. Raises `kube.ApiError`."""

KEY = "userData"

_LOOK_AGAIN = 0.5


def reader(api: kube.Kube, namespace: str) -> Read:
    """Reads Secrets of this namespace, by their name alone."""

    async def read(name: str) -> Mapping[str, Any] | None:
        return await api.get(kube.SECRETS, namespace, name)

    return read


async def of(wanted: instance.InstanceSeed, seen: seed.Seed | None, read: Read) -> str | Room:
    """The user data of this seed, where `seen` is the one that the guest has by now; or why there is none yet."""
    if wanted.user_data_secret is None:
        return wanted.user_data
    if seen is not None and seen.instance_id == wanted.instance_id:
        return seen.user_data
    try:
        secret = await read(wanted.user_data_secret)
    except kube.ApiError as error:
        # Of the error, not of the answer: nothing of a Secret is told.
        return Room(holds=False, reason="SeedFailed", detail=f"its user data can't be read: {error}", retry=True)
    if secret is None:
        # The controller makes it right after the Instance.
        return Room(holds=False, reason=WAITING_FOR_EARLIER, look_again=_LOOK_AGAIN)
    try:
        return base64.b64decode(secret["data"][KEY], validate=True).decode()
    except (LookupError, TypeError, binascii.Error, UnicodeDecodeError):
        return Room(holds=False, reason="SeedFailed", detail=f"Secret {wanted.user_data_secret} holds no user data")
