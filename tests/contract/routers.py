"""Two routers with FRR on one cable or two, each in a network namespace of a test's own, for the contract of BGP."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

DAEMONS = pathlib.Path("/usr/lib/frr")

WITHIN = 20.0
"""Seconds: far more than FRR needs, on a machine that does other things too."""

SPINE = """
frr defaults traditional
!
interface dn1
 ipv6 nd ra-interval 1
exit
!
interface dn2
 ipv6 nd ra-interval 1
exit
!
router bgp 4200000001
 bgp router-id 100.87.255.1
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart restart-time 30
 bgp bestpath as-path multipath-relax
 coalesce-time 50
 neighbor dn1 interface remote-as external
 neighbor dn1 timers connect 1
 neighbor dn1 timers 1 3
 neighbor dn2 interface remote-as external
 neighbor dn2 timers connect 1
 neighbor dn2 timers 1 3
 !
 address-family ipv4 unicast
  network 0.0.0.0/0
  network 10.77.9.0/26
  network 10.77.5.0/26
  network 169.254.1.1/32
  neighbor dn1 activate
  neighbor dn2 activate
  maximum-paths 8
 exit-address-family
 !
 address-family ipv6 unicast
  network 2001:db8:ffff::/48
  neighbor dn1 activate
  neighbor dn2 activate
  maximum-paths 8
 exit-address-family
exit
"""
"""What a fabric says: a default route, another host's block, and what no host may believe.

It tells of itself each second, by which a host finds it, and waits no second for more before it tells a new neighbor.
"""


class Router:
    """One network namespace with zebra and bgpd in it; all files are in one folder, which FRR's user may write."""

    def __init__(self, name: str) -> None:
        self.namespace = f"corral-bgp-{os.getpid()}-{name}"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="corral-bgp-"))
        self.folder.chmod(0o755)
        (self.folder / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        (self.folder / "empty").touch()
        shutil.chown(self.folder, "frr", "frr")
        run("ip", "netns", "add", self.namespace)
        self.ip("link", "set", "lo", "up")
        for switch in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            run("ip", "netns", "exec", self.namespace, "sysctl", "-qw", f"{switch}=1")

    @property
    def file(self) -> pathlib.Path:
        return self.folder / "frr.conf"

    def start(self, *daemons: str, options: tuple[str, ...] = ()) -> None:
        """Start them as Debian's frrinit does: empty, and then told what stands in the file."""
        for daemon in daemons:
            own = {"zebra": ("-r", "-K", "60", "-s", "90000000"), "bgpd": ("-p", "179")}.get(daemon, ())
            run(
                *("ip", "netns", "exec", self.namespace, f"{DAEMONS}/{daemon}", "-d", "-u", "frr", "-g", "frr"),
                *("-P", "0", "-f", f"{self.folder}/empty", "-i", f"{self.folder}/{daemon}.pid"),
                *("-z", f"{self.folder}/zserv.api", "--vty_socket", str(self.folder), "--log", "file:/dev/null"),
                *own,
                *options,
            )
        if self.file.exists():
            for daemon in daemons:
                self.vtysh("-b", "-d", daemon)

    def stop(self, *daemons: str, by: signal.Signals = signal.SIGKILL) -> None:
        """End them, all at once, and wait until they are gone."""
        found = [(one, self.folder / f"{one}.pid") for one in daemons if (self.folder / f"{one}.pid").exists()]
        processes = [int(file.read_text()) for _, file in found]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, by)
        eventually(lambda: not any(map(_lives, processes)))
        for daemon, file in found:
            file.unlink(missing_ok=True)
            (self.folder / f"{daemon}.vty").unlink(missing_ok=True)

    def vtysh(self, *words: str) -> str:
        return run("vtysh", "--vty_socket", str(self.folder), "--config_dir", str(self.folder), *words)

    def say(self, *statements: str) -> None:
        """Configure by hand."""
        self.vtysh("-c", "configure terminal", *(word for one in statements for word in ("-c", one)))

    def ip(self, *words: str) -> str:
        return run("ip", "-n", self.namespace, *words)

    def routes(self, protocol: str = "bgp") -> dict[str, dict[str, Any]]:
        """The kernel's routes of a protocol, by their prefix as we write it."""
        found = {}
        for family, longest in (("-4", 32), ("-6", 128)):
            for route in json.loads(self.ip("-json", family, "route", "show", "proto", protocol) or "[]"):
                prefix = route["dst"].replace("default", "0.0.0.0/0" if longest == 32 else "::/0")
                found[prefix if "/" in prefix else f"{prefix}/{longest}"] = route
        return found

    def remove(self) -> None:
        self.stop("bgpd", "zebra", "bfdd")
        run("ip", "netns", "delete", self.namespace)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def cabled() -> Iterator[tuple[Router, Router]]:
    """A host with up1 and up2, and a spine with dn1 and dn2 at their other ends, which speaks already."""
    host, spine = Router("host"), Router("spine")
    try:
        for number in (1, 2):
            ends = (f"up{number}", "netns", host.namespace), (f"dn{number}", "netns", spine.namespace)
            run("ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
            host.ip("link", "set", f"up{number}", "up")
            spine.ip("link", "set", f"dn{number}", "up")
        spine.file.write_text(SPINE)
        spine.start("zebra", "bgpd")
        yield host, spine
    finally:
        host.remove()
        spine.remove()


def run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def eventually(holds: Callable[[], bool], within: float = WITHIN) -> float:
    """Wait until it holds; in how many seconds it did."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within, "it did not come true"
        time.sleep(0.02)
    return time.monotonic() - begun


def _lives(process: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
