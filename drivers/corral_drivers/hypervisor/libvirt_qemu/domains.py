"""What libvirt is asked and told about domains: blocking calls on an open connection, no state; `driver` runs them.

A domain is ours if its metadata, as stored or as the living guest has it, holds our element with our cloud's and our
host's uid. Every step looks for that first: a foreign domain is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libvirt
from lxml import etree

from corral_drivers import errors
from corral_drivers.hypervisor import plan, port
from corral_drivers.hypervisor.libvirt_qemu import nics, parse, processes, render
from corral_drivers.hypervisor.model import Cause, Domain, Mark, Observed, State

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: State.RUNNING,
    libvirt.VIR_DOMAIN_RUNNING: State.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: State.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: State.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: State.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: State.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: State.SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: State.CRASHED,
}
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


@dataclass(frozen=True, slots=True)
class Ours:
    """The domains of one cloud on one host, among whatever else libvirt has."""

    settings: port.Settings

    def owns(self, mark: Mark | None) -> bool:
        return mark is not None and (mark.cloud, mark.host) == (self.settings.cloud, self.settings.host)

    def observe(self, connection: libvirt.virConnect, uuid: str) -> Observed | None:
        """The domain of this uuid, None where it is gone or foreign."""
        found = _find(connection, uuid)
        return None if found is None else self._observed(found)

    def observe_all(self, connection: libvirt.virConnect) -> tuple[Observed, ...]:
        """All of ours, by uuid."""
        observed = (self._observed(found) for found in connection.listAllDomains())
        return tuple(sorted((one for one in observed if one is not None), key=lambda one: one.uuid))

    def uuids(self, connection: libvirt.virConnect) -> tuple[str, ...]:
        """The uuids of all of ours, for a tenth of what looking at them costs."""
        return tuple(sorted(found.UUIDString() for found in connection.listAllDomains() if self._is_ours(found)))

    def apply(self, connection: libvirt.virConnect, step: plan.Step) -> None:
        """Carry out one step. Raises `errors.Rejected` on a foreign domain, and libvirt's errors as they are."""
        if isinstance(step, plan.Define):
            self._define(connection, step.domain)
            return
        found = _find(connection, step.uuid)
        if found is None:
            if isinstance(step, plan.Start | plan.Resume | plan.Replug):
                raise errors.Rejected(Cause.FAILED, f"{step}: no such domain is defined")
            return
        if not self._is_ours(found):
            raise errors.Rejected(Cause.NAME_TAKEN, f"{step}: domain {found.name()} has this uuid and is not ours")
        if isinstance(step, plan.Replug):
            nics.replug(found, step)
        else:
            _do(step, found)

    def _observed(self, found: libvirt.virDomain) -> Observed | None:
        try:
            return self._read(found)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _read(self, found: libvirt.virDomain) -> Observed | None:
        state = _STATES.get(found.state()[0], State.RUNNING)
        stored, live = _documents(found, is_active=state.is_active)
        marks = [document.mark for document in (stored, live) if document is not None]
        mark = next((mark for mark in marks if mark is not None and self.owns(mark)), None)
        if mark is None:
            return None
        uuid = found.UUIDString()
        persistent = None if stored is None else stored.stored()
        return Observed(
            uuid=uuid,
            mark=mark,
            state=state,
            persistent=persistent,
            active=None if live is None else live.domain,
            pid=processes.find(self.settings.uri, found.name(), uuid) if state.is_active else None,
            edited=None if stored is None or persistent is not None else stored.domain,
        )

    def _is_ours(self, found: libvirt.virDomain) -> bool:
        return any(self.owns(mark) for mark in _marks(found))

    def _define(self, connection: libvirt.virConnect, domain: Domain) -> None:
        document = render.render(domain)
        namesake = _quietly(lambda: connection.lookupByName(domain.name))
        twin = _find(connection, domain.uuid)
        if namesake is not None and namesake.UUIDString() != domain.uuid:
            self._taken(domain, f"domain {namesake.UUIDString()} has this name")
        if twin is not None and (twin.name() != domain.name or not self._is_ours(twin)):
            self._taken(domain, f"domain {twin.name()} has uuid {domain.uuid}")
        defined = connection.defineXML(document)
        kept = parse.read(defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        if kept.stored() != plan.pinned(domain, kept.domain):
            lost = kept.deviation() or "a value"
            raise errors.Rejected(
                Cause.UNSUPPORTED, f"define {domain.name}: this libvirt does not keep {lost} as it was written"
            )

    def _taken(self, domain: Domain, by: str) -> None:
        raise errors.Rejected(Cause.NAME_TAKEN, f"define {domain.name}: {by}")


def _documents(found: libvirt.virDomain, *, is_active: bool) -> tuple[parse.Document | None, parse.Document | None]:
    """What is stored and what lives. A transient domain's stored form is only libvirt's copy of the living one."""
    is_stored = not is_active or found.isPersistent()
    stored = parse.read(found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if is_stored else None
    live = parse.read(found.XMLDesc()) if is_active else None
    return stored, live if live is not None and live.is_live else None


def _marks(found: libvirt.virDomain) -> Iterator[Mark | None]:
    for flag in (libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE):
        try:
            element = found.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, render.NAMESPACE, flag)
        except libvirt.libvirtError as error:
            # No such metadata; or transient and asked for what is stored, or shut off and asked for what lives.
            if error.get_error_code() not in _NO_METADATA:
                raise
        else:
            yield parse.mark(etree.fromstring(element.encode()))


_NO_METADATA = (
    libvirt.VIR_ERR_NO_DOMAIN_METADATA,
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_INVALID_ARG,
)


def _find(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain | None:
    return _quietly(lambda: connection.lookupByUUIDString(uuid))


def _quietly(look_up: Callable[[], libvirt.virDomain]) -> libvirt.virDomain | None:
    try:
        return look_up()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _do(step: plan.Step, found: libvirt.virDomain) -> None:
    verb, is_done = _VERBS[type(step)]
    if is_done(found):
        return
    try:
        verb(found)
    except libvirt.libvirtError as error:
        # Otherwise somebody, or the guest itself, was quicker.
        if not is_done(found):
            error.add_note(f"domain {found.name()}")
            raise


def _is_active(found: libvirt.virDomain) -> bool:
    return bool(_still(found.isActive))


def _is_off(found: libvirt.virDomain) -> bool:
    return not _is_active(found)


def _is_undefined(found: libvirt.virDomain) -> bool:
    return not _still(found.isPersistent)


def _is_running(found: libvirt.virDomain) -> bool:
    return found.state()[0] in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED)


def _still(question: Callable[[], int]) -> int:
    """The answer, 0 of a domain that is gone."""
    try:
        return question()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return 0
        raise


_NEEDS_RESET = "Resetting the Virtual Machine is required"
"""QEMU's word of a guest that it can't let run on: its processor did what the host can't carry out."""


def _resume(found: libvirt.virDomain) -> None:
    """Let it run on. One that can't is ended: who sees it off starts it anew, and counts how often."""
    try:
        found.resume()
    except libvirt.libvirtError as error:
        if _NEEDS_RESET not in (error.get_error_message() or ""):
            raise
        found.destroy()


_VERBS: dict[type[plan.Step], tuple[Callable[[libvirt.virDomain], object], Callable[[libvirt.virDomain], bool]]] = {
    plan.Start: (lambda found: found.create(), _is_active),
    plan.Resume: (_resume, _is_running),
    plan.ShutDown: (lambda found: found.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN), _is_off),
    plan.PowerOff: (lambda found: found.destroy(), _is_off),
    plan.Undefine: (lambda found: found.undefineFlags(_UNDEFINE), _is_undefined),
}
