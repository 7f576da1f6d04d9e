"""Turn libvirt's errors into the three words of a driver. Pure; `connection` calls it.

libvirt says why a guest did not start mostly in QEMU's own words, under one code (VIR_ERR_INTERNAL_ERROR), so text is
looked at first, then the code. What neither table knows is `Failed`, tried again, with libvirt's sentence.
"""

from __future__ import annotations

import libvirt

from corral_drivers import errors
from corral_drivers.hypervisor.model import Cause

_Verdict = tuple[type[errors.DriverError], Cause]

_LOST: _Verdict = (errors.Unavailable, Cause.CONNECTION_LOST)
_NO_MEMORY: _Verdict = (errors.Unavailable, Cause.NO_MEMORY)
_MISSING: _Verdict = (errors.NotReady, Cause.DEVICE_MISSING)
_BUSY: _Verdict = (errors.Unavailable, Cause.DEVICE_BUSY)
_UNSUPPORTED: _Verdict = (errors.Rejected, Cause.UNSUPPORTED)
_TAKEN: _Verdict = (errors.Rejected, Cause.NAME_TAKEN)
_FAILED: _Verdict = (errors.Unavailable, Cause.FAILED)

# The first that is found in the lower-case message counts.
_BY_TEXT: tuple[tuple[str, _Verdict], ...] = (
    ("cannot allocate memory", _NO_MEMORY),
    ("cannot set up guest memory", _NO_MEMORY),
    ("already exists with uuid", _TAKEN),
    ("is already defined with uuid", _TAKEN),
    ('failed to get "write" lock', _BUSY),
    ("failed to get shared", _BUSY),
    ("is another process using the image", _BUSY),
    ("device or resource busy", _BUSY),
    ("already in the process of unplug", _BUSY),
    ("resource temporarily unavailable", _BUSY),
    ("access kvm kernel module", _UNSUPPORTED),
    ("failed to initialize kvm", _UNSUPPORTED),
    ("does not exist", _MISSING),
    ("doesn't exist", _MISSING),
    ("no such file or directory", _MISSING),
    ("no such device", _MISSING),
    ("could not load kernel", _MISSING),
    ("cannot read kernel", _MISSING),
)

_BY_CODE: dict[int, _Verdict] = {
    libvirt.VIR_ERR_NO_CONNECT: _LOST,
    libvirt.VIR_ERR_INVALID_CONN: _LOST,
    libvirt.VIR_ERR_RPC: _LOST,
    libvirt.VIR_ERR_NO_MEMORY: _NO_MEMORY,
    libvirt.VIR_ERR_DOM_EXIST: _TAKEN,
    libvirt.VIR_ERR_RESOURCE_BUSY: _BUSY,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: _BUSY,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: _UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT: _UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: _UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: _UNSUPPORTED,
    libvirt.VIR_ERR_INVALID_ARG: _UNSUPPORTED,
    libvirt.VIR_ERR_XML_ERROR: _UNSUPPORTED,
    libvirt.VIR_ERR_XML_DETAIL: _UNSUPPORTED,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: _UNSUPPORTED,
    libvirt.VIR_ERR_NO_OS: _UNSUPPORTED,
    libvirt.VIR_ERR_OS_TYPE: _UNSUPPORTED,
}


def translate(error: libvirt.libvirtError, doing: str, *, is_connected: bool) -> errors.DriverError:
    """The driver's error for `error`, met while `doing` ("start domain x"); raise it `from error`.

    An error on a connection that died is the connection's, whatever its words. Notes on the error (PEP 678) follow what
    was done.
    """
    about = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    words = str(error.get_error_message() or error).strip()
    word, cause = _verdict(error, words.lower()) if is_connected else _LOST
    return word(cause, f"{doing}{about}: {words}")


def _verdict(error: libvirt.libvirtError, words: str) -> _Verdict:
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return _LOST
    for text, verdict in _BY_TEXT:
        if text in words:
            return verdict
    return _BY_CODE.get(error.get_error_code(), _FAILED)
