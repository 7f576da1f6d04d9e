"""libnftables (libnftables(3)) in the four calls that the driver needs.

PyPI has copies of nftables' own Python module (pip-nftables puts an `__init__.py` into the root of site-packages), none
has types, and all load the host's libnftables.so.1 by ctypes, as is done here in a few lines. Debian's python3-nftables
is not seen from a virtual environment. A context belongs to the network namespace of the thread that makes it.
"""

from __future__ import annotations

import ctypes

from corral_drivers import errors
from corral_drivers.firewall.model import Cause

_LIBRARY = "libnftables.so.1"
_JSON, _NUMERIC_PROTOCOLS = 1 << 4, 1 << 7


class NotTaken(Exception):  # noqa: N818 - reads as what it says
    """libnftables or the kernel refused; nothing was changed. The message is its first line."""


class Library:
    """One context. Not for two threads at once."""

    def __init__(self, *, json: bool = False) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise errors.Unavailable(
                Cause.UNSUPPORTED, f"there is no {_LIBRARY} on this host: install nftables ({error})"
            ) from error
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        if json:
            self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(_JSON | _NUMERIC_PROTOCOLS))

    def run(self, commands: str) -> str:
        """One transaction, and what it prints. Raises `NotTaken`."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = self._library.nft_ctx_get_error_buffer(self._context) or b""
        shown = self._library.nft_ctx_get_output_buffer(self._context) or b""
        if failed:
            raise NotTaken(_first(said.decode(errors="replace")))
        return str(shown.decode())

    def __del__(self) -> None:
        # Where there is no library, there is no context.
        if context := getattr(self, "_context", None):
            self._library.nft_ctx_free(context)


def _first(said: str) -> str:
    """The sentence of an error, without the lines that show where."""
    line = said.strip().splitlines()[0] if said.strip() else "no reason was given"
    return line.rpartition("Error: ")[2]
