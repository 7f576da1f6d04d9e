"""A lab's control plane: brought up, healed, shown and taken down as a whole.

`corral lab` and the tests' fixture use it. Everything is level-triggered: `start` looks at what runs, with which
arguments, and whether it is ready, and does what is missing; on a lab that is well it does nothing.
"""

from __future__ import annotations

import datetime
import random
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from corral_lab import errors, files, paths, process, progress, state
from corral_lab.control_plane import backup, components, kubeconfig, pki, ports, probe
from corral_lab.programs import recipe

READY_WITHIN = 120.0
"""Seconds that one component may take. It takes about one on an idle machine."""

_SECTION = "controlPlane"
_POLL = 0.05
_ADMINISTRATOR = pki.Identity("corral-lab-admin", ("system:masters",))


@dataclass(frozen=True, slots=True)
class Status:
    """One component as it is now: `pid` is None where it does not run, `missing` None where it is ready."""

    name: str
    pid: int | None
    missing: str | None
    memory: int
    """Resident bytes."""

    @property
    def ready(self) -> bool:
        return self.missing is None


class ControlPlane:
    """The control plane of one lab folder, whose API server listens at `address`."""

    def __init__(self, lab: paths.LabDir, programs: recipe.Programs, address: str = components.LOOPBACK) -> None:
        self.lab = lab
        self.programs = programs
        self.address = address

    @property
    def url(self) -> str:
        """The API server's URL. Raises `errors.LabError` before the first `start`."""
        return last_site(self.lab).url

    @property
    def audit_log(self) -> Path:
        """One JSON object a line, for each write: who, what, and the answer's code."""
        return components.audit_log(self.lab)

    def start(self, steps: progress.Steps) -> None:
        """Make all three components run and be ready.

        Raises `errors.LabError`, with the last lines of its log, for a component that stops or is not ready in time.
        """
        self.lab.create()
        with files.hold(self.lab.lock):
            self._start(steps)

    def stop(self) -> None:
        """Leave no process. The data, keys and ports stay for the next `start`."""
        stop(self.lab)

    def kill(self, *names: str) -> None:
        """Kill these components of `components.NAMES`, or all, as an accident does. `start` makes them run again."""
        for name in names or components.NAMES:
            process.kill(components.pid_file(self.lab, name))

    def backup(self, folder: Path, steps: progress.Steps) -> None:
        """Copy everything that the API holds to `folder`; etcd is away for that long, and the API server waits.

        Raises `errors.LabError`.
        """
        with files.hold(self.lab.lock):
            # What it has answered is in its log, and it reads that as after any crash: no need to wait for its clients.
            process.kill(components.pid_file(self.lab, components.ETCD))
            try:
                backup.take(self.lab, folder)
            finally:
                self._start(steps)

    def restore(self, folder: Path, steps: progress.Steps) -> None:
        """Take the API back to what `backup` copied to `folder`. Raises `errors.LabError`.

        Nothing of the control plane runs meanwhile: an API server would go on telling what it has in memory
        (https://kubernetes.io/docs/tasks/administer-cluster/configure-upgrade-etcd/#restoring-an-etcd-cluster).
        """
        backup.check(folder)
        with files.hold(self.lab.lock):
            # A disaster leaves nobody time to finish, and what they would finish is gone.
            for name in reversed(components.NAMES):
                process.kill(components.pid_file(self.lab, name))
            backup.put_back(self.lab, folder)
            self._start(steps)

    def status(self) -> tuple[Status, ...]:
        return status(self.lab)

    def kubeconfig(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """Write a kubeconfig for `user` in `groups`, as RBAC knows them, and return its path.

        Written anew each time, so that it has the API server's present URL and a fresh certificate.
        """
        site = last_site(self.lab)
        # A colon, as in `system:node`, would separate two files in the variable KUBECONFIG.
        name = urllib.parse.quote(user, safe="")
        path = self.lab.kubeconfigs / name
        client = self._authority("ca").issue(f"user-{name}", pki.Identity(user, groups))
        files.replace(path, kubeconfig.render(_cluster(site), user, client))
        return path

    def _start(self, steps: progress.Steps) -> None:
        site = self._settle()
        self._issue(site)
        asked = components.endpoints(site)
        for daemon in components.daemons(site, self.programs):
            _bring_up(daemon, asked[daemon.name], steps)

    def _settle(self) -> components.Site:
        """Decide the ports, and remember them before anything listens there."""
        before = state.read(self.lab, _SECTION)
        running = {name for name in components.NAMES if process.find(components.pid_file(self.lab, name))}
        held = {
            components.ETCD: {"etcd", "etcd_peer"},
            components.API_SERVER: {"api"} if before.get("address") == self.address else set(),
            components.CONTROLLERS: {"controllers"},
        }
        in_use = frozenset[str]().union(*(held[name] for name in running))
        chosen = ports.choose(before.get("ports", {}), in_use, self.address, random.SystemRandom())
        state.write(self.lab, _SECTION, {"address": self.address, "ports": chosen.wire()})
        return components.Site(self.lab, self.address, chosen)

    def _issue(self, site: components.Site) -> None:
        """Have every certificate, key and kubeconfig there that the components and the administrator need."""
        authority, etcd_authority = self._authority("ca"), self._authority("etcd-ca")
        local = (components.LOOPBACK, "localhost")
        own_addresses = tuple(dict.fromkeys((site.address, *local)))
        authority.issue("apiserver", pki.Identity("kube-apiserver", served_at=own_addresses))
        authority.issue("controllers-server", pki.Identity("kube-controller-manager", served_at=local))
        etcd_authority.issue("etcd", pki.Identity("etcd", served_at=local))
        etcd_authority.issue("etcd-client", pki.Identity("kube-apiserver"))
        pki.key_pair(self.lab.pki, "service-accounts")
        # With the rights of its own role, the garbage collector could not see what custom resources own, and deletions
        # would never finish.
        controllers = authority.issue(
            "controllers", pki.Identity("system:kube-controller-manager", ("system:masters",))
        )
        files.replace(
            components.controllers_kubeconfig(self.lab),
            kubeconfig.render(_cluster(site), "system:kube-controller-manager", controllers),
        )
        administrator = authority.issue("admin", _ADMINISTRATOR)
        files.replace(self.lab.kubeconfig, kubeconfig.render(_cluster(site), _ADMINISTRATOR.common_name, administrator))

    def _authority(self, name: str) -> pki.Authority:
        return pki.Authority(self.lab.pki, name, datetime.datetime.now(datetime.UTC))


def remembered_address(lab: paths.LabDir) -> str | None:
    """The address that this lab's API server was last started at; None for a lab that never was."""
    found = state.read(lab, _SECTION).get("address")
    return str(found) if found else None


def stop(lab: paths.LabDir) -> None:
    """Stop the control plane of `lab`, whatever of it runs; it needs no programs for that."""
    if not lab.exists:
        return
    with files.hold(lab.lock):
        # Clients before servers: each can then finish what it has begun.
        for name in reversed(components.NAMES):
            process.stop(components.pid_file(lab, name), deadline=components.GRACE)


def status(lab: paths.LabDir) -> tuple[Status, ...]:
    """The components as they are now. Raises `errors.LabError` where there never was a control plane."""
    asked = components.endpoints(last_site(lab))
    return tuple(_look(lab, name, asked[name]) for name in components.NAMES)


def _look(lab: paths.LabDir, name: str, endpoint: probe.Endpoint) -> Status:
    running = process.find(components.pid_file(lab, name))
    if running is None:
        return Status(name, pid=None, missing="it does not run", memory=0)
    return Status(name, running.pid, probe.what_is_missing(endpoint), process.memory(running.pid))


def last_site(lab: paths.LabDir) -> components.Site:
    """The control plane of `lab` as it was last started. Raises `errors.LabError` where it never was."""
    found = state.read(lab, _SECTION)
    if not found:
        raise errors.LabError(f"There is no lab in {lab.root}.", next_step="Bring one up: `corral lab up`.")
    return components.Site(lab, found["address"], ports.Ports(**found["ports"]))


def _cluster(site: components.Site) -> kubeconfig.Cluster:
    return kubeconfig.Cluster(site.url, site.pki("ca").certificate)


def _bring_up(daemon: process.Daemon, endpoint: probe.Endpoint, steps: progress.Steps) -> None:
    running = process.find(daemon.pid_file)
    as_wanted = running is not None and running.fingerprint == daemon.fingerprint
    if as_wanted and probe.what_is_missing(endpoint) is None:
        return
    with steps.step(daemon.name) as step:
        _start_and_wait(daemon, endpoint, step)


def _start_and_wait(daemon: process.Daemon, endpoint: probe.Endpoint, step: progress.Step) -> None:
    before = process.find(daemon.pid_file)
    running = process.start(daemon)
    while (missing := probe.what_is_missing(endpoint)) is not None:
        if process.find(daemon.pid_file) is None:
            if running != before:
                raise _failed(daemon, f"stopped {step.elapsed:.1f} s after its start")
            # It was dying when we came, and only now is gone.
            running = process.start(daemon)
        if step.elapsed > READY_WITHIN:
            raise _failed(daemon, f"is not ready after {step.elapsed:.0f} s ({missing})")
        step.note(missing)
        time.sleep(_POLL)


def _failed(daemon: process.Daemon, what: str) -> errors.LabError:
    return errors.LabError(
        f"{daemon.name} {what}. The last lines of its log, {daemon.log}:\n{process.tail(daemon.log)}",
        next_step="Mend what the log names, then `corral lab up` again; or begin afresh: `corral lab down`.",
    )
