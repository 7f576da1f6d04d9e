"""The tour that `make demo` ends with: a guest made, reached, killed and back; a mistake, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from corral_lab import errors, kubectl, progress
from corral_lab.host import namespace
from corral_lab.lab import Lab
from corral_lab.options import Prefix

HOSTS = 3
"""How many hosts a demo has, where nobody says otherwise."""

NAMESPACE = "default"
HELLO = "hello"
APART = "apart"
MISTAKEN = "mistaken"
ANSWERS_WITHIN = 90.0

_OPERATOR = ("operator/classes.yaml", "operator/network.yaml", "operator/cloud.yaml")


@dataclass(frozen=True, slots=True)
class Examples:
    """The project's examples, and the prefixes that this lab routes: the pool of the examples has the default lab's."""

    folder: Path
    guests: tuple[Prefix, ...]

    def text(self, name: str) -> str:
        """The manifests of one file, as they are applied to this lab."""
        manifests = list(yaml.safe_load_all((self.folder / name).read_text()))
        for one in manifests:
            if one["kind"] == "IPPool":
                one["spec"]["prefixes"] = [str(prefix) for prefix in self.guests]
        return yaml.safe_dump_all(manifests, sort_keys=False)


def show(lab: Lab, api: kubectl.Kubectl, steps: progress.Steps, examples: Examples) -> None:
    """Run the tour on a lab that is up. Raises `errors.LabError` where something does not come true."""
    for name in _OPERATOR:
        api.apply_text(examples.text(name))
    with steps.step("a virtual machine: kubectl apply -f examples/vm.yaml"):
        api.apply_text(examples.text("vm.yaml"))
        api.wait("condition=Ready", f"vm.corral.dev/{HELLO}", seconds=120)
    address = _address(api, HELLO)
    with steps.step(f"its own answer: curl http://{address}/"):
        answer = answers(address)
    steps.say(f"    {answer}")
    if len(lab.hosts()) > 1:
        _show_another_host(api, steps, examples, address)
    _print(api, steps, "get", "vm.corral.dev", "-o", "wide")

    with steps.step("its QEMU killed, and the guest back"):
        before = boots(address)
        os.kill(qemu_pid(_host(lab, api, HELLO), HELLO), signal.SIGKILL)
        _until_rebooted(address, before)
        api.wait("condition=Ready", f"vm.corral.dev/{HELLO}", seconds=60)
        after = _address(api, HELLO)
    steps.say(f"    http://{after}/ answers again, from the same disk and {_same(address, after)}")

    with steps.step("a mistake: kubectl apply -f examples/vm-wrong-image.yaml"):
        api.apply_text(examples.text("vm-wrong-image.yaml"))
        api.wait("jsonpath={.status.observedGeneration}=1", f"vm.corral.dev/{MISTAKEN}", seconds=30)
    _print(api, steps, "get", f"vm.corral.dev/{MISTAKEN}", "-o", "wide")
    steps.say("    " + _ready(api, MISTAKEN)["message"])
    api.run("delete", f"vm.corral.dev/{MISTAKEN}")
    _farewell(lab, steps, address)


def _show_another_host(api: kubectl.Kubectl, steps: progress.Steps, examples: Examples, address: str) -> None:
    """A second guest on another host, and what the first is told by it."""
    with steps.step("another, on another host: kubectl apply -f examples/vm-apart.yaml"):
        api.apply_text(examples.text("vm-apart.yaml"))
        api.wait("condition=Ready", f"vm.corral.dev/{APART}", seconds=120)
    other = _address(api, APART)
    answers(other)
    with steps.step(f"the first asks it: curl -d '' 'http://{address}/cgi-bin/fetch?{other}'"):
        told = answers(address, f"/cgi-bin/fetch?{other}", body=b"")
    steps.say(f"    {told}")


def answers(address: str, path: str = "/", *, body: bytes | None = None, within: float = ANSWERS_WITHIN) -> str:
    """What the guest's own web server says. Raises `errors.LabError` where it says nothing in time."""
    deadline = time.monotonic() + within
    while True:
        try:
            # The lab's own guest, at an address that the lab routes: never a proxy's business.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{address}{path}", data=body, timeout=5 if body is not None else 2) as answer:
                return str(answer.read().decode().strip())
        except OSError as error:
            if time.monotonic() > deadline:
                raise errors.LabError(
                    f"The guest does not answer at http://{address}{path} after {within:.0f} s ({error}).",
                    next_step="Look at its console's log, in the folder of its host below the lab's folder.",
                ) from error
            time.sleep(0.1)


def boots(address: str) -> int:
    """How many times the guest's root disk was booted from, as the guest counts."""
    return int(json.loads(answers(address, "/meta.json"))["boots"])


def qemu_pid(host: namespace.Host, name: str) -> int:
    """The pid of the guest's QEMU on this host. Raises `errors.LabError` where none runs there."""
    for file in (host.own("/run") / "libvirt" / "qemu").glob(f"{NAMESPACE}.{name}.*.pid"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            return int(file.read_text())
    raise errors.LabError(
        f"No QEMU of VirtualMachine {name} runs on host {host.name}.", next_step="kubectl get vm.corral.dev -o wide"
    )


def _until_rebooted(address: str, before: int) -> None:
    deadline = time.monotonic() + ANSWERS_WITHIN
    while boots(address) <= before:
        if time.monotonic() > deadline:
            raise errors.LabError("The guest did not come back.", next_step="kubectl get vm.corral.dev -o wide")
        time.sleep(0.2)


def _host(lab: Lab, api: kubectl.Kubectl, name: str) -> namespace.Host:
    placed = api.get(f"vm.corral.dev/{name}")["status"]["placement"]["host"]
    return next(host for host in lab.hosts() if host.name == placed)


def _address(api: kubectl.Kubectl, name: str) -> str:
    status = api.get(f"vm.corral.dev/{name}")["status"]
    return str(status["placement"]["addresses"][0]["address"])


def _ready(api: kubectl.Kubectl, name: str) -> dict[str, str]:
    conditions = api.get(f"vm.corral.dev/{name}")["status"]["conditions"]
    return next(one for one in conditions if one["type"] == "Ready")


def _same(before: str, after: str) -> str:
    return "at the same address" if before == after else f"at another address than {before}"


def _print(api: kubectl.Kubectl, steps: progress.Steps, *arguments: str) -> None:
    steps.say(f"    $ kubectl {' '.join(arguments)}")
    for line in api.run(*arguments).splitlines():
        steps.say(f"    {line}")


def _farewell(lab: Lab, steps: progress.Steps, address: str) -> None:
    where = lab.folder.env
    short = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
    steps.say(
        f"""
The cloud is up, and stays up. From this shell:

    source {short}
    ping -c 3 {address}
    kubectl get vm.corral.dev -o wide
    kubectl explain vm.spec

`make demo-down` takes it down and leaves nothing behind."""
    )
