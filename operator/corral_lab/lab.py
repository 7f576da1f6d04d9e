"""The lab as a whole: control plane, controller, hosts with their agents, images, and how a shell reaches the guests.

`corral lab`, the demo and the tests' fixture use it. `up` is level-triggered: it looks at what runs and does what is
missing, so that run again it mends, and on a lab that is well it takes a second.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from corral import access
from corral.api import v1alpha1
from corral.crds import generate
from corral_lab import errors, files, kubectl, objects, paths, process, progress, shell, state
from corral_lab.control_plane import plane
from corral_lab.fabric import fabric
from corral_lab.guest import build as guest_build
from corral_lab.guest import debian
from corral_lab.host import frr, libvirtd, lifecycle, management, namespace
from corral_lab.host import programs as host_programs
from corral_lab.options import Options
from corral_lab.programs import build, recipe

CONTROLLER = "controller"
IMAGES = "images"
AGENT = "agent"
READY_WITHIN = 90
"""Seconds until every Host must be Ready."""

METRICS_PORT = 9180
"""Where the controller serves its metrics, at the machine's management address, and agents at their host's loopback."""

_SECTION = "lab"


class Lab:
    """One lab, in one folder. All that is needed of the machine is root and the packages that `make setup` installs."""

    def __init__(self, folder: paths.LabDir, cache: paths.Cache) -> None:
        self.folder = folder
        self.cache = cache

    @property
    def name(self) -> str:
        """Names this lab's namespaces: two folders of the same name are two labs."""
        word = re.sub(r"[^a-z0-9]+", "-", self.folder.root.name.lower()).strip("-")[:16] or "lab"
        return f"{word}-{hashlib.sha256(str(self.folder.root).encode()).hexdigest()[:4]}"

    def options(self) -> Options | None:
        """What the lab was last brought up with; None where it never was."""
        kept = state.read(self.folder, _SECTION)
        return Options.read(kept) if kept else None

    def hosts(self) -> tuple[namespace.Host, ...]:
        """The hosts that this lab has, or had when it was last up."""
        count = (self.options() or Options(hosts=0)).hosts
        return tuple(self.host(number) for number in range(1, count + 1))

    def host(self, number: int) -> namespace.Host:
        """The host of this number, from 1."""
        name = f"h{number}"
        return namespace.Host(lab=self.name, name=name, folder=self.folder.root / "hosts" / name)

    def spines(self) -> tuple[namespace.Host, ...]:
        """The spines that this lab has, or had when it was last up."""
        options = self.options()
        return () if options is None else self.fabric(options).spines

    def fabric(self, options: Options) -> fabric.Fabric:
        """The spines of a lab that is, or is to be, brought up with these options."""
        return fabric.Fabric(self.name, self.folder.root / "spines", options)

    def up(self, options: Options, steps: progress.Steps) -> kubectl.Kubectl:
        """Bring everything up, and return a kubectl with all rights. Raises `errors.LabError`."""
        _check_root()
        person = shell.Person.find(os.environ)
        net = management.Management(self.name, options.address)
        self._check(options, net)
        shell.make(self.cache.root, person)
        programs = build.provide(self.cache, os.environ, steps)
        image = self._guest_image(steps)
        shell.make(self.folder.root.parent, person)
        self.folder.create()
        self._remember(options, net, image)
        control_plane = plane.ControlPlane(self.folder, programs, str(options.address))
        control_plane.start(steps)
        direct = (options.management, options.guests, options.guests6)
        shell.write(self.folder, programs.kubectl, direct, person)
        api = self.kubectl(programs)
        with steps.step("Corral's kinds and rights"):
            kinds = [generate.crd(one.kind, one.spec, one.status, one.description) for one in v1alpha1.RESOURCES]
            api.apply(*kinds)
            api.apply_text(access.manifests())
            api.wait("condition=Established", "crd", *(one.kind.crd_name for one in v1alpha1.RESOURCES))
        process.start(self._images(options))
        process.start(self._controller(control_plane))
        with steps.step("fabric"):
            self._fabric_up(options)
        with steps.step(f"{options.hosts} {'host' if options.hosts == 1 else 'hosts'}"):
            for number in range(1, options.hosts + 1):
                self._host_up(options, number, net)
            frr.start(self.hosts())
            for number in range(1, options.hosts + 1):
                self._agent_up(control_plane, number)
            self.fabric(options).admit()
            hosts = [
                objects.host(host.name, number, options.host_loopback(number))
                for number, host in enumerate(self.hosts(), start=1)
            ]
            api.apply(objects.image(image, self._url(options)), *hosts)
        with steps.step("agents answer") as step:
            step.note("waiting for every Host to be Ready")
            if options.hosts:
                api.wait("condition=Ready", "hosts.corral.dev", "--all", seconds=READY_WITHIN)
        return api

    def kubectl(self, programs: recipe.Programs | None = None) -> kubectl.Kubectl:
        """A kubectl with all rights on this lab, which was up before."""
        found = programs or build.provide(self.cache, os.environ, progress.silent())
        return kubectl.Kubectl(found.kubectl, self.folder.kubeconfig, self.folder.kubectl_cache)

    def add_debian(self, steps: progress.Steps) -> str:
        """Offer the ClusterImage `debian-12` in the lab, which is up, and return its name.

        Built where it is not in the cache. Raises `errors.LabError`.
        """
        options = self._known()
        kept = state.read(self.folder, _SECTION)
        # As of the small guest: disks are clones of the first, and its object never changes.
        made = debian.load(self.cache, kept.get("debian", "none")) or debian.provide(self.cache, steps)
        with files.hold(self.folder.lock):
            kept = state.read(self.folder, _SECTION)
            state.write(self.folder, _SECTION, {**kept, "debian": made.path.parent.name})
        process.start(self._images(options))
        self.kubectl().apply(objects.debian(made, self._url(options)))
        return debian.NAME

    def restart(self) -> None:
        """Start the controller and the agents anew, as after a change of their code. Guests run on."""
        control_plane = self.control_plane()
        process.stop(self._pid_file(CONTROLLER))
        process.start(self._controller(control_plane))
        for number, host in enumerate(self.hosts(), start=1):
            host_programs.stop(host, AGENT)
            self.start_agent(number)

    def start_controller(self, *options: str) -> None:
        """Make the controller run with these options besides; nothing where it does. The lab was up before."""
        process.start(self._controller(self.control_plane(), *options))

    def start_agent(self, number: int, *options: str) -> None:
        """Make the agent of this host run with these options besides; nothing where it does. The lab was up before."""
        self._agent_up(self.control_plane(), number, *options)

    def reboot(self, number: int) -> None:
        """Cut this host's power, and boot it again."""
        self.cut_power(number)
        self.boot(number)

    def cut_power(self, number: int) -> None:
        """End all that runs on this host at once, guests too, and its network: what is on its disks stays."""
        _check_root()
        host = self.host(number)
        lifecycle.cut_power(host)
        management.disconnect(host)

    def boot(self, number: int) -> None:
        """Have this host up again with its libvirtd and its agent. The API server need not be there."""
        options = self.options()
        if options is None or number > options.hosts:
            raise errors.LabError(
                f"The lab in {self.folder.root} has no host {number}.", next_step="See `corral lab status`."
            )
        self._host_up(options, number, management.Management(self.name, options.address))
        frr.start([self.host(number)])
        self.start_agent(number)

    def reboot_spine(self, number: int) -> None:
        """Cut this spine's power, and boot it again."""
        self.cut_spine(number)
        self.boot_spines()

    def cut_spine(self, number: int) -> None:
        """End all that runs on this spine at once. Packets go by the other one."""
        _check_root()
        self.fabric(self._known()).cut_power(number)

    def boot_spines(self) -> None:
        """Have every spine up again, cabled to every host that is up. The API server need not be there."""
        options = self._known()
        self._fabric_up(options)
        for host in self.hosts():
            if process.find(host.supervisor):
                self.fabric(options).connect(host)
        self.fabric(options).admit()

    def down(self, *, keep: bool) -> None:
        """End everything: no process, namespace, mount, interface or route is left, and no file unless `keep`."""
        _check_root()
        options = self.options()
        process.stop(self._pid_file(CONTROLLER))
        for host in self.hosts():
            host_programs.stop(host, AGENT)
            management.disconnect(host)
            (lifecycle.stop if keep else lifecycle.down)(host)
        if options is not None:
            self.fabric(options).down(keep=keep)
        process.stop(self._pid_file(IMAGES))
        plane.stop(self.folder)
        if options is not None:
            management.Management(self.name, options.address).down()
        if not keep:
            self.folder.remove()

    def status(self) -> Iterator[plane.Status]:
        """Every process of the lab as it is now."""
        yield from plane.status(self.folder)
        for name in (IMAGES, CONTROLLER):
            yield _seen(name, process.find(self._pid_file(name)))
        spines = self.spines()
        for host in (*spines, *self.hosts()):
            yield _seen(f"{host.name} supervisor", process.find(host.supervisor))
            for name in frr.NAMES if host in spines else (*frr.NAMES, libvirtd.NAME, AGENT):
                yield _seen(f"{host.name} {name}", host_programs.find(host, name))

    def _known(self) -> Options:
        """What the lab was last brought up with. Raises `errors.LabError` where it never was."""
        options = self.options()
        if options is None:
            raise errors.LabError(f"There is no lab in {self.folder.root}.", next_step="Bring one up: `corral lab up`.")
        return options

    def _check(self, options: Options, net: management.Management) -> None:
        """Refuse what can't be, before anything is changed."""
        options.check()
        before = self.options()
        if before is not None and before != options:
            raise errors.LabError(
                f"The lab in {self.folder.root} is there with other options: {before}.",
                next_step="Take it down first, with `corral lab down`, or name another folder with --dir.",
            )
        members = tuple(self.host(number) for number in range(1, options.hosts + 1))
        net.check(options.management, members)
        self.fabric(options).check(members)

    def _guest_image(self, steps: progress.Steps) -> guest_build.GuestImage:
        """What the lab's image was made from first: its disks are clones of it, and its object never changes."""
        kept = guest_build.load(self.cache, state.read(self.folder, _SECTION).get("guest", "none"))
        if kept is None:
            return guest_build.provide(self.cache, steps)
        if not guest_build.is_newest(kept):
            steps.say("This lab keeps the guest image that it began with; for the newer one, `corral lab down` first.")
        return kept

    def _remember(self, options: Options, net: management.Management, image: guest_build.GuestImage) -> None:
        """Keep the options before the first change, so that `down` knows what to take back; then the first change."""
        with files.hold(self.folder.lock):
            kept = state.read(self.folder, _SECTION)
            state.write(self.folder, _SECTION, {**kept, **options.wire()})
            net.up(options.management)
            port = kept.get("imagesPort") or _free_port(str(options.address))
            chosen = {"imagesPort": port, "guest": image.folder.name}
            state.write(self.folder, _SECTION, {**kept, **options.wire(), **chosen})

    def control_plane(self) -> plane.ControlPlane:
        """The control plane of the lab, which was up before. Raises `errors.LabError` where it never was."""
        programs = build.provide(self.cache, os.environ, progress.silent())
        address = plane.remembered_address(self.folder)
        if address is None:
            raise errors.LabError(f"There is no lab in {self.folder.root}.", next_step="Bring one up: `corral lab up`.")
        return plane.ControlPlane(self.folder, programs, address)

    def _url(self, options: Options) -> str:
        return f"http://{options.address}:{state.read(self.folder, _SECTION)['imagesPort']}"

    def _images(self, options: Options) -> process.Daemon:
        kept = state.read(self.folder, _SECTION)
        names = [kept[image] for image in ("guest", "debian") if image in kept]
        folders = [option for name in names for option in ("--folder", str(self.cache.guest / name))]
        where = (*folders, "--address", str(options.address), "--port", str(kept["imagesPort"]))
        return self._daemon(IMAGES, self._python("corral_lab.guest.serve", *where))

    def _controller(self, control_plane: plane.ControlPlane, *options: str) -> process.Daemon:
        kubeconfig = control_plane.kubeconfig("corral:controller")
        metrics = f"{control_plane.address}:{METRICS_PORT}"
        settings = ("--kubeconfig", str(kubeconfig), "--metrics", metrics, *options)
        return self._daemon(CONTROLLER, self._python("corral", "controller", "run", *settings))

    def _python(self, module: str, *arguments: str) -> tuple[str, ...]:
        return ("env", f"TMPDIR={self.folder.temporary}", sys.executable, "-m", module, *arguments)

    def _daemon(self, name: str, argv: tuple[str, ...]) -> process.Daemon:
        return process.Daemon(name, argv, self._pid_file(name), self.folder.logs / f"{name}.log")

    def _pid_file(self, name: str) -> Path:
        return self.folder.run / f"{name}.pid"

    def _fabric_up(self, options: Options) -> None:
        spines = self.fabric(options)
        (self.folder.root / "spines").mkdir(mode=0o711, exist_ok=True)
        spines.up(f"h{number}" for number in range(1, options.hosts + 1))

    def _host_up(self, options: Options, number: int, net: management.Management) -> None:
        host = self.host(number)
        host.folder.parent.mkdir(mode=0o711, exist_ok=True)
        lifecycle.up(host)
        net.connect(host, options.host_address(number))
        self.fabric(options).connect(host)
        libvirtd.start(host)

    def _agent_up(self, control_plane: plane.ControlPlane, number: int, *options: str) -> None:
        host = self.host(number)
        kubeconfig = control_plane.kubeconfig(f"corral:agent:{host.name}")
        settings = ("--host", host.name, "--kubeconfig", str(kubeconfig), "--state", str(host.folder / "corral"))
        # On the host's loopback, which no guest reaches.
        metrics = ("--metrics", f"127.0.0.1:{METRICS_PORT}")
        host_programs.start(host, AGENT, self._python("corral", "agent", "run", *settings, *metrics, *options))


def _seen(name: str, running: process.Running | None) -> plane.Status:
    if running is None:
        return plane.Status(name, pid=None, missing="it does not run", memory=0)
    return plane.Status(name, running.pid, missing=None, memory=process.memory(running.pid))


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def _check_root() -> None:
    if os.geteuid() != 0:
        raise errors.LabError(
            "The lab makes network namespaces and starts hypervisors: it needs root.",
            next_step="Run the same command with sudo, or as root.",
        )
